"""What unknown rows could have done under a budget: every policy settled again in each world of their fates.

An unknown win uses money that later wins would have had, so what it adds can't be read off sums: with each fate of the
unknown rows the budgets are settled anew, in one ordered pass for all worlds. Worlds are those of `identified`: rows
unknown to both policies share one fate (of SHARED), those unknown to one of them have another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.budget import Ledger, Rows
from bidsim.replay.levels import count_scale
from bidsim.replay.limits import Limits
from bidsim.replay.measures import MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.resettle import UnitBuckets
from bidsim.replay.settling import bools, floats, ints, limits_of, starts_of
from bidsim.replay.sql import render
from bidsim.replay.stages import Stages
from bidsim.replay.worth import RESULT_SCALE, VALUE_SCALE, Predicted, brings_of, wholes_of
from bidsim.statistics.identified import FATES, SHARED, SUMS, SettledPair, UnknownPair
from bidsim.statistics.tallies import Family, Key, Tally

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
KNOWN, UNOBSERVED, OPEN = 1, 2, 3
SIDES = ("candidate", "baseline")


@dataclass(frozen=True)
class _World:
    """One policy of one candidate's pair, under one fate of its own unknown rows and one of those shared."""

    candidate: int
    side: str
    own: str
    shared: str

    @property
    def policy(self) -> int:
        return self.candidate if self.side == "candidate" else 0


def settle_fates(
    stages: Stages,
    bidders: Sequence[Bidder],
    families: Mapping[str, Family],
    predicted: Predicted,
) -> dict[tuple[int, str], UnknownPair | SettledPair]:
    """By candidate and family."""
    plan = stages.plan
    codes = UnitBuckets(stages)
    sources = dict.fromkeys(source for by_policy in predicted.values() for source, _ in by_policy)
    sql = render(
        "fates",
        auctions=f"({stages.auctions(bidders)})",
        bidders=bidders,
        paced=plan.pace is not None,
        internal=plan.internal,
        sources=[(i, plan.sources[i]) for i in sources],
        segments=plan.segments,
    )
    kinds = {b.policy: _unknown_kinds(stages, sql, b.policy) for b in bidders[1:]}
    worlds = list(dict.fromkeys(w for c, found in kinds.items() for side in SIDES for _, _, w in _all(c, side, found)))
    rules = _Rules(
        plan, codes, worlds, predicted, stages.never, stages.ties_lose, [len(f.values) for f in families.values()]
    )
    total = [Tally(len(f.values)) for f in families.values()]
    for lane in stages.engine.follow(sql, partial(_Course, rules), again=plan.internal):
        for whole, part in zip(total, lane.tallies, strict=True):
            whole.merge(part)
    out: dict[tuple[int, str], UnknownPair | SettledPair] = {}
    for family, tally in zip(families.values(), total, strict=True):
        sums = tally.exact(len(family.values), 1)[0]
        for candidate, found in kinds.items():
            sides = [
                {
                    (own, shared): dict(_sums(stages, sums, family, w, predicted))
                    for own, shared, w in _all(candidate, side, found)
                }
                for side in SIDES
            ]
            out[(candidate, family.name)] = SettledPair(*sides)
    return out


@dataclass(frozen=True)
class _Given:
    rows: pa.RecordBatch
    starts: Bools
    limits: Limits
    codes: list[Ints]
    brings: dict[str, Floats]


@dataclass(frozen=True)
class _Kinds:
    """Which unknown rows there are: of one side alone, of both, and of those the ones on which one side bids more."""

    alone: Mapping[str, bool]
    both: bool
    over: Mapping[str, bool]

    def world_of(self, side: str, own: str, shared: str) -> tuple[str, str]:
        """The fates that stand for these: where there are no such rows, their fate makes no other world."""
        if shared in FATES:
            shared = shared if self.both else FATES[0]
        elif not self.over[side] or shared.split()[0] != side:
            shared = FATES[0]
        return own if self.alone[side] else FATES[0], shared


def _unknown_kinds(stages: Stages, sql: str, candidate: int) -> _Kinds:
    ours, theirs = f"kind_0 > {KNOWN}", f"kind_{candidate} > {KNOWN}"
    both = f"{ours} and {theirs}"
    rules = (
        f"{theirs} and not {ours}",
        f"{ours} and not {theirs}",
        both,
        f"{both} and kind_0 = {OPEN} and dear_{candidate} > dear_0",
        f"{both} and kind_{candidate} = {OPEN} and dear_0 > dear_{candidate}",
    )
    parts = ", ".join(f"coalesce(bool_or({rule}), false)" for rule in rules)
    ((candidate_alone, baseline_alone, shared, *over),) = stages.engine.rows(f"select {parts} from ({sql})")
    alone = (candidate_alone, baseline_alone)
    return _Kinds(dict(zip(SIDES, alone, strict=True)), shared, dict(zip(SIDES, over, strict=True)))


def _all(candidate: int, side: str, found: _Kinds) -> Iterator[tuple[str, str, _World]]:
    """Every pair of fates, and the world that stands for it."""
    for own, shared in itertools.product(FATES, SHARED):
        yield own, shared, _World(candidate, side, *found.world_of(side, own, shared))


@dataclass(frozen=True)
class _Rules:
    """What settles rows in each world, beside the rows. sizes: values of each family."""

    plan: Plan
    codes: UnitBuckets
    worlds: Sequence[_World]
    predicted: Predicted
    never: bool
    ties_lose: bool
    sizes: Sequence[int]


class _Course:
    """Rows in the budget's order, shown to lanes that share the worlds among them."""

    def __init__(self, rules: _Rules) -> None:
        self.rules = rules
        self.last: list[Any] | None = None

    def lanes(self, most: int) -> list[_Lane]:
        worlds = self.rules.worlds
        return [_Lane(self.rules, worlds[i::most]) for i in range(min(most, len(worlds)))]

    def prepare(self, batch: pa.RecordBatch) -> _Given:
        rules = self.rules
        starts, self.last = starts_of(batch, self.last)
        at = [np.zeros(batch.num_rows, dtype=np.int64), *rules.codes.codes(batch)][: len(rules.sizes)]
        return _Given(batch, starts, limits_of(batch), at, brings_of(rules.plan, batch, rules.predicted))


class _Lane:
    """Some worlds' sums, by family."""

    def __init__(self, rules: _Rules, worlds: Sequence[_World]) -> None:
        self.weighted = rules.plan.weighted
        self.worlds = worlds
        self.ledger = Ledger(len(worlds), never=rules.never, strict=rules.ties_lose)
        self.tallies = [Tally(size) for size in rules.sizes]

    def add(self, given: _Given) -> None:
        batch, worlds = given.rows, self.worlds
        weight = floats(batch, "w") if self.weighted else np.ones(batch.num_rows)
        whole = wholes_of(given.brings, weight)
        first_price, bar = bools(batch, "first_price"), ints(batch, "bar")
        kinds = {w.policy: ints(batch, f"kind_{w.policy}") for w in worlds} | {0: ints(batch, "kind_0")}
        fates = [_fates(batch, w) for w in worlds]
        rows = [_rows(batch, w, kinds[w.policy], fate, first_price, bar) for w, fate in zip(worlds, fates, strict=True)]
        for w, fate, done in zip(worlds, fates, self.ledger.wins(given.starts, given.limits, rows), strict=True):
            known = kinds[w.policy] == KNOWN
            counted = np.flatnonzero(done.won & (known | (fate > 0)))
            sums: dict[str, npt.NDArray[Any]] = {"wins": ints(batch, "wi"), "spend": done.paid}
            brought = np.where(known | (fate == FATES.index("cheap")), 1, 0)
            sums |= {name: values * brought for name, values in whole.items()}
            for tally, code in zip(self.tallies, given.codes, strict=True):
                for name, values in sums.items():
                    tally.add(_key(w, name), code[counted], values[counted])

    def merge(self, other: Self) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)


def _fates(batch: pa.RecordBatch, world: _World) -> Ints:
    """The fate of each row in a world, as its place in FATES; of rows that are unknown to its policy."""
    opponent = _opponent(world)
    mine, other = ints(batch, f"kind_{world.policy}"), ints(batch, f"kind_{opponent}")
    both = (mine > KNOWN) & (other > KNOWN)
    if world.shared in FATES:
        return np.where(both, FATES.index(world.shared), FATES.index(world.own))
    winner, fate = world.shared.split()
    over = both & (other == OPEN) & (ints(batch, f"dear_{world.policy}") > ints(batch, f"dear_{opponent}"))
    alone = over & (winner == world.side)
    return np.where(alone, FATES.index(fate), np.where(both, FATES.index("lost"), FATES.index(world.own)))


def _opponent(world: _World) -> int:
    return 0 if world.side == "candidate" else world.candidate


def _rows(batch: pa.RecordBatch, world: _World, kind: Ints, fate: Ints, first_price: Bools, bar: Ints) -> Rows:
    policy = world.policy
    open_ = kind == OPEN
    wins = (kind == KNOWN) | (kind == UNOBSERVED) | (open_ & (fate > 0))
    dear, cheap = ints(batch, f"dear_{policy}"), ints(batch, f"cheap_{policy}")
    least = ints(batch, f"bar_{policy}")
    if world.shared not in FATES:  # a win that the other policy's bid does not reach
        opponent = _opponent(world)
        outbid = np.where(ints(batch, f"kind_{opponent}") == OPEN, ints(batch, f"dear_{opponent}"), 0)
        cheap, least = np.maximum(cheap, outbid), np.maximum(least, outbid)
    at_most = open_ & (fate == FATES.index("dear"))
    pay = np.where(open_, np.where(at_most, dear, cheap), ints(batch, f"pay_{policy}"))
    least = np.where(first_price, least, np.maximum(cheap, least))
    return Rows(wins, wins, pay, np.where(open_, np.where(at_most, dear, least), bar), first_price)


def _key(world: _World, name: str) -> Key:
    return f"{world.side} {world.own} {world.shared} {name}", world.candidate, None


def _sums(
    stages: Stages, sums: Mapping[Key, npt.NDArray[np.object_]], family: Family, world: _World, predicted: Predicted
) -> Iterator[tuple[str, Floats]]:
    """Each of SUMS; NaN where no prediction says what unknown rows bring."""
    unsaid = {"clicks", "conversions"} - predicted.keys()
    scales: dict[str, float] = {"wins": count_scale(stages.plan), "spend": MONEY_SCALE, "value": VALUE_SCALE}
    for name in SUMS:
        if family.has(name, world.policy):
            whole = sums.get(_key(world, name), np.zeros(len(family.values), dtype=object))
            unsayable = name in unsaid or (name == "value" and unsaid)
            yield name, np.array([np.nan if unsayable else int(v) / scales.get(name, RESULT_SCALE) for v in whole])
