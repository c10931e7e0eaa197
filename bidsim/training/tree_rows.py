"""What boosted trees are made from and of, in pieces: rows that are read again instead of held, models joined as text.

LightGBM reads rows twice: some of them to find where to cut each feature, in rising order, then all of them, a batch at
a time, of which it keeps a byte or two a cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bidsim.training.examples import BATCH_ROWS

Floats = NDArray[np.float64]
_TREE = re.compile(r"^Tree=\d+$", re.MULTILINE)
_END = "end of trees"
_SIZES = re.compile(r"^tree_sizes=.*$", re.MULTILINE)


class RowReader:
    """Rows by number or slice, for who asks in rising order; going back opens the stream again.

    stream: gives the rows from the first, as matrices of shape (some rows, features), one in memory at a time.
    """

    batch_size = BATCH_ROWS

    def __init__(self, rows: int, stream: Callable[[], Iterator[Floats]]) -> None:
        self._rows = rows
        self._stream = stream
        self._open: Iterator[Floats] = iter(())
        self._start = 0  # of the matrix at hand
        self._at_hand: Floats | None = None

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice) -> Floats:
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._rows)
            return self._slice(start, stop)
        return np.array(self._slice(index, index + 1)[0])

    def _slice(self, start: int, stop: int) -> Floats:
        parts = []
        while start < stop:
            matrix = self._holding(start)
            begin = start - self._start
            parts.append(matrix[begin : begin + stop - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _holding(self, row: int) -> Floats:
        if self._at_hand is None or row < self._start:
            self._open, self._start = self._stream(), 0
            self._at_hand = next(self._open)
        while row >= self._start + len(self._at_hand):
            self._start += len(self._at_hand)
            self._at_hand = next(self._open)
        return self._at_hand


def joined(before: str, more: str) -> str:
    """LightGBM's text of a model, with the trees of another after its own."""
    if not before:
        return more
    trees = [*_trees(before), *_trees(more)]
    blocks = [f"Tree={number}{tree}" for number, tree in enumerate(trees)]
    head = _SIZES.sub("tree_sizes=" + " ".join(str(len(b.encode())) for b in blocks), before[: _first(before)])
    return head + "".join(blocks) + before[before.index(f"\n{_END}") + 1 :]


def _first(text: str) -> int:
    found = _TREE.search(text)
    return found.start() if found else text.index(f"\n{_END}") + 1


def _trees(text: str) -> list[str]:
    """Each tree's text after its number."""
    return _TREE.split(text[_first(text) : text.index(f"\n{_END}") + 1])[1:]
