"""What part of all positive labels the best-scored rows hold: cumulative gain curves, from the grid of scores by bucket.

Within a cell of the grid labels are taken as evenly spread, as ties are; cells are under 1% of a score wide. Intervals
are the delete-one jackknife over buckets of units: each bucket in turn is left out of the curve and of the cut-off, so
the two vary together as they do from log to log (Shao, Tu 1995, "The Jackknife and Bootstrap", chapter 2, on smooth
functions; a cut-off among so many rows is one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.measured import Mean
from bidsim.statistics.spread import Sample, bounds_of, spread_of
from bidsim.statistics.tables import ScoreGrid

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """rows: share of the rows that score at least so much, rising from 0 to 1; positive: their share of the positive
    labels; shape (cells + 1,) each."""

    rows: Floats
    positive: Floats

    def at(self, tops: Sequence[float]) -> Floats:
        """The share of the positive labels among the best-scored rows, by their share of all rows, shape (tops,)."""
        return np.asarray(np.interp(tops, self.rows, self.positive))


@dataclass(frozen=True)
class Captured:
    """share: of the positive labels among the best-scored rows, shape (tops,); without: the same with each bucket left
    out, shape (tops, buckets)."""

    share: Floats
    without: Floats

    def minus(self, other: Captured) -> Captured:
        """How much more than another prediction of the same rows."""
        return Captured(self.share - other.share, self.without - other.without)


def gain_curve(grid: ScoreGrid) -> Curve | None:
    """The curve of one prediction; None without a positive label."""
    positive = grid.positive.sum(axis=0)[::-1]
    rows = grid.negative.sum(axis=0)[::-1] + positive
    if not positive.sum() > 0:
        return None
    used = rows > 0
    return Curve(_risen(rows[used]), _risen(positive[used]))


def _risen(parts: Floats) -> Floats:
    summed = np.concatenate([[0.0], np.cumsum(parts)])
    return np.asarray(summed / summed[-1])


def captured(grid: ScoreGrid, tops: Sequence[float]) -> Captured | None:
    """What the best-scored rows hold, by their share of all rows; None without a positive label."""
    curve = gain_curve(grid)
    if curve is None:
        return None
    by_bucket = [np.cumsum(part[:, ::-1], axis=1) for part in (grid.negative + grid.positive, grid.positive)]
    rows, positive = (part.sum(axis=0) - part for part in by_bucket)
    without = np.empty((len(tops), len(rows)))
    every = np.arange(len(rows))
    for at, top in enumerate(tops):
        target = top * rows[:, -1]
        # The first cell that reaches the target, and the one before it.
        cell = np.minimum((rows < target[:, None]).sum(axis=1), rows.shape[1] - 1)
        before = [np.where(cell > 0, part[every, np.maximum(cell - 1, 0)], 0.0) for part in (rows, positive)]
        inside = [part[every, cell] - low for part, low in zip((rows, positive), before, strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(inside[0] > 0, (target - before[0]) / inside[0], 1.0)
            without[at] = (before[1] + np.clip(step, 0.0, 1.0) * inside[1]) / positive[:, -1]
    return Captured(curve.at(tops), without)


def interval_of(found: Captured, grid: ScoreGrid, sample: Sample) -> tuple[Floats, Floats]:
    """(low, high), shape (tops,), NaN where too few buckets carry it. grid: of the rows; sample: of the whole log."""
    shares = (grid.negative + grid.positive).sum(axis=1)
    shares = np.broadcast_to(shares / shares.sum(), found.without.shape)
    # What `spread_of` makes of an influence is what leaving the bucket out does to the whole.
    moved = np.where(shares > 0, (found.share[:, None] - found.without) * (1 - shares), 0.0)
    spread = spread_of([Mean(moved, shares)], sample)
    return bounds_of(found.share, spread, sample, log=False)
