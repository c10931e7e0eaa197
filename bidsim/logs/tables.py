"""A table with a log of its own (Delta, Iceberg): its files of one version, brought here as plain Parquet.

The library of the format says which files a version has, what its columns are and which rows were deleted; this module
brings the bytes, as `objects` does, and writes each file again with the table's own columns and types, so that what
follows sees one Parquet log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.errors import LogError
from bidsim.logs.fetching import disk_full
from bidsim.logs.objects import Objects
from bidsim.logs.origins import PART, Told, Wanted, show_files, silent
from bidsim.logs.stores import Store, StoredObject

GROUP_ROWS = 122_880


@dataclass(frozen=True)
class TableFile:
    """A data file. name: its path or address; thing: the object where it is in a store; times: (least, greatest) of
    columns by lower-case name; cut: whether some of its rows are deleted."""

    name: str
    size: int
    thing: StoredObject | None = None
    times: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    cut: bool = False


class Reader(Protocol):
    """What a format adds to its files."""

    @property
    def by_name(self) -> bool:
        """Whether the files' own column names are the table's."""

    def batches(self, index: int, file: Path, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of a data file, whose local copy has at least these columns, in the table's types and without the
        rows that were deleted."""

    def raw(self, wanted: Wanted) -> Wanted:
        """What must be fetched of the files for what is wanted of the table."""


@dataclass(frozen=True)
class Table:
    """One version of a table. kind: delta or iceberg; version: its number, or its snapshot's; files: in their order.

    partitions: a row of partition values for each file, where it has some that rows can be chosen by.
    """

    name: str
    address: str
    kind: str
    version: int
    token: str
    schema: pa.Schema
    parts: tuple[TableFile, ...]
    reader: Reader
    store: Store | None = None
    partition_values: pa.Table | None = None
    directory: Path | None = None
    told: Told = field(default=silent, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "told": silent}

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    @property
    def tokens(self) -> tuple[str, ...]:
        return (f"{self.kind} {self.token} {self.version}",)

    @property
    def partitions(self) -> Path | None:
        if self.directory is None or self.partition_values is None:
            return None
        return self.directory / "partitions.parquet"

    def describe(self) -> dict[str, Any]:
        number = "version" if self.kind == "delta" else "snapshot"
        sizes = {"files": len(self.parts), "bytes": sum(part.size for part in self.parts)}
        return {"path": self.address, "format": self.kind, number: self.version, **sizes}

    def begin(self, directory: Path, told: Told) -> tuple[list[Path], Table]:
        """One file without rows: its columns are those of all files."""
        here = replace(self, directory=directory, told=told)
        number = "version" if self.kind == "delta" else "snapshot"
        told(f"opening {number} {self.version} of {self.address}: {len(self.parts):,} files")
        columns = here._columns()
        columns.parent.mkdir(parents=True)
        pq.write_table(self.schema.empty_table(), columns)
        if here.partitions is not None:
            pq.write_table(self.partition_values, here.partitions)
        return [columns], here

    def rows(self, wanted: Wanted) -> list[Path]:
        assert self.directory is not None
        kept = [i for i in range(len(self.parts)) if self._in(i, wanted)]
        if not kept:
            return [self._columns()]
        whole = self.directory / f"rows-{wanted.digest}"
        if not whole.is_dir():
            aside = self.directory / f"{whole.name}.{os.getpid()}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            self._convert(kept, wanted, aside)
            self.told("reading the log")
            try:
                os.rename(aside, whole)
            except OSError:  # another process was faster
                shutil.rmtree(aside, ignore_errors=True)
        return [_file(whole, i) for i in kept]

    def shown(self, text: str) -> str:
        if self.directory is None:
            return text
        return show_files(text.replace(str(self._columns()), self.address), self.directory, self.files)

    def _columns(self) -> Path:
        assert self.directory is not None
        return _file(self.directory / "columns", 0)

    def _in(self, index: int, wanted: Wanted) -> bool:
        if wanted.files is not None and index not in wanted.files:
            return False
        times = self.parts[index].times.get(wanted.span.column) if wanted.span is not None else None
        return wanted.span is None or times is None or wanted.span.may_hold(*times)

    def _convert(self, kept: list[int], wanted: Wanted, aside: Path) -> None:
        columns = pa.schema([f for f in self.schema if wanted.reads(f.name)] or [self.schema.field(0)])
        local = self._bring(kept, replace(wanted, columns=frozenset(name.lower() for name in columns.names)))
        self.told(f"reading {len(kept):,} files of {self.address}")
        for i in kept:
            try:
                _write(self.reader.batches(i, local[i], columns), columns, _file(aside, i))
            except OSError as error:
                raise disk_full(error) or _unreadable(error, self.parts[i]) from None
            except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
                raise _unreadable(error, self.parts[i]) from None
            if self.store is not None:
                local[i].unlink()  # one copy of the log at a time

    def _bring(self, kept: list[int], wanted: Wanted) -> dict[int, Path]:
        """Local copies of data files, with the columns that are wanted."""
        if self.store is None:
            return {i: Path(self.parts[i].name) for i in kept}
        assert self.directory is not None
        things = [thing for i in kept if (thing := self.parts[i].thing) is not None]
        raw = self.directory / f"raw-{wanted.digest}.{os.getpid()}"
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir()
        objects = Objects(self.name, self.address, self.store, tuple(things), "parquet")
        _, objects = objects.begin(raw, self.told)
        # Deleted rows are told by their number in the file, so such files stay whole.
        span = None if any(self.parts[i].cut for i in kept) else wanted.span
        files = objects.rows(self.reader.raw(replace(wanted, files=None, span=span)))
        return dict(zip(kept, files, strict=True))


def _file(directory: Path, index: int) -> Path:
    return directory / f"{index:08d}" / f"{PART}.parquet"


def _write(batches: Iterator[pa.RecordBatch], schema: pa.Schema, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(file, schema, compression="lz4") as writer:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in batches:
            waiting.append(batch)
            rows += batch.num_rows
            if rows >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=GROUP_ROWS)
                waiting, rows = [], 0
        if rows:
            writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=GROUP_ROWS)


def _unreadable(error: Exception, part: TableFile) -> LogError:
    if isinstance(error, FileNotFoundError):
        return LogError("the table names this file and it is gone; was the table vacuumed?", file=part.name)
    return LogError(
        f"the data file can't be read as the table's columns ({' '.join(str(error).split())[:200]})", file=part.name
    )
