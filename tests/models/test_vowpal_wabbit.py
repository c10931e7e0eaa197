"""A Vowpal Wabbit model predicts as its own library does, and obeys no option that a linear model does not need."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bidsim.errors import ModelError
from bidsim.models import open_bundle, open_model
from bidsim.models.feature_file import FeatureEntry, FeatureFile, HeadOptions
from bidsim.models.libraries.vw_models import read_options
from bidsim.models.packing import pack_models
from tests.models.library_models import BATCH, SAID, vowpal_wabbit


def with_options(data: bytes, options: bytes) -> bytes:
    """The model with other options in its header."""
    old = b" --link logistic --quadratic nc\0"
    at = data.index(struct.pack("<I", len(old)) + old)
    return data[:at] + struct.pack("<I", len(options) + 1) + options + b"\0" + data[at + 4 + len(old) :]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("vw") / "ctr.vw"
    vowpal_wabbit(path)
    return path.read_bytes()


def test_options_of_a_linear_model_are_read(model: bytes) -> None:
    assert read_options(model) == {"link": "logistic", "quadratic": "nc"}
    said = with_options(model, b" --interactions nnc cc --hash=all --noconstant --l2 1e-08 --ignore z")
    assert read_options(said) == {
        "interactions": "nnc cc",
        "hash": "all",
        "noconstant": "",
        "l2": "1e-08",
        "ignore": "z",
    }


@pytest.mark.parametrize(
    "options",
    [
        b" --cache_file /tmp/x",
        b" --final_regressor out",
        b" -f out",
        b" --link logistic --predictions p.txt",
        b" --predictions=/tmp/p",
        b" --data secrets",
        b" --dictionary n:/etc/passwd",
        b" --audit",
        b" --daemon",
        b" --oaa 3",
        b" --nn 3",
        b" --link logistic file",
        b" --link /etc/passwd",
        b" stray",
        b" --link 'logistic'",
        b" --link logistic; ls",
        b" --invert_hash=x",
        b" --noconstant=1",
        b" --extra_metrics m.json",
    ],
)
def test_other_options_are_refused_before_the_library_sees_them(model: bytes, options: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ctr.vw"
    path.write_bytes(with_options(model, options))
    with pytest.raises(ModelError, match=r"carries (the option|options)") as caught:
        pack_models({"ctr": path}, SAID["Vowpal Wabbit"], out=path)
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["ctr.vw"]


def test_a_damaged_header_and_other_versions_end_in_a_message(model: bytes) -> None:
    for data, said in (
        (model[:40], "cut short"),
        (model[:4] + b"8.11.0\0" + model[11:], "bidsim reads 9.x"),
        (model.replace(struct.pack("<I", 12), struct.pack("<I", 31), 1), r"2\^31 weights"),
        (b"\xff\xff\xff\xff" + model[4:], "cut short"),
    ):
        with pytest.raises(ModelError, match=said):
            read_options(data)


def test_a_model_saved_without_its_link_needs_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "ctr.vw"
    margins = vowpal_wabbit(path, "-q nc")
    said = SAID["Vowpal Wabbit"]
    with pytest.raises(ModelError, match=r"saved without --link logistic.*`output: logistic`"):
        pack_models({"ctr": path}, said, out=path)
    told = said.model_copy(update={"ctr": said.ctr.model_copy(update={"output": "logistic"})})
    scores = pack_models({"ctr": path}, told, out=path).scorer().score(BATCH)["ctr"]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-margins)), rtol=2e-6)
    vowpal_wabbit(path)
    with pytest.raises(ModelError, match="leave out `output: logistic`"):
        pack_models({"ctr": path}, told, out=path)


def test_inputs_and_their_types_must_be_said(tmp_path: Path, model: bytes) -> None:
    path = tmp_path / "ctr.vw"
    path.write_bytes(model)
    with pytest.raises(ModelError, match=r"a Vowpal Wabbit model doesn't name its inputs: pack it with --features"):
        open_model(path)
    for said, message in (
        (FeatureFile(features={"x": None}), r'say the type of "x" \(numeric, categorical, list\)'),
        (
            FeatureFile(features={"x": "numeric", "os": "list"}, ctr=HeadOptions(namespaces={"n": ("x",)},
                                                                                features=("x", "os"))),
            r"ctr\.namespaces don't name each of its features once",
        ),
        (FeatureFile(features={"x y": "numeric"}), r"'x y' has a blank"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=message):
            pack_models({"ctr": path}, said, out=path)


def test_lists_are_features_each_and_a_value_that_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    import vowpalwabbit

    path = tmp_path / "ctr.vw"
    lines = ["| t=1 t=2", "| t=2", "|", "| t=3 t=1"]
    trained = vowpalwabbit.Workspace(f"--loss_function logistic --link logistic -f {path} --quiet")
    for line in lines * 20:
        trained.learn(("1 " if "t=1" in line else "-1 ") + line)
    trained.finish()
    read = vowpalwabbit.Workspace(f"-i {path} -t --quiet")
    own = [read.predict(line) for line in lines]
    read.finish()
    said = FeatureFile(features={"tags": FeatureEntry(type="list", prefix="t=")})
    pack_models({"ctr": path}, said, out=path).write(tmp_path / "m.bin")
    scorer = open_bundle(tmp_path / "m.bin").scorer()
    for values in (["1,2", "2", None, "3, 1"], [[1, 2], [2], [], [3, 1]]):
        scores = scorer.score(pa.RecordBatch.from_pydict({"tags": values}))["ctr"]
        np.testing.assert_allclose(scores, own, rtol=1e-6)
    with pytest.raises(ModelError, match=r'feature "tags" is list in the model.*\'a\|b\'.*can\'t hold'):
        scorer.score(pa.RecordBatch.from_pydict({"tags": ["1,a|b"]}))
    infinite = FeatureFile(features={"x": "numeric"})
    scores = (
        pack_models({"ctr": path}, infinite, out=path).scorer().score(pa.RecordBatch.from_pydict({"x": [np.inf, 1]}))
    )
    assert np.isnan(scores["ctr"]).tolist() == [True, False]
