"""What the scan counts of bids and prices: rows by cell of the price and what becomes of each policy's bid there.

Whole numbers on the fixed grid of `statistics.prices`, so counts of threads and parts of a log add up to the same table.
The whole log only.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bidsim import kernels
from bidsim.replay.batches import COUNTED, DECIDED, ENTERED, ROW_PRICED, ROW_WON, Batch, Pick
from bidsim.replay.logged import Logged
from bidsim.replay.measures import COUNT_BITS
from bidsim.statistics import prices
from bidsim.statistics.prices import CELLS, EDGES, FATES, PRICE_BUCKETS, Prices, cells_of
from bidsim.statistics.units import BUCKETS

Ints = npt.NDArray[np.int64]

# The fate of a row by the bits of its state, see sql/stream.sql.
FATE_OF = np.array(
    [
        prices.NO_BID if not state & ENTERED
        else prices.COUNTED if state & COUNTED
        else prices.UNSEEN if state & DECIDED
        else prices.LOST
        for state in range(256)
    ],
    dtype=np.int64,
)  # fmt: skip
# The last bits of a bucket make room for the fate: as many buckets of the scan are one here as there are fates.
assert PRICE_BUCKETS * len(FATES) == BUCKETS
SLOTS = PRICE_BUCKETS * len(FATES)
KEPT = ~(len(FATES) - 1)


class Priced:
    """Sums by policy. weighted: whether rows have weights; down: last bits of weights that are dropped."""

    def __init__(self, policies: int, *, weighted: bool, down: int) -> None:
        self.weighted, self.down = weighted, down
        self._fates: list[Ints] = [np.zeros((SLOTS, CELLS), dtype=np.int64) for _ in range(policies)]
        self._bids: list[Ints] = [np.zeros(CELLS, dtype=np.int64) for _ in range(policies)]

    def add(self, batch: Batch) -> None:
        priced = batch.pick((batch["row"] & ROW_PRICED) != 0)
        cells, weights = cells_of(priced.take(batch["price"])), self._weights(priced)
        slot = batch.bucket & KEPT
        for i, (fates, bids) in enumerate(zip(self._fates, self._bids, strict=True)):
            state = batch[f"policy_{i}"]
            _count(priced, cells, slot + FATE_OF[state], weights, fates)
            entered = batch.pick((state & ENTERED) != 0)
            _count(entered, cells_of(entered.take(batch[f"bid_{i}"])), None, self._weights(entered), bids)

    def merge(self, other: Self) -> None:
        for mine, theirs in zip([*self._fates, *self._bids], [*other._fates, *other._bids], strict=True):
            mine += theirs

    def table(self, logged: Logged) -> Prices:
        """logged: of the same rows, for what is known of how many."""
        unit = 2.0 ** (self.down - COUNT_BITS) if self.weighted else 1.0
        shape = (len(self._fates), PRICE_BUCKETS, len(FATES), CELLS)
        fates = np.array(self._fates).reshape(shape).transpose(0, 2, 1, 3)
        scale = 2**COUNT_BITS if self.weighted else 1
        known = [[_weight(logged, bit_won, bit) / scale for bit in (0, ROW_PRICED)] for bit_won in (0, ROW_WON)]
        counts, bids = (np.asarray(each * unit, dtype=np.float64) for each in (fates, np.array(self._bids)))
        return Prices(counts, bids, np.array(known), EDGES)

    def _weights(self, pick: Pick) -> Ints | None:
        return pick.take(pick.batch["wi"]) >> self.down if self.weighted else None


def _count(pick: Pick, cells: Ints, code: Ints | None, weights: Ints | None, total: Ints) -> None:
    kernels.cells(pick.count, pick.rows, cells, code, weights, 0, 0, CELLS, total.reshape(-1), None)


def _weight(logged: Logged, won: int, priced: int) -> int:
    def chosen(row: Any, own: Any, first_price: Any) -> Any:
        return row & (ROW_WON | ROW_PRICED) == won | priced

    return logged.total("weight", chosen)
