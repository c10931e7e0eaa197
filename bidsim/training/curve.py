"""Learning curves: how well a model predicts rows that it has not learned from, while it learns.

Progressive validation (McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches"): each batch is predicted
before it is learned from, so every row of the first pass is a test row once. Validation: rows later than all others,
from which nothing is learned, after each round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsim.models.manifest import CurvePoint, CurveRound

Floats = NDArray[np.float64]
MOST_POINTS = 100
MOST_ROUNDS = 200
EPSILON = 1e-15  # spec section 4: predictions are clipped for the log loss


@dataclass(frozen=True)
class Measures:
    """Prediction metrics of spec section 4 on one set of rows; None where undefined.

    positives: rows, not weight; expected: how many the model predicts at least, weights being at most their largest.
    """

    rows: int
    positives: int
    expected: float
    logloss: float | None
    normalized_entropy: float | None
    auc: float | None
    calibration: float | None


def loss_sum(p: Floats, y: Floats, w: Floats) -> float:
    """Sum of weight x log loss. p, y, w: shape (rows,)."""
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return float(-(w * np.where(y > 0, np.log(p), np.log1p(-p))).sum())


class Progress:
    """Gathers the progressive log loss of the first pass into at most MOST_POINTS points."""

    def __init__(self, rows: int) -> None:
        self._every = max(1, math.ceil(rows / MOST_POINTS))
        self._points: list[CurvePoint] = []
        self._rows = self._from = 0
        self._loss = self._weight = 0.0

    @property
    def state(self) -> tuple[int, int, float, float]:
        """All but the points, to go on from."""
        return self._rows, self._from, self._loss, self._weight

    def restore(self, points: Sequence[CurvePoint], state: tuple[int, int, float, float]) -> None:
        """Go on from a state."""
        self._points = list(points)
        self._rows, self._from, self._loss, self._weight = state

    def add(self, loss: float, weight: float, rows: int) -> None:
        """Of some rows just learned from: their weighted loss before, their weight, their number."""
        self._loss, self._weight, self._rows = self._loss + loss, self._weight + weight, self._rows + rows
        if self._rows - self._from >= self._every:
            self.close()

    def close(self) -> None:
        """End a point with the rows so far."""
        if self._weight > 0 and len(self._points) < MOST_POINTS:
            self._points.append(CurvePoint(rows=self._rows, logloss=self._loss / self._weight))
        self._from, self._loss, self._weight = self._rows, 0.0, 0.0

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        return tuple(self._points)


def thinned(rounds: Sequence[CurveRound], chosen: int) -> tuple[CurveRound, ...]:
    """At most MOST_ROUNDS rounds, evenly, the chosen and the last among them: a manifest is bounded in size."""
    if len(rounds) <= MOST_ROUNDS:
        return tuple(rounds)
    step = math.ceil(len(rounds) / (MOST_ROUNDS - 2))
    last = len(rounds) - 1
    return tuple(r for i, r in enumerate(rounds) if i % step == 0 or i == last or r.round == chosen)


def round_of(number: int, rows: int, training: float | None, logloss: float, found: Measures) -> CurveRound:
    """A point of the curve: what the validation rows showed after a round, with a log loss that they have."""
    return CurveRound(
        round=number,
        rows=rows,
        training_logloss=training,
        logloss=logloss,
        normalized_entropy=found.normalized_entropy,
        auc=found.auc,
        calibration=found.calibration,
    )
