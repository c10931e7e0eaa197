"""Two-sided intervals from sums by bucket of units: clustered, paired, deterministic.

A smooth metric is known by its influence: what each bucket adds to it to first order (the delta method; equally the
infinitesimal jackknife over groups). Deng, Knoblich, Lu (2018), "Applying the Delta Method in Metric Analytics";
Chamandy et al. (2012), "Estimating Uncertainty for Massive Data Streams". Positive metrics are taken on the log scale.
Differences use the difference of influences, so what both policies share cancels. How an influence becomes a spread, and
a spread an interval, is in `spread`. What noise adds to is resampled (`resampling`) or reckoned (`binned`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from bidsim.statistics.halves import STRATA
from bidsim.statistics.measured import Mean, Measured, Noise, Turning
from bidsim.statistics.spread import LEAST_BUCKETS, Bounds, Sample, Spread, bounds_of, spread_of, total_spread
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Of an influence that is none, relative to the metric.
ROUNDING = 1e-12


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


def _less(means: Sequence[Mean], others: Sequence[Mean]) -> list[Mean]:
    """Of a difference; each beside its counterpart, so that what is the same goes out to the last bit."""
    pairs = zip_longest(means, _negative(others))
    return [mean for pair in pairs for mean in pair if mean is not None]


def _own_spread(measured: Measured, sample: Sample, *, log: bool) -> Spread:
    assert measured.parts is not None
    if measured.kind in ("count", "sum"):
        found = total_spread(measured.parts, sample)
        if not log:
            return found
        error = ratio(found.error, measured.value)
        return replace(found, error=error, bend=found.bend - error / 2)
    return spread_of((_logarithm if log else _linear)(measured, sample), sample)


def lone(measured: Measured, sample: Sample) -> Bools:
    """Where a ratio has no spread and fewer buckets than an interval needs hold what it divides by: a single win costs
    what it costs, in whatever bucket it lies, and that says nothing of the next one. Half-samples don't tell how many
    hold it, so that there no spread is no knowledge. Shape (values,)."""
    if measured.kind not in ("log", "linear") or measured.parts is None or not measured.means:
        return np.zeros(len(measured.value), dtype=bool)
    size = np.abs(measured.value)[:, None]
    still = (np.abs(sum(mean.influence for mean in measured.means)) <= ROUNDING * size).all(axis=1)
    if _halved(measured.parts, sample):
        return np.asarray(still)
    held = np.min([(mean.share != 0).sum(axis=1) for mean in measured.means], axis=0)
    return np.asarray(still & (held < LEAST_BUCKETS))


def _halved(parts: Floats, sample: Sample) -> bool:
    return not sample.given and parts.shape[1] == STRATA


def _hidden_change(base: Measured, candidate: Measured, sample: Sample) -> Bools:
    """Where nothing is known of how a change varies: one of both is known by a single bucket, as it were, or half-samples
    leave out what changes; unless nothing tells both apart."""
    assert base.parts is not None
    assert candidate.parts is not None
    change = candidate.value - base.value
    if base.kind in ("count", "sum"):
        if not _halved(base.parts, sample):
            return np.zeros(len(change), dtype=bool)
        moves = np.ptp(candidate.parts - base.parts, axis=1)
        return np.asarray((change != 0) & (moves <= ROUNDING * np.abs(base.value)))
    either = lone(base, sample) | lone(candidate, sample)
    return np.asarray(either & ~((change == 0) & (base.parts == candidate.parts).all(axis=1)))


def without(bounds: Bounds, unknown: Bools) -> Bounds:
    """No interval where it is unknown."""
    low, high = (np.where(unknown, np.nan, end) for end in bounds)
    return low, high


def relative_error(measured: Measured, sample: Sample) -> Floats:
    """Standard error of a positive metric's logarithm, shape (values,); totals per unit. NaN without parts."""
    if measured.parts is None:
        return np.full(len(measured.value), np.nan)
    return np.abs(_own_spread(measured, sample, log=True).error)


def interval(measured: Measured, sample: Sample) -> Bounds:
    """Of the metric itself, shape (values,) each; NaN where there is not enough data."""
    if id(measured) not in sample.intervals:
        bounds = _interval(measured, sample)
        found = bounds if measured.extreme is None else without(bounds, measured.extreme)
        sample.intervals[id(measured)] = measured, found
    return sample.intervals[id(measured)][1]


def _interval(measured: Measured, sample: Sample) -> Bounds:
    value = measured.value
    if measured.kind == "fact":
        return value, value
    if measured.draws is not None:
        return _drawn_interval(measured, measured.draws, sample)
    if measured.noise is not None:
        return _noisy_interval(measured, measured.noise, sample)
    if measured.parts is None:
        return np.full(len(value), np.nan), np.full(len(value), np.nan)
    log = measured.kind in ("count", "log")
    centre = np.where(value > 0, value, np.nan) if log else value
    bounds = bounds_of(centre, _own_spread(measured, sample, log=log), sample, log=log)
    return bounds if measured.turning is None else _turned(bounds, measured.turning, sample)


def _turned(bounds: Bounds, turning: Turning, sample: Sample) -> Bounds:
    """Where the other metric may be at the turn, the interval also holds what all of its interval is mapped to. Where
    nothing is known of the other one, no width at the turn is no knowledge."""
    low, high = interval(turning.of, sample)
    turn = np.full(len(low), turning.turn)
    mapped = [turning.by(at) for at in (low, high, turn)]
    near = (low <= turn) & (turn <= high)
    bounds = without(bounds, np.isnan(low) & (bounds[0] == bounds[1]))
    return (
        np.where(near, np.fmin(bounds[0], np.minimum.reduce(mapped)), bounds[0]),
        np.where(near, np.fmax(bounds[1], np.maximum.reduce(mapped)), bounds[1]),
    )


def _drawn_interval(measured: Measured, draws: Floats, sample: Sample) -> Bounds:
    """A root with a sign varies evenly where it is large and its square where it is small: the wider of both."""
    found = []
    for power in (1.0, 2.0) if measured.root else (1.0,):
        value, about, drawn = (_power(x, power) for x in (measured.value, np.array([measured.about]), draws))
        bounds = _drawn(value, drawn - about, sample)
        if measured.calibrated is not None:
            most = _drawn(np.zeros(1), -_power(measured.calibrated, power), sample)[1]
            bounds = _to_zero(value, bounds, most, signed=measured.root)
        found.append([_power(end, 1 / power) for end in bounds])
    return np.minimum.reduce([f[0] for f in found]), np.maximum.reduce([f[1] for f in found])


def _noisy_interval(measured: Measured, noise: Noise, sample: Sample) -> Bounds:
    """As `_drawn_interval`, of values whose noise is reckoned."""
    sample = replace(sample, rows=noise.rows)
    found = []
    for power, known in ((1.0, noise), (2.0, noise.squared)):
        if known is None:
            continue
        value = _power(measured.value, power)
        bounds = _lifted(value, known.bias, _noisy_error(known, sample), sample)
        if known.idle_bias is not None and known.idle_error is not None:
            most = _lifted(np.zeros(len(value)), -known.idle_bias, known.idle_error, sample)[1]
            bounds = _to_zero(value, bounds, most, signed=measured.root)
        found.append([_power(end, 1 / power) for end in bounds])
    low, high = np.minimum.reduce([f[0] for f in found]), np.maximum.reduce([f[1] for f in found])
    # But for the root none of these metrics may be negative.
    return low if measured.root else np.maximum(low, 0.0), high


def _noisy_error(noise: Noise, sample: Sample) -> Floats:
    error = np.hypot(spread_of(noise.means, sample).error, noise.rest)
    return error if noise.other is None else np.minimum(error, _noisy_error(noise.other, sample))


def _to_zero(value: Floats, bounds: Bounds, most: Floats, *, signed: bool) -> Bounds:
    """Where zero can't be excluded it is the end. most: that noise alone would show; signed: whether the metric may be
    negative, as a distance is not."""
    low = np.where(value <= most, np.minimum(bounds[0], 0.0), bounds[0])
    return low if signed else np.maximum(low, 0.0), bounds[1]


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
    if base.noise is not None and candidate.noise is not None:
        paired = _noisy_change(change, base.noise, candidate.noise, np.ones(len(change)), sample)
        return _apart(paired, base, candidate, sample)
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    if base.kind in ("count", "sum"):
        spread = total_spread(candidate.parts - base.parts, sample)
    else:
        spread = spread_of(_less(_linear(candidate, sample), _linear(base, sample)), sample)
    return without(bounds_of(change, spread, sample, log=False), _hidden_change(base, candidate, sample))


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
    if base.noise is not None and candidate.noise is not None:
        return _noisy_ratio(base, candidate, base.noise, candidate.noise, sample)
    if base.parts is None or candidate.parts is None:
        return np.full(len(change), np.nan), np.full(len(change), np.nan)
    if base.kind in ("count", "log"):
        spread = spread_of(_less(_logarithm(candidate, sample), _logarithm(base, sample)), sample)
        rate = np.where((ours > 0) & (theirs > 0), ratio(theirs, ours), np.nan)
        return without(bounds_of(rate, spread, sample, log=True, shift=-1.0), _hidden_change(base, candidate, sample))
    # Nothing to compare with where the baseline's may be zero, as a surplus may, or less than half of what it seems: a
    # quotient is not linear there, and of many that are small the few that seem clear of zero are so by luck.
    least, most = interval(base, sample)
    low, high = step_interval(base, base, candidate, sample)
    nothing = ~np.where(ours > 0, least > ours / 2, most < ours / 2) & (low != high)
    return without((low, high), nothing)


def _noisy_change(change: Floats, base: Noise, candidate: Noise, times: Floats, sample: Sample) -> Bounds:
    """Of candidate - times x baseline. What sums by bucket tell is paired; of the rest it is not known how it goes together,
    so that it counts as independent, or as opposite where bins say so."""
    sample = replace(sample, rows=base.rows)
    same = (change == 0) & (candidate.rest == base.rest) & (candidate.bias == base.bias)
    for ours, theirs in zip(base.means, candidate.means, strict=True):
        same &= (ours.influence == theirs.influence).all(axis=1)
    error = _change_error(base, candidate, times, sample)
    if base.other is not None and candidate.other is not None:
        error = np.minimum(error, _change_error(base.other, candidate.other, times, sample))
    bias = candidate.bias - times * base.bias
    return _lifted(change, np.where(same, 0.0, bias), np.where(same, 0.0, error), sample)


def _change_error(base: Noise, candidate: Noise, times: Floats, sample: Sample) -> Floats:
    means = [*candidate.means, *(Mean(-times[:, None] * m.influence, m.share) for m in base.means)]
    together = times * np.einsum("vk,vk->v", candidate.by_bin, base.by_bin)
    rest = candidate.rest**2 + (times * base.rest) ** 2 + 2 * np.maximum(-together, 0.0)
    return np.asarray(np.sqrt(spread_of(means, sample).error ** 2 + rest))


def _noisy_ratio(base: Measured, candidate: Measured, ours: Noise, theirs: Noise, sample: Sample) -> Bounds:
    """Of the relative change, NaN where the baseline's may be zero. Where it is known badly a quotient is not linear, and
    the baselines that are seen apart from zero are too large: the interval holds what both are by themselves."""
    (low, high), (other_low, other_high) = interval(base, sample), interval(candidate, sample)
    value = np.where(low > 0, base.value, np.nan)
    paired = _noisy_change(candidate.value - value, ours, theirs, ratio(candidate.value, value), sample)
    found = [ratio(end, value) for end in _apart(paired, base, candidate, sample)]
    badly = (low < value / 2) & (found[0] != found[1])
    apart = (
        np.minimum(ratio(other_low, low), ratio(other_low, high)),
        np.maximum(ratio(other_high, low), ratio(other_high, high)),
    )
    return (
        np.where(badly, np.minimum(found[0], apart[0] - 1), found[0]),
        np.where(badly, np.maximum(found[1], apart[1] - 1), found[1]),
    )


def _apart(paired: Bounds, base: Measured, candidate: Measured, sample: Sample) -> Bounds:
    """The bounds of a difference of distances, not narrower than what each is known by itself, where one of them may be
    zero: there noise adds to each what it does not add to the other, and pairing takes out too much. Models that are
    the same differ by nothing whatever."""
    for one in (base, candidate):
        if one.calibrated is None and (one.noise is None or one.noise.idle_error is None):
            return paired
    (low, high), (other_low, other_high) = interval(base, sample), interval(candidate, sample)
    either = ~((low > 0) & (other_low > 0)) & (paired[0] != paired[1])
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
    means = _less(_linear(after, sample), _linear(before, sample))
    means += [Mean(-steps * m.influence, m.share) for m in _linear(base, sample)]
    means = _divided(means, size, ratio(base.parts, base.value[:, None]))
    return without(
        bounds_of(change, spread_of(means, sample), sample, log=False), _hidden_change(before, after, sample)
    )


def _drawn(value: Floats, errors: Floats, sample: Sample) -> Bounds:
    """-+ t x the standard deviation of the resamplings' errors, around value and around value less their mean; NaN where
    a resampling is undefined. errors: by resampling, shape (draws,)."""
    known = np.isfinite(errors).all()
    bias, error = (errors.mean(), errors.std(ddof=1)) if known else (np.nan, np.nan)
    still = np.zeros(len(value))
    return _lifted(value, still + bias, still + error, sample)


def _lifted(value: Floats, bias: Floats, error: Floats, sample: Sample) -> Bounds:
    """-+ t x error around value and around value less what noise lifts it by."""
    straight, many = np.zeros(len(value)), np.full(len(value), np.inf)
    spread = Spread(sample.weighing(sample.rows.shape[1]), error, straight, straight, many)
    low, high = bounds_of(value, spread, sample, log=False)
    return low - np.maximum(bias, 0.0), high - np.minimum(bias, 0.0)
