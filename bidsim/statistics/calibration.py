"""Calibration: equal-mass bins, expected calibration error and what noise alone would show, CORP decomposition.

Bins have exactly equal mass: a group of rows with one score (or one grid cell) that straddles a bin's edge is split
in proportion, so the result does not depend on an order among ties.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from bidsim.statistics.measured import Measured, Turning
from bidsim.statistics.ranking import Cells, Ladder

Floats = npt.NDArray[np.float64]
BINS = 20


@dataclass(frozen=True)
class Bins:
    """Equal-mass bins in ascending order of prediction, shape (..., bins) each: of one population, or of several at once.

    weight: mass of the bin; predicted, observed: weighted means of prediction and label. One population without rows has
    no bins.
    """

    weight: Floats
    predicted: Floats
    observed: Floats


def equal_mass_bins(negative: Floats, positive: Floats, score: Floats, bins: int = BINS) -> Bins:
    """Cut groups of equal score into bins of equal mass.

    negative, positive: weight of each label per group, shape (groups,), or (populations, groups), none of them empty;
    score: the group's mean prediction, shape (groups,) ascending.
    """
    mass = negative + positive
    if mass.ndim == 1 and not mass.sum() > 0:
        nothing = np.zeros(0)
        return Bins(nothing, nothing, nothing)

    def summed(values: Floats) -> Floats:
        return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)

    edges = summed(mass)
    at = np.linspace(0.0, edges[..., -1], bins + 1, axis=-1)
    sum_p, sum_y = _interpolated(at, edges, [summed(mass * score), summed(positive)])
    weight = np.diff(at, axis=-1)
    return Bins(weight, np.diff(sum_p, axis=-1) / weight, np.diff(sum_y, axis=-1) / weight)


def _interpolated(at: Floats, edges: Floats, sums: list[Floats]) -> list[Floats]:
    """Sums at places between edges, as `np.interp` has them; rows of several populations each along their own edges."""
    if at.ndim == 1:
        return [np.interp(at, edges, each) for each in sums]
    last = edges.shape[-1] - 1
    found = [np.searchsorted(e, a, side="right") - 1 for e, a in zip(edges, at, strict=True)]
    j = np.minimum(np.array(found), last - 1)
    left, right = (np.take_along_axis(edges, k, axis=-1) for k in (j, j + 1))
    out = []
    for each in sums:
        low, high = (np.take_along_axis(each, k, axis=-1) for k in (j, j + 1))
        inner = (high - low) / np.where(right > left, right - left, 1.0) * (at - left) + low
        out.append(np.where(at >= edges[:, -1:], each[:, -1:], inner))
    return out


def stacked(bins: Sequence[Bins]) -> Bins:
    """Those of one population each as one; NaN where there are none."""
    out = np.full((3, len(bins), BINS), np.nan)
    for i, each in enumerate(bins):
        if len(each.weight):
            out[:, i] = each.weight, each.predicted, each.observed
    return Bins(*out)


def _mean(bins: Bins, values: Floats) -> Floats:
    """By mass, over bins."""
    return np.asarray((values * bins.weight).sum(axis=-1) / bins.weight.sum(axis=-1))


def ece(bins: Bins) -> Floats:
    """Expected calibration error: mean over bins, by mass, of abs(mean prediction - mean label); NaN without rows.

    Of each population, shape (...).
    """
    if bins.weight.shape[-1] == 0:
        return np.array(np.nan)
    return _mean(bins, np.abs(bins.predicted - bins.observed))


def ece_if_calibrated(bins: Bins, rows: Floats | float) -> Floats:
    """The ECE that a perfectly calibrated model would show on as many labels, shape (...).

    rows: number of labelled rows, shape (...). Each bin's mean label is then normal around its mean prediction with
    variance p (1 - p) / n, whose mean absolute deviation is sqrt(2 / pi) standard deviations. NaN without rows.
    """
    n = _rows_of_bins(bins, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mean(bins, np.sqrt(2 / np.pi * np.maximum(bins.predicted * (1 - bins.predicted), 0.0) / n))


def calibration_error(bins: Bins, rows: Floats | float) -> Floats:
    """Debiased squared calibration error, square root with the sign of the debiased square, shape (...).

    Kumar, Liang, Ma (2019), "Verified Uncertainty Calibration": the plug-in square overstates by the labels' own
    variance y (1 - y) / (n - 1) in each bin. Negative values mean: less than noise alone would show. NaN where a bin
    has fewer than two rows. rows: number of labelled rows, shape (...).
    """
    n = _rows_of_bins(bins, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = (bins.predicted - bins.observed) ** 2 - bins.observed * (1 - bins.observed) / (n - 1)
        mean = np.where((n > 1).all(axis=-1), _mean(bins, squared), np.nan)
        return np.asarray(np.sign(mean) * np.sqrt(np.abs(mean)))


def _rows_of_bins(bins: Bins, rows: Floats | float) -> Floats:
    """NaN without any."""
    count = np.asarray(rows, dtype=np.float64)
    if bins.weight.shape[-1] == 0:
        return np.full((*count.shape, 0), np.nan)
    count = np.where(count > 0, count, np.nan)
    return np.asarray(count[..., None] * bins.weight / bins.weight.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Recalibrated:
    """What isotonic recalibration leaves. brier: the Brier score of the fit, NaN without rows; wiggle: how much of the
    summed squares the fit may owe to noise, were all labels independent."""

    brier: float
    wiggle: float


def recalibrated(ladder: Ladder, unit: float = 1.0) -> Recalibrated:
    """The Brier score that isotonic recalibration would leave. unit: the weight that the ladder's whole number 1
    stands for.

    It gives the CORP parts (Dimitriadis, Gneiting, Jordan 2021) of a Brier score over the same rows, with the
    uncertainty r (1 - r) of the base rate r: miscalibration = brier - this, discrimination = uncertainty - this. In the
    isotonic fit negatives between two positives always pool with the positive below them (their labels are lower than
    any block's mean), so the ladder holds all that the fit depends on.

    The fit has as many degrees of freedom as it has blocks (Meyer, Woodroofe 2000, "On the degrees of freedom in
    shape-restricted regression"), so the wiggle is the sum of their labels' variances. Blocks without a variance stand at
    the ends, where the fit is not consistent: m labels of one kind in a row are no proof of a rate below 2 / (m + 1).
    """
    positives = int(ladder.positive.sum())
    total = positives + ladder.negatives
    if total == 0:
        return Recalibrated(float("nan"), float("nan"))
    if positives == 0:
        return Recalibrated(0.0, float("nan"))
    weight = (ladder.positive + ladder.equal + ladder.between()).astype(np.float64)
    weighs = weight > 0
    weight, positive = weight[weighs], ladder.positive[weighs].astype(np.float64)
    fit = isotonic_regression(positive / weight, weights=weight)
    # Negatives below the first positive are a block of their own with mean zero: they add nothing.
    starts = fit.blocks[:-1]
    mass = np.add.reduceat(weight, starts)
    hits = np.add.reduceat(positive, starts)
    varies = hits * (1 - hits / mass)
    pure = np.array([total - mass.sum(), *mass[(hits == 0) | (hits == mass)]]) * unit
    wiggle = float((varies / mass).sum() + (pure * (2 / (pure + 1)) ** 2).sum())
    return Recalibrated(float(varies.sum() / total), wiggle)


def uncertainty_of(rate: Measured) -> Measured:
    """r (1 - r) of the base rate r, the Brier score of predicting it for every row; highest where r is one half."""
    assert rate.parts is not None

    def variance(r: Floats) -> Floats:
        return r * (1 - r)

    slope = 1 - 2 * rate.value
    return Measured(variance(rate.value), slope[:, None] * rate.parts, turning=Turning(rate, variance, 0.5))


def spans(mass: Floats, bins: int = BINS) -> Floats:
    """Over how many bins' rows the observed rate of each bin is taken, shape (bins,): more than one where groups of equal
    score straddle its edges, since bins then share labels. mass: as in `equal_mass_bins`, shape (groups,).

    The variance of a bin's rate is sum of f^2 / m over groups of mass m that make up the share f of the bin; the covariances
    with all bins add up to what it would be without ties.
    """
    edges = np.concatenate([[0.0], np.cumsum(mass)])
    total = edges[-1]
    if not total > 0:
        return np.full(bins, np.nan)
    at, each = np.linspace(0.0, total, bins + 1), total / bins
    start, end = at[:-1], at[1:]
    first = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, len(mass) - 1)
    last = np.clip(np.searchsorted(edges, end, side="left") - 1, 0, len(mass) - 1)
    head, tail = np.minimum(edges[first + 1], end) - start, np.where(last > first, end - edges[last], 0.0)
    lost = head * (1 - head / mass[first]) + tail * (1 - tail / mass[last])
    return np.asarray(1 / np.clip(1 - lost / each, 1 / bins, 1.0))


def bins_by_code(cells: Cells, codes: int) -> tuple[list[Bins], Floats]:
    """Equal-mass bins of each segment value, and their `spans`, shape (values, bins)."""
    code, negative, positive, score = cells.table()
    edges = np.searchsorted(code, np.arange(codes + 1))
    pairs = list(itertools.pairwise(edges))
    found = [equal_mass_bins(negative[a:b], positive[a:b], score[a:b]) for a, b in pairs]
    return found, np.array([spans(negative[a:b] + positive[a:b]) for a, b in pairs]).reshape(codes, BINS)
