"""Stores behind pyarrow's filesystems: Google's over its protocol, and a local folder in the place of both."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from command import log, write_log, write_scenario
from pyarrow import fs

import bidsim
from bidsim.errors import LogError
from bidsim.logs.stores_arrow import NO_TOKEN, ArrowStore

Scheme = Literal["gs", "hdfs"]


class Folder:
    """A local folder as a bucket `logs`, or as the root of an HDFS; fails the first times with what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.inner = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.failures: list[Exception] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if self.failures:
                raise self.failures.pop(0)
            return getattr(self.inner, name)(*arguments)

        return call


@pytest.fixture(params=["gs", "hdfs"])
def scheme(request: pytest.FixtureRequest) -> Scheme:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: Scheme) -> ArrowStore:
    root = tmp_path / "store"
    for i in range(2):
        write_log(root / ("logs" if scheme == "gs" else "") / "dsp" / "a" / f"{i}.parquet", log().slice(200 * i, 200))
    (root / ("logs" if scheme == "gs" else "") / "dsp" / "a" / "_SUCCESS").touch()
    found = ArrowStore(scheme, "logs", Folder(root))
    monkeypatch.setattr("bidsim.logs.stores_arrow.ArrowStore._connect", lambda self: found.filesystem)
    return found


def test_a_log_there_gives_the_bytes_of_the_local_log(
    tmp_path: Path, store: ArrowStore, scheme: Scheme, in_parts: None, pauses: list[float]
) -> None:
    write_scenario(tmp_path / "s.yaml", {"segments": []})
    here = tmp_path / "store" / ("logs" if scheme == "gs" else "") / "dsp"
    local = bidsim.replay(tmp_path / "s.yaml", tables={"ad": str(here)})
    store.filesystem.failures = [
        OSError("google::cloud::Status(UNAVAILABLE: try again)"),
        ConnectionResetError("reset"),
    ]
    for path in ("dsp", "dsp/*/[01].parquet"):
        assert bidsim.replay(tmp_path / "s.yaml", tables={"ad": f"{scheme}://logs/{path}"}).to_json() == local.to_json()
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError("google::cloud::Status(PERMISSION_DENIED: caller ...)"), "listing is denied; credentials come from"),
        (PermissionError("no"), "listing is denied; credentials come from"),
        (OSError(f"google::cloud::Status(UNAVAILABLE: {NO_TOKEN}"), "no credentials were found that can be used; "),
        (
            pa.ArrowException(f"google::cloud::Status(UNKNOWN: {NO_TOKEN}"),
            "no credentials were found that can be used; ",
        ),
        (pa.ArrowInvalid("Expected a path"), r"listing failed \(ArrowInvalid\); check the network and the address"),
    ],
)
def test_what_is_lasting_fails_at_once(
    tmp_path: Path, store: ArrowStore, scheme: Scheme, pauses: list[float], failure: Exception, message: str
) -> None:
    write_scenario(tmp_path / "s.yaml", {"segments": []})
    store.filesystem.failures = [failure]
    with pytest.raises(LogError, match=message):
        bidsim.replay(tmp_path / "s.yaml", tables={"ad": f"{scheme}://logs/dsp"})
    assert pauses == []


def test_a_machine_without_credentials_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """Google's library asks for minutes whether the machine is one of Google's, which then would have some."""
    from bidsim.logs import stores_arrow

    asked: list[Any] = []
    make = fs.GcsFileSystem
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **options: asked.append(options) or make(**options))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no-such-file.json"))
    with pytest.raises(LogError, match=r"no credentials were found that can be used; .*GOOGLE_APPLICATION_CREDENTIALS"):
        stores_arrow.ArrowStore("gs", "logs").find("a")
    assert asked[0]["retry_time_limit"].total_seconds() <= 2
    assert pauses == []


def test_an_object_that_changes_or_goes_is_an_error(tmp_path: Path, store: ArrowStore, scheme: Scheme) -> None:
    first, second = sorted(store.list("dsp/"), key=lambda thing: thing.key)[:2]
    files = sorted((tmp_path / "store").rglob("*.parquet"))
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(LogError, match="changed while it was read") as error:
        store.read(first, 0, 10)
    assert error.value.file == first.url
    files[1].unlink()
    with pytest.raises(LogError, match="gone since the log was listed"):
        store.read(second, 0, 10)


def test_a_store_goes_to_other_processes_without_its_connection(store: ArrowStore) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.filesystem is None


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder whose files a server has in its bucket `logs`."""
    (tmp_path / "bucket").mkdir()
    words = [sys.executable, str(Path(__file__).with_name("gcs_server.py")), str(tmp_path / "bucket")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            where = f"127.0.0.1:{int(server.stdout.readline())}"
            monkeypatch.setattr(
                "bidsim.logs.stores_arrow.ArrowStore._connect",
                lambda self: fs.GcsFileSystem(anonymous=True, endpoint_override=where, scheme="http"),
            )
            yield tmp_path / "bucket"
        finally:
            server.kill()


def test_google_is_read_over_its_protocol(tmp_path: Path, google: Path, in_parts: None) -> None:
    """Its first answers are 429 and 503."""
    for i in range(2):
        write_log(google / "dsp" / "a" / f"{i}.parquet", log().slice(200 * i, 200), row_group_size=50)
    write_scenario(tmp_path / "s.yaml", {"segments": []})
    local = bidsim.replay(tmp_path / "s.yaml", tables={"ad": str(google / "dsp")})
    for path in ("dsp", "dsp/*/[01].parquet"):
        assert bidsim.replay(tmp_path / "s.yaml", tables={"ad": f"gs://logs/{path}"}).to_json() == local.to_json()
    with pytest.raises(LogError, match="no such file or directory"):
        bidsim.replay(tmp_path / "s.yaml", tables={"ad": "gs://logs/none"})
