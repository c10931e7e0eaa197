"""Log columns as a model's features: numbers, categories, lists of values, and their hashes.

What costs Python objects is done once per distinct value, never per row, and shared by all heads; the hashes of whole
numbers and texts are remembered across batches and found without looking at values one by one (`keys`).

**Canonical values.** A category is a text whatever type the log gives it, so that the same id as BIGINT, VARCHAR or
DOUBLE is the same category: integers in decimal without leading zeros, `true` / `false`, dates as YYYY-MM-DD, floats
and decimals only where they are whole (7.0 is "7"; 7.5 is refused), text as it is (no trimming, no case folding),
binary as UTF-8. NULL and NaN are the category "", as is the empty text.
A list is split at commas, each part trimmed, empty parts and repetitions dropped; no part at all is the one value "".

**Hashes.** A term is the UTF-8 texts of its feature names, then of its values, each after its length in bytes as a
little-endian 32-bit number; its hash is BLAKE2b with an 8-byte digest, read as a little-endian 64-bit number. Terms
are [name] for a numeric feature, [name, value] for a category or one value of a list, and
[name1, name2, value1, value2] for a cross. This is a file format: it can't change without a new format name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bidsim.arrays import array_of, texts_of, values_of
from bidsim.errors import ModelError
from bidsim.kernels.reference import Floats, Keys
from bidsim.models.keys import Derive, Hashes, KeyTable, keys_of
from bidsim.models.manifest import Feature

Codes = NDArray[np.int64]
CACHED_VALUES = 1 << 17
_LENGTH = struct.Struct("<I")


def hash_term(parts: Iterable[str]) -> int:
    """The 64-bit hash of a term, as this module's docstring defines it."""
    return _digest(b"".join(_measured(part) for part in parts))


class HashCache:
    """Hashes of values seen before, bounded per term, for one scorer.

    Threads share it without a lock: single dict operations are atomic, and two threads can only store the same hash.
    """

    def __init__(self, limit: int = CACHED_VALUES) -> None:
        self._limit = limit
        self._terms: dict[tuple[str, ...], dict[Any, int]] = {}
        self._tables: dict[tuple[str, str, int], KeyTable] = {}

    def table(self, name: str, kind: str, words: int) -> KeyTable | None:
        """The table of one categorical feature for keys of so many words; None where nothing is remembered."""
        if not self._limit:
            return None
        # setdefault: of two threads that come first, both get the same table.
        place = (name, kind, words)
        return self._tables.get(place) or self._tables.setdefault(place, KeyTable(words, self._limit))

    def hash_values(self, names: tuple[str, ...], values: Sequence[Any]) -> NDArray[np.uint64]:
        """Hashes of the values of one term. values: texts, or tuples of texts for a cross of several names."""
        known = self._terms.setdefault(names, {})
        hashes: list[int | None] = list(map(known.get, values))
        if None in hashes:
            unknown = [value for value, hashed in zip(values, hashes, strict=True) if hashed is None]
            tails = map(_measured, unknown) if len(names) == 1 else (b"".join(map(_measured, v)) for v in unknown)
            fresh = dict(zip(unknown, _hash_each(names, tails), strict=True))
            if len(fresh) == len(hashes):
                hashes = list(fresh.values())
            else:
                hashes = [fresh[v] if hashed is None else hashed for v, hashed in zip(values, hashes, strict=True)]
            if len(known) + len(fresh) > self._limit:
                known.clear()
            if len(fresh) <= self._limit:
                known.update(fresh)
        return np.array(hashes, dtype=np.uint64)


@dataclass(frozen=True)
class Term:
    """Hashes of one term for every row: row i has hashes[starts[codes[i]] : starts[codes[i] + 1]].

    codes: shape (rows,). starts: shape (distinct + 1,), strictly increasing; None where each value has one hash.
    hashes: shape (starts[-1],). Where codes is None, row i has hashes[i].
    """

    codes: Codes | None
    hashes: NDArray[np.uint64]
    starts: Codes | None = None


@dataclass(frozen=True)
class _Keyed:
    """A column's keys, the table that knows most of their hashes, and what hashes the rows that it doesn't know."""

    table: KeyTable
    keys: Keys
    hash_rows: Callable[[Codes], Hashes]


class Columns:
    """One batch seen through the features of a model. Not shared between threads."""

    def __init__(self, batch: pa.RecordBatch, features: Iterable[Feature], *, cache: HashCache, file: str) -> None:
        self._batch = batch
        self._features = {feature.name: feature for feature in features}
        self._cache = cache
        self._file = file
        self._encoded: dict[str, tuple[Codes, list[str]]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._terms: dict[tuple[str, ...], Term] = {}
        self._keyed: dict[str, _Keyed | None] = {}

    @property
    def rows(self) -> int:
        return int(self._batch.num_rows)

    def feature(self, name: str) -> Feature:
        return self._features[name]

    def array(self, name: str) -> pa.Array:
        """The log column of a feature as it is, dictionaries resolved."""
        source = self._features[name].source
        places = self._places.get(source, ())
        if len(places) != 1:
            count = "no" if not places else "more than one"
            raise ModelError(f'feature "{name}" needs column "{source}", of which the log has {count}', file=self._file)
        array = self._batch.column(places[0])
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        return array

    def numeric(self, name: str) -> NDArray[np.float64]:
        """A numeric feature, shape (rows,), NaN where it is missing."""
        if name not in self._numbers:
            array = self.array(name)
            kind = array.type
            if not (_is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
                raise self.unfit(name, kind)
            if pa.types.is_boolean(kind):
                array = array.cast(pa.uint8())
            self._numbers[name] = values_of(array.cast(pa.float64(), safe=False), np.nan)
        return self._numbers[name]

    def category(self, name: str) -> tuple[Codes, list[str]]:
        """A categorical or list feature: codes of shape (rows,) into its distinct canonical values; "" is missing."""
        if name not in self._encoded:
            cross = self._features[name].cross
            self._encoded[name] = self._encode(name) if cross is None else self._join_values(name, cross)
        return self._encoded[name]

    def term(self, names: tuple[str, ...]) -> Term:
        """Hashes of one category or list, or of a cross of several categories."""
        if names not in self._terms:
            if len(names) > 1:
                codes, combinations = self._combine(names)
                self._terms[names] = Term(codes, self._cache.hash_values(names, combinations))
            elif self._features[names[0]].type == "list":
                self._terms[names] = self._list_term(names[0])
            else:
                keyed = self._keys(names[0])
                if keyed is None:
                    self._terms[names] = self._category_term(names[0])
                else:
                    self._terms[names] = Term(None, keyed.table.find(keyed.keys, keyed.hash_rows).hashes)
        return self._terms[names]

    def add(self, names: tuple[str, ...], owner: object, derive: Derive, sums: Floats) -> bool:
        """Add derive(hash of the term) to each row's sum, by what was derived for values seen before.

        owner: derives the same from the same hash for ever. False, with nothing added, where nothing is remembered: use
        `term`.
        """
        keyed = self._keys(names[0]) if len(names) == 1 else None
        if keyed is None:
            return False
        keyed.table.add(keyed.keys, keyed.hash_rows, owner, derive, sums)
        return True

    def unfit(self, name: str, kind: pa.DataType, why: str = "") -> ModelError:
        """The error for a column whose type or content the feature can't take."""
        feature = self._features[name]
        return ModelError(
            f'feature "{name}" is {feature.type} in the model, but column "{feature.source}" is {kind} in the log'
            f"{why}; cast the column in the log or pack the model with another feature type",
            file=self._file,
        )

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self._batch.schema.names):
            places.setdefault(name, []).append(place)
        return places

    def _encode(self, name: str) -> tuple[Codes, list[str]]:
        array = self.array(name)
        kind = array.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if self._features[name].type != "list":
                raise self.unfit(name, kind)
            array = self._join(name, array)
        elif not _is_category(array.type):
            raise self.unfit(name, kind)
        if not (_is_number(kind) or pa.types.is_boolean(kind)):
            array = self._as_text(name, array)
        if pa.types.is_null(kind):
            return np.zeros(self.rows, dtype=np.int64), [""]
        return self._distinct(name, array)

    def _as_text(self, name: str, array: pa.Array) -> pa.Array:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            return array
        try:
            return array.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise self.unfit(name, array.type, " and not UTF-8") from error

    def _distinct(self, name: str, array: pa.Array) -> tuple[Codes, list[str]]:
        encoded = array.dictionary_encode()
        values = self._canonical(name, encoded.dictionary)
        codes = encoded.indices
        rows = values_of(codes, len(values)).astype(np.int64)
        if codes.null_count:
            values.append("")
        return rows, values

    def _canonical(self, name: str, distinct: pa.Array) -> list[str]:
        kind = distinct.type
        if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            return texts_of(distinct)
        values = []
        for number in distinct.to_pylist():
            if number != number:
                values.append("")
            elif number in (float("inf"), float("-inf")) or number != int(number):
                raise self.unfit(name, kind, f" and holds {number}, which is not whole")
            else:
                values.append(str(int(number)))
        return values

    def _join(self, name: str, array: pa.Array) -> pa.Array:
        kind = array.type.value_type
        if not (pa.types.is_integer(kind) or _is_text(kind)):
            raise self.unfit(name, array.type)
        texts = array.cast(pa.list_(pa.string()))
        if texts.values.null_count:  # a missing value is an empty part, else all of its list would be missing
            offsets = array_of(values_of(texts.offsets))
            texts = pa.ListArray.from_arrays(offsets, texts.values.fill_null(""), mask=texts.is_null())
        return pc.binary_join(texts, ",")

    def _category_term(self, name: str) -> Term:
        codes, values = self.category(name)
        return Term(codes, self._cache.hash_values((name,), values))

    def _keys(self, name: str) -> _Keyed | None:
        """A category by its values' keys; None where the column's type has none, or nothing is kept."""
        if name not in self._keyed:
            self._keyed[name] = self._find(name)
        return self._keyed[name]

    def _find(self, name: str) -> _Keyed | None:
        if not self.rows or self._features[name].type == "list" or self._features[name].cross:
            return None
        column = self.array(name)
        array = self._as_text(name, column) if _is_text(column.type) else column
        keys = keys_of(array)
        table = None if keys is None else self._cache.table(name, str(array.type), len(keys))
        if keys is None or table is None:
            return None

        def hash_rows(rows: Codes) -> NDArray[np.uint64]:
            some = array if len(rows) == len(array) else array.take(array_of(rows))
            codes, values = self._distinct(name, some)
            return np.array(_hash_each((name,), map(_measured, values)), dtype=np.uint64)[codes]

        return _Keyed(table, keys, hash_rows)

    def _combine(self, names: tuple[str, ...]) -> tuple[Codes, list[tuple[str, ...]]]:
        codes, values = self.category(names[0])
        combinations: list[tuple[str, ...]] = [(value,) for value in values]
        for name in names[1:]:
            other, values = self.category(name)
            joint = codes * len(values) + other
            encoded = array_of(joint).dictionary_encode()
            codes = values_of(encoded.indices).astype(np.int64)
            pairs = values_of(encoded.dictionary).tolist()
            combinations = [(*combinations[pair // len(values)], values[pair % len(values)]) for pair in pairs]
        return codes, combinations

    def _join_values(self, name: str, cross: tuple[str, ...]) -> tuple[Codes, list[str]]:
        separator = self._features[name].separator
        codes, combinations = self._combine(cross)
        between = "_" if separator is None else separator
        return codes, [between.join(values) if all(values) else "" for values in combinations]

    def _list_term(self, name: str) -> Term:
        codes, values = self.category(name)
        parts = [split_list(value) for value in values]
        hashes = self._cache.hash_values((name,), [part for each in parts for part in each])
        starts = np.concatenate([[0], np.cumsum([len(each) for each in parts])]).astype(np.int64)
        return Term(codes, hashes, starts)


def table_columns(table: pa.Table | pa.RecordBatch, features: tuple[Feature, ...]) -> Columns:
    """A whole table as one batch."""
    if isinstance(table, pa.Table):
        batches = table.combine_chunks().to_batches()
        table = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    return Columns(table, features, cache=HashCache(0), file="")


def split_list(text: str) -> list[str]:
    """The distinct values of a list in order of appearance; [""] where there is none."""
    return list(dict.fromkeys(part for part in map(str.strip, text.split(",")) if part)) or [""]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string_view(kind)
    )


def _is_category(kind: pa.DataType) -> bool:
    others = pa.types.is_boolean(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)
    return bool(_is_number(kind) or _is_text(kind) or others)


def _measured(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _hash_each(names: tuple[str, ...], tails: Iterable[bytes]) -> list[int]:
    """Hashes of terms of the same names. tails: the values of each, measured."""
    prefix = b"".join(map(_measured, names))
    return [_digest(prefix + tail) for tail in tails]


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
