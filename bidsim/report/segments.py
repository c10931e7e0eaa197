"""Segments side by side: the rows of the tables, and the changes that the campaign chart draws.

Rows are ordered by the baseline's spend or as the log orders them, never by the size of a change: the largest changes
are mostly the noisiest, and a list of them reads as a list of findings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bidsim.report import format as f
from bidsim.report.lookup import Lookup
from bidsim.report.view import Cell, cell, decided
from bidsim.report.words import difference_writer, label, writer
from bidsim.result import Segment

TABLE_ROWS = 60
# Over all tables together, so that many candidates or segments don't make a page that nobody can load or read.
ALL_ROWS = 160
FEWEST_ROWS = 12
# Of a page whose script shows them a few at a time: (of one table, over all tables).
BROWSED_ROWS = (400, 400)
# Numbers to sort by, as its charts have them.
DIGITS = 6
CHART_ROWS = 30
# Below this many results on either side a cost per result is hardly more than luck; such dots are hollow.
FEW_RESULTS = 20


@dataclass(frozen=True)
class Column:
    label: str
    metric: str


@dataclass(frozen=True)
class SegmentRow:
    """cells: for each column the baseline's text and the candidate's cell. numbers: what stands in each cell, the change as
    written, None where there is none; results: the more of either policy's."""

    name: str
    ident: str
    cells: list[tuple[str, Cell]]
    numbers: list[float | None]
    results: float


@dataclass(frozen=True)
class SegmentTable:
    """key: of this table on its page; few: whether any row shown has few results, which its cells say."""

    key: str
    family: str
    policy: str
    columns: list[Column]
    rows: list[SegmentRow]
    total: int
    by_spend: bool
    few: bool


@dataclass(frozen=True)
class Shift:
    """The change of one campaign under one candidate, relative; None where undefined. decided: see `view.decided`."""

    row: int
    series: int
    spend: tuple[float | None, float | None, float | None]
    cost: tuple[float | None, float | None, float | None]
    decided: tuple[float | None, float | None]
    few: bool


@dataclass(frozen=True)
class Shifts:
    """labels: a name per row, distinct, cut to the width of the axis; names: the same in full."""

    labels: list[str]
    names: list[str]
    shifts: list[Shift]
    total: int


def by_spend(lookup: Lookup, family: str) -> list[Segment]:
    """Segment values by falling baseline spend, equal ones as the log orders them."""
    segments = lookup.families.get(family, [])
    return sorted(segments, key=lambda s: -(lookup.base("spend", None, s) or 0.0))


def segment_tables(lookup: Lookup, *, browsed: bool = False) -> dict[str, list[SegmentTable]]:
    """For each family of segments a table per candidate. browsed: by a script, so that many rows hinder nobody."""
    most = BROWSED_ROWS if browsed else (TABLE_ROWS, ALL_ROWS)
    return {
        family: [_table(lookup, family, policy.name, f"{i}-{j}", most) for j, policy in enumerate(lookup.candidates)]
        for i, family in enumerate(lookup.families)
    }


def has_few(lookup: Lookup, policy: str, segment: Segment) -> bool:
    """Whether a segment has few results under the baseline and under the policy. Many that are no more are not few."""
    sides = lookup.base(lookup.results, None, segment), lookup.value(policy, lookup.results, None, segment)
    return all((n or 0) < FEW_RESULTS for n in sides)


def shown_of(lookup: Lookup, family: str, rows: tuple[int, int] = (TABLE_ROWS, ALL_ROWS)) -> tuple[list[Segment], bool]:
    """The values of a family that its tables have, and whether they are ordered by falling baseline spend. rows: at most, in
    one table and in all."""
    tables = len(lookup.families) * len(lookup.candidates)
    most = min(rows[0], max(FEWEST_ROWS, rows[1] // max(1, tables)))
    campaigns = family == lookup.campaign_family
    if campaigns:
        most = max(most, CHART_ROWS)  # every campaign of the chart has its row
    segments = lookup.families[family]
    ordered = campaigns or len(segments) > most
    return (by_spend(lookup, family) if ordered else segments)[:most], ordered


def _table(lookup: Lookup, family: str, policy: str, key: str, most: tuple[int, int]) -> SegmentTable:
    metrics = ["spend", lookup.results, lookup.indicator]
    columns = [Column(label(m), m) for m in metrics if lookup.has(m)]
    shown, ordered = shown_of(lookup, family, most)
    rows = []
    any_few = False
    for s in shown:
        cells, numbers = [], []
        few = has_few(lookup, policy, s)
        any_few = any_few or few
        for c in columns:
            write = writer(c.metric, lookup.money)
            found = replace(cell(lookup, policy, c.metric, None, s), known="")
            if few and c.metric != "spend":
                found = replace(found, known="few" if found.change != f.DASH else "", tone="")
            base = lookup.base(c.metric, None, s)
            cells.append((write(base), found))
            numbers += [
                _number(n) for n in (base, lookup.value(policy, c.metric, None, s), _changed(lookup, policy, c, s))
            ]
        sides = lookup.base(lookup.results, None, s), lookup.value(policy, lookup.results, None, s)
        rows.append(SegmentRow(lookup.label(s), lookup.ident(s), cells, numbers, max(n or 0.0 for n in sides)))
    return SegmentTable(key, family, policy, columns, rows, len(lookup.families[family]), ordered, any_few)


def _changed(lookup: Lookup, policy: str, column: Column, segment: Segment) -> float | None:
    """The change that `view.cell` writes."""
    found = lookup.difference(policy, column.metric, None, segment)
    if found is None:
        return None
    return (found.absolute if difference_writer(column.metric)[0] == "absolute" else found.relative).value


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def shifts(lookup: Lookup, candidates: int, width: int) -> Shifts | None:
    """Change of spend and of the cost per result by campaign, for the first candidates; None without campaigns."""
    family = lookup.campaign_family
    if family is None or not lookup.candidates:
        return None
    segments = by_spend(lookup, family)
    shown = segments[:CHART_ROWS]
    found = []
    for row, segment in enumerate(shown):
        for series, policy in enumerate(lookup.candidates[:candidates], start=1):
            results = [
                lookup.base(lookup.results, None, segment),
                lookup.value(policy.name, lookup.results, None, segment),
            ]
            found.append(
                Shift(
                    row,
                    series,
                    _relative(lookup, policy.name, "spend", segment),
                    _relative(lookup, policy.name, lookup.indicator, segment),
                    decided(lookup, policy.name, lookup.indicator, None, segment, "relative") or (None, None),
                    few=any((r or 0) < FEW_RESULTS for r in results),
                )
            )
    names = [lookup.label(s) for s in shown]
    return Shifts(_distinct(lookup, shown, names, width), names, found, len(segments))


def _relative(
    lookup: Lookup, policy: str, metric: str, segment: Segment
) -> tuple[float | None, float | None, float | None]:
    found = lookup.difference(policy, metric, None, segment)
    return (found.relative.value, found.relative.low, found.relative.high) if found else (None, None, None)


def _distinct(lookup: Lookup, segments: list[Segment], names: list[str], width: int) -> list[str]:
    short = [f.shorten(n, width) for n in names]
    labels = []
    for segment, text in zip(segments, short, strict=True):
        ident = f.shorten(lookup.ident(segment) or "", 10)
        twice = short.count(text) > 1 and ident
        labels.append(f"{f.shorten(text, width - f.columns(ident) - 1)} {ident}" if twice else text)
    return labels
