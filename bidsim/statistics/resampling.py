"""Metrics that are not smooth, in resamplings of the buckets of units: calibration error and the CORP parts.

The score cells are kept by bucket; a resampling weighs the buckets and computes the metric anew, so that no row is
looked at again. Both policies see the same weights, which pairs them.

What measures a distance from perfect calibration can't be negative, so noise adds to it: a model that is calibrated
shows some, and a resampling of its labels more. A resampling around what the labels show would therefore be around the
wrong centre. Here the deviations are shrunk first, until they and the labels' noise together make what was seen (a
perfectly calibrated model has none left), and the noise of each resampling is added to those: how far the metric then
lies from the shrunk deviations' own is how far it may lie from the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.sparse import csr_array

from bidsim.statistics.calibration import Bins, calibration_error, ece, ece_if_calibrated, equal_mass_bins
from bidsim.statistics.tables import ScoreGrid
from bidsim.statistics.units import mix

Floats = npt.NDArray[np.float64]
DRAWS = 200
GROUPS = 2000
HELD = 1 << 13
# At most one in so many has to be there for a sparse product to be the faster one.
SPARSE = 16
_STEP = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Draws:
    """A metric in each resampling, shape (draws,), and its value in the population that the resamplings are of.

    seen: of the log itself, by the same cells; calibrated: resamplings of a perfectly calibrated model, for what is zero
    there.
    """

    values: Floats
    about: float
    seen: float
    calibrated: Floats | None = None


def resampled(grid: ScoreGrid, rows: Floats, weights: Floats) -> dict[str, Draws]:
    """Each metric in each resampling. rows: labelled rows by bucket; weights: of the buckets, shape (draws, buckets)."""
    names = ("ece", "ece_if_calibrated", "calibration_error", "miscalibration", "discrimination")
    below, above, score = grid.negative, grid.positive, grid.score
    if below.shape[1] == 0:
        return {name: Draws(np.full(len(weights), np.nan), np.nan, np.nan) for name in names}
    below, above, score = _coarser(below, above, score)
    negatives, positives, counts = _weighted(weights, below), _weighted(weights, above), weights @ rows
    drawn = equal_mass_bins(negatives, positives, score)
    whole = equal_mass_bins(below.sum(axis=0), above.sum(axis=0), score)
    return _of_bins(whole, float(rows.sum()), drawn, counts) | _of_cells(below, above, score, negatives, positives)


def _weighted(weights: Floats, by_bucket: Floats) -> Floats:
    """weights @ by_bucket, whose cells are few buckets' each where the log is small."""
    if np.count_nonzero(by_bucket) * SPARSE > by_bucket.size:
        return np.asarray(weights @ by_bucket)
    return np.ascontiguousarray((csr_array(by_bucket.T) @ weights.T).T)


def _coarser(below: Floats, above: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """Neighbouring cells put together into at most about GROUPS of equal mass."""
    mass = (below + above).sum(axis=0)
    group = np.floor(np.cumsum(mass) / mass.sum() * (GROUPS - 1e-6)).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    merged = np.add.reduceat(mass, starts)
    return (
        np.add.reduceat(below, starts, axis=1),
        np.add.reduceat(above, starts, axis=1),
        np.add.reduceat(score * mass, starts) / np.where(merged == 0, 1, merged),
    )


def _kept(seen: float, noise: float) -> float:
    """The factor that shrinks deviations whose mean square is seen, when noise alone would show so much of it."""
    return float(np.sqrt(max(0.0, 1 - noise / seen))) if seen > 0 else 0.0


def _of_bins(whole: Bins, rows: float, drawn: Bins, counts: Floats) -> dict[str, Draws]:
    """rows: of the whole; drawn, counts: bins and rows of the resamplings, shape (draws, bins) and (draws,)."""
    deviation = whole.observed - whole.predicted
    noise = drawn.observed - drawn.predicted - deviation
    kept = deviation * _kept(float((deviation**2).mean()), float((noise**2).mean()))

    def off_by(of: Bins, off: Floats) -> Bins:
        return Bins(of.weight, of.predicted, np.clip(of.predicted + off, 0.0, 1.0))

    around, alone = off_by(drawn, kept + noise), off_by(drawn, noise)
    about = float(np.sqrt((kept**2).mean()))
    expected = float(ece_if_calibrated(whole, rows))
    return {
        "ece": Draws(ece(around), float(ece(off_by(whole, kept))), float(ece(whole)), ece(alone)),
        "calibration_error": Draws(
            calibration_error(around, counts),
            about,
            float(calibration_error(whole, rows)),
            calibration_error(alone, counts),
        ),
        "ece_if_calibrated": Draws(ece_if_calibrated(drawn, counts), expected, expected),
    }


def _parts(mass: Floats, positive: Floats, score: Floats) -> tuple[Floats, Floats]:
    """(miscalibration, discrimination) of each population, shape (populations,), NaN where a label is absent. mass, positive:
    shape (populations, cells)."""
    # Some at a time, so that what is in between stays in a processor's cache.
    step = max(1, HELD // mass.shape[1])
    found = [_few_parts(mass[i : i + step], positive[i : i + step], score) for i in range(0, len(mass), step)]
    miscalibration, discrimination = zip(*found, strict=True)
    return np.concatenate(miscalibration), np.concatenate(discrimination)


def _few_parts(mass: Floats, positive: Floats, score: Floats) -> tuple[Floats, Floats]:
    total, hits = mass.sum(axis=1), positive.sum(axis=1)
    known = (hits > 0) & (hits < total)
    with np.errstate(divide="ignore", invalid="ignore"):
        brier = (positive * (1 - score) ** 2 + (mass - positive) * score**2).sum(axis=1) / total
        rate = hits / total
        recalibrated = np.where(known, _recalibrated(mass, positive) / total, np.nan)
    return brier - recalibrated, rate * (1 - rate) - recalibrated


def _recalibrated(mass: Floats, positive: Floats) -> Floats:
    """Mass times the Brier score that isotonic recalibration leaves of each population: all are fitted as one, each lying so
    far above the one before that none of its cells is ever pooled with another's."""
    of, cell = np.nonzero(mass > 0)
    if len(of) == 0:
        return np.zeros(len(mass))
    weights, hits = mass[of, cell], positive[of, cell]
    rates = hits / weights
    apart = 1 + np.ptp(rates)
    starts = isotonic_regression(rates + apart * of, weights=weights).blocks[:-1]
    weights, hits = np.add.reduceat(weights, starts), np.add.reduceat(hits, starts)
    fitted = hits / weights
    return np.asarray(np.bincount(of[starts], weights * fitted * (1 - fitted), len(mass)), dtype=np.float64)


def _of_cells(below: Floats, above: Floats, score: Floats, negatives: Floats, positives: Floats) -> dict[str, Draws]:
    hits, mass = above.sum(axis=0), (below + above).sum(axis=0)
    masses = negatives + positives
    rate = hits / np.where(mass > 0, mass, 1)
    noise = positives - masses * rate
    (seen,), (discrimination,) = _parts(mass[None], hits[None], score)
    alone = _parts(masses, masses * score + noise, score)[0]
    fitted = isotonic_regression(rate, weights=np.maximum(mass, 1e-300)).x
    truth = score + (fitted - score) * _kept(float(seen), float(alone.mean()))
    around = _parts(masses, masses * truth + noise, score)[0]
    (about,), _ = _parts(mass[None], mass[None] * truth, score)
    return {
        "miscalibration": Draws(around, about, seen, alone),
        "discrimination": Draws(_parts(masses, positives, score)[1], discrimination, discrimination),
    }


@cache
def bucket_weights(buckets: int) -> Floats:
    """Weights of the buckets in each resampling, shape (DRAWS, buckets), mean 1: the Bayesian bootstrap (Rubin 1981).

    From a counter, not a generator's state: the same everywhere and for both policies.
    """
    counter = np.arange(1, DRAWS * buckets + 1, dtype=np.uint64)
    uniform = ((mix(counter * np.uint64(_STEP)) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    weights = -np.log(uniform).reshape(DRAWS, buckets)
    return np.asarray(weights / weights.mean(axis=1, keepdims=True))
