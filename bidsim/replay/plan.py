"""The plan of one replay as data: everything that the steps need, as SQL text, compiled before any row is read.

`binding` makes it from the scenario and the log's columns; the stages, the measures and the reduction only read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from bidsim.logs.origins import Span
from bidsim.logs.source import Source
from bidsim.replay.policies import PolicyPlan
from bidsim.result import Finding
from bidsim.scenario.schema import CvrJump, Head

NUMERIC_ROLES = (
    "price",
    "floor",
    "bid",
    "won",
    "loss_reason",
    "click",
    "conversion",
    "weight",
    "target_cpc",
    "target_cpa",
    "daily_budget",
)


@dataclass(frozen=True)
class Segment:
    """A way to cut the log. name: as the result calls it; column: in the SQL; shown: whether the scenario asked."""

    name: str
    column: str
    sql: str
    shown: bool = True


@dataclass(frozen=True)
class Carried:
    """A log column that a later step needs under an internal name."""

    column: str
    sql: str


@dataclass(frozen=True)
class Prediction:
    """One logged or scored prediction: policy index, head, raw column, column after validity, SQL (None: scored)."""

    policy: int
    head: Head
    column: str
    valid: str
    sql: str | None


@dataclass(frozen=True)
class CampaignTable:
    """names: by campaign, of those that have one; keys: all of its campaigns, as texts; digest: sha256 of what it says,
    however its rows and columns are ordered."""

    reader: str
    key: str
    names: dict[str, str]
    keys: frozenset[str]
    digest: str


@dataclass(frozen=True)
class Ripening:
    """How late conversions are treated. window, observed_until: seconds, and seconds since 1970; weighted: by 1 / G(age)."""

    window: float
    observed_until: float
    weighted: bool


@dataclass
class Plan:
    """Everything the steps need, as SQL text. Built by `make_plan`."""

    source: Source
    roles: dict[str, str | None]
    time_kind: str | None
    local_time: str | None
    conditions: list[str]
    segments: list[Segment]
    policies: list[PolicyPlan]
    predictions: list[Prediction]
    heads: tuple[Head, ...]
    first_price: str
    any_first_price: bool
    indicator: str
    campaigns: CampaignTable | None
    # By the head whose prediction a row of unknown fate brings, those by whose labels it is calibrated: the same whichever
    # heads are judged. None where the log has no labels for it.
    calibrated_by: dict[Head, tuple[Head, ...]] = field(default_factory=dict)
    carried: dict[str, Carried] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    budget_amount: str | None = None
    budget_period: str | None = None
    # Even pacing: SQL of the minutes of its period that each row has seen, and of the period's length.
    pace: tuple[str, str] | None = None
    # Of a policy's bids in one request only the highest stays.
    internal: bool = False
    zone: str = "UTC"
    ripening: Ripening | None = None
    jump: CvrJump | None = None
    # Which times the window can hold, where the log has them as a column.
    span: Span | None = None
    # Of each event role that the log has as a time: SQL of its seconds since 1970, over the log.
    seconds: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    # What the steps found out beside the sums: diagnostics of the result, by name.
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    # (key, SQL over the log) of the scenario's expressions, to find the one at fault.
    tried: list[tuple[tuple[str | int, ...], str]] = field(default_factory=list)
    campaign_sql: str | None = None
    # Targets and budgets that both the log and the campaign table have: SQL of either.
    twice: dict[str, tuple[str, str]] = field(default_factory=dict)
    # What intervals are clustered by: whole numbers, texts, or (without a unit) each row by itself.
    unit: Literal["whole", "text", "row"] = "row"
    # Whether some rows lack the unit that others have; set when they are counted.
    unitless: bool = False
    # Digits of fixed-point sums of probabilities and losses; set when the number of rows is known.
    fraction_bits: int = 40
    # Buckets of units kept for each segment; set when the numbers of their values are known.
    buckets: list[int] = field(default_factory=list)
    loss_bits: int = 38

    def has(self, role: str) -> bool:
        return self.roles[role] is not None

    @property
    def campaign_segment(self) -> int | None:
        """Index of the segment that cuts the log by campaign; it is there, if hidden, wherever the log has campaigns."""
        found = [i for i, s in enumerate(self.segments) if s.sql == self.roles["campaign"]]
        return found[0] if found else None

    @property
    def weighted(self) -> bool:
        return self.has("weight")

    def carry(self, column: str, sql: str) -> None:
        """Have rows keep a value under an internal name for a later step."""
        self.carried.setdefault(f"\0{column}", Carried(column, sql))

    @property
    def scored(self) -> bool:
        return any(p.sql is None for p in self.predictions)

    @property
    def budgeted(self) -> bool:
        return self.budget_amount is not None

    def valid(self, policy: int, head: str) -> str | None:
        """The column of a policy's own valid prediction of a head."""
        return next((p.valid for p in self.predictions if p.policy == policy and p.head == head), None)

    def prediction(self, policy: int, head: str) -> str | None:
        """The SQL of what a policy predicts: its own head, the baseline's (spec 3.2), or pctr * pcvr for ctcvr.

        The product comes before the baseline's ctcvr where one of its heads is the policy's own: so does it bid.
        """
        own, base = self.valid(policy, head), self.valid(0, head)
        if head != "ctcvr" or own:
            return own or base
        ctr, cvr = self.prediction(policy, "ctr"), self.prediction(policy, "cvr")
        product = f"({ctr} * {cvr})" if ctr and cvr else None
        mine = self.valid(policy, "ctr") or self.valid(policy, "cvr")
        return (product or base) if mine else (base or product)

    @cached_property
    def sources(self) -> list[str]:
        """Every distinct prediction that something needs, as SQL over the valid predictions."""
        found = [p.valid for p in self.predictions]
        for policy in self.policies:
            found += [sql for head in self.heads if (sql := self.prediction(policy.index, head))]
            for head, role in (("ctr", "click"), ("ctcvr", "conversion")):
                sql = self.prediction(policy.index, head)
                if sql is not None and self.has(role):
                    found.append(sql)
        return list(dict.fromkeys(found))

    def source_of(self, policy: int, head: str) -> int:
        """Index in `sources` of what a policy predicts for a judged head."""
        return self.sources.index(str(self.prediction(policy, head)))

    def head_sources(self, head: str) -> list[int]:
        """Indices in `sources` of the distinct predictions of a judged head, by policy."""
        return list(dict.fromkeys(self.source_of(p.index, head) for p in self.policies))

    def used(self, policy: int) -> list[Prediction]:
        """The predictions that a policy bids with: its own heads and those it borrows from the baseline."""
        borrowed = self.policies[policy].borrowed_heads
        return [p for p in self.predictions if p.policy == policy or (p.policy == 0 and p.head in borrowed)]

    @property
    def hashed_sources(self) -> list[int]:
        """Indices in `sources` of what tells rows apart, beside price and time, where the log or some rows have no unit."""
        if not self.unitless and self.unit != "row":
            return []
        return [self.sources.index(p.valid) for p in self.predictions if p.policy == 0]

    @property
    def unjudged(self) -> list[Head]:
        """Heads that are not judged, by whose labels predictions are calibrated nevertheless."""
        return [h for h in dict.fromkeys(h for by in self.calibrated_by.values() for h in by) if h not in self.heads]

    @property
    def labels(self) -> list[str]:
        """Heads whose labels something needs: those judged or calibrated by, and what the expected utility goes by."""
        return list(dict.fromkeys([*map(str, self.heads), *map(str, self.unjudged), self.worth_label]))

    @property
    def worth_label(self) -> str:
        """The head whose label makes a row's outcome known to the performance indicator."""
        return "ctcvr" if (self.indicator == "cpa" and self.has("conversion")) or not self.has("click") else "ctr"
