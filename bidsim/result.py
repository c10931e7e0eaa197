"""The result of a replay as data: what `result.json` holds (spec section 6) and its JSON Schema.

Everything after the statistics (gate, report, store) reads only this. It carries no wall clock: the same scenario,
model, data and as-of day give the same bytes. Money is in the scenario's currency, prices and bids in currency per
1000 impressions.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal["bidsim.result/1"] = "bidsim.result/1"

Segment = dict[str, str]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def built(cls, **values: Any) -> Self:
        """A record of values that are known to fit, all fields given in their order, which is that of result.json: as
        `model_construct`, which looks at each field anew and so takes ten times as long. A result has tens of
        thousands of records."""
        made = cls.__new__(cls)
        put = object.__setattr__
        put(made, "__dict__", values)
        put(made, "__pydantic_fields_set__", set(values))
        put(made, "__pydantic_extra__", None)
        put(made, "__pydantic_private__", None)
        return made


class PolicyInfo(Record):
    name: str
    role: Literal["baseline", "candidate"]
    model: str | None = Field(description="file name of the model, null for logged predictions")
    sha256: str | None = Field(description="of the model file")
    columns: dict[str, str] = Field(default={}, description="logged prediction columns, by pctr, pcvr, pctcvr")
    formula: str = Field(description="bid formula, in currency per 1000 impressions")
    multiplier: float
    borrowed_heads: list[str] = Field(
        default=[], description="heads that the candidate lacks and takes from the baseline"
    )


class Window(Record):
    start: str = Field(description="ISO 8601 with offset, inclusive")
    end: str = Field(description="ISO 8601 with offset, exclusive")


class DataInfo(Record):
    rows: int = Field(description="rows of the window for which all conditions hold")
    labelled: dict[str, int] = Field(description="rows with a label, by head")
    window: Window | None
    fingerprint: str = Field(description="sha256 over exact totals of the log, independent of file layout")
    campaigns: int | None = None
    units: int | None = None
    clicks: float | None = Field(default=None, description="weighted clicks of the log")
    conversions: float | None = Field(default=None, description="weighted conversions of the log")
    campaign_names: dict[str, str] = Field(default={}, description="from the campaign table, by campaign")


class Range(Record):
    low: float | None
    high: float | None


class Estimate(Record):
    value: float | None
    low: float | None = None
    high: float | None = None


class Metric(Record):
    policy: str
    metric: str
    head: str | None
    segment: Segment
    value: float | None
    low: float | None = None
    high: float | None = None
    identified: Range | None = Field(
        default=None,
        description="range over whatever the unknown rows did, an end null: without a bound; null: not computed",
    )
    beta: float | None = Field(default=None, description="of expected_utility, in impressions per currency; else null")


class IdentifiedChange(Record):
    """Ranges of a difference over whatever the unknown rows did, the same rows for both policies."""

    absolute: Range
    relative: Range


class Difference(Record):
    policy: str
    metric: str
    head: str | None
    segment: Segment
    baseline: float | None
    candidate: float | None
    absolute: Estimate = Field(description="candidate - baseline")
    relative: Estimate = Field(description="(candidate - baseline) / |baseline|, null where the baseline is 0")
    beta: float | None = None
    identified: IdentifiedChange | None = Field(default=None, description="null: not computed")


class CalibrationBin(Record):
    predicted: float = Field(description="weighted mean prediction")
    observed: float = Field(description="weighted share of positive labels")
    low: float | None = None
    high: float | None = None
    weight: float


class CalibrationCurve(Record):
    policy: str
    head: str
    segment: Segment
    bins: list[CalibrationBin]


class SplitPart(Record):
    """A part of the candidate's change of one metric; the parts level, mix and ranking add up to the whole change."""

    policy: str
    metric: str
    part: Literal["level", "mix", "ranking"] = Field(
        description="level: the baseline's bids all multiplied so that their mean is the candidate's; mix: then each "
        "campaign's; ranking: what remains to the candidate itself, the order within campaigns"
    )
    absolute: Estimate
    relative: Estimate = Field(description="to the size of the baseline's metric")


class FrontierPoint(Record):
    policy: str
    multiplier: float
    spend: float
    clicks: float | None
    conversions: float | None


class Finding(Record):
    """Something a reviewer must know before trusting the numbers."""

    code: str
    severity: Literal["info", "warning", "error"]
    message: str


class Fidelity(Record):
    checked: bool = Field(description="false where the log has no bids of its own")
    passed: bool | None
    log: dict[str, float | None] = Field(default={}, description="wins, spend, clicks, conversions as logged")
    replayed: dict[str, float | None] = Field(default={}, description="the same from replaying the logged bids")
    mismatched_rows: int | None = None
    formula_drift: float | None = Field(
        default=None, description="share of rows whose recomputed baseline bid is off by over 1%"
    )


Status = Literal["pass", "fail", "inconclusive", "unidentified", "insufficient_data", "not_found"]


class WaiverState(Record):
    """A rule's waiver on the day of judgement."""

    until: str = Field(description="the last day on which it counts, in the scenario's time zone")
    reason: str
    owner: str
    state: Literal["active", "ending", "expired"] = Field(description="ending: within its last 14 days")
    days_left: int = Field(description="days from the day of judgement to `until`; negative once expired")


class RuleOutcome(Record):
    rule: str = Field(description="the rule's name")
    policy: str
    metric: str
    head: str | None
    segment: Segment
    status: Status
    action: Literal["pass", "fail", "warn", "ignore"] = Field(description="what the status means for the verdict")
    evidence: Literal["interval", "point"]
    value: float | None
    baseline: float | None = None
    low: float | None = Field(default=None, description="interval of what is judged: the value or its change")
    high: float | None = None
    detectable: float | None = Field(
        default=None,
        description="the smallest effect this data could have shown: 2.8 standard errors of what is judged",
    )
    p: float | None = Field(
        default=None, description="one-sided, that the bound holds; failures of a rule over segments go by it"
    )
    judged: Literal["value", "absolute", "relative"] | None = Field(
        default=None, description="what is judged: the candidate's value, or its change against the baseline"
    )
    quantity: float | None = Field(default=None, description="what is judged, in these terms")
    allowed: Range | None = Field(default=None, description="where it passes; an end null: unbounded")
    bound: str = Field(description="the bound in words, e.g. 'increase of at most 1%'")
    sentence: str = Field(description="the outcome as a reviewer would say it")
    identified: Range | None = Field(
        default=None, description="range of what is judged over whatever the unknown rows did; an end null: unbounded"
    )
    waived: bool = Field(default=False, description="a waiver counts: the verdict passes over this outcome")
    waiver: WaiverState | None = None


class Gate(Record):
    verdict: Literal["pass", "warn", "fail", "no_gate"]
    reason: str = Field(default="", description="one sentence naming what decided")
    rules: list[RuleOutcome] = []


class Result(Record):
    """What one replay found. `value` null means undefined (a zero denominator, no labels), never zero."""

    schema_: Literal["bidsim.result/1"] = Field(default=SCHEMA, alias="schema")
    name: str = Field(description="of the scenario")
    as_of: str = Field(description="the day on which the gate was judged, ISO 8601")
    scenario: dict[str, Any]
    policies: list[PolicyInfo]
    data: DataInfo
    metrics: list[Metric]
    differences: list[Difference]
    calibration: list[CalibrationCurve]
    split: list[SplitPart] = []
    frontier: list[FrontierPoint]
    diagnostics: dict[str, Any]
    findings: list[Finding]
    fidelity: Fidelity
    gate: Gate

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def to_json(self) -> str:
        """The bytes of result.json: keys in the order of the schema, one line a key, no NaN."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    def __repr__(self) -> str:
        """In one line: the data are long."""
        names = ", ".join(p.name for p in self.policies)
        return f"<Result {self.name!r}: verdict {self.gate.verdict}, {names}, {len(self.metrics):,} numbers>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What Jupyter shows. Drawn only when it is asked for: the report's libraries are heavy."""
        from bidsim.report.notebook import render_notebook

        return render_notebook(self)

    @property
    def baseline(self) -> str:
        return next(p.name for p in self.policies if p.role == "baseline")

    def told(self, code: str) -> str:
        """The message of a finding, with a space before it; empty where there is none."""
        return next((f" {f.message}" for f in self.findings if f.code == code), "")

    @property
    def candidates(self) -> list[str]:
        return [p.name for p in self.policies if p.role == "candidate"]


def result_schema() -> dict[str, Any]:
    """The published JSON Schema of result.json."""
    document = Result.model_json_schema(by_alias=True, mode="serialization")
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["$id"] = SCHEMA
    return document
