"""Calibration by segment: predicted / observed of each policy for each value, with its interval, as a table with small
pictures on one scale, and in a sentence how many values are clearly predicted too high or too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from bidsim.report import format as f
from bidsim.report.frame import shape
from bidsim.report.lookup import Lookup
from bidsim.report.plots import CANDIDATES
from bidsim.report.segments import shown_of
from bidsim.report.words import writer
from bidsim.result import Metric, Range, Segment

WIDTH, HEIGHT = 130, 22
# The scale reaches from half to twice as much as happened; what lies beyond stands at its edge.
OCTAVES = 1.0


@dataclass(frozen=True)
class CalibrationCell:
    """Of one head at one place: text and interval of the baseline and of the candidate, and both as a picture."""

    sides: list[tuple[str, str]]
    plot: Markup


@dataclass(frozen=True)
class CalibrationRow:
    name: str
    ident: str
    cells: list[CalibrationCell]


@dataclass(frozen=True)
class CalibrationTable:
    """said: of each head in how many values each policy is clearly off; total: of values, of which rows shows some."""

    policy: str
    heads: list[str]
    said: list[str]
    rows: list[CalibrationRow]
    total: int
    banded: bool


def calibration_tables(lookup: Lookup) -> dict[str, list[CalibrationTable]]:
    """For each family of segments a table per candidate, where the heads have labels."""
    heads = [h for h in lookup.heads if lookup.has("calibration", h)]
    if not heads or lookup.baseline is None or not lookup.candidates:
        return {}
    return {
        family: [_table(lookup, family, p.name, at, heads) for at, p in enumerate(lookup.candidates, 1)]
        for family in lookup.families
    }


def _table(lookup: Lookup, family: str, policy: str, at: int, heads: list[str]) -> CalibrationTable:
    shown, _ = shown_of(lookup, family)
    series = min(at, CANDIDATES)
    bands = [_band(lookup, family, head) for head in heads]
    rows = [
        CalibrationRow(
            lookup.label(s),
            lookup.ident(s),
            [_cell(lookup, policy, series, h, s, band) for h, band in zip(heads, bands, strict=True)],
        )
        for s in shown
    ]
    said = [_said(lookup, family, policy, h) for h in heads] if lookup.has_intervals else []
    return CalibrationTable(policy, heads, said, rows, len(lookup.families[family]), any(bands))


def _band(lookup: Lookup, family: str, head: str) -> Range | None:
    """Where the gate's rule on this family's calibration passes."""
    for o in lookup.result.gate.rules:
        if o.metric == "calibration" and o.head == head and o.judged == "value" and " x ".join(o.segment) == family:
            return o.allowed
    return None


def _sides(lookup: Lookup, policy: str, head: str, segment: Segment) -> list[Metric | None]:
    base = lookup.baseline.name if lookup.baseline else ""
    return [lookup.metric(name, "calibration", head, segment) for name in (base, policy)]


def _cell(lookup: Lookup, policy: str, series: int, head: str, segment: Segment, band: Range | None) -> CalibrationCell:
    sides = _sides(lookup, policy, head, segment)
    write = writer("calibration", lookup.money)
    short = partial(f.fixed, decimals=2)
    texts = [(write(m.value), f.interval(m.low, m.high, short)) if m else (f.DASH, "") for m in sides]
    return CalibrationCell(texts, Markup(_plot(sides, series, band)))


def _said(lookup: Lookup, family: str, policy: str, head: str) -> str:
    counts = [[0, 0, 0], [0, 0, 0]]  # clearly high, clearly low, with an interval; baseline and candidate
    for segment in lookup.families[family]:
        for count, m in zip(counts, _sides(lookup, policy, head, segment), strict=True):
            if m is not None and m.low is not None and m.high is not None:
                count[0] += m.low > 1
                count[1] += m.high < 1
                count[2] += 1
    (base_high, base_low, base_of), (high, low, of) = counts
    name = f.clean_name(policy)
    return (
        f"{head}: {name} clearly predicts too much on {high} and too little on {low} of {f.plural(of, 'value')}, the "
        f"baseline on {base_high} and {base_low} of {base_of}."
    )


def _plot(sides: list[Metric | None], series: int, band: Range | None) -> str:
    """series: the candidate's. The look is the style sheet's, since there are many of these."""
    parts = []
    if band is not None:
        left = 0.0 if band.low is None or band.low <= 0 else _at(band.low)
        right = float(WIDTH) if band.high is None else _at(band.high)
        parts.append(f'<rect x="{left:g}" width="{max(right - left, 1):g}" height="{HEIGHT}"/>')
    parts.append(f'<path d="M{WIDTH / 2:g} 0v{HEIGHT}"/>')
    drawn = False
    for number, y, m in zip((0, series), (7, 15), sides, strict=True):
        if m is None or m.value is None or m.value <= 0:
            continue
        drawn = True
        known = m.low is not None and m.high is not None
        line = f'<path d="M{_at(m.low or 0):g} {y}H{_at(m.high or 0):g}"/>' if known else ""
        mark = shape(_at(m.value), y, number, 'class="m"')
        parts.append(f'<g class="s{number}">{line}{mark}</g>')
    if not drawn:
        return ""
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="cal" {box} aria-hidden="true">{"".join(parts)}</svg>'


def _at(ratio: float) -> float:
    """Where predicted / observed lies from left to right, on a logarithmic scale."""
    octaves = math.log2(ratio) if ratio > 0 else -math.inf
    share = (min(max(octaves, -OCTAVES), OCTAVES) / OCTAVES + 1) / 2
    return round(4 + share * (WIDTH - 8), 1)
