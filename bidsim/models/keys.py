"""From the values of a column to what is known of them, without a Python object for any row.

A value becomes an exact key of one to five 64-bit words, read straight from Arrow's buffers: whole numbers as they
are, texts of up to 39 bytes as their bytes and their length. `KeyTable` finds the hashes of keys in an open-addressing
table, all rows at once. Two values never share a key, so that a known value costs some array reads and a row whose
value has no key (a longer text) is merely unknown.
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

Keys = NDArray[np.uint64]  # shape (words, rows); the last word is 0 where the value has no key
Hashes = NDArray[np.uint64]
Derived = NDArray[Any]
Derive = Callable[[Hashes], Derived]
MAX_WORDS = 5
PROBES = (3, 20)  # slots looked at after the first, all at once
# Slots of a table for each key: few keys are in each other's way, fewer still in tables that take little memory.
SPARE, MORE_SPARE, LEAST_SLOTS, SMALL_SLOTS = 4, 16, 1 << 14, 1 << 18
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiplying spreads what is close together
_ONE, _HALF = np.uint64(1), np.uint64(32)
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(9)], dtype=np.uint64)
_TAGS = np.array([(length + 1) << 56 for length in range(8 * MAX_WORDS)], dtype=np.uint64)


def keys_of(array: pa.Array) -> Keys | None:
    """Keys of whole numbers or texts; None for other types. A missing text has the key of the empty one."""
    if pa.types.is_integer(array.type):
        array = array if pa.types.is_uint64(array.type) else array.cast(pa.int64())
        some = array.fill_null(0) if array.null_count else array
        keys: Keys = some.to_numpy(zero_copy_only=False).view(np.uint64)
        if array.null_count:
            return np.stack([keys, _ONE + np.asarray(array.is_null()).astype(np.uint64)])
        return (keys + _MIX)[None, :]  # so that 0 has a key; one number far from all ids has none
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _text_keys(array)
    return None


def _text_keys(array: pa.Array) -> Keys:
    rows = len(array)
    _, where, content = array.buffers()
    if where is None or rows == 0:
        return np.zeros((1, rows), dtype=np.uint64)
    width = "<i8" if pa.types.is_large_string(array.type) else "<i4"
    offsets = np.frombuffer(where, dtype=width)[array.offset : array.offset + rows + 1].astype(np.int64, copy=False)
    first, end = int(offsets[0]), int(offsets[-1])
    starts = offsets[:-1] - first if first else offsets[:-1]
    lengths = np.diff(offsets)
    if array.null_count:
        lengths = np.where(np.asarray(array.is_valid()), lengths, 0)
    longest = int(lengths.max())
    words = min(MAX_WORDS, longest // 8 + 1)
    padded = np.zeros(end - first + 8 * words, dtype=np.uint8)
    if content is not None:
        padded[: end - first] = np.frombuffer(content, dtype=np.uint8)[first:end]
    # Eight bytes from every position, overlapping.
    view = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))
    keys = np.empty((words, rows), dtype=np.uint64)
    for word in range(words):
        left = lengths if words == 1 else np.clip(lengths - 8 * word, 0, 8)
        # `take` copies the whole view first, which pays where texts are short.
        found = view.take(starts + 8 * word if word else starts) if len(padded) < 8 * rows else view[starts + 8 * word]
        masks = _MASKS.take(left, mode="clip")
        np.bitwise_and(found, masks, out=keys[word])
    if words == 1:  # a one after the text's last byte tells lengths apart
        keys += masks
        keys += _ONE
    else:
        keys[-1] |= _TAGS.take(lengths, mode="clip")
    if longest >= 8 * words:
        keys[-1, lengths >= 8 * words] = 0
    return keys


@dataclass(frozen=True)
class _Slots:
    """A table at one size. ages: order of arrival; by_owner: what an owner derives from each hash, by its id."""

    keys: Keys
    hashes: Hashes
    ages: NDArray[np.int64]
    by_owner: dict[int, tuple[object, Derive, Derived]]


@dataclass(frozen=True)
class Found:
    """Where the values of a column's rows lie in a table. rows: those that it lacks, whose hashes are `others`."""

    table: KeyTable
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

    def derived(self, owner: object, derive: Derive) -> Derived:
        """derive(hashes) for each row, where an owner always derives the same: once for each value, not each row."""
        derived = self.table.derived(self._at, owner, derive).take(self.slots)
        if len(self.rows):
            derived[self.rows] = derive(self.others)
        return derived


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
        slots, unknown = self._search(at.keys, keys)
        if len(unknown):
            hashes = hash_rows(unknown)
            self._add(keys[:, unknown], hashes)
            at = self._at
            slots, still = self._search(at.keys, keys)
            # Rows that another thread's start from the beginning took away are known no more, but only those.
            others = hashes[np.searchsorted(unknown, still)] if np.isin(still, unknown).all() else hash_rows(still)
            return Found(self, slots, still, others, at)
        return Found(self, slots, unknown, np.empty(0, dtype=np.uint64), at)

    def derived(self, at: _Slots, owner: object, derive: Derive) -> Derived:
        """derive(hash) by slot."""
        if id(owner) not in at.by_owner:
            with self._lock:
                at.by_owner[id(owner)] = (owner, derive, derive(at.hashes))
        return at.by_owner[id(owner)][2]

    def _search(self, known: Keys, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The slots of keys, and the rows whose key is unknown."""
        slots = _first_slots(keys, known.shape[1])
        wrong = known[0].take(slots) != keys[0]
        for word in range(1, self._words):
            wrong |= known[word].take(slots) != keys[word]
        if not keys[-1].all():
            wrong |= keys[-1] == 0
        rows = np.flatnonzero(wrong)
        unknown = [rows[keys[-1, rows] == 0]]
        rows = rows[keys[-1, rows] != 0]
        step = 1
        for width in PROBES:
            if not len(rows):
                break
            near = (slots[rows, None] + np.arange(step, step + width)) & (known.shape[1] - 1)
            same = known[0].take(near) == keys[0, rows, None]
            for word in range(1, self._words):
                same &= known[word].take(near) == keys[word, rows, None]
            which = same.argmax(axis=1)
            each = np.arange(len(rows))
            here = same[each, which]
            slots[rows[here]] = near[here, which[here]]
            ended = ~here & (known[-1].take(near) == 0).any(axis=1)
            unknown.append(rows[ended])
            # `slots` still is the first place for the others.
            rows = rows[~here & ~ended]
            step += width
        return slots, np.sort(np.concatenate([*unknown, rows]))

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
            _, unknown = self._search(self._at.keys, keys)  # another thread may have been faster
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
    slots = _first_slots(keys, known.shape[1])
    rows = np.arange(len(hashes))
    for _ in range(1 + sum(PROBES)):
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


def _first_slots(keys: Keys, size: int) -> NDArray[np.int64]:
    """Where the search for a key begins in a table of `size`, a power of two."""
    mixed = keys[0] * _MIX
    for word in keys[1:]:
        mixed = (mixed ^ (mixed >> _HALF) ^ word) * _MIX
    mixed >>= np.uint64(65 - size.bit_length())
    return np.asarray(mixed.view(np.int64))
