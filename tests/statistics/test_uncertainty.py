"""The uncertainty r (1 - r) of a base rate r near one half, where it hardly changes with r."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bidsim.statistics.calibration import uncertainty_of
from bidsim.statistics.intervals import absolute_interval, interval, relative_interval
from bidsim.statistics.measured import Measured, ratio_of
from bidsim.statistics.spread import Sample

Floats = npt.NDArray[np.float64]
BUCKETS = 256


def rate_of(rate: float, logs: int, units: int, seed: int) -> tuple[Measured, Sample]:
    """The observed rates of logs of four labels a unit."""
    rng = np.random.default_rng(seed)
    rows, labels = np.zeros((logs, BUCKETS)), np.zeros((logs, BUCKETS))
    for log in range(logs):
        bucket = rng.integers(0, BUCKETS, units)
        np.add.at(rows[log], bucket, 4.0)
        np.add.at(labels[log], bucket, rng.binomial(4, rate, units).astype(float))
    measured = ratio_of(labels.sum(axis=1) / rows.sum(axis=1), labels, rows, log=False)
    return measured, Sample(0.95, rows, units)


@pytest.mark.parametrize("rate", [0.5, 0.53, 0.55, 0.57])
def test_its_interval_holds_the_truth_also_where_one_half_of_the_labels_are_positive(rate: float) -> None:
    """First order alone holds it in 86% of the logs where the rate is a standard error or two from one half."""
    base, sample = rate_of(rate, 1000, 80, 41)
    low, high = interval(uncertainty_of(base), sample)
    assert np.mean((low <= rate * (1 - rate)) & (rate * (1 - rate) <= high)) > 0.94
    least, most = interval(base, sample)
    near = (least <= 0.5) & (most >= 0.5)
    assert near.sum() > 100
    assert (high >= 0.25)[near].all()
    assert (low <= least * (1 - least))[near].all()
    assert (low <= most * (1 - most))[near].all()


def test_where_one_half_is_far_first_order_says_all() -> None:
    base, sample = rate_of(0.2, 50, 80, 42)
    found = uncertainty_of(base)
    for end, plain in zip(interval(found, sample), interval(replace(found, turning=None), sample), strict=True):
        np.testing.assert_array_equal(end, plain)


def test_policies_that_are_judged_on_the_same_labels_differ_by_nothing() -> None:
    base, sample = rate_of(0.5, 20, 80, 43)
    for change in (absolute_interval, relative_interval):
        for end in change(uncertainty_of(base), uncertainty_of(replace(base)), sample):
            np.testing.assert_array_equal(end, np.zeros(20))


def test_a_rate_of_one_half_that_is_known_by_one_bucket_has_no_interval() -> None:
    """Of such a rate there is none; that its variance does not change with it says nothing."""
    rows = np.full((1, BUCKETS), 2.0)
    labels = np.full((1, BUCKETS), (BUCKETS - 2) / (BUCKETS - 1))
    labels[0, 0] = 2.0
    base = ratio_of(np.array([0.5]), labels, rows, log=False)
    sample = Sample(0.95, rows, BUCKETS)
    assert np.isnan(interval(base, sample)).all()
    assert np.isnan(interval(uncertainty_of(base), sample)).all()
