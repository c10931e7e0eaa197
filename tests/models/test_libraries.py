"""What models of five libraries predict by themselves, bidsim predicts; broken files hurt nobody."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command import bidsim

from bidsim.errors import ModelError
from bidsim.models import Bundle, open_bundle, open_model, sandbox
from bidsim.models.feature_file import FeatureFile, read_feature_file
from bidsim.models.libraries import onnx_models
from bidsim.models.packing import pack_models
from bidsim.models.sandbox import Limits
from tests.models.library_models import BATCH, FORMATS, FRAME, LABEL, NUMBERS, damage, opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, Bundle]]:
    """By format: the file, its library's own predictions, and the bundle packed from the raw file."""
    folder = tmp_path_factory.mktemp("libraries")
    found = {}
    for name, (file, train) in FORMATS.items():
        path = folder / file
        own = train(path)
        found[name] = (path, own, opened(name, path))
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_a_raw_file_predicts_what_its_library_predicts(made: dict[str, Any], name: str) -> None:
    _, own, bundle = made[name]
    scorer = bundle.scorer()
    assert scorer.heads == ("ctr",)
    assert set(scorer.features) == {"x", "os", "ad_id"}
    scores = scorer.score(BATCH)["ctr"]
    np.testing.assert_allclose(scores, own, rtol=2e-6, atol=1e-7)
    assert np.isfinite(scores).sum() > 1000
    # Rows are independent, and the order and types of the log's columns don't matter.
    other = pa.RecordBatch.from_arrays(
        [BATCH["ad_id"].cast("string"), BATCH["os"].dictionary_encode(), BATCH["x"]], ["ad_id", "os", "x"]
    ).slice(100, 50)
    np.testing.assert_array_equal(scorer.score(other)["ctr"], scores[100:150])
    assert scorer.score(BATCH.slice(0, 0))["ctr"].shape == (0,)


def test_verify_says_of_a_raw_file_what_was_tried_and_of_a_bundle_what_was_packed(made: dict[str, Any]) -> None:
    path, _, bundle = made["LightGBM text"]
    raw = bidsim("model", "verify", path)
    assert (raw.status, raw.out) == (0, f"{path}: heads ctr; 20 rows of made-up values predicted alike twice\n")
    packed = bundle.write(path.with_name("packed.bin")).path
    said = bidsim("model", "verify", packed)
    assert (said.status, said.out) == (0, f"{packed}: heads ctr; 20 example rows predicted as when it was packed\n")


@pytest.mark.parametrize("name", FORMATS)
def test_values_never_seen_and_missing_ones_are_scored(made: dict[str, Any], name: str) -> None:
    _, _, bundle = made[name]
    batch = pa.RecordBatch.from_pydict({"x": [0.5, 0.5], "os": ["palm", None], "ad_id": [99999, None]})
    scores = bundle.scorer().score(batch)["ctr"]
    assert ((scores > 0) & (scores < 1)).all()


def test_a_written_bundle_is_the_same_and_its_checksum_guards_it(made: dict[str, Any], tmp_path: Path) -> None:
    _, own, bundle = made["LightGBM text"]
    bundle.write(tmp_path / "m.bin")
    again = open_bundle(tmp_path / "m.bin")
    assert again.data == bundle.data
    np.testing.assert_allclose(again.scorer().score(BATCH)["ctr"], own, rtol=2e-6)
    data = bytearray(again.data)
    data[data.index(b"tree_sizes")] ^= 1
    (tmp_path / "broken.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"broken\.bin"):  # before LightGBM sees it: nothing is loaded here
        open_bundle(tmp_path / "broken.bin")


def test_a_model_that_predicts_otherwise_than_when_packed_is_refused(made: dict[str, Any]) -> None:
    bundle = made["XGBoost JSON"][2]
    examples = bundle.manifest.examples
    assert examples is not None
    assert len(examples.predictions["ctr"]) == 20
    wrong = tuple(p * 1.001 for p in examples.predictions["ctr"])
    changed = bundle.with_manifest(examples=examples.model_copy(update={"predictions": {"ctr": wrong}}))
    with pytest.raises(ModelError, match=r"predicts otherwise than when it was packed \(with xgboost"):
        changed.scorer()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_end_in_a_message(made: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Two of each; tests/benchmarks/fuzz_models.py does 300 and more."""
    path = made[name][0]
    for seed in (0, 5):
        broken = tmp_path / f"{seed}-ctr{path.suffix}"
        broken.write_bytes(damage(path.read_bytes(), seed))
        with contextlib.suppress(ModelError):  # some damage leaves a valid file
            opened(name, broken, Limits(seconds=60))


def test_a_crash_a_hang_and_chatter_of_a_library_end_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children that do what the libraries do to themselves."""

    def child(code: str) -> Iterator[None]:
        real = sandbox.subprocess.Popen
        with monkeypatch.context() as patch:
            patch.setattr(
                sandbox.subprocess, "Popen", lambda command, **rest: real([sys.executable, "-c", code], **rest)
            )
            yield

    for code, said in (
        ("import os; os.abort()", r"m\.bin: the model's library crashed \(SIGABRT\)"),
        ("import time; time.sleep(60)", r"took more than 1 s and was stopped"),
        ("import sys; sys.exit(3)", r"ended with status 3"),
        ("print('[LightGBM] hello')", r"gave no answer"),
    ):
        for _ in child(code):
            start = time.monotonic()
            with pytest.raises(ModelError, match=said):
                sandbox.predict_in_child(b"x" * 100_000, {}, "m.bin", Limits(seconds=1))
            assert time.monotonic() - start < 30


def test_a_model_that_needs_too_much_memory_is_refused(made: dict[str, Any]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux bounds a process's address space")
    data = made["LightGBM text"][2].data
    with pytest.raises(ModelError, match=r"memory|MB to load|can't be loaded|crashed|status|not installed"):
        sandbox.predict_in_child(data, {"x": [1.0], "os": ["ios"], "ad_id": [1]}, "m.bin", Limits(memory=50 << 20))


def test_onnx_files_with_loops_functions_or_outside_weights_are_refused_before_the_runtime() -> None:
    from onnx import TensorProto, helper

    def model(node: Any, **rest: Any) -> Any:
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("b", TensorProto.FLOAT, [None, 1])],
        )
        return helper.make_model(graph, **rest)

    onnx_models.check_graph(model(helper.make_node("Sigmoid", ["a"], ["b"])).SerializeToString())
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    function = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [])
    outside = model(helper.make_node("Sigmoid", ["a"], ["b"]))
    tensor = outside.graph.initializer.add(name="w", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    for bad, said in (
        (model(helper.make_node("Loop", ["a"], ["b"], body=body)), "Loop"),
        (model(helper.make_node("Harmless", ["a"], ["b"], body=body)), "graphs within graphs"),
        (model(helper.make_node("Secret", ["a"], ["b"], domain="com.example")), "com.example"),
        (model(helper.make_node("Identity", ["a"], ["b"]), functions=[function]), "functions of its own"),
        (outside, "another file"),
    ):
        with pytest.raises(ModelError, match=said):
            onnx_models.check_graph(bad.SerializeToString())


def test_an_onnx_file_can_not_hide_what_it_holds() -> None:
    """Weights in sparse tensors, fields that come twice, and field numbers that protobuf cuts to 32 bits."""
    from onnx import AttributeProto, SparseTensorProto, TensorProto, helper

    def field(number: int, content: bytes, beyond: int = 0) -> bytes:
        key, out = number << 3 | 2 | beyond, b""
        while key > 127:
            key, out = key >> 7, out + bytes([key & 127 | 128])
        return out + bytes([key, len(content)]) + content

    def model(*nodes: Any) -> Any:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "ab"]
        return helper.make_model(
            helper.make_graph([helper.make_node("Sigmoid", ["a"], ["b"]), *nodes], "g", *zip(ends))
        )

    outside = TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../secret")
    sparse = model()
    sparse.graph.sparse_initializer.append(SparseTensorProto(values=outside))
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.add(
        name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=SparseTensorProto(values=outside)
    )
    twice = helper.make_node("Harmless", [], []).SerializeToString() + field(4, b"Loop") + field(4, b"Loop"[:0])
    whole = model().SerializeToString()
    for bad, kind, said in (
        (sparse.SerializeToString(), ModelError, "another file"),
        (model(constant).SerializeToString(), ModelError, "another file"),
        (whole + field(7, field(1, twice)), ModelError, "Loop"),
        (whole + field(7, field(5, outside.SerializeToString(), 1 << 32)), ValueError, "damaged"),
        (whole + field(25, b"", 1 << 32), ValueError, "damaged"),
    ):
        with pytest.raises(kind, match=said):
            onnx_models.check_graph(bad)


def features(tmp_path: Path, text: str) -> FeatureFile:
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    return read_feature_file(tmp_path / "f.yaml")


@pytest.mark.skipif(sys.platform == "win32", reason="libraries run in bidsim's own process there")
def test_onnx_runtime_leaves_nothing_in_the_home_directory(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 1.32 on it writes an id and what it will report, unless told not to before it is imported."""
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    made["ONNX"][2].scorer().score(BATCH)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("operator", ["mean over the rows", "random"])
def test_a_model_whose_predictions_depend_on_other_rows_is_refused(tmp_path: Path, operator: str) -> None:
    """Batches are cut as it suits the machine: a result must not depend on it."""
    from onnx import TensorProto, helper

    if operator == "random":
        first = helper.make_node("RandomUniformLike", ["a"], ["m"])
    else:
        first = helper.make_node("ReduceMean", ["a"], ["m"], axes=[0], keepdims=1)
    nodes = [first, helper.make_node("Add", ["a", "m"], ["s"]), helper.make_node("Sigmoid", ["s"], ["b"])]
    given, made = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 1]) for n in ("a", "b"))
    graph = helper.make_graph(nodes, "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "ctr.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        ModelError, match=r"ctr\.onnx: head ctr predicts otherwise for the same row when other rows are"
    ):
        open_model(tmp_path / "ctr.onnx")


def test_an_onnx_model_without_names_is_packed_with_a_features_file(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(NUMBERS, LABEL)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(model, NUMBERS[:1], options={"zipmap": False}).SerializeToString())
    with pytest.raises(ModelError, match=r"name doesn't say whether it predicts ctr"):
        open_model(path)
    with pytest.raises(ModelError, match=r"has no output p; it has label, probabilities"):
        pack_models({"cvr": path}, features(tmp_path, "cvr: {features: [x, a], output: p}"), out=tmp_path / "m.bin")
    said = features(
        tmp_path,
        "cvr: {features: [x, ad_id], output: probabilities, recalibration: [{type: downsampling, rate: 0.1}]}\n"
        "features: {ad_id: {type: numeric, column: ad}}\ntraining_window: {start: '2026-11-01', end: '2026-11-08'}\n",
    )
    own = model.predict_proba(NUMBERS)[:, 1].astype("float64")
    table = pa.table({"x": NUMBERS[:, 0], "ad": NUMBERS[:, 1], "pcvr": own / (own + (1 - own) / 0.1)})
    bundle = pack_models({"cvr": path}, said, out=tmp_path / "m.bin", examples=table)
    assert pack_models({"cvr": path}, said, out=tmp_path / "m.bin", examples=table).data == bundle.data
    scores = bundle.write(tmp_path / "m.bin").scorer().score(table.to_batches()[0])["cvr"]
    np.testing.assert_allclose(scores, table["pcvr"].to_numpy(), rtol=3e-6)
    wrong = table.set_column(2, "pcvr", pa.array(own))
    with pytest.raises(ModelError, match=r"for example row \d+, not .* as its column pcvr says"):
        pack_models({"cvr": path}, said, out=tmp_path / "m.bin", examples=wrong)


def test_an_onnx_matrix_of_whole_numbers_gets_each_exactly_and_minus_one_for_what_is_missing(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    first, seven = numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(np.array([7]), "seven")
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["a"], axis=1),
        helper.make_node("Mod", ["a", "seven"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["z"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [None, 2])
    result = helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(nodes, "g", [given], [result], [first, seven])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m-ctr.onnx"
    )
    said = features(tmp_path, "ctr: {features: [a, b]}")
    scorer = pack_models({"ctr": tmp_path / "m-ctr.onnx"}, said, out=tmp_path / "m.bin").scorer()
    scores = scorer.score(pa.RecordBatch.from_pydict({"a": [2**24 + 1, 2**24, 3, None], "b": [0, 0, 0, 0]}))["ctr"]
    rest = np.array([(2**24 + 1) % 7, 2**24 % 7, 3, -1 % 7])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-rest)), rtol=1e-6)


def test_lightgbm_categories_of_pandas_are_read_beside_a_column_that_no_tree_could_use(tmp_path: Path) -> None:
    import lightgbm
    import pandas as pd

    frame = pd.DataFrame({"one": pd.Categorical([7] * len(FRAME)), "ad_id": FRAME.ad_id.astype("category")})
    model = lightgbm.LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1).fit(frame, LABEL)
    model.booster_.save_model(tmp_path / "m-ctr.txt")
    batch = pa.RecordBatch.from_pydict({"one": [7] * len(FRAME), "ad_id": FRAME.ad_id.to_numpy()})
    scores = open_model(tmp_path / "m-ctr.txt").scorer().score(batch)["ctr"]
    np.testing.assert_allclose(scores, model.predict_proba(frame)[:, 1], rtol=2e-6)


def test_lightgbm_categories_of_pandas_that_no_input_owns_are_asked_for(tmp_path: Path) -> None:
    import lightgbm
    import pandas as pd

    size = pd.Categorical(FRAME.ad_id % 3 * 10, categories=[20, 0, 10], ordered=True)  # LightGBM takes it as numeric
    frame = pd.DataFrame({"x": FRAME.x, "size": size})
    model = lightgbm.LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1).fit(frame, LABEL)
    model.booster_.save_model(tmp_path / "m-ctr.txt")
    with pytest.raises(ModelError, match=r"codes of pandas categories.*inputs \(1\); list the categories"):
        open_model(tmp_path / "m-ctr.txt")
    said = features(tmp_path, "features: {size: {categories: [20, 0, 10]}}")
    scorer = pack_models({"ctr": tmp_path / "m-ctr.txt"}, said, out=tmp_path / "m.bin").scorer()
    batch = pa.RecordBatch.from_pydict({"x": FRAME.x.to_numpy(), "size": (FRAME.ad_id % 3 * 10).to_numpy()})
    np.testing.assert_allclose(scorer.score(batch)["ctr"], model.predict_proba(frame)[:, 1], rtol=2e-6)


def test_example_rows_may_hold_decimals_and_infinite_numbers(made: dict[str, Any], tmp_path: Path) -> None:
    path, own, _ = made["LightGBM text"]
    rows = FRAME.assign(pctr=own).head(40)
    rows.loc[3, "x"] = np.inf
    table = pa.Table.from_pandas(rows, preserve_index=False)
    decimals = table["ad_id"].cast(pa.decimal128(21, 2))
    table = table.set_column(table.column_names.index("ad_id"), "ad_id", decimals)
    bundle = pack_models({"ctr": path}, FeatureFile(), out=tmp_path / "m.bin", examples=table)
    examples = bundle.write(tmp_path / "m.bin").manifest.examples
    assert examples is not None
    np.testing.assert_allclose(examples.predictions["ctr"], np.delete(own[:21], 3), rtol=2e-6)
    numbers = table.set_column(table.column_names.index("x"), "x", pa.array([np.inf] * 40))
    with pytest.raises(ModelError, match="every example row holds an infinite number"):
        pack_models({"ctr": path}, FeatureFile(), out=tmp_path / "m.bin", examples=numbers)


def test_what_the_features_file_gets_wrong_is_named(made: dict[str, Any], tmp_path: Path) -> None:
    path = made["LightGBM text"][0]
    for text, said in (
        ("features: {os: numeric}", r'"os" is numeric, but categorical in the LightGBM model'),
        ("features: {oss: categorical}", r'no head reads "oss"; the models read x, os, ad_id'),
        ("features: {os: {categories: [ios, web, android]}}", r'the categories of "os" differ'),
        ("ctr: {features: [ad_id, os, x]}", r"in another order; its own is x, os, ad_id"),
        ("ctr: {features: [ad_id, os]}", r"the model has 3 inputs, the features file lists 2"),
        ("features: {os: categorical, os: numeric}", r"f\.yaml:1: the key \"os\" stands twice"),
        ("features: &a {os: categorical}", r"anchors"),
        (
            "features: {os: categorical}\nctr:\n  feature: [x]",
            r'f\.yaml:3: unknown key "feature" \(did you mean "features"',
        ),
        ("features:\n  os: {typ: list}", r'f\.yaml:2: unknown key "typ" \(did you mean "type"'),
        ("features:\n  os: category", r"f\.yaml:2: features\.os: must be .*'categorical'.*, got 'category'"),
        ("ctr:\n  trees: 0", r"f\.yaml:2: ctr\.trees: must be at least 1"),
        ("[ctr]", r"f\.yaml:1: a features file is a mapping of keys"),
    ):
        with pytest.raises(ModelError, match=said):
            pack_models({"ctr": path}, features(tmp_path, text), out=tmp_path / "m.bin")


def test_a_feature_of_another_type_is_named_with_both_types(made: dict[str, Any]) -> None:
    scorer = made["LightGBM text"][2].scorer()
    batch = pa.RecordBatch.from_pydict({"x": ["a"], "os": ["ios"], "ad_id": [101]})
    with pytest.raises(ModelError, match=r'feature "x" is numeric in the model, but column "x" is string in the log'):
        scorer.score(batch)


def test_models_that_predict_no_probability_are_refused(tmp_path: Path) -> None:
    import lightgbm

    data = lightgbm.Dataset(FRAME[["x"]], FRAME.ad_id)
    lightgbm.train({"objective": "regression", "verbose": -1}, data, 2).save_model(tmp_path / "ctr.txt")
    with pytest.raises(ModelError, match=r"objective regression, so its predictions are no probabilities"):
        open_model(tmp_path / "ctr.txt")


def test_xgboost_that_stopped_after_its_best_round_asks_which_rounds_count(tmp_path: Path) -> None:
    import xgboost

    x, y = NUMBERS, np.asarray(LABEL)
    model = xgboost.XGBClassifier(n_estimators=60, max_depth=6, early_stopping_rounds=5, n_jobs=1)
    model.fit(x[:900], y[:900], eval_set=[(x[900:], y[900:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    path = tmp_path / "m.ubj"
    model.save_model(path)
    with pytest.raises(ModelError, match=r"`trees: best` or `trees: all`"):
        pack_models({"ctr": path}, features(tmp_path, "ctr: {features: [x, ad]}"), out=tmp_path / "m.bin")
    batch = pa.RecordBatch.from_pydict({"x": x[:, 0], "ad": x[:, 1]})
    for word, own in (
        ("best", model.predict_proba(x)[:, 1]),
        ("all", model.get_booster().inplace_predict(x)),
    ):
        said = features(tmp_path, f"ctr: {{features: [x, ad], trees: {word}}}")
        scores = pack_models({"ctr": path}, said, out=tmp_path / "m.bin").scorer().score(batch)["ctr"]
        np.testing.assert_allclose(scores, own, rtol=2e-6)


def test_an_xgboost_model_without_trees_predicts_what_its_library_predicts(tmp_path: Path) -> None:
    import xgboost

    frame = FRAME[["x", "ad_id"]]
    data = xgboost.DMatrix(frame, LABEL)
    model = xgboost.train({"objective": "binary:logistic", "booster": "gblinear"}, data, 10)
    model.save_model(tmp_path / "m-ctr.json")
    scores = open_model(tmp_path / "m-ctr.json").scorer().score(BATCH)["ctr"]
    np.testing.assert_allclose(scores, model.predict(data), rtol=2e-6)


def test_a_missing_library_is_named_with_its_extra(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, extra in (
        ("LightGBM text", "lightgbm"),
        ("CatBoost", "catboost"),
        ("ONNX", "onnx"),
        ("Vowpal Wabbit", "vw"),
    ):
        monkeypatch.setitem(sys.modules, f"bidsim.models.libraries.{extra}_models", None)
        with pytest.raises(ModelError, match=rf"pip install 'bidsim\[{extra}\]'"):
            made[name][2].load()


def test_the_manifest_says_what_is_in_the_bundle(made: dict[str, Any]) -> None:
    manifest = made["CatBoost"][2].manifest
    assert {f.name: f.type for f in manifest.features} == {"x": "numeric", "os": "categorical", "ad_id": "categorical"}
    assert "catboost" in manifest.versions
    tables = json.loads(made["LightGBM text"][2].payload("ctr/categories.json"))
    assert tables["os"] == ["android", "ios", "web"]
    assert tables["ad_id"][:2] == ["100", "101"]
