"""The bands of the reliability curve: what a bin's labels say of its rate, also where nearly all of them are positive."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from bidsim.statistics.bands import bands
from bidsim.statistics.calibration import Bins
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import ScoreGrid
from bidsim.statistics.units import BUCKETS

ROWS = 500


def of_counts(hits: list[int], confidence: float, *, weighted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Bands of bins of 500 rows each, a score each, whose rows are dealt to buckets."""
    rng = np.random.default_rng(20261126)
    positive, negative = (np.zeros((BUCKETS, len(hits))) for _ in range(2))
    for at, count in enumerate(hits):
        bucket = rng.integers(0, BUCKETS, ROWS)
        np.add.at(positive[:, at], bucket[:count], 1)
        np.add.at(negative[:, at], bucket[count:], 1)
    score = np.linspace(0.1, 0.9, len(hits))
    bins = Bins(np.full(len(hits), float(ROWS)), score, np.array(hits) / ROWS)
    rows = (positive + negative).sum(axis=1)[None, :]
    grid = ScoreGrid(negative, positive, score)
    return bands(bins, grid, Sample(confidence, rows, BUCKETS), weighted=weighted)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_bin_of_few_positives_or_few_negatives_has_the_exact_interval_of_a_share(confidence: float) -> None:
    few = [0, 3, 9, ROWS - 9, ROWS - 1, ROWS]
    found = np.array(of_counts(few, confidence)).T
    want = [binomtest(k, ROWS).proportion_ci(confidence, "exact") for k in few]
    np.testing.assert_allclose(found, [(w.low, w.high) for w in want], atol=1e-9)


def test_no_band_reaches_above_one_and_none_of_many_labels_differs_much_from_the_exact_one() -> None:
    hits = [20, 250, ROWS - 10]
    low, high = of_counts(hits, 0.95)
    assert (high <= 1).all()
    for k, lower, upper in zip(hits, low, high, strict=True):
        exact = binomtest(k, ROWS).proportion_ci(0.95, "exact")
        assert upper - lower == pytest.approx(min(exact.high, 1) - exact.low, rel=0.25)
    assert np.isnan(of_counts([3, ROWS - 3, ROWS], 0.95, weighted=True)).all()
