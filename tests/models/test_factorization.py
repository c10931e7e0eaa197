"""A factorization machine is the plain sum over pairs of terms that its paper writes, and travels in a bundle."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.errors import ModelError
from bidsim.models import (
    Bundle,
    FactorizationMachine,
    FactorizationSpec,
    Feature,
    HashedLogisticRegression,
    HashedSpec,
    open_bundle,
    pack_factorization,
    pack_native,
    write_bundle,
)
from bidsim.models.columns import hash_term
from bidsim.models.manifest import Scale
from tests.command import bidsim, write_log, write_scenario

FEATURES = (
    Feature(name="ad", type="categorical", column="ad_id"),
    Feature(name="os", type="categorical"),
    Feature(name="x", type="numeric"),
    Feature(name="y", type="numeric"),
    Feature(name="tags", type="list"),
)
SPEC = FactorizationSpec(
    bits=6,  # few, so that terms collide
    factors=3,
    features=("ad", "os", "x", "y", "tags"),
    crosses=(("ad", "os"),),
    scaling={"x": Scale(mean=1.5, scale=2.0)},
)
DRAW = np.random.default_rng(11)
MODEL = FactorizationMachine(
    SPEC, FEATURES, DRAW.normal(size=64).astype(np.float32), DRAW.normal(0, 0.5, (64, 3)).astype(np.float32), -0.75
)
SCHEMA = pa.schema(
    [("ad_id", pa.int64()), ("os", pa.string()), ("x", pa.float64()), ("y", pa.float64()), ("tags", pa.string())]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "ad_id": st.none() | st.integers(-5, 50),
            "os": st.none() | st.sampled_from(["", "ios", "アンドロイド"]),
            "x": st.none() | st.floats(-20, 20) | st.just(float("nan")),
            "y": st.none() | st.floats(-3, 3),
            "tags": st.none() | st.sampled_from(["", "1", "1,2", " 1 ,,2,1", "3,2,9,8"]),
        }
    ),
    max_size=30,
)


def pairwise_sum(row: dict[str, Any]) -> float:
    """bias + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, one pair after the other."""
    ad, os = ("" if row[name] is None else str(row[name]) for name in ("ad_id", "os"))
    parts = [(["ad", ad], 1.0), (["os", os], 1.0), (["ad", "os", ad, os], 1.0)]
    tags = {part.strip() for part in (row["tags"] or "").split(",")} - {""} or {""}
    parts += [(["tags", tag], 1.0) for tag in sorted(tags)]
    for name, mean, scale in (("x", 1.5, 2.0), ("y", 0.0, 1.0)):
        if row[name] is not None and not math.isnan(row[name]):
            parts.append(([name], (row[name] - mean) / scale))
    terms = [(hash_term(names) % 64, value) for names, value in parts]
    z = -0.75 + sum(float(MODEL.weights[i]) * value for i, value in terms)
    for (i, a), (j, b) in combinations(terms, 2):
        z += sum(float(p) * float(q) for p, q in zip(MODEL.factors[i], MODEL.factors[j], strict=True)) * a * b
    return z


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_scores_equal_plain_sums_over_pairs(rows: list[dict[str, Any]]) -> None:
    got = MODEL.predict_table(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    expected = [1 / (1 + math.exp(-z)) if z > -700 else 0.0 for z in map(pairwise_sum, rows)]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-300)


def test_lists_come_as_text_or_as_lists() -> None:
    columns = {"ad_id": [1, 2, 3], "os": ["ios"] * 3, "x": [0.5] * 3, "y": [None, 1.0, 2.0]}
    text = MODEL.predict_table(pa.table({**columns, "tags": ["10129,10024", None, "5"]}))
    lists = MODEL.predict_table(pa.table({**columns, "tags": pa.array([[10129, 10024], [], [5]])}))
    np.testing.assert_array_equal(lists, text)


def table(rows: int) -> pa.Table:
    draw = np.random.default_rng(5)
    return pa.table(
        {
            "ad_id": draw.integers(0, 300, rows),
            "os": draw.choice(["ios", "android"], rows),
            "x": draw.normal(size=rows),
            "y": draw.normal(size=rows),
            "tags": [",".join(map(str, draw.integers(0, 9, 3))) for _ in range(rows)],
        }
    )


def test_a_row_gets_the_same_score_in_any_batch(tmp_path: Path) -> None:
    scorer = pack_factorization(tmp_path / "m.bin", {"ctr": MODEL}).scorer()
    rows = table(9000)
    whole = scorer.score(rows.combine_chunks().to_batches()[0])["ctr"]
    np.testing.assert_array_equal(whole, MODEL.predict_table(rows))
    for size in (1, 333):
        parts = [scorer.score(batch)["ctr"] for batch in rows.slice(0, size * 20).to_batches(max_chunksize=size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole[: size * 20])
    assert scorer.score(pa.RecordBatch.from_pylist([], schema=SCHEMA))["ctr"].shape == (0,)


def test_an_infinite_number_leaves_the_prediction_undefined() -> None:
    rows = table(2).set_column(2, "x", pa.array([float("inf"), 1.0]))
    assert np.isnan(MODEL.predict_table(rows)).tolist() == [True, False]


def pack(path: Path) -> Bundle:
    window = ("2026-11-01T00:00:00+09:00", "2026-11-05T00:00:00+09:00")
    return pack_factorization(path, {"ctr": MODEL}, training_window=window, versions={"numpy": "2"}, note="n")


def test_equal_input_gives_equal_bytes_and_the_file_comes_back(tmp_path: Path) -> None:
    assert pack(tmp_path / "a").data == pack(tmp_path / "b").data
    again = open_bundle(tmp_path / "a")
    assert sorted(again.manifest.payloads) == ["ctr/factors.f32", "ctr/weights.f32"]
    assert again.manifest.training_window is not None
    assert again.payload("ctr/factors.f32") == MODEL.factors.astype("<f4").tobytes()
    np.testing.assert_array_equal(
        again.scorer().score(table(50).to_batches()[0])["ctr"], MODEL.predict_table(table(50))
    )


def test_heads_of_both_kinds_lie_in_one_bundle(tmp_path: Path) -> None:
    spec = HashedSpec(bits=6, features=("os", "x"))
    logistic = HashedLogisticRegression(spec, FEATURES, MODEL.weights, -2.0)
    scorer = pack_native(tmp_path / "m.bin", {"cvr": logistic, "ctr": MODEL}).scorer()
    assert scorer.heads == ("ctr", "cvr")
    scores = scorer.score(table(50).to_batches()[0])
    np.testing.assert_array_equal(scores["ctr"], MODEL.predict_table(table(50)))
    np.testing.assert_array_equal(scores["cvr"], logistic.predict_table(table(50)))
    other = dataclasses.replace(MODEL, features=(Feature(name="ad", type="categorical"), *FEATURES[1:]))
    with pytest.raises(ModelError, match='disagree about feature "ad"'):
        pack_native(tmp_path / "n.bin", {"cvr": logistic, "ctr": other})
    assert not (tmp_path / "n.bin").exists()


def test_payloads_of_another_size_are_refused(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "m.bin")
    parts = {name: bundle.payload(name) for name in bundle.manifest.payloads}
    for name, said in (
        ("ctr/weights.f32", r"head ctr has 252 bytes of weights, not the 256 of 2\*\*6 terms"),
        ("ctr/factors.f32", r"head ctr has 764 bytes of factors, not the 768 of 2\*\*6 terms"),
    ):
        short = write_bundle(tmp_path / "s.bin", bundle.manifest, {**parts, name: parts[name][:-4]})
        with pytest.raises(ModelError, match=said):
            short.scorer()


@pytest.mark.parametrize("what", ["weights", "factors"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, what: str) -> None:
    values = np.array(getattr(MODEL, what))
    values[(3,) * values.ndim if values.ndim == 1 else (3, 1)] = np.nan
    bundle = pack_factorization(tmp_path / "m.bin", {"ctr": dataclasses.replace(MODEL, **{what: values})})
    with pytest.raises(ModelError, match=f"head ctr has {what} that are NaN or infinite; train it again"):
        bundle.scorer()


def test_a_changed_byte_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "m.bin").data)
    data[data.index(MODEL.factors.astype("<f4").tobytes()) + 7] ^= 1
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.bin"):
        open_bundle(tmp_path / "m.bin")


def test_a_replay_with_the_bundle_is_the_replay_with_its_predictions_as_a_column(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet")
    spec = FactorizationSpec(
        bits=6, factors=3, features=("spot_id", "age"), scaling={"age": Scale(mean=45.0, scale=20.0)}
    )
    features = (Feature(name="spot_id", type="categorical"), Feature(name="age", type="numeric"))
    model = FactorizationMachine(spec, features, MODEL.weights * 0.3, MODEL.factors * 0.3, -1.0)
    pack_factorization(tmp_path / "m.bin", {"ctr": model})
    import pyarrow.parquet as pq

    rows = pq.read_table(log)
    rows = rows.drop_columns("pctr_v2").append_column("pctr_v2", pa.array(model.predict_table(rows)))
    column = write_log(tmp_path / "with.parquet", rows)
    written = write_scenario(tmp_path / "s.yaml")
    plain = write_scenario(tmp_path / "plain.yaml", without=("candidates",))
    found = []
    for scenario, path, more in ((plain, log, ["--model", tmp_path / "m.bin"]), (written, column, [])):
        said = bidsim("replay", "--scenario", scenario, "--table", f"ad={path}", *more, "--json", "--quiet",
                      "--out", tmp_path / f"run-{path.stem}")  # fmt: skip
        assert said.status == 0, said.err
        metrics = json.loads(said.out)["metrics"]
        found.append(
            [(m["metric"], m["head"], m["value"]) for m in metrics if not m["segment"] and m["policy"] in ("m", "v2")]
        )
    assert found[0] == found[1]
    assert len(found[0]) > 10
