"""A result by what one wants to know of it: a metric or a difference at a place, the segments, the heads."""

from __future__ import annotations

from functools import cached_property

from bidsim.report import format as f
from bidsim.result import CalibrationCurve, Difference, Metric, PolicyInfo, Result, Segment

_Key = tuple[str, str, str | None, tuple[tuple[str, str], ...], float | None]
HEADS = ("ctr", "cvr", "ctcvr")


class Lookup:
    """Tables of a result, each built when it is first asked for."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.money = f.Money(result.scenario.get("currency"))
        self.baseline: PolicyInfo | None = next((p for p in result.policies if p.role == "baseline"), None)
        self.candidates = [p for p in result.policies if p.role == "candidate"]
        heads = {m.head for m in result.metrics if m.head} | {c.head for c in result.calibration}
        self.heads = sorted(heads, key=lambda h: (HEADS.index(h) if h in HEADS else 9, h))
        self.betas = sorted({m.beta for m in result.metrics if m.beta is not None})

    @cached_property
    def _metrics(self) -> dict[_Key, Metric]:
        return {(m.policy, m.metric, m.head, tuple(m.segment.items()), m.beta): m for m in self.result.metrics}

    @cached_property
    def _differences(self) -> dict[_Key, Difference]:
        return {(d.policy, d.metric, d.head, tuple(d.segment.items()), d.beta): d for d in self.result.differences}

    @cached_property
    def families(self) -> dict[str, list[Segment]]:
        """The values of each segment in the order of the result; a crossed segment's name joins its parts."""
        seen = {tuple(m.segment.items()) for m in self.result.metrics}
        found: dict[str, list[Segment]] = {}
        for m in self.result.metrics:
            where = tuple(m.segment.items())
            if where and where in seen:
                seen.discard(where)
                found.setdefault(" x ".join(m.segment), []).append(m.segment)
        return found

    @cached_property
    def has_intervals(self) -> bool:
        return any(
            e.low is not None and e.high is not None for d in self.result.differences for e in (d.absolute, d.relative)
        )

    def metric(
        self,
        policy: str,
        metric: str,
        head: str | None = None,
        segment: Segment | None = None,
        beta: float | None = None,
    ) -> Metric | None:
        return self._metrics.get((policy, metric, head, tuple((segment or {}).items()), beta))

    def value(self, policy: str, metric: str, head: str | None = None, segment: Segment | None = None) -> float | None:
        found = self.metric(policy, metric, head, segment)
        return found.value if found else None

    @property
    def confidence(self) -> float:
        """Of the intervals, such as 0.95."""
        given = self.result.scenario.get("intervals")
        level = given.get("confidence", 0.95) if isinstance(given, dict) else 0.95
        return float(level) if isinstance(level, int | float) else 0.95

    @property
    def predicted(self) -> bool:
        """Whether rows of unknown fate count in expectation."""
        return self.result.scenario.get("outcomes") == "predicted"

    def base(self, metric: str, head: str | None = None, segment: Segment | None = None) -> float | None:
        """The baseline's value."""
        return self.value(self.baseline.name, metric, head, segment) if self.baseline else None

    def difference(
        self,
        policy: str,
        metric: str,
        head: str | None = None,
        segment: Segment | None = None,
        beta: float | None = None,
    ) -> Difference | None:
        return self._differences.get((policy, metric, head, tuple((segment or {}).items()), beta))

    def leaves_open(self, policy: str, segment: Segment | None = None) -> bool:
        """Whether the log can't decide what became of some rows of the policy or the baseline."""
        names = [policy, *([self.baseline.name] if self.baseline else [])]
        return any(self.value(n, m, None, segment) for n in names for m in ("unknown_wins", "unknown_outcomes"))

    def has(self, metric: str, head: str | None = None) -> bool:
        """Whether any policy has the metric overall."""
        return any(self.metric(p.name, metric, head) for p in self.result.policies)

    def curves(self, head: str) -> list[CalibrationCurve]:
        """Overall reliability curves of one head, in the order of the policies."""
        return [c for p in self.result.policies for c in self.result.calibration if _is(c, p.name, head)]

    @cached_property
    def indicator(self) -> str:
        """ "cpa" or "cpc": the cost that this scenario is about."""
        asked = self.result.scenario.get("performance_indicator_type")
        if asked in ("cpa", "cpc") and self.has(str(asked)):
            return str(asked)
        return "cpa" if self.has("cpa") else "cpc"

    @property
    def results(self) -> str:
        """The metric that the indicator divides by."""
        return "conversions" if self.indicator == "cpa" else "clicks"

    @cached_property
    def campaign_family(self) -> str | None:
        """The segment that is the campaign: by its name, its column, or because its values are named campaigns."""
        columns = self.result.scenario.get("columns")
        column = columns.get("campaign") if isinstance(columns, dict) else None
        for name in ("campaign", column):
            if isinstance(name, str) and name in self.families:
                return name
        names = self.result.data.campaign_names
        for name, segments in self.families.items():
            if names and all(value in names for s in segments for value in s.values()):
                return name
        return None

    def label(self, segment: Segment) -> str:
        """The value of a segment as shown: a campaign by its name, where the campaign table has one."""
        names = self.result.data.campaign_names
        family = self.campaign_family
        shown = [
            f.clean_name(names[value]) if name == family and value in names else f.clean_name(value)
            for name, value in segment.items()
        ]
        return ", ".join(shown) or "all"

    def ident(self, segment: Segment) -> str:
        """The campaign's id, where `label` shows a name instead of it; else nothing."""
        names, family = self.result.data.campaign_names, self.campaign_family
        return ", ".join(f.clean_name(v, 30) for name, v in segment.items() if name == family and v in names)


def _is(curve: CalibrationCurve, policy: str, head: str) -> bool:
    return curve.policy == policy and curve.head == head and not curve.segment
