"""Where bids and prices lie, and what part of its bids a policy wins by price: from counts by cell of one fixed grid.

The grid is logarithmic, eight cells to an octave of CPM, cut from the bits of a double, so that every engine and every
part of a log has the same cells and counts add up. Below the first octave lies what is next to nothing, zero among it;
beyond the last what no money could pay. Everything read from it is right to the width of a cell, 6 to 13%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.intervals import absolute_interval, interval, lone, without
from bidsim.statistics.measured import Measured, ratio_of
from bidsim.statistics.possible import limits_of, within
from bidsim.statistics.rare import hidden_rows, widened
from bidsim.statistics.spread import Bounds, Sample
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CELL_BITS = 3  # of the fraction: 8 cells an octave
SHIFT = 52 - CELL_BITS
LOWEST, HIGHEST = 2.0**-20, 2.0**33


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64)) >> SHIFT


FIRST = _bits(LOWEST) - 1
CELLS = _bits(HIGHEST) - FIRST + 1
# The lower end of each cell, shape (CELLS,): ascending, the first one's is 0.
EDGES: Floats = np.concatenate([[0.0], ((np.arange(1, CELLS) + FIRST) << SHIFT).view(np.float64)])

# What becomes of a row whose price is known: the policy does not bid, its bid loses, or wins what the log does not show
# the outcome of, or a counted win.
NO_BID, LOST, UNSEEN, COUNTED = range(4)
FATES = ("no_bid", "lost", "unseen", "counted")
# Buckets of units that are kept: these nest in `units.BUCKETS`, and are enough for a rate.
PRICE_BUCKETS = 64


@dataclass(frozen=True)
class Prices:
    """Weights of rows of the whole log. fates: rows with a known price by policy, fate, bucket and cell of the price, shape
    (policies, fates, buckets, cells); bids: by policy and cell of its bid, whatever the price, shape (policies, cells);
    known: by whether the log won the row and whether its price is known, shape (2, 2); edges: see EDGES."""

    fates: Floats
    bids: Floats
    known: Floats
    edges: Floats

    @property
    def priced(self) -> Floats:
        """Rows by cell of their price, shape (cells,)."""
        return np.asarray(self.fates[0].sum(axis=(0, 1)))

    @property
    def unseen(self) -> bool:
        """Whether some policy wins at a known price what the log does not show the outcome of."""
        return bool(self.fates[:, UNSEEN].any())


def cells_of(cpm: Floats) -> Ints:
    """The cell of each bid or price, shape (rows,); whatever stands in the log it is one of the grid."""
    # Sign, exponent and three bits of the fraction: as short numbers, which are many times faster to compare.
    short = (cpm.view(np.int64) >> SHIFT).astype(np.int16)
    return np.clip(short, FIRST, FIRST + CELLS - 1).astype(np.int64) - FIRST


def quantiles(weights: Floats, edges: Floats, at: Sequence[float]) -> Floats:
    """Values below which such shares of the weight lie, evenly spread within a cell; 0 in the first, NaN of nothing."""
    total = weights.sum()
    if not total > 0:
        return np.full(len(at), np.nan)
    risen = np.cumsum(weights)
    target = np.asarray(at) * total
    cell = np.minimum(np.searchsorted(risen, target), np.flatnonzero(weights)[-1])
    upper = np.append(edges[1:], edges[-1])
    inside = np.clip(ratio(target - (risen[cell] - weights[cell]), weights[cell]), 0.0, 1.0)
    return np.where(cell == 0, 0.0, edges[cell] + inside * (upper[cell] - edges[cell]))


def density(weights: Floats, edges: Floats, together: int = 1) -> tuple[Floats, Floats]:
    """(middle of a stretch of so many cells together, share of the weight per doubling there), of those between the first
    and the last cell; together: divides their number."""
    low, high = edges[1:-1:together], edges[1 + together :: together]
    counted = weights[1:-1].reshape(-1, together).sum(axis=1)
    share = ratio(counted, np.full(len(low), weights.sum()))
    return np.sqrt(low * high), np.asarray(share / np.log2(high / low))


@dataclass(frozen=True)
class Bands:
    """Stretches of neighbouring cells that hold about as many known prices each. low, high: their ends; middle: the median
    price; share: of the known prices; shape (bands,) each. starts: the first cell of each, and the end."""

    low: Floats
    high: Floats
    middle: Floats
    share: Floats
    starts: Ints

    @staticmethod
    def of(prices: Prices, most: int) -> Bands | None:
        """At most so many; None where no price is known."""
        weights, edges = prices.priced, prices.edges
        used = np.flatnonzero(weights)
        if len(used) == 0:
            return None
        risen = np.cumsum(weights[used]) / weights.sum()
        # A band ends with the cell that comes nearest to its share; where one cell holds more there are fewer bands.
        ends = [int(np.abs(risen[:-1] - k / most).argmin()) for k in range(1, most)] if len(used) > 1 else []
        after = used[np.unique(np.array(ends, dtype=np.int64))] + 1
        starts = np.concatenate([used[:1], after, used[-1:] + 1])
        share = _by_band(weights, starts) / weights.sum()
        passed = np.concatenate([[0.0], np.cumsum(share)[:-1]])
        upper = np.append(edges, edges[-1])[starts[1:]]
        middle = quantiles(weights, edges, (passed + share / 2).tolist())
        return Bands(edges[starts[:-1]], upper, middle, share, starts)


def _by_band(counts: Floats, starts: Ints) -> Floats:
    """Sums over the cells of each band, the last axis."""
    return np.asarray(np.add.reduceat(counts[..., : starts[-1]], starts[:-1], axis=-1))


@dataclass(frozen=True)
class WinRates:
    """By band of price, shape (bands,) each: the share of a policy's bids that win, and its ends; NaN without a bid, or
    without an interval."""

    value: Floats
    low: Floats
    high: Floats


class ByPrice:
    """Win rates of policies by price. confidence: of the intervals; units: of the log; row_weight: what a row counts."""

    def __init__(self, prices: Prices, bands: Bands, confidence: float, units: int, row_weight: float) -> None:
        self.prices, self.bands = prices, bands
        self.confidence, self.units, self.row_weight = confidence, units, row_weight

    def rates(self, policy: int) -> WinRates:
        """Of one policy."""
        measured, sample, bids = self._measured(policy)
        bounds = interval(measured, sample)
        # Where nearly all bids win: how many that don't may be.
        total = bids.sum(axis=1)
        missing = ratio(total * (1.0 - measured.value), np.full(len(total), self.row_weight))
        by = hidden_rows(missing, self.confidence) * ratio(np.full(len(total), self.row_weight), total)
        bounds = without(widened(measured.value, bounds, by, least=0.0, most=1.0), lone(measured, sample))
        return WinRates(measured.value, *within(measured.value, bounds, limits_of("win_rate")))

    def change(self, policy: int) -> WinRates:
        """Of a candidate less the baseline, paired: both bid on the same rows."""
        (ours, sample, _), (theirs, _, _) = self._measured(0), self._measured(policy)
        change = theirs.value - ours.value
        bounds: Bounds = absolute_interval(ours, theirs, sample)
        return WinRates(change, *within(change, bounds, limits_of("win_rate", "absolute")))

    def _measured(self, policy: int) -> tuple[Measured, Sample, Floats]:
        fates = _by_band(self.prices.fates[policy], self.bands.starts).transpose(0, 2, 1)  # fates, bands, buckets
        won = fates[UNSEEN] + fates[COUNTED]
        bids = won + fates[LOST]
        rows = bids + fates[NO_BID]
        value = ratio(won.sum(axis=1), bids.sum(axis=1))
        return ratio_of(value, won, bids), Sample(self.confidence, rows, self.units), bids
