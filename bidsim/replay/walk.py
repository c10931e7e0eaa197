"""The second look at a log without a budget, of few columns: what wins at levels that the first look set.

Each policy at the baseline's spend, exactly: the scan's cells say in which cell of the starting multiplier the spend is
crossed, and its rows are walked one by one. And the baseline moved to each candidate's level, for the split of changes.
Both by bucket of units, so that they have intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.aside import Aside
from bidsim.replay.batches import Batch
from bidsim.replay.engines import AnyEngine
from bidsim.replay.levels import (
    GROWING,
    LevelScan,
    OtherLevels,
    RowSteps,
    Start,
    matched_at,
    steps_of,
    sum_scales,
    winnable,
)
from bidsim.replay.plan import Plan
from bidsim.replay.stream import STREAM_ROWS, stream_sql
from bidsim.statistics.frontier import MULTIPLIERS, Grid, Levels, Steps, Totals, climb, climb_growing, surely
from bidsim.statistics.split import SUMS, Level, Stage, level_of
from bidsim.statistics.tables import AtLevel, Matched
from bidsim.statistics.tallies import OVERALL, Family, Tally
from bidsim.statistics.units import BUCKETS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
STEPPED = (*SUMS, GROWING)


def walk_levels(
    engine: AnyEngine,
    plan: Plan,
    whole: LevelScan,
    starts: Sequence[Start],
    families: dict[str, Family],
    aside: Aside | None = None,
) -> OtherLevels:
    """Everything about other levels that the scan prepared, from what it set aside; else from one more stream of the log."""
    names = [s.name for s in plan.segments]
    levels = {p.index: whole.levels(p.index, names) for p in plan.policies}
    frontier = {
        index: [(x, found[OVERALL].upto(0, whole.grid.below(x), x)) for x in MULTIPLIERS]
        for index, found in levels.items()
    }
    walk = _Walk(plan, whole.grid, families, levels)
    walk.run(engine, starts, aside)
    return OtherLevels(frontier, walk.matched(), walk.stages(), whole.grid, levels)


@dataclass(frozen=True)
class _Aim:
    """Which levels the second look is for. shapes: (values, buckets) of each family; cuts: by policy and family, the cell
    in which the spend is crossed; targets: the levels that the baseline is moved to; place: the campaigns' segment."""

    plan: Plan
    grid: Grid
    shapes: Mapping[str, tuple[int, int]]
    cuts: Mapping[tuple[int, str], Ints]
    targets: Mapping[int, Level]
    place: int | None
    moved_buckets: int


class _Kept:
    """What batches hold at the matched level: rows of crossing cells, and sums by bucket below them; and what the
    baseline wins when it is moved to a candidate's level, by bucket."""

    def __init__(self, aim: _Aim) -> None:
        self.aim = aim
        self.rows: dict[tuple[int, str], list[tuple[Ints, Ints, Steps]]] = {k: [] for k in aim.cuts}
        self.tallies = {name: Tally(size * buckets) for name, (size, buckets) in aim.shapes.items()}
        self.moved = Tally(aim.moved_buckets)

    def add(self, incoming: pa.RecordBatch) -> None:
        aim = self.aim
        batch = Batch(aim.plan, incoming)
        buckets = {n: batch.bucket // (BUCKETS // buckets) for n, (_, buckets) in aim.shapes.items()}
        for policy in (p.index for p in aim.plan.policies[1:]):
            for steps in steps_of(aim.plan, batch, policy):
                self._add_steps(batch, policy, steps, buckets)
        for steps in steps_of(aim.plan, batch, 0) if aim.targets else ():
            self._add_moved(batch, steps)

    def _add_steps(self, batch: Batch, policy: int, steps: RowSteps, buckets: Mapping[str, Ints]) -> None:
        """A candidate's steps up to its matched level."""
        aim, rows = self.aim, steps.rows
        cell = aim.grid.cell(steps.at)
        for i, name in enumerate([OVERALL, *(s.name for s in aim.plan.segments)]):
            code = batch.codes[i - 1][rows] if i else np.zeros(len(rows), dtype=np.int64)
            bucket, cut = buckets[name][rows], aim.cuts[(policy, name)][code]
            below = np.flatnonzero(cell < cut)
            at = code[below] * aim.shapes[name][1] + bucket[below]
            for what, values in steps.sums.items():
                self.tallies[name].add((what, policy, None), at, values[below])
            here = np.flatnonzero(cell == cut)
            if len(here):
                nothing = np.zeros(len(here), dtype=np.int64)
                sums = (steps.sums[n][here] if n in steps.sums else nothing for n in STEPPED)
                self.rows[(policy, name)].append((code[here], bucket[here], Steps(steps.at[here], *sums)))

    def _add_moved(self, batch: Batch, steps: RowSteps) -> None:
        """What the baseline wins of a batch at each candidate's level, overall and campaign by campaign."""
        aim, rows = self.aim, steps.rows
        bucket = batch.bucket[rows] // (BUCKETS // aim.moved_buckets)
        code = np.zeros(len(rows), dtype=np.int64) if aim.place is None else batch.codes[aim.place][rows]
        for policy, level in aim.targets.items():
            for stage, reach in (("level", np.full(len(rows), level.overall)), ("mix", level.by_campaign[code])):
                won = np.flatnonzero(steps.at < reach if aim.grid.ties_lose else steps.at <= reach)
                sums = {what: values[won] for what, values in steps.sums.items()}
                if GROWING in sums:
                    sums["spend"] = sums["spend"] + np.rint(sums.pop(GROWING) * reach[won])
                for what, values in sums.items():
                    self.moved.add((what, policy, stage), bucket[won], values)

    def merge(self, other: Self) -> None:
        for key, rows in other.rows.items():
            self.rows[key] += rows
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])
        self.moved.merge(other.moved)


class _Walk:
    """The state of the second look. levels: by policy and family, from the first."""

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
                [_or(found[name].crossing(v, goal, grid), grid.cells) for v, goal in enumerate(self.goals[name])],
                dtype=np.int64,
            )
            for policy, found in levels.items()
            if policy > 0
            for name in families
        }
        place = plan.campaign_segment
        self.campaigns = OVERALL if place is None else plan.segments[place].name
        self.place = place
        found_levels = {p: level_of(families[self.campaigns], p) for p in levels if p > 0}
        self.targets: dict[int, Level] = {p: level for p, level in found_levels.items() if level is not None}
        shapes = {name: (len(family.values), family.buckets) for name, family in families.items()}
        moved = families[self.campaigns].buckets
        self.kept = _Kept(_Aim(plan, grid, shapes, self.cuts, self.targets, place, moved))

    def run(self, engine: AnyEngine, starts: Sequence[Start], aside: Aside | None) -> None:
        if not self.cuts:
            return
        if aside is not None and aside.has("starts"):
            self.kept = aside.reduce("starts", partial(_Kept, self.kept.aim), engine.threads)
            return
        wanted = [s for s in starts if s.policy > 0 or self.targets]
        # Only rows that can start to win: what every start's own condition begins with.
        sql = stream_sql(
            self.plan, [], "formulas", wanted, winnable(self.plan), sources=self.plan.hashed_sources, labels=()
        )
        self.kept = engine.reduce(sql, partial(_Kept, self.kept.aim))

    def stages(self) -> dict[int, tuple[Stage, Stage]]:
        """The baseline moved to each candidate's level: overall, and campaign by campaign."""
        out: dict[int, tuple[Stage, Stage]] = {}
        total = self.kept.moved
        sums, parts = total.exact(1, total.groups)
        scale = {name: s for name, s in sum_scales(self.plan).items() if self.families[OVERALL].has(name, 0)}
        nothing, none = np.zeros((1, total.groups)), np.zeros(1, dtype=object)
        for policy, level in self.targets.items():
            made = []
            for stage, name, reach, moved in (
                ("level", OVERALL, np.array([level.overall]), level.moved[None, :]),
                ("mix", self.campaigns, level.by_campaign, level.moved_by_campaign),
            ):
                slopes = self.levels[0][name].slopes(self.grid, reach)
                made.append(
                    Stage(
                        {w: int(sums.get((w, policy, stage), none)[0]) / scale[w] for w in scale},
                        {
                            w: parts.get((w, policy, stage), nothing)[0] / scale[w] + slopes[w] @ moved / scale[w]
                            for w in scale
                        },
                    )
                )
            out[policy] = (made[0], made[1])
        return out

    def matched(self) -> dict[tuple[int, str], Matched]:
        out = {}
        for (policy, name), cuts in self.cuts.items():
            parts = self.kept.rows[(policy, name)]
            code, bucket = (_joined([p[i] for p in parts]) for i in (0, 1))  # type: ignore[misc]
            order = np.argsort(code, kind="stable")
            steps = [_joined([getattr(p[2], what) for p in parts])[order] for what in ("start", *STEPPED)]
            code, bucket = code[order], bucket[order]
            edges = np.searchsorted(code, np.arange(len(cuts) + 1))
            results: list[tuple[Totals, float] | None] = []
            taken = np.zeros(len(code), dtype=bool)
            same = np.zeros(len(cuts), dtype=bool)
            for value, cut in enumerate(cuts.tolist()):
                mine = slice(int(edges[value]), int(edges[value + 1]))
                if self.families[name].exact("spend", policy)[value] == self.goals[name][value]:
                    results.append((self._as_it_is(policy, name, value), 1.0))
                    same[value] = True
                    continue
                climbed = self._climbed(policy, name, value, Steps(*(s[mine] for s in steps)))
                if climbed is None:
                    results.append(None)
                    continue
                total, last, at = climbed
                if last is None:
                    filled = np.flatnonzero(self.levels[policy][name].spend[value, :cut])
                    at = self.grid.upper(int(filled[-1])) if len(filled) else self.grid.upper(cut - 1)
                else:
                    taken[mine] = steps[0][mine] <= last
                results.append((total, at))
            won = code[taken] * self.families[name].buckets + bucket[taken]
            reached = np.array([0.0 if result is None else result[1] for result in results])
            at_level = self._at_level(policy, name, won, [s[taken] for s in steps[1:]], reached)
            for what in SUMS:
                getattr(at_level, what)[same] = self.families[name].by_bucket(what, policy)[same]
            out[(policy, name)] = matched_at(self.plan, results, at_level)
        return out

    def _as_it_is(self, policy: int, name: str, value: int) -> Totals:
        """The policy at its own level: it spends as much already, and more would only add free wins."""
        return Totals(*(self.families[name].exact(what, policy)[value] for what in SUMS))

    def _climbed(self, policy: int, name: str, value: int, steps: Steps) -> tuple[Totals, float | None, float] | None:
        """The totals where a policy comes to spend the goal, the multiplier up to which steps are taken, None where none
        is, and the one that gives these totals; nothing where it can't spend as much, or as little."""
        levels, goal, cut = self.levels[policy][name], self.goals[name][value], int(self.cuts[(policy, name)][value])
        growing, upper = levels.growing_upto(value, cut), self.grid.upper(min(cut, self.grid.cells - 1))
        if cut < self.grid.cells and (growing or steps.growing.any()):
            reached, at = climb_growing(levels.upto(value, cut, 0.0), growing, steps, goal, upper)
            return (reached, at, at) if at > 0 else None
        total, last = climb(levels.upto(value, cut, upper), steps, goal)
        if cut == self.grid.cells and total.spend < goal:
            return None
        return total, last, 0.0 if last is None else surely(last, steps.start)

    def _at_level(self, policy: int, name: str, at: Ints, rows: Sequence[npt.NDArray[Any]], reached: Floats) -> AtLevel:
        """at, rows: groups and sums of the steps of the crossing cells that are taken at the matched level; reached: its
        multiplier by value."""
        size, buckets = len(self.families[name].values), self.families[name].buckets
        total = Tally(size * buckets)
        for what, values in zip(STEPPED, rows, strict=True):
            for part in range(0, len(at), STREAM_ROWS):
                cut = slice(part, part + STREAM_ROWS)
                total.add((what, policy, None), at[cut], values[cut])
        sums = self.kept.tallies[name].sums
        total.merge(Tally(total.groups, {k: v for k, v in sums.items() if k[1] == policy}))
        parts = total.exact(size, buckets)[1]
        scale = sum_scales(self.plan)
        nothing = np.zeros((size, buckets))
        found = {what: parts.get((what, policy, None), nothing) / scale[what] for what in scale}
        growing = parts.get((GROWING, policy, None), nothing) / scale["spend"]
        found["spend"] = found["spend"] + growing * reached[:, None]
        return AtLevel(**found, **self._slopes(policy, name, scale))

    def _slopes(self, policy: int, name: str, scale: Mapping[str, int]) -> dict[str, Floats]:
        """How results and the multiplier's logarithm move with spend around the crossing cells, an octave wide."""
        half, count = max(1, self.grid.per_octave // 2), self.grid.cells
        edges = self.levels[policy][name].at_edges(self.grid)
        clicks, conversions, multiplier = (np.zeros(len(self.families[name].values)) for _ in range(3))
        for value, cut in enumerate(self.cuts[(policy, name)].tolist()):
            first, last = max(0, min(cut, count - 1) - half), min(count, cut + half + 1)
            moved = {what: float(sums[value, last] - sums[value, first]) / scale[what] for what, sums in edges.items()}
            if moved["spend"] > 0:
                clicks[value] = moved["clicks"] / moved["spend"]
                conversions[value] = moved["conversions"] / moved["spend"]
                multiplier[value] = math.log(2.0) * (last - first) / self.grid.per_octave / moved["spend"]
        return {"clicks_slope": clicks, "conversions_slope": conversions, "multiplier_slope": multiplier}


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
