"""Bands of the reliability curve: how far each bin's observed rate can be trusted, clustered by unit.

Where a bin holds fewer than `FEW` positives, or negatives, the clustered interval is too rough; there Clopper and Pearson
(1934) holds for any number of independent labels. It counts labels, so a weighted log has no band there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from bidsim.statistics.calibration import Bins
from bidsim.statistics.intervals import interval
from bidsim.statistics.measured import ratio_of
from bidsim.statistics.spread import Bounds, Sample
from bidsim.statistics.tables import ScoreGrid

Floats = npt.NDArray[np.float64]
FEW = 10
ROUNDING = 1e-6


def no_bands(bins: Bins) -> Bounds:
    nothing = np.full(len(bins.weight), np.nan)
    return nothing, nothing


def bands(bins: Bins, grid: ScoreGrid, sample: Sample, *, weighted: bool) -> Bounds:
    """Of the observed rate of each equal-mass bin, shape (bins,)."""
    below, above = grid.negative, grid.positive
    if len(bins.weight) == 0 or below.shape[1] == 0:
        return no_bands(bins)
    mass = (below + above).sum(axis=0)
    edges = np.concatenate([[0.0], np.cumsum(mass)])
    # Where the bins' edges lie among the cells; a cell that straddles an edge is split in proportion.
    at = np.interp(np.linspace(0.0, edges[-1], len(bins.weight) + 1), edges, np.arange(len(edges)))

    def by_bin(counts: Floats) -> Floats:
        running = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)
        whole = np.floor(at).astype(np.int64)
        following = np.minimum(whole + 1, running.shape[1] - 1)
        reached = running[:, whole] + (at - whole) * (running[:, following] - running[:, whole])
        return np.asarray(np.diff(reached, axis=1).T)

    positives, rows = by_bin(above), by_bin(below + above)
    n = rows.sum(axis=1)
    # Shares of cells that should add up to none or all of a bin's labels miss it by some digits.
    hits = _settled(_settled(positives.sum(axis=1), np.zeros(len(n))), n)
    used = Sample(sample.confidence, rows, sample.units)
    low, high = interval(ratio_of(bins.observed, positives, rows), used)
    few = np.minimum(hits, n - hits) < FEW
    if weighted:
        return np.where(few, np.nan, low), np.where(few, np.nan, np.minimum(high, 1.0))
    tail = (1 - sample.confidence) / 2
    with np.errstate(invalid="ignore"):
        exact_low = np.where(hits > 0, betaincinv(np.maximum(hits, 1e-9), np.maximum(n - hits + 1, 1e-9), tail), 0.0)
        exact_high = np.where(hits < n, betaincinv(hits + 1, np.maximum(n - hits, 1e-9), 1 - tail), 1.0)
    # A cell that holds several groups of equal scores is split otherwise than they are: the exact rate lies in its band.
    low, high = np.where(few, exact_low, low), np.minimum(np.where(few, exact_high, high), 1.0)
    return np.minimum(low, bins.observed), np.maximum(high, bins.observed)


def _settled(count: Floats, at: Floats) -> Floats:
    return np.where(np.abs(count - at) < ROUNDING, at, count)
