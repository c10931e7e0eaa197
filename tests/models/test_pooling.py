"""Rows pooled by score give the fits of the rows themselves, in memory that does not grow with them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from bidsim import calibrate
from bidsim.models.pooling import Pool, Pooled
from bidsim.models.recalibration import fit_isotonic, fit_platt, recalibrate

Floats = NDArray[np.float64]
DRAW = np.random.default_rng(20261127)
ROWS = 30_000
# Many rows of one score, and many scores of one row.
P = np.where(DRAW.random(ROWS) < 0.5, DRAW.integers(1, 40, ROWS) / 100, DRAW.beta(1, 20, ROWS))
Y = (DRAW.random(ROWS) < np.minimum(1.0, 1.5 * P)).astype(float)
W = DRAW.integers(0, 4, ROWS).astype(float)


def pooled(batches: int, most: int = 1 << 18, order: NDArray[np.int64] | None = None) -> Pooled:
    pool = Pool(most)
    for part in np.array_split(np.arange(ROWS) if order is None else order, batches):
        pool.add(P[part], Y[part], W[part])
    return pool.pooled()


@pytest.mark.parametrize("batches", [1, 7, 400])
def test_rows_of_one_score_are_one_with_their_weight_and_mean_label(batches: int) -> None:
    found = pooled(batches)
    scores = np.unique(P[W > 0])
    np.testing.assert_array_equal(found.score, scores)
    place = np.searchsorted(scores, P[W > 0])
    weight = np.bincount(place, W[W > 0])
    np.testing.assert_array_equal(found.weight, weight)
    np.testing.assert_allclose(found.label, np.bincount(place, (W * Y)[W > 0]) / weight, rtol=1e-15)
    assert (found.rows, found.positives) == (ROWS, int(Y.sum()))


def test_fits_are_those_of_the_rows() -> None:
    found = pooled(7)
    ours, theirs = (fit_isotonic(*rows) for rows in ((P, Y, W), (found.score, found.label, found.weight)))
    np.testing.assert_allclose(recalibrate(P, [theirs]), recalibrate(P, [ours]), rtol=1e-13)
    one, other = (fit_platt(*rows) for rows in ((P, Y, W), (found.score, found.label, found.weight)))
    assert (other.slope, other.intercept) == pytest.approx((one.slope, one.intercept), rel=1e-9)


@pytest.mark.parametrize("most", [100, 3000])
def test_of_more_scores_neighbours_are_pooled_whatever_the_batches(most: int) -> None:
    found, again = pooled(3, most), pooled(200, most, DRAW.permutation(ROWS))
    assert most / 3 < len(found.score) <= most
    assert (np.diff(found.score) > 0).all()
    np.testing.assert_array_equal(again.weight, found.weight)
    np.testing.assert_allclose(again.score, found.score, rtol=1e-12)
    assert found.weight @ found.score == pytest.approx(W @ P, rel=1e-12)
    assert found.weight @ found.label == pytest.approx(W @ Y, rel=1e-12)
    one, other = fit_platt(P, Y, W), fit_platt(found.score, found.label, found.weight)
    assert other.slope == pytest.approx(one.slope, rel=0.02 if most == 100 else 1e-4)


def test_a_zero_with_a_sign_is_zero_and_no_row_is_nothing() -> None:
    pool = Pool()
    pool.add(np.array([0.0, -0.0]), np.array([0.0, 1.0]), np.ones(2))
    assert (pool.pooled().score.tolist(), pool.pooled().weight.tolist()) == ([0.0], [2.0])
    assert len(Pool().pooled().score) == 0


class Stream:
    """Four million rows of as many scores, a batch at a time."""

    def stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        for i in range(80):
            draw = np.random.default_rng(i)
            p = draw.random(50_000) / 20
            columns = {"p": p, "y": (draw.random(50_000) < p).astype(float), "w": np.ones(50_000)}
            yield pa.RecordBatch.from_pydict({name: pa.array(x) for name, x in columns.items()})


def test_calibration_holds_no_rows() -> None:
    engine: Any = Stream()
    tracemalloc.start()
    try:
        rows = calibrate._rows(engine, "facts", "p", "ctr")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows.rows == 4_000_000
    assert peak < 150e6  # the rows themselves: 96 MB, and twice that to put them together
