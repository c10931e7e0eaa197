"""Labelled rows pooled by score while they stream, so that fitting a curve takes as much memory for any number of rows.

Rows of one score are one row of their weight and mean label to every fit that is made of sums. Up to `MOST_SCORES`
distinct scores nothing else is pooled; where there are more, neighbours are, as few as will do: so many cells are 1e-4
of a score wide or less, but for scores over many powers of two, and a fit sees their mean scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_SCORES = 1 << 18
# Neighbours that hardly differ as float64 are no fewer than float32 tells apart: to begin with less would be in vain.
FIRST_SHIFT = 29


@dataclass(frozen=True)
class Pooled:
    """Rows by ascending score. score, label: means; weight: sums, above 0; shape (scores,) each. rows, positives: how
    many rows there were, and how many of them had a label above 0."""

    score: Floats
    label: Floats
    weight: Floats
    rows: int
    positives: int


class Pool:
    """`add` takes batches; what `pooled` returns depends on the rows alone, but for the rounding of sums."""

    def __init__(self, most: int = MOST_SCORES) -> None:
        self._most = most
        self._shift = 0
        self._rows = self._positives = 0
        self._parts: list[tuple[Ints, Floats]] = []
        self._held = 0

    def add(self, score: Floats, label: Floats, weight: Floats) -> None:
        """score: in [0, 1], label: in [0, 1], weight: 0 or more; shape (rows,) each."""
        self._rows += len(score)
        self._positives += int((label > 0).sum())
        # Bit patterns of numbers that are not negative order as these do; adding 0.0 makes a plain zero of -0.0.
        bits = (score + 0.0).view(np.int64)
        self._parts.append(self._grouped(bits >> self._shift, np.stack([weight, weight * label, weight * score])))
        self._held += len(self._parts[-1][0])
        if self._held > 4 * self._most:
            self._compact()

    def pooled(self) -> Pooled:
        self._compact()
        keys, (weight, labels, scores) = self._parts[0] if self._parts else (np.zeros(0, np.int64), np.zeros((3, 0)))
        weighs = weight > 0
        keys, weight, labels, scores = keys[weighs], weight[weighs], labels[weighs], scores[weighs]
        score = scores / weight if self._shift else keys.view(np.float64)
        return Pooled(score, labels / weight, weight, self._rows, self._positives)

    def _compact(self) -> None:
        if not self._parts:
            return
        keys, sums = (np.concatenate(part, axis=-1) for part in zip(*self._parts, strict=True))
        self._parts = []
        keys, sums = self._grouped(keys, sums)
        while len(keys) > self._most:
            more = 1 if self._shift else FIRST_SHIFT
            self._shift += more
            keys, sums = self._grouped(keys >> more, sums)
        self._parts, self._held = [(keys, sums)], len(keys)

    @staticmethod
    def _grouped(keys: Ints, sums: Floats) -> tuple[Ints, Floats]:
        """Distinct keys in order, and sums over equal ones. sums: shape (3, keys)."""
        if len(keys) == 0:
            return keys, sums
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        return keys[starts], np.add.reduceat(sums[:, order], starts, axis=1)
