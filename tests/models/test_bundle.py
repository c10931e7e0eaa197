"""A bundle is one file, equal input gives equal bytes, and nothing but a whole, unchanged bundle is opened."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.errors import ModelError
from bidsim.models import Bundle, Feature, HashedLogisticRegression, HashedSpec, open_bundle, pack_hashed, write_bundle
from bidsim.visible import visible

FEATURES = (Feature(name="ad", type="categorical", column="ad_id"), Feature(name="x", type="numeric"))
BATCH = pa.RecordBatch.from_pydict({"ad_id": [1, 2, None], "x": [0.5, None, -2.0]})


def model(seed: int = 0, bits: int = 5) -> HashedLogisticRegression:
    weights = np.random.default_rng(seed).normal(size=1 << bits).astype(np.float32)
    return HashedLogisticRegression(HashedSpec(bits=bits, features=("ad", "x")), FEATURES, weights, -3.0)


def pack(path: Path) -> Bundle:
    window = ("2026-11-01T00:00:00+09:00", "2026-11-05T00:00:00+09:00")
    return pack_hashed(
        path, {"ctr": model(), "cvr": model(1)}, training_window=window, versions={"numpy": "2"}, note="n"
    )


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(path: Path, contents: list[tuple[zipfile.ZipInfo | str, bytes]], **options: object) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:  # type: ignore[arg-type]
        for name, content in contents:
            archive.writestr(name, content)
    return path


def refused(path: Path, *words: str) -> str:
    with pytest.raises(ModelError) as caught:
        open_bundle(path)
    text = str(caught.value)
    assert text.startswith(visible(str(path)))
    for word in words:
        assert word in text
    assert "\n" not in text
    return text


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "m.bin")
    again = open_bundle(tmp_path / "m.bin")
    assert again.manifest == bundle.manifest
    assert again.sha256 == hashlib.sha256((tmp_path / "m.bin").read_bytes()).hexdigest()
    assert again.payload("ctr/weights.f32") == model().payload()
    scorer = again.scorer()
    assert scorer.heads == ("ctr", "cvr")
    assert scorer.features == ("ad_id", "x")
    np.testing.assert_array_equal(scorer.score(BATCH)["cvr"], model(1).predict_table(BATCH))
    with pytest.raises(ModelError, match="no payload"):
        again.payload("manifest.json")


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    assert pack(tmp_path / "a").sha256 == pack(tmp_path / "b").sha256
    other = pack_hashed(tmp_path / "c", {"cvr": model(1), "ctr": model()}, note="n")
    assert other.sha256 == pack_hashed(tmp_path / "d", {"ctr": model(), "cvr": model(1)}, note="n").sha256


def test_entries_are_stored_with_fixed_dates_and_modes(tmp_path: Path) -> None:
    pack(tmp_path / "m.bin")
    with zipfile.ZipFile(tmp_path / "m.bin") as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.create_system, info.external_attr >> 16) == (3, 0o100644)
        assert archive.namelist() == ["manifest.json", "ctr/weights.f32", "cvr/weights.f32"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "m.bin")
    before = (tmp_path / "m.bin").read_bytes()
    with pytest.raises(ModelError, match="given are"):
        write_bundle(tmp_path / "m.bin", bundle.manifest, {"ctr/weights.f32": b""})
    with pytest.raises(ModelError, match="can't be written"):
        write_bundle(tmp_path / "no" / "m.bin", bundle.manifest, members_of(bundle))
    assert (tmp_path / "m.bin").read_bytes() == before
    assert os.listdir(tmp_path) == ["m.bin"]


def members_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.payload(name) for name in bundle.manifest.payloads}


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(2))
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            # A fixed date: the bytes name a test, which every worker must call alike.
            archive.writestr(zipfile.ZipInfo(name), b"{}")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty file"]),
        (pickle.dumps({"model": 1}), ["pickle", "pack_sklearn"]),
        (pickle.dumps(ModelError("x"), protocol=0), ["pickle", "pack_sklearn"]),
        (b"x\x9c" + bytes(50), ["joblib", "pack_sklearn"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", ["git lfs pull"]),
        (b"\n<!DOCTYPE html><html><title>404</title>", ["HTML", "fetch"]),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ["XML", "fetch"]),
        (gzip.compress(b"abc", mtime=0), ["gzip", "unpack"]),
        (b"PAR1" + bytes(100) + b"PAR1", ["Parquet", "--model"]),
        (b"tree\nversion=v4\nnum_class=1\n", ["LightGBM"]),
        (b'{"learner":{"attributes":{}},"version":[3,2,0]}', ["XGBoost", "JSON"]),
        (b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{", ["XGBoost", "UBJSON"]),
        (b"\x08\x0a\x12\x08skl2onnx\x1a\x061.17.0", ["ONNX"]),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"__metadata__":{}}', ["safetensors"]),
        (b"CBM1\x00\x00", ["CatBoost"]),
        (b"name: demo\nlogs_tables:\n", ["text file", "--scenario"]),
        (b'{"a": 1}', ["JSON"]),
        (bytes(range(200, 255)), ["no format that bidsim knows"]),
        (zipped("schema.json", "1.npy"), ["skops", "pack_sklearn"]),
        (zipped("archive/data.pkl"), ["PyTorch", "pickle"]),
        (npz(), ["npz"]),
        (zipped("x.txt"), ["without manifest.json"]),
        (zipped("manifest.json")[:-30], ["cut short"]),
        (b"PK\x03\x04", ["cut short"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_files_are_known_by_content_and_refused_with_advice(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    refused(path, *words)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.bin", "no such file")
    refused(tmp_path, "directory")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    refused(fifo, "no regular file")
    refused(tmp_path / "a\x00b", "")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = pack(tmp_path / "m.bin").path.read_bytes()
    for size in range(0, len(data), 37):
        (tmp_path / "t.bin").write_bytes(data[:size])
        refused(tmp_path / "t.bin")
    (tmp_path / "t.bin").write_bytes(data + b"x")
    refused(tmp_path / "t.bin")
    (tmp_path / "t.bin").write_bytes(b"#!/bin/sh\n" + data)
    refused(tmp_path / "t.bin")


@pytest.fixture(scope="module")
def original() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return pack(Path(folder) / "m.bin").path.read_bytes()


@settings(max_examples=400, deadline=None)
@given(place=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_no_prediction(original: bytes, place: int, flip: int) -> None:
    data = bytearray(original)
    data[place % len(data)] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.bin"
        path.write_bytes(bytes(data))
        try:
            scores = open_bundle(path).scorer().score(BATCH)
        except ModelError:
            return
    np.testing.assert_array_equal(scores["ctr"], model().predict_table(BATCH))
    np.testing.assert_array_equal(scores["cvr"], model(1).predict_table(BATCH))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "C:evil",
        "a\\evil",
        "ctr//w",
        "./ctr",
        "ctr/\u00fc",
        "ctr/\x01",
        "x" * 60_000,
    ],
)
def test_names_that_are_no_plain_path_are_refused(tmp_path: Path, original: bytes, name: str) -> None:
    path = rezip(tmp_path / "m.bin", [*members(original).items(), (name, b"x")])
    refused(path, "pack the model again")


def test_compressed_members_and_bombs_are_refused_unread(tmp_path: Path, original: bytes) -> None:
    contents = members(original)
    path = rezip(tmp_path / "m.bin", list(contents.items()), compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed")
    bomb = [*contents.items(), ("ctr/bomb", bytes(50_000_000))]
    refused(rezip(tmp_path / "b.bin", bomb, compression=zipfile.ZIP_DEFLATED), "compressed")


def test_links_folders_duplicates_comments_and_crowds_are_refused(tmp_path: Path, original: bytes) -> None:
    contents = list(members(original).items())
    link = zipfile.ZipInfo("ctr/link")
    link.external_attr = 0o120777 << 16
    refused(rezip(tmp_path / "l", [*contents, (link, b"/etc/passwd")]), "link")
    refused(rezip(tmp_path / "d", [*contents, ("ctr/", b"")]))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rezip(tmp_path / "t", [*contents, contents[1]])
    refused(twice, "same name")
    refused(rezip(tmp_path / "c", [*contents, ("CTR/weights.f32", b"")]), "same name")
    refused(rezip(tmp_path / "m", [*contents, *((f"ctr/{i}", b"") for i in range(64))]), "67 members")
    with zipfile.ZipFile(tmp_path / "k", "w") as archive:
        archive.comment = b"hello"
        for name, content in contents:
            archive.writestr(name, content)
    refused(tmp_path / "k", "comment")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (8, struct.pack("<H", 1)),  # encrypted
        (8, struct.pack("<H", 8)),  # streamed: sizes after the content
        (10, struct.pack("<H", 99)),  # compression method
        (20, struct.pack("<I", 5)),  # compressed size
        (24, struct.pack("<I", 1 << 31)),  # size
        (20, struct.pack("<II", 1 << 31, 1 << 31)),  # both
        (42, struct.pack("<I", 7)),  # where the member starts
        (42, struct.pack("<I", 1 << 30)),
    ],
)
def test_a_directory_that_lies_is_refused(tmp_path: Path, original: bytes, offset: int, value: bytes) -> None:
    data = bytearray(original)
    place = original.rindex(b"PK\x01\x02") + offset
    data[place : place + len(value)] = value
    (tmp_path / "m.bin").write_bytes(bytes(data))
    refused(tmp_path / "m.bin")


def test_members_and_manifest_must_name_each_other(tmp_path: Path, original: bytes) -> None:
    contents = members(original)
    refused(rezip(tmp_path / "a", [*contents.items(), ("ctr/extra", b"x")]), "ctr/extra", "not in the manifest")
    del contents["cvr/weights.f32"]
    refused(rezip(tmp_path / "b", list(contents.items())), "cvr/weights.f32", "lacks")


def test_a_payload_that_was_swapped_is_refused(tmp_path: Path, original: bytes) -> None:
    contents = members(original)
    contents["ctr/weights.f32"] = contents["cvr/weights.f32"]
    refused(rezip(tmp_path / "m", list(contents.items())), "sha256 differs")
    contents["ctr/weights.f32"] += b"1234"
    refused(rezip(tmp_path / "m", list(contents.items())), "bytes, the manifest says")


def edit(path: Path, original: bytes, change: str) -> Path:
    contents = members(original)
    manifest = json.loads(contents["manifest.json"])
    exec(change, {"m": manifest})
    contents["manifest.json"] = json.dumps(manifest).encode()
    return rezip(path, list(contents.items()))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("m['schema'] = 'bidsim.bundle/2'", "newer bidsim"),
        ("m['schema'] = 7", "bidsim.bundle/1"),
        ("m['colour'] = 'red'", "colour"),
        ("m['heads']['ctr']['format'] = 'lightgbm/1'", "ctr"),
        ("m['heads']['win'] = m['heads']['ctr']", "win"),
        ("m['heads'] = {}", "heads"),
        ("m['heads']['ctr']['bias'] = '1'", "bias"),
        ("m['heads']['ctr']['spec']['bits'] = 60", "bits"),
        ("m['heads']['ctr']['spec']['bits'] = 6", "bytes of weights"),
        ("m['heads']['ctr']['spec']['features'] = ['ad', 'ad']", "twice"),
        ("m['heads']['ctr']['spec']['features'] = ['nope']", "nope"),
        ("m['heads']['ctr']['spec']['crosses'] = [['ad', 'x']]", "numeric"),
        ("m['heads']['ctr']['spec']['scaling'] = {'ad': {}}", "scaled"),
        ("m['heads']['ctr']['payloads'] = ['cvr/weights.f32']", "does not lie in"),
        ("m['features'][0]['type'] = 'text'", "text"),
        ("m['features'].append(m['features'][0])", "same name"),
        ("m['payloads']['ctr/weights.f32']['sha256'] = 'abc'", "sha256"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(tmp_path: Path, original: bytes, change: str, word: str) -> None:
    with pytest.raises(ModelError, match=r"m\.bin") as caught:
        open_bundle(edit(tmp_path / "m.bin", original, change)).scorer()
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b'{"schema": "bidsim.bundle/1", "schema": "bidsim.bundle/1"}', "duplicate key 'schema'"),
        (b'{"schema": "bidsim.bundle/1", "x": NaN}', "NaN"),
        (b'{"schema": "bidsim.bundle/1", "x": 1e999}', "out of range"),
        (b"[" * 100_000, "can't be read"),
        (b"{", "can't be read"),
        (b"\xff", "can't be read"),
        (b"[]", "schema None"),
        (b" " * (1 << 20) + b"{}", "more than 1048576"),
        (b'{"schema": "bidsim.bundle/1", "note": "\\ud800"}', "manifest.json"),
    ],
)
def test_a_manifest_that_is_no_strict_json_is_refused(tmp_path: Path, text: bytes, word: str) -> None:
    refused(rezip(tmp_path / "m.bin", [("manifest.json", text)]), word)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bad = dataclasses.replace(model(), weights=np.full(32, np.inf, dtype=np.float32))
    bundle = pack_hashed(tmp_path / "m.bin", {"ctr": bad})
    with pytest.raises(ModelError, match="NaN or infinite"):
        bundle.scorer()


def test_importing_the_package_imports_no_optional_library() -> None:
    code = (
        "import sys, bidsim.models\n"
        "heavy = {'sklearn', 'skops', 'pandas', 'scipy', 'duckdb'} & {m.split('.')[0] for m in sys.modules}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
