"""The scenario as data: one frozen pydantic model for each block of the YAML file (spec section 2).

Only shapes, types and defaults live here. Lines, nearest keys and relative paths are `loading`'s, SQL is
`expressions`', and what a key does is the replay's.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

Head = Literal["ctr", "cvr", "ctcvr"]
HEADS: tuple[Head, ...] = ("ctr", "cvr", "ctcvr")
SampleType = Literal["imp-click", "click-conversion", "imp-conversion"]
SAMPLE_HEAD: dict[str, Head] = {"imp-click": "ctr", "click-conversion": "cvr", "imp-conversion": "ctcvr"}
PREDICTION_COLUMN: dict[Head, str] = {"ctr": "pctr", "cvr": "pcvr", "ctcvr": "pctcvr"}

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Expression = Annotated[str, Field(min_length=1, max_length=10_000)]
Action = Literal["fail", "warn", "ignore"]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class LogTable(Block):
    """A table of the log. Without a path it is bound on the command line (``--table NAME=PATH``)."""

    path: str | None = Field(
        default=None, description="file, folder, glob or address in a store (s3://...), relative to the scenario file"
    )
    table: Annotated[str, Field(pattern=r"^\w+(\.\w+){0,2}$")] | None = Field(
        default=None, description="a table of the Spark session's catalog, such as db.name, instead of a path"
    )
    format: Literal["parquet", "csv", "ndjson", "iceberg", "delta"] | None = Field(
        default=None, description="default: told from the file's ending"
    )
    version: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of a Delta table; default: the newest, which run.json names"
    )
    snapshot: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of an Iceberg table, its id; default: the current one, which run.json names"
    )
    last_hour: str | None = Field(default=None, description="the last hour read, inclusive (ISO 8601)")
    duration_hour: Annotated[int, Field(ge=1)] | None = Field(default=None, description="how many hours are read")

    @model_validator(mode="after")
    def _window_is_whole(self) -> LogTable:
        if (self.last_hour is None) != (self.duration_hour is None):
            raise ValueError("last_hour and duration_hour go together: give both or neither")
        return self

    @model_validator(mode="after")
    def _versions_are_of_their_format(self) -> LogTable:
        for key, format in (("version", "delta"), ("snapshot", "iceberg")):
            if getattr(self, key) is not None and self.format != format:
                raise ValueError(f"{key} is of a table with format: {format}")
        return self


class Columns(Block):
    """Log column, or SQL expression over log columns, for each role. A role left out is the column of its own name."""

    time: Expression | None = None
    unit: Expression | None = None
    request: Expression | None = None
    campaign: Expression | None = None
    exchange: Expression | None = Field(default=None, description="for the table of what can be known of each")
    price: Expression | None = Field(default=None, description="currency per 1000 impressions")
    floor: Expression | None = Field(default=None, description="currency per 1000 impressions")
    bid: Expression | None = Field(default=None, description="the logged bid, currency per 1000 impressions")
    won: Expression | None = Field(
        default=None, validation_alias=AliasChoices("won", "win"), description="whether the log won; may be written win"
    )
    loss_reason: Expression | None = Field(default=None, description="OpenRTB loss reason code")
    click: Expression | None = None
    conversion: Expression | None = None
    click_time: Expression | None = Field(default=None, description="when the click happened")
    conversion_time: Expression | None = Field(default=None, description="when the (first) conversion happened")
    weight: Expression | None = None
    pctr: Expression | None = None
    pcvr: Expression | None = None
    pctcvr: Expression | None = None
    target_cpc: Expression | None = Field(default=None, description="currency per click")
    target_cpa: Expression | None = Field(default=None, description="currency per conversion")
    daily_budget: Expression | None = Field(default=None, description="currency")

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        if isinstance(value, dict) and "win" in value and "won" in value:
            raise ValueError("win and won are the same role; keep one")
        return value


ROLES: tuple[str, ...] = tuple(Columns.model_fields)


class PolicyColumns(Block):
    """Predictions that the log already carries."""

    pctr: Expression | None = None
    pcvr: Expression | None = None
    pctcvr: Expression | None = None


class Bid(Block):
    """Bid in currency per 1000 impressions: ``raw = formula * multiplier``, dropped below min, cut at max."""

    formula: Expression | None = Field(default=None, description="default: by performance_indicator_type")
    multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    min: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max: Positive | None = None
    round: Literal["none", "down"] | None = None


class Policy(Block):
    """A way of bidding: a model file or logged prediction columns, with changes to the bid."""

    model: str | None = None
    columns: PolicyColumns | None = None
    bid: Bid | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Policy:
        if self.model is not None and self.columns is not None:
            raise ValueError("give either model or columns, not both")
        return self


class Auction(Block):
    type: Expression = Field(
        default="second_price", description="second_price, first_price, or an SQL expression giving one"
    )
    ties: Literal["win", "lose"] = Field(default="win", description="what happens where bid = price")
    internal: bool = False


class Budget(Block):
    """Money per campaign and period, in currency."""

    amount: Expression | Positive = Field(description="a number, the role daily_budget, or an SQL expression")
    per: Expression = Field("day", description="day, hour, total, or a column or SQL expression")
    pacing: Literal["asap", "even"] = "asap"
    overspend: Literal["last_win", "never"] = "last_win"


class Intervals(Block):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    unit: Expression | None = None


class Maturity(Block):
    """Conversions come late: a row is mature when its conversion window had passed at observed_until.

    immature: drop leaves younger rows out for every policy; weight keeps them and divides their conversions by the
    share of conversions that have come by their age, estimated by campaign from mature rows (needs conversion_time).
    """

    conversion_window_hours: Positive
    observed_until: str = Field(description="up to when conversions were collected (ISO 8601)")
    immature: Literal["drop", "weight"] = "drop"


class CvrJump(Block):
    """When a campaign's conversion rate of a day jumps against all its earlier days: both ratio and z are passed.

    z: two-proportion z statistic (NIST/SEMATECH e-Handbook of Statistical Methods, 7.3.3, as a p chart would be run,
    6.3.3.2); 5 is one false alarm in 3.5 million campaign-days. min_conversions, min_clicks: of the side that is
    higher, and of the side that is lower.
    """

    ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3.0
    z: Positive = 5.0
    min_conversions: Annotated[int, Field(ge=1)] = 10
    min_clicks: Annotated[int, Field(ge=1)] = 100


class ExpectedUtility(Block):
    betas: Annotated[list[Positive], Field(min_length=1, max_length=8)] = Field(
        description="inverse currency per impression (Chapelle 2015)"
    )


class Waiver(Block):
    """Lets a rule's failure pass for a while; who answers for it and why is part of the result."""

    until: str = Field(description="the last day on which the waiver counts, in the scenario's time zone")
    reason: Annotated[str, Field(min_length=1)]
    owner: Annotated[str, Field(min_length=1)]

    @field_validator("until")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f'"{value}" is not a day; write it like 2026-12-31') from None


PERCENT = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*%\s*$", re.ASCII)
Change = Number | str


def _size(change: float | str) -> float:
    match = PERCENT.match(change) if isinstance(change, str) else None
    return float(match.group(1)) if match else float(change)


class Rule(Block):
    """One rule of the gate (spec section 5): a metric, where it is judged, and one bound."""

    metric: str
    name: str | None = None
    head: Head | None = None
    policy: str | None = Field(default=None, description="the candidate judged; default: every candidate")
    by: str | None = Field(default=None, description="a segment: the rule holds for each of its values")
    beta: Positive | None = Field(default=None, description="which expected_utility")
    min_rows: Annotated[float, Field(ge=0)] | None = None
    min_clicks: Annotated[float, Field(ge=0)] | None = None
    min_conversions: Annotated[float, Field(ge=0)] | None = None
    at_most: Number | None = None
    at_least: Number | None = None
    between: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    max_increase: Change | None = Field(default=None, description="absolute, or n% of the baseline")
    max_decrease: Change | None = Field(default=None, description="absolute, or n% of the baseline")
    min_improvement: Change | None = Field(default=None, description="absolute, or n% of the baseline")
    max_width: Change | None = Field(
        default=None, description="the widest interval of the change that will do, absolute or n% of the baseline"
    )
    suspicious: Change | None = Field(
        default=None, description="a gain beyond this, and beyond chance, is too good to be true; warns by default"
    )
    evidence: Literal["interval", "point"] = "interval"
    on_fail: Action = "fail"
    on_inconclusive: Action = "warn"
    on_unidentified: Action = "warn"
    on_insufficient_data: Action = "warn"
    waive: Waiver | None = None

    @field_validator("max_increase", "max_decrease", "min_improvement", "max_width", "suspicious")
    @classmethod
    def _number_or_percent(cls, value: Change | None) -> Change | None:
        if isinstance(value, str) and not PERCENT.match(value):
            raise ValueError(f'"{value}" is neither a number nor a percentage such as 1%')
        if isinstance(value, str) and not math.isfinite(_size(value)):
            raise ValueError(f"{value} is too large for a number")
        return value

    @model_validator(mode="after")
    def _one_bound(self) -> Rule:
        bounds = [b for b in BOUNDS if getattr(self, b) is not None]
        if len(bounds) != 1:
            raise ValueError(f"a rule has exactly one bound of {', '.join(BOUNDS)}; this one has {len(bounds)}")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("between is [low, high] with low <= high")
        for name in ("max_width", "suspicious"):
            given = getattr(self, name)
            if given is not None and _size(given) <= 0:
                raise ValueError(f"{name} must be greater than 0, got {given}")
        if self.max_width is not None and self.evidence == "point":
            raise ValueError("max_width is about the interval; evidence: point has none")
        if bounds[0] not in OF_VALUES and self.metric in OF_CANDIDATES:
            raise ValueError(
                f'{bounds[0]} bounds a change, and "{self.metric}" is of the candidate alone, without a baseline\'s to '
                "change from; bound it with at_most, at_least or between"
            )
        return self

    @property
    def failure_does(self) -> Action:
        """What a failure does: fails, unless the rule says otherwise or only asks for gains too good to be true."""
        return "warn" if self.suspicious is not None and "on_fail" not in self.model_fields_set else self.on_fail


BOUNDS = (
    "at_most",
    "at_least",
    "between",
    "max_increase",
    "max_decrease",
    "min_improvement",
    "max_width",
    "suspicious",
)
# Bounds of the candidate's own value; the others are of its change.
OF_VALUES = BOUNDS[:3]
# Metrics that are about how the candidate differs from the baseline, which itself has none.
OF_CANDIDATES = frozenset(
    {"churn", "disagreement"}
    | {f"{what}_{side}" for what in ("wins", "spend", "clicks", "conversions") for side in ("gained", "lost")}
)


class Spark(Block):
    """How engine spark runs. What decides where code runs beyond this machine is the command line's: --spark."""

    master: Annotated[str, Field(pattern=r"^local(\[(\d+|\*)\])?$")] | None = Field(
        default=None, description="local, local[N] or local[*]; another master comes with --spark master=URL"
    )
    config: dict[str, str | int | float | bool] = Field(
        default={}, description="settings of Spark that change speed only, such as spark.sql.shuffle.partitions"
    )


class Scenario(Block):
    """One evaluation: which rows, which policies, how they bid, and what the gate asks."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = Field(
        default=None, description="default: the file's stem"
    )
    sample_type: SampleType | Annotated[list[SampleType], Field(min_length=1)] | None = Field(
        default=None, description="which heads are judged; default: all that the log can label"
    )
    logs_tables: dict[str, LogTable] = Field(
        min_length=1, description="the log, by table name; one table for now, with a path here or given by --table"
    )
    conditions: Annotated[list[Expression], Field(max_length=200)] = []
    features: Annotated[list[str], Field(max_length=1000)] = []
    remove_anomaly_cvr_cpns: bool | CvrJump = Field(
        default=False,
        validation_alias=AliasChoices("remove_anomaly_cvr_cpns", "remove_anormaly_cvr_cpns"),
        description="leave out campaigns whose CVR is impossible or jumps; a block sets what a jump is",
    )
    performance_indicator_type: Literal["cpc", "cpa"] | None = Field(
        default=None, description="default: cpa where the log has target_cpa, else cpc"
    )
    columns: Columns = Columns()
    campaigns: str | None = Field(
        default=None, description="dimension table (parquet, csv, ndjson) joined on the campaign"
    )
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(default=None, description="ISO 4217 code")
    timezone: str = "UTC"
    baseline: Policy | None = None
    candidates: Annotated[dict[str, Policy], Field(max_length=100)] = {}
    bid: Bid = Bid()
    auction: Auction = Auction()
    outcomes: Literal["observed", "predicted"] = "observed"
    budget: Budget | None = None
    segments: Annotated[list[str | Annotated[dict[str, Expression], Field(min_length=1)]], Field(max_length=500)] = []
    intervals: Intervals | None = None
    expected_utility: ExpectedUtility | None = None
    maturity: Maturity | None = None
    gate: Annotated[list[Rule], Field(max_length=2000)] = []
    fidelity: Literal["fail", "warn"] = "fail"
    engine: Literal["duckdb", "spark"] = "duckdb"
    spark: Spark | None = Field(default=None, description="how engine spark runs")

    @field_validator("logs_tables", mode="before")
    @classmethod
    def _a_bare_name_is_a_table(cls, value: Any) -> Any:
        """`ad:` with nothing below it is a table whose path comes from the command line."""
        if isinstance(value, dict):
            return {name: {} if table is None else table for name, table in value.items()}
        return value

    @property
    def heads(self) -> tuple[Head, ...] | None:
        """The heads that sample_type asks for, or None where the log decides."""
        if self.sample_type is None:
            return None
        types = [self.sample_type] if isinstance(self.sample_type, str) else self.sample_type
        asked = {SAMPLE_HEAD[t] for t in types}
        return tuple(h for h in HEADS if h in asked)
