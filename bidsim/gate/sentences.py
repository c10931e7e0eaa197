"""The outcome of a rule as a reviewer would say it: "CPA rises by 11.0% [3.2%, 18.8%] on campaign Travel; ..."."""

from __future__ import annotations

import math

from bidsim.gate.bounds import ASKED, Bound, bound_of, written
from bidsim.result import Segment
from bidsim.scenario.schema import Rule

NAME_LENGTH = 80
STRADDLES = ", but the interval straddles it"
ALONE = "is of the candidate alone, without a baseline's to change from (bound it with at_most or at_least)"
LEAK = "look for a leak (labels or the future among the features) before you trust it"

NAMES = {
    "cpa": "CPA",
    "cpc": "CPC",
    "cpm": "CPM",
    "ctr": "CTR",
    "cvr": "CVR",
    "auc": "AUC",
    "gauc": "AUC within campaigns",
    "ece": "ECE",
    "roi": "ROI",
    "cpa_at_matched_spend": "CPA at matched spend",
    "cpc_at_matched_spend": "CPC at matched spend",
}


def title(rule: Rule) -> str:
    """The rule's name, or its metric and bound."""
    if rule.name:
        return rule.name
    bound = bound_of(rule)
    by = f" by {rule.by}" if rule.by else ""
    return f"{metric_name(rule, rule.head, rule.beta)}{by}{f': {bound.words}' if bound else ''}"


def metric_name(rule: Rule, head: str | None, beta: float | None) -> str:
    name = NAMES.get(rule.metric, rule.metric.replace("_", " "))
    if beta is not None:
        return f"{name} (beta {written(beta, 4)})"
    return f"{name} ({head})" if head else name


def place_words(segment: Segment, names: dict[str, str]) -> str:
    """' on campaign 7 (Travel)'; names: of campaigns, and only a segment of campaigns has values among them."""
    named = segment and all(value in names for value in segment.values()) and "campaign" in segment
    return "".join(
        f" on {short(name)} {short(value)}{f' ({short(names[value])})' if named else ''}"
        for name, value in segment.items()
    )


def short(name: str) -> str:
    """A name that leaves room for what is said of it: reports and CI show the first few hundred characters."""
    if not name.strip():
        return "(empty)"
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def said(
    bound: Bound, quantity: float, value: float | None, baseline: float | None, interval: tuple[float, float] | None
) -> str:
    """'rises by 3.1% [1.2%, 5%] (50 to 51.6)', 'changes by +3.1% [-1.2%, +7.4%] (50 to 51.6)', or 'is 1.02 [0.99, 1.05]'."""
    if bound.quantity == "value":
        return f"is {written(quantity, 5)}" + (f" [{', '.join(written(x, 5) for x in interval)}]" if interval else "")

    def text(x: float, sign: str = "") -> str:
        return _percent(x, sign) if bound.quantity == "relative" else written(x, 4, sign)

    open_ = interval is not None and interval[0] < 0 < interval[1]
    sign = "+" if open_ or quantity == 0 else ""  # an interval on both sides of no change is read with its signs
    if quantity == 0:
        verb = "does not change"
    elif open_:
        verb = f"changes by {text(quantity, sign)}"
    else:
        verb = f"{'rises' if quantity > 0 else 'falls'} by {text(abs(quantity))}"
    if interval and (quantity != 0 or open_):
        ends = interval if sign else sorted(x if quantity > 0 else -x for x in interval)
        verb += " [" + ", ".join(text(x, sign) for x in ends) + "]"
    return f"{verb} ({written(baseline or 0, 6)} to {written(value or 0, 6)})"


def undefined(bound: Bound, value: float | None, baseline: float | None, *, unmatched: bool) -> str:
    """Why there is nothing to judge. unmatched: whether the policy has no level at which it spends what the baseline
    does."""
    if unmatched:
        return "has no value: no multiplier of its bids makes it spend as much as the baseline"
    if value is not None and baseline == 0 and bound.quantity == "relative":
        return f"is undefined as a percentage: {written(value, 5)} against the baseline's 0 (bound the change in its own unit)"
    whose = " for the baseline" if value is not None and baseline is None else ""
    return f"is undefined{whose} here (a zero denominator or no labels)"


def allows(rule: Rule, bound: Bound, baseline: float | None = None) -> str:
    """What a rule allows or asks for. baseline: where given, an allowed change beyond it that reads like per cent is told."""
    if bound.words.startswith(ASKED):
        return f"asks for {bound.words}"
    size = max((abs(x) for x in (bound.low, bound.high) if math.isfinite(x)), default=0.0)
    doubt = ""
    if bound.quantity == "absolute" and baseline and abs(baseline) < size and 1 <= size <= 100:
        doubt = f" (in its own unit, more than the baseline's {written(abs(baseline), 4)}; per cent would be {size:g}%)"
    return f"allows {'values ' if rule.between else ''}{bound.words}{doubt}"


def unsure(bound: Bound, span: tuple[float, float], moved: tuple[float, float]) -> str:
    """What the rows that the log can't decide could make of the quantity, and of its interval where the bound lies between
    the two. moved: the interval, moved to both ends of the span."""

    def text(x: float) -> str:
        if math.isinf(x):
            return "without limit"
        if bound.quantity == "relative":
            return _percent(x, "+")
        return written(x, 5) if bound.quantity == "value" else written(x, 4, "+")

    said = f", but rows that this log can't decide could put it anywhere from {text(span[0])} to {text(span[1])}"
    if moved != span and bound.holds(span[0]) == bound.holds(span[1]):
        said += f", with its interval from {text(moved[0])} to {text(moved[1])}"
    return said


def wide(bound: Bound, width: float) -> str:
    return _percent(width) if bound.quantity == "relative" else written(width, 4)


def _percent(x: float, sign: str = "") -> str:
    """Three digits, and all before the point: never 1.23e+03%."""
    return f"{x * 100:{sign},.0f}%" if abs(x) >= 9.995 else f"{x * 100:{sign}.3g}%"
