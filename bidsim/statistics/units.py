"""Units (users, devices, requests) in a fixed number of buckets, by a hash that is the same on every engine.

The hash is part of the result's schema: it has no salt that a run could choose, so nobody can draw the verdict again.
Whole numbers are mixed as such, texts by a polynomial over their bytes; both end in the finaliser of SplitMix64
(Steele, Lea, Flood 2014). Everything is arithmetic modulo 2^64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.arrays import values_of

Hashes = npt.NDArray[np.uint64]

BUCKETS = 256
_BASE = 0x9E3779B97F4A7C15 | 1
# Segments with many values keep fewer, nested buckets: an interval's own error is then 9% instead of 4%.
FEWER, MANY_VALUES = 64, 64
# How many of the smallest hashes are kept to estimate the number of units: exact up to it, then to about 1.6%.
KEPT = 4096


def mix(x: Hashes) -> Hashes:
    """SplitMix64's finaliser: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_whole(values: npt.NDArray[np.int64]) -> Hashes:
    """Hashes of whole numbers, shape (rows,)."""
    return mix(values.view(np.uint64) + np.uint64(_BASE))


def hash_texts(texts: pa.Array) -> Hashes:
    """Hashes of texts by their UTF-8 bytes, shape (rows,); NULL as the empty text."""
    coded = texts.dictionary_encode()
    distinct = coded.dictionary.cast(pa.large_string())
    if distinct.null_count:
        distinct = pc.fill_null(distinct, "")
    each = _hash_distinct(distinct)
    codes = values_of(coded.indices, 0).astype(np.int64)
    if len(each) == 0:
        return mix(np.full(len(texts), _BASE, dtype=np.uint64))
    return np.asarray(each[codes])


def _hash_distinct(texts: pa.LargeStringArray) -> Hashes:
    """sum of byte x base^position over a text's bytes, then mixed with its length."""
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(offsets)
    data = texts.buffers()[2]
    if len(texts) == 0 or data is None or offsets[-1] == offsets[0]:
        return mix(np.full(len(texts), _BASE, dtype=np.uint64))
    used = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
    longest = int(lengths.max())
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(longest, _BASE, dtype=np.uint64))
        starts = offsets[:-1] - offsets[0]
        position = np.arange(len(used)) - np.repeat(starts, lengths)
        running = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(used * powers[position], dtype=np.uint64)])
        total = running[starts + lengths] - running[starts]
        return mix(total + lengths.astype(np.uint64) * np.uint64(_BASE))


def hash_rows(columns: Sequence[npt.NDArray[Any]]) -> Hashes:
    """Hashes of rows by what stands in some of their columns of eight bytes: equal rows are one unit.

    For logs without a unit; independent of files and order. Outcomes must not be among the columns.
    """
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            bits = (column + 0.0 if column.dtype == np.float64 else column).view(np.uint64)
            total = mix(total + bits + np.uint64(_BASE))
    return total


def buckets_of(hashes: Hashes) -> npt.NDArray[np.int64]:
    """The bucket of each unit, in [0, BUCKETS)."""
    return (hashes & np.uint64(BUCKETS - 1)).astype(np.int64)


def buckets_for(values: int) -> int:
    """How many buckets a family of segments with so many values keeps; divides BUCKETS, so that buckets nest."""
    return BUCKETS if values <= MANY_VALUES else FEWER


class UnitCount:
    """How many distinct units a stream of hashes holds: exact up to KEPT, then an estimate from the smallest hashes
    (Bar-Yossef et al. 2002, "Counting distinct elements in a data stream"). Independent of order."""

    def __init__(self) -> None:
        self._kept: Hashes = np.zeros(0, dtype=np.uint64)
        self._limit = np.uint64(2**64 - 1)

    def add(self, hashes: Hashes) -> None:
        # The bucket is in the low bits, the size decides here: mixed hashes have no relation between both.
        small = hashes[hashes <= self._limit]
        if len(small) == 0:
            return
        kept = np.union1d(self._kept, small)[:KEPT]
        self._kept = kept
        if len(kept) == KEPT:
            self._limit = kept[-1]

    def merge(self, other: UnitCount) -> None:
        self.add(other._kept)

    def value(self) -> int:
        if len(self._kept) < KEPT:
            return len(self._kept)
        return round((KEPT - 1) * 2.0**64 / (float(self._kept[-1]) + 1.0))
