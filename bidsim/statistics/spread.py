"""How far an estimate may lie from the truth, from what each bucket of units adds to it: clustered, deterministic.

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
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bidsim.statistics.halves import STRATA
from bidsim.statistics.measured import Mean
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
class Weighing:
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
    def _weighings(self) -> dict[int, Weighing]:
        return {}

    @cached_property
    def intervals(self) -> dict[int, tuple[object, Bounds]]:
        """Of metrics that were asked for, by their identity, with the metric itself: a baseline's is asked for with every
        difference to it."""
        return {}

    def weighing(self, buckets: int) -> Weighing:
        """How so many buckets weigh; fewer buckets nest in more."""
        found = self._weighings.get(buckets)
        if found is None:
            grouped = self.rows.reshape(len(self.rows), buckets, self.rows.shape[1] // buckets).sum(axis=2)
            shares = ratio(grouped, grouped.sum(axis=1, keepdims=True))
            varies = shares**ALIKE
            effective = ratio(varies.sum(axis=1) ** 2, (varies**2).sum(axis=1))
            freedom = np.minimum(effective, (shares > 0).sum(axis=1)) - 1.0
            quantile = stdtrit(np.maximum(freedom, 1.0), 0.5 + self.confidence / 2)
            found = self._weighings[buckets] = Weighing(shares, freedom, quantile)
        return found

    def freedom(self, buckets: int) -> Floats:
        """Degrees of freedom of a variance from so many buckets, shape (values,)."""
        return self.weighing(buckets).freedom


Bounds = tuple[Floats, Floats]


@dataclass(frozen=True)
class Spread:
    """How far an estimate may lie from the truth, shape (values,) each.

    error: standard error; bend, shift: of Johnson's term, what is added to a quantile q on the side of the long tail,
    bend x q^2 + shift, positive where that is the upper one; carriers: how many buckets the error rests on in effect.
    """

    weighing: Weighing
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


def spread_of(means: Sequence[Mean], sample: Sample) -> Spread:
    """Of an estimate that is a sum of means. To second order a pair of buckets i, j moves it by minus the sum over means
    of influence_i share_j + share_i influence_j."""
    buckets = means[0].influence.shape[1]
    weighing = sample.weighing(buckets)
    z = np.asarray(sum(mean.influence for mean in means))
    if buckets == STRATA and not sample.given:
        # Half-samples leave no bucket out; what their halves differ by has no tail either, since its sign says nothing.
        square, none = z * z, np.zeros(len(z))
        return Spread(weighing, np.sqrt(square.sum(axis=1)), none, none, _carriers(square))
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
    return Spread(weighing, error, bend, shift, _carriers(square))


def total_spread(x: Floats, sample: Sample) -> Spread:
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
    return Spread(sample.weighing(buckets), error, skew / 3, skew / 6, _carriers(square))


def bounds_of(centre: Floats, spread: Spread, sample: Sample, *, log: bool, shift: float = 0.0) -> Bounds:
    """Around centre; for log, centre is positive, the spread on the log scale, and shift is added at the end."""
    error, freedom, quantile = spread.error, spread.weighing.freedom, spread.weighing.quantile
    enough = (sample.used >= LEAST_BUCKETS) & (freedom >= LEAST_FREEDOM) & (spread.carriers >= LEAST_CARRIERS)
    enough &= np.isfinite(error) & np.isfinite(centre)
    unseen = np.where(error > 0, 1 + TAIL_UNSEEN / np.maximum(freedom, 1.0), 0.0)
    bend, move = (np.where(unseen > 0, term * unseen, 0.0) for term in (spread.bend, spread.shift))
    below, above = (error * _length(quantile, b, m) for b, m in ((-bend, -move), (bend, move)))
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (centre * np.exp(-below), centre * np.exp(above)) if log else (centre - below, centre + above)
    enough &= np.isfinite(low) & np.isfinite(high)
    return np.where(enough, low + shift, np.nan), np.where(enough, high + shift, np.nan)


def _length(quantile: Floats, bend: Floats, shift: Floats) -> Floats:
    """How many standard errors one side is long: the quantile and its tail. Where bend and shift have opposite signs the
    tail may shrink faster than the quantile grows; a higher confidence never takes back what a lower one needs."""

    def length(q: Floats) -> Floats:
        return np.asarray(q + np.minimum(np.maximum(bend * (q * q) + shift, 0.0), (LONGEST - 1) * q))

    turns = (bend < 0) & (shift > 0)
    if not turns.any():
        return length(quantile)
    straight = np.where(turns, bend, -1.0)
    # The length turns at its peak, or before where the tail falls below the longest that it may be.
    peak = -1 / (2 * straight)
    falls = (LONGEST - 1 - np.sqrt((LONGEST - 1) ** 2 - 4 * straight * np.where(turns, shift, 0.0))) / (2 * straight)
    turn = np.minimum(np.maximum(peak, falls), quantile)
    return np.where(turns, np.maximum(length(quantile), length(turn)), length(quantile))


def standard_error(means: Sequence[Mean], sample: Sample) -> Floats:
    """Of a sum of means, shape (values,); NaN where too few buckets carry it for an interval."""
    spread = spread_of(means, sample)
    return np.where(
        np.isnan(bounds_of(np.zeros(len(spread.error)), spread, sample, log=False)[0]), np.nan, spread.error
    )
