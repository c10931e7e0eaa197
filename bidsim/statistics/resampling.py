"""Metrics that are not smooth, in resamplings of the buckets of units: calibration error and the CORP parts.

The score cells are kept by bucket; a resampling weighs the buckets and computes the metric anew, so that no row is
looked at again. Both policies see the same weights, which pairs them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from bidsim.statistics.calibration import calibration_error, ece, ece_if_calibrated, equal_mass_bins
from bidsim.statistics.tables import ScoreGrid

Floats = npt.NDArray[np.float64]
GROUPS = 400


def _coarser(below: Floats, above: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """Neighbouring cells put together into at most about GROUPS of equal mass: enough for a standard deviation."""
    mass = (below + above).sum(axis=0)
    group = np.floor(np.cumsum(mass) / mass.sum() * (GROUPS - 1e-6)).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    merged = np.add.reduceat(mass, starts)
    return (
        np.add.reduceat(below, starts, axis=1),
        np.add.reduceat(above, starts, axis=1),
        np.add.reduceat(score * mass, starts) / np.where(merged == 0, 1, merged),
    )


def resampled(grid: ScoreGrid, rows: Floats, weights: Floats) -> dict[str, Floats]:
    """Each metric in each resampling, shape (draws,). rows: labelled rows by bucket; weights: of the
    buckets, shape (draws, buckets)."""
    below, above, score = grid.negative, grid.positive, grid.score
    names = ("ece", "ece_if_calibrated", "calibration_error", "miscalibration", "discrimination")
    out = {name: np.full(len(weights), np.nan) for name in names}
    if below.shape[1] == 0:
        return out
    below, above, score = _coarser(below, above, score)
    negatives, positives, counts = weights @ below, weights @ above, weights @ rows
    for draw, (negative, positive, count) in enumerate(zip(negatives, positives, counts, strict=True)):
        bins = equal_mass_bins(negative, positive, score)
        out["ece"][draw] = ece(bins)
        out["ece_if_calibrated"][draw] = ece_if_calibrated(bins, float(count))
        out["calibration_error"][draw] = calibration_error(bins, float(count))
        mass = negative + positive
        total, hits = mass.sum(), positive.sum()
        if not 0 < hits < total:
            continue
        used = mass > 0
        fitted = isotonic_regression(positive[used] / mass[used], weights=mass[used]).x
        recalibrated = float((mass[used] * fitted * (1 - fitted)).sum() / total)
        rate = hits / total
        p = score[used]
        brier = float((positive[used] * (1 - p) ** 2 + negative[used] * p**2).sum() / total)
        out["miscalibration"][draw] = brier - recalibrated
        out["discrimination"][draw] = rate * (1 - rate) - recalibrated
    return out
