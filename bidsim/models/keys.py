"""From the values of a column to what is known of them, without a Python object for any row.

A value becomes an exact key of one to five 64-bit words, read straight from Arrow's buffers: whole numbers as they
are, texts of up to 39 bytes as their bytes and their length. Keys have the shape (words, rows), and 0 in the last word
where a value has none. `KeyTable` finds the hashes of keys in an open-addressing table, all rows at once. Two values
never share a key, so that a known value costs some array reads and a row whose value has no key (a longer text) is
merely unknown. The loops are among the compiled ones (`bidsim.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim import kernels
from bidsim.arrays import values_of
from bidsim.kernels.reference import MAX_WORDS, MIX, Keys, first_slots

Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]
Derive = Callable[[Hashes], Floats]
PROBES = 24  # slots looked at for a key
# Slots of a table for each key: few keys are in each other's way, fewer still in tables that take little memory.
SPARE, MORE_SPARE, LEAST_SLOTS, SMALL_SLOTS = 4, 16, 1 << 14, 1 << 18
_ONE = np.uint64(1)


def keys_of(array: pa.Array) -> Keys | None:
    """Keys of whole numbers or texts; None for other types. A missing text has the key of the empty one."""
    if pa.types.is_integer(array.type):
        array = array if pa.types.is_uint64(array.type) else array.cast(pa.int64())
        keys: Keys = values_of(array, 0).view(np.uint64)
        if array.null_count:
            return np.stack([keys, _ONE + values_of(array.is_null()).astype(np.uint64)])
        return (keys + MIX)[None, :]  # so that 0 has a key; one number far from all ids has none
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _text_keys(array)
    return None


def _text_keys(array: pa.Array) -> Keys:
    rows = len(array)
    _, where, content = array.buffers()
    if where is None or rows == 0:
        return np.zeros((1, rows), dtype=np.uint64)
    kind: type[np.signedinteger[Any]] = np.int64 if pa.types.is_large_string(array.type) else np.int32
    offsets = np.frombuffer(where, dtype=kind)[array.offset : array.offset + rows + 1]
    missing = values_of(array.is_null()).view(np.uint8) if array.null_count else None
    lengths = offsets[1:] - offsets[:-1]
    longest = int(lengths.max() if missing is None else np.where(missing, 0, lengths).max())
    words = min(MAX_WORDS, longest // 8 + 1)
    texts = np.empty(0, dtype=np.uint8) if content is None else np.frombuffer(content, dtype=np.uint8)
    return kernels.text_keys(offsets, missing, texts[: int(offsets[-1])], words)


@dataclass(frozen=True)
class _Slots:
    """A table at one size. ages: order of arrival; by_owner: what an owner derives from each hash, by its id."""

    keys: Keys
    hashes: Hashes
    ages: NDArray[np.int64]
    by_owner: dict[int, tuple[object, Derive, Floats]]


@dataclass(frozen=True)
class Found:
    """Where the values of a column's rows lie in a table. rows: those that it lacks, whose hashes are `others`."""

    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    others: Hashes
    _at: _Slots

    @cached_property
    def hashes(self) -> Hashes:
        """The hash of each row's value."""
        hashes = self._at.hashes.take(self.slots)
        hashes[self.rows] = self.others
        return hashes


class KeyTable:
    """Hashes by key, for keys of equally many words. At most `limit` of them; where more come, it starts again.

    Threads share it: entries are never changed, an entry's last key word is written last, one thread writes at a time.
    """

    def __init__(self, words: int, limit: int) -> None:
        self._words = words
        self._limit = limit
        self._lock = RLock()
        self._count = 0
        self._at = self._empty(LEAST_SLOTS)

    def find(self, keys: Keys, hash_rows: Callable[[NDArray[np.int64]], Hashes]) -> Found:
        """The keys of all rows; hash_rows gives the hashes of those rows whose value is new, and the table keeps them."""
        at = self._at
        slots, unknown = kernels.find_keys(at.keys, keys, PROBES)
        if len(unknown):
            hashes = hash_rows(unknown)
            self._add(keys[:, unknown], hashes)
            at = self._at
            slots, still = kernels.find_keys(at.keys, keys, PROBES)
            # Rows that another thread's start from the beginning took away are known no more, but only those.
            others = hashes[np.searchsorted(unknown, still)] if np.isin(still, unknown).all() else hash_rows(still)
            return Found(slots, still, others, at)
        return Found(slots, unknown, np.empty(0, dtype=np.uint64), at)

    def add(
        self, keys: Keys, hash_rows: Callable[[NDArray[np.int64]], Hashes], owner: object, derive: Derive, sums: Floats
    ) -> None:
        """Add derive(hash) to the sum of each row, where an owner always derives the same: once for each value, not row."""
        at = self._at
        unknown = kernels.add_found(at.keys, keys, PROBES, self.derived(at, owner, derive), sums)
        if len(unknown):
            hashes = hash_rows(unknown)
            self._add(keys[:, unknown], hashes)
            sums[unknown] += derive(hashes)

    def derived(self, at: _Slots, owner: object, derive: Derive) -> Floats:
        """derive(hash) by slot."""
        if id(owner) not in at.by_owner:
            with self._lock:
                # Asked again: of two arrays only one would be kept up with the entries that come.
                if id(owner) not in at.by_owner:
                    at.by_owner[id(owner)] = (owner, derive, derive(at.hashes))
        return at.by_owner[id(owner)][2]

    def _add(self, keys: Keys, hashes: Hashes) -> None:
        """Remember the hashes of keys, each of which may come several times."""
        order = np.lexsort(keys)
        ordered = keys[:, order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
        first = np.flatnonzero(new)
        # The frequent ones get the best places.
        first = first[np.argsort(-np.diff(first, append=len(order)), kind="stable")]
        first = first[ordered[-1, first] != 0]
        keys, hashes = ordered[:, first], hashes[order[first]]
        if keys.shape[1] > self._limit:
            return
        with self._lock:
            _, unknown = kernels.find_keys(self._at.keys, keys, PROBES)  # another thread may have been faster
            keys, hashes = keys[:, unknown], hashes[unknown]
            if self._count + len(hashes) > self._limit:
                self._count, self._at = 0, self._empty(LEAST_SLOTS)
            ages = np.arange(self._count, self._count + len(hashes))
            self._count += len(hashes)
            at = self._at
            wanted = max(SPARE * self._count, min(MORE_SPARE * self._count, SMALL_SLOTS))
            if wanted > at.keys.shape[1]:
                at = self._empty(1 << (wanted - 1).bit_length())
                full = np.flatnonzero(self._at.keys[-1])
                full = full[np.argsort(self._at.ages[full])]
                _place(at, self._at.keys[:, full], self._at.hashes[full], self._at.ages[full])
                for owner, derive, _ in self._at.by_owner.values():
                    self.derived(at, owner, derive)
            _place(at, keys, hashes, ages)
            self._at = at

    def _empty(self, size: int) -> _Slots:
        keys = np.zeros((self._words, size), dtype=np.uint64)
        return _Slots(keys, np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int64), {})


def _place(at: _Slots, keys: Keys, hashes: Hashes, ages: NDArray[np.int64]) -> None:
    """Put distinct keys that the table lacks into free slots; a key that finds none within `PROBES` is left out."""
    known = at.keys
    slots = first_slots(keys, known.shape[1])
    rows = np.arange(len(hashes))
    for _ in range(PROBES):
        free = np.flatnonzero(known[-1].take(slots) == 0)
        _, first = np.unique(slots[free], return_index=True)
        placed = free[first]
        at.hashes[slots[placed]] = hashes[rows[placed]]
        at.ages[slots[placed]] = ages[rows[placed]]
        for _, derive, derived in at.by_owner.values():
            derived[slots[placed]] = derive(hashes[rows[placed]])
        for word in range(len(known)):  # the last word is what makes an entry count
            known[word, slots[placed]] = keys[word, rows[placed]]
        left = np.ones(len(rows), dtype=bool)
        left[placed] = False
        rows, slots = rows[left], (slots[left] + 1) & (known.shape[1] - 1)
        if not len(rows):
            return
