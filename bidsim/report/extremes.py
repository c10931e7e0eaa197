"""Where a candidate does worst and best: segment values ranked by the end of the interval that is nearer to no change.

By point value the smallest segments would lead, since they are the noisiest. What advertisers see of a segment is the
cost of a result as it is, so that is ranked, with the results it rests on and the spend beside it; how well the same
money would have been spent is for the whole log, since one multiplier serves all segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bidsim.report import format as f
from bidsim.report.days import day_family
from bidsim.report.lookup import Lookup
from bidsim.report.segments import FEW_RESULTS, has_few
from bidsim.report.view import Cell, cell, decided, tone
from bidsim.report.words import label, writer
from bidsim.result import Segment

SHOWN = 5


@dataclass(frozen=True)
class Extreme:
    """A segment value: its name, what it is a value of, and the change of the cost there. was: the cost before and after;
    counts, clicks: the results, and the clicks where these are not the results; spend: its change."""

    name: str
    family: str
    cost: Cell
    was: str
    counts: str
    clicks: str
    spend: str


@dataclass(frozen=True)
class Extremes:
    """Of one candidate. said: on how many values the cost is clearly higher and lower; left: how many are not ranked."""

    policy: str
    said: str
    left: str
    worst: list[Extreme]
    best: list[Extreme]


def extremes(lookup: Lookup) -> list[Extremes]:
    """Of each candidate, where there is more than one segment value to rank."""
    days = day_family(lookup)  # which have a chart of their own
    families = [family for family in lookup.families if days is None or family != days[0]]
    segments = [(family, s) for family in families for s in lookup.families[family]]
    if not lookup.has_intervals or len(segments) < 2:
        return []
    return [_of_policy(lookup, p.name, segments) for p in lookup.candidates]


def _of_policy(lookup: Lookup, policy: str, segments: Sequence[tuple[str, Segment]]) -> Extremes:
    cost = lookup.indicator
    higher: list[tuple[float, int]] = []
    lower: list[tuple[float, int]] = []
    tones = {"good": 0, "bad": 0, "": 0}
    few = unknown = left_open = 0
    for at, (_, segment) in enumerate(segments):
        if has_few(lookup, policy, segment):
            few += 1
            continue
        difference = lookup.difference(policy, cost, None, segment)
        value = difference.relative.value if difference else None
        ends = decided(lookup, policy, cost, None, segment, "relative")
        low, high = ends or (None, None)
        near = None if value is None else low if value > 0 else high
        if value is None or near is None:
            bounded = difference is not None and difference.relative.low is not None
            unknown, left_open = (unknown, left_open + 1) if bounded else (unknown + 1, left_open)
            continue
        tones[tone(cost, (low, high))] += 1
        if value > 0:
            higher.append((-near, at))
        elif value < 0:
            lower.append((near, at))
    worst, best = (
        [_extreme(lookup, policy, *segments[at]) for _, at in sorted(side)[:SHOWN]] for side in (higher, lower)
    )
    ranked = len(segments) - few - unknown - left_open
    return Extremes(policy, _said(lookup, tones, ranked, segments), _left(lookup, few, unknown, left_open), worst, best)


def _both(lookup: Lookup, policy: str, metric: str, segment: Segment) -> tuple[float | None, float | None]:
    return lookup.base(metric, None, segment), lookup.value(policy, metric, None, segment)


def _said(lookup: Lookup, tones: dict[str, int], ranked: int, segments: Sequence[tuple[str, Segment]]) -> str:
    name = label(lookup.indicator)
    families = f.listed(f.clean_name(n, 40) for n in dict.fromkeys(family for family, _ in segments))
    if not ranked:
        return f"No value by {families} can be ranked by its {name}."
    said = (
        f"{name} is clearly higher on {tones['bad']:,} and clearly lower on {tones['good']:,} of "
        f"{f.plural(ranked, 'ranked value')} by {families}"
    )
    if tones["bad"] or tones["good"]:
        chance = ranked * (1 - lookup.confidence) / 2
        said += f"; chance alone would make about {f.significant(chance, 2)} of each"
    return f"{said}."


def _left(lookup: Lookup, few: int, unknown: int, left_open: int) -> str:
    """How many values are not ranked, and why."""
    why = []
    if few:
        why.append(f"{f.plural(few, 'value')} with fewer than {FEW_RESULTS} {lookup.results} under both policies")
    if unknown:
        why.append(f"{f.plural(unknown, 'value')} without an interval")
    if left_open:
        why.append(f"{f.plural(left_open, 'value')} whose rows the log can't decide could have any effect")
    return f"Not ranked: {f.listed(why)}." if why else ""


def _extreme(lookup: Lookup, policy: str, family: str, segment: Segment) -> Extreme:
    changed = cell(lookup, policy, lookup.indicator, None, segment)
    write = writer(lookup.indicator, lookup.money)
    ident = lookup.ident(segment)
    counts, clicks = (
        " → ".join(f.count(n) for n in _both(lookup, policy, metric, segment)) for metric in (lookup.results, "clicks")
    )
    return Extreme(
        name=lookup.label(segment),
        family=f"{f.clean_name(family, 40)}{f' {ident}' if ident else ''}",
        cost=changed,
        was=f"{write(lookup.base(lookup.indicator, None, segment))} → {changed.value}",
        counts=counts,
        clicks=clicks if lookup.results != "clicks" and lookup.has("clicks") else "",
        spend=cell(lookup, policy, "spend", None, segment).change,
    )
