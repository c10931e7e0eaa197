"""The replay at other bid levels: the spend frontier, and each policy brought to the baseline's spend.

In second price without a budget the scan counts rows by the multiplier at which they start to win (`LevelScan`); the
crossing cell is then walked row by row, so the matched multiplier is exact. With first-price payments or budgets a
win's price or chance depends on the multiplier itself: whole replays at many multipliers bracket the match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.replay.batches import Batch
from bidsim.replay.engine import Engine
from bidsim.replay.measures import AMOUNT_BITS, COUNT_BITS, MONEY_SCALE, Writer
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder, PolicyPlan, bidder
from bidsim.replay.stages import Stages
from bidsim.replay.stream import STREAM_ROWS, share, stream_sql
from bidsim.statistics.frontier import MULTIPLIERS, Grid, Levels, Steps, Totals, climb
from bidsim.statistics.metrics import AtLevel, Matched
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally
from bidsim.statistics.units import BUCKETS

Frontier = dict[int, list[tuple[float, Totals]]]
Found = tuple[Frontier, dict[tuple[int, str], Matched]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Whole replays: a coarse grid first, then two refinements between the neighbours that bracket the match.
COARSE: tuple[float, ...] = tuple(float(2.0 ** (j / 2)) for j in range(-8, 9))
REFINEMENTS = 2
FINE = 13
# A fine grid leaves fewer rows to walk, a coarse one fewer cells to keep for many segment values.
FINE_GRID, COARSE_GRID, MANY_VALUES = 16, 4, 300


@dataclass(frozen=True)
class Start:
    """SQL of the multiplier at which each counted row's bid starts to win, NULL where none does."""

    policy: int
    sql: str


def level_starts(plan: Plan, ties_lose: bool) -> list[Start]:
    """For every policy; empty where one multiplier a row can't say what wins (first price, budgets)."""
    if plan.any_first_price or plan.budgeted:
        return []
    return [_start(p, ties_lose) for p in plan.policies]


def _start(policy: PolicyPlan, ties_lose: bool) -> Start:
    b = bidder(policy, str(policy.index))
    if b.round_down:
        bar = "(floor(price) + 1e0)" if ties_lose else "ceil(price)"
    else:
        bar = "price"
    reach = ""
    if policy.max is not None:
        # Above max no multiplier helps; unrounded bids must beat the price strictly where ties lose.
        strictly = ties_lose and not b.round_down
        reach = f" and {bar} {'<' if strictly else '<='} {policy.max!r}::double"
    raw = b.raw
    start = f"greatest({bar}, {b.min}) / {raw}"
    if ties_lose:
        # Where min or a whole unit decides, reaching it is enough: start a hair lower, so that above means at or above.
        reached = "true" if b.round_down else f"price < {b.min}"
        start = f"{start} * case when {reached} then {1 - 2.0**-52!r}::double else 1e0 end"
    return Start(
        policy.index,
        f"case when observed and price is not null and not undecidable and not blocked "
        f"and isfinite({raw}) and {raw} > 0e0{reach} then {start} end",
    )


def _whole(plan: Plan, batch: Batch, rows: Ints) -> dict[str, npt.NDArray[Any]]:
    """Whole-number money, clicks and conversions of some rows."""
    out: dict[str, npt.NDArray[Any]] = {"spend": batch["money"][rows]}
    if plan.has("click"):
        clicks = batch["click"][rows] == 1
        out["clicks"] = np.where(clicks, batch["wi"][rows], 0) if plan.weighted else clicks.astype(np.int64)
    if plan.has("conversion"):
        amount = batch["conversion"][rows] * (batch["w"][rows] if plan.weighted else 1.0)
        out["conversions"] = np.rint(amount * 2.0**AMOUNT_BITS).astype(np.int64)
    return out


class LevelScan:
    """Counts the rows of one thread's batches by segment value and cell of the starting multiplier."""

    def __init__(self, plan: Plan, sizes: Sequence[int], grid: Grid) -> None:
        self.plan = plan
        self.grid = grid
        self.sizes = list(sizes)
        self.tallies = [Tally(size * grid.cells) for size in sizes]

    def add(self, batch: Batch) -> None:
        for policy in self.plan.policies:
            start = batch[f"start_{policy.index}"]
            rows = np.flatnonzero(~np.isnan(start))
            if len(rows) == 0:
                continue
            cell = self.grid.cell(start[rows])
            sums = _whole(self.plan, batch, rows)
            for i, tally in enumerate(self.tallies):
                at = batch.codes[i][rows] * self.grid.cells + cell if batch.codes else cell
                for name, values in sums.items():
                    key: Key = (name, policy.index, None)
                    if name == "spend":
                        tally.add(key, at, values)
                    else:
                        some = np.flatnonzero(values)
                        tally.add(key, at[some], values[some])

    def merge(self, other: LevelScan) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)

    def levels(self, policy: int, names: Sequence[str]) -> dict[str, Levels]:
        """By family name; the whole log is the sum over the first segment."""
        found: dict[str, Levels] = {}
        for name, size, tally in zip(names or [OVERALL], self.sizes, self.tallies, strict=True):
            sums = tally.exact(size * self.grid.cells, 1)[0]
            zero = np.zeros(size * self.grid.cells, dtype=object)
            shaped = [
                sums.get((what, policy, None), zero).reshape(size, self.grid.cells)
                for what in ("spend", "clicks", "conversions")
            ]
            found[name] = Levels(*shaped)
        if OVERALL not in found:
            first = found[names[0]]
            found[OVERALL] = Levels(
                *(a.sum(axis=0, keepdims=True) for a in (first.spend, first.clicks, first.conversions))
            )
        return found


def level_scans(plan: Plan, values: Sequence[tuple[str, ...]], ties_lose: bool, threads: int) -> list[LevelScan]:
    """One for each thread."""
    most = max((len(v) for v in values), default=1)
    grid = Grid(FINE_GRID if most <= MANY_VALUES else COARSE_GRID, ties_lose)
    return [LevelScan(plan, [len(v) for v in values] or [1], grid) for _ in range(threads)]


def matched_by_cells(
    engine: Engine, plan: Plan, scans: Sequence[LevelScan], starts: Sequence[Start], families: dict[str, Family]
) -> Found:
    """(frontier by policy, matched results by policy and family), exactly."""
    whole = scans[0]
    for other in scans[1:]:
        whole.merge(other)
    names = [s.name for s in plan.segments]
    by_policy = {p.index: whole.levels(p.index, names) for p in plan.policies}
    frontier: Frontier = {
        index: [(x, levels[OVERALL].upto(0, whole.grid.below(x))) for x in MULTIPLIERS]
        for index, levels in by_policy.items()
    }
    walk = _Walk(plan, whole.grid, families, {i: found for i, found in by_policy.items() if i > 0})
    walk.run(engine, starts, len(scans))
    return frontier, walk.matched()


@dataclass
class _Kept:
    """What one thread's batches hold at the matched level: rows of crossing cells, and sums by bucket below them."""

    rows: dict[tuple[int, str], list[tuple[Ints, Ints, Steps]]]
    tallies: dict[str, Tally]


class _Walk:
    """One more stream of few columns: the rows of the crossing cells, and by bucket of units what lies below them."""

    def __init__(
        self, plan: Plan, grid: Grid, families: dict[str, Family], levels: dict[int, dict[str, Levels]]
    ) -> None:
        self.plan = plan
        self.grid = grid
        self.families = families
        self.levels = levels
        self.goals = {name: family.exact("spend", 0) for name, family in families.items()}
        # One past the last cell where spend never gets above the goal: then everything is below.
        self.cuts = {
            (policy, name): np.array(
                [_or(found[name].crossing(v, goal), grid.cells) for v, goal in enumerate(self.goals[name])],
                dtype=np.int64,
            )
            for policy, found in levels.items()
            for name in families
        }
        self.kept: list[_Kept] = []

    def run(self, engine: Engine, starts: Sequence[Start], threads: int) -> None:
        self.kept = [
            _Kept({k: [] for k in self.cuts}, {n: Tally(len(f.values) * f.buckets) for n, f in self.families.items()})
            for _ in range(threads)
        ]
        if not self.cuts:
            return
        wanted = [s for s in starts if s.policy in self.levels]
        sql = stream_sql(self.plan, [], "formulas", wanted, sources=self.plan.hashed_sources)
        share(
            engine.stream(sql, STREAM_ROWS),
            lambda incoming, kept: self._add(Batch(self.plan, incoming), kept),
            self.kept,
        )

    def _add(self, batch: Batch, kept: _Kept) -> None:
        for policy in self.levels:
            start = batch[f"start_{policy}"]
            rows = np.flatnonzero(~np.isnan(start))
            cell = self.grid.cell(start[rows])
            sums = _whole(self.plan, batch, rows)
            bucket = {n: (batch.bucket[rows] // (BUCKETS // f.buckets)) for n, f in self.families.items()}
            for i, name in enumerate([OVERALL, *(s.name for s in self.plan.segments)]):
                code = batch.codes[i - 1][rows] if i else np.zeros(len(rows), dtype=np.int64)
                cut = self.cuts[(policy, name)][code]
                below = np.flatnonzero(cell < cut)
                at = code[below] * self.families[name].buckets + bucket[name][below]
                for what, values in sums.items():
                    kept.tallies[name].add((what, policy, None), at, values[below])
                here = np.flatnonzero(cell == cut)
                if len(here):
                    nothing = np.zeros(len(here), dtype=np.int64)
                    clicks, conversions = (sums[n][here] if n in sums else nothing for n in ("clicks", "conversions"))
                    steps = Steps(start[rows][here], sums["spend"][here], clicks, conversions)
                    kept.rows[(policy, name)].append((code[here], bucket[name][here], steps))

    def matched(self) -> dict[tuple[int, str], Matched]:
        out = {}
        for (policy, name), cuts in self.cuts.items():
            parts = [p for kept in self.kept for p in kept.rows[(policy, name)]]
            code, bucket = (_joined([p[i] for p in parts]) for i in (0, 1))  # type: ignore[misc]
            order = np.argsort(code, kind="stable")
            steps = [
                _joined([getattr(p[2], what) for p in parts])[order]
                for what in ("start", "spend", "clicks", "conversions")
            ]
            code, bucket = code[order], bucket[order]
            edges = np.searchsorted(code, np.arange(len(cuts) + 1))
            results: list[tuple[Totals, float] | None] = []
            taken = np.zeros(len(code), dtype=bool)
            same = np.zeros(len(cuts), dtype=bool)
            for value, cut in enumerate(cuts.tolist()):
                mine = slice(int(edges[value]), int(edges[value + 1]))
                begin = self.levels[policy][name].upto(value, cut)
                goal = self.goals[name][value]
                total, at = climb(begin, Steps(*(s[mine] for s in steps)), goal)
                if self.families[name].exact("spend", policy)[value] == goal:
                    results.append((self._as_it_is(policy, name, value), 1.0))
                    same[value] = True
                    continue
                if cut == self.grid.cells and total.spend < goal:
                    results.append(None)  # even winning everything the policy spends less
                    continue
                if at is None:
                    filled = np.flatnonzero(self.levels[policy][name].spend[value, :cut])
                    at = self.grid.upper(int(filled[-1])) if len(filled) else self.grid.upper(cut - 1)
                else:
                    taken[mine] = steps[0][mine] <= at
                results.append((total, at))
            won = code[taken] * self.families[name].buckets + bucket[taken]
            at_level = self._at_level(policy, name, won, [s[taken] for s in steps[1:]])
            for what in ("spend", "clicks", "conversions"):
                getattr(at_level, what)[same] = self.families[name].by_bucket(what, policy)[same]
            out[(policy, name)] = _matched(self.plan, results, at_level)
        return out

    def _as_it_is(self, policy: int, name: str, value: int) -> Totals:
        """The policy at its own level: it spends as much already, and more would only add free wins."""
        return Totals(*(self.families[name].exact(what, policy)[value] for what in ("spend", "clicks", "conversions")))

    def _at_level(self, policy: int, name: str, at: Ints, rows: Sequence[npt.NDArray[Any]]) -> AtLevel:
        """at, rows: groups and sums of the rows of the crossing cells that are won at the matched level."""
        size, buckets = len(self.families[name].values), self.families[name].buckets
        total = Tally(size * buckets)
        for what, values in zip(("spend", "clicks", "conversions"), rows, strict=True):
            for part in range(0, len(at), STREAM_ROWS):
                cut = slice(part, part + STREAM_ROWS)
                total.add((what, policy, None), at[cut], values[cut])
        for kept in self.kept:
            sums = kept.tallies[name].sums
            total.merge(Tally(total.groups, {k: v for k, v in sums.items() if k[0][1] == policy}))
        parts = total.exact(size, buckets)[1]
        scale = {"spend": MONEY_SCALE, "clicks": _counts(self.plan), "conversions": 2**AMOUNT_BITS}
        nothing = np.zeros((size, buckets))
        found = {what: parts.get((what, policy, None), nothing) / scale[what] for what in scale}
        return AtLevel(**found, **self._slopes(policy, name, scale))

    def _slopes(self, policy: int, name: str, scale: Mapping[str, int]) -> dict[str, Floats]:
        """How results and the multiplier's logarithm move with spend around the crossing cells, an octave wide."""
        levels, half = self.levels[policy][name], max(1, self.grid.per_octave // 2)
        clicks, conversions, multiplier = (np.zeros(len(self.families[name].values)) for _ in range(3))
        for value, cut in enumerate(self.cuts[(policy, name)].tolist()):
            window = slice(max(0, min(cut, self.grid.cells - 1) - half), min(self.grid.cells, cut + half + 1))
            spend = int(levels.spend[value, window].sum()) / scale["spend"]
            if spend > 0:
                clicks[value] = int(levels.clicks[value, window].sum()) / scale["clicks"] / spend
                conversions[value] = int(levels.conversions[value, window].sum()) / scale["conversions"] / spend
                multiplier[value] = math.log(2.0) * (window.stop - window.start) / self.grid.per_octave / spend
        return {"clicks_slope": clicks, "conversions_slope": conversions, "multiplier_slope": multiplier}


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _counts(plan: Plan) -> int:
    return 2**COUNT_BITS if plan.weighted else 1


def _matched(
    plan: Plan,
    results: Sequence[tuple[Totals, float] | None],
    level: AtLevel | None = None,
) -> Matched:
    def column(value: Callable[[Totals], int], scale: int) -> Any:
        return np.array([np.nan if r is None else value(r[0]) / scale for r in results])

    return Matched(
        multiplier=np.array([np.nan if r is None else r[1] for r in results]),
        spend=column(lambda t: t.spend, MONEY_SCALE),
        clicks=column(lambda t: t.clicks, _counts(plan)),
        conversions=column(lambda t: t.conversions, 2**AMOUNT_BITS),
        level=level,
    )


def matched_by_replays(engine: Engine, plan: Plan, stages: Stages, families: dict[str, Family]) -> Found:
    """(frontier by policy, matched results by policy for the whole log) from whole replays at many multipliers."""
    goal = families[OVERALL].exact("spend", 0)[0]
    known: dict[int, dict[float, Totals]] = {p.index: {} for p in plan.policies}

    def evaluate(wanted: dict[int, Sequence[float]]) -> None:
        bidders: list[Bidder] = []
        at: list[tuple[int, float]] = []
        for index, multipliers in wanted.items():
            for x in multipliers:
                if x not in known[index]:
                    bidders.append(bidder(plan.policies[index], f"x{len(bidders)}", x))
                    at.append((index, x))
        if not bidders:
            return
        found = stages.totals(bidders) if plan.budgeted else _totals(engine, plan, stages, bidders)
        for (index, x), sums in zip(at, found, strict=True):
            known[index][x] = Totals(*sums)

    evaluate({p.index: COARSE for p in plan.policies})
    frontier: Frontier = {i: sorted(points.items()) for i, points in known.items()}
    for _ in range(REFINEMENTS):
        between: dict[int, Sequence[float]] = {}
        for policy in plan.policies[1:]:
            low, high = _bracket(known[policy.index], goal)
            if low is not None and high is not None:
                between[policy.index] = [float(x) for x in np.geomspace(low, high, FINE)[1:-1]]
        evaluate(between)
    matched: dict[tuple[int, str], Matched] = {}
    for policy in plan.policies[1:]:
        low, high = _bracket(known[policy.index], goal)
        reached = low is not None and (high is not None or known[policy.index][low].spend == goal)
        result = (known[policy.index][low], low) if reached and low is not None else None
        matched[(policy.index, OVERALL)] = _matched(plan, [result])
    return frontier, matched


def _totals(engine: Engine, plan: Plan, stages: Stages, bidders: Sequence[Bidder]) -> list[tuple[int, int, int]]:
    """(spend, clicks, conversions) of each bidder's counted wins without a budget."""
    view = stages.settle(bidders, "levels_outcomes")
    write = Writer(plan.weighted)
    sums = []
    for b in bidders:
        won = f"o_{b.key}"
        clicks = write.count(f"{won} and click = 1e0")[0] if plan.has("click") else "0"
        conversions = write.amount("conversion", won)[0] if plan.has("conversion") else "0"
        sums += [f"sum(case when {won} then cost_{b.key} else 0 end)", f"sum({clicks})", f"sum({conversions})"]
    row = [int(v or 0) for v in engine.rows(f"select {', '.join(sums)} from {view}")[0]]
    return [(row[i], row[i + 1], row[i + 2]) for i in range(0, len(row), 3)]


def _bracket(points: dict[float, Totals], goal: int) -> tuple[float | None, float | None]:
    """The largest multiplier before spend first exceeds the goal, and the first that exceeds it."""
    low: float | None = None
    for x in sorted(points):
        if points[x].spend > goal:
            return low, x
        low = x
    return low, None
