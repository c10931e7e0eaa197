"""Other bid levels where one multiplier a row can't say what wins: first-price payments, and budgets.

There a win's price or chance depends on the multiplier itself, so the log is replayed whole at many multipliers: a
coarse grid gives the frontier, finer ones between its points the level at the baseline's spend, and two more replays
move the baseline to each candidate's level, for the split of changes. Sums are kept by bucket of units; how results
move with the level is taken from neighbouring multipliers. Under budgets the policies as they are, and at the matched
level, are replayed again for half of the units (see `resettle`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.arrays import values_of
from bidsim.replay.engines import AnyEngine
from bidsim.replay.levels import OtherLevels, matched_at, sum_scales
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder, bidder
from bidsim.replay.resettle import UnitBuckets, replay_halves, sums
from bidsim.replay.settling import AuctionRows
from bidsim.replay.stages import Stages
from bidsim.statistics import units
from bidsim.statistics.frontier import Totals
from bidsim.statistics.halves import REPLICATES, by_stratum
from bidsim.statistics.split import SUMS, Stage, fewer, level_of
from bidsim.statistics.tables import AtLevel, Matched
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COARSE: tuple[float, ...] = tuple(float(2.0 ** (j / 2)) for j in range(-8, 9))
REFINEMENTS = 2
FINE = 13
# How far apart, on both sides, the multipliers are that slopes are taken from.
AROUND = 2.0**0.25


@dataclass(frozen=True)
class _At:
    """What wins come to at one multiplier: exact totals, and parts by bucket of units in plain units, by name of SUMS."""

    totals: Totals
    parts: dict[str, Floats]


def sweep_levels(
    engine: AnyEngine, plan: Plan, stages: Stages, families: dict[str, Family]
) -> tuple[OtherLevels, dict[str, Family]]:
    """Everything about other levels, for the whole log; and the families with what half-samples say of their spread."""
    sweep = _Sweep(engine, plan, stages)
    for policy in plan.policies:
        sweep.wanted += [(policy.index, x) for x in COARSE]
    sweep.replay()
    frontier = {i: [(x, at.totals) for x, at in sorted(points.items())] for i, points in sweep.known.items()}
    goal = families[OVERALL].exact("spend", 0)[0]
    for _ in range(REFINEMENTS):
        for policy in plan.policies[1:]:
            low, high = sweep.bracket(policy.index, goal)
            if low is not None and high is not None:
                sweep.wanted += [(policy.index, float(x)) for x in np.geomspace(low, high, FINE)[1:-1]]
        sweep.replay()
    lows = {p.index: sweep.reached(p.index, goal) for p in plan.policies[1:]}
    moved: dict[int, dict[str, Floats]] = {}
    again = families
    if plan.budgeted:
        again, moved = sweep.rerun(families, lows)
    matched = {(i, OVERALL): sweep.matched(i, low, moved.get(i, {})) for i, low in lows.items()}
    return OtherLevels(frontier, matched, sweep.stages(families)), again


class _Sweep:
    """Replays at many multipliers. known: by policy and multiplier; wanted: what the next replay is to find."""

    def __init__(self, engine: AnyEngine, plan: Plan, stages: Stages) -> None:
        self.engine = engine
        self.plan = plan
        self.way = stages
        self.known: dict[int, dict[float, _At]] = {p.index: {} for p in plan.policies}
        self.wanted: list[tuple[int, float]] = []
        self.buckets = UnitBuckets(stages)

    def replay(self) -> None:
        """Replay at what is wanted and not yet known."""
        new = [(i, x) for i, x in dict.fromkeys(self.wanted) if x not in self.known[i]]
        self.wanted = []
        bidders = [bidder(self.plan.policies[i], f"x{k}", x) for k, (i, x) in enumerate(new)]
        for (i, x), at in zip(new, self._sums(bidders), strict=True):
            self.known[i][x] = at

    def bracket(self, policy: int, goal: int) -> tuple[float | None, float | None]:
        """Neighbouring multipliers between which spend comes to the goal, the nearest to the policy's own level: under a
        budget that all levels use up, many spend as much. None where it does not within what is known.
        """
        points = self.known[policy]
        known = sorted(points)
        own = known.index(1.0)
        if points[1.0].totals.spend > goal:
            below = [k for k in range(own) if points[known[k]].totals.spend <= goal]
            return (known[below[-1]], known[below[-1] + 1]) if below else (None, known[0])
        for k in range(own, len(known)):
            if points[known[k]].totals.spend >= goal:
                return (known[k - 1] if k > own else None), known[k]
        return known[-1], None

    def reached(self, policy: int, goal: int) -> float | None:
        """The multiplier at which the policy spends the goal, or the next to it that spends less; None where it can't
        spend as much, or as little."""
        low, high = self.bracket(policy, goal)
        if high is None:
            return None
        return high if self.known[policy][high].totals.spend == goal else low

    def rerun(
        self, families: dict[str, Family], lows: dict[int, float | None]
    ) -> tuple[dict[str, Family], dict[int, dict[str, Floats]]]:
        """(the families, how half-samples' results differ at the matched level by candidate and name of SUMS)."""
        plan = self.plan
        bidders = [bidder(p, f"whole{p.index}") for p in plan.policies]
        levels = {i: len(bidders) + k for k, (i, low) in enumerate((i, x) for i, x in lows.items() if x is not None)}
        bidders += [bidder(plan.policies[i], f"matched{i}", float(lows[i] or 0)) for i in levels]
        tallies = replay_halves(self.way, self.buckets, bidders, [len(f.values) for f in families.values()])
        if not tallies[0].sums:
            return families, {}
        out, at_level = {}, {}
        for (name, family), tally in zip(families.items(), tallies, strict=True):
            parts = tally.exact(len(family.values), REPLICATES)[1]
            # Once one number is by stratum, all are, so that any two of them can be paired.
            own: dict[Key, Floats] = {("spend", 0, None): np.zeros((len(family.values), REPLICATES))}
            own |= {key: each for key, each in parts.items() if int(key[1] or 0) < len(plan.policies)}
            out[name] = family.rerun(own)
            if name == OVERALL:
                found = sum_scales(plan)
                none = np.zeros((1, REPLICATES))
                at_level = {
                    i: {what: parts.get((what, k, None), none)[0] / scale for what, scale in found.items()}
                    for i, k in levels.items()
                }
        return out, at_level

    def matched(self, policy: int, low: float | None, moved: dict[str, Floats]) -> Matched:
        """The policy at the multiplier `low`. moved: how half-samples' results differ."""
        if low is None:
            return matched_at(self.plan, [None])
        at = self.known[policy][low]
        slopes = self._slopes(policy, low)
        spend = slopes["spend"]
        with np.errstate(divide="ignore", invalid="ignore"):
            per_spend = {name: np.array([np.float64(slopes.get(name, 0.0)) / spend]) for name in SUMS}
            multiplier = np.array([np.float64(1.0) / spend])
        # Where spend does not move with the level (all budgets are used up), results don't move with it either.
        still = np.zeros(1)
        level = AtLevel(
            spend=self._part(at, "spend", moved)[None, :],
            clicks=self._part(at, "clicks", moved)[None, :],
            conversions=self._part(at, "conversions", moved)[None, :],
            clicks_slope=per_spend["clicks"] if spend > 0 else still,
            conversions_slope=per_spend["conversions"] if spend > 0 else still,
            multiplier_slope=multiplier if spend > 0 else np.full(1, np.nan),
        )
        return matched_at(self.plan, [(at.totals, low)], level)

    def stages(self, families: dict[str, Family]) -> dict[int, tuple[Stage, Stage]]:
        """The baseline moved to each candidate's level: overall, and campaign by campaign."""
        place = self.plan.campaign_segment
        campaigns = families[OVERALL if place is None else self.plan.segments[place].name]
        found = {p.index: level_of(campaigns, p.index) for p in self.plan.policies[1:]}
        levels = {i: level for i, level in found.items() if level is not None}
        bidders = []
        for i, level in levels.items():
            bidders.append(bidder(self.plan.policies[0], f"level{i}", level.overall))
            scale, each = (level.overall, None) if place is None else (1.0, self._by_campaign(place, level.by_campaign))
            bidders.append(bidder(self.plan.policies[0], f"mix{i}", scale, each))
        sums = iter(self._sums(bidders))
        units_of = {name: s for name, s in sum_scales(self.plan).items() if families[OVERALL].has(name, 0)}
        spend = campaigns.get("spend", 0)
        weight = spend / spend.sum() if spend.sum() > 0 else np.zeros(len(spend))
        out = {}
        for i, level in levels.items():
            slopes = self._slopes(0, level.overall)
            # Campaigns' own slopes are not known here: each is given its share of the spend of the whole one.
            moved = (level.moved, weight @ level.moved_by_campaign)
            out[i] = tuple(self._stage(next(sums), units_of, slopes, m, campaigns.buckets) for m in moved)
        return {i: (first, second) for i, (first, second) in out.items()}

    def _stage(self, at: _At, scale: dict[str, int], slopes: dict[str, float], moved: Floats, buckets: int) -> Stage:
        totals = {name: getattr(at.totals, name) / scale[name] for name in scale}
        return Stage(totals, {name: fewer(self._part(at, name), buckets) + slopes[name] * moved for name in scale})

    def _part(self, at: _At, name: str, moved: dict[str, Floats] | None = None) -> Floats:
        own = at.parts.get(name, np.zeros(units.BUCKETS))
        return by_stratum(own[None, :], moved[name][None, :])[0] if moved else own

    def _slopes(self, policy: int, at: float) -> dict[str, float]:
        """How sums move with the logarithm of the multiplier around one, in plain units."""
        points = self.known[policy]
        below = [x for x in points if x <= at / AROUND]
        above = [x for x in points if x >= at * AROUND]
        first, last = max(below, default=min(points)), min(above, default=max(points))
        if first >= last:
            return dict.fromkeys(SUMS, 0.0)
        width = math.log(last / first)
        a, b = points[first].totals, points[last].totals
        return {
            name: (getattr(b, name) - getattr(a, name)) / scale / width for name, scale in sum_scales(self.plan).items()
        }

    def _by_campaign(self, place: int, factors: Floats) -> str:
        """SQL of each campaign's own factor: a search tree over the campaigns, since a join would not keep the budget's
        order."""
        kind = self.engine.names(f"select value from codes_{place}")[0][1]
        values = [r[0] for r in self.engine.rows(f"select cast(value as varchar) from codes_{place} order by code")]
        known = [(str(v), repr(float(f))) for v, f in zip(values, factors, strict=True) if v is not None]
        loose = [repr(float(f)) for v, f in zip(values, factors, strict=True) if v is None]

        def tree(part: Sequence[tuple[str, str]]) -> str:
            if len(part) == 1:
                return f"{part[0][1]}::double"
            middle = len(part) // 2
            pivot = part[middle][0].replace("'", "''")
            return (
                f"case when campaign < cast('{pivot}' as {kind}) then {tree(part[:middle])} "
                f"else {tree(part[middle:])} end"
            )

        factor = tree(known) if known else "1e0"
        return f"case when campaign is null then {loose[0]}::double else {factor} end" if loose else factor

    def _sums(self, bidders: Sequence[Bidder]) -> list[_At]:
        """What each bidder's counted wins come to."""
        if not bidders:
            return []
        found = sums(self.way, self.buckets, bidders) if self.plan.budgeted else self._unbudgeted(bidders)
        totals, parts = found.exact(1, units.BUCKETS)
        scale, none, nothing = sum_scales(self.plan), np.zeros(1, dtype=object), np.zeros((1, units.BUCKETS))
        return [
            _At(
                Totals(*(int(totals.get((name, k, None), none)[0]) for name in SUMS)),
                {name: parts.get((name, k, None), nothing)[0] / scale[name] for name in SUMS},
            )
            for k in range(len(bidders))
        ]

    def _unbudgeted(self, bidders: Sequence[Bidder]) -> Tally:
        """As `resettle.sums`, where no budget makes rows depend on each other."""
        view = self.way.settle(bidders, "levels_outcomes")
        columns = ["unit, price, w, wi, first_price, bid_log, true as observed, click, conversion, 0::bigint as bar"]
        columns += [*self.buckets.columns, *self.buckets.predictions]
        columns += [f"o_{b.key}, cost_{b.key}" for b in bidders]
        make = partial(_Wins, self.buckets, [b.key for b in bidders], self.way.ties_lose)
        return self.engine.reduce(f"select {', '.join(columns)} from {view}", make).tally


class _Wins:
    """Counted wins of many bidders by bucket, where no budget makes rows depend on each other."""

    def __init__(self, buckets: UnitBuckets, keys: Sequence[str], ties_lose: bool) -> None:
        self.buckets = buckets
        self.keys = keys
        self.ties_lose = ties_lose
        self.tally = Tally(units.BUCKETS)

    def add(self, batch: pa.RecordBatch) -> None:
        auction = AuctionRows.of(batch, ties_lose=self.ties_lose, weighted=self.buckets.plan.weighted)
        bucket = self.buckets.bucket(batch, auction.pay)
        for k, key in enumerate(self.keys):
            won = values_of(batch.column(f"o_{key}"), False)
            auction.add_to(self.tally, k, bucket, won, values_of(batch.column(f"cost_{key}"), 0))

    def merge(self, other: Self) -> None:
        self.tally.merge(other.tally)
