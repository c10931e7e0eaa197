"""Delta tables, through deltalake: which files a version has, its columns, its deletion vectors.

Of a table in a store its log is copied first, from the last checkpoint on, so that credentials, retries and errors are
those of every other log here and the library sees local files only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.errors import LogError
from bidsim.logs.addresses import MAGIC, is_address, parse_address
from bidsim.logs.fetching import Piece, fetch
from bidsim.logs.origins import Wanted, silent
from bidsim.logs.reaching import open_store
from bidsim.logs.source import Source
from bidsim.logs.stores import Store, StoredObject
from bidsim.logs.tables import Table, TableFile
from bidsim.scratch import scratch

# Features of a table's protocol that change nothing for a reader of its rows, or are done here.
READABLE = {"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "appendOnly", "invariants"}
READABLE |= {"typeWidening", "typeWidening-preview", "variantType", "variantType-preview", "checkConstraints"}
READABLE |= {"generatedColumns", "identityColumns", "changeDataFeed", "domainMetadata", "inCommitTimestamp"}
COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-f-]{36})?\.(?:parquet|json)")
# The statistics of a file hold times cut to milliseconds.
CUT_TIMES = timedelta(milliseconds=1)
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class DeltaReader:
    """constants: values of partition columns by file; kept: by file, a bit for each row that was not deleted."""

    constants: Sequence[dict[str, Any]]
    kept: dict[int, tuple[npt.NDArray[np.uint8], int]] = field(default_factory=dict)

    @property
    def by_name(self) -> bool:
        return True  # tables that map names are refused

    def raw(self, wanted: Wanted) -> Wanted:
        return wanted

    def batches(self, index: int, file: Path, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
        # Old Spark wrote times as INT96; as nanoseconds they would end in 2262.
        parquet = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
        names = {name.lower(): name for name in parquet.schema_arrow.names}
        constants = self.constants[index]
        read = [names[f.name.lower()] for f in columns if f.name not in constants and f.name.lower() in names]
        packed = self.kept.get(index)
        mask = None if packed is None else np.unpackbits(packed[0], count=packed[1]).astype(bool)
        start = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=read or parquet.schema_arrow.names[:1]):
            arrays = [_column(batch, f, names, constants) for f in columns]
            made = pa.RecordBatch.from_arrays(arrays, schema=columns)
            if mask is not None:
                # A vector may be shorter than the file: rows after its end are kept.
                part = mask[start : start + batch.num_rows]
                part = np.concatenate([part, np.ones(batch.num_rows - len(part), dtype=bool)])
                made = made.filter(pa.array(part))
            start += batch.num_rows
            yield made


def _column(batch: pa.RecordBatch, f: pa.Field, names: dict[str, str], constants: dict[str, Any]) -> pa.Array:
    if f.name in constants:
        return pa.repeat(pa.scalar(constants[f.name], type=f.type), batch.num_rows)
    if f.name.lower() not in names:  # the column was added after the file was written
        return pa.nulls(batch.num_rows, f.type)
    return batch.column(names[f.name.lower()]).cast(f.type)


def find_delta(name: str, place: str, version: int | None, hint: str) -> Source:
    """A version of a Delta table, the newest by default. place: an address, or an absolute path. Raises LogError."""
    _library()
    if not is_address(place):
        if not (Path(place) / "_delta_log").is_dir():
            raise LogError(f"table {name}: no Delta table is here (there is no _delta_log); {hint}", file=place)
        table = _open(name, place, Path(place), version)
        local = tuple(replace(part, name=str(Path(place) / part.name)) for part in table.parts)
        return _source(replace(table, parts=local))
    address = parse_address(place, name)
    if MAGIC.search(address.key):
        raise LogError(f"table {name}: a Delta table is one folder, not a glob", file=str(address))
    store = open_store(address)
    prefix = f"{address.key.rstrip('/')}/" if address.key.strip("/") else ""
    things = {t.key.removeprefix(prefix): t for t in store.list(prefix)}
    needed = _log_files(list(things), version)
    if not needed:
        raise LogError(f"table {name}: no Delta table is here (there is no _delta_log); {hint}", file=str(address))
    with scratch() as folder:
        copy = Path(folder).resolve()
        _copy_log(store, [(key, things[key]) for key in needed], copy, str(address))
        table = _open(name, str(address), copy, version)
    parts = []
    for part in table.parts:
        thing = things.get(part.name)
        if thing is None:
            raise LogError(
                "the table names this file and it is gone; was the table vacuumed?", file=f"{address}/{part.name}"
            )
        parts.append(replace(part, name=thing.url, thing=thing))
    return _source(replace(table, parts=tuple(parts), store=store))


def _library() -> Any:
    try:
        import deltalake
    except ImportError:
        raise LogError("Delta tables need deltalake: pip install 'bidsim[delta]'") from None
    return deltalake


def _log_files(keys: Sequence[str], version: int | None) -> list[str]:
    """Keys, relative to the table, that say what a version is: its last whole checkpoint and what follows."""
    log = [key.removeprefix("_delta_log/") for key in keys if key.startswith("_delta_log/")]
    checkpoints: dict[int, list[str]] = {}
    for key in log:
        found = CHECKPOINT.fullmatch(key)
        if found and (version is None or int(found.group(1)) <= version):
            checkpoints.setdefault(int(found.group(1)), []).append(key)

    def whole(files: list[str]) -> bool:
        parts = [found for key in files if (found := CHECKPOINT.fullmatch(key)) and found.group(2)]
        return len(parts) < len(files) or len(parts) >= int(parts[0].group(3))

    first = max((number for number, files in checkpoints.items() if whole(files)), default=0)
    needed = [key for key in log if (m := COMMIT.fullmatch(key)) and int(m.group(1)) >= first]
    needed += checkpoints.get(first, [])
    needed += [key for key in log if key.startswith("_sidecars/")]
    vectors = [key for key in keys if re.search(r"(^|/)deletion_vector_[0-9a-f-]+\.bin$", key)]
    return [*(f"_delta_log/{key}" for key in needed), *(vectors if needed else [])]


def _copy_log(store: Store, wanted: Sequence[tuple[str, StoredObject]], folder: Path, what: str) -> None:
    pieces = []
    for key, thing in wanted:
        file = folder / key
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise LogError("an object of the table's log has a name that is no file's", file=thing.url)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        pieces.append(Piece(thing, 0, thing.size, file, 0))
    fetch(store, pieces, folder, silent, f"the log of {what}")


def _open(name: str, shown: str, folder: Path, version: int | None) -> Table:
    """The table with its files by their paths below it."""
    deltalake = _library()
    try:
        table = deltalake.DeltaTable(str(folder), version=version)
        newest = table.version()
    except (deltalake.exceptions.DeltaError, OSError, ValueError) as error:
        wanted = f"version {version}" if version is not None else "the newest version"
        said = " ".join(str(error).replace(str(folder), shown).split())[:200]
        raise LogError(f"table {name}: {wanted} of the Delta table can't be opened ({said})", file=shown) from None
    _check_features(table, name, shown)
    schema = pa.schema(table.schema().to_arrow())
    actions = pa.table(table.get_add_actions(flatten=True))
    rows = sorted(actions.to_pylist(), key=lambda row: unquote(row["path"]))
    partitions = list(table.metadata().partition_columns)
    timed = [f.name for f in schema if pa.types.is_timestamp(f.type)]
    deleted = _deleted(table, folder) if "deletionVectors" in (table.protocol().reader_features or ()) else {}
    parts, kept = [], {}
    for i, row in enumerate(rows):
        path = unquote(row["path"])
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) or path.startswith("/") or ".." in path.split("/"):
            raise LogError(
                f"table {name}: the Delta table has files outside of its folder, as shallow clones do; clone it whole",
                file=shown,
            )
        times = {c.lower(): (row.get(f"min.{c}"), _later(row.get(f"max.{c}"))) for c in timed}
        parts.append(TableFile(path, int(row["size_bytes"]), times=times, cut=path in deleted))
        if path in deleted:
            kept[i] = deleted.pop(path)
    if deleted:
        raise LogError(f"table {name}: a deletion vector belongs to no file of the table", file=shown)
    if not parts:
        raise LogError(f"table {name}: version {newest} of the Delta table has no rows", file=shown)
    constants = [{c: row[f"partition.{c}"] for c in partitions} for row in rows]
    values = pa.table({c: pa.array([k[c] for k in constants], schema.field(c).type) for c in partitions})
    return Table(
        name,
        shown,
        "delta",
        newest,
        str(table.metadata().id),
        schema,
        tuple(parts),
        DeltaReader(constants, kept),
        partition_values=values if partitions else None,
    )


def _check_features(table: Any, name: str, shown: str) -> None:
    unknown = sorted(set(table.protocol().reader_features or ()) - READABLE)
    if str(table.metadata().configuration.get("delta.columnMapping.mode", "none")) != "none":
        unknown = sorted({*unknown, "columnMapping"})
    if unknown:
        raise LogError(
            f"table {name}: the Delta table uses {', '.join(unknown)}, which bidsim can't read; write a table without it "
            "(CREATE TABLE ... AS SELECT)",
            file=shown,
        )


def _deleted(table: Any, folder: Path) -> dict[str, tuple[npt.NDArray[np.uint8], int]]:
    """By path below the table, the rows that are kept, eight to a byte."""
    found = {}
    for batch in table.deletion_vectors():
        batch = pa.record_batch(batch)
        for path, rows in zip(batch.column("filepath").to_pylist(), batch.column("selection_vector"), strict=True):
            mask = np.asarray(rows.values)
            local = unquote(path.removeprefix("file://")) if path.startswith("file://") else path
            found[local.removeprefix(f"{folder}/").removeprefix(f"{folder.resolve()}/")] = (
                np.packbits(mask),
                len(mask),
            )
    return found


def _later(moment: Any) -> Any:
    try:
        return moment + CUT_TIMES if isinstance(moment, datetime) else moment
    except OverflowError:  # the year 9999, which stands for no end
        return moment


def _source(table: Table) -> Source:
    return Source(table.name, table.files, "parquet", origin=table)
