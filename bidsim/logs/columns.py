"""Names and types of a log's columns, settled once from every file before any row is used.

DuckDB takes the types from the first file (Parquet) or the first rows (CSV, NDJSON) and rounds what comes later to
them: a price of 1.5 after a hundred thousand whole prices would be 2. Here types are wide enough for every value, so
they depend neither on the order of rows nor on how rows are spread over files.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol, TextIO

from bidsim.errors import LogError
from bidsim.logs.source import NO_VALUES, Source, list_files, quote_name, quote_text

DELIMITERS = (",", "\t", ";", "|")
TIMES = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "DATE")
# What says of which zone a clock is: Z, UTC, Asia/Tokyo, +09:00, +0900.
ZONE_AT_END = r":\d\d([.,]\d+)?\s*([A-Za-z].*|[+-]\d\d(:?\d\d)?)\s*$"
ABSENT = (
    "is not in this file, and in other files of the log it is; write it there too, or leave files without it out of the "
    "table's path"
)
SOME_ROWS = 1_000
TWICE = "stands twice in the header; rename one of the two"
ZONED = "has a time zone in this file and none in other files of the log; write them alike"


class Asker(Protocol):
    """The part of the engine that is needed here."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...

    def names(self, sql: str) -> list[tuple[str, str]]: ...


def settle_columns(source: Source, engine: Asker) -> Source:
    """The source with types that fit every row. Raises LogError, naming the file, where files can't be one table."""
    if source.format == "parquet":
        return _settle_parquet(source, engine) if len(source.files) > 1 else source
    if source.format == "csv":
        return _settle_csv(source, engine)
    return _settle_ndjson(source, engine)


def _settle_parquet(source: Source, engine: Asker) -> Source:
    """Columns and types that differ between files; from the footers alone."""
    schema = f"parquet_schema({list_files(source.files)})"
    found = engine.rows(
        "select lower(name), duckdb_type, min(file_name), count(distinct file_name), list(distinct file_name) "
        f"from {schema} where duckdb_type is not null group by all order by 1, 3"
    )
    kinds: dict[str, list[tuple[str, str]]] = {}
    holders: dict[str, set[str]] = {}
    for name, kind, file, _, files in found:
        kinds.setdefault(name, []).append((kind, file))
        holders.setdefault(name, set()).update(files)
    unusable: dict[str, tuple[str, str]] = {}
    for name, has in holders.items():
        if len(has) < len(source.files):
            unusable[name] = (next(f for f in source.files if f not in has), ABSENT)
    mixed = {name: of for name, of in kinds.items() if len(of) > 1}
    for name, of in mixed.items():
        zoned = [file for kind, file in of if kind == TIMES[0]]
        if zoned and len(of) > len(zoned):
            unusable.setdefault(name, (zoned[0], ZONED))
    words = {name: " and ".join(f"{kind} in {file}" for kind, file in of[:3]) for name, of in mixed.items()}
    return replace(source, by_name=bool(unusable or mixed), unusable=unusable, mixed=words)


def _settle_csv(source: Source, engine: Asker) -> Source:
    headers = {file: _first_line(file, engine) for file in source.files}
    first = headers[source.files[0]]
    for file, header in headers.items():
        if header != first:
            raise LogError(
                f"table {source.name}: its first line differs from that of {source.files[0]}; "
                "CSV files of one table need the same header",
                file=file,
                line=1,
            )
    counts = {d: _outside_quotes(first).count(d) for d in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: counts[d])
    # A quote, wherever it stands, must be closed: read as text, one lost quote would swallow or join rows.
    dialect = f"header = true, delim = {quote_text(delimiter)}, quote = '\"', escape = '\"', comment = '', skip = 0"
    files = list_files(source.files)
    try:
        types = engine.names(
            f"select * from read_csv({files}, {dialect}, null_padding = false, sample_size = -1, files_to_sniff = -1)"
        )
        twice = dict.fromkeys(_twice(first, delimiter), (source.files[0], TWICE))
        source = replace(source, types=tuple(types), delimiter=delimiter, unusable=twice)
        times = [name for name, kind in types if kind in TIMES]
        if times:
            source = _plain_times(source, times, engine)
        if not engine.rows(f"select 1 from {source.reader()} limit 1"):
            raise LogError(f"table {source.name}: there is a header and no row", file=source.files[0])
        source = _without_values(source, engine)
    except LogError as error:
        if error.line is None:
            one = error.file or (source.files[0] if len(source.files) == 1 else None)
            raise _broken_row(source, delimiter) or LogError(error.message, file=one) from error
        raise
    return source


def _plain_times(source: Source, times: list[str], engine: Asker) -> Source:
    """Times that are not ISO 8601 stay text: 05/11/2026 is May or November, and only the scenario's author knows.

    A zone behind them ("... UTC", "... +0000") makes instants: read as times without one, it would be dropped silently.
    """
    kinds = dict(source.types)
    as_text = replace(source, types=tuple((name, "VARCHAR") for name, _ in source.types))
    quoted = {name: quote_name(name) for name in times}
    checks = ", ".join(
        f"count({q}) = count(try_cast({q} as {kinds[name]})), "
        f"count({q}) = count(try_cast({q} as timestamptz)), "
        f"count_if(regexp_matches({q}, '{ZONE_AT_END}')) > 0"
        for name, q in quoted.items()
    )
    (found,) = engine.rows(f"select {checks} from {as_text.reader()}")
    for i, name in enumerate(times):
        plain, instants, zoned = found[3 * i : 3 * i + 3]
        if kinds[name] == "TIMESTAMP" and zoned:
            kinds[name] = TIMES[0] if instants else "VARCHAR"
        elif not plain:
            kinds[name] = "VARCHAR"
    return replace(source, types=tuple((n, kinds[n]) for n, _ in source.types))


def _without_values(source: Source, engine: Asker) -> Source:
    """Columns that are empty in every line have no values, as a Parquet column of NULLs; the engine takes them for texts.

    The first rows say of nearly all others that they have some; only where one is empty so far is the rest read for it.
    """
    empty = [name for name, kind in source.types if kind == "VARCHAR"]
    for some in (f" limit {SOME_ROWS}", ""):
        if empty:
            counts = ", ".join(f"count({quote_name(name)})" for name in empty)
            (found,) = engine.rows(f"select {counts} from (from {source.reader()}{some})")
            empty = [name for name, values in zip(empty, found, strict=True) if not values]
    return replace(source, types=tuple((n, NO_VALUES if n in empty else kind) for n, kind in source.types))


def _settle_ndjson(source: Source, engine: Asker) -> Source:
    files = list_files(source.files)
    for file in source.files:
        if _first_line(file, engine).lstrip()[:1] == "[":
            raise LogError(
                f"table {source.name}: this is a JSON array; NDJSON has one object on each line", file=file, line=1
            )
    types = engine.names(
        f"select * from read_json({files}, format = 'newline_delimited', sample_size = -1, "
        f"maximum_sample_files = {len(source.files)})"
    )
    if [name for name, _ in types] == ["json"]:
        raise _not_an_object(source) or LogError(
            f"table {source.name}: NDJSON has one object on each line", file=source.files[0]
        )
    return replace(source, types=tuple(types))


def _first_line(file: str, engine: Asker) -> str:
    """Read by the engine, which knows every compression; a character that no text holds keeps the line whole.

    Without quotes a line end within a quoted text is one of another kind than the file's: not strict about it.
    """
    lines = engine.rows(
        f"select line from read_csv({list_files([file])}, header = false, auto_detect = false, delim = '\x01', quote = '', "
        "escape = '', columns = {'line': 'VARCHAR'}, strict_mode = false) limit 1"
    )
    return str(lines[0][0] or "") if lines else ""


def _twice(header: str, delimiter: str) -> list[str]:
    """Names that a CSV header gives to several columns, in lower case: which one is meant can't be told."""
    names = [name.strip().lower() for name in next(csv.reader([header.lstrip("\ufeff")], delimiter=delimiter), [])]
    return [name for name in dict.fromkeys(names) if name and names.count(name) > 1]


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def _open_text(file: str) -> TextIO | None:
    if file.lower().endswith(".zst"):
        return None  # the standard library can't read it
    opener: Callable[..., Any] = gzip.open if file.lower().endswith(".gz") else open
    return opener(file, "rt", encoding="utf-8", newline="")  # type: ignore[no-any-return]


def _broken_row(source: Source, delimiter: str) -> LogError | None:
    """The first CSV row that has not as many fields as the header, for a message that names its line."""
    for file in source.files:
        stream = _open_text(file)
        if stream is None:
            continue
        with stream:
            reader = csv.reader(stream, delimiter=delimiter)
            try:
                wanted = len(next(reader, []))
                while True:
                    line = reader.line_num + 1
                    row = next(reader, None)
                    if row is None:
                        break
                    if row and len(row) != wanted:
                        opened = reader.line_num > line
                        what = (
                            "a quote is opened and not closed"
                            if opened
                            else f"{len(row)} fields, the header has {wanted}"
                        )
                        return LogError(f"table {source.name}: {what}; mend the row", file=file, line=line)
            except csv.Error:
                return LogError(
                    f"table {source.name}: a quote is opened and not closed; mend the row", file=file, line=line
                )
            except (OSError, EOFError, UnicodeDecodeError):
                continue
    return None


def _not_an_object(source: Source) -> LogError | None:
    for file in source.files:
        line = broken_json_line(file, 1, 1_000_000)
        if line is not None:
            return LogError(f"table {source.name}: not one JSON object; mend the line", file=file, line=line)
    return None


def broken_json_line(file: str, first: int, last: int) -> int | None:
    """The first line between two (1-based) that is no JSON object; None where none is, or the file can't be read."""
    stream = _open_text(file)
    if stream is None:
        return None
    try:
        with stream:
            for number, text in _numbered(stream, first, last):
                try:
                    if text.strip() and not isinstance(json.loads(text), dict):
                        return number
                except ValueError:
                    return number
    except (OSError, EOFError, UnicodeDecodeError):
        return None
    return None


def _numbered(stream: TextIO, first: int, last: int) -> Iterator[tuple[int, str]]:
    return islice(enumerate(stream, 1), max(0, first - 1), last)
