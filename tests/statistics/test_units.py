"""Users and other units of the log: their hashes and buckets, how many there are, and how buckets are resampled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bidsim.statistics.resampling import bucket_weights
from bidsim.statistics.units import KEPT, UnitCount, buckets_of, hash_texts, hash_whole

pa = pytest.importorskip("pyarrow")

BUCKETS = 256
WHOLE = [175, 193, 206, 32, 235]
TEXTS = [0, 4, 6, 118, 93, 44, 0]


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
