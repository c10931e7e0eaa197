"""The learners take the steps that their papers define, row by row or a few rows at once, and the metrics are right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from bidsim.models import Feature, HashedSpec, hash_matrix
from bidsim.models.columns import HashCache, table_columns
from bidsim.models.hashed import hash_cells
from bidsim.models.manifest import FactorizationSpec
from bidsim.training.curve import MOST_ROUNDS, round_of, thinned
from bidsim.training.examples import Examples, Part, Sample
from bidsim.training.hyperparameters import Common, FactorizationMachine, HashedLogistic
from bidsim.training.logistic import LogisticLearner
from bidsim.training.machines import MachineLearner
from bidsim.training.measuring import Measuring, measure
from bidsim.training.problem import Problem
from bidsim.training.streaming import Cells

FEATURES = (Feature(name="a", type="categorical"), Feature(name="b", type="list"), Feature(name="x", type="numeric"))
ROWS = 120
RATE = 0.2


def cells_of(table: pa.Table, spec: HashedSpec) -> Cells:
    row, index, value = hash_cells(table_columns(table, FEATURES), spec)
    order = np.argsort(row, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=table.num_rows))])
    return Cells(starts, row[order], index[order], value[order])


def some_rows(seed: int = 1) -> tuple[pa.Table, Any, Any]:
    draw = np.random.default_rng(seed)
    table = pa.table(
        {
            "a": draw.integers(0, 6, ROWS),
            "b": [",".join(map(str, draw.integers(0, 9, draw.integers(0, 4)))) for _ in range(ROWS)],
            "x": draw.normal(size=ROWS),
        }
    )
    return table, (draw.random(ROWS) < 0.3).astype(float), draw.choice([1.0, 3.0], ROWS)


def problem(hyper: Common) -> Problem:
    files = (Part(path="part", rows=ROWS, bytes=0, sha256="0" * 64),)
    sample = Sample(rows=ROWS, positives=1, weight=1.0, positive_weight=1.0, negatives_kept=1.0, files=files)
    return Problem("ctr", hyper, Examples(Path(), "ctr", sample, {}), FEATURES, ROWS, RATE, {})


def test_one_row_at_a_time_is_algorithm_1_of_mcmahan() -> None:
    hyper = HashedLogistic(bits=8, learning_rate=0.3, beta=0.7, l1=0.05, l2=0.4)
    spec = HashedSpec(bits=8, features=("a", "b", "x"))
    table, label, weight = some_rows()
    weight = np.ones(ROWS)
    cells = cells_of(table, spec)
    learner = LogisticLearner(problem(hyper), spec, hyper)
    # The naive one, in words of the paper: per coordinate i, z_i and n_i.
    z: dict[int, float] = {}
    n: dict[int, float] = {}
    bias, squares = math.log(RATE / (1 - RATE)), 0.0
    matrix = hash_matrix(table, spec, FEATURES)
    for t in range(ROWS):
        x = {int(i): float(v) for i, v in zip(matrix[t].indices, matrix[t].data, strict=True)}
        w = {}
        for i in x:
            zi, ni = z.get(i, 0.0), n.get(i, 0.0)
            sign = math.copysign(1, zi)
            shrunk = 0.0 if abs(zi) <= 0.05 else zi - sign * 0.05
            w[i] = -shrunk / ((0.7 + math.sqrt(ni)) / 0.3 + 0.4)
        p = 1 / (1 + math.exp(-(bias + sum(w[i] * v for i, v in x.items()))))
        got = learner.step(cells.slice(t, t + 1), label[t : t + 1], weight[t : t + 1])
        assert got[0] == pytest.approx(p, rel=1e-9)
        for i, v in x.items():
            g = (p - label[t]) * v
            sigma = (math.sqrt(n.get(i, 0.0) + g * g) - math.sqrt(n.get(i, 0.0))) / 0.3
            z[i] = z.get(i, 0.0) + g - sigma * w[i]
            n[i] = n.get(i, 0.0) + g * g
        squares += (p - label[t]) ** 2
        bias -= 0.3 * (p - label[t]) / (0.7 + math.sqrt(squares))
    assert len(z) > 10


def test_a_weight_of_three_is_three_rows() -> None:
    hyper = HashedLogistic(bits=8)
    spec = HashedSpec(bits=8, features=("a", "x"))
    table, label, _ = some_rows()
    once, thrice = LogisticLearner(problem(hyper), spec, hyper), LogisticLearner(problem(hyper), spec, hyper)
    once.step(cells_of(table, spec), label, np.full(ROWS, 3.0))
    repeated = pa.concat_tables([table] * 3)
    thrice.step(cells_of(repeated, spec), np.tile(label, 3), np.ones(3 * ROWS))
    for name, values in once.arrays().items():
        np.testing.assert_allclose(values, thrice.arrays()[name], rtol=1e-12, atol=1e-12)


def machine(**values: Any) -> tuple[MachineLearner, FactorizationSpec]:
    hyper = FactorizationMachine(
        model="factorization_machine", bits=10, factors=3, init_scale=0.3, factor_l2=0.0, **values
    )
    spec = FactorizationSpec(bits=10, features=("a", "b", "x"), factors=3)
    return MachineLearner(problem(hyper), spec, hyper, 5), spec


def test_a_machine_learns_along_the_gradient_of_its_loss() -> None:
    learner, spec = machine(factor_rate=1.0)
    table, label, weight = some_rows()
    cells = cells_of(table, spec)
    factors = learner.arrays()["factors"]
    learner.arrays()["squares"][:] = 1e-30  # every term counts as seen
    used = np.unique(cells.index)

    def loss(values: Any) -> float:
        kept = factors.copy()
        factors[:] = values
        z = learner.scores(cells)
        factors[:] = kept
        return float((weight * (np.logaddexp(0, z) - label * z)).sum())

    start = factors.astype(np.float64)
    step = 1e-2
    expected = np.zeros((len(used), 3))
    for i, index in enumerate(used):
        for f in range(3):
            for sign in (1, -1):
                moved = start.copy()
                moved[index, f] += sign * step
                expected[i, f] += sign * loss(moved) / (2 * step)
    learner.step(cells, label, weight)
    moved_by = start[used] - learner.arrays()["factors"][used]
    gradient = moved_by * (1e-6 + np.sqrt(learner.arrays()["squares"][used]))
    np.testing.assert_allclose(gradient, expected, rtol=0.02, atol=0.02)


def test_the_packed_machine_predicts_what_the_learner_does() -> None:
    learner, spec = machine()
    table, label, weight = some_rows()
    cells = cells_of(table, spec)
    for start in range(0, 60, 7):
        learner.step(cells.slice(start, start + 7), label[start : start + 7], weight[start : start + 7])
    packed = learner.model(learner.final()).predict_table(table)
    np.testing.assert_allclose(packed, 1 / (1 + np.exp(-learner.scores(cells))), rtol=1e-5)


def test_cells_are_the_matrix_with_collisions_apart() -> None:
    spec = HashedSpec(bits=2, features=("a", "b", "x"))
    table, _, _ = some_rows()
    row, index, value = hash_cells(table_columns(table, FEATURES), spec)
    dense = np.zeros((ROWS, 4))
    np.add.at(dense, (row, index), value)
    np.testing.assert_array_equal(dense, hash_matrix(table, spec, FEATURES).toarray())
    assert HashCache  # the trainer's own way to the same hashes is tested by the packed models


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 0.999), st.sampled_from([0.0, 1.0]), st.sampled_from([1.0, 0.25, 10.0])),
        min_size=4,
        max_size=60,
    )
)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[float, float, float]]) -> None:
    p, y, w = (np.array(column) for column in zip(*rows, strict=True))
    p = p.astype(np.float32).astype(np.float64)
    with patch("bidsim.training.measuring.HELD_BYTES", 64), Measuring() as measuring:  # the negatives go to a file
        for start in range(0, len(p), 7):
            measuring.add(*(column[start : start + 7] for column in (p, y, w)))
        found = measuring.measures()
    assert (found.rows, found.positives) == (len(rows), int(y.sum()))
    assert found.logloss == pytest.approx(log_loss(y, p, sample_weight=w, labels=[0, 1]), rel=1e-9)
    if 0 < y.sum() < len(y):
        assert found.auc == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-9)
        rate = (w @ y) / w.sum()
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
        assert found.logloss is not None
        assert found.normalized_entropy == pytest.approx(found.logloss / entropy)
        assert found.calibration == pytest.approx((w @ p) / (w @ y))
    elif y.sum() == 0:
        assert (found.auc, found.calibration, found.normalized_entropy) == (None, None, None)


def test_a_long_curve_keeps_its_chosen_and_last_round() -> None:
    found = measure(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.ones(2))
    rounds = [round_of(n, n, None, 0.1, found) for n in range(1, 1235)]
    kept = thinned(rounds, 777)
    assert len(kept) <= MOST_ROUNDS
    assert {1, 777, 1234} <= {r.round for r in kept}
    assert [r.round for r in kept] == sorted(r.round for r in kept)
