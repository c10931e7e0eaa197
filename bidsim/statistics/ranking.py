"""How a prediction orders the labelled rows: exact tables for AUC and isotonic calibration without sorting the log.

The distinct scores of the positives are the cut points (`Cuts`): between two of them only negatives lie, so their
number there is all that AUC (Mann-Whitney, ties half) and the isotonic fit (pool adjacent violators) can see. Scores
are float32; their bit patterns order as they do, so scores are handled as integers, with the segment value's code in
front. All sums are whole numbers, so neither batches nor threads can change a digit.

Reliability curves need masses between negatives too: `Cells` counts rows by score, exactly for small logs, on a grid
of 128 cells an octave (0.5% wide) for large ones, with the exact mean score of each cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCORE_BITS = 30  # float32 in [0, 1] has bit patterns up to 0x3F800000 < 2**30
GRID_SHIFT = 16  # keeps the exponent and 7 bits of the fraction
SMALL = 500_000  # labelled rows up to which every distinct score is a cell of its own


def score_bits(scores: npt.NDArray[np.float32]) -> Ints:
    """Integers that order as the scores do. scores: float32 in [0, 1], shape (rows,)."""
    # -0.0 would have the sign bit set; adding 0.0 makes it plain zero.
    return (scores + np.float32(0.0)).view(np.int32).astype(np.int64)


def bits_score(bits: Ints) -> Floats:
    """The score of a bit pattern, as float64 exactly."""
    return bits.astype(np.int32).view(np.float32).astype(np.float64)


def make_keys(bits: Ints, codes: Ints | None) -> Ints:
    """One integer a row that orders by segment value, then score; codes None means one value for all."""
    return bits if codes is None else (codes.astype(np.int64) << SCORE_BITS) | bits


def group_sums(keys: Ints, *weights: Ints) -> tuple[Ints, ...]:
    """Distinct keys in order and the sum of each weight array over equal keys."""
    if len(keys) == 0:
        return (keys, *(np.zeros(0, dtype=np.int64) for _ in weights))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return (keys[starts], *(np.add.reduceat(w[order], starts) for w in weights))


@dataclass
class Cells:
    """Rows by (segment value, score cell). `add` takes batches in any order; `table` is their exact sum."""

    shift: int
    _parts: list[tuple[Ints, ...]] = field(default_factory=list)
    _held: int = 0

    def add(self, keys: Ints, weights: Ints, positive: bool) -> None:
        """keys: sorted, shape (rows,); weights: whole numbers, same shape; positive: the label of all of them."""
        if len(keys) == 0:
            return
        cells = keys >> self.shift
        starts = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
        low = keys & ((1 << self.shift) - 1)
        mass = np.add.reduceat(weights, starts)
        lows = np.add.reduceat(low * weights, starts) if self.shift else np.zeros_like(mass)
        nothing = np.zeros_like(mass)
        part = (cells[starts], nothing, mass, lows) if positive else (cells[starts], mass, nothing, lows)
        self._parts.append(part)
        self._held += len(starts)
        if self._held > 4_000_000 and len(self._parts) > 1:
            self._compact()

    def merge(self, other: Cells) -> None:
        self._parts += other._parts
        self._held += other._held

    def _compact(self) -> None:
        if len(self._parts) > 1:
            self._parts = [group_sums(*(np.concatenate(c) for c in zip(*self._parts, strict=True)))]
        self._held = len(self._parts[0][0]) if self._parts else 0

    def table(self) -> tuple[Ints, Floats, Floats, Floats]:
        """(code, negative weight, positive weight, mean score) of each cell, by code then score.

        Weights are in the whole-number unit they were added in, as float64.
        """
        self._compact()
        if not self._parts:
            none = np.zeros(0)
            return np.zeros(0, dtype=np.int64), none, none, none
        cells, negative, positive, lows = group_sums(*self._parts[0])
        codes = cells >> (SCORE_BITS - self.shift)
        base = (cells & ((1 << (SCORE_BITS - self.shift)) - 1)) << self.shift
        mass = negative + positive
        if self.shift == 0:
            return codes, negative.astype(np.float64), positive.astype(np.float64), bits_score(base)
        # Within a cell the exponent is the same, so the score is linear in the bits below the shift.
        bottom, step = bits_score(base), bits_score(base + 1) - bits_score(base)
        mean = bottom + step * (lows / np.where(mass == 0, 1, mass))
        return codes, negative.astype(np.float64), positive.astype(np.float64), mean


@dataclass
class Cuts:
    """Weights at and between the distinct scores of the positives, for each segment value.

    keys: sorted distinct keys of the positives, shape (cuts,); positive: their weights.
    lower, equal: weight of the negatives with a smaller key (of any code), and with the same key.
    negatives: total weight of negatives by code, shape (codes,).
    """

    keys: Ints
    positive: Ints
    codes: int
    lower: Ints = field(init=False)
    equal: Ints = field(init=False)
    negatives: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.lower = np.zeros(len(self.keys), dtype=np.int64)
        self.equal = np.zeros(len(self.keys), dtype=np.int64)
        self.negatives = np.zeros(self.codes, dtype=np.int64)

    def empty(self) -> Cuts:
        """The same cut points without negatives: what another thread fills."""
        return Cuts(self.keys, self.positive, self.codes)

    def add(self, keys: Ints, weights: Ints | None) -> None:
        """Negatives. keys: sorted, shape (rows,); weights: whole numbers of the same shape, None for all ones."""
        left = np.searchsorted(keys, self.keys, "left")
        right = np.searchsorted(keys, self.keys, "right")
        edges = np.searchsorted(keys, np.arange(self.codes + 1, dtype=np.int64) << SCORE_BITS, "left")
        if weights is None:
            self.lower += left
            self.equal += right - left
            self.negatives += np.diff(edges)
        else:
            total = np.concatenate([[0], np.cumsum(weights)])
            self.lower += total[left]
            self.equal += total[right] - total[left]
            self.negatives += np.diff(total[edges])

    def merge(self, other: Cuts) -> None:
        self.lower += other.lower
        self.equal += other.equal
        self.negatives += other.negatives

    def ladder(self, code: int) -> Ladder:
        """The table of one segment value."""
        begin, end = np.searchsorted(self.keys, [code << SCORE_BITS, (code + 1) << SCORE_BITS])
        smaller_codes = int(self.negatives[:code].sum())
        return Ladder(
            score=bits_score(self.keys[begin:end] & ((1 << SCORE_BITS) - 1)),
            positive=self.positive[begin:end],
            below=self.lower[begin:end] - smaller_codes,
            equal=self.equal[begin:end],
            negatives=int(self.negatives[code]),
        )


@dataclass(frozen=True)
class Ladder:
    """One population's labels along its scores, seen from the positives. Whole-number weights.

    score, positive, below, equal: shape (distinct scores of positives,), ascending; below: weight of negatives with a
    smaller score, equal: with this score. negatives: weight of all negatives.
    """

    score: Floats
    positive: Ints
    below: Ints
    equal: Ints
    negatives: int

    def between(self) -> Ints:
        """Weight of negatives strictly above each score and strictly below the next, shape (scores,)."""
        following = np.append(self.below[1:], self.negatives)
        return np.asarray(following - self.below - self.equal)
