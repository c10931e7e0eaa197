"""Files of an Iceberg table for pyiceberg: through bidsim's own stores, and nowhere else.

A table's metadata may name any file and even code that opens files; none of that is followed. Files of a table in a
store are in stores, and only a table on the local disk may name local files.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile
from pyiceberg.io import pyarrow as reading
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import TableMetadata

from bidsim.errors import LogError
from bidsim.logs.addresses import is_address, parse_address
from bidsim.logs.origins import Wanted
from bidsim.logs.reaching import open_store
from bidsim.logs.stores import Store, StoredObject


class Stored(InputFile):  # type: ignore[misc]
    """A small file of the table (metadata, manifests, deletes), read whole."""

    def __init__(self, location: str, store: Store, key: str) -> None:
        super().__init__(location)
        self._store, self._key = store, key
        self._thing: StoredObject | None = None

    def _find(self) -> StoredObject:
        if self._thing is None:
            self._thing = self._store.find(self._key)
        if self._thing is None:
            raise LogError("the table names this file and it is gone; was the table cleaned up?", file=self.location)
        return self._thing

    def __len__(self) -> int:
        return self._find().size

    def exists(self) -> bool:
        return self._store.find(self._key) is not None

    def open(self, seekable: bool = True) -> InputStream:
        thing = self._find()
        return io.BytesIO(self._store.read(thing, 0, thing.size))


class Local(InputFile):  # type: ignore[misc]
    """A file on the disk."""

    def __init__(self, location: str, path: str | Path) -> None:
        super().__init__(location)
        self._path = path

    def __len__(self) -> int:
        return os.path.getsize(self._path)

    def exists(self) -> bool:
        return os.path.isfile(self._path)

    def open(self, seekable: bool = True) -> InputStream:
        try:
            return open(self._path, "rb")
        except FileNotFoundError:
            raise LogError(
                "the table names this file and it is gone; was the table cleaned up?", file=self.location
            ) from None


class Files(FileIO):  # type: ignore[misc]
    """local: whether the table may have local files; copies: local copies of files, by location."""

    def __init__(self, table: str, *, local: bool, copies: Mapping[str, Path] | None = None) -> None:
        super().__init__()
        self.table, self.local, self.copies = table, local, dict(copies or {})
        self._stores: dict[tuple[str, str], Store] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}}

    def store_of(self, location: str) -> tuple[Store, str]:
        """The store and the key of a location in one."""
        address = parse_address(location, self.table)
        known = (address.scheme, address.place)
        if known not in self._stores:
            self._stores[known] = open_store(address)
        return self._stores[known], address.key

    def path_of(self, location: str) -> str | None:
        """The path of a local file; None for one in a store. Raises LogError for one that the table may not name."""
        text = location.removeprefix("file://") if location.startswith("file:///") else location.removeprefix("file:")
        if is_address(text):
            return None
        if not self.local:
            raise LogError(f"table {self.table}: the table lies in a store and names a local file", file=location)
        return text

    def new_input(self, location: str) -> InputFile:
        if location in self.copies:
            return Local(location, self.copies[location])
        path = self.path_of(location)
        return Local(location, path) if path is not None else Stored(location, *self.store_of(location))

    def new_output(self, location: str) -> OutputFile:
        raise PermissionError("bidsim writes no tables")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise PermissionError("bidsim writes no tables")


@dataclass(frozen=True)
class IcebergReader:
    """tasks: a data file and the files of its deletes, in the order of the table's files."""

    metadata: TableMetadata
    schema: Schema
    tasks: tuple[FileScanTask, ...]
    files: Files

    @property
    def by_name(self) -> bool:
        return len(self.metadata.schemas) == 1  # no column was ever renamed

    def raw(self, wanted: Wanted) -> Wanted:
        """Columns by number: a file written before a column was renamed has it under its old name."""
        names = wanted.columns
        ids = frozenset(f.field_id for f in self.schema.fields if names is None or f.name.lower() in names)
        return replace(wanted, columns=None, ids=ids, span=None)

    def batches(self, index: int, file: Path, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
        task = self.tasks[index]
        files = Files(self.files.table, local=self.files.local, copies={task.file.file_path: file})
        scan = reading.ArrowScan(self.metadata, files, self.schema.select(*columns.names), AlwaysTrue())
        # The public way holds all rows of a file in memory.
        deletes = reading._read_all_delete_files(files, [task])
        for batch in scan._record_batches_from_scan_tasks_and_deletes([task], deletes):
            arrays = [batch.column(f.name).cast(f.type) for f in columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=columns)
