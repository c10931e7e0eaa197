"""The gain chart: "the 10% of impressions that v2 scores highest hold 34% of the clicks", for readers without AUC.

From the grid of scores that the run's statistics keep: the log is not read again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from bidsim.report import format as f
from bidsim.report.drawing import Sketch
from bidsim.report.frame import Axis, Frame
from bidsim.report.knowledge import Plain
from bidsim.report.lookup import Lookup
from bidsim.report.plots import CANDIDATES
from bidsim.report.words import HEAD_WORDS

if TYPE_CHECKING:
    from bidsim.statistics.gain import Captured, Curve
    from bidsim.statistics.spread import Sample
    from bidsim.statistics.tables import ScoreGrid, Tables

TOPS = (0.01, 0.05, 0.1, 0.2, 0.5)
SAID = 0.1
# What a head's rows and its positive labels are.
WHAT = {
    "ctr": ("impressions", "clicks"),
    "cvr": ("clicks", "conversions"),
    "ctcvr": ("impressions", "conversions"),
}
# Shares of the rows at which a curve is drawn.
DRAWN = (*(n / 400 for n in range(20)), *(n / 100 for n in range(5, 101)))


@dataclass(frozen=True)
class Gains:
    """Of one head: its picture, what it says at the best 10%, and the numbers behind it."""

    figure: Sketch
    said: str
    table: Plain
    caption: str


@dataclass(frozen=True)
class _Scored:
    series: int
    name: str
    grid: ScoreGrid
    curve: Curve
    found: Captured


def gains(lookup: Lookup, tables: Tables | None) -> list[Gains]:
    """Of each head that has positive labels; none without the run's statistics."""
    if tables is None:
        return []
    return [g for head in lookup.heads if head in WHAT if (g := _of_head(lookup, tables, head)) is not None]


def _of_head(lookup: Lookup, tables: Tables, head: str) -> Gains | None:
    from bidsim.statistics.gain import captured, gain_curve
    from bidsim.statistics.tallies import OVERALL

    scored = []
    for policy, name in enumerate(tables.outline.policies):
        source = tables.outline.sources.get((policy, head))
        ranked = None if source is None else tables.ranked.get((head, source, OVERALL))
        if ranked is None or ranked.grid is None:
            continue
        curve, found = gain_curve(ranked.grid), captured(ranked.grid, TOPS)
        if curve is not None and found is not None:
            scored.append(_Scored(policy, name, ranked.grid, curve, found))
    if not scored:
        return None
    sample = tables.sample(OVERALL, lookup.confidence)
    lines = [_line(one, sample) for one in scored]
    rows, labels = WHAT[head]
    caption = f"Share of the {labels} that the best-scored {rows} hold; by chance it would be the share of the {rows}"
    columns = ["Policy", *(f"Best {top:.0%}" for top in TOPS)]
    drawn = [one for one in scored if one.series <= CANDIDATES]
    words = HEAD_WORDS.get(head, head)
    picture = Markup(_picture(drawn, rows, labels))
    return Gains(
        Sketch(f"gains-{head}", words, picture, alone=f"{head.upper()}: what the best scores hold"),
        _said(drawn, lines, sample, rows, labels),
        Plain(columns, lines),
        caption,
    )


def _line(one: _Scored, sample: Sample) -> list[str]:
    """A row of the table."""
    from bidsim.statistics.gain import interval_of

    low, high = interval_of(one.found, one.grid, sample)
    ends = [_ends(max(a, 0.0), min(b, 1.0)) for a, b in zip(low, high, strict=True)]
    shares = [f"{f.share(s)} {f.interval(*e, f.share)}".rstrip() for s, e in zip(one.found.share, ends, strict=True)]
    return [one.name, *shares]


def _said(scored: list[_Scored], lines: list[list[str]], sample: Sample, rows: str, labels: str) -> str:
    from bidsim.statistics.gain import interval_of

    at = TOPS.index(SAID)
    base = scored[0]
    texts = [
        f"The {SAID:.0%} of {rows} that {f.clean_name(base.name)} scores highest hold {lines[0][at + 1]} of the {labels}"
    ]
    for one, line in zip(scored[1:], lines[1:], strict=False):
        name = f.clean_name(one.name)
        more = one.found.minus(base.found)
        if not more.share.any() and not more.without.any():
            texts.append(f"{name} scores them alike")
            continue
        low, high = interval_of(more, one.grid, sample)
        change = f"{_points(more.share[at])} {f.interval(*_ends(low[at], high[at]), _points)}".rstrip()
        texts.append(f"those of {name} {line[at + 1]}, {change}")
    return "; ".join(texts) + "."


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    """Nothing where there is no interval, or none that says anything: no label was seen, or all were."""
    known = math.isfinite(low) and math.isfinite(high) and low < high
    return (float(low), float(high)) if known else (None, None)


def _points(value: float | None) -> str:
    return f"{f.delta(None if value is None else 100 * value, 1)} pt"


def _picture(scored: list[_Scored], rows: str, labels: str) -> str:
    ticks = [(n / 5, f"{20 * n}%") for n in range(6)]
    frame = Frame(Axis(0, 1, ticks, f"best-scored share of the {rows}"), Axis(0, 1, ticks, f"share of the {labels}"))
    frame.rule(frame.across(0), frame.across(1), frame.up(0), frame.up(1), "var(--ink-3)")
    top = frame.across(SAID)
    frame.rule(top, top, frame.up(0), frame.up(1), "var(--ink-3)", "2 3")
    for one in scored:
        frame.line(list(zip(DRAWN, one.curve.at(DRAWN).tolist(), strict=True)), one.series)
        frame.mark(top, frame.up(float(one.curve.at([SAID])[0])), one.series)
    said = (
        f"Share of the {labels} by the best-scored share of the {rows}, one line a policy; the diagonal is a score that "
        f"tells nothing, the vertical line the best {SAID:.0%}. The numbers follow as a table."
    )
    return frame.svg(said)
