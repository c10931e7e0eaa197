"""A log that is brought from a store, or read of a Delta table's version, gives the same result on Spark."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from command import log, write_log, write_scenario

import bidsim

sys.path.insert(0, str(Path(__file__).parents[2] / "logs"))
from bucket import SECRET, Bucket, make_bucket, server

SMALL = log().slice(0, 400)
COLUMNS = {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
SCENARIO = {"columns": COLUMNS, "segments": ["spot_id"], "budget": {"amount": 0.2, "per": "day"}}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """An empty bucket, and an environment that leads to it."""
    own = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    with server() as endpoint:
        for name, value in {**own, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            monkeypatch.setenv(name, value)
        yield make_bucket(endpoint)


def on_both(scenario: Path, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything but floats' last digits, which tests/replay/spark compares."""
    found = []
    for engine in ("duckdb", "spark"):
        result = bidsim.replay(scenario, tables={"ad": path}, as_of=date(2026, 12, 1), threads=2, engine=engine)  # type: ignore[arg-type]
        found.append(
            {
                **{(m.policy, m.metric, m.head, *m.segment.values(), m.beta): m.value for m in result.metrics},
                "data": result.data,
            }
        )
    return found[0], found[1]


@pytest.mark.usefixtures("spark")
def test_a_log_on_s3_is_read_by_both_engines(tmp_path: Path, bucket: Bucket) -> None:
    for i in range(3):
        write_log(tmp_path / "log" / f"dt=2026-11-0{i + 1}" / "part.parquet", SMALL.slice(100 * i, 150))
    place = bucket.put_folder(tmp_path / "log", "logs")
    write_scenario(tmp_path / "s.yaml", {**SCENARIO, "conditions": ["dt >= '2026-11-02'"]})
    ours, theirs = on_both(tmp_path / "s.yaml", place)
    assert ours["data"].rows == 300
    assert ours == theirs


@pytest.mark.usefixtures("spark")
def test_a_delta_table_is_read_by_both_engines(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    day = pc.strftime(SMALL["ts"], format="%Y-%m-%d").cast(pa.string())
    table = str(tmp_path / "table")
    deltalake.write_deltalake(table, SMALL.append_column("day", day), partition_by=["day"])
    deltalake.DeltaTable(table).delete("age > 60")
    write_scenario(tmp_path / "s.yaml", {**SCENARIO, "logs_tables": {"ad": {"format": "delta"}}})
    ours, theirs = on_both(tmp_path / "s.yaml", table)
    assert 0 < ours["data"].rows < 400
    assert ours == theirs
