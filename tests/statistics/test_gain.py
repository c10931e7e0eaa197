"""Gain curves from the grid of scores, against the rows themselves and against scikit-learn's AUC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bidsim.statistics.gain import captured, gain_curve, interval_of
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import ScoreGrid

BUCKETS = 64
CELLS = 40


def make_rows(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cell of the score, label, bucket) of each row; units of some ten rows are more alike than others."""
    rng = np.random.default_rng([20261126, seed])
    unit = rng.integers(0, n // 10, n)
    bucket = rng.integers(0, BUCKETS, n // 10)[unit]
    taste = rng.normal(0, 0.5, n // 10)[unit]
    cell = np.clip(rng.normal(15, 7, n) + 3 * taste, 0, CELLS - 1).astype(int)
    label = rng.random(n) < 0.02 * np.exp(0.08 * cell + 0.5 * taste) / 2
    return cell, label, bucket


def grid_of(cell: np.ndarray, label: np.ndarray, bucket: np.ndarray) -> ScoreGrid:
    counts = np.zeros((2, BUCKETS, CELLS))
    np.add.at(counts, (label.astype(int), bucket, cell), 1.0)
    return ScoreGrid(counts[0], counts[1], np.arange(CELLS) / CELLS)


def by_hand(cell: np.ndarray, label: np.ndarray, top: float) -> float:
    """Rows from the best score down; of the last score that is reached, as much of its labels as of its rows."""
    left, held = top * len(cell), 0.0
    for score in sorted(set(cell.tolist()), reverse=True):
        here = cell == score
        part = min(1.0, left / here.sum())
        held += part * label[here].sum()
        left -= part * here.sum()
        if left <= 1e-9:
            break
    return float(held / label.sum())


@pytest.mark.parametrize("top", [0.01, 0.1, 0.5, 1.0])
def test_the_best_rows_hold_what_counting_them_finds(top: float) -> None:
    cell, label, bucket = make_rows(1)
    found = captured(grid_of(cell, label, bucket), [top])
    assert found is not None
    assert found.share[0] == pytest.approx(by_hand(cell, label, top), rel=1e-12)


def test_the_area_below_the_curve_is_that_of_the_roc_curve() -> None:
    cell, label, bucket = make_rows(2)
    curve = gain_curve(grid_of(cell, label, bucket))
    assert curve is not None
    area = float(np.sum(np.diff(curve.rows) * (curve.positive[1:] + curve.positive[:-1]) / 2))
    rate = label.mean()
    assert area == pytest.approx(rate / 2 + (1 - rate) * roc_auc_score(label, cell), rel=1e-12)


def test_leaving_a_bucket_out_is_the_curve_of_the_other_rows() -> None:
    cell, label, bucket = make_rows(3)
    found = captured(grid_of(cell, label, bucket), [0.05, 0.3])
    assert found is not None
    for without in (0, 17, BUCKETS - 1):
        kept = bucket != without
        for at, top in enumerate((0.05, 0.3)):
            assert found.without[at, without] == pytest.approx(by_hand(cell[kept], label[kept], top), rel=1e-12)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """80 logs of the same market; with a chance of 95% each, fewer than 70 or all but never would be wrong."""
    rows = [make_rows(seed) for seed in range(100, 180)]
    truth = by_hand(*(np.concatenate([r[k] for r in rows]) for k in (0, 1)), 0.1)
    held = 0
    for cell, label, bucket in rows:
        grid = grid_of(cell, label, bucket)
        found = captured(grid, [0.1])
        assert found is not None
        sample = Sample(0.95, np.bincount(bucket, minlength=BUCKETS)[None, :].astype(float), 400)
        low, high = interval_of(found, grid, sample)
        held += bool(low[0] <= truth <= high[0])
    assert held >= 70


def test_two_predictions_of_the_same_rows_are_compared_in_pairs() -> None:
    """Their difference is surer than two logs would make it, and nothing for one and the same prediction."""
    cell, label, bucket = make_rows(4)
    near = np.clip(cell + np.random.default_rng(5).integers(-1, 2, len(cell)), 0, CELLS - 1)
    first, second = grid_of(cell, label, bucket), grid_of(near, label, bucket)
    found = [captured(g, [0.2]) for g in (first, second)]
    assert found[0] is not None
    assert found[1] is not None
    sample = Sample(0.95, np.bincount(bucket, minlength=BUCKETS)[None, :].astype(float), 400)
    widths = [np.subtract(*interval_of(f, first, sample)[::-1])[0] for f in (*found, found[1].minus(found[0]))]
    assert widths[2] < 0.8 * min(widths[:2])
    alike = found[0].minus(found[0])
    assert not alike.share.any()
    assert not alike.without.any()


def test_without_a_positive_label_there_is_no_curve() -> None:
    nothing = np.zeros((BUCKETS, CELLS))
    grid = ScoreGrid(nothing + 1, nothing, np.arange(CELLS) / CELLS)
    assert gain_curve(grid) is None
    assert captured(grid, [0.1]) is None


def test_a_single_label_has_a_share_and_no_interval() -> None:
    positive = np.zeros((BUCKETS, CELLS))
    positive[3, CELLS - 1] = 1.0
    grid = ScoreGrid(np.ones((BUCKETS, CELLS)), positive, np.arange(CELLS) / CELLS)
    found = captured(grid, [0.1])
    assert found is not None
    assert found.share[0] == 1.0
    sample = Sample(0.95, np.full((1, BUCKETS), float(CELLS)), 1000)
    assert np.isnan(interval_of(found, grid, sample)[0][0])
