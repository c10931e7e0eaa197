"""scikit-learn pipelines predict in a bundle what they predict outside it, and only harmless ones are loaded."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pd = pytest.importorskip("pandas")
skops_io = pytest.importorskip("skops.io")

from scipy.sparse import csr_matrix  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.dummy import DummyRegressor  # noqa: E402
from sklearn.feature_extraction import DictVectorizer  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler  # noqa: E402

from bidsim.errors import ModelError  # noqa: E402
from bidsim.models import Feature, open_bundle, pack_sklearn  # noqa: E402
from bidsim.models import sklearn_pipeline as module  # noqa: E402
from bidsim.models.manifest import SkopsHead  # noqa: E402

DRAW = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "ad_id": DRAW.integers(100, 106, 400),
        "os": DRAW.choice(["ios", "android", None], 400),
        "x": DRAW.normal(size=400),
        "title": DRAW.choice(["cheap red shoes", "新しい ゲーム", "red game"], 400),
    }
)
LABEL = (DRAW.random(400) < 0.3).astype(int)
BATCH = pa.RecordBatch.from_pandas(FRAME, preserve_index=False)
FEATURES = ["ad_id", "os", "x", Feature(name="title", type="text")]


def pipeline(seed: int = 0) -> Any:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["ad_id", "os"]),
        (StandardScaler(), ["x"]),
        (CountVectorizer(), "title"),
    )
    return make_pipeline(columns, LogisticRegression(C=0.1 + seed)).fit(FRAME, LABEL)


def test_a_pipeline_predicts_the_same_inside_the_bundle(tmp_path: Path) -> None:
    ctr, cvr = pipeline(), pipeline(3)
    bundle = pack_sklearn(tmp_path / "m.bin", ctr=ctr, cvr=cvr, features=FEATURES, example=FRAME, note="test")
    scorer = open_bundle(tmp_path / "m.bin").scorer()
    assert scorer.heads == ("ctr", "cvr")
    assert scorer.features == ("ad_id", "os", "x", "title")
    scores = scorer.score(BATCH)
    np.testing.assert_array_equal(scores["ctr"], ctr.predict_proba(FRAME)[:, 1])
    np.testing.assert_array_equal(scores["cvr"], cvr.predict_proba(FRAME)[:, 1])
    assert scorer.score(BATCH.slice(0, 0))["ctr"].shape == (0,)
    assert bundle.manifest.examples is not None
    assert len(bundle.manifest.examples.predictions["ctr"]) == 20
    assert "scikit-learn" in bundle.manifest.versions


def test_the_order_and_type_of_log_columns_do_not_matter(tmp_path: Path) -> None:
    scorer = pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=FEATURES, example=FRAME).scorer()
    expected = scorer.score(BATCH)["ctr"]
    other = pa.RecordBatch.from_arrays(
        [BATCH["title"].dictionary_encode(), BATCH["x"], BATCH["os"].dictionary_encode(), BATCH["ad_id"].cast("int16")],
        ["title", "x", "os", "ad_id"],
    )
    np.testing.assert_array_equal(scorer.score(other)["ctr"], expected)


def test_arrays_and_dicts_are_inputs_too(tmp_path: Path) -> None:
    numbers = FRAME[["ad_id", "x"]].to_numpy(dtype=float)
    plain = LogisticRegression().fit(numbers, LABEL)
    features = [Feature(name="ad_id", type="numeric"), "x"]
    bundle = pack_sklearn(tmp_path / "a.bin", ctr=plain, features=features, example=FRAME, input="array")
    # Rows and columns lie the other way round in memory, and a processor may then add in another order.
    found = bundle.scorer().score(BATCH)["ctr"]
    np.testing.assert_allclose(found, plain.predict_proba(numbers)[:, 1], rtol=1e-14)

    dicts = [{k: v for k, v in row.items() if v == v} for row in FRAME[["os", "x"]].to_dict("records")]
    vectors = make_pipeline(DictVectorizer(), LogisticRegression()).fit(dicts, LABEL)
    bundle = pack_sklearn(tmp_path / "d.bin", ctr=vectors, features=["os", "x"], example=FRAME, input="dicts")
    np.testing.assert_array_equal(bundle.scorer().score(BATCH)["ctr"], vectors.predict_proba(dicts)[:, 1])


def test_whole_numbers_beyond_the_floats_are_told_apart(tmp_path: Path) -> None:
    ids = np.array([2**60 + 1, 2**60 + 2, 2**60 + 3])
    frame = pd.DataFrame({"id": DRAW.choice(ids, 400)})
    label = (DRAW.random(400) < (frame.id - 2**60) / 4).astype(int)
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["id"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, label)
    scorer = pack_sklearn(tmp_path / "m.bin", ctr=model, features=["id"], example=frame).scorer()
    scores = scorer.score(pa.RecordBatch.from_pydict({"id": ids}))["ctr"]
    np.testing.assert_array_equal(scores, model.predict_proba(pd.DataFrame({"id": ids}))[:, 1])


def test_an_example_that_predicts_otherwise_is_refused_when_packing(tmp_path: Path) -> None:
    wrong = [Feature(name="ad_id", type="categorical"), *FEATURES[1:]]  # texts, where integers were fitted
    with pytest.raises(ModelError, match=r"m\.bin.*declare each feature|m\.bin.*failed on features"):
        pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=wrong, example=FRAME)


def test_a_library_that_predicts_otherwise_is_refused_when_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=FEATURES, example=FRAME)
    monkeypatch.setattr(LogisticRegression, "predict_proba", lambda self, given: np.full((given.shape[0], 2), 0.5))
    with pytest.raises(ModelError, match=r"m\.bin.*predicts otherwise than when it was packed \(with numpy"):
        bundle.load()


def shift(x: Any) -> Any:
    return x


def test_types_that_are_not_known_to_be_safe_are_refused_by_name(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(shift), LogisticRegression()).fit(FRAME[["x"]], LABEL)
    with pytest.raises(ModelError, match=r"ctr holds types that are not known to be safe: .*shift"):
        pack_sklearn(tmp_path / "m.bin", ctr=model, features=["x"], example=FRAME)
    assert not (tmp_path / "m.bin").exists()


@pytest.mark.parametrize("model", [DummyRegressor().fit([[0]], [0]), LogisticRegression()])
def test_what_is_no_fitted_classifier_of_two_classes_is_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ModelError, match="no fitted classifier"):
        pack_sklearn(tmp_path / "m.bin", ctr=model, features=["x"], example=FRAME)
    three = LogisticRegression().fit(FRAME[["x"]], np.arange(400) % 3)
    with pytest.raises(ModelError, match=r"classes \[0, 1, 2\]"):
        pack_sklearn(tmp_path / "m.bin", ctr=three, features=["x"], example=FRAME)


def test_needed_arguments_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="at least one of ctr"):
        pack_sklearn(tmp_path / "m.bin", features=["x"])
    with pytest.raises(ModelError, match='type of feature "x"'):
        pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=["x"])


def test_a_pipeline_that_fails_on_the_log_names_head_and_features(tmp_path: Path) -> None:
    scorer = pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=FEATURES, example=FRAME).scorer()
    gap = BATCH.set_column(2, "x", pa.array([None] * 400, pa.float64()))
    with pytest.raises(ModelError, match=r"head ctr: the scikit-learn pipeline failed on features ad_id, os, x, title"):
        scorer.score(gap)
    text = BATCH.set_column(0, "ad_id", BATCH["ad_id"].cast("string"))
    with pytest.raises(ModelError, match=r'feature "ad_id".*string in the log.*int64'):
        scorer.score(text)


def load(payload: bytes) -> Any:
    entry = SkopsHead(payloads=("ctr/pipeline.skops",), features=("x",))
    return module.load_pipeline(entry, (Feature(name="x", type="numeric"),), payload, head="ctr", file="m.bin")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LogisticRegression().fit(FRAME[["x"]], LABEL)
    model.extra_ = np.zeros(4_000_000)
    payload = skops_io.dumps(model, compression=zipfile.ZIP_DEFLATED)
    assert len(payload) < 100_000
    monkeypatch.setattr(module, "MAX_UNPACKED", 16 << 20)
    with pytest.raises(ModelError, match=r"m\.bin.*would unpack to more than 16 MB"):
        load(payload)
    model.extra_ = csr_matrix(np.ones((2000, 2000)))  # a zip (npz) in the zip
    with pytest.raises(ModelError, match="would unpack"):
        load(skops_io.dumps(model))


def test_an_array_asked_for_a_thousand_times_is_counted_so_often() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.npy", npy((1 << 20,), bytes(8 << 20)))
        archive.writestr("schema.json", json.dumps({"content": [{"file": "1.npy"}] * 1000}))
    with pytest.raises(ModelError, match="would unpack"):
        load(stream.getvalue())


def test_an_array_whose_header_claims_more_than_it_holds_is_counted_by_the_header() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("1.npy", npy((1 << 40,), b""))
        archive.writestr("schema.json", json.dumps({"file": "1.npy"}))
    with pytest.raises(ModelError, match="would unpack"):
        load(stream.getvalue())


def npy(shape: tuple[int, ...], content: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


@pytest.mark.parametrize("payload", [b"", b"PK\x03\x04", b"\x80\x04N."])
def test_what_is_no_skops_file_is_refused(payload: bytes) -> None:
    with pytest.raises(ModelError, match=r"m\.bin: head ctr"):
        load(payload)


@pytest.mark.parametrize(
    "schema", ["{}", "[]", "[" * 100_000, '{"protocol": 0}', '{"protocol": 0, "__loader__": "x", "__id__": 1}', "nope"]
)
def test_a_skops_schema_that_is_nonsense_is_refused(schema: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("schema.json", schema)
    with pytest.raises(ModelError, match=r"m\.bin: head ctr"):
        load(stream.getvalue())


def test_without_the_extra_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_sklearn(tmp_path / "m.bin", ctr=pipeline(), features=FEATURES, example=FRAME)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ModelError, match=r"pip install 'bidsim\[sklearn\]'"):
        open_bundle(tmp_path / "m.bin").load()
