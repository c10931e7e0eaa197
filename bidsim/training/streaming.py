"""Rounds over a stream of examples for models of hashed terms: a batch in memory, a few rows to a step.

The rows come in the order of time, are predicted, then learned from. What is learned is a handful of arrays, so a
checkpoint is those arrays, and a killed training goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bidsim.errors import BidsimError
from bidsim.models.columns import Columns, HashCache
from bidsim.models.hashed import hash_cells
from bidsim.models.manifest import HashedSpec
from bidsim.models.native import NativeModel
from bidsim.training.curve import Measures, Progress, loss_sum
from bidsim.training.measuring import Measuring
from bidsim.training.problem import Batch, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Stop = Callable[[], bool]


class Diverged(BidsimError):
    """Training left the numbers that a model can have; no bundle was written."""

    def __init__(self, head: str) -> None:
        super().__init__(
            f"head {head}: training diverged, its weights or predictions are no finite numbers any more; no bundle was "
            "written. Lower the learning rates, raise l2, or leave out numeric features with extreme values"
        )


@dataclass(frozen=True)
class Cells:
    """The terms of some rows. Row i has terms [starts[i], starts[i + 1]); index: of the weight; row: of each term."""

    starts: Ints
    row: Ints
    index: Ints
    value: Floats

    @property
    def rows(self) -> int:
        return len(self.starts) - 1

    def slice(self, start: int, stop: int) -> Cells:
        part = slice(self.starts[start], self.starts[stop])
        offsets = self.starts[start : stop + 1] - self.starts[start]
        return Cells(offsets, self.row[part] - start, self.index[part], self.value[part])


class Learner(Protocol):
    """A model that learns from a few rows at a time."""

    def scores(self, cells: Cells) -> Floats:
        """The log odds of each row."""
        ...

    def step(self, cells: Cells, label: Floats, weight: Floats) -> Floats:
        """Learn from the rows; returns what was predicted for them before."""
        ...

    def arrays(self) -> Arrays:
        """All that is learned, to be changed in place by `restore`."""
        ...

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...

    def final(self) -> Arrays:
        """What the model needs of it, a copy."""
        ...

    def model(self, final: Mapping[str, NDArray[Any]]) -> NativeModel: ...


@dataclass(frozen=True)
class Learned:
    """A round. rows: learned from in it; logloss: of these, before each was learned from; None where there were none.

    whole: it was not cut short.
    """

    rows: int
    logloss: float | None
    whole: bool = True


class Streaming:
    """Trains one head by a `Learner`, round by round."""

    def __init__(self, problem: Problem, spec: HashedSpec, learner: Learner, batch_rows: int) -> None:
        self.problem = problem
        self._spec = spec
        self._learner = learner
        self._batch_rows = batch_rows
        self._cache = HashCache()
        self._best: Arrays = {}
        self._begun = (0, 0.0, 0.0)  # of a round that was cut short: rows, loss and weight so far

    def round(self, number: int, stop: Stop, progress: Progress | None) -> Learned:
        """One pass over the rows to learn from, or a part of one where `stop` says so; the next call goes on with it.

        Raises Diverged.
        """
        with np.errstate(all="ignore"):
            return self._round(stop, progress)

    def _round(self, stop: Stop, progress: Progress | None) -> Learned:
        rows, loss, weight = self._begun
        for batch, cells in self._with_cells(self.problem.learning(rows)):
            for start in range(0, cells.rows, self._batch_rows):
                if stop():
                    self._begun = (rows, loss, weight)
                    return Learned(rows, loss / weight if weight > 0 else None, whole=False)
                end = min(start + self._batch_rows, cells.rows)
                y, w = batch.label[start:end], batch.weight[start:end]
                p = self._learner.step(cells.slice(start, end), y, w)
                lost, mass = loss_sum(p, y, w), float(w.sum())
                if not math.isfinite(lost):
                    raise Diverged(self.problem.head)
                rows, loss, weight = rows + end - start, loss + lost, weight + mass
                if progress is not None:
                    progress.add(lost, mass, end - start)
        self._begun = (0, 0.0, 0.0)
        return Learned(rows, loss / weight if weight > 0 else None)

    def validate(self) -> Measures:
        """How well the model as it is predicts the validation rows."""
        with np.errstate(all="ignore"), Measuring() as measuring:
            for batch, cells in self._with_cells(self.problem.validation()):
                measuring.add(sigmoid(self._learner.scores(cells)), batch.label, batch.weight)
            return measuring.measures()

    def keep(self) -> None:
        """Remember the model as it is: it is the best so far. Raises Diverged where it has no finite weights."""
        with np.errstate(all="ignore"):
            self._best = self._learner.final()
        if not all(np.isfinite(array).all() for array in self._best.values()):
            raise Diverged(self.problem.head)

    def state(self) -> Arrays:
        """Everything that going on needs."""
        return {
            **{f"learner.{k}": v for k, v in self._learner.arrays().items()},
            **{f"best.{k}": v for k, v in self._best.items()},
            "begun": np.array(self._begun, dtype=np.float64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state."""
        self._learner.restore({k.removeprefix("learner."): v for k, v in state.items() if k.startswith("learner.")})
        self._best = {k.removeprefix("best."): v for k, v in state.items() if k.startswith("best.")}
        rows, loss, weight = (float(value) for value in state["begun"])
        self._begun = (int(rows), loss, weight)

    def model(self) -> NativeModel:
        """The best model."""
        return self._learner.model(self._best)

    def _with_cells(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Cells]]:
        for batch in batches:
            columns = Columns(batch.columns, self.problem.features, cache=self._cache, file="")
            row, index, value = hash_cells(columns, self._spec)
            order = np.argsort(row, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=columns.rows))])
            yield batch, Cells(starts, row[order], index[order], value[order])


def sigmoid(z: Floats) -> Floats:
    """Probabilities of log odds, shape kept."""
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-z)))


def by_row(cells: Cells, values: Floats) -> Floats:
    """The sum of the terms' values of each row, shape (rows,)."""
    return np.asarray(np.bincount(cells.row, weights=values, minlength=cells.rows), dtype=np.float64)
