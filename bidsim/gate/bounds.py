"""What a rule's bound means: the quantity it judges, the interval that passes, and the words for both."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bidsim.scenario.schema import PERCENT, Rule

# Metrics for which less is better; for the others in HIGHER_IS_BETTER more is. The rest have no better direction.
LOWER_IS_BETTER = frozenset(
    (
        "logloss",
        "normalized_entropy",
        "brier",
        "miscalibration",
        "ece",
        "calibration_error",
        "cpm",
        "cpc",
        "cpa",
        "target_attainment",
        "cpa_at_matched_spend",
        "cpc_at_matched_spend",
    )
)
HIGHER_IS_BETTER = frozenset(
    (
        "auc",
        "gauc",
        "discrimination",
        "clicks",
        "conversions",
        "ctr",
        "cvr",
        "value",
        "surplus",
        "roi",
        "expected_utility",
        "win_rate",
        "clicks_at_matched_spend",
        "conversions_at_matched_spend",
        "coverage",
    )
)


@dataclass(frozen=True)
class Bound:
    """A rule passes where low <= quantity <= high. quantity: "value", or the change "absolute" or "relative"."""

    quantity: str
    low: float
    high: float
    words: str

    def holds(self, quantity: float) -> bool:
        """Whether the quantity lies inside; the edge belongs to it, however binary fractions fall."""
        slack = 1e-12 * max(1.0, abs(quantity))
        return self.low - slack <= quantity <= self.high + slack

    def excludes(self, low: float, high: float) -> bool:
        """Whether the whole interval lies outside."""
        return (high < self.low or low > self.high) and not (self.holds(low) or self.holds(high))

    def excess(self, quantity: float) -> float:
        """How far the quantity is beyond the nearest edge; negative inside."""
        return max(self.low - quantity, quantity - self.high)


def amount(change: float | str) -> tuple[float, bool]:
    """(size, whether it is relative) of a bound such as 0.01 or "1%"."""
    if isinstance(change, str):
        match = PERCENT.match(change)
        assert match is not None  # the schema has checked it
        return float(match.group(1)) / 100, True
    return float(change), False


def _text(size: float, relative: bool) -> str:
    return f"{size * 100:g}%" if relative else f"{size:g}"


def bound_of(rule: Rule) -> Bound | None:
    """The bound of a rule; None where min_improvement asks of a metric that has no better direction."""
    if rule.at_most is not None:
        return Bound("value", -math.inf, rule.at_most, f"at most {rule.at_most:g}")
    if rule.at_least is not None:
        return Bound("value", rule.at_least, math.inf, f"at least {rule.at_least:g}")
    if rule.between is not None:
        low, high = rule.between
        return Bound("value", low, high, f"between {low:g} and {high:g}")
    if rule.max_increase is not None:
        size, relative = amount(rule.max_increase)
        words = f"an increase of at most {_text(size, relative)}"
        return Bound("relative" if relative else "absolute", -math.inf, size, words)
    if rule.max_decrease is not None:
        size, relative = amount(rule.max_decrease)
        words = f"a decrease of at most {_text(size, relative)}"
        return Bound("relative" if relative else "absolute", -size, math.inf, words)
    if rule.min_improvement is not None:
        size, relative = amount(rule.min_improvement)
        words = f"an improvement of at least {_text(size, relative)}"
        quantity = "relative" if relative else "absolute"
        if rule.metric in LOWER_IS_BETTER:
            return Bound(quantity, -math.inf, -size, words)
        if rule.metric in HIGHER_IS_BETTER:
            return Bound(quantity, size, math.inf, words)
    return None
