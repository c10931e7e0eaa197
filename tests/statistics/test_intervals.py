"""Intervals against textbook formulas and brute force: delta method, DeLong, the bootstrap, and what must be null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bidsim.statistics.auc import auc_influence
from bidsim.statistics.intervals import (
    Measured,
    Sample,
    absolute_interval,
    bucket_weights,
    interval,
    ratio_of,
    relative_interval,
    total_of,
)
from bidsim.statistics.units import KEPT, UnitCount, buckets_of, hash_texts, hash_whole

pa = pytest.importorskip("pyarrow")

RNG = np.random.default_rng(7)
BUCKETS = 256
WHOLE = [175, 193, 206, 32, 235]
TEXTS = [0, 4, 6, 118, 93, 44, 0]


def sample(rows: np.ndarray | None = None, units: int = 10**9) -> Sample:
    return Sample(0.95, np.ones((1, BUCKETS)) if rows is None else rows, units)


def test_a_mean_of_equal_buckets_has_the_textbook_interval() -> None:
    x = RNG.normal(10, 1, (1, BUCKETS))
    low, high = interval(ratio_of(x.mean(axis=1), x, np.ones_like(x), log=False), sample())
    half = stats.sem(x[0]) * stats.t.ppf(0.975, BUCKETS - 1)
    assert low[0] == pytest.approx(x.mean() - half, abs=2e-3)
    assert high[0] == pytest.approx(x.mean() + half, abs=2e-3)


def test_a_ratio_and_its_paired_change_are_the_bootstraps() -> None:
    size = RNG.lognormal(0, 0.5, (1, BUCKETS))
    spend = [size * RNG.normal(m, 0.2, (1, BUCKETS)) for m in (5, 5.5)]
    clicks = [RNG.poisson(20 * size) + 0.0, RNG.poisson(20 * size) + 0.0]
    policies = [ratio_of(s.sum(axis=1) / c.sum(axis=1), s, c) for s, c in zip(spend, clicks, strict=True)]
    weights = RNG.multinomial(BUCKETS, np.full(BUCKETS, 1 / BUCKETS), 4000)
    drawn = [(weights @ s[0]) / (weights @ c[0]) for s, c in zip(spend, clicks, strict=True)]
    low, high = relative_interval(*policies, sample())
    expected = np.quantile(drawn[1] / drawn[0] - 1, [0.025, 0.975])
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=0.006)
    low, high = absolute_interval(*policies, sample())
    expected = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=0.002)


def test_equal_policies_differ_by_exactly_nothing() -> None:
    x = RNG.poisson(9, (3, BUCKETS)) + 0.0
    many = Sample(0.95, np.ones((3, BUCKETS)), 1000)
    measured = total_of(x, x.sum(axis=1))
    for bounds in (absolute_interval(measured, measured, many), relative_interval(measured, measured, many)):
        assert [b.tolist() for b in bounds] == [[0.0] * 3, [0.0] * 3]


def test_auc_of_independent_rows_has_delongs_variance() -> None:
    labels = RNG.random(4000) < 0.2
    scores = RNG.normal(0, 1, 4000) + labels
    bucket = np.arange(4000) % BUCKETS
    won, lost, positives, rows = (np.zeros((1, BUCKETS)) for _ in range(4))
    above = scores[labels][:, None] > scores[~labels][None, :]
    np.add.at(won[0], bucket[labels], above.mean(axis=1))
    np.add.at(lost[0], bucket[~labels], 1 - above.mean(axis=0))
    # `lost` is the share of positives that score below a negative.
    np.add.at(positives[0], bucket[labels], 1.0)
    np.add.at(rows[0], bucket, 1.0)
    area = np.array([above.mean()])
    z = auc_influence(area, won, lost, positives, rows)
    delong = above.mean(axis=1).var(ddof=1) / labels.sum() + above.mean(axis=0).var(ddof=1) / (~labels).sum()
    low, high = interval(Measured(area, z), sample(rows))
    assert z.sum() == pytest.approx(0, abs=1e-9)
    assert (high[0] - low[0]) / 2 / 1.96 == pytest.approx(np.sqrt(delong), rel=0.12)


@pytest.mark.parametrize("filled", [0, 1, 4], ids=["no bucket", "one bucket", "four buckets"])
def test_too_few_units_have_no_interval(filled: int) -> None:
    x = np.zeros((1, BUCKETS))
    x[0, :filled] = 5.0 + np.arange(filled)
    low, high = interval(total_of(x, x.sum(axis=1)), sample(x, units=filled))
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_one_conversion_has_no_interval_and_thirty_have_one() -> None:
    spend = np.ones((2, BUCKETS))
    conversions = np.zeros((2, BUCKETS))
    conversions[0, 3] = 1.0
    conversions[1, :30] = 1.0
    many = Sample(0.95, np.ones((2, BUCKETS)), 10**6)
    low, high = interval(ratio_of(spend.sum(axis=1) / conversions.sum(axis=1), spend, conversions), many)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < BUCKETS / 30 < high[1]


def test_hashes_are_part_of_the_result_and_never_change() -> None:
    whole = buckets_of(hash_whole(np.array([0, 1, 2, -1, 2**62], dtype=np.int64)))
    texts = buckets_of(hash_texts(pa.array(["", "a", "b", "ab", "ba", "利用者", None])))
    assert whole.tolist() == WHOLE
    assert texts.tolist() == TEXTS


def test_buckets_are_even_for_ids_that_follow_each_other() -> None:
    counts = np.bincount(buckets_of(hash_whole(np.arange(256_000))), minlength=BUCKETS)
    assert stats.chisquare(counts).pvalue > 1e-4
    texts = pa.array([f"user-{i}" for i in range(51_200)])
    assert stats.chisquare(np.bincount(buckets_of(hash_texts(texts)), minlength=BUCKETS)).pvalue > 1e-4


def test_units_are_counted_exactly_then_closely_in_any_order() -> None:
    for distinct in (1, KEPT - 1, 200_000):
        hashes = hash_whole(np.arange(distinct))
        forward, backward = UnitCount(), UnitCount()
        for part in np.array_split(np.concatenate([hashes, hashes]), 7):
            forward.add(part)
        for part in np.array_split(hashes[::-1], 3):
            backward.add(part)
        assert forward.value() == backward.value()
        assert forward.value() == distinct if distinct < KEPT else abs(forward.value() / distinct - 1) < 0.06


def test_resampling_weights_are_fixed_positive_and_of_mean_one() -> None:
    weights = bucket_weights(BUCKETS)
    assert (weights > 0).all()
    assert weights.mean(axis=1) == pytest.approx(1.0)
    assert weights.std() == pytest.approx(1.0, abs=0.02)
    assert np.abs(np.corrcoef(weights[:, :40].T) - np.eye(40)).max() < 0.35
