"""A metric as its interval needs it: the value, and what each bucket of units adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]
Kind = Literal["count", "sum", "log", "linear", "fact"]


@dataclass(frozen=True)
class Mean:
    """A part of a metric that divides a sum by another, shape (values, buckets) each. influence: what each bucket adds to
    first order; share: each bucket's share of what is divided by, which its own influence grows with."""

    influence: Floats
    share: Floats


@dataclass(frozen=True)
class Noise:
    """What is known, by segment value, of the error of a metric that noise adds to and that is no smooth function of sums;
    shape (values,) each.

    bias: by how much noise lifts the metric on average; means: the part of its error that sums by bucket tell, as
    influence; rest: standard error of what they do not tell, NaN where too little is known; by_bin: of that the part that
    follows the labels of each bin, shape (values, bins): two policies see the same labels, and where their errors go in
    opposite directions the difference knows. idle_bias, idle_error: of a perfectly calibrated model, for what is zero
    there. rows: labelled rows by bucket. squared: the same of the metric's square with its sign, for a root. other: another
    account of the same error; the narrower one holds.
    """

    bias: Floats
    means: tuple[Mean, ...]
    rest: Floats
    by_bin: Floats
    rows: Floats
    idle_bias: Floats | None = None
    idle_error: Floats | None = None
    squared: Noise | None = None
    other: Noise | None = None


@dataclass(frozen=True)
class Turning:
    """That a metric is a function of another one and has its only extreme at `turn`, where first order says that it does
    not vary. by: the function, from shape (values,) to the same."""

    of: Measured
    by: Callable[[Floats], Floats]
    turn: float


@dataclass(frozen=True)
class Measured:
    """A metric of one policy in one family of segments.

    value: shape (values,), NaN where undefined. parts: what each bucket of units adds, shape (values, buckets): for
    the kinds "count" and "sum" the bucket's own total (a count is never negative, a sum may be), for "log" and
    "linear" the influence on the value, which sums to zero over buckets. Log: positive, judged on the log scale. A
    "fact" is about this log and no other: its interval is the value itself.
    means: what the parts of "log" and "linear" add up from; without them they are one mean over rows.
    draws: for metrics that are not smooth, the metric in each resampling of the buckets, shape (DRAWS,), one value only;
    about: its value in the population that the resamplings are of; calibrated: resamplings where it would be zero; root:
    whether it is a root with a sign. noise: what stands in for the resamplings where there is more than one value.
    unseen: by segment value, whether the spread of its change against the baseline is unknown, see `is_unseen`; exact: the
    value that the parts are about, where rows are too coarse to give it. extreme: by segment value, whether it could not be
    higher, or lower, or all labels are alike, or half-samples leave all of it out, so that it has less spread in this log
    than in the next, or none. turning: what it is a function of, where parts may say too little.
    """

    value: Floats
    parts: Floats | None = None
    kind: Kind = "linear"
    draws: Floats | None = None
    about: float = 0.0
    calibrated: Floats | None = None
    root: bool = False
    means: tuple[Mean, ...] = ()
    noise: Noise | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    exact: Floats | None = None
    extreme: npt.NDArray[np.bool_] | None = None
    turning: Turning | None = None


# So many results expected of what two policies decide differently, and none seen, are too many to ignore.
UNSEEN = 0.5


def is_unseen(results: Floats, money: Floats, rate: Floats, weight: Floats) -> npt.NDArray[np.bool_]:
    """Whether money that moved should have moved results, and moved none: a spread of zero would be no knowledge. Where
    none ever brought any, nobody knows how many to expect.

    results, money: changes by bucket, shape (values, buckets), results with what the level's own sampling adds, which is
    far below one; rate: results per currency, weight: of a row, shape (values,). In a log of weights above 1 those are of
    rows without a result, so that one counts at most 1.
    """
    weight = np.minimum(weight, 1.0)
    moved = np.abs(money).sum(axis=1)
    many = (moved * ratio(rate, weight) >= UNSEEN) | ((rate == 0) & (moved > 0))
    return np.asarray(((results**2).sum(axis=1) < UNSEEN * weight**2) & many)


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
    return Measured(value, z, "log" if log else "linear", means=(Mean(z, ratio(denominator, whole)),))


def powers(value: Floats, factors: Sequence[tuple[Floats, Floats]]) -> tuple[Mean, ...]:
    """What a product of powers of sums is made of. value: shape (values,); factors: exponents, shape (values,), and sums
    by bucket, shape (values, buckets)."""
    shares = [ratio(sums, sums.sum(axis=1, keepdims=True)) for _, sums in factors]
    z = np.asarray(sum(exponent[:, None] * share for (exponent, _), share in zip(factors, shares, strict=True)))
    # On the log scale a sum's own curvature is half its share; the logarithm of the product adds half of z to each.
    return tuple(
        Mean(value[:, None] * exponent[:, None] * share, (share - z) / 2)
        for (exponent, _), share in zip(factors, shares, strict=True)
    )
