"""A log that lies elsewhere, brought to the work folder of a run: first what it takes to bind the scenario, then rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bidsim.errors import BidsimError, LogError
from bidsim.logs.origins import PART, Origin, Span, Told, Wanted
from bidsim.logs.source import Source, list_files, quote_name


@dataclass(frozen=True)
class Log:
    """What a scenario reads: its log, and the table of campaigns that is joined to it."""

    table: Source
    campaigns: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.table,) if self.campaigns is None else (self.table, self.campaigns)

    @property
    def files(self) -> list[str]:
        """What the engine may read. Of a log that was not brought yet, names."""
        return [file for source in self.sources for file in source.files]

    @property
    def folders(self) -> list[Path]:
        """Where rows may still be brought to."""
        return [s.origin.directory for s in self.sources if s.origin is not None and s.origin.directory is not None]

    def check_unchanged(self, error: Exception | None = None) -> None:
        """Raises LogError where local files have changed since they were opened; error: what that may have led to."""
        for source in self.sources:
            try:
                source.check_unchanged()
            except LogError as changed:
                raise changed from error

    def describe(self) -> dict[str, Any]:
        """By table, what run.json says of those that lie elsewhere."""
        return {source.name: source.origin.describe() for source in self.sources if source.origin is not None}


class Asker(Protocol):
    """The part of the engine that is needed here."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...

    def names(self, sql: str) -> list[tuple[str, str]]: ...

    def now_reads(self, files: Sequence[str]) -> None: ...


@contextmanager
def brought(log: Log, work: Path, told: Told) -> Iterator[Log]:
    """The log as local files below the work folder, for as long as that lasts; a local log stays where it is.

    Errors raised inside name the objects, not their local copies. Raises LogError where a local log has changed
    meanwhile, also in place of an error that this may have caused.
    """
    origins: list[Origin] = []
    try:
        sources: list[Source] = []
        for source in log.sources:
            if source.origin is not None and not source.brought:
                if "=" in str(work):
                    raise LogError(
                        f"table {source.name}: it is brought to a folder below one with = in its name, which would be taken "
                        "for a column of the log; set TMPDIR to another folder",
                        file=str(work.parent),
                    )
                directory = work / f"log-{len(sources)}"
                directory.mkdir()
                files, origin = source.origin.begin(directory, told)
                if source is log.campaigns:
                    files = origin.rows(Wanted())
                source = replace(source, files=tuple(map(str, files)), origin=origin, brought=True)
            sources.append(source)
            origins += [source.origin] if source.origin is not None else []
        yield Log(*sources)
    except BidsimError as error:
        log.check_unchanged(error)
        for origin in origins:
            error.message = origin.shown(error.message)
            error.file = origin.shown(error.file) if error.file else error.file
        raise
    except Exception as error:
        log.check_unchanged(error)
        raise
    log.check_unchanged()


def bring_rows(
    source: Source, engine: Asker, sql: Sequence[str], conditions: Sequence[str], span: Span | None
) -> Source:
    """The source with the rows that a query reads; it is as it was where they are in its files already.

    sql: what is asked, with the log as `s`; conditions: those that every row that counts fulfils; span: see Span.
    """
    if source.origin is None or not source.brought:
        return source
    low = " ".join(sql).lower()
    names = [name for name, _ in engine.names(f"select * from {source.reader()}")]
    used = frozenset(name.lower() for name in names if f"s.{quote_name(name)}".lower() in low)
    files = source.origin.rows(Wanted(used, _by_partition(source, engine, conditions), span))
    engine.now_reads(list(map(str, files)))
    return replace(source, files=tuple(map(str, files)))


def _by_partition(source: Source, engine: Asker, conditions: Sequence[str]) -> frozenset[int] | None:
    """Indices of the files that conditions on nothing but Hive partitions leave; None where there is no such condition.

    The engine judges them over files that have columns and no rows yet, as it would over the log.
    """
    assert source.origin is not None
    values = source.origin.partitions
    if values is not None:
        return _by_values(values, engine, conditions)
    keys = {part.partition("=")[0].lower() for part in source.files[0].split("/")[:-1] if "=" in part}
    if not keys or source.format != "parquet":
        return None
    inside = f"select distinct lower(name) from parquet_schema({list_files(source.files)})"
    keys -= {str(name) for (name,) in engine.rows(inside)}
    plain = [text for text in conditions if _names(text) and _names(text) <= keys]
    if not plain:
        return None
    try:
        found = engine.rows(
            f"select distinct s.filename from {source.reader(with_position=True)} as s where {' and '.join(plain)}"
        )
    except LogError:
        return None  # it will be told where rows are read
    numbers = (re.search(r"/(\d{8})/(?:[^/]+=[^/]*/)*" + PART, str(name)) for (name,) in found)
    return frozenset(int(number.group(1)) for number in numbers if number)


def _by_values(values: Path, engine: Asker, conditions: Sequence[str]) -> frozenset[int] | None:
    """The same where a file has the partition values, a row for each file of the log."""
    relation = f"read_parquet({list_files([str(values)])}, file_row_number = true)"
    keys = {name.lower() for name, _ in engine.names(f"select * exclude (file_row_number) from {relation}")}
    plain = [text for text in conditions if _names(text) and _names(text) <= keys]
    if not plain:
        return None
    try:
        found = engine.rows(f"select s.file_row_number from {relation} as s where {' and '.join(plain)}")
    except LogError:
        return None
    return frozenset(int(number) for (number,) in found)


def _names(text: str) -> set[str]:
    """Columns that an expression names; those of another table count as none of this."""
    found = re.findall(r'\b([a-z])\."((?:[^"]|"")*)"', text)
    return {name.lower() if table == "s" else f"{table}.{name}" for table, name in found}
