"""Prediction metrics of rows that come in batches, in memory that does not grow with them.

Sums are taken as the rows come. AUC needs the positives' scores before it can place the negatives among them: the
positives, which are few, wait in memory, the negatives in a file without a name once they are many. AUC is exact for
the float32 predictions, with weights to 2^-20.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bidsim.statistics.auc import auc
from bidsim.statistics.ranking import Cuts, score_bits
from bidsim.training.curve import Floats, Measures, loss_sum

WEIGHT_BITS = 20
HELD_BYTES = 8 << 20
ROW = np.dtype([("bits", np.int32), ("weight", np.int64)])
BLOCK_ROWS = 1 << 16


class Measuring:
    """Takes predictions with their labels and weights, then says how good they were. To be closed."""

    def __init__(self) -> None:
        self._negatives = tempfile.SpooledTemporaryFile(max_size=HELD_BYTES, prefix="bidsim-")  # noqa: SIM115
        self._positives: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._rows = self._positive_rows = 0
        self._weight = self._positive = self._loss = self._predicted = self._heaviest = 0.0

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *raised: object) -> None:
        self._negatives.close()

    def add(self, p: Floats, y: Floats, w: Floats) -> None:
        """Predictions p in [0, 1] for labels y (0 or 1) with weights w, shape (rows,) each."""
        if len(p) == 0:
            return
        positive = y > 0
        self._rows += len(p)
        self._positive_rows += int(positive.sum())
        self._weight += float(w.sum())
        self._positive += float(w[positive].sum())
        self._loss += loss_sum(p, y, w)
        self._predicted += float((w * p).sum())
        self._heaviest = max(self._heaviest, float(w.max()))
        bits = score_bits(p.astype(np.float32))
        weights = np.round(w * 2.0**WEIGHT_BITS).astype(np.int64)
        self._positives.append((bits[positive], weights[positive]))
        rows = np.empty(len(p) - int(positive.sum()), dtype=ROW)
        rows["bits"], rows["weight"] = bits[~positive], weights[~positive]
        self._negatives.write(rows.tobytes())

    def measures(self) -> Measures:
        """Of all rows so far."""
        total, positive = self._weight, self._positive
        logloss = self._loss / total if total > 0 else None
        rate = positive / total if total > 0 else 0.0
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate)) if 0 < rate < 1 else 0.0
        area = self._area()
        return Measures(
            rows=self._rows,
            positives=self._positive_rows,
            expected=self._predicted / self._heaviest if total > 0 else 0.0,
            logloss=logloss,
            normalized_entropy=logloss / entropy if logloss is not None and entropy > 0 else None,
            auc=None if math.isnan(area) else area,
            calibration=self._predicted / positive if positive > 0 else None,
        )

    def _area(self) -> float:
        if not self._positive_rows:
            return math.nan
        bits, weights = (np.concatenate(column) for column in zip(*self._positives, strict=True))
        cuts = Cuts.of(bits, None, weights, 1)
        negatives = np.zeros(cuts.places, dtype=np.int64)
        for rows in self._blocks():
            np.add.at(negatives, cuts.place(rows["bits"].astype(np.int64), None), rows["weight"])
        return auc(cuts.ladders(negatives)[0])

    def _blocks(self) -> Iterator[NDArray[np.void]]:
        self._negatives.seek(0)
        while block := self._negatives.read(BLOCK_ROWS * ROW.itemsize):
            yield np.frombuffer(block, dtype=ROW)


def measure(p: Floats, y: Floats, w: Floats) -> Measures:
    """The same of rows that are all there."""
    with Measuring() as measuring:
        measuring.add(p, y, w)
        return measuring.measures()
