"""A hashed model scores every row as a plain reading of its documentation would, whatever the batch or the type."""

from __future__ import annotations

import datetime as dt
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.errors import ModelError
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, hash_matrix, pack_hashed
from bidsim.models.columns import Columns, HashCache, hash_term, split_list
from bidsim.models.manifest import Scale

FEATURES = (
    Feature(name="ad", type="categorical", column="ad_id"),
    Feature(name="os", type="categorical"),
    Feature(name="x", type="numeric"),
    Feature(name="tags", type="list"),
)
SPEC = HashedSpec(
    bits=7,  # few, so that terms collide
    features=("ad", "os", "x", "tags"),
    crosses=(("ad", "os"),),
    scaling={"x": Scale(mean=1.5, scale=2.0)},
)
MODEL = HashedLogisticRegression(SPEC, FEATURES, np.random.default_rng(7).normal(size=128).astype(np.float32), -1.25)


def index(*parts: str) -> int:
    """The documented hash, written a second time."""
    data = b"".join(len(part.encode()).to_bytes(4, "little") + part.encode() for part in parts)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") % 128


def reference(row: dict[str, Any]) -> float:
    """One row, in plain Python."""
    ad = "" if row["ad_id"] is None else str(row["ad_id"])
    os = row["os"] or ""
    tags = {part.strip() for part in (row["tags"] or "").split(",")} - {""} or {""}
    z = -1.25
    z += float(MODEL.weights[index("ad", ad)]) + float(MODEL.weights[index("os", os)])
    if row["x"] is not None and not math.isnan(row["x"]):
        z += float(MODEL.weights[index("x")]) * (row["x"] - 1.5) / 2.0
    z += sum(float(MODEL.weights[index("tags", tag)]) for tag in tags)
    z += float(MODEL.weights[index("ad", "os", ad, os)])
    return 1 / (1 + math.exp(-z))


SCHEMA = pa.schema([("ad_id", pa.int64()), ("os", pa.string()), ("x", pa.float64()), ("tags", pa.string())])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "ad_id": st.none() | st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
            "os": st.none() | st.sampled_from(["", "ios", "アンドロイド", "a\x00b"]) | st.text(max_size=3),
            "x": st.none() | st.floats(-20, 20) | st.just(float("nan")),
            "tags": st.none() | st.sampled_from(["", "1", "1,2", " 1 ,,2,1", "3,2"]),
        }
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_scores_equal_a_row_by_row_reference(rows: list[dict[str, Any]]) -> None:
    got = MODEL.predict_table(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [reference(row) for row in rows], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS.filter(len))
def test_training_sees_what_scoring_sees(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    z = hash_matrix(table, SPEC, FEATURES) @ MODEL.weights.astype(np.float64) + MODEL.bias
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), MODEL.predict_table(table), rtol=1e-12)


def test_the_hash_is_a_file_format() -> None:
    assert hash_term(["ad_id", "101"]) == 9069891891826557476
    assert hash_term(["os", ""]) == 6263745357297419891
    assert hash_term(["ad_id", "os", "101", "ios"]) == 8079709929312093227
    assert hash_term(["日", "本"]) == 2550073604478954243


def test_a_row_gets_the_same_score_in_any_batch_on_any_thread(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    n = 5000
    table = pa.table(
        {
            "ad_id": draw.integers(0, 3000, n),
            "os": draw.choice(["ios", "android"], n),
            "x": draw.normal(size=n),
            "tags": [",".join(map(str, draw.integers(0, 9, 3))) for _ in range(n)],
        }
    )
    scorer = pack_hashed(tmp_path / "m.bin", {"ctr": MODEL}).scorer()
    whole = scorer.score(table.combine_chunks().to_batches()[0])["ctr"]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda batch: scorer.score(batch)["ctr"], table.to_batches(max_chunksize=333)))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_full_cache_forgets_and_still_answers_right() -> None:
    small, none = HashCache(limit=10), HashCache(limit=0)
    for start in range(0, 40, 4):
        values = [str(i) for i in range(start, start + 7)]
        expected = [hash_term(["a", value]) for value in values]
        assert small.hash_values(("a",), values).tolist() == expected
        assert none.hash_values(("a",), values).tolist() == expected
        assert len(small._terms[("a",)]) <= 10


IDS = [3, 10, None, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(IDS, pa.int8()),
        pa.array(IDS, pa.uint64()),
        pa.array(IDS, pa.float64()),
        pa.array([3.0, 10.0, float("nan"), 3.0], pa.float32()),
        pa.array([3, 10, None, 3], pa.decimal128(10, 2)),
        pa.array([Decimal("3"), Decimal("10"), None, Decimal("3")]),
        pa.array(["3", "10", None, "3"]),
        pa.array(["3", "10", "", "3"], pa.large_string()),
        pa.array([b"3", b"10", None, b"3"]),
        pa.array(["3", "10", None, "3"], pa.string_view()),
        pa.array(["3", "10", None, "3"]).dictionary_encode(),
        pa.array(IDS).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["3", "10", None])),
        pa.array([None, *IDS])[1:],
    ],
    ids=lambda column: str(column.type),
)
def test_an_id_is_the_same_category_whatever_its_type(column: pa.Array) -> None:
    spec = HashedSpec(bits=7, features=("ad",))
    model = HashedLogisticRegression(spec, FEATURES, MODEL.weights, 0.0)
    expected = model.predict_table(pa.table({"ad_id": IDS}))
    np.testing.assert_array_equal(model.predict_table(pa.table({"ad_id": column})), expected)


def category(column: pa.Array) -> list[str]:
    batch = pa.RecordBatch.from_arrays([column], ["ad_id"])
    codes, values = Columns(batch, FEATURES, cache=HashCache(), file="m.bin").category("ad")
    return [values[code] for code in codes]


def test_canonical_values() -> None:
    assert category(pa.array([True, False, None])) == ["true", "false", ""]
    assert category(pa.array([dt.date(2026, 11, 1)])) == ["2026-11-01"]
    assert category(pa.array([-0.0, 1e18])) == ["0", "1000000000000000000"]
    assert category(pa.array([None, None])) == ["", ""]
    assert category(pa.array([" A", "a"])) == [" A", "a"]
    assert category(pa.array([2**53 + 1])) == ["9007199254740993"]


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("ad_id", pa.array([dt.datetime(2026, 11, 1)]), ['feature "ad"', "categorical", 'column "ad_id"', "timestamp"]),
        ("ad_id", pa.array([7.5]), ["7.5", "not whole"]),
        ("ad_id", pa.array([float("inf")]), ["inf"]),
        ("ad_id", pa.array([b"\xff"]), ["UTF-8"]),
        ("ad_id", pa.array([[1]]), ["list"]),
        ("x", pa.array(["1.5"]), ['feature "x"', "numeric", "string"]),
        ("x", pa.array([dt.date(2026, 11, 1)]), ["date32"]),
        ("tags", pa.array([[1.5]]), ["list"]),
    ],
)
def test_a_column_that_the_feature_cannot_take_is_named(
    tmp_path: Path, name: str, column: pa.Array, words: list[str]
) -> None:
    table = pa.table({"ad_id": [1], "os": ["ios"], "x": [1.0], "tags": ["1"]})
    table = table.set_column(table.schema.get_field_index(name), name, column)
    scorer = pack_hashed(tmp_path / "m.bin", {"ctr": MODEL}).scorer()
    with pytest.raises(ModelError, match=r"m\.bin") as caught:
        scorer.score(table.to_batches()[0])
    for word in words:
        assert word in str(caught.value)


def test_a_missing_or_doubled_column_is_named(tmp_path: Path) -> None:
    scorer = pack_hashed(tmp_path / "m.bin", {"ctr": MODEL}).scorer()
    with pytest.raises(ModelError, match='"ad_id", of which the log has no'):
        scorer.score(pa.RecordBatch.from_pydict({"os": ["ios"]}))
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([1])], ["ad_id", "ad_id"])
    with pytest.raises(ModelError, match="more than one"):
        scorer.score(twice)


def test_lists_come_as_text_or_as_lists() -> None:
    model = HashedLogisticRegression(HashedSpec(bits=7, features=("tags",)), FEATURES, MODEL.weights, 0.0)
    text = model.predict_table(pa.table({"tags": ["10129,10024", "", None, "5"]}))
    for kind in (pa.list_(pa.int64()), pa.list_(pa.string()), pa.large_list(pa.int32())):
        values = [[10129, 10024], [], None, [5]]
        if kind == pa.list_(pa.string()):
            values = [v and [str(i) for i in v] for v in values]
        np.testing.assert_array_equal(model.predict_table(pa.table({"tags": pa.array(values, kind)})), text)


def test_an_infinite_number_leaves_the_prediction_undefined() -> None:
    table = pa.table({"ad_id": [1, 1], "os": ["ios"] * 2, "x": [float("inf"), 1.0], "tags": ["1"] * 2})
    assert np.isnan(MODEL.predict_table(table)).tolist() == [True, False]
    with pytest.raises(ModelError, match="infinite"):
        hash_matrix(table, SPEC, FEATURES)


def test_huge_scores_saturate_without_a_warning() -> None:
    weights = np.full(128, 1000, dtype=np.float32)
    table = pa.table({"x": [1e6, -1e6]})
    model = HashedLogisticRegression(HashedSpec(bits=7, features=("x",)), FEATURES, weights, 0.0)
    with np.errstate(all="raise"):
        assert model.predict_table(table).tolist() == [1.0, 0.0]


def test_no_rows_give_no_scores(tmp_path: Path) -> None:
    scorer = pack_hashed(tmp_path / "m.bin", {"ctr": MODEL}).scorer()
    assert scorer.score(pa.RecordBatch.from_pylist([], schema=SCHEMA))["ctr"].shape == (0,)
    assert hash_matrix(pa.Table.from_pylist([], schema=SCHEMA), SPEC, FEATURES).shape == (0, 128)


def test_heads_must_agree_on_features(tmp_path: Path) -> None:
    other = (Feature(name="ad", type="categorical"), *FEATURES[1:])
    with pytest.raises(ModelError, match='disagree about feature "ad"'):
        pack_hashed(
            tmp_path / "m.bin", {"ctr": MODEL, "cvr": HashedLogisticRegression(SPEC, other, MODEL.weights, 0.0)}
        )


def test_a_missing_value_in_a_list_leaves_the_others() -> None:
    lists = [[9], [1, None, 2], None, [], [None], [3], [4]]
    feature = Feature(name="tags", type="list")
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.string())):
        given = [row and [v if v is None or kind.value_type != pa.string() else str(v) for v in row] for row in lists]
        batch = pa.RecordBatch.from_arrays([pa.array(given, kind).slice(1, 5)], ["tags"])
        codes, values = Columns(batch, (feature,), cache=HashCache(0), file="").category("tags")
        assert [split_list(values[code]) for code in codes] == [["1", "2"], [""], [""], [""], ["3"]]
