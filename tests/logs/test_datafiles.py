"""Another engine is told which files it may read by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from bucket import Bucket
from command import log, write_log

from bidsim.logs.datafiles import data_files
from bidsim.logs.objects import find_objects
from bidsim.logs.source import open_source

SMALL = log().slice(0, 100)


def test_files_and_objects_are_told_as_they_lie(tmp_path: Path, bucket: Bucket) -> None:
    write_log(tmp_path / "log" / "a.csv", SMALL)
    place = bucket.put_folder(tmp_path / "log", "l")
    local = data_files(open_source("ad", tmp_path / "log", None))
    assert (local.files, local.format, local.schema, local.whole) == ((f"{tmp_path}/log/a.csv",), "csv", None, True)
    assert data_files(find_objects("ad", place, None, "")).files == (f"{place}/a.csv",)


def test_a_table_whose_rows_are_not_its_files_rows_says_so(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    from test_delta import delete_rows

    from bidsim.logs.delta import find_delta

    deltalake.write_deltalake(str(tmp_path / "t"), SMALL)
    found = data_files(find_delta("ad", str(tmp_path / "t"), None, ""))
    assert found.whole
    assert found.schema is not None
    assert found.schema.names == SMALL.column_names
    assert [Path(f).parent for f in found.files] == [tmp_path / "t"]
    delete_rows(tmp_path / "t", [3], inline=True)
    assert not data_files(find_delta("ad", str(tmp_path / "t"), None, "")).whole


def test_partition_values_are_told_by_file(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    from bidsim.logs.delta import find_delta

    deltalake.write_deltalake(str(tmp_path / "t"), SMALL, partition_by=["ad_id"])
    found = data_files(find_delta("ad", str(tmp_path / "t"), None, ""))
    assert found.partitions is not None
    named = [int(Path(f).parent.name.removeprefix("ad_id=")) for f in found.files]
    assert found.partitions["ad_id"].to_pylist() == named


def test_renamed_columns_of_iceberg_are_told(tmp_path: Path) -> None:
    pytest.importorskip("pyiceberg")
    pytest.importorskip("sqlalchemy")
    from test_iceberg import catalog, table_of

    from bidsim.logs.iceberg import find_iceberg

    table = table_of(catalog(tmp_path), SMALL)
    table.append(SMALL)
    place = table.location().removeprefix("file://")
    assert data_files(find_iceberg("ad", place, place, None, "")).whole
    with table.update_schema() as update:
        update.rename_column("pcvr", "p")
    assert not data_files(find_iceberg("ad", place, place, None, "")).whole
