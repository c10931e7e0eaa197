"""A result by what a rule names: metrics and differences at a place, the values of a segment, the heads of a metric."""

from __future__ import annotations

import math

from bidsim.result import Difference, Metric, Result, Segment
from bidsim.scenario.schema import Rule

Place = tuple[str, str, str | None, tuple[tuple[str, str], ...], float | None]


class Index:
    """A result's metrics and differences by policy, metric, head, segment and beta."""

    def __init__(self, result: Result) -> None:
        self.result = result
        given = (result.scenario.get("intervals") or {}) if isinstance(result.scenario, dict) else {}
        self.confidence = float(given.get("confidence", 0.95))
        self.metrics: dict[Place, Metric] = {place_of(m): m for m in result.metrics}
        self.differences: dict[Place, Difference] = {place_of(d): d for d in result.differences}
        self.segments: dict[str, list[Segment]] = {}
        self.heads: dict[str, list[str | None]] = {}
        self.betas: list[float] = sorted({m.beta for m in result.metrics if m.beta is not None})
        seen: set[tuple[tuple[str, str], ...]] = set()
        for m in result.metrics:
            key = tuple(m.segment.items())
            if key not in seen:
                seen.add(key)
                for name in m.segment:
                    self.segments.setdefault(name, []).append(m.segment)
            heads = self.heads.setdefault(m.metric, [])
            if m.head not in heads:
                heads.append(m.head)

    def baseline(self, place: Place) -> Metric | None:
        """The baseline's record of the same metric at the same place."""
        return self.metrics.get((self.result.baseline, *place[1:]))

    def leaves_open(self, place: Place) -> bool:
        """Whether the log can't decide what became of some rows of the policy or the baseline there."""
        names = (place[0], self.result.baseline)
        found = [
            self.metrics.get((n, m, None, place[3], None)) for n in names for m in ("unknown_wins", "unknown_outcomes")
        ]
        return any(m is not None and m.value for m in found)

    def count(self, metric: str, segment: Segment) -> float | None:
        """How many rows, clicks or conversions the baseline has."""
        found = self.metrics.get((self.result.baseline, metric, None, tuple(segment.items()), None))
        return found.value if found else None

    def freedom(self, segment: Segment) -> float:
        """Degrees of freedom of the intervals of a segment value; infinite where they are many, or an older result."""
        name, value = next(iter(segment.items()), ("", ""))
        found = self.result.diagnostics.get("freedom")
        by_value = found.get(name) if isinstance(found, dict) else None
        freedom = by_value.get(value) if isinstance(by_value, dict) else None
        return float(freedom) if isinstance(freedom, int | float) and freedom > 0 else math.inf

    def head(self, rule: Rule) -> tuple[str | None, str]:
        """The head that a rule means, and what is wrong with it, if anything."""
        heads = self.heads.get(rule.metric, [])
        if rule.head is not None:
            return rule.head, ""
        if None in heads or not heads:
            return None, ""
        if len(heads) == 1:
            return heads[0], ""
        return None, f"the rule must name a head ({', '.join(str(h) for h in heads)})"

    def beta(self, rule: Rule) -> float | None:
        """The beta of expected_utility nearest to the one that a rule names, the middle one by default."""
        if rule.metric != "expected_utility" or not self.betas:
            return None
        if rule.beta is not None:
            return min(self.betas, key=lambda b: abs(b - float(rule.beta or 0)))
        return self.betas[len(self.betas) // 2]


def place_of(record: Metric | Difference) -> Place:
    return (record.policy, record.metric, record.head, tuple(record.segment.items()), record.beta)
