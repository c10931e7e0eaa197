"""What a rule's bound means: the quantity it judges, the interval that passes, and the words for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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


# A bound is told by all digits that it was given with, less those that binary fractions add.
AS_GIVEN = 12
MOST_WRITTEN = 1e15

# What words of a bound that is a demand begin with.
ASKED = ("an improvement of", "a decrease of at least", "an increase of at least")


@dataclass(frozen=True)
class Bound:
    """A rule passes where low <= quantity <= high. quantity: "value", or the change "absolute" or "relative".

    kind: what is bounded: the quantity itself ("inside"), the width of its interval ("width"), or how good it may be
    before nobody believes it ("gain").
    """

    quantity: Literal["value", "absolute", "relative"]
    low: float
    high: float
    words: str
    kind: Literal["inside", "width", "gain"] = "inside"

    def holds(self, quantity: float) -> bool:
        """Whether the quantity lies inside; the edge belongs to it, however binary fractions fall."""
        slack = 1e-12 * max(1.0, abs(quantity)) if math.isfinite(quantity) else 0.0
        return self.low - slack <= quantity <= self.high + slack

    def excludes(self, low: float, high: float) -> bool:
        """Whether the whole interval lies outside."""
        return (high < self.low or low > self.high) and not (self.holds(low) or self.holds(high))

    def excess(self, quantity: float) -> float:
        """How far the quantity is beyond the nearest edge; negative inside."""
        return max(self.low - quantity, quantity - self.high)

    def above(self, quantity: float) -> bool:
        """Whether the nearest edge is the upper one."""
        return quantity - self.high >= self.low - quantity

    def least_excess(self, low: float, high: float) -> float:
        """The smallest excess that a quantity anywhere in [low, high] can have."""
        if math.isinf(self.low):
            return self.excess(low)
        if math.isinf(self.high):
            return self.excess(high)
        return self.excess(min(max((self.low + self.high) / 2, low), high))


def amount(change: float | str) -> tuple[float, bool]:
    """(size, whether it is relative) of a bound such as 0.01 or "1%"."""
    if isinstance(change, str):
        match = PERCENT.match(change)
        assert match is not None  # the schema has checked it
        return float(match.group(1)) / 100, True
    return float(change), False


def written(x: float, digits: int, sign: str = "") -> str:
    """To so many significant digits, and all before the point (never 1.2346e+06) of what any market has."""
    return f"{x:{sign},.0f}" if 10**digits - 0.5 <= abs(x) < MOST_WRITTEN else f"{x:{sign},.{digits}g}"


def _text(size: float, relative: bool) -> str:
    return f"{written(size * 100, AS_GIVEN)}%" if relative else written(size, AS_GIVEN)


def bound_of(rule: Rule) -> Bound | None:
    """The bound of a rule; None where a metric that has no better direction is asked to improve or to gain."""
    if rule.at_most is not None:
        return Bound("value", -math.inf, rule.at_most, f"at most {written(rule.at_most, AS_GIVEN)}")
    if rule.at_least is not None:
        return Bound("value", rule.at_least, math.inf, f"at least {written(rule.at_least, AS_GIVEN)}")
    if rule.between is not None:
        low, high = rule.between
        return Bound("value", low, high, f"between {written(low, AS_GIVEN)} and {written(high, AS_GIVEN)}")
    return _bound_of_change(rule)


def _bound_of_change(rule: Rule) -> Bound | None:
    given = (rule.max_increase, rule.max_decrease, rule.min_improvement, rule.max_width, rule.suspicious)
    size, relative = next(amount(change) for change in given if change is not None)
    quantity: Literal["absolute", "relative"] = "relative" if relative else "absolute"
    text = _text(abs(size), relative)
    if rule.max_increase is not None:
        words = f"a decrease of at least {text}" if size < 0 else f"an increase of at most {text}"
        return Bound(quantity, -math.inf, size, words)
    if rule.max_decrease is not None:
        words = f"an increase of at least {text}" if size < 0 else f"a decrease of at most {text}"
        return Bound(quantity, -size, math.inf, words)
    if rule.max_width is not None:
        return Bound(quantity, -math.inf, size, f"an interval of the change at most {text} wide", "width")
    less = rule.metric in LOWER_IS_BETTER
    if not less and rule.metric not in HIGHER_IS_BETTER:
        return None
    if rule.min_improvement is not None:
        words = f"a loss of at most {text}" if size < 0 else f"an improvement of at least {text}"
        return Bound(quantity, -math.inf, -size, words) if less else Bound(quantity, size, math.inf, words)
    words = f"a gain of at most {text}"
    low, high = (-size, math.inf) if less else (-math.inf, size)
    return Bound(quantity, low, high, words, "gain")
