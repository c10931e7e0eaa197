"""Two-sided intervals from sums by bucket of units: clustered, paired, deterministic.

A smooth metric is known by its influence: what each bucket adds to it to first order (the delta method; equally the
infinitesimal jackknife over groups). Deng, Knoblich, Lu (2018), "Applying the Delta Method in Metric Analytics";
Chamandy et al. (2012), "Estimating Uncertainty for Massive Data Streams". Positive metrics are taken on the log scale.
Differences use the difference of influences, so what both policies share cancels.

With few or uneven units three things are corrected. A bucket that holds much of the log pulls the estimate towards
itself, so its influence is scaled up by 1 / (1 - its share): the delete-one jackknife to second order (CV3 in
MacKinnon, Nielsen, Webb 2023, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference"; CR3 in
Bell, McCaffrey 2002). The t quantile's degrees of freedom are Satterthwaite's for buckets that weigh so unevenly (in
the spirit of the effective number of clusters of Carter, Schnepel, Steigerwald 2017). And where influences have a long
tail, an estimate that missed the tail has a small standard error too, so that symmetric intervals miss on one side:
that side is lengthened by Johnson's (1978, "Modified t tests and confidence intervals for asymmetrical populations")
term, with the curvature of ratios (Hall 1992, "The Bootstrap and Edgeworth Expansion"). The other side is not
shortened: that few buckets show no tail there is no proof. Below `LEAST_BUCKETS`, `LEAST_FREEDOM` or `LEAST_CARRIERS`
there is no interval at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bidsim.statistics.halves import STRATA
from bidsim.statistics.measured import Mean, Measured
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]

LEAST_BUCKETS = 5
LEAST_FREEDOM = 2.0
# The least number of buckets that a variance may rest on in effect; one that holds nearly all of it says nothing.
LEAST_CARRIERS = 1.5
# A bucket's variance grows with its share of the rows to a power between 1 (rows that have nothing in common) and 2
# (rows that are all alike); this one does for both (tests/benchmarks/coverage.py).
ALIKE = 1.25
# The skewness of n values falls short of their population's by about 1 + 13 / n (simulated: exponential values).
TAIL_UNSEEN = 13.0
# The long side is at most so many times longer than the other.
LONGEST = 2.0
# Of the variance of a total, at least this share is kept when the part that the number of units explains is taken out.
LEAST_VARIANCE = 0.02


@dataclass(frozen=True)
class _Weighing:
    """How a number of buckets weigh. shares: of the rows, shape (values, buckets); freedom: degrees of freedom of a
    variance from them, shape (values,): Satterthwaite's for buckets that weigh so unevenly; quantile: of t."""

    shares: Floats
    freedom: Floats
    quantile: Floats

    @cached_property
    def used(self) -> Floats:
        """1 for buckets with rows, else 0."""
        return np.asarray(self.shares > 0, dtype=np.float64)

    @cached_property
    def count(self) -> Floats:
        """Number of buckets with rows, shape (values,)."""
        return np.asarray(self.used.sum(axis=1))


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

    @cached_property
    def _weighings(self) -> dict[int, _Weighing]:
        return {}

    def weighing(self, buckets: int) -> _Weighing:
        """How so many buckets weigh; fewer buckets nest in more."""
        found = self._weighings.get(buckets)
        if found is None:
            grouped = self.rows.reshape(len(self.rows), buckets, self.rows.shape[1] // buckets).sum(axis=2)
            shares = ratio(grouped, grouped.sum(axis=1, keepdims=True))
            varies = shares**ALIKE
            effective = ratio(varies.sum(axis=1) ** 2, (varies**2).sum(axis=1))
            freedom = np.minimum(effective, (shares > 0).sum(axis=1)) - 1.0
            quantile = stdtrit(np.maximum(freedom, 1.0), 0.5 + self.confidence / 2)
            found = self._weighings[buckets] = _Weighing(shares, freedom, quantile)
        return found

    def freedom(self, buckets: int) -> Floats:
        """Degrees of freedom of a variance from so many buckets, shape (values,)."""
        return self.weighing(buckets).freedom


Bounds = tuple[Floats, Floats]


@dataclass(frozen=True)
class _Spread:
    """How far an estimate may lie from the truth, shape (values,) each.

    error: standard error; bend, shift: of Johnson's term, what is added to a quantile q on the side of the long tail,
    bend x q^2 + shift, positive where that is the upper one; carriers: how many buckets the error rests on in effect.
    """

    weighing: _Weighing
    error: Floats
    bend: Floats
    shift: Floats
    carriers: Floats


def _dot(x: Floats, y: Floats) -> Floats:
    """Sum over buckets of products, shape (values,)."""
    return np.asarray(np.einsum("vb,vb->v", x, y))


def _carriers(square: Floats) -> Floats:
    """square: of influences."""
    second = square.sum(axis=1)
    # No influence at all: the number does not vary.
    return np.asarray(np.where(second == 0, np.inf, ratio(second**2, _dot(square, square))))


def _spread(means: Sequence[Mean], sample: Sample) -> _Spread:
    """Of an estimate that is a sum of means. To second order a pair of buckets i, j moves it by minus the sum over means
    of influence_i share_j + share_i influence_j."""
    buckets = means[0].influence.shape[1]
    weighing = sample.weighing(buckets)
    z = np.asarray(sum(mean.influence for mean in means))
    if buckets == STRATA and not sample.given:
        # Half-samples leave no bucket out; what their halves differ by has no tail either, since its sign says nothing.
        square, none = z * z, np.zeros(len(z))
        return _Spread(weighing, np.sqrt(square.sum(axis=1)), none, none, _carriers(square))
    left_out = np.asarray(sum(mean.influence / np.maximum(1 - mean.share, 0.1) for mean in means))
    left_out = (left_out - ratio(left_out.sum(axis=1), weighing.count)[:, None]) * weighing.used
    square = left_out * left_out
    error = np.sqrt(square.sum(axis=1) * ratio(np.maximum(weighing.count - 1.0, 0.0), weighing.count))
    skew = ratio(_dot(square, left_out), error**3)
    curve, trace = np.zeros(len(z)), np.zeros(len(z))
    for mean in means:
        curve = curve - 2 * _dot(z, mean.influence) * _dot(z, mean.share)
        trace = trace - 2 * _dot(mean.influence, mean.share)
    curve, trace = ratio(curve, error**3), ratio(trace, error)
    bend, shift = skew / 3 + curve / 2, skew / 6 + (curve - trace) / 2
    return _Spread(weighing, error, bend, shift, _carriers(square))


def _total_spread(x: Floats, sample: Sample) -> _Spread:
    """Of a total, given the number of units. x: what each bucket adds.

    Buckets hold a random number of units, so their totals vary by it too; that part, which the mean of a unit and the
    number of units give, is known and taken out of the variance and the third moment.
    """
    buckets = x.shape[1]
    total = x.sum(axis=1)
    centred = x - total[:, None] / buckets
    square = centred * centred
    second, third = square.sum(axis=1) * buckets / (buckets - 1), _dot(square, centred)
    variance = second
    if sample.given:
        each = total / max(sample.units, 1)
        variance = np.maximum(second - total * each, LEAST_VARIANCE * second)
        third = third - 3 * each * second + 2 * total * each**2
    error = np.sqrt(variance)
    skew = ratio(third, error**3)
    if buckets == STRATA and not sample.given:
        skew = np.zeros(len(x))
    return _Spread(sample.weighing(buckets), error, skew / 3, skew / 6, _carriers(square))


def _bounds(centre: Floats, spread: _Spread, sample: Sample, *, log: bool, shift: float = 0.0) -> Bounds:
    """Around centre; for log, centre is positive, the spread on the log scale, and shift is added at the end."""
    error, freedom, quantile = spread.error, spread.weighing.freedom, spread.weighing.quantile
    enough = (sample.used >= LEAST_BUCKETS) & (freedom >= LEAST_FREEDOM) & (spread.carriers >= LEAST_CARRIERS)
    enough &= np.isfinite(error) & np.isfinite(centre)
    tail = np.where(error > 0, spread.bend * quantile**2 + spread.shift, 0.0)
    tail = tail * (1 + TAIL_UNSEEN / np.maximum(freedom, 1.0))
    most = (LONGEST - 1) * quantile
    below, above = (error * (quantile + np.clip(t, 0.0, most)) for t in (-tail, tail))
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (centre * np.exp(-below), centre * np.exp(above)) if log else (centre - below, centre + above)
    enough &= np.isfinite(low) & np.isfinite(high)
    return np.where(enough, low + shift, np.nan), np.where(enough, high + shift, np.nan)


def _linear(measured: Measured, sample: Sample) -> list[Mean]:
    """What a metric is made of, on its own scale."""
    assert measured.parts is not None
    if measured.means:
        return list(measured.means)
    if measured.kind in ("count", "sum"):
        return [Mean(measured.parts, np.zeros_like(measured.parts))]
    return [Mean(measured.parts, sample.weighing(measured.parts.shape[1]).shares)]


def _divided(means: Sequence[Mean], by: Floats, moves: Floats) -> list[Mean]:
    """Of the estimate divided by another. by: shape (values,); moves: influence on the divisor, relative to it."""
    return [Mean(ratio(m.influence, by[:, None]), m.share + moves) for m in means]


def _logarithm(measured: Measured, sample: Sample) -> list[Mean]:
    assert measured.parts is not None
    return _divided(_linear(measured, sample), measured.value, ratio(measured.parts, measured.value[:, None]) / 2)


def _negative(means: Sequence[Mean]) -> list[Mean]:
    return [Mean(-m.influence, m.share) for m in means]


def _own_spread(measured: Measured, sample: Sample, *, log: bool) -> _Spread:
    assert measured.parts is not None
    if measured.kind in ("count", "sum"):
        found = _total_spread(measured.parts, sample)
        if not log:
            return found
        error = ratio(found.error, measured.value)
        return replace(found, error=error, bend=found.bend - error / 2)
    return _spread((_logarithm if log else _linear)(measured, sample), sample)


def relative_error(measured: Measured, sample: Sample) -> Floats:
    """Standard error of a positive metric's logarithm, shape (values,); totals per unit. NaN without parts."""
    if measured.parts is None:
        return np.full(len(measured.value), np.nan)
    return np.abs(_own_spread(measured, sample, log=True).error)


def interval(measured: Measured, sample: Sample) -> Bounds:
    """Of the metric itself, shape (values,) each; NaN where there is not enough data."""
    value = measured.value
    if measured.kind == "fact":
        return value, value
    if measured.draws is not None:
        return _drawn_interval(measured, measured.draws, sample)
    if measured.parts is None:
        return np.full(len(value), np.nan), np.full(len(value), np.nan)
    log = measured.kind in ("count", "log")
    centre = np.where(value > 0, value, np.nan) if log else value
    return _bounds(centre, _own_spread(measured, sample, log=log), sample, log=log)


def _drawn_interval(measured: Measured, draws: Floats, sample: Sample) -> Bounds:
    """A root with a sign varies evenly where it is large and its square where it is small: the wider of both."""
    found = []
    for power in (1.0, 2.0) if measured.root else (1.0,):
        value, about, drawn = (_power(x, power) for x in (measured.value, np.array([measured.about]), draws))
        low, high = _drawn(value, drawn - about, sample)
        if measured.calibrated is not None:
            # Where zero can't be excluded it is the end.
            most = _drawn(np.zeros(1), -_power(measured.calibrated, power), sample)[1]
            low = np.where(value <= most, np.minimum(low, 0.0), low)
            # A distance is never negative; a root with a sign may be.
            low = low if measured.root else np.maximum(low, 0.0)
        found.append((_power(low, 1 / power), _power(high, 1 / power)))
    return np.minimum.reduce([f[0] for f in found]), np.maximum.reduce([f[1] for f in found])


def _power(x: Floats, power: float) -> Floats:
    return np.asarray(np.sign(x) * np.abs(x) ** power)


def absolute_interval(base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """Of candidate - baseline, paired by bucket."""
    change = candidate.value - base.value
    if base.kind == "fact":
        return change, change
    if base.draws is not None and candidate.draws is not None:
        errors = candidate.draws - candidate.about - (base.draws - base.about)
        return _apart(_drawn(change, errors, sample), base, candidate, sample)
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    if base.kind in ("count", "sum"):
        spread = _total_spread(candidate.parts - base.parts, sample)
    else:
        spread = _spread(_linear(candidate, sample) + _negative(_linear(base, sample)), sample)
    return _bounds(change, spread, sample, log=False)


def relative_interval(base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """Of (candidate - baseline) / |baseline|, paired by bucket."""
    ours, theirs = base.value, candidate.value
    change = ratio(theirs - ours, np.abs(ours))
    if base.kind == "fact":
        return change, change
    if base.draws is not None and candidate.draws is not None:
        if not interval(base, sample)[0][0] > 0:
            # Nothing to compare with: the baseline's may be zero.
            return np.full(len(change), np.nan), np.full(len(change), np.nan)
        errors = (candidate.draws - candidate.about) - theirs / ours * (base.draws - base.about)
        low, high = _apart(_drawn(change * ours, errors, sample), base, candidate, sample)
        return low / ours, high / ours
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    if base.kind in ("count", "log"):
        spread = _spread(_logarithm(candidate, sample) + _negative(_logarithm(base, sample)), sample)
        rate = np.where((ours > 0) & (theirs > 0), ratio(theirs, ours), np.nan)
        return _bounds(rate, spread, sample, log=True, shift=-1.0)
    return step_interval(base, base, candidate, sample)


def _apart(paired: Bounds, base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """The bounds of a difference of distances, not narrower than what each is known by itself, where one of them may be
    zero: there noise adds to each what it does not add to the other, and pairing takes out too much. Models that are
    the same differ by nothing whatever."""
    if base.calibrated is None or candidate.calibrated is None or (paired[0] == paired[1]).all():
        return paired
    (low, high), (other_low, other_high) = interval(base, sample), interval(candidate, sample)
    either = ~((low > 0) & (other_low > 0))
    return (
        np.where(either, np.minimum(paired[0], other_low - high), paired[0]),
        np.where(either, np.maximum(paired[1], other_high - low), paired[1]),
    )


def step_interval(base: Measured, before: Measured, after: Measured, sample: Sample) -> Bounds:
    """Of (after - before) / |base|, a step on the way from the baseline, paired by bucket."""
    assert base.parts is not None
    size = np.abs(base.value)
    change = ratio(after.value - before.value, size)
    steps = ratio(after.value - before.value, base.value)[:, None]
    means = _linear(after, sample) + _negative(_linear(before, sample))
    means += [Mean(-steps * m.influence, m.share) for m in _linear(base, sample)]
    means = _divided(means, size, ratio(base.parts, base.value[:, None]))
    return _bounds(change, _spread(means, sample), sample, log=False)


def _drawn(value: Floats, errors: Floats, sample: Sample) -> Bounds:
    """-+ t x the standard deviation of the resamplings' errors, around value and around value less their mean; NaN where
    a resampling is undefined. errors: by resampling, shape (draws,)."""
    known = np.isfinite(errors).all()
    bias, error = (errors.mean(), errors.std(ddof=1)) if known else (np.nan, np.nan)
    straight, many = np.zeros(len(value)), np.full(len(value), np.inf)
    spread = _Spread(sample.weighing(sample.rows.shape[1]), straight + error, straight, straight, many)
    low, high = _bounds(value, spread, sample, log=False)
    return low - max(bias, 0.0), high - min(bias, 0.0)
