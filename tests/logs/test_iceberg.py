"""An Iceberg table is a log like any other: its snapshot's rows, its own columns, no row that was deleted."""

from __future__ import annotations

import json
import pickle
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bucket import SECRET, Bucket, Proxy
from command import bidsim as command
from command import log, write_log, write_scenario

import bidsim
from bidsim.errors import LogError
from bidsim.logs.iceberg import find_iceberg
from bidsim.result import Result

pytest.importorskip("pyiceberg")
pytest.importorskip("sqlalchemy")
SMALL = log().slice(0, 400)
COLUMNS = {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
SCENARIO = {"columns": COLUMNS, "segments": ["spot_id"]}


def catalog(folder: Path, warehouse: str | None = None, **more: str) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    folder.mkdir(parents=True, exist_ok=True)
    made = SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=warehouse or f"file://{folder}/w", **more)
    made.create_namespace("dsp")
    return made


def table_of(made: Any, rows: pa.Table, *identities: str) -> Any:
    table = made.create_table("dsp.ad", schema=rows.schema)
    if identities:
        with table.update_spec() as update:
            for name in identities:
                update.add_identity(name)
    return table


def result(folder: Path, path: str | Path, changes: dict[str, Any] | None = None, **table: Any) -> Result:
    write_scenario(
        folder / "s.yaml", {**SCENARIO, **(changes or {}), "logs_tables": {"ad": {"format": "iceberg", **table}}}
    )
    return bidsim.replay(folder / "s.yaml", tables={"ad": str(path)}, as_of=date(2026, 12, 1), threads=2)


def same(folder: Path, one: Result, rows: pa.Table, changes: dict[str, Any] | None = None, **keys: Any) -> None:
    """A result is that of a Parquet file of these rows, but for the text of the scenario, which names the format."""
    write_log(folder / "plain" / "log.parquet", rows)
    write_scenario(folder / "p.yaml", {**SCENARIO, **(changes or {}), "logs_tables": {"ad": keys}})
    other = bidsim.replay(folder / "p.yaml", tables={"ad": str(folder / "plain")}, as_of=date(2026, 12, 1), threads=2)
    parts = [r.model_copy(update={"scenario": {}, "scenario_sha256": ""}).model_dump() for r in (one, other)]
    assert parts[0] == parts[1]


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_partitioned_table_gives_the_numbers_of_its_rows(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, where: str, endpoint: str
) -> None:
    """By its folder and by a metadata file; only what partitions and times leave is fetched."""
    more = {"s3.endpoint": endpoint, "s3.access-key-id": "k", "s3.secret-access-key": SECRET, "s3.region": "us-east-1"}
    made = catalog(tmp_path, f"s3://{bucket.name}/w", **more) if where == "s3" else catalog(tmp_path)
    rows = log().append_column("day", pc.strftime(log()["ts"], format="%Y-%m-%d").cast(pa.string()))
    table = table_of(made, rows, "day", "ad_id")
    for start in (0, 300, 600, 900):
        table.append(rows.slice(start, 300))
    window = {"last_hour": "2026-11-01T10:00:00", "duration_hour": 10}
    changes = {"budget": {"amount": 0.2, "per": "day"}, "conditions": ["day = '2026-11-01'", "ad_id in (3, 7)"]}
    found = result(tmp_path, table.location().removeprefix("file://"), changes, **window)
    same(tmp_path, found, rows, changes, **window)
    if where == "s3":
        asked = {path.partition("?")[0] for _, path in proxy.requests if path.partition("?")[0].endswith(".parquet")}
        assert len(asked) == 2
        assert all("ad_id%3D3" in path or "ad_id%3D7" in path for path in asked)
        proxy.requests.clear()
    again = result(tmp_path, made.load_table("dsp.ad").metadata_location.removeprefix("file://"), changes, **window)
    assert again.to_json() == found.to_json()


def test_an_older_snapshot_is_read_and_named(tmp_path: Path) -> None:
    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL.slice(0, 200))
    first = table.current_snapshot().snapshot_id
    table.append(SMALL.slice(200, 200))
    place = table.location().removeprefix("file://")
    same(tmp_path, result(tmp_path, place, snapshot=first), SMALL.slice(0, 200))
    result(tmp_path, place)
    said = command("replay", "--scenario", tmp_path / "s.yaml", "--table", f"ad={place}", "--out", tmp_path / "run")
    assert said.status == 0, said.err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["log"]["ad"]
    assert (facts["format"], facts["snapshot"]) == ("iceberg", table.current_snapshot().snapshot_id)
    with pytest.raises(LogError, match=f"has no snapshot 7; it has {first}, "):
        result(tmp_path, place, snapshot=7)


def test_renamed_and_added_columns_are_the_current_ones(tmp_path: Path) -> None:
    """A column takes the name that another one had: files written before are read by number, not by name."""
    made = catalog(tmp_path)
    table = table_of(made, SMALL)
    table.append(SMALL.slice(0, 200))
    with table.update_schema() as update:
        update.rename_column("pcvr", "old_pcvr")
    with table.update_schema() as update:
        update.rename_column("pctr_v2", "pcvr")
        update.add_column("extra", table.schema().find_field("spot_id").field_type)
    names = {"pcvr": "old_pcvr", "pctr_v2": "pcvr"}
    renamed = SMALL.rename_columns([names.get(n, n) for n in SMALL.column_names])
    rows = renamed.append_column("extra", pa.array([None] * 200 + ["x"] * 200, pa.string()))
    table.append(rows.slice(200, 200))
    changes = {"segments": ["extra"], "candidates": {"v2": {"bid": {"multiplier": 1.2}}}}
    same(tmp_path, result(tmp_path, table.location().removeprefix("file://"), changes), rows, changes)


def add_deletes(table: Any, content: str, deletes: pa.Table, **more: Any) -> None:
    """What Spark and Flink write for merge-on-read deletes."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    path = f"{table.location()}/data/{content}.parquet".lower()
    pq.write_table(deletes, path.removeprefix("file://"))
    file = DataFile.from_args(
        content=DataFileContent[content],
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=deletes.num_rows,
        file_size_in_bytes=Path(path.removeprefix("file://")).stat().st_size,
        **more,
    )
    file.spec_id = table.spec().spec_id
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)


def test_deleted_rows_are_not_read(tmp_path: Path) -> None:
    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL)
    (task,) = table.scan().plan_files()
    gone = [0, 5, *range(100, 180), 399]
    kinds = pa.schema(
        [
            pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
        ]
    )
    add_deletes(table, "POSITION_DELETES", pa.table([[task.file.file_path] * len(gone), gone], schema=kinds))
    place = table.location().removeprefix("file://")
    left = SMALL.filter(pa.array([i not in gone for i in range(400)]))
    same(tmp_path, result(tmp_path, place), left)
    add_deletes(table, "EQUALITY_DELETES", pa.table({"user_id": [3]}), equality_ids=[3])
    with pytest.raises(LogError, match="equality deletes, which bidsim can't read; rewrite its data files first"):
        result(tmp_path, place)


def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as a new process would find it."""
    import pyiceberg.catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setattr(pyiceberg.catalog, "_ENV_CONFIG", Config())


def test_a_catalog_is_configured_as_pyiceberg_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL)
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{tmp_path}/catalog.db")
    configured(monkeypatch)
    found = result(tmp_path, table.location().removeprefix("file://"))
    assert result(tmp_path, "lake.dsp.ad").to_json() == found.to_json()
    with pytest.raises(LogError, match=r"the catalog lake gives no table dsp.none \(NoSuchTableError\)"):
        result(tmp_path, "lake.dsp.none")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"postgresql://user:{SECRET}@nowhere/x")
    configured(monkeypatch)
    with pytest.raises(LogError, match=r"the catalog lake gives no table dsp.ad") as error:
        result(tmp_path, "lake.dsp.ad")
    assert SECRET not in str(error.value)


def test_what_can_not_be_read_is_refused(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    made = catalog(tmp_path)
    table = table_of(made, SMALL)
    place = Path(table.location().removeprefix("file://"))
    with pytest.raises(LogError, match="has no snapshot and so no rows"):
        result(tmp_path, place)
    table.append(SMALL)
    newest = place / "metadata" / Path(table.metadata_location).name
    # A table in a store that names files of this machine is a stranger's trick.
    there = bucket.put("t/metadata/00001-a.metadata.json", newest)
    with pytest.raises(LogError, match="the table lies in a store and names a local file"):
        result(tmp_path, there)
    twin = newest.with_name(newest.name[:6] + "00000000-0000-4000-8000-000000000000.metadata.json")
    twin.write_bytes(newest.read_bytes())
    with pytest.raises(LogError, match="have the same number, and only a catalog knows which one counts"):
        result(tmp_path, place)
    twin.unlink()
    next(place.glob("data/*.parquet")).unlink()
    with pytest.raises(LogError, match="gone; was the table") as error:
        result(tmp_path, place)
    assert str(error.value.file).endswith(".parquet")
    newest.write_text("{}")
    with pytest.raises(LogError, match="the Iceberg table can't be opened"):
        result(tmp_path, place)
    with pytest.raises(LogError, match=r"no Iceberg table is here \(there is no metadata/"):
        result(tmp_path, tmp_path)
    with pytest.raises(LogError, match="no such file or directory"):
        result(tmp_path, tmp_path / "none")
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    with pytest.raises(LogError, match=r"Iceberg tables need pyiceberg: pip install 'bidsim\[iceberg\]'"):
        result(tmp_path, place)


def test_metadata_can_not_choose_the_code_that_opens_files(tmp_path: Path) -> None:
    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL)
    place = Path(table.location().removeprefix("file://"))
    newest = place / "metadata" / Path(table.metadata_location).name
    content = json.loads(newest.read_text())
    content["properties"] = {"py-io-impl": "no.such.Module", "s3.endpoint": "http://attacker"}
    newest.write_text(json.dumps(content))
    same(tmp_path, result(tmp_path, place), SMALL)


def test_a_source_goes_to_other_processes(tmp_path: Path) -> None:
    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL)
    place = table.location().removeprefix("file://")
    source = find_iceberg("ad", place, place, None, "")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.origin.describe() == source.origin.describe()  # type: ignore[union-attr]
