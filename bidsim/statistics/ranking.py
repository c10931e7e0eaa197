"""How a prediction orders the labelled rows: exact tables for AUC and isotonic calibration without sorting the log.

The distinct scores of the positives are the cut points (`Cuts`): between two of them only negatives lie, so their
number there is all that AUC (Mann-Whitney, ties half) and the isotonic fit (pool adjacent violators) can see. Scores
are float32; their bit patterns order as they do, so scores are handled as integers, with the segment value's code in
front. A table over the high bits finds a score's place among the cuts. All sums are whole numbers, so neither batches
nor threads can change a digit.

Reliability curves need masses between negatives too: `Cells` counts rows by score, exactly for small logs, on a grid
for large ones, with the exact mean score of each cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim import kernels

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCORE_BITS = 30  # float32 in [0, 1] has bit patterns up to 0x3F800000 < 2**30
GRID_SHIFT = 16  # keeps the exponent and 7 bits of the fraction
SMALL = 500_000  # labelled rows up to which every distinct score is a cell of its own
MOST_TABLE = 1 << 22
MARGIN = 64  # cells added on both sides when scores leave the range seen so far


def score_bits(scores: npt.NDArray[np.float32]) -> Ints:
    """Integers that order as the scores do. scores: float32 in [0, 1], shape (rows,)."""
    # -0.0 would have the sign bit set; adding 0.0 makes it plain zero.
    return (scores + np.float32(0.0)).view(np.int32).astype(np.int64)


def bits_score(bits: Ints) -> Floats:
    """The score of a bit pattern, as float64 exactly."""
    return bits.astype(np.int32).view(np.float32).astype(np.float64)


def group_sums(keys: Ints, *weights: Ints) -> tuple[Ints, ...]:
    """Distinct keys in order and the sum of each weight array over equal keys."""
    if len(keys) == 0:
        return (keys, *(np.zeros(0, dtype=np.int64) for _ in weights))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return (keys[starts], *(np.add.reduceat(w[order], starts) for w in weights))


@dataclass(frozen=True)
class Cuts:
    """The distinct scores of the positives of each segment value, and a table that finds a score's place among them.

    keys: sorted distinct (code, score) of the positives as integers; each code begins with a sentinel of weight 0 that
    lies below every score; positive: their weights. shape (cuts,). Places, shape (2 * cuts + 1,), are the cuts (odd)
    and the gaps around them (even): place 2 * i + 1 is cut i, 2 * i + 2 the gap above it, of the same code.
    """

    keys: Ints
    bits: Ints
    code: Ints
    positive: Ints
    starts: Ints
    _lowest: int
    _span: int
    _shift: int
    _table: npt.NDArray[np.int32]

    @staticmethod
    def of(bits: Ints, code: Ints | None, weights: Ints, codes: int) -> Cuts:
        """From the positives. bits: score_bits, code: segment value (None: one for all), weights: whole numbers."""
        lowest = int(bits.min()) - 1 if len(bits) else 0
        span = int(bits.max()) - lowest + 2 if len(bits) else 2
        keys = bits - lowest if code is None else code * span + (bits - lowest)
        sentinels = np.arange(codes, dtype=np.int64) * span
        keys, positive = group_sums(
            np.concatenate([sentinels, keys]), np.concatenate([np.zeros(codes, dtype=np.int64), weights])
        )
        room = codes * span
        cells = min(MOST_TABLE, max(1024, 8 * len(keys)))
        shift = max(0, (room // cells).bit_length())
        table = np.searchsorted(keys, np.arange((room >> shift) + 2, dtype=np.int64) << shift).astype(np.int32)
        starts = np.searchsorted(keys, np.arange(codes + 1, dtype=np.int64) * span)
        return Cuts(keys, keys % span + lowest, keys // span, positive, starts, lowest, span, shift, table)

    @property
    def places(self) -> int:
        return 2 * len(self.keys) + 1

    def place(self, bits: Ints, code: Ints | None) -> Ints:
        """The place of each row, shape (rows,). bits: score_bits; code: segment value, None where there is one."""
        return kernels.places(bits, code, *self.finder)

    @property
    def finder(self) -> tuple[int, int, int, npt.NDArray[np.int32], Ints]:
        """What `kernels.places` and `kernels.rank` need."""
        return self._lowest, self._span, self._shift, self._table, self.keys

    def beaten(self) -> Ints:
        """For each place, twice the weight of its code's positives below it plus the weight of those equal to it."""
        below = np.concatenate([[0], np.cumsum(self.positive)])
        base = below[self.starts[self.code]]
        out = np.zeros(self.places, dtype=np.int64)
        out[1::2] = 2 * (below[:-1] - base) + self.positive
        out[2::2] = 2 * (below[1:] - base)
        return out

    def ladders(self, negatives: Ints) -> list[Ladder]:
        """One table for each code. negatives: weight of the negatives at each place, shape (places,)."""
        ladders = []
        for begin, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            lowest = int(negatives[2 * begin + 1] + negatives[2 * begin + 2])
            equal = negatives[2 * begin + 3 : 2 * end + 1 : 2]
            gaps = negatives[2 * begin + 4 : 2 * end + 2 : 2]
            below = lowest + np.concatenate([[0], np.cumsum(equal + gaps)])
            ladders.append(
                Ladder(
                    score=bits_score(self.bits[begin + 1 : end]),
                    positive=self.positive[begin + 1 : end],
                    below=below[:-1],
                    equal=equal,
                    negatives=int(below[-1]),
                )
            )
        return ladders


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


class Cells:
    """Rows by (segment value, score cell). `add` takes batches in any order; `table` is their exact sum.

    shift: how many low bits of the score a cell spans; 0: every distinct score is a cell. codes: number of segment
    values; unit: the weight that the whole number 1 stands for; means: whether to keep each cell's exact mean score,
    instead of its middle.
    """

    def __init__(self, shift: int, codes: int, *, unit: float = 1.0, means: bool = True) -> None:
        self.shift = shift
        self.codes = codes
        self.unit = unit
        self.means = means
        self._parts: list[tuple[Ints, ...]] = []
        self._held = 0
        self._first = 0
        self._span = 0
        self._dense: list[Ints] = []  # negatives, positives, sums of low bits; each by code, then cell

    def add(
        self, bits: Ints, code: Ints | None, weights: Ints | None, positive: bool, rows: Ints | None = None
    ) -> None:
        """bits: score_bits, shape (rows,); weights: whole numbers, None for ones.

        code: segment value, of the same rows, or of a batch of which `rows` says which they are.
        """
        if len(bits) == 0:
            return
        if self.shift == 0:
            if code is not None and rows is not None:
                code = code[rows]
            keys = bits if code is None else (code << SCORE_BITS) | bits
            found, mass = group_sums(keys, np.ones_like(bits) if weights is None else weights)
            nothing = np.zeros_like(mass)
            self._keep((found, nothing, mass) if positive else (found, mass, nothing))
            return
        self._reach(int(bits.min()) >> self.shift, int(bits.max()) >> self.shift)
        low = self._dense[2] if self.means else None
        sums = self._dense[int(positive)]
        kernels.cells(
            len(bits), rows, bits, code, weights, self.shift, self._first, self._span, sums.reshape(-1),
            None if low is None else low.reshape(-1),
        )  # fmt: skip

    def _reach(self, first: int, last: int) -> None:
        """Make room for the cells from first to last."""
        if self._span and first >= self._first and last < self._first + self._span:
            return
        begin, end = first - MARGIN, last + MARGIN + 1
        if self._span:
            begin, end = min(begin, self._first), max(end, self._first + self._span)
        begin = max(begin, 0)
        grown = [np.zeros((self.codes, end - begin), dtype=np.int64) for _ in range(3 if self.means else 2)]
        for new, old in zip(grown, self._dense, strict=False):
            new[:, self._first - begin : self._first - begin + self._span] = old
        self._first, self._span, self._dense = begin, end - begin, grown

    def _keep(self, part: tuple[Ints, ...]) -> None:
        self._parts.append(part)
        self._held += len(part[0])
        if self._held > 4_000_000 and len(self._parts) > 1:
            self._compact()

    def merge(self, other: Cells) -> None:
        self._parts += other._parts
        self._held += other._held
        if other._span:
            self._reach(other._first, other._first + other._span - 1)
            at = other._first - self._first
            for mine, theirs in zip(self._dense, other._dense, strict=True):
                mine[:, at : at + other._span] += theirs

    def _weight(self, counts: Ints) -> Floats:
        return np.asarray(counts * self.unit, dtype=np.float64)

    def _compact(self) -> None:
        if len(self._parts) > 1:
            self._parts = [group_sums(*(np.concatenate(c) for c in zip(*self._parts, strict=True)))]
        self._held = len(self._parts[0][0]) if self._parts else 0

    def table(self) -> tuple[Ints, Floats, Floats, Floats]:
        """(code, negative weight, positive weight, mean score) of each cell, by code then score."""
        if self.shift == 0:
            self._compact()
            none = np.zeros(0, dtype=np.int64)
            keys, negative, positive = self._parts[0] if self._parts else (none, none, none)
            scores = bits_score(keys & ((1 << SCORE_BITS) - 1))
            return keys >> SCORE_BITS, self._weight(negative), self._weight(positive), scores
        if not self._span:
            nothing = np.zeros(0)
            return np.zeros(0, dtype=np.int64), nothing, nothing, nothing
        negative, positive = self._dense[0].reshape(-1), self._dense[1].reshape(-1)
        used = np.flatnonzero(negative + positive)
        mass = negative[used] + positive[used]
        half = mass << max(self.shift - 1, 0)
        lows = self._dense[2].reshape(-1)[used] if self.means else half
        score = _mean_score((used % self._span + self._first) << self.shift, lows, mass)
        return used // self._span, self._weight(negative[used]), self._weight(positive[used]), score

    def matrix(self) -> tuple[Floats, Floats, Floats]:
        """(negative weight, positive weight, middle of the score) of the grid: shape (codes, cells) twice, (cells,)."""
        if not self._span:
            return np.zeros((self.codes, 0)), np.zeros((self.codes, 0)), np.zeros(0)
        used = np.flatnonzero((self._dense[0] + self._dense[1]).sum(axis=0))
        base = (used + self._first) << self.shift
        ones = np.ones(len(used), dtype=np.int64)
        negative, positive = (self._weight(self._dense[i][:, used]) for i in (0, 1))
        return negative, positive, _mean_score(base, ones << (self.shift - 1), ones)


def _mean_score(base: Ints, lows: Ints, mass: Ints) -> Floats:
    # Within a cell the exponent is the same, so the score is linear in the bits below the shift.
    bottom, step = bits_score(base), bits_score(base + 1) - bits_score(base)
    return np.asarray(bottom + step * (lows / np.where(mass == 0, 1, mass)))
