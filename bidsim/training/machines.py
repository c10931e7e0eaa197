"""Factorization machines (Rendle 2010): a linear part by FTRL-proximal, factors by AdaGrad (Duchi et al. 2011).

The factors of a term start at small random numbers, which follow from the seed, the head and the term's index alone.
Their penalty is paid each time that a term occurs, so it weighs the same in steps of any size.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsim.models.factorization import FactorizationMachine as Model
from bidsim.models.manifest import FactorizationSpec
from bidsim.training.hyperparameters import FactorizationMachine
from bidsim.training.logistic import Ftrl, crosses_of, model_features
from bidsim.training.problem import Problem
from bidsim.training.streaming import Arrays, Cells, Floats, Streaming, by_row, sigmoid

SMOOTHING = 1e-6  # of the first factor steps


class MachineLearner:
    """See `streaming.Learner`. factors, squares: shape (2**bits, factors), float32."""

    def __init__(self, problem: Problem, spec: FactorizationSpec, hyper: FactorizationMachine, seed: int) -> None:
        self._problem = problem
        self._spec = spec
        self._hyper = hyper
        self._ftrl = Ftrl(hyper, problem.rate)
        draw = np.random.Generator(np.random.PCG64([seed, zlib.crc32(problem.head.encode())]))
        shape = (1 << hyper.bits, hyper.factors)
        self._factors = draw.standard_normal(shape, dtype=np.float32) * np.float32(hyper.init_scale)
        self._squares = np.zeros(shape, dtype=np.float32)

    def scores(self, cells: Cells) -> Floats:
        linear = by_row(cells, cells.value * self._ftrl.weights(cells.index))
        # Terms that no row had would only add noise to rows that have them.
        seen = self._squares[cells.index].any(axis=1)
        vectors = self._factors[cells.index].astype(np.float64) * (cells.value * seen)[:, None]
        return np.asarray(self._ftrl.bias[0] + linear + _pairs(cells, vectors)[0])

    def step(self, cells: Cells, label: Floats, weight: Floats) -> Floats:
        used, place = np.unique(cells.index, return_inverse=True)
        weights = self._ftrl.weights(used)
        own = self._factors[used].astype(np.float64)
        vectors = own[place] * cells.value[:, None]
        pairs, sums = _pairs(cells, vectors)
        p = sigmoid(self._ftrl.bias[0] + by_row(cells, cells.value * weights[place]) + pairs)
        error = p - label
        each, mass = error[cells.row] * cells.value, weight[cells.row]
        self._ftrl.learn(used, place, weights, mass * each, mass * each**2)
        self._ftrl.learn_bias(error, weight)
        gradient = each[:, None] * (sums[cells.row] - vectors) + self._hyper.factor_l2 * own[place]
        self._learn_factors(used, place, own, mass[:, None] * gradient, mass[:, None] * gradient**2)
        return p

    def _learn_factors(self, used: Any, place: Any, own: Floats, gradient: Floats, squares: Floats) -> None:
        order = np.argsort(place, kind="stable")
        starts = np.searchsorted(place[order], np.arange(len(used)))
        seen = self._squares[used] + np.add.reduceat(squares[order], starts, axis=0)
        total = np.add.reduceat(gradient[order], starts, axis=0)
        self._squares[used] = seen
        self._factors[used] = own - self._hyper.factor_rate * total / (SMOOTHING + np.sqrt(seen))

    def arrays(self) -> Arrays:
        return {**self._ftrl.arrays(), "factors": self._factors, "squares": self._squares}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._ftrl.restore(arrays)
        self._factors[:], self._squares[:] = arrays["factors"], arrays["squares"]

    def final(self) -> Arrays:
        weights = self._ftrl.weights(slice(None)).astype(np.float32)
        seen = np.asarray(self._squares.any(axis=1))
        return {
            "weights": weights,
            "factors": np.where(seen[:, None], self._factors, np.float32(0)),
            "bias": self._ftrl.bias[:1].astype(np.float32),
        }

    def model(self, final: Mapping[str, NDArray[Any]]) -> Model:
        bias = float(final["bias"][0])
        return Model(self._spec, self._problem.features, final["weights"], final["factors"], bias)


def _pairs(cells: Cells, vectors: Floats) -> tuple[Floats, Floats]:
    """Sum over pairs of terms of the products of their vectors, shape (rows,), and the rows' sums of vectors."""
    sums = np.stack([by_row(cells, column) for column in vectors.T], axis=1)
    squares = by_row(cells, np.einsum("cf,cf->c", vectors, vectors))
    return 0.5 * (np.einsum("rf,rf->r", sums, sums) - squares), sums


def machine(problem: Problem, seed: int) -> Streaming:
    """The training of a factorization machine."""
    hyper = problem.hyper
    assert isinstance(hyper, FactorizationMachine)
    spec = FactorizationSpec(
        bits=hyper.bits,
        features=model_features(problem),
        crosses=crosses_of(hyper),
        scaling=problem.scaling,
        factors=hyper.factors,
    )
    return Streaming(problem, spec, MachineLearner(problem, spec, hyper, seed), hyper.batch_rows)
