"""Logs as Spark reads them, with the columns and types that DuckDB would give them, and where each row stands.

Parquet files go through Spark's own reader. CSV and NDJSON are read once by DuckDB on this machine, whose rules for
types they follow, and go on as Parquet; that needs a session on this machine. A table of the session's catalog (Hive,
Delta, Iceberg) is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bidsim.errors import LogError
from bidsim.logs.columns import settle_columns
from bidsim.logs.source import Source, list_files, quote_text
from bidsim.replay.engine import Engine
from bidsim.replay.spark.types import spark_type

# The path as text, to be ordered as DuckDB orders it; percent signs are the reader's own.
FILE = "url_decode(replace(_metadata.file_path, '+', '%2B'))"


class Reader(Protocol):
    """The part of the engine that is needed here."""

    session: Any
    empty: Engine
    work: Path


def read_source(engine: Reader, source: Source, name: str) -> tuple[Source, Any, Any]:
    """(the source as relation `name`, its rows, the same with `filename` and `file_row_number`); makes the empty table
    `name` too. A table that does not number its rows has None for the last. Raises LogError."""
    empty = engine.empty
    if source.catalog:
        return _from_catalog(engine, source, name)
    settled = settle_columns(source, empty)
    empty.run(f"create or replace table {name} as select * from {settled.reader()} limit 0")
    kinds = empty.names(f"from {name}")
    read = settled
    if settled.format != "parquet":
        read = _as_parquet(engine, settled, name)
    groups = _groups(empty, read) if read.by_name else [list(read.files)]
    placed = None
    for files in groups:
        part = _read(engine.session, files, kinds, source.name)
        placed = part if placed is None else placed.unionAll(part)
    assert placed is not None
    return replace(settled, relation=name, format="parquet"), placed.drop("filename", "file_row_number"), placed


def _as_parquet(engine: Reader, source: Source, name: str) -> Source:
    master = engine.session.conf.get("spark.master", "")
    if not str(master).startswith("local"):
        raise LogError(
            f"table {source.name}: engine spark reads {source.format.upper()} only where the session runs on this machine; "
            "write the log as Parquet, or give a table of the catalog",
            file=source.files[0],
        )
    taken = len(list(engine.work.glob(f"{name}-*.parquet")))
    file = engine.work / f"{name}-{taken}.parquet"
    engine.empty.run(f"copy (select * from {source.reader()}) to {quote_text(str(file))} (format parquet)")
    return replace(source, files=(str(file),), format="parquet", by_name=False)


def _from_catalog(engine: Reader, source: Source, name: str) -> tuple[Source, Any, Any]:
    try:
        frame = engine.session.table(source.catalog)
        schema = frame.limit(0).toArrow().schema
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise LogError(f"table {source.name}: the session's catalog gives no {source.catalog}: {said}") from error
    engine.empty.declare(name, schema)
    try:
        placed = frame.selectExpr("*", f"{FILE} as filename", "_metadata.row_index as file_row_number")
    except Exception:
        placed = None  # not Parquet files
    return replace(source, relation=name), frame, placed


def _groups(empty: Engine, source: Source) -> list[list[str]]:
    """Files that have the same columns of the same types."""
    rows = empty.rows(
        "select file_name, cast(list([name, duckdb_type] order by name) as varchar) as shape "
        f"from parquet_schema({list_files(source.files)}) where duckdb_type is not null group by file_name order by file_name"
    )
    groups: dict[str, list[str]] = {}
    for file, shape in rows:
        groups.setdefault(str(shape), []).append(str(file))
    return list(groups.values())


def _read(session: Any, files: Sequence[str], kinds: Sequence[tuple[str, str]], table: str) -> Any:
    frame = session.read.option("recursiveFileLookup", "true").parquet(*map(_path, files))
    has = {field.name.lower(): field for field in frame.schema.fields}
    parts = []
    for name, kind in kinds:
        quoted = "`" + name.replace("`", "``") + "`"
        wanted = spark_type(kind)
        field = has.get(name.lower())
        if field is None:
            value = _from_path(name, files) if any(f"/{name}=" in f for f in files) else "null"
        else:
            value = "`" + field.name.replace("`", "``") + "`"
            given = field.dataType.simpleString()
            if kind.startswith("TIMESTAMP") and given == "bigint":
                value = f"timestamp_micros({value} div 1000)"  # nanoseconds
            elif wanted is None and given in ("binary", "time(6)"):
                wanted = None
        parts.append(f"cast({value} as {wanted}) as {quoted}" if wanted else f"{value} as {quoted}")
    try:
        return frame.selectExpr(*parts, f"{FILE} as filename", "_metadata.row_index as file_row_number")
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise LogError(f"table {table}: Spark can't read the columns as they are: {said}", file=files[0]) from error


def _path(file: str) -> str:
    """A local file as Hadoop names it: nothing is encoded, and signs of its globs are escaped."""
    return "file:" + re.sub(r"([*?{}\[\]\\])", r"\\\1", file)


def _from_path(name: str, files: Sequence[str]) -> str:
    """A column that only the names of directories hold (dt=2026-01-31)."""
    quoted = name.replace("'", "\\'")
    return f"nullif(regexp_extract({FILE}, '/{quoted}=([^/]*)/', 1), '')"
