"""One Spark session for all tests that need one.

With BIDSIM_ENGINE=spark in the environment every replay of these tests runs on Spark: too slow for each day, by hand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

import bidsim


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java; .ci/run installs it")
    from bidsim.replay.spark.session import open_session

    # Logs of a few hundred rows: compiling their queries would take most of the time.
    small = {
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": tmp_path_factory.mktemp("warehouse").as_uri(),
    }
    session, owned = open_session(remote=None, master="local[2]", config=small, threads=2, memory_bytes=2**30)
    yield session
    if owned:
        session.stop()


@pytest.fixture(autouse=os.environ.get("BIDSIM_ENGINE") == "spark")
def on_spark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("spark")
    plain = bidsim.replay

    def replay(*arguments: Any, **keys: Any) -> Any:
        return plain(*arguments, **{"engine": "spark", **keys})

    monkeypatch.setattr(bidsim, "replay", replay)
