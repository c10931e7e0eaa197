"""How far an estimate may lie from the truth, against the jackknife, textbook moments and Johnson's term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bidsim.statistics.auc import auc_of
from bidsim.statistics.intervals import interval, relative_error
from bidsim.statistics.measured import Measured, powers, ratio_of
from bidsim.statistics.spread import Sample, Spread, bounds_of, total_spread

Floats = npt.NDArray[np.float64]

BUCKETS = 256


def sample(rows: np.ndarray | None = None, units: int = 10**9) -> Sample:
    return Sample(0.95, np.ones((1, BUCKETS)) if rows is None else rows, units)


def test_a_total_of_so_many_units_varies_by_what_they_bring_and_not_by_where_they_fall() -> None:
    """Units bring exponential amounts: given their number, N of mean m total a variance of N m^2, a skewness of 2 N m^3."""
    rng = np.random.default_rng(29)
    number, logs = 2560, 2000
    counts = rng.multinomial(number, np.full(BUCKETS, 1 / BUCKETS), size=logs)
    half = 0.5  # an amount has the moments E[x] = 1/2, E[x^2] = 2/4, E[x^3] = 6/8
    amounts = np.where(counts > 0, half * rng.gamma(np.maximum(counts, 1)), 0.0)
    found = total_spread(amounts, Sample(0.95, np.ones((logs, BUCKETS)), number))
    assert np.mean(found.error**2) == pytest.approx(number * half**2, rel=0.02)
    assert np.mean(6 * found.shift * found.error**3) == pytest.approx(2 * number * half**3, rel=0.1)
    assert found.bend == pytest.approx(2 * found.shift)
    # Where their number explains nothing, as under a budget, buckets vary by it too: compound Poisson, N E[x^2], N E[x^3].
    free = total_spread(amounts, Sample(0.95, np.ones((logs, BUCKETS)), number, given=False))
    assert np.mean(free.error**2) == pytest.approx(2 * number * half**2, rel=0.02)
    assert np.mean(6 * free.shift * free.error**3) == pytest.approx(6 * number * half**3, rel=0.1)


def uneven(seed: int, buckets: int, spread: float, sums: int) -> list[Floats]:
    """Positive sums of buckets that weigh unevenly, and that vary beside their weight."""
    rng = np.random.default_rng(seed)
    weight = rng.lognormal(0, spread, (1, buckets))
    return [weight, *(weight * rng.lognormal(0, 0.1, (1, buckets)) for _ in range(sums))]


def delete_one(estimate: Callable[..., float], parts: Sequence[Floats]) -> float:
    """The standard error of the jackknife that leaves out one bucket after the other."""
    count = parts[0].shape[1]
    left = np.array([estimate(*(np.delete(p, b, axis=1).sum() for p in parts)) for b in range(count)])
    return float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))


@given(seed=st.integers(0, 2**32 - 1), buckets=st.integers(12, 64), spread=st.floats(0, 0.8))
def test_the_error_of_a_ratio_is_the_delete_one_jackknifes(seed: int, buckets: int, spread: float) -> None:
    rows, spend, clicks = uneven(seed, buckets, spread, 2)
    measured = ratio_of(spend.sum(axis=1) / clicks.sum(axis=1), spend, clicks)
    expected = delete_one(lambda s, c: float(np.log(s / c)), (spend, clicks))
    assert relative_error(measured, sample(rows))[0] == pytest.approx(expected, rel=0.03)


@given(seed=st.integers(0, 2**32 - 1), buckets=st.integers(20, 64), spread=st.floats(0, 0.5), power=st.floats(0.1, 0.9))
def test_the_error_at_a_matched_level_is_the_delete_one_jackknifes(
    seed: int, buckets: int, spread: float, power: float
) -> None:
    rows, results, goal, spend = uneven(seed, buckets, spread, 3)

    def cost(r: float, g: float, s: float) -> float:
        return float(np.log(g / (r * (g / s) ** power)))

    one = np.ones(1)
    means = powers(one, ((-one, results), (one - power, goal), (one * power, spend)))
    parts = np.asarray(sum(m.influence for m in means))
    assert parts.sum() == pytest.approx(0, abs=1e-9)
    expected = delete_one(cost, (results, goal, spend))
    found = relative_error(Measured(one, parts, "log", means=means), sample(rows))[0]
    # To second order: exact enough while no bucket holds more than about a fifth.
    assert found == pytest.approx(expected, rel=0.03)


def test_the_error_of_an_auc_is_the_delete_one_jackknifes() -> None:
    rng = np.random.default_rng(11)
    bucket = np.repeat(np.arange(12), rng.integers(20, 400, 12))
    labels = rng.random(len(bucket)) < rng.beta(2, 6, 12)[bucket]
    scores = rng.normal(0, 1, len(bucket)) + labels * rng.uniform(0.2, 1.5, 12)[bucket]
    above = np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            mine, theirs = scores[labels & (bucket == i)], scores[~labels & (bucket == j)]
            above[i, j] = (mine[:, None] > theirs[None, :]).sum()
    positives, rows = (np.bincount(bucket, w, 12)[None, :] for w in (labels.astype(float), np.ones(len(bucket))))
    negatives = rows - positives

    def area(kept: np.ndarray) -> float:
        return float(above[np.ix_(kept, kept)].sum() / (positives[0, kept].sum() * negatives[0, kept].sum()))

    left = np.log([area(np.delete(np.arange(12), b)) for b in range(12)])
    expected = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    # won, lost: shares of all negatives below, of all positives below.
    won = above.sum(axis=1, keepdims=True).T / negatives.sum()
    lost = negatives - above.sum(axis=0, keepdims=True) / positives.sum()
    measured = auc_of(np.array([area(np.arange(12))]), won, lost, positives, rows)
    measured = replace(measured, kind="log")
    assert relative_error(measured, sample(rows))[0] == pytest.approx(expected, rel=0.05)


def test_the_side_of_a_long_tail_is_lengthened_by_johnsons_term_and_the_other_kept() -> None:
    x = np.random.default_rng(4).exponential(1.0, (1, 40))
    rows = np.full((1, 256), 0.0)
    rows[:, :40] = 1.0
    sums = np.zeros((1, 256))
    sums[:, :40] = x
    low, high = interval(ratio_of(x.mean(axis=1), sums, rows, log=False), sample(rows))
    error, skew, t = stats.sem(x[0]), stats.skew(x[0], bias=False) / np.sqrt(40), stats.t.ppf(0.975, 39)
    longer = skew * (t**2 / 3 + 1 / 6) * (1 + 13 / 39)
    # To the order of the mean's own terms; an average's own curvature is a fortieth of it.
    assert x.mean() - low[0] == pytest.approx(error * t, rel=0.05)
    assert high[0] - x.mean() == pytest.approx(error * (t + longer), rel=0.08)
    mirrored = interval(ratio_of(-x.mean(axis=1), -sums, rows, log=False), sample(rows))
    assert (-mirrored[1][0], -mirrored[0][0]) == pytest.approx((low[0], high[0]))


@given(seed=st.integers(0, 2**32 - 1), buckets=st.integers(5, 256), spread=st.floats(0, 3.0))
def test_freedom_is_all_buckets_but_one_where_they_weigh_alike_and_less_where_not(
    seed: int, buckets: int, spread: float
) -> None:
    rows = np.zeros((2, BUCKETS))
    rows[0, :buckets] = 3.0
    rows[1, :buckets] = np.random.default_rng(seed).lognormal(0, spread, buckets)
    even, other = sample(rows).freedom(BUCKETS)
    assert even == pytest.approx(buckets - 1)
    assert -1e-9 <= other <= even + 1e-9


@pytest.mark.parametrize(
    ("bend", "shift"), [(-0.3, 0.9), (-1.0, 3.0), (-0.02, 0.5), (0.3, -0.4), (0.2, 0.1), (-0.2, -0.1)]
)
def test_an_interval_of_more_confidence_holds_that_of_less_whatever_its_tail(bend: float, shift: float) -> None:
    ends = []
    for confidence in np.linspace(0.5, 0.999, 200):
        sample = Sample(float(confidence), np.ones((1, 256)), 1000)
        one = np.ones(1)
        spread = Spread(sample.weighing(256), 0.1 * one, bend * one, shift * one, np.inf * one)
        ends.append([float(end[0]) for end in bounds_of(np.zeros(1), spread, sample, log=False)])
    low, high = np.array(ends).T
    assert (np.diff(low) <= 1e-12).all()
    assert (np.diff(high) >= -1e-12).all()
