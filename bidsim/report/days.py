"""The change day by day, where the scenario has a segment of calendar days, and on how many of them it has which sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from markupsafe import Markup

from bidsim.report import format as f
from bidsim.report.drawing import Sketch
from bidsim.report.frame import COLOURS, Axis, Frame, steps
from bidsim.report.lookup import Lookup
from bidsim.report.plots import CANDIDATES, CHANGE_MOST
from bidsim.report.segments import FEW_RESULTS
from bidsim.report.words import label
from bidsim.result import Segment

FORMATS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d")
EARLIEST, LATEST = 1990, 2100
MOST_LABELS = 8


@dataclass(frozen=True)
class Days:
    """family: the segment; figures: of spend and of the cost per result; said: of each candidate on how
    many days the cost is lower; beyond, few: whether a change or an interval that reaches beyond the axis, or one of few
    results, is among them."""

    family: str
    figures: list[Sketch]
    said: list[str]
    beyond: bool
    few: bool


@dataclass(frozen=True)
class _Point:
    at: int
    value: float
    low: float | None
    high: float | None
    few: bool


def day_family(lookup: Lookup) -> tuple[str, list[tuple[date, Segment]]] | None:
    """The segment whose values are calendar days, in their order: `day`, or any whose values all are dates."""
    for name, segments in lookup.families.items():
        if name == lookup.campaign_family or any(len(s) != 1 for s in segments):
            continue
        if name != "day" and _day(next(iter(segments[0].values()))) is None:
            continue
        read = [(_day(next(iter(s.values()))), s) for s in segments]
        known = [(day, s) for day, s in read if day is not None]
        if len(known) >= 2 and (len(known) == len(read) or name == "day"):
            return name, sorted(known, key=lambda pair: pair[0])
    return None


def _day(text: str) -> date | None:
    for written in FORMATS:
        try:
            found = datetime.strptime(text.strip(), written).date()
        except ValueError:
            continue
        return found if EARLIEST <= found.year <= LATEST else None
    return None


def days(lookup: Lookup) -> Days | None:
    """None where no segment is of days."""
    family = day_family(lookup)
    if family is None or not lookup.candidates:
        return None
    name, segments = family
    drawn = lookup.candidates[:CANDIDATES]
    cost = lookup.indicator
    figures, points = [], []
    for metric, worded in (("spend", "Spend"), (cost, label(cost))):
        series = {at: _points(lookup, p.name, metric, segments) for at, p in enumerate(drawn, 1)}
        if any(series.values()):
            title = f"Change of {worded.lower() if metric == 'spend' else worded} by day"
            picture = Markup(_picture([d for d, _ in segments], series, title))
            figures.append(Sketch(f"days-{'spend' if metric == 'spend' else 'cost'}", title, picture, policies=1))
            points += [p for each in series.values() for p in each]
    if not figures:
        return None
    beyond = any(abs(v) > CHANGE_MOST for p in points for v in (p.value, p.low, p.high) if v is not None)
    said = [_signs(lookup, p.name, segments) for p in drawn]
    return Days(name, figures, said, beyond, any(p.few for p in points))


def _points(lookup: Lookup, policy: str, metric: str, segments: Sequence[tuple[date, Segment]]) -> list[_Point]:
    found = []
    for at, (_, segment) in enumerate(segments):
        difference = lookup.difference(policy, metric, None, segment)
        change = difference.relative if difference else None
        if change is None or change.value is None:
            continue
        results = [lookup.base(lookup.results, None, segment), lookup.value(policy, lookup.results, None, segment)]
        few = metric != "spend" and any((r or 0) < FEW_RESULTS for r in results)
        found.append(_Point(at, change.value, change.low, change.high, few))
    return found


def _signs(lookup: Lookup, policy: str, segments: Sequence[tuple[date, Segment]]) -> str:
    """On how many days the cost of a result is lower, with the sign test's p-value and what it is worth."""
    cost = label(lookup.indicator)
    found = [lookup.difference(policy, lookup.indicator, None, s) for _, s in segments]
    values = [d.relative.value for d in found if d is not None and d.relative.value is not None]
    lower, higher = sum(v < 0 for v in values), sum(v > 0 for v in values)
    of = lower + higher
    out = len(segments) - of
    left = f" ({f.plural(out, 'day')} without a change to count)" if out else ""
    name = f.clean_name(policy)
    if not of:
        return f"{cost} of {name} differs from the baseline’s on no day{left}."
    on = f"{lower} of {f.plural(of, 'day')}"
    chance = f.share(sign_test(lower, higher))
    counted = ", on counted wins" if lookup.leaves_open(policy) else ""
    return (
        f"{cost} of {name} is lower on {on}{left}{counted}. Were days independent and either sign as likely, a split as "
        f"uneven as this would come up in {chance} of the cases (two-sided sign test)."
    )


def sign_test(one: int, other: int) -> float:
    """The exact two-sided p-value of so many signs of one kind and of the other, if both were equally likely."""
    total = one + other
    tail = sum(math.comb(total, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / (1 << total))


def _picture(dates: Sequence[date], series: dict[int, list[_Point]], title: str) -> str:
    ends = [v for points in series.values() for p in points for v in (p.value, p.low, p.high) if v is not None]
    cut = [max(-CHANGE_MOST, min(CHANGE_MOST, v)) for v in ends]
    low, high = min(-0.02, *cut), max(0.02, *cut)
    pad = (high - low) * 0.06
    low, high = low - pad, high + pad
    y = Axis(low, high, [(t, f.change(t).replace(".0%", "%")) for t in steps(low, high)], "change")
    numbers = [d.toordinal() for d in dates]
    span = numbers[-1] - numbers[0]
    x = Axis(numbers[0] - 0.5, numbers[-1] + 0.5, _labels(numbers[0], span), "day")
    frame = Frame(x, y, height=260)
    zero = frame.up(0.0)
    frame.rule(frame.across(x.low), frame.across(x.high), zero, zero, "var(--ink-3)")
    room = frame.across(numbers[0] + 1) - frame.across(numbers[0])
    apart = min(9.0, 0.7 * room / len(series))
    for at, (number, points) in enumerate(series.items()):
        aside = (at - (len(series) - 1) / 2) * apart
        for p in points:
            across = round(frame.across(numbers[p.at]) + aside, 1)
            if p.low is not None and p.high is not None:
                frame.rule(across, across, frame.up(p.low), frame.up(p.high), COLOURS[number], width=1.5)
            frame.mark(across, frame.up(p.value), number, hollow=p.few)
    described = (
        f"{title}, candidate against baseline, {len(dates)} days; above the line is more. "
        "The numbers follow in the table by segment."
    )
    return frame.svg(described)


def _labels(first: int, span: int) -> list[tuple[float, str]]:
    step = max(1, math.ceil((span + 1) / MOST_LABELS))
    start = date.fromordinal(first)
    return [(first + n, (start + timedelta(days=n)).strftime("%m-%d")) for n in range(0, span + 1, step)]
