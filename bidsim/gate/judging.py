"""One rule at one place: its status, from the value, its interval, and the range over what the log can't decide.

A rule passes where the whole interval lies inside its bound, fails where it lies outside, and is inconclusive where it
straddles; `evidence: point` judges the value alone. A pass or fail that would not hold over the whole identified range
is unidentified: the interval is moved to both ends of the range, and has to lie on the same side all the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import ndtri, stdtr, stdtrit

from bidsim.gate.bounds import AS_GIVEN, Bound, bound_of, written
from bidsim.gate.index import Index, Place
from bidsim.gate.sentences import (
    ALONE,
    LEAK,
    STRADDLES,
    allows,
    metric_name,
    place_words,
    said,
    short,
    title,
    undefined,
    unsure,
    wide,
)
from bidsim.result import Difference, Estimate, Metric, Range, RuleOutcome, Segment, Status
from bidsim.scenario.schema import Rule
from bidsim.statistics.possible import limits_of

Action = Literal["pass", "fail", "warn", "ignore"]
# Power of 80% at a two-sided 95%: an effect of this many standard errors is usually seen.
DETECTABLE = 2.8

Span = tuple[float, float]
Make = Callable[..., RuleOutcome]


@dataclass(frozen=True)
class Judgement:
    """An outcome before what needs the other values of its segment.

    lenient_p: the p of the value most in the bound's favour that the undecided rows allow; fails_anyway: the failure
    holds over the whole identified range.
    """

    outcome: RuleOutcome
    lenient_p: float | None = None
    fails_anyway: bool = True
    unsure: str = ""


def action_of(rule: Rule, status: Status) -> Action:
    """What a status does to the verdict, by the rule."""
    return {
        "pass": "pass",
        "fail": rule.failure_does,
        "not_found": rule.on_fail,
        "inconclusive": rule.on_inconclusive,
        "unidentified": rule.on_unidentified,
        "insufficient_data": rule.on_insufficient_data,
    }[status]


def outcome_of(
    rule: Rule, place: tuple[str, str | None, Segment], status: Status, sentence: str, **more: Any
) -> RuleOutcome:
    """place: policy, head, segment."""
    policy, head, segment = place
    bound = bound_of(rule)
    return RuleOutcome(
        rule=title(rule),
        policy=policy,
        metric=rule.metric,
        head=head,
        segment=segment,
        status=status,
        action=action_of(rule, status),
        evidence=rule.evidence,
        bound=bound.words if bound else "",
        sentence=sentence,
        **{"value": None, **more},
    )


def judge_place(index: Index, rule: Rule, bound: Bound, place: Place, segment: Segment) -> Judgement:
    """A rule whose metric exists at a place of the result."""
    policy, _, head, _, beta = place
    metric, difference = index.metrics[place], index.differences.get(place)
    base = difference.baseline if difference else None
    judged: Metric | Estimate | None = metric
    if bound.quantity != "value":
        judged = getattr(difference, bound.quantity) if difference else None
    quantity = judged.value if judged else None
    subject = (
        f"{metric_name(rule, head, beta)} of {short(policy)}{place_words(segment, index.result.data.campaign_names)}"
    )

    def outcome(status: Status, sentence: str, **more: Any) -> RuleOutcome:
        return outcome_of(rule, (policy, head, segment), status, sentence, value=metric.value, baseline=base, **more)

    if bound.quantity != "value" and difference is None:
        return Judgement(outcome("not_found", f"{subject} {ALONE}."))
    lacking = _lacking(index, rule, segment)
    if lacking:
        return Judgement(outcome("insufficient_data", f"{subject} is not judged: {lacking}."))
    if quantity is None or judged is None:
        level = index.metrics.get((policy, "multiplier_at_matched_spend", None, place[3], None))
        unmatched = rule.metric.endswith("_at_matched_spend") and level is not None and level.value is None
        why = undefined(bound, metric.value, base, unmatched=unmatched)
        return Judgement(outcome("insufficient_data", f"{subject} {why}, so it can't be judged."))
    interval = None if judged.low is None or judged.high is None else (judged.low, judged.high)
    words = f"{subject} {said(bound, quantity, metric.value, base, interval)}"
    flawless = bound.kind == "gain" and _is_flawless(metric, index.baseline(place))
    if rule.evidence == "interval" and interval is None and not flawless:
        text = f"{words}; the rule {allows(rule, bound)}, but there is not enough data for an interval."
        return Judgement(outcome("insufficient_data", text))
    facts: dict[str, Any] = {"judged": bound.quantity, "quantity": quantity}
    if bound.kind != "width":
        facts["allowed"] = Range(low=_finite(bound.low), high=_finite(bound.high))
    if interval is not None:
        error = (interval[1] - interval[0]) / 2 / float(ndtri(0.5 + index.confidence / 2))
        facts |= {"low": interval[0], "high": interval[1], "detectable": DETECTABLE * error}
    if bound.kind == "gain":
        return Judgement(_gain(outcome, rule, bound, words, quantity, interval, facts))
    if bound.kind == "width" and interval is not None:
        width = interval[1] - interval[0]
        text = f"{words}: the interval is {wide(bound, width)} wide; the rule {allows(rule, bound)}."
        return Judgement(outcome("pass" if bound.holds(width) else "fail", text, **facts))
    span = identified_of(bound, quantity, metric, index.baseline(place), difference)
    if span is not None:
        facts["identified"] = Range(low=_finite(span[0]), high=_finite(span[1]))
    elif metric.identified is None and index.leaves_open(place) and rests_on_wins(rule.metric):
        words = f"{words} among counted wins (the log leaves others open, and no range says what they could undo)"
    words = f"{words}; the rule {allows(rule, bound, base)}"
    if rule.evidence == "interval" and interval is not None:
        chance = _chance(index, rule.metric, bound, segment, quantity, interval)
        return _by_interval(outcome, bound, words, quantity, interval, span, chance, facts)
    status: Status = "pass" if bound.holds(quantity) else "fail"
    doubt = unsure(bound, span, span) if span else ""
    if span is not None and not _all_the_way(bound, status, span):
        return Judgement(outcome("unidentified", f"{words}{doubt}.", **facts))
    return Judgement(outcome(status, f"{words}.", **facts))


def _by_interval(
    outcome: Make,
    bound: Bound,
    words: str,
    quantity: float,
    interval: Span,
    span: Span | None,
    chance: Callable[[float], float],
    facts: dict[str, Any],
) -> Judgement:
    p = lenient = chance(bound.excess(quantity))
    inside = bound.holds(interval[0]) and bound.holds(interval[1])
    status: Status = "pass" if inside else "fail" if bound.excludes(*interval) else "inconclusive"
    anyway, doubt = True, ""
    if span is not None:
        # The interval moved to both ends of the range.
        moved = (span[0] - (quantity - interval[0]), span[1] + (interval[1] - quantity))
        least = bound.least_excess(*span)
        lenient = chance(least)
        anyway, doubt = _all_the_way(bound, "fail", moved), unsure(bound, span, moved)
        if status == "pass" and not _all_the_way(bound, "pass", moved):
            return Judgement(outcome("unidentified", f"{words}{doubt}.", p=p, **facts), lenient, anyway, doubt)
    sentence = f"{words}{STRADDLES if status == 'inconclusive' else ''}."
    return Judgement(outcome(status, sentence, p=p, **facts), lenient, anyway, doubt)


def _chance(
    index: Index, metric: str, bound: Bound, segment: Segment, quantity: float, interval: Span
) -> Callable[[float], float]:
    """The one-sided p-value of an excess over a bound's edge, by the side of the interval that looks at the edge and
    with the interval's degrees of freedom: it is (1 - confidence) / 2 where the interval's end touches the edge. A side
    that was drawn in to what the metric can be at all says nothing of chance, so the longer one counts there."""
    freedom = index.freedom(segment)
    below, above = quantity - interval[0], interval[1] - quantity
    low, high = limits_of(metric, bound.quantity)
    drawn_in = interval[0] <= low if bound.above(quantity) else interval[1] >= high
    reach = max(below, above) if drawn_in else below if bound.above(quantity) else above
    quantile = float(stdtrit(freedom, 0.5 + index.confidence / 2))
    return lambda excess: float(stdtr(freedom, -excess / reach * quantile)) if reach > 0 else float(excess <= 0)


def _all_the_way(bound: Bound, status: Status, span: Span) -> bool:
    """Whether a pass, or a fail, holds over the whole span."""
    if status == "pass":
        return bound.holds(span[0]) and bound.holds(span[1])
    return bound.excludes(*span)


def _gain(
    outcome: Make,
    rule: Rule,
    bound: Bound,
    words: str,
    quantity: float,
    interval: Span | None,
    facts: dict[str, Any],
) -> RuleOutcome:
    """A gain beyond the bound that is not chance (its interval excludes no change) is suspicious; anything else passes."""
    by_chance = interval is not None and interval[0] <= 0 <= interval[1]
    if bound.holds(quantity) or (by_chance and rule.evidence == "interval"):
        text = f"{words}; gains are suspicious from {bound.words.removeprefix('a gain of at most ')} on."
        return outcome("pass", text, **facts)
    most = bound.words.removeprefix("a gain of at most ")
    text = f"{words}; a gain of over {most} is too good to be true: {LEAK}."
    return outcome("fail", text, **facts)


def _is_flawless(metric: Metric, baseline: Metric | None) -> bool:
    """Whether a ranking is without one error where the baseline's is clearly not. It has no interval, and most leaks."""
    below = baseline is not None and baseline.high is not None and baseline.high < 1.0
    return metric.metric in ("auc", "gauc") and metric.value == 1.0 and below


def rests_on_wins(metric: str) -> bool:
    """Whether unknown rows could change a number that has no range of its own."""
    return metric.endswith("_at_matched_spend") or metric in ("target_attainment", "win_rate")


def identified_of(
    bound: Bound, quantity: float, metric: Metric, baseline: Metric | None, difference: Difference | None
) -> Span | None:
    """The range of what is judged over whatever the unknown rows did; None where nothing is unknown or not computed.

    A change whose own range is not given gets the widest one that the two policies' ranges allow: it may be too wide,
    since the same rows are unknown for both, but never too narrow.
    """
    span: Span | None = None
    if bound.quantity == "value":
        span = _span(metric.identified)
    elif difference is not None and difference.identified is not None:
        span = _span(getattr(difference.identified, bound.quantity))
    elif baseline is not None:
        mine, theirs = _span(metric.identified), _span(baseline.identified)
        if mine is not None and theirs is not None:
            known = mine[0] == mine[1] and theirs[0] == theirs[1]
            span = (quantity, quantity) if known else _change(bound.quantity == "relative", mine, theirs)
    if span is None or span[0] == span[1]:
        return None
    return min(span[0], quantity), max(span[1], quantity)


def _span(found: Range | None) -> Span | None:
    if found is None or (found.low is None and found.high is None):
        return None
    return (-math.inf if found.low is None else found.low, math.inf if found.high is None else found.high)


def _change(relative: bool, mine: Span, theirs: Span) -> Span:
    if not relative:
        return mine[0] - theirs[1], mine[1] - theirs[0]
    if theirs[0] <= 0 <= theirs[1]:
        return -math.inf, math.inf
    # (c - b) / |b| is monotone in c and in b while b keeps its sign, so its extremes are at the corners.
    corners = [_relative(c, b) for c in mine for b in theirs]
    return min(corners), max(corners)


def _relative(candidate: float, baseline: float) -> float:
    if math.isinf(baseline):
        return -1.0 if math.isfinite(candidate) else math.inf
    return (candidate - baseline) / abs(baseline)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lacking(index: Index, rule: Rule, segment: Segment) -> str:
    for least, name in ((rule.min_rows, "rows"), (rule.min_clicks, "clicks"), (rule.min_conversions, "conversions")):
        if least is not None:
            have = index.count(name, segment)
            if have is None:
                return (
                    f"the result does not say how many {name} there are, the rule asks for {written(least, AS_GIVEN)}"
                )
            if have < least:
                some = name.removesuffix("s") if have == 1 else name
                return f"the baseline has {written(have, 6)} {some}, the rule asks for {written(least, AS_GIVEN)}"
    return ""
