"""A batch of the budget's order as numpy arrays: where groups begin, what they may spend, and bids at many levels.

The auction of sql/bids.sql and sql/auctions.sql is made again here in numpy, where one batch is looked at by dozens of
bid levels: only the rows that can be won at all, and only what decides them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.arrays import array_of, values_of
from bidsim.replay.budget import Ledger, Rows
from bidsim.replay.limits import Limits, Pace
from bidsim.replay.measures import AMOUNT_BITS, MOST_PAID, whole_money
from bidsim.replay.policies import Bidder
from bidsim.statistics.tallies import Tally

Ints = npt.NDArray[np.int64]


def limits_of(batch: pa.RecordBatch) -> Limits:
    pace = None
    if "elapsed" in batch.schema.names:
        pace = Pace(ints(batch, "elapsed"), ints(batch, "span"))
    return Limits(floats(batch, "budget_amount"), pace)


@dataclass(frozen=True)
class AuctionRows:
    """What the auctions of a batch need of the log, for many bid levels; arrays of shape (rows,), see sql/auctions.sql.

    price: NaN where unknown. pay: of a second-price win. money as in `budget`.
    """

    price: npt.NDArray[np.float64]
    bid_log: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    first_price: npt.NDArray[np.bool_]
    bar: npt.NDArray[np.int64]
    pay: npt.NDArray[np.int64]
    observed: npt.NDArray[np.bool_]
    results: tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...]
    ties_lose: bool

    @classmethod
    def of(cls, batch: pa.RecordBatch, *, ties_lose: bool, weighted: bool) -> AuctionRows:
        price, weight = floats(batch, "price"), floats(batch, "w")
        pay = whole_money(price, weight)
        clicks = np.where(floats(batch, "click") == 1.0, ints(batch, "wi"), 0)
        amount = np.nan_to_num(floats(batch, "conversion") * (weight if weighted else 1.0))
        conversions = np.rint(amount * 2.0**AMOUNT_BITS).astype(np.int64)
        observed = bools(batch, "observed")
        sparse = []
        for values in (clicks, conversions):
            rows = np.flatnonzero((values != 0) & observed)
            sparse.append((rows, values[rows]))
        return cls(
            price,
            floats(batch, "bid_log"),
            weight,
            bools(batch, "first_price"),
            ints(batch, "bar"),
            pay,
            observed,
            tuple(sparse),
            ties_lose,
        )

    def rows_of(self, bidder: Bidder, batch: pa.RecordBatch) -> Rows:
        """One bidder's rows: the bid as sql/bids.sql makes it, or the one that the internal auction left."""
        with np.errstate(invalid="ignore", over="ignore"):
            if f"bid_{bidder.key}" in batch.schema.names:
                bid = floats(batch, f"bid_{bidder.key}")
            else:
                raw = floats(batch, f"raw_{bidder.policy}") * bidder.factor
                if bidder.each is not None:
                    raw = raw * floats(batch, f"each_{bidder.key}")
                bid = raw if bidder.max is None else np.minimum(raw, bidder.max)
                if bidder.round_down:
                    bid = np.floor(bid)
                usable = np.isfinite(raw) & (raw > 0.0) & (raw >= bidder.least)
                bid = np.where(usable & ~(self.first_price & (bid * self.weight >= MOST_PAID)), bid, np.nan)
            beats = bid > self.price if self.ties_lose else bid >= self.price
            # The stream has only rows with a price, and first-price wins of the log without one.
            wins = np.where(np.isnan(self.price), bid >= self.bid_log, beats)
            pay = self.pay
            if self.first_price.any():
                pay = np.where(self.first_price, whole_money(bid, self.weight), pay)
        return Rows(~np.isnan(bid), wins, pay, self.bar, self.first_price)

    def add_to(self, tally: Tally, place: int, bucket: Ints, won: npt.NDArray[np.bool_], paid: Ints) -> None:
        """Add the wins that count, by bucket. place: of the bidder."""
        counted = np.flatnonzero(won & self.observed)
        tally.add(("spend", place, None), bucket[counted], paid[counted])
        for name, (rows, values) in zip(("clicks", "conversions"), self.results, strict=True):
            mine = won[rows]
            tally.add((name, place, None), bucket[rows[mine]], values[mine])


class Settler:
    """Settles a batch's rows in the budget's order, policy by policy. kept: columns that stay as they are."""

    def __init__(
        self, keys: Sequence[str], kept: Sequence[str], *, never: bool, ties_lose: bool, internal: bool
    ) -> None:
        self.keys = list(keys)
        self.kept = [name.strip('"') for name in kept]
        self.never = never
        self.internal = internal
        self.ledger = Ledger(len(keys), never=never, strict=ties_lose)
        self.last: list[Any] | None = None

    def schema(self, incoming: pa.Schema) -> pa.Schema:
        fields = [incoming.field(name) for name in self.kept]
        for key in self.keys:
            fields += [pa.field(f"{part}_{key}", pa.bool_()) for part in ("entered", "won", "open", "short")]
            fields.append(pa.field(f"paid_{key}", pa.int64()))
            fields += [pa.field(f"kept_{key}", pa.float64())] * self.internal
        return pa.schema(fields)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        starts, self.last = starts_of(batch, self.last)
        first_price = bools(batch, "first_price")
        bar = ints(batch, "bar")
        policies = [
            Rows(
                values_of(batch.column(f"bid_{key}").is_valid()),
                bools(batch, f"wins_{key}"),
                ints(batch, f"pay_{key}"),
                bar,
                first_price,
            )
            for key in self.keys
        ]
        arrays = [batch.column(name) for name in self.kept]
        settled = self.ledger.settle(starts, limits_of(batch), policies)
        for key, rows, done in zip(self.keys, policies, settled, strict=True):
            unknown = bools(batch, f"unknown_{key}") & done.entered
            if self.never:
                # A bid cut to no more than the logged one, which lost, has surely lost.
                own_bid = floats(batch, "bid_log") * floats(batch, "w") * 1e9
                unknown &= ~(bools(batch, "lost") & (done.left <= own_bid))
                # A first-price bid cut below the logged one, which won at an unknown price, may or may not win.
                unpriced = ~values_of(batch.column("price").is_valid())
                unknown |= rows.wins & ~done.won & done.entered & unpriced
            arrays += [array_of(values) for values in (done.entered, done.won, unknown, done.short, done.paid)]
            if self.internal:
                arrays.append(batch.column(f"bid_{key}"))
        return pa.RecordBatch.from_arrays(arrays, self.schema(batch.schema).names)


def starts_of(batch: pa.RecordBatch, last: list[Any] | None) -> tuple[npt.NDArray[np.bool_], list[Any]]:
    """Where a new (campaign, period) begins; last: the key of the row before the batch."""
    n = batch.num_rows
    starts = np.zeros(n, dtype=bool)
    key = []
    for name in ("campaign", "period"):
        column = batch.column(name)
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_temporal(kind) or pa.types.is_string(kind):
            known = values_of(column.is_valid())
            starts[1:] |= values_of(pc.not_equal(column[1:], column[:-1]), False)
            starts[1:] |= known[1:] != known[:-1]
        else:
            codes = values_of(column.dictionary_encode().indices, -1)
            starts[1:] |= codes[1:] != codes[:-1]
        # As text, since a NaN does not equal itself.
        key.append((repr(column[0].as_py()), repr(column[n - 1].as_py())))
    starts[0] = last is None or [first for first, _ in key] != last
    return starts, [final for _, final in key]


def bools(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.bool_]:
    return values_of(batch.column(name), False)


def ints(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    return values_of(batch.column(name), 0)


def floats(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    return values_of(batch.column(name), np.nan)
