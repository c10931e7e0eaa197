"""What unknown rows could do to numbers at matched spend: rows that are unknown at the levels where spend may match.

One more stream, of rows without an observed outcome only: where each starts to be unknown as a candidate's bids are
multiplied, what it costs there and brings; and in first price, where a win at an unknown price is known again, since the
logged bid is reached. Without budgets and internal auctions, as `levels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.aside import NEAR, Aside
from bidsim.replay.batches import column_of
from bidsim.replay.levels import MANY_VALUES, OtherLevels, start_of, sum_scales
from bidsim.replay.measures import MONEY_SCALE, whole_money
from bidsim.replay.plan import Plan
from bidsim.replay.policies import bidder
from bidsim.replay.sql import render
from bidsim.replay.stages import Stages
from bidsim.replay.unknowns import Unknowns
from bidsim.replay.worth import RESULT_SCALE, Predicted, predictions_of, results_of, wholes_of
from bidsim.statistics.frontier import Grid, Levels
from bidsim.statistics.identified import FATES, UnknownPair
from bidsim.statistics.matched_range import NAMES, Curves, MatchedRanges, Opening
from bidsim.statistics.tallies import OVERALL, Family, Tally

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]

# Sums of unknown rows. Bids at multiplier one: `dear` where they are the most that is paid, `own` where they are paid;
# fixed money: `capped` of bids cut at their maximum that are the most, `cheap` the least, `known` in any case.
PARTS = ("dear", "own", "capped", "cheap", "known", "clicks", "conversions")
# Of the sums of one thread; SUM_BYTES: of one group, whose sums are about fourteen.
MOST_BYTES, SUM_BYTES = 2**26, 14 * 16
HIGHEST = 16.0  # a multiplier beyond which nobody looks for a level
# A bid has to be above the one that lost, however little.
ABOVE = 1 + 2.0**-40


@dataclass(frozen=True)
class _Start:
    """SQL of a candidate's bid before it is cut, of the multiplier from which a row is won, or may be, and of the one from
    which that is known (None where no row has any). most: CPM at which the bid is cut, infinity for none."""

    policy: int
    sql: str
    raw: str
    close: str | None
    most: float


def _start(plan: Plan, policy: int, ties_lose: bool) -> _Start:
    of = plan.policies[policy]
    b = bidder(of, str(policy))
    most = None if of.max is None else f"{of.max!r}::double"
    bar = "greatest(coalesce(bid_log, 0e0), coalesce(case when isfinite(floor_logged) then floor_logged end, 0e0))"
    bar = f"(floor({bar}) + 1e0)" if b.round_down else bar
    # A first-price win at an unknown price is open below the logged bid.
    bar = f"(case when won then 0e0 else {bar} end)" if plan.any_first_price else bar
    reach = "" if most is None else f" and {bar} {'<=' if b.round_down else '<'} {most}"
    if plan.any_first_price:
        reach += f" and not (first_price and {b.limited} * w >= 9e9)"  # as bids.sql
    least = f"greatest({bar}, {b.min})" if of.min else bar
    open_ = f"price is null and isfinite({b.raw}) and {b.raw} > 0e0{reach}"
    start = f"{least} / {b.raw}{'' if b.round_down else f' * {ABOVE!r}::double'}"
    known = start_of(plan, of, ties_lose)
    close = (
        f"case when price is null and observed then {known} else 'nan'::double end" if plan.any_first_price else None
    )
    most_of = np.inf if of.max is None else of.max
    return _Start(policy, f"case when {open_} then {start} else {known} end", b.raw, close, most_of)


def matched_ranges(
    stages: Stages, levels: OtherLevels, unknown: Unknowns, families: Mapping[str, Family], aside: Aside | None
) -> dict[tuple[int, str], MatchedRanges]:
    """By candidate and family; empty where matched spend is found by whole replays, and for families of many values.

    aside: where the scan may have set such rows aside."""
    plan, grid = stages.plan, levels.grid
    if grid is None or not levels.matched:
        return {}
    few = {name: f for name, f in families.items() if len(f.values) <= MANY_VALUES}
    most = min(HIGHEST, max(_highest(plan, levels, unknown, grid, f) for f in few.values()))
    starts = [_start(plan, p.index, stages.ties_lose) for p in plan.policies[1:]]
    predicted = predictions_of(plan, families[OVERALL])
    sources = dict.fromkeys(source for by_policy in predicted.values() for source, _ in by_policy)
    sql = render(
        "matched_fates",
        starts=starts,
        any_first_price=plan.any_first_price,
        most=f"{most!r}::double",
        sources=[(i, plan.sources[i]) for i in sources],
        segments=plan.segments,
        outcomes="outcomes",
    )
    cells = int(grid.cell(np.array([most]))[0]) + 1
    asked = _that_fit(few, cells * len(starts))
    aim = _Aim(plan, predicted, starts, grid, cells, {name: len(f.values) for name, f in asked.items()})
    make = partial(_Open, aim)
    if aside is not None and aside.has("raised") and most <= NEAR:
        found = aside.reduce("raised", make, stages.engine.threads)
    else:
        found = stages.engine.reduce(sql, make)
    unsayable = frozenset({"clicks", "conversions"} - predicted.keys())
    return {
        (policy, name): _curves(aim, levels, unknown, family, found.tallies[name], policy).ranges(unsayable)
        for policy in (s.policy for s in starts)
        for name, family in asked.items()
    }


def _that_fit(families: Mapping[str, Family], groups: int) -> dict[str, Family]:
    """The smallest families, whose sums take at most MOST_BYTES: however many threads there are, which must not matter to
    the result. groups: of one segment value."""
    found: dict[str, Family] = {}
    left = MOST_BYTES
    for name, family in sorted(families.items(), key=lambda item: len(item[1].values)):
        left -= len(family.values) * groups * SUM_BYTES
        if left >= 0 or name == OVERALL:
            found[name] = family
    return {name: family for name, family in families.items() if name in found}


def _highest(plan: Plan, levels: OtherLevels, unknown: Unknowns, grid: Grid, family: Family) -> float:
    """The multiplier at which every candidate spends what the baseline may at most, by its counted wins alone."""
    highest = 0.0
    for policy in (p.index for p in plan.policies[1:]):
        more = _all_ours(unknown, family, policy)["dear"]["spend"]
        spend = levels.seen[policy][family.name]
        for value, exact in enumerate(levels.matched[(policy, family.name)].multiplier):
            if np.isnan(exact):
                continue
            goal = family.exact("spend", 0)[value] + int(more[value] * MONEY_SCALE) + 1
            cell = spend.crossing(value, goal, grid)
            highest = max(highest, HIGHEST if cell is None else grid.upper(cell))
    return highest or 1.0


@dataclass(frozen=True)
class _Aim:
    """What rows are summed for. cells: of the grid, from the first; sizes: values of each family."""

    plan: Plan
    predicted: Predicted
    starts: Sequence[_Start]
    grid: Grid
    cells: int
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class _Given:
    """A batch's rows, shape (count,): codes by family; open: whether the price is unknown, own: whether the bid is paid;
    ours: whether they are unknown to the baseline too; cheap: the least they cost where the bid is not paid; results: the
    most they bring, theirs: the same and what they cost the baseline, whole numbers by name."""

    count: int
    weight: Floats
    codes: Mapping[str, Ints]
    open: Bools
    own: Bools
    ours: Bools
    cheap: Ints
    results: Columns
    theirs: Columns

    @classmethod
    def of(cls, aim: _Aim, batch: pa.RecordBatch) -> Self:
        count, names = batch.num_rows, set(batch.schema.names)
        weight = column_of(batch, "w") if aim.plan.weighted else np.ones(count)
        results = wholes_of(results_of(batch, aim.predicted), weight)
        codes = {OVERALL: np.zeros(count, dtype=np.int64)}
        codes |= {s.name: column_of(batch, f"code_{i}").astype(np.int64) for i, s in enumerate(aim.plan.segments)}
        nowhere = np.zeros(count, dtype=bool)
        return cls(
            count,
            weight,
            codes,
            # Rows are set aside where all prices are known.
            column_of(batch, "open") == 1 if "open" in names else nowhere,
            column_of(batch, "first_price") == 1 if "first_price" in names else nowhere,
            column_of(batch, "unknown_0") > 0,
            column_of(batch, "cheap"),
            results,
            {"dear": column_of(batch, "dear_0"), "cheap": column_of(batch, "cheap_0"), **results},
        )


@dataclass(frozen=True)
class _Bids:
    """A candidate's bids as 1e-9 CPM times the weight: at multiplier one, where they are cut, and the cell from which they
    are (-1: never). Shape (rows,)."""

    full: Ints
    capped: Ints
    top: Ints


def _less(values: Columns) -> Columns:
    return {name: -each for name, each in values.items()}


class _Open:
    """Sums of unknown rows by family, segment value and cell of the multiplier from which they are unknown."""

    def __init__(self, aim: _Aim) -> None:
        self.aim = aim
        self.tallies = {name: Tally(size * aim.cells) for name, size in aim.sizes.items()}

    def add(self, batch: pa.RecordBatch) -> None:
        given = _Given.of(self.aim, batch)
        for s in self.aim.starts:
            self._add_candidate(batch, given, s)

    def _add_candidate(self, batch: pa.RecordBatch, given: _Given, s: _Start) -> None:
        cell, closed = self._cell(column_of(batch, f"start_{s.policy}")), np.full(given.count, -1)
        if given.own.any() and f"close_{s.policy}" in batch.schema.names:
            closed = np.where(cell >= 0, self._cell(column_of(batch, f"close_{s.policy}")), -1)
        bids = self._bids(batch, given, s, (cell >= 0) & (given.own | given.open))
        close, top = np.maximum(closed, cell), np.maximum(bids.top, cell)
        for side, rows in (("alone", (cell >= 0) & ~given.ours), ("both", (cell >= 0) & given.ours)):
            for mask, at, values in (
                (rows & given.open & ~given.own, cell, {"dear": bids.full, "cheap": given.cheap}),
                (rows & ~given.open & ~given.own, cell, {"known": given.cheap}),
                (rows & given.own, cell, {"own": bids.full}),
                (rows, cell, given.results),
                (rows & (bids.top >= 0) & ~given.own, top, {"dear": -bids.full, "capped": bids.capped}),
                (rows & (bids.top >= 0) & (closed < 0) & given.own, top, {"own": -bids.full, "known": bids.capped}),
                (rows & (closed >= 0), close, _less({"own": bids.full, **given.results})),
            ):
                self._add(given.codes, at, mask, s.policy, side, values)
        self._add(given.codes, cell, (cell >= 0) & given.ours, s.policy, "ours", given.theirs)
        self._add(given.codes, close, (closed >= 0) & given.ours, s.policy, "ours", _less(given.theirs))

    def _bids(self, batch: pa.RecordBatch, given: _Given, s: _Start, rows: npt.NDArray[np.bool_]) -> _Bids:
        """Of the rows on which a bid may be paid."""
        full, capped, top = (np.full(given.count, value) for value in (0, 0, -1))
        if rows.any():
            raw = column_of(batch, f"raw_{s.policy}")
            full = whole_money(np.where(rows, raw, 0.0), given.weight)
            if s.most < np.inf:
                capped = whole_money(np.full(given.count, s.most), given.weight)
                top = np.where(rows, self._cell(s.most / np.where(rows, raw, 1.0)), -1)
        return _Bids(full, capped, top)

    def _cell(self, start: Floats) -> Ints:
        """-1 where a row never starts, or beyond what is asked."""
        starts = ~np.isnan(start)
        cell = self.aim.grid.cell(np.where(starts, start, 1.0))
        return np.where(starts & (cell < self.aim.cells), cell, -1)

    def _add(
        self,
        codes: Mapping[str, Ints],
        cell: Ints,
        mask: npt.NDArray[np.bool_],
        policy: int,
        side: str,
        values: Columns,
    ) -> None:
        rows = np.flatnonzero(mask)
        if len(rows) == 0:
            return
        for family, tally in self.tallies.items():
            at = codes[family][rows] * self.aim.cells + cell[rows]
            for name, each in values.items():
                tally.add((f"{side} {name}", policy, None), at, each[rows])

    def merge(self, other: Self) -> None:
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])


def _curves(aim: _Aim, levels: OtherLevels, unknown: Unknowns, family: Family, tally: Tally, policy: int) -> Curves:
    size, grid = len(family.values), aim.grid
    sums = tally.exact(size, aim.cells)[1]
    scale = {"clicks": RESULT_SCALE, "conversions": RESULT_SCALE}

    def upto(side: str, name: str) -> Floats:
        found = sums.get((f"{side} {name}", policy, None), np.zeros((size, aim.cells)))
        return np.asarray(np.cumsum(found, axis=1) / scale.get(name, MONEY_SCALE))

    multiplier = np.array([grid.upper(cell) for cell in range(aim.cells)])

    def opening(side: str) -> Opening:
        part = {name: upto(side, name) for name in PARTS}
        known = part["known"] + multiplier * part["own"]
        dear = multiplier * part["dear"] + part["capped"] + known
        return Opening(dear, part["cheap"] + known, part["clicks"], part["conversions"])

    nothing = dict.fromkeys(NAMES, np.zeros((size, aim.cells)))
    ours = {"lost": nothing, "dear": nothing | {"spend": upto("ours", "dear")}}
    ours["cheap"] = {n: upto("ours", "cheap" if n == "spend" else n) for n in NAMES}
    matched = levels.matched[(policy, family.name)]
    return Curves(
        multiplier=multiplier,
        seen=_seen(aim, levels.seen[policy][family.name]),
        alone=opening("alone"),
        both=opening("both"),
        ours=ours,
        counted={name: family.get(name, 0) if family.has(name, 0) else np.zeros(size) for name in NAMES},
        all_ours=_all_ours(unknown, family, policy),
        exact={name: getattr(matched, name) for name in NAMES},
        exact_multiplier=matched.multiplier,
    )


def _seen(aim: _Aim, levels: Levels) -> dict[str, Floats]:
    scales = sum_scales(aim.plan)
    return {name: sums[:, 1 : aim.cells + 1] / scales[name] for name, sums in levels.at_edges(aim.grid).items()}


def _all_ours(unknown: Unknowns, family: Family, policy: int) -> dict[str, dict[str, Floats]]:
    """All of the baseline's unknown rows under each fate."""
    size = len(family.values)
    pair = unknown.pairs.get((policy, family.name))
    if not isinstance(pair, UnknownPair):
        return {fate: dict.fromkeys(NAMES, np.zeros(size)) for fate in FATES}
    parts = [(pair.baseline_alone.adds(fate), pair.baseline_both.adds(fate)) for fate in FATES]
    return {
        fate: {name: np.nan_to_num(alone[name] + both[name]) for name in NAMES}
        for fate, (alone, both) in zip(FATES, parts, strict=True)
    }
