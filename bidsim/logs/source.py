"""Where the log lies: files behind a path or glob, their format, and the DuckDB text that reads them.

Paths are made absolute and sorted, so the order of the log (spec 3.7: files by path, rows as they stand) does not
depend on how a shell or a file system lists them. Nothing is read here but the first bytes of one file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bidsim.errors import LogError
from bidsim.logs.origins import Origin
from bidsim.logs.steady import Stamp, change, stamp

Format = Literal["parquet", "csv", "ndjson"]
# The engine's type of a column that no row gives a value.
NO_VALUES = '"NULL"'

ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "ndjson",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
COMPRESSED = (".gz", ".zst")
DELTA = "this is a Delta table; say format: delta in the scenario"


@dataclass(frozen=True)
class Source:
    """Files of one table. name: as the scenario calls it; files: absolute paths in the order of the log.

    The rest is filled in by `columns.settle_columns`. types: (column, type) of text formats; delimiter: of CSV;
    by_name: whether the Parquet files differ in columns or types; unusable: a file and what is wrong with a
    column in it, by lower-case name; mixed: what a column is where, in words, by lower-case name. origin: where
    rows come from that do not lie in local files; files are then names for messages until `bringing` has brought them.
    """

    name: str
    files: tuple[str, ...]
    format: Format
    types: tuple[tuple[str, str], ...] = ()
    delimiter: str = ","
    by_name: bool = False
    unusable: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    mixed: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = field(default=None, repr=False)
    brought: bool = False
    # A table of an engine's own catalog, instead of files.
    catalog: str = ""
    # What stands for the files in an engine that reads them its own way; empty for DuckDB.
    relation: str = ""
    # The path that local files were found by, and what they were then.
    path: Path | None = None
    stamps: Mapping[str, Stamp] = field(default_factory=dict, repr=False)

    @property
    def identities(self) -> tuple[str, ...]:
        """Where each file is, whatever it is called: two sources with one in common share rows."""
        return tuple(map(os.path.realpath, self.files)) if self.origin is None else self.origin.files

    def check_unchanged(self) -> None:
        """Raises LogError where a local file is no longer what it was when the source was opened, or one came or went."""
        if self.path is None:
            return
        found = change(self.stamps, _expand(self.path))
        if found is not None:
            file, what = found
            raise LogError(
                f"table {self.name}: the file {what} while the log was read, so nothing is said about it; run again "
                "once the log is whole, or name only files that nobody writes to any more",
                file=file,
            )

    @property
    def keeps_row_numbers(self) -> bool:
        """Whether the reader can tell a row's number within its file without reading in order."""
        return self.format == "parquet"

    def reader(self, *, with_position: bool = False) -> str:
        """DuckDB text of the table function; with_position adds `filename` and `file_row_number` (Parquet only)."""
        if self.relation:
            return f"{self.relation}_placed" if with_position else self.relation
        files = list_files(self.files)
        if self.format == "parquet":
            options = ", union_by_name = true" if self.by_name else ""
            position = ", filename = true, file_row_number = true" if with_position else ""
            return f"read_parquet({files}{options}{position})"
        columns = ", ".join(f"{quote_text(name)}: {quote_text(kind)}" for name, kind in self.types)
        if self.format == "csv":
            dialect = f"header = true, delim = {quote_text(self.delimiter)}, quote = '\"', escape = '\"', null_padding = false"
            table = f"read_csv({files}, auto_detect = false, {dialect}, columns = {{{columns}}})"
            # That reader makes texts of columns without values, which no arithmetic takes.
            without = ", ".join(f"null as {quote_name(name)}" for name, kind in self.types if kind == NO_VALUES)
            return f"(select * replace ({without}) from {table})" if without else table
        return f"read_json({files}, format = 'newline_delimited', columns = {{{columns}}})"


def quote_text(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def pattern_of(path: str) -> str:
    """The pattern that means a path itself: the engine takes `log[1].csv` for a pattern, and then reads `log1.csv`."""
    return path if "\\" in path else glob.escape(path)  # no pattern of the engine's means a backslash


def list_files(files: Sequence[str]) -> str:
    """Paths as a SQL list for the engine's readers."""
    return f"[{', '.join(quote_text(pattern_of(f)) for f in files)}]"


def ending_of(path: str) -> str:
    """The ending that tells a file's format, below that of its compression."""
    name = path.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return os.path.splitext(name)[1]


def _expand(path: Path) -> list[str]:
    """The files that a path means: itself, all log files below a folder, or what a glob matches."""
    text = str(path)
    if path.is_dir():
        found = [str(p) for p in path.rglob("*") if ending_of(str(p)) in ENDINGS and p.is_file()]
        found = [p for p in found if not in_hidden_folder(p.removeprefix(text))]
    elif glob.has_magic(text) and not path.exists():
        found = [p for p in glob.glob(text, recursive=True) if os.path.isfile(p)]
    else:
        found = [text] if path.is_file() else []
    # Hidden files and markers (_SUCCESS) are how other writers leave notes in a folder; they are not the log.
    found = [p for p in found if not os.path.basename(p).startswith((".", "_"))]
    return sorted(os.path.abspath(p) for p in found)


def in_hidden_folder(below: str) -> bool:
    """Whether a path below a table's folder lies where writers keep what is not part of it (_temporary/, .staging/)."""
    return any(part.startswith((".", "_")) and "=" not in part for part in below.replace(os.sep, "/").split("/")[:-1])


def _told_by_content(head: bytes) -> Format | None:
    if head[:4] == b"PAR1":
        return "parquet"
    if head.lstrip()[:1] == b"{":
        return "ndjson"
    return None


def one_format(name: str, path: str, files: Sequence[str], format: str | None, head: Callable[[str], bytes]) -> Format:
    """The format of all files of a table: the one given, or told from endings, and contents where they say nothing.

    head: the first bytes of a file. Raises LogError where there are several or none can be told.
    """
    formats: set[Format] = set()
    for file in files:
        known: Format | None
        if format in ("parquet", "csv", "ndjson"):
            known = format  # type: ignore[assignment]
        else:
            known = ENDINGS.get(ending_of(file)) or _told_by_content(head(file))
        if known is None:
            raise LogError(
                f"table {name}: the format can't be told from the ending; give format: parquet, csv or ndjson",
                file=file,
            )
        formats.add(known)
    if len(formats) > 1:
        raise LogError(f"table {name}: files of several formats ({', '.join(sorted(formats))}); give one", file=path)
    return formats.pop()


def _head(file: str) -> bytes:
    with open(file, "rb") as stream:
        return stream.read(4096)


def open_source(name: str, path: Path, format: str | None, hint: str | None = None) -> Source:
    """The files behind a table of the scenario.

    path: a file, a directory (all log files below it) or a glob. format: parquet, csv, ndjson or None to tell it
    from the ending, and from the content where the ending says nothing. hint: what to do where nothing is found.
    Raises LogError.
    """
    if format is None and (path / "_delta_log").is_dir():
        raise LogError(f"table {name}: {DELTA}", file=str(path))
    hint = hint or f"check the path or --table {name}=PATH"
    if not (path.exists() or glob.has_magic(str(path))):
        raise LogError(f"table {name}: no such file or directory; {hint}", file=str(path))
    place = Path(os.path.abspath(path))
    files = _expand(place)
    if not files:
        raise LogError(f"table {name}: no files match; {hint}", file=str(path))
    stamps = {}
    for file in files:
        if not os.access(file, os.R_OK):
            raise LogError(f"table {name}: the file can't be read; check its permissions", file=file)
        try:
            stamps[file] = stamp(file)
        except FileNotFoundError:
            raise LogError(
                f"table {name}: the file disappeared while the log was opened; run again", file=file
            ) from None
        if stamps[file].size == 0:
            raise LogError(f"table {name}: the file is empty", file=file)
    kind = one_format(name, str(path), files, format, _head)
    source = Source(name, tuple(files), kind, path=place, stamps=stamps)
    _check_parquet(source)
    return source


def _check_parquet(source: Source) -> None:
    """A truncated Parquet file has lost its footer: found here, before an hour of reading finds it."""
    if source.format != "parquet":
        return
    for file in source.files:
        with open(file, "rb") as stream:
            head = stream.read(4)
            stream.seek(0, os.SEEK_END)
            size = stream.tell()
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
        if head != b"PAR1":
            raise LogError(f"table {source.name}: not a Parquet file", file=file)
        if size < 12 or tail != b"PAR1":
            raise LogError(
                f"table {source.name}: the Parquet file is cut off (its footer is missing); copy it again", file=file
            )
