"""Two-sided intervals from sums by bucket of units: clustered, paired, deterministic.

A smooth metric is known by its influence: what each bucket adds to it to first order (the delta method; equally the
infinitesimal jackknife over groups). Deng, Knoblich, Lu (2018), "Applying the Delta Method in Metric Analytics";
Chamandy et al. (2012), "Estimating Uncertainty for Massive Data Streams". Positive metrics are taken on the log scale.
Differences use the difference of influences, so what both policies share cancels.

With few units two things are corrected. A bucket that holds much of the log pulls the estimate towards itself, so its
influence is scaled up by 1 / (1 - its share) (the delete-one jackknife's scale; CR3 in Bell, McCaffrey 2002). And the t
quantile's degrees of freedom follow from how unevenly the buckets weigh: by Satterthwaite's matching of the variance
of a variance with the influences' kurtosis, and at most the effective number of buckets (Carter, Schnepel,
Steigerwald 2017) less one. Few units, few conversions or one dominating unit give few degrees of freedom, and below
`LEAST_FREEDOM` there is no interval at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bidsim.statistics.tallies import ratio
from bidsim.statistics.units import mix

Floats = npt.NDArray[np.float64]
Kind = Literal["count", "sum", "log", "linear", "fact"]

LEAST_BUCKETS = 5
LEAST_FREEDOM = 4.0
# Of the variance of a total, at least this share is kept when the part that the number of units explains is taken out.
LEAST_VARIANCE = 0.02
DRAWS = 200
_STEP = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Measured:
    """A metric of one policy in one family of segments.

    value: shape (values,), NaN where undefined. parts: what each bucket of units adds, shape (values, buckets): for
    the kinds "count" and "sum" the bucket's own total (a count is never negative, a sum may be), for "log" and
    "linear" the influence on the value, which sums to zero over buckets. Log: positive, judged on the log scale. A
    "fact" is about this log and no other: its interval is the value itself.
    draws: for metrics that are not smooth, the metric in each resampling of the buckets, shape (DRAWS,), one value only.
    """

    value: Floats
    parts: Floats | None = None
    kind: Kind = "linear"
    draws: Floats | None = None


@dataclass(frozen=True)
class Sample:
    """What intervals need to know of the log. rows: by segment value and bucket, shape (values, buckets); units: number
    of units of the whole log; given: whether totals are those of so many units. Under a budget they are not simply
    proportional to it, so that what the number explains can't be taken out."""

    confidence: float
    rows: Floats
    units: int
    given: bool = True

    @cached_property
    def used(self) -> Floats:
        """Number of non-empty buckets, shape (values,)."""
        return np.asarray((self.rows > 0).sum(axis=1), dtype=np.float64)

    def shares(self, buckets: int) -> Floats:
        """Share of the rows that each bucket holds, shape (values, buckets); fewer buckets nest in more."""
        grouped = self.rows.reshape(len(self.rows), buckets, self.rows.shape[1] // buckets).sum(axis=2)
        return np.asarray(ratio(grouped, grouped.sum(axis=1, keepdims=True)))

    def quantile(self, freedom: Floats) -> Floats:
        return np.asarray(stdtrit(np.maximum(freedom, 1.0), 0.5 + self.confidence / 2))


Bounds = tuple[Floats, Floats]


def _freedom(z: Floats, shares: Floats) -> Floats:
    """Degrees of freedom of a variance estimated from influences z, shape (values,)."""
    used = (shares > 0).sum(axis=1).astype(np.float64)
    second, fourth = (z**2).sum(axis=1), (z**4).sum(axis=1)
    kurtosis = used * ratio(fourth, second**2)
    effective = ratio(np.ones(len(z)), (shares**2).sum(axis=1))
    most = np.minimum(used, effective) - 1
    # No influence at all: the number does not vary.
    spread = np.minimum(most, 2 * ratio(used, np.maximum(kurtosis - 1, 1e-9)))
    return np.asarray(np.where(second == 0, most, spread), dtype=np.float64)


def _spread(z: Floats, sample: Sample) -> tuple[Floats, Floats]:
    """(standard error, degrees of freedom) of a sum of influences. z: shape (values, buckets)."""
    shares = sample.shares(z.shape[1])
    used = (shares > 0).sum(axis=1)
    scaled = z / np.maximum(1 - shares, 0.1)
    variance = (scaled**2).sum(axis=1) * ratio(np.maximum(used - 1.0, 0.0), used.astype(np.float64))
    return np.sqrt(variance), _freedom(z, shares)


def _total_spread(x: Floats, sample: Sample) -> tuple[Floats, Floats]:
    """(standard error, degrees of freedom) of a total, given the number of units.

    Buckets hold a random number of units, so their totals vary by it too; that part, the square of the total over the
    number of units, is known and taken out.
    """
    buckets = x.shape[1]
    total = x.sum(axis=1)
    centred = x - total[:, None] / buckets
    shares = sample.shares(buckets)
    # Where buckets are empty the mean is over more of them than there are units; only those in use tell of the spread.
    freedom = _freedom(np.where(shares > 0, centred, 0.0), shares)
    variance = (centred**2).sum(axis=1) * buckets / (buckets - 1)
    if sample.given:
        variance = np.maximum(variance - total**2 / max(sample.units, 1), LEAST_VARIANCE * variance)
    return np.sqrt(variance), freedom


def _bounds(centre: Floats, error: Floats, freedom: Floats, sample: Sample, *, log: bool, shift: float = 0.0) -> Bounds:
    """centre -+ t x error; for log, centre is positive, error on the log scale, and shift is added at the end."""
    enough = (sample.used >= LEAST_BUCKETS) & (freedom >= LEAST_FREEDOM) & np.isfinite(error) & np.isfinite(centre)
    half = sample.quantile(freedom) * error
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (centre * np.exp(-half), centre * np.exp(half)) if log else (centre - half, centre + half)
    enough &= np.isfinite(low) & np.isfinite(high)
    return np.where(enough, low + shift, np.nan), np.where(enough, high + shift, np.nan)


def relative_error(measured: Measured, sample: Sample) -> Floats:
    """Standard error of a positive metric's logarithm, shape (values,); totals per unit. NaN without parts."""
    if measured.parts is None:
        return np.full(len(measured.value), np.nan)
    total = measured.kind in ("count", "sum")
    error, _ = _total_spread(measured.parts, sample) if total else _spread(measured.parts, sample)
    return np.abs(ratio(error, measured.value))


def interval(measured: Measured, sample: Sample) -> Bounds:
    """Of the metric itself, shape (values,) each; NaN where there is not enough data."""
    value = measured.value
    if measured.kind == "fact":
        return value, value
    if measured.draws is not None:
        return _drawn(value, measured.draws, sample)
    if measured.parts is None:
        return np.full(len(value), np.nan), np.full(len(value), np.nan)
    if measured.kind in ("count", "sum"):
        error, freedom = _total_spread(measured.parts, sample)
    else:
        error, freedom = _spread(measured.parts, sample)
    if measured.kind in ("count", "log"):
        return _bounds(np.where(value > 0, value, np.nan), ratio(error, value), freedom, sample, log=True)
    return _bounds(value, error, freedom, sample, log=False)


def absolute_interval(base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """Of candidate - baseline, paired by bucket."""
    change = candidate.value - base.value
    if base.kind == "fact":
        return change, change
    if base.draws is not None and candidate.draws is not None:
        return _drawn(change, candidate.draws - base.draws, sample)
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    z = candidate.parts - base.parts
    if base.kind in ("count", "sum"):
        error, freedom = _total_spread(z, sample)
    else:
        error, freedom = _spread(z, sample)
    return _bounds(change, error, freedom, sample, log=False)


def relative_interval(base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """Of (candidate - baseline) / |baseline|, paired by bucket."""
    ours, theirs = base.value, candidate.value
    change = ratio(theirs - ours, np.abs(ours))
    if base.kind == "fact":
        return change, change
    if base.draws is not None and candidate.draws is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = (candidate.draws - base.draws) / np.abs(base.draws)
        return _drawn(change, draws, sample)
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    if base.kind in ("count", "log"):
        usable = (ours > 0) & (theirs > 0)
        z = ratio(candidate.parts, theirs[:, None]) - ratio(base.parts, ours[:, None])
        error, freedom = _spread(z, sample)
        rate = np.where(usable, ratio(theirs, ours), np.nan)
        return _bounds(rate, error, freedom, sample, log=True, shift=-1.0)
    z = ratio(candidate.parts - base.parts * ratio(theirs, ours)[:, None], np.abs(ours)[:, None])
    error, freedom = _spread(z, sample)
    return _bounds(change, error, freedom, sample, log=False)


def step_interval(base: Measured, before: Measured, after: Measured, sample: Sample) -> Bounds:
    """Of (after - before) / |base|, a step on the way from the baseline, paired by bucket."""
    assert base.parts is not None
    assert before.parts is not None
    assert after.parts is not None
    size = np.abs(base.value)
    change = ratio(after.value - before.value, size)
    z = ratio(
        after.parts - before.parts - ratio(after.value - before.value, base.value)[:, None] * base.parts, size[:, None]
    )
    error, freedom = _spread(z, sample)
    return _bounds(change, error, freedom, sample, log=False)


def _drawn(value: Floats, draws: Floats, sample: Sample) -> Bounds:
    """value -+ t x the standard deviation over resamplings; NaN where a resampling is undefined."""
    error = np.full(len(value), draws.std(ddof=1) if np.isfinite(draws).all() else np.nan)
    return _bounds(value, error, sample.used - 1, sample, log=False)


def total_of(parts: Floats, value: Floats, *, signed: bool = False) -> Measured:
    """A sum over rows. parts: by bucket."""
    return Measured(value, parts, "sum" if signed else "count")


def fact_of(value: Floats) -> Measured:
    """How many rows of this log could not be used or known: no sample of anything."""
    return Measured(value, kind="fact")


def ratio_of(value: Floats, numerator: Floats, denominator: Floats, *, log: bool = True) -> Measured:
    """A ratio of two sums given by bucket, shape (values, buckets): influence (n_b - r d_b) / D. value: n / D."""
    whole = denominator.sum(axis=1, keepdims=True)
    unscaled = ratio(numerator.sum(axis=1, keepdims=True), whole)
    z = ratio(numerator - unscaled * denominator, whole)
    # A value in another unit than the plain ratio (1000 times it, one less) keeps the scale of its influence.
    return Measured(value, z, "log" if log else "linear")


def bucket_weights(buckets: int) -> Floats:
    """Weights of the buckets in each resampling, shape (DRAWS, buckets), mean 1: the Bayesian bootstrap (Rubin 1981).

    From a counter, not a generator's state: the same everywhere and for both policies.
    """
    counter = np.arange(1, DRAWS * buckets + 1, dtype=np.uint64)
    uniform = ((mix(counter * np.uint64(_STEP)) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    weights = -np.log(uniform).reshape(DRAWS, buckets)
    return np.asarray(weights / weights.mean(axis=1, keepdims=True))
