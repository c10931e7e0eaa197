"""The compiled loops, called through ctypes (which lets other threads run meanwhile); signatures as in reference.py.

The library lies beside this file when the installation could build it. It is given addresses, so every array is checked
here: its type, that it is contiguous, and that it is as long as the loop reads. What an index may reach is the caller's
promise, as it is in numpy's bincount.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.kernels.reference import Bytes, Floats, Ints, Keys, Wide

NAME = "_kernels.so"
# Changes with every change of what a function takes: a library that was left from another version is not used.
VERSION = 3

_I, _D, _P = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


def load() -> Compiled | None:
    """The library, or None where there is none that fits or the environment asks for numpy."""
    file = Path(__file__).with_name(NAME)
    if os.environ.get("BIDSIM_KERNELS") == "numpy" or not file.exists():
        return None
    try:
        library = ctypes.CDLL(str(file))
        version: int = library.version()
    except (OSError, AttributeError):
        return None
    return Compiled(library) if version == VERSION else None


def _at(array: npt.NDArray[Any] | None, kind: type, length: int) -> int | None:
    """The address of an array that the loop may read `length` entries of."""
    if array is None:
        return None
    if array.dtype != kind or not array.flags.c_contiguous or array.size < length:
        raise ValueError(f"{array.dtype} array of shape {array.shape} where {length} x {kind.__name__} are needed")
    return array.ctypes.data


class Compiled:
    """The functions of reference.py."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.sum_fixed.restype = _I
        library.sum_fixed.argtypes = [_I, _P, _P, _P, _D, _D, _I, _P, _P]
        library.sum_ones.argtypes = [_I, _P, _I, _P, _P]
        library.sum_ints.argtypes = [_I, _P, _P, _I, _P, _P]
        library.places.argtypes = [_I, _P, _P, _I, _I, _I, _P, _P, _I, _P]
        library.rank.argtypes = [_I, _P, _P, _P, _P, _P, _I, _I, _I, _P, _P, _I, _P, _P, _P, _P]
        library.cells.argtypes = [_I, _P, _P, _P, _P, _I, _I, _I, _P, _P]
        library.utility.argtypes = [_I, _P, _P, _P, _P, _P, _D, _D, _I, _I, _I, _P, _I, _P, _P]
        library.text_keys.argtypes = [_I, _P, _I, _P, _P, _I, _I, _P]
        library.find_keys.restype = _I
        library.find_keys.argtypes = [_I, _I, _P, _I, _P, _I, _P, _P]
        library.add_found.restype = _I
        library.add_found.argtypes = [_I, _I, _P, _I, _P, _I, _P, _P, _P]
        for name in ("text_keys", "sum_ones", "sum_ints", "places", "rank", "cells", "utility"):
            getattr(library, name).restype = None

    def sum_ones(self, n: int, rows: Ints | None, groups: Sequence[Ints], sums: Sequence[Wide]) -> None:
        self._library.sum_ones(n, _at(rows, np.int64, n), len(groups), *_families(n, rows, groups, sums))

    def sum_ints(self, n: int, rows: Ints | None, values: Ints, groups: Sequence[Ints], sums: Sequence[Wide]) -> None:
        values = np.ascontiguousarray(values, dtype=np.int64)
        at = _at(rows, np.int64, n), _at(values, np.int64, n)
        self._library.sum_ints(n, *at, len(groups), *_families(n, rows, groups, sums))

    def sum_fixed(
        self,
        n: int,
        rows: Ints | None,
        values: Floats,
        weights: Floats | None,
        scale: float,
        most: float,
        groups: Sequence[Ints],
        sums: Sequence[Wide],
    ) -> int:
        values = np.ascontiguousarray(values, dtype=np.float64)
        at = _at(rows, np.int64, n), _at(values, np.float64, n), _at(weights, np.float64, 0)
        families = _families(n, rows, groups, sums)
        return int(self._library.sum_fixed(n, *at, scale, most, len(groups), *families))

    def places(
        self,
        bits: Ints,
        code: Ints | None,
        lowest: int,
        span: int,
        shift: int,
        table: npt.NDArray[np.int32],
        keys: Ints,
    ) -> Ints:
        n = len(bits)
        out = np.empty(n, dtype=np.int64)
        if n == 0:
            return out
        at = _at(bits, np.int64, n), _at(code, np.int64, n)
        cuts = _at(table, np.int32, 2), _at(keys, np.int64, 1), len(keys)
        self._library.places(n, *at, lowest, span, shift, *cuts, out.ctypes.data)
        return out

    def rank(
        self,
        n: int,
        rows: Ints | None,
        bits: Ints,
        code: Ints | None,
        counts: Ints | None,
        weights: Floats | None,
        cuts: tuple[int, int, int, npt.NDArray[np.int32], Ints],
        beaten: Floats,
        histogram: Ints,
        group: Ints,
        lost: Wide,
    ) -> None:
        if n == 0:
            return
        lowest, span, shift, table, keys = cuts
        length = n if rows is None else 0
        self._library.rank(
            n,
            _at(rows, np.int64, n),
            _at(bits, np.int64, n),
            _at(code, np.int64, length),
            _at(counts, np.int64, n),
            _at(weights, np.float64, length),
            lowest,
            span,
            shift,
            _at(table, np.int32, 2),
            _at(keys, np.int64, 1),
            len(keys),
            _at(beaten, np.float64, 2 * len(keys) + 1),
            _at(histogram, np.int64, 2 * len(keys) + 1),
            _at(group, np.int64, length),
            _at(lost, np.uint64, 0),
        )

    def cells(
        self,
        n: int,
        rows: Ints | None,
        bits: Ints,
        code: Ints | None,
        counts: Ints | None,
        shift: int,
        first: int,
        span: int,
        total: Ints,
        low: Ints | None,
    ) -> None:
        at = _at(rows, np.int64, n), _at(bits, np.int64, n), _at(code, np.int64, n if rows is None else 0)
        sums = _at(total, np.int64, span), _at(low, np.int64, span)
        self._library.cells(n, *at, _at(counts, np.int64, n), shift, first, span, *sums)

    def utility(
        self,
        n: int,
        rows: Ints | None,
        price: Floats,
        bid: Floats,
        value: Floats,
        first: npt.NDArray[np.uint8] | None,
        beta: float,
        far: float,
        shape_bits: int,
        octaves: int,
        deviation_steps: int,
        table: Floats,
        normal: Floats,
    ) -> Floats:
        length = n if rows is None else 0
        out = np.empty(n)
        columns = [_at(column, np.float64, length) for column in (price, bid, value)]
        kind = _at(first, np.uint8, length)
        tables = _at(table, np.float64, 1), table.shape[1], _at(normal, np.float64, table.shape[1] + 2)
        self._library.utility(
            n, _at(rows, np.int64, n), *columns, kind, beta, far, shape_bits, octaves, deviation_steps, *tables,
            out.ctypes.data,
        )  # fmt: skip
        return out

    def text_keys(
        self, offsets: npt.NDArray[np.signedinteger[Any]], missing: Bytes | None, content: Bytes, words: int
    ) -> Keys:
        n = len(offsets) - 1
        keys = np.empty((words, n), dtype=np.uint64)
        long = offsets.dtype == np.int64
        where = _at(offsets, np.int64 if long else np.int32, n + 1), long, _at(missing, np.uint8, n)
        self._library.text_keys(n, *where, _at(content, np.uint8, 0), len(content), words, keys.ctypes.data)
        return keys

    def find_keys(self, known: Keys, keys: Keys, probes: int) -> tuple[Ints, Ints]:
        keys = np.ascontiguousarray(keys)
        words, n = keys.shape
        size = known.shape[1]
        slots, unknown = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        at = n, words, _at(keys, np.uint64, words * n), size, _at(known, np.uint64, words * size), probes
        return slots, unknown[: int(self._library.find_keys(*at, slots.ctypes.data, unknown.ctypes.data))]

    def add_found(self, known: Keys, keys: Keys, probes: int, derived: Floats, sums: Floats) -> Ints:
        keys = np.ascontiguousarray(keys)
        words, n = keys.shape
        size = known.shape[1]
        unknown = np.empty(n, dtype=np.int64)
        at = n, words, _at(keys, np.uint64, words * n), size, _at(known, np.uint64, words * size), probes
        values = _at(derived, np.float64, size), _at(sums, np.float64, n)
        return unknown[: int(self._library.add_found(*at, *values, unknown.ctypes.data))]


def _families(n: int, rows: Ints | None, groups: Sequence[Ints], sums: Sequence[Wide]) -> tuple[Any, Any]:
    length = n if rows is None else 0
    pointers = _P * len(groups)
    return (
        pointers(*(_at(group, np.int64, length) for group in groups)),
        pointers(*(_at(each, np.uint64, 0) for each in sums)),
    )
