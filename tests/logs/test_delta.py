"""A Delta table is a log like any other: its version's rows, its own columns, no row that was deleted."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bucket import Bucket, Proxy
from command import bidsim as command
from command import log, write_log, write_scenario

import bidsim
from bidsim.errors import LogError
from bidsim.logs.delta import find_delta
from bidsim.result import Result

deltalake = pytest.importorskip("deltalake")
SMALL = log().slice(0, 400)
COLUMNS = {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
SCENARIO = {"columns": COLUMNS, "segments": ["spot_id"]}


def days(table: pa.Table) -> pa.Table:
    return table.append_column("day", pc.strftime(table["ts"], format="%Y-%m-%d").cast(pa.string()))


def write(folder: Path, table: pa.Table, **options: Any) -> None:
    deltalake.write_deltalake(str(folder), table, **options)


def result(folder: Path, path: str | Path, changes: dict[str, Any] | None = None, **table: Any) -> Result:
    write_scenario(
        folder / "s.yaml", {**SCENARIO, **(changes or {}), "logs_tables": {"ad": {"format": "delta", **table}}}
    )
    return bidsim.replay(folder / "s.yaml", tables={"ad": str(path)}, as_of=date(2026, 12, 1), threads=2)


def plain(folder: Path, table: pa.Table, changes: dict[str, Any] | None = None, **keys: Any) -> Result:
    """The same of a Parquet file."""
    write_log(folder / "plain" / "log.parquet", table)
    write_scenario(folder / "p.yaml", {**SCENARIO, **(changes or {}), "logs_tables": {"ad": keys}})
    return bidsim.replay(folder / "p.yaml", tables={"ad": str(folder / "plain")}, as_of=date(2026, 12, 1), threads=2)


def same(one: Result, other: Result) -> None:
    """All but the text of the scenario itself, which names the format."""
    parts = [r.model_copy(update={"scenario": {}, "scenario_sha256": ""}).model_dump() for r in (one, other)]
    assert parts[0] == parts[1]


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_partitioned_table_gives_the_numbers_of_its_rows(tmp_path: Path, bucket: Bucket, where: str) -> None:
    table = days(log())
    for start in (0, 700):
        write(tmp_path / "t", table.slice(start, 700), mode="append", partition_by=["day", "ad_id"])
    place = bucket.put_folder(tmp_path / "t", "lake/t") if where == "s3" else str(tmp_path / "t")
    window = {"last_hour": "2026-11-01T17:00:00", "duration_hour": 12}
    changes = {
        "budget": {"amount": 0.2, "per": "day"},
        "conditions": ["day = '2026-11-01'", "ad_id in (3, 7)"],
        "segments": ["spot_id", "day"],
    }
    same(result(tmp_path, place, changes, **window), plain(tmp_path, table, changes, **window))


def test_only_files_of_the_partitions_and_the_window_are_fetched(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, in_parts: None
) -> None:
    table = days(log())
    for part in range(6):
        write(tmp_path / "t", table.slice(200 * part, 200), mode="append", partition_by=["ad_id"])
    place = bucket.put_folder(tmp_path / "t", "t")
    changes = {"conditions": ["ad_id = 7"]}
    result(tmp_path, place, changes, last_hour="2026-11-01T07:00:00", duration_hour=4)
    asked = {path.partition("?")[0] for _, path in proxy.requests if ".parquet" in path}
    assert len(asked) == 1
    assert "ad_id%3D7" in asked.pop()


def test_an_older_version_is_read_and_named(tmp_path: Path) -> None:
    table = days(SMALL)
    write(tmp_path / "t", table.slice(0, 200))
    write(tmp_path / "t", table.slice(200, 200), mode="append")
    same(result(tmp_path, tmp_path / "t", version=0), plain(tmp_path, table.slice(0, 200)))
    same(result(tmp_path, tmp_path / "t"), plain(tmp_path, table))
    said = command(
        "replay", "--scenario", tmp_path / "s.yaml", "--table", f"ad={tmp_path / 't'}", "--out", tmp_path / "run"
    )
    assert said.status == 0, said.err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["log"]["ad"]
    assert (facts["format"], facts["version"], facts["files"]) == ("delta", 1, 2)
    with pytest.raises(LogError, match="version 7 of the Delta table can't be opened") as error:
        result(tmp_path, tmp_path / "t", version=7)
    assert error.value.file == str(tmp_path / "t")


def test_columns_added_later_are_missing_before(tmp_path: Path) -> None:
    early = SMALL.slice(0, 200).drop_columns(["spot_id"])
    write(tmp_path / "t", early)
    write(tmp_path / "t", SMALL.slice(200, 200), mode="append", schema_mode="merge")
    both = pa.concat_tables(
        [early.append_column("spot_id", pa.nulls(200, pa.string())), SMALL.slice(200, 200)], promote_options="default"
    )
    same(result(tmp_path, tmp_path / "t"), plain(tmp_path, both.select(SMALL.column_names)))


def test_a_table_whose_log_begins_with_a_checkpoint(tmp_path: Path, bucket: Bucket) -> None:
    """Older commits were cleaned up; of the log only what follows the last checkpoint is needed."""
    for i in range(4):
        write(tmp_path / "t", SMALL.slice(100 * i, 100), mode="append")
        if i == 2:
            deltalake.DeltaTable(str(tmp_path / "t")).create_checkpoint()
    for version in (0, 1):
        (tmp_path / "t" / "_delta_log" / f"{version:020d}.json").unlink()
    place = bucket.put_folder(tmp_path / "t", "deep/er/t")
    same(result(tmp_path, place), plain(tmp_path, SMALL))
    same(result(tmp_path, place, version=2), plain(tmp_path, SMALL.slice(0, 300)))
    with pytest.raises(LogError, match="version 1 of the Delta table can't be opened"):
        result(tmp_path, place, version=1)


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def delete_rows(folder: Path, rows: list[int], inline: bool) -> None:
    """What Spark writes for DELETE: a deletion vector of the only file, in the log or in a file of its own."""
    pyroaring = pytest.importorskip("pyroaring")
    logs = sorted((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    add = next(a["add"] for a in actions if "add" in a)
    bitmap = pyroaring.BitMap(rows).serialize()
    data = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    if inline:
        padded = data + b"\0" * (-len(data) % 4)
        text = ""
        for at in range(0, len(padded), 4):
            number = int.from_bytes(padded[at : at + 4], "big")
            text += "".join(Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
        vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}
    else:
        import binascii
        import uuid

        name = uuid.UUID(int=7)
        number = name.bytes
        text = ""
        for at in range(0, 16, 4):
            value = int.from_bytes(number[at : at + 4], "big")
            text += "".join(Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
        content = b"\x01" + struct.pack(">I", len(data)) + data + struct.pack(">I", binascii.crc32(data))
        (folder / f"deletion_vector_{name}.bin").write_bytes(content)
        vector = {
            "storageType": "u",
            "pathOrInlineDv": text,
            "offset": 1,
            "sizeInBytes": len(data),
            "cardinality": len(rows),
        }
    commit = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                      "writerFeatures": ["deletionVectors"]}},
        {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}},
        {"add": {**add, "deletionVector": vector}},
    ]  # fmt: skip
    text = "".join(json.dumps(action) + "\n" for action in commit)
    (folder / "_delta_log" / f"{len(logs):020d}.json").write_text(text)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("where", ["local", "s3"])
def test_deleted_rows_are_not_read(tmp_path: Path, bucket: Bucket, inline: bool, where: str) -> None:
    write(tmp_path / "t", SMALL)
    gone = [0, 5, 17, *range(100, 180), 399]
    delete_rows(tmp_path / "t", gone, inline)
    left = SMALL.filter(pa.array([i not in gone for i in range(400)]))
    place = bucket.put_folder(tmp_path / "t", "t") if where == "s3" else str(tmp_path / "t")
    window = {"last_hour": "2026-11-01T17:00:00", "duration_hour": 12}
    same(result(tmp_path, place), plain(tmp_path, left))
    same(result(tmp_path, place, **window), plain(tmp_path, left, **window))


def test_a_table_behind_a_link_is_that_table(tmp_path: Path) -> None:
    write(tmp_path / "t", SMALL)
    delete_rows(tmp_path / "t", [0, 5, 17], inline=True)
    (tmp_path / "link").symlink_to(tmp_path / "t")
    left = SMALL.filter(pa.array([i not in (0, 5, 17) for i in range(400)]))
    same(result(tmp_path, tmp_path / "link"), plain(tmp_path, left))


def test_a_time_that_stands_for_no_end_is_a_time(tmp_path: Path) -> None:
    """Statistics hold it cut to milliseconds, and later than that is none of Python's years."""
    end = pa.array([datetime(9999, 12, 31, 23, 59, 59, 999999)] * 400, pa.timestamp("us", "UTC"))
    table = SMALL.append_column("valid_until", end)
    write(tmp_path / "t", table)
    window = {"last_hour": "2026-11-01T17:00:00", "duration_hour": 12}
    same(result(tmp_path, tmp_path / "t", **window), plain(tmp_path, table, **window))


def commit(folder: Path, *actions: dict[str, Any]) -> None:
    number = len(list((folder / "_delta_log").glob("*.json")))
    (folder / "_delta_log" / f"{number:020d}.json").write_text("".join(json.dumps(a) + "\n" for a in actions))


def test_what_can_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t", SMALL)
    write(tmp_path / "gone", SMALL)
    next((tmp_path / "gone").glob("*.parquet")).unlink()
    with pytest.raises(LogError, match="gone; was the table vacuumed") as error:
        result(tmp_path, tmp_path / "gone")
    assert str(error.value.file).endswith(".parquet")
    shutil.copytree(tmp_path / "t", tmp_path / "clone")
    commit(tmp_path / "clone", {"add": {"path": "file:///etc/x.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1,
                                        "dataChange": True}})  # fmt: skip
    with pytest.raises(LogError, match="files outside of its folder, as shallow clones do"):
        result(tmp_path, tmp_path / "clone")
    shutil.copytree(tmp_path / "t", tmp_path / "climbing")
    commit(tmp_path / "climbing", {"add": {"path": "../t/x.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1,
                                           "dataChange": True}})  # fmt: skip
    with pytest.raises(LogError, match="files outside of its folder"):
        result(tmp_path, tmp_path / "climbing")
    with pytest.raises(LogError, match=r"no Delta table is here \(there is no _delta_log\)"):
        result(tmp_path, tmp_path)
    write_scenario(tmp_path / "s.yaml", SCENARIO)
    with pytest.raises(LogError, match="this is a Delta table; say format: delta in the scenario"):
        bidsim.replay(tmp_path / "s.yaml", tables={"ad": str(tmp_path / "t")})
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(LogError, match=r"Delta tables need deltalake: pip install 'bidsim\[delta\]'"):
        result(tmp_path, tmp_path / "t")


def test_a_feature_that_is_unknown_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t", SMALL)
    first = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in first.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        if "metaData" in action:
            action["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
            fields = json.loads(action["metaData"]["schemaString"])
            for i, f in enumerate(fields["fields"]):
                f["metadata"] = {"delta.columnMapping.id": i + 1, "delta.columnMapping.physicalName": f"col-{i}"}
            action["metaData"]["schemaString"] = json.dumps(fields)
    first.write_text("".join(json.dumps(a) + "\n" for a in actions))
    with pytest.raises(LogError, match="uses columnMapping, which bidsim can't read"):
        result(tmp_path, tmp_path / "t")


def test_a_source_goes_to_other_processes(tmp_path: Path) -> None:
    write(tmp_path / "t", SMALL)
    source = find_delta("ad", str(tmp_path / "t"), None, "")
    assert pickle.loads(pickle.dumps(source)).origin.describe() == source.origin.describe()  # type: ignore[union-attr]
