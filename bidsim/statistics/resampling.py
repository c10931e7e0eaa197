"""Metrics that are not smooth, in resamplings of the buckets of units: calibration error and the CORP parts.

The score cells are kept by bucket; a resampling weighs the buckets and computes the metric anew, so that no row is
looked at again. Both policies see the same weights, which pairs them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from bidsim.statistics.calibration import calibration_error, ece, ece_if_calibrated, equal_mass_bins
from bidsim.statistics.ranking import Cells

Floats = npt.NDArray[np.float64]


def bucket_matrix(cells: Cells) -> tuple[Floats, Floats, Floats]:
    """(negative weight, positive weight, mean score) of score cells kept by bucket: shape (buckets, scores) twice, then
    (scores,). Scores ascend."""
    bucket, negative, positive, score = cells.table()
    if len(bucket) == 0:
        nothing = np.zeros((cells.codes, 0))
        return nothing, nothing, np.zeros(0)
    place = cells.places()
    distinct, at = np.unique(place, return_inverse=True)
    shape = (cells.codes, len(distinct))
    below, above, mass_score = np.zeros(shape), np.zeros(shape), np.zeros(len(distinct))
    below[bucket, at] = negative
    above[bucket, at] = positive
    np.add.at(mass_score, at, score * (negative + positive))
    mass = (below + above).sum(axis=0)
    return below, above, mass_score / np.where(mass == 0, 1, mass)


def resampled(cells: Cells, rows: Floats, weights: Floats) -> dict[str, Floats]:
    """Each metric in each resampling, shape (draws,). cells: by bucket; rows: labelled rows by bucket; weights: of the
    buckets, shape (draws, buckets)."""
    below, above, score = bucket_matrix(cells)
    names = ("ece", "ece_if_calibrated", "calibration_error", "miscalibration", "discrimination")
    out = {name: np.full(len(weights), np.nan) for name in names}
    if below.shape[1] == 0:
        return out
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
