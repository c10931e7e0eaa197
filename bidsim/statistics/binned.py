"""How sure calibration error and the CORP parts are by segment value, from bins and sums by bucket: no resampling.

Labels by segment value, bucket of units and score would be needed to resample buckets, as is done overall; they are not
kept. Known are each value's equal-mass bins and its sums by bucket. A bin's observed rate is taken as normal around its
true rate, which is what Broecker, Smith (2007, "Increasing the reliability of reliability diagrams") resample, with the
variance of independent labels times a design effect (Kish 1965): how much more the sums of label minus prediction vary
from bucket to bucket than independent labels would. It is that of all rows, as a rule at least what rows of one bin
have in common, and it is taken to be one at least (but for weighted logs, whose weights it holds). The moments of the
metrics are then known in closed form (of abs: the folded normal, Leone, Nelson, Nottingham 1961).

As in `resampling`, deviations from calibration are shrunk first, until they and noise together make what was seen.
The part of a metric's error that follows the sum of label minus prediction is known by bucket and so is paired in
differences; what is left is uncorrelated with it. The CORP parts: to first order the isotonic fit stands still, so that
the errors are those of the squared deviations of the fit of the bins; the fit follows noise too, by its blocks (see
`calibration.recalibrated`). Few positives or few buckets: no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from bidsim.statistics.calibration import BINS, Bins, stacked
from bidsim.statistics.measured import Mean, Measured, Noise, ratio_of
from bidsim.statistics.spread import Sample, standard_error
from bidsim.statistics.tables import Ranked
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]
# So many positives and so many negatives, as if independent, are needed for noise near enough to normal.
LEAST_LABELS = 10.0
# Of a fit with many blocks the noise is so many times its blocks' (simulated: 1.0 for a flat truth, 1.5 for a steep one),
# and so many times its mean squared is its variance.
WIGGLES, WIGGLE_VARIES = 1.5, 3.0
# Weights leave the design effect without a bound below, and a few positives of much weight make it too small as often as
# too large.
UNBOUNDED = 1.25
# Standard normal numbers that stand for all: the middles of equal shares.
NORMAL = ndtri((np.arange(64) + 0.5) / 64)
NORMAL = NORMAL / NORMAL.std()


@dataclass(frozen=True)
class Sums:
    """Of the labelled rows by bucket, shape (values, buckets): rows, positive labels, predictions, squared errors, by
    weight. weighted: whether weights are others than one."""

    rows: Floats
    positive: Floats
    predicted: Floats
    squared: Floats
    weighted: bool


@dataclass(frozen=True)
class _Labels:
    """Bins of all values and the noise of their labels, shape (values, bins) each, NaN where there are none.

    spans: see `calibration`: bins of equal scores share labels, so that their rates are known as well as those of so many
    bins and go together. kept: deviations without what noise adds to them; noise, idle: standard errors of the observed
    rates, and those if the model were calibrated; plain: what `calibration_error` takes off. common: what each bucket adds
    to the mean of label minus prediction, so that its variance is that of the bins'; effect: the design effect, shape
    (values,); known: where enough is known, shape (values,).
    """

    predicted: Floats
    observed: Floats
    spans: Floats
    kept: Floats
    noise: Floats
    idle: Floats
    plain: Floats
    common: Mean
    effect: Floats
    known: npt.NDArray[np.bool_]
    sums: Sums
    sample: Sample

    def of_mean(self, variance: Floats) -> Floats:
        """Variance of the mean over bins of something with this variance by bin, shape (values,)."""
        return np.asarray((self.spans * variance).sum(axis=1) / BINS**2)


def _labels(bins: Sequence[Bins], spans: Floats, sums: Sums, units: int) -> _Labels:
    whole = stacked(bins)
    predicted, observed = whole.predicted, whole.observed
    sample = Sample(0.95, sums.rows, units)
    rows, positive = sums.rows.sum(axis=1), sums.positive.sum(axis=1)
    each = rows[:, None] / BINS
    missed = sums.positive - sums.predicted
    (common,) = ratio_of(ratio(missed.sum(axis=1), rows), missed, sums.rows, log=False).means
    variance = (rows * standard_error([common], sample)) ** 2

    def effect(rate: Floats) -> tuple[Floats, Floats]:
        """(design effect, variance of the sum of labels if they were independent)."""
        plain = each[:, 0] * (rate * (1 - rate)).sum(axis=1)
        found = ratio(variance, plain)
        return UNBOUNDED * found if sums.weighted else np.maximum(found, 1.0), plain

    deviation = observed - predicted
    known_by = each * spans
    rough = (known_by * observed + 0.5) / (known_by + 1)
    spread = ratio(effect(rough)[0][:, None] * rough * (1 - rough), known_by)
    kept = _kept(deviation, spread)
    least = 0.5 / (known_by + 1)
    rate = np.clip(predicted + kept, least, 1 - least)
    found, independent = effect(rate)
    known = ratio(np.minimum(positive, rows - positive), found) >= LEAST_LABELS
    lift = np.sqrt(ratio(found * independent, variance))[:, None]
    return _Labels(
        predicted,
        observed,
        spans,
        kept,
        np.sqrt(ratio(found[:, None] * rate * (1 - rate), known_by)),
        np.sqrt(ratio(found[:, None] * np.clip(predicted * (1 - predicted), 0.0, None), known_by)),
        ratio(rate * (1 - rate), each - 1),
        Mean(np.nan_to_num(common.influence * lift), np.nan_to_num(common.share)),
        found,
        known,
        sums,
        sample,
    )


def _kept(deviation: Floats, variance: Floats) -> Floats:
    """Deviations without what noise of this variance adds to them, shape (values, bins).

    Of each square so many times its variance is taken that the sum is less by the sum of the variances: large ones stay
    nearly whole, and small ones, which noise may have made, are gone.
    """
    square = deviation**2
    wanted = np.clip((square - variance).sum(axis=1), 0.0, None)
    least, most = np.ones(len(square)), np.nan_to_num(ratio(square, variance).max(axis=1)) + 1.0
    for _ in range(40):
        times = (least + most) / 2
        more = np.clip(square - times[:, None] * variance, 0.0, None).sum(axis=1) > wanted
        least, most = np.where(more, times, least), np.where(more, most, times)
    return np.asarray(np.sign(deviation) * np.sqrt(np.clip(square - most[:, None] * variance, 0.0, None)))


def _noise(labels: _Labels, follows: Floats, variance: Floats, bias: Floats) -> Noise:
    """follows: how the metric of a bin goes with its observed rate; variance: of the mean over bins; NaN: not known."""
    squares = labels.noise**2 * labels.spans
    pull = ratio((follows * squares).sum(axis=1), squares.sum(axis=1))
    told = pull**2 * squares.sum(axis=1) / BINS**2
    rest = np.where(labels.known, np.sqrt(np.clip(variance - told, 0.0, None)), np.nan)
    return Noise(
        bias,
        (Mean(np.nan_to_num(pull)[:, None] * labels.common.influence, labels.common.share),),
        rest,
        np.nan_to_num((follows - pull[:, None]) * np.sqrt(squares) / BINS),
        labels.sums.rows,
    )


def _folded(middle: Floats, deviation: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and variance of abs(middle + deviation z), z standard normal, and how it goes with it."""
    far = ratio(middle, deviation)
    follows = 2 * ndtr(far) - 1
    mean = deviation * np.sqrt(2 / np.pi) * np.exp(-(far**2) / 2) + middle * follows
    return mean, np.clip(middle**2 + deviation**2 - mean**2, 0.0, None), follows


def _of_ece(labels: _Labels) -> Noise:
    mean, variance, follows = _folded(labels.kept, labels.noise)
    idle_mean, idle_variance, _ = _folded(np.zeros_like(labels.idle), labels.idle)
    noise = _noise(labels, follows, labels.of_mean(variance), (mean - np.abs(labels.kept)).mean(axis=1))
    return replace(noise, idle_bias=idle_mean.mean(axis=1), idle_error=np.sqrt(labels.of_mean(idle_variance)))


def _of_calibration_error(labels: _Labels) -> Noise:
    """Of the root, with the noise of its square beside it."""
    kept, noise, idle = labels.kept, labels.noise, labels.idle
    excess, about = (noise**2 - labels.plain).mean(axis=1), (kept**2).mean(axis=1)
    # The square is surer the smaller the deviations are; the interval is about those that may well be there.
    most = kept**2 + 2 * np.sqrt(labels.of_mean(4 * kept**2 * noise**2 + 2 * noise**4))[:, None]
    variance = labels.of_mean(4 * most * noise**2 + 2 * noise**4)
    idle_plain = ratio(idle**2 * labels.spans, labels.effect[:, None])
    idle_bias, idle_error = (idle**2 - idle_plain).mean(axis=1), np.sqrt(labels.of_mean(2 * idle**4))
    squared = replace(_noise(labels, 2 * kept, variance, excess), idle_bias=idle_bias, idle_error=idle_error)

    def root(mean: Floats, error: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean, standard error of the root with its sign, and how it goes with the square."""
        square = mean[:, None] + error[:, None] * NORMAL
        drawn = np.sign(square) * np.sqrt(np.abs(square))
        return drawn.mean(axis=1), drawn.std(axis=1), ratio((drawn * NORMAL).mean(axis=1), error)

    mean, error, slope = root(about + excess, np.sqrt(variance))
    idle_mean, idle_spread, _ = root(idle_bias, idle_error)
    (told,) = squared.means
    rest = np.sqrt(np.clip(error**2 - slope**2 * variance, 0.0, None) + (slope * squared.rest) ** 2)
    return Noise(
        mean - np.sqrt(about),
        (Mean(np.nan_to_num(slope)[:, None] * told.influence, told.share),),
        rest,
        np.nan_to_num(slope[:, None] * squared.by_bin),
        squared.rows,
        idle_mean,
        idle_spread,
        squared,
    )


def isotonic(observed: Floats) -> Floats:
    """The isotonic fit of each row of bins of equal mass: max over a <= i of min over b >= i of the mean of a to b."""
    values, bins = observed.shape
    running = np.concatenate([np.zeros((values, 1)), np.cumsum(observed, axis=1)], axis=1)
    fit = np.full((values, bins), -np.inf)
    for a in range(bins):
        means = (running[:, a + 1 :] - running[:, a : a + 1]) / np.arange(1, bins - a + 1)
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        fit[:, a:] = np.fmax(fit[:, a:], lowest)
    return np.where(np.isfinite(fit), fit, np.nan)


def _of_corp(labels: _Labels, values: Mapping[str, Measured], wiggle: Floats) -> dict[str, Noise]:
    sums = labels.sums
    rows = sums.rows.sum(axis=1)
    total = ratio(WIGGLES * labels.effect * wiggle, rows)
    seen = values["miscalibration"].value
    true = np.clip(seen - total, 0.0, None)
    fit = isotonic(labels.observed)
    gap = fit - labels.predicted
    kept = np.sqrt(ratio(true, (gap**2).mean(axis=1)))[:, None] * gap
    kept = np.where(true[:, None] > 0, kept, 0.0)
    # The ends of the fit stand on single labels.
    ends = fit[:, [0, -1]]
    single = (ends * (1 - ends)).max(axis=1) * 2 * labels.effect / rows**2
    loose = WIGGLE_VARIES * total * ratio(labels.effect * (fit * (1 - fit)).mean(axis=1), rows) + single
    lines = labels.of_mean(4 * kept**2 * labels.noise**2)
    miscalibration = _noise(labels, 2 * kept, lines + loose, total)
    return {
        "miscalibration": replace(miscalibration, idle_bias=total, idle_error=np.sqrt(loose)),
        "discrimination": _of_discrimination(labels, values["brier"].means[0], miscalibration, fit, loose),
    }


def _of_discrimination(labels: _Labels, brier: Mean, miscalibration: Noise, fit: Floats, loose: Floats) -> Noise:
    """discrimination = uncertainty - brier + miscalibration, all but the last known by bucket. Where that is far off its
    own error is the larger part; then that of the fit, as if it stood still, is narrower. loose: variance of the fit."""
    sums = labels.sums
    rows = sums.rows.sum(axis=1)
    rate = ratio(sums.positive.sum(axis=1), rows)
    (base,) = ratio_of(rate, sums.positive, sums.rows, log=False).means
    (told,) = miscalibration.means
    smooth = np.nan_to_num((1 - 2 * rate)[:, None] * base.influence - brier.influence) + told.influence
    error = standard_error([Mean(smooth, told.share)], labels.sample)
    lines = np.sqrt(np.clip(miscalibration.rest**2 - loose, 0.0, None))
    follows = 2 * (fit - rate[:, None]) * labels.noise * np.sqrt(labels.spans) / BINS
    moved = _moved(labels, (fit - rate[:, None]) ** 2)
    straight = np.sqrt((follows**2).sum(axis=1) + moved**2 + loose)
    other = replace(
        miscalibration,
        means=(Mean(np.broadcast_to(0.0, smooth.shape), told.share),),
        rest=np.where(labels.known, straight, np.nan),
        by_bin=np.nan_to_num(follows),
    )
    return replace(
        miscalibration,
        means=(Mean(smooth, told.share),),
        # How the lines go with the smooth part is not known.
        rest=np.sqrt(loose + lines**2 + 2 * error * lines),
        other=other,
    )


def _moved(labels: _Labels, by_bin: Floats) -> Floats:
    """Standard error of the mean of something known by bin, which moves as scores do. It varies from bucket to bucket as
    much more than it would from row to row as predictions do."""
    sums = labels.sums
    mean = ratio(sums.predicted.sum(axis=1), sums.rows.sum(axis=1))
    error = standard_error(ratio_of(mean, sums.predicted, sums.rows, log=False).means, labels.sample)
    return np.nan_to_num(ratio(by_bin.std(axis=1), labels.predicted.std(axis=1))) * error


def _of_if_calibrated(value: Floats, labels: _Labels) -> Noise:
    """It follows sqrt(p (1 - p)) and the number of rows. By bucket p is known, which the root follows in part."""
    sums = labels.sums
    rows, p = sums.rows.sum(axis=1), labels.predicted
    root = np.sqrt(np.clip(p * (1 - p), 0.0, None))
    of_p = ratio_of(ratio(sums.predicted.sum(axis=1), rows), sums.predicted, sums.rows, log=False).means[0]
    p_off, root_off = (x - x.mean(axis=1)[:, None] for x in (p, root))
    slope = np.nan_to_num(ratio((p_off * root_off).mean(axis=1), (p_off**2).mean(axis=1)))
    left = root_off - slope[:, None] * p_off
    used = sums.rows > 0
    fewer = (of_p.share - ratio(np.ones(len(rows)), used.sum(axis=1))[:, None]) * used / 2
    scale = ratio(value, root.mean(axis=1))
    influence = np.nan_to_num((scale * slope)[:, None] * of_p.influence - value[:, None] * fewer)
    nothing = np.zeros(len(rows))
    return Noise(nothing, (Mean(influence, of_p.share),), scale * _moved(labels, left), np.zeros_like(p), sums.rows)


def with_noise(values: Mapping[str, Measured], ranked: Ranked, sums: Sums, units: int) -> dict[str, Measured]:
    """The metrics that are not smooth, with what their intervals need; those of older files stay without. values: by
    metric; units: of the whole log."""
    if ranked.wiggle is None or ranked.spans is None:
        return {}
    labels = _labels(ranked.bins, ranked.spans, sums, units)
    noises = {
        "ece": _of_ece(labels),
        "ece_if_calibrated": _of_if_calibrated(values["ece_if_calibrated"].value, labels),
        "calibration_error": _of_calibration_error(labels),
        **_of_corp(labels, values, ranked.wiggle),
    }
    return {name: replace(values[name], noise=noise) for name, noise in noises.items()}
