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
from bidsim.statistics.auc import auc
from bidsim.statistics.ranking import Ladder, group_sums, score_bits

Floats = NDArray[np.float64]
MOST_POINTS = 100
MOST_ROUNDS = 200
WEIGHT_BITS = 20
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


def measure(p: Floats, y: Floats, w: Floats) -> Measures:
    """All metrics of predictions p in [0, 1] for labels y (0 or 1) with weights w, shape (rows,) each."""
    total, positive = float(w.sum()), float(w[y > 0].sum())
    logloss = loss_sum(p, y, w) / total if total > 0 else None
    rate = positive / total if total > 0 else 0.0
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate)) if 0 < rate < 1 else 0.0
    area = _area(p, y, w)
    return Measures(
        rows=len(p),
        positives=int((y > 0).sum()),
        expected=float((w * p).sum() / w.max()) if total > 0 else 0.0,
        logloss=logloss,
        normalized_entropy=logloss / entropy if logloss is not None and entropy > 0 else None,
        auc=None if math.isnan(area) else area,
        calibration=float((w * p).sum()) / positive if positive > 0 else None,
    )


def _area(p: Floats, y: Floats, w: Floats) -> float:
    """Exact for the float32 predictions; weights to 2^-20."""
    weights = np.round(w * 2.0**WEIGHT_BITS).astype(np.int64)
    bits = score_bits(p.astype(np.float32))
    scores, positive, negative = group_sums(bits, np.where(y > 0, weights, 0), np.where(y > 0, 0, weights))
    below = np.cumsum(negative) - negative
    return auc(Ladder(scores.astype(np.float64), positive, below, negative, int(negative.sum())))


class Progress:
    """Gathers the progressive log loss of the first pass into at most MOST_POINTS points."""

    def __init__(self, rows: int) -> None:
        self._every = max(1, math.ceil(rows / MOST_POINTS))
        self._points: list[CurvePoint] = []
        self._rows = self._from = 0
        self._loss = self._weight = 0.0

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


def round_of(number: int, rows: int, training: float | None, found: Measures) -> CurveRound:
    """A point of the curve: what the validation rows showed after a round."""
    return CurveRound(
        round=number,
        rows=rows,
        training_logloss=training,
        logloss=found.logloss if found.logloss is not None else math.inf,
        normalized_entropy=found.normalized_entropy,
        auc=found.auc,
        calibration=found.calibration,
    )
