"""Keys tell all values apart, and the table of keys answers as a dict would, however full it is and whoever asks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bidsim.models import Feature
from bidsim.models.columns import Columns, HashCache, hash_term
from bidsim.models.keys import PROBES, KeyTable, keys_of

TEXTS = st.none() | st.sampled_from(["", "\x00", "\x00\x00", "a", "a\x00", "1234567", "12345678", "1234567\x00"])
ANY = TEXTS | st.text(max_size=12) | st.text("ab\x00", min_size=5, max_size=45)
OWNER = object()
FEATURE = (Feature(name="a", type="categorical"),)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(ANY, min_size=1, max_size=40), before=st.integers(0, 3), large=st.booleans())
def test_texts_share_a_key_only_where_they_are_equal(values: list[str | None], before: int, large: bool) -> None:
    kind = pa.large_string() if large else pa.string()
    array = pa.array([*["before"] * before, *values, "after"], kind)[before : before + len(values)]
    keys = keys_of(array)
    assert keys is not None
    texts = [value or "" for value in values]
    has = keys[-1] != 0
    assert has.tolist() == [len(text.encode()) < 8 * len(keys) for text in texts]
    # Every text of up to 39 bytes has a key.
    assert all(h or len(text.encode()) > 39 for h, text in zip(has, texts, strict=True))
    for i, j in np.ndindex(len(texts), len(texts)):
        if has[i] and has[j]:
            assert (keys[:, i] == keys[:, j]).all() == (texts[i] == texts[j])


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), min_size=1, max_size=30))
def test_numbers_share_a_key_only_where_they_are_equal(values: list[int | None]) -> None:
    keys = keys_of(pa.array(values, pa.int64()))
    assert keys is not None
    for i, j in np.ndindex(len(values), len(values)):
        assert (keys[:, i] == keys[:, j]).all() == (values[i] == values[j])


def test_other_types_have_no_keys() -> None:
    assert keys_of(pa.array([1.0])) is None
    assert keys_of(pa.array([True])) is None


def fake_hashes(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.asarray(keys[0] ^ np.uint64(12345))


def look_up(table: KeyTable, numbers: Any) -> NDArray[np.uint64]:
    keys = keys_of(pa.array(numbers, pa.int64()))
    assert keys is not None
    found = table.find(keys, lambda rows: fake_hashes(keys[:, rows]))
    sums = np.full(len(found.hashes), 0.5)
    table.add(keys, lambda rows: fake_hashes(keys[:, rows]), OWNER, lambda hashes: hashes * 3.0, sums)
    np.testing.assert_array_equal(sums, 0.5 + found.hashes * 3.0)
    np.testing.assert_array_equal(found.hashes, fake_hashes(keys))
    return found.hashes


@pytest.mark.parametrize("limit", [0, 10, 3000, 1 << 17])
def test_the_table_answers_right_however_little_it_may_keep(limit: int) -> None:
    draw = np.random.default_rng(1)
    table = KeyTable(1, limit)
    for highest in (5, 50, 500, 4000, 4000, 100_000, 5):
        look_up(table, draw.integers(-highest, highest, 3000))
        assert np.count_nonzero(table._at.keys[-1]) <= limit


def test_what_is_known_is_not_hashed_again() -> None:
    table = KeyTable(1, 1 << 17)
    keys = keys_of(pa.array(range(50_000)))
    assert keys is not None
    table.find(keys, lambda rows: fake_hashes(keys[:, rows]))
    asked: list[int] = []

    def count(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        asked.append(len(rows))
        return fake_hashes(keys[:, rows])

    table.find(keys, count)
    assert sum(asked) < 5  # a value may find no free place


def test_values_that_all_want_the_same_place_are_still_right() -> None:
    """Numbers whose keys, times the table's factor, begin alike: the inverse of the factor undoes the spreading."""
    factor = 0x9E3779B97F4A7C15
    inverse = pow(factor, -1, 2**64)
    numbers = np.array([(i * inverse - factor) % 2**64 for i in range(200)], dtype=np.uint64).view(np.int64)
    table = KeyTable(1, 1 << 17)
    for _ in range(2):
        look_up(table, numbers)
        assert np.count_nonzero(table._at.keys[-1]) == PROBES


def test_threads_that_fill_one_table_agree() -> None:
    table = KeyTable(1, 5000)  # starts again now and then
    parts = [np.random.default_rng(seed).integers(0, 4000 + 100 * seed, 2000) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda numbers: look_up(table, numbers), parts))


def test_threads_that_first_ask_for_an_owner_at_once_share_what_is_derived() -> None:
    """Of two arrays only one would learn of entries that come: sums of the other thread would lack them, some runs."""
    table = KeyTable(1, 1000)
    threads = 8
    ready, derived = threading.Barrier(threads), []

    def derive(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
        derived.append(1)
        time.sleep(0.05)  # the others come meanwhile
        return hashes.astype(np.float64)

    def ask(_: int) -> int:
        ready.wait()
        return id(table.derived(table._at, OWNER, derive))

    with ThreadPoolExecutor(threads) as pool:
        assert len(set(pool.map(ask, range(threads)))) == 1
    assert len(derived) == 1


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(ANY, max_size=20), max_size=4))
def test_hashes_are_the_documented_ones_in_every_batch(batches: list[list[str | None]]) -> None:
    cache = HashCache(limit=30)
    for values in batches:
        batch = pa.RecordBatch.from_arrays([pa.array(values, pa.string())], ["a"])
        term = Columns(batch, FEATURE, cache=cache, file="").term(("a",))
        expected = [hash_term(["a", value or ""]) for value in values]
        got = term.hashes if term.codes is None else term.hashes[term.codes]
        assert got.tolist() == expected


def test_the_same_number_is_the_same_category_in_every_type_of_a_log() -> None:
    cache = HashCache()
    expected = [hash_term(["a", text]) for text in ("3", "", "18446744073709551615", "3")]
    for kind, values in (
        (pa.uint64(), [3, None, 2**64 - 1, 3]),
        (pa.string(), ["3", None, "18446744073709551615", "3"]),
        (pa.string_view(), ["3", "", "18446744073709551615", "3"]),
    ):
        batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], ["a"])
        for _ in range(2):
            assert Columns(batch, FEATURE, cache=cache, file="").term(("a",)).hashes.tolist() == expected
    minus = pa.RecordBatch.from_arrays([pa.array([-1, 3])], ["a"])
    expected = [hash_term(["a", "-1"]), hash_term(["a", "3"])]
    assert Columns(minus, FEATURE, cache=cache, file="").term(("a",)).hashes.tolist() == expected
