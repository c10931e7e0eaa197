"""Iceberg tables, through pyiceberg: by their folder, a metadata file, or the name that a catalog has for them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bidsim.errors import BidsimError, LogError
from bidsim.logs.addresses import MAGIC, is_address, parse_address
from bidsim.logs.fetching import in_threads
from bidsim.logs.reaching import open_store
from bidsim.logs.source import Source
from bidsim.logs.stores import Store, StoredObject
from bidsim.logs.tables import Table, TableFile

if TYPE_CHECKING:
    from bidsim.logs.iceberg_files import Files

METADATA = re.compile(r"v?(\d+)(?:-[0-9a-fA-F-]+)?(?:\.gz)?\.metadata\.json(?:\.gz)?")
CATALOG = re.compile(r"[\w-]+(\.[\w-]+){2,}")
FEW = 20
EPOCH = datetime(1970, 1, 1)


def find_iceberg(name: str, place: str, given: str, snapshot: int | None, hint: str) -> Source:
    """A snapshot of an Iceberg table, the current one by default.

    place: an address, or an absolute path; given: what the user wrote, which may be a catalog's name for the table.
    Raises LogError.
    """
    _library()
    from bidsim.logs.iceberg_files import Files

    try:
        if is_address(place):
            return _open(name, place, _metadata_in_store(name, place, hint), Files(name, local=False), snapshot)
        if os.path.exists(place):
            return _open(name, place, _metadata_in_folder(name, Path(place), hint), Files(name, local=True), snapshot)
        if CATALOG.fullmatch(given):
            location = _metadata_of_catalog(name, given)
            return _open(name, given, location, Files(name, local=not _in_store(location)), snapshot)
    except BidsimError:
        raise
    except Exception as error:  # of pyiceberg's many kinds, each is about the table
        raise _explain(name, place, error) from None
    raise LogError(f"table {name}: no such file or directory; {hint}", file=place)


def _library() -> None:
    try:
        import pyiceberg  # noqa: F401
    except ImportError:
        raise LogError("Iceberg tables need pyiceberg: pip install 'bidsim[iceberg]'") from None


def _in_store(location: str) -> bool:
    return is_address(location) and not location.startswith("file:")


def _explain(name: str, place: str, error: Exception) -> LogError:
    text = " ".join(str(error).split())
    if "equality deletes" in text:
        return LogError(
            f"table {name}: the Iceberg table has equality deletes, which bidsim can't read; rewrite its data files first "
            "(rewrite_data_files)",
            file=place,
        )
    return LogError(
        f"table {name}: the Iceberg table can't be opened ({type(error).__name__}: {text[:200]})", file=place
    )


def _newest(names: Sequence[str]) -> list[str]:
    """The metadata files with the greatest number."""
    numbered = [(int(found.group(1)), name) for name in names if (found := METADATA.fullmatch(name))]
    greatest = max((number for number, _ in numbered), default=None)
    return sorted(name for number, name in numbered if number == greatest)


def _chosen(name: str, place: str, names: Sequence[str], version_hint: str | None, hint: str) -> str:
    if version_hint:
        named = version_hint.strip()
        wanted = [n for n in names if n in (named, f"v{named}.metadata.json", f"{named}.metadata.json")]
        if wanted:
            return wanted[0]
    found = _newest(names)
    if not found:
        raise LogError(
            f"table {name}: no Iceberg table is here (there is no metadata/*.metadata.json); {hint}", file=place
        )
    if len(found) > 1:
        raise LogError(
            f"table {name}: {' and '.join(found[:3])} have the same number, and only a catalog knows which one counts; "
            "give the path of one of them, or the catalog's name of the table",
            file=place,
        )
    return found[0]


def _metadata_in_folder(name: str, place: Path, hint: str) -> str:
    if place.is_file():
        return str(place)
    folder = place / "metadata"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    file = folder / "version-hint.text"
    return str(folder / _chosen(name, str(place), names, file.read_text() if file.is_file() else None, hint))


def _metadata_in_store(name: str, place: str, hint: str) -> str:
    address = parse_address(place, name)
    if MAGIC.search(address.key):
        raise LogError(f"table {name}: an Iceberg table is one folder, not a glob", file=str(address))
    if address.key.endswith(".metadata.json"):
        return str(address)
    store = open_store(address)
    prefix = f"{address.key.rstrip('/')}/metadata/".lstrip("/")
    things = {t.key.removeprefix(prefix): t for t in store.list(prefix)}
    pointer = things.get("version-hint.text")
    version = store.read(pointer, 0, pointer.size).decode("utf-8", "replace") if pointer else None
    chosen = _chosen(name, str(address), list(things), version, hint)
    return things[chosen].url


def _metadata_of_catalog(name: str, given: str) -> str:
    from pyiceberg.catalog import load_catalog

    catalog, _, table = given.partition(".")
    try:
        return str(load_catalog(catalog).load_table(table).metadata_location)
    except Exception as error:
        # What a catalog says could hold its address with a password: only the kind of the error is told.
        raise LogError(
            f"table {name}: the catalog {catalog} gives no table {table} ({type(error).__name__}); catalogs are configured "
            "as pyiceberg's are (PYICEBERG_CATALOG__..., .pyiceberg.yaml)",
            file=given,
        ) from None


def _open(name: str, shown: str, location: str, files: Files, snapshot: int | None) -> Source:
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io.pyarrow import schema_to_pyarrow
    from pyiceberg.manifest import FileFormat
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import Table as IcebergTable

    from bidsim.logs.iceberg_files import IcebergReader

    metadata = FromInputFile.table_metadata(files.new_input(location))
    table = IcebergTable(("bidsim", name), metadata, location, files, NoopCatalog("bidsim"))
    current = metadata.snapshot_by_id(snapshot) if snapshot is not None else table.current_snapshot()
    if current is None:
        known = (
            ""
            if snapshot is None
            else f" {snapshot}; it has {', '.join(str(s.snapshot_id) for s in metadata.snapshots[-5:])}"
        )
        raise LogError(f"table {name}: the Iceberg table has no snapshot{known or ' and so no rows'}", file=shown)
    scan = table.scan(snapshot_id=current.snapshot_id)
    schema = scan.projection()
    tasks = tuple(sorted(scan.plan_files(), key=lambda task: task.file.file_path))
    if not tasks:
        raise LogError(f"table {name}: snapshot {current.snapshot_id} of the Iceberg table has no rows", file=shown)
    for task in tasks:
        if task.file.file_format != FileFormat.PARQUET:
            raise LogError(
                f"table {name}: the data file is {task.file.file_format.value}; bidsim reads Iceberg tables of Parquet files",
                file=task.file.file_path,
            )
    store, things = _objects(name, files, [task.file.file_path for task in tasks], str(table.location()))
    parts = [
        TableFile(
            things[i].url if things else str(files.path_of(task.file.file_path)),
            int(task.file.file_size_in_bytes),
            things[i] if things else None,
            _times(task.file, schema),
            bool(task.delete_files),
        )
        for i, task in enumerate(tasks)
    ]
    arrow = schema_to_pyarrow(schema, include_field_ids=False)
    made = Table(
        name,
        shown,
        "iceberg",
        current.snapshot_id,
        str(metadata.table_uuid),
        arrow,
        tuple(parts),
        IcebergReader(metadata, schema, tasks, files),
        store,
        _partition_values(tasks, metadata, schema, arrow),
    )
    return Source(name, made.files, "parquet", origin=made)


def _objects(name: str, files: Files, locations: Sequence[str], root: str) -> tuple[Store | None, list[StoredObject]]:
    """The objects of data files in a store; none for local files."""
    local = [files.path_of(location) is not None for location in locations]
    if all(local):
        return None, []
    addresses = [parse_address(location, name) for location in locations if is_address(location)]
    if any(local) or len({(a.scheme, a.place) for a in addresses}) > 1:
        raise LogError(f"table {name}: data files of one table in several stores are not supported", file=root)
    store, _ = files.store_of(locations[0])
    known = {}
    if len(addresses) > FEW and is_address(root):
        known = {t.key: t for t in store.list(f"{parse_address(root, name).key.rstrip('/')}/")}

    def find(key: str) -> StoredObject:
        thing = known.get(key) or store.find(key)
        if thing is None:
            url = next(str(a) for a in addresses if a.key == key)
            raise LogError("the table names this file and it is gone; was the table cleaned up?", file=url)
        return thing

    return store, list(in_threads(find, [a.key for a in addresses]))


def _times(file: Any, schema: Any) -> dict[str, tuple[Any, Any]]:
    """Bounds of columns that are times."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import TimestampType, TimestamptzType

    found: dict[str, tuple[Any, Any]] = {}
    for f in schema.fields:
        low, high = (file.lower_bounds or {}).get(f.field_id), (file.upper_bounds or {}).get(f.field_id)
        if low is None or high is None or not isinstance(f.field_type, TimestampType | TimestamptzType):
            continue
        epoch = EPOCH.replace(tzinfo=UTC) if isinstance(f.field_type, TimestamptzType) else EPOCH
        try:
            bounds = [epoch + timedelta(microseconds=from_bytes(f.field_type, b)) for b in (low, high)]
        except (OverflowError, ValueError):
            continue
        found[f.name.lower()] = (bounds[0], bounds[1])
    return found


def _partition_values(tasks: Sequence[Any], metadata: Any, schema: Any, arrow: pa.Schema) -> pa.Table | None:
    """Values of the columns that every file is partitioned by as they are."""
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.types import BooleanType, DateType, IntegerType, LongType, StringType

    specs = {task.file.spec_id: metadata.specs()[task.file.spec_id] for task in tasks}
    columns = {}
    for f in schema.fields:
        if not isinstance(f.field_type, BooleanType | DateType | IntegerType | LongType | StringType):
            continue
        places = {}
        for number, spec in specs.items():
            for i, part in enumerate(spec.fields):
                if part.source_id == f.field_id and isinstance(part.transform, IdentityTransform):
                    places[number] = i
        if len(places) < len(specs):
            continue
        values = [task.file.partition[places[task.file.spec_id]] for task in tasks]
        kind = arrow.field(f.name).type
        days = isinstance(f.field_type, DateType) and all(v is None or isinstance(v, int) for v in values)
        columns[f.name] = pa.array(values, pa.int32()).cast(kind) if days else pa.array(values, kind)
    return pa.table(columns) if columns else None
