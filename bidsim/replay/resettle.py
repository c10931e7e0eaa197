"""Budgets settled again, many times in one ordered pass: at other bid levels, and for half of the units.

Under a budget rows depend on each other, so what another sample of users would have brought can't be read off the sums:
where all money is spent anyway, other users leave spend as it is. Therefore half of the units are replayed with half of
every budget, in balanced half-samples (see `statistics.halves`).

Only rows that can be won and the columns that decide them are read, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.arrays import array_of, values_of
from bidsim.replay.batches import hash_units
from bidsim.replay.budget import Ledger, Rows, Wins
from bidsim.replay.engines import Lane
from bidsim.replay.limits import Limits
from bidsim.replay.measures import VALUE_SCALE, result_value
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.settling import AuctionRows, floats, ints, limits_of, starts_of
from bidsim.replay.stages import Stages
from bidsim.statistics import units
from bidsim.statistics.halves import REPLICATES, in_half
from bidsim.statistics.tallies import Key, Tally

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

HALVES = in_half()


class UnitBuckets:
    """Buckets of units of a batch of winnable rows, the same that the reduction puts the rows in."""

    def __init__(self, stages: Stages) -> None:
        self.plan = stages.plan
        self.values = [
            stages.engine.column(f"select value from codes_{i} order by code") for i in range(len(self.columns))
        ]

    @property
    def columns(self) -> list[str]:
        """What must be read for it: segments tell rows without a unit apart, and say where sums belong."""
        return [s.column for s in self.plan.segments]

    @property
    def predictions(self) -> list[str]:
        return [f"{self.plan.sources[i]} as score_{i}" for i in self.plan.hashed_sources]

    def codes(self, batch: pa.RecordBatch, rows: Ints | None = None) -> list[Ints]:
        """Of each segment, the codes of some rows of a batch."""
        found = []
        for name, values in zip(self.columns, self.values, strict=True):
            column = batch.column(name.strip('"'))
            column = column if rows is None else column.take(array_of(rows))
            found.append(values_of(pc.index_in(column.cast(values.type), value_set=values)).astype(np.int64))
        return found

    def bucket(self, batch: pa.RecordBatch, money: Ints) -> Ints:
        """money: price times weight, as the reduction sums it."""
        unit = batch.column("unit")
        if self.plan.unit != "row" and unit.null_count == 0:
            return units.buckets_of(hash_units(self.plan, unit, []))
        own = [money, *self.codes(batch), *(floats(batch, f"score_{i}") for i in self.plan.hashed_sources)]
        return units.buckets_of(hash_units(self.plan, unit, own))


@dataclass(frozen=True)
class _Batch:
    rows: pa.RecordBatch
    starts: Bools
    auction: AuctionRows
    limits: Limits
    bucket: Ints


@dataclass(frozen=True)
class _Rules:
    """What settles rows again, beside the rows. measured: what is summed of each bidder's wins, for half-samples."""

    plan: Plan
    buckets: UnitBuckets
    bidders: Sequence[Bidder]
    never: bool
    ties_lose: bool
    sizes: Sequence[int] = ()
    measured: Sequence[_Measures] = ()

    def ledger(self, policies: int) -> Ledger:
        return Ledger(policies, never=self.never, strict=self.ties_lose)


class _Course:
    """Rows in the budget's order, shown to lanes that share the bidders among them."""

    def __init__(self, rules: _Rules, lane: Callable[[_Rules, list[int]], Lane]) -> None:
        self.rules = rules
        self.lane = lane
        self.last: list[Any] | None = None

    def lanes(self, most: int) -> list[Lane]:
        count = len(self.rules.bidders)
        return [self.lane(self.rules, list(range(i, count, most))) for i in range(min(most, count))]

    def prepare(self, batch: pa.RecordBatch) -> _Batch:
        rules = self.rules
        starts, self.last = starts_of(batch, self.last)
        auction = AuctionRows.of(batch, ties_lose=rules.ties_lose, weighted=rules.plan.weighted)
        return _Batch(batch, starts, auction, limits_of(batch), rules.buckets.bucket(batch, auction.pay))


def _follow(stages: Stages, rules: _Rules, lane: Callable[[_Rules, list[int]], Lane], more: Sequence[str]) -> list[Any]:
    columns = [*rules.buckets.columns, *rules.buckets.predictions, *more]
    sql = stages.winnable(rules.bidders, columns)
    return list(stages.engine.follow(sql, partial(_Course, rules, lane), again=stages.plan.internal))


def sums(stages: Stages, buckets: UnitBuckets, bidders: Sequence[Bidder]) -> Tally:
    """What each bidder's counted wins come to under the budget: whole numbers by (name, place in bidders) and bucket."""
    rules = _Rules(stages.plan, buckets, bidders, stages.never, stages.ties_lose)
    total = Tally(units.BUCKETS)
    for lane in _follow(stages, rules, _Sums, ()):
        total.merge(lane.tally)
    return total


class _Sums:
    """Some bidders' counted wins."""

    def __init__(self, rules: _Rules, mine: list[int]) -> None:
        self.rules = rules
        self.mine = mine
        self.tally = Tally(units.BUCKETS)
        self.ledger = rules.ledger(len(mine))

    def add(self, batch: _Batch) -> None:
        rows = [batch.auction.rows_of(self.rules.bidders[i], batch.rows) for i in self.mine]
        for i, done in zip(self.mine, self.ledger.wins(batch.starts, batch.limits, rows), strict=True):
            batch.auction.add_to(self.tally, i, batch.bucket, done.won, done.paid)

    def merge(self, other: Self) -> None:
        self.tally.merge(other.tally)


def replay_halves(stages: Stages, buckets: UnitBuckets, bidders: Sequence[Bidder], sizes: Sequence[int]) -> list[Tally]:
    """How the results of each half-sample's rows differ from what they are in the whole log.

    One table a family: the whole log, then the segments. Whole numbers by (name, place in bidders) and value x REPLICATES
    + replicate. sizes: values of each family.
    """
    measured = [_Measures(stages.plan, b.policy) for b in bidders]
    columns = list(dict.fromkeys(c for m in measured for c in m.columns))
    rules = _Rules(stages.plan, buckets, bidders, stages.never, stages.ties_lose, sizes, measured)
    total = [Tally(size * REPLICATES) for size in sizes]
    for lane in _follow(stages, rules, _Halves, columns):
        for family, tally in zip(total, lane.tallies, strict=True):
            family.merge(tally)
    return total


class _Halves:
    """What half-samples change of some bidders' results, and of the rows that a candidate and the baseline decide
    differently, for which a lane of candidates settles the baseline too."""

    def __init__(self, rules: _Rules, mine: list[int]) -> None:
        self.rules = rules
        self.mine = mine
        candidates = [i for i in mine if 0 < i < len(rules.plan.policies)]
        self.settled = mine if 0 in mine or not candidates else [0, *mine]
        self.beside = {i: self.settled.index(0) for i in candidates}
        self.tallies = [Tally(size * REPLICATES) for size in rules.sizes]
        self.whole = rules.ledger(len(self.settled))
        self.parts = rules.ledger(len(self.settled) * REPLICATES)

    def add(self, batch: _Batch) -> None:
        rules = self.rules
        halves = HALVES[:, batch.bucket]
        rows = [batch.auction.rows_of(rules.bidders[i], batch.rows) for i in self.settled]
        less = [Rows(r.bids, r.wins & half, r.pay, r.bar, r.first_price) for r in rows for half in halves]
        all_ = self.whole.wins(batch.starts, batch.limits, rows)
        some = self.parts.wins(batch.starts, batch.limits.scaled(1, 2), less)
        for k, i in enumerate(self.settled):
            if i not in self.mine:
                continue
            base = self.beside.get(i)
            for r, half in enumerate(halves):
                here = half & batch.auction.observed
                ours = _Changed(all_[k], some[k * REPLICATES + r])
                self._add(i, r, batch, ours, ours.rows(here))
                if base is not None:
                    theirs = _Changed(all_[base], some[base * REPLICATES + r])
                    either = np.union1d(ours.rows(here), theirs.rows(here))
                    self._add(i, r, batch, ours.alone(theirs), either, "_gained")
                    self._add(i, r, batch, theirs.alone(ours), either, "_lost")

    def _add(self, place: int, replicate: int, batch: _Batch, changed: _Changed, rows: Ints, side: str = "") -> None:
        """Add what a half-sample changes of its own rows. side: of the rows that one of two policies wins alone."""
        if len(rows) == 0:
            return
        whole, part = changed.whole, changed.part
        sign = part.won[rows].astype(np.int64) - whole.won[rows].astype(np.int64)
        paid = np.where(part.won[rows], part.paid[rows], 0) - np.where(whole.won[rows], whole.paid[rows], 0)
        changes: list[tuple[str, Any]] = [("spend", paid)]
        measures = self.rules.measured[place]
        changes += [(name, values * sign) for name, values in measures.of(batch, rows, results_only=bool(side))]
        at = [np.zeros(len(rows), dtype=np.int64), *self.rules.buckets.codes(batch.rows, rows)]
        for tally, code in zip(self.tallies, at, strict=False):
            for name, values in changes:
                key: Key = (f"{name}{side}", place, None)
                tally.add(key, code * REPLICATES + replicate, values)

    def merge(self, other: Self) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)


@dataclass(frozen=True)
class _Changed:
    """Wins of a batch in the whole log and in a half-sample of it."""

    whole: Wins
    part: Wins

    def rows(self, among: Bools) -> Ints:
        differ = (self.whole.won != self.part.won) | (self.whole.paid != self.part.paid)
        return np.flatnonzero(differ & among)

    def alone(self, other: _Changed) -> _Changed:
        """The wins that the other policy does not have, at their own cost."""
        return _Changed(
            Wins(self.whole.won & ~other.whole.won, self.whole.paid),
            Wins(self.part.won & ~other.part.won, self.part.paid),
        )


class _Measures:
    """The sums of one policy's wins that follow what it wins, as whole numbers of the reduction's scales."""

    def __init__(self, plan: Plan, policy: int) -> None:
        self.plan = plan
        self.columns: list[str] = []
        self.fixed: list[tuple[str, str, float]] = []
        value = result_value(plan)
        if value is not None:
            self._put("value", f"coalesce({value}, 0e0)", "value", float(VALUE_SCALE))
        for name, head, role in (
            ("predicted_clicks", "ctr", "click"),
            ("predicted_conversions", "ctcvr", "conversion"),
        ):
            sql = plan.prediction(policy, head)
            if sql is not None and plan.has(role):
                self._put(name, sql, f"win_score_{plan.sources.index(sql)}", 2.0**plan.fraction_bits)

    def _put(self, name: str, sql: str, column: str, scale: float) -> None:
        self.columns.append(f"{sql} as {column}")
        self.fixed.append((name, column, scale))

    def of(
        self, batch: _Batch, rows: Ints, *, results_only: bool
    ) -> Iterator[tuple[str, Ints | npt.NDArray[np.float64]]]:
        """Each sum's whole numbers, of some rows, but for spend, whose payments the budget decides. results_only:
        without what they are worth and what was predicted of them."""
        yield "wins", ints(batch.rows, "wi")[rows] if self.plan.weighted else np.ones(len(rows), dtype=np.int64)
        for name, (at, values) in zip(("clicks", "conversions"), batch.auction.results, strict=True):
            if self.plan.has(name[:-1]):
                full = np.zeros(len(batch.bucket), dtype=np.int64)
                full[at] = values
                yield name, full[rows]
        for name, column, scale in () if results_only else self.fixed:
            each = np.nan_to_num(floats(batch.rows, column)[rows])
            yield name, np.rint((each * batch.auction.weight[rows] if self.plan.weighted else each) * scale)
