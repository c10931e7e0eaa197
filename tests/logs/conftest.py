"""Stores for the tests of logs that lie elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bucket import SECRET, Bucket, Proxy, make_bucket, proxy_before, server


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with server() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """An empty bucket, and an environment that leads to it and nowhere else."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return make_bucket(endpoint)


@pytest.fixture
def proxy(bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Everything goes through it."""
    with proxy_before(endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        yield found


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are told and not made."""
    found: list[float] = []
    monkeypatch.setattr("bidsim.logs.retrying.pause", found.append)
    return found


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small objects are read as large ones are: footers first, then column chunks, a few bytes at a time."""
    monkeypatch.setattr("bidsim.logs.objects.TAIL_BYTES", 64)
    monkeypatch.setattr("bidsim.logs.fetching.PIECE_BYTES", 3000)
