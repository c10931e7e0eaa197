"""DuckDB, locked down: the one place that opens a connection, runs SQL and maps the engine's errors to ours.

The connection sees the scenario's own files and its own work folder, nothing else: no other file, no network, no
extension, no change of settings (spec: user-written SQL is checked before it gets here; this is the second wall).
Memory is bounded and spills to the work folder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from bidsim.errors import BidsimError, LogError
from bidsim.logs.bringing import bring_rows
from bidsim.logs.columns import settle_columns
from bidsim.logs.origins import Span
from bidsim.logs.source import Source, list_files, pattern_of
from bidsim.replay.complaints import complaint
from bidsim.replay.engines import Change, Course, Progress, SumsT
from bidsim.replay.sharing import ordered_map, share, show

BATCH_ROWS = 65_536
# Sums make hundreds of calls a batch, whatever its size.
SUMMED_ROWS = 131_072


class Engine:
    """One in-memory DuckDB, reading `files`, writing only below `work`.

    threads: number of threads, None for all cores. memory_bytes: the engine's own share of the memory. folders: where
    more files will appear that it may read. zone: of times that an expression gives without an offset, and of the hours
    and days that it asks of an instant.
    """

    keeps_order = True
    local = True

    def __init__(
        self,
        files: Sequence[str],
        work: Path,
        *,
        threads: int | None,
        memory_bytes: int,
        folders: Sequence[Path] = (),
        zone: str = "UTC",
    ) -> None:
        self.work = work
        self.files = tuple(files)
        self.threads = threads or os.cpu_count() or 1
        self._files = 0
        self._kept: dict[str, Path] = {}
        self._streaming: list[duckdb.DuckDBPyConnection] = []
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
        }
        self._connection = duckdb.connect(":memory:", config=self._config)
        run = self._connection.execute
        run("set global timezone = $1", [zone])  # global: cursors are sessions of their own
        if threads is not None:
            run(f"set threads = {int(threads)}")
        run(f"set memory_limit = '{max(64, memory_bytes // 2**20)}MiB'")
        run("set temp_directory = $1", [str(work / "spill")])
        inside = [str(work), *map(str, folders)]
        run("set allowed_paths = $1", [[*files, *map(pattern_of, files)]])
        run("set allowed_directories = $1", [[*inside, *map(pattern_of, inside)]])
        run("set enable_external_access = false")
        run("set lock_configuration = true")

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def now_reads(self, files: Sequence[str]) -> None:
        """Files that were brought meanwhile, for messages that name the one at fault."""
        self.files = tuple(dict.fromkeys([*files, *self.files]))

    def run(self, sql: str) -> None:
        """Run a statement for its effect."""
        self._guard(lambda: self._connection.execute(sql))

    def open(self, source: Source) -> Source:
        """The source with types that fit every row. Raises LogError."""
        if source.catalog:
            raise LogError(f"table {source.name}: {source.catalog} is a table of a Spark catalog; use --engine spark")
        return settle_columns(source, self)

    def bring(self, source: Source, asked: Sequence[str], conditions: Sequence[str], span: Span | None) -> Source:
        """The source with the rows that it is asked for, see `bring_rows`."""
        return bring_rows(source, self, asked, conditions, span)

    def declare(self, table: str, schema: pa.Schema) -> None:
        """An empty table with the columns of a schema, in place of one of that name."""
        cursor = self._connection.cursor()
        try:
            cursor.register("incoming", schema.empty_table())
            cursor.execute(f"create or replace table {table} as select * from incoming")
        finally:
            cursor.close()

    def schema(self, sql: str) -> pa.Schema:
        """The columns of a query as its batches have them."""
        return self._guard(lambda: self._connection.sql(sql).to_arrow_reader().schema)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result; whole numbers arrive as exact Python integers."""
        return self._guard(lambda: self._connection.execute(sql).fetchall())  # type: ignore[no-any-return]

    def column(self, sql: str) -> pa.Array:
        """The first column of a small result."""
        column = self._guard(lambda: self._connection.sql(sql).to_arrow_reader().read_all()).column(0)
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)

    def names(self, sql: str) -> list[tuple[str, str]]:
        """(name, type) of the columns that a query gives."""
        try:
            rows = self._connection.execute(f"describe {sql}").fetchall()
        except duckdb.Error as error:
            # Here a name or type that does not bind is the user's, elsewhere it would be a bug of ours.
            raise self._log_error(error) from error
        return [(str(r[0]), str(r[1])) for r in rows]

    def stream(self, sql: str, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The result in record batches, in the order of the query, never held whole."""
        cursor = self._connection.cursor()
        self._streaming.append(cursor)
        try:
            reader = self._guard(lambda: cursor.sql(sql).to_arrow_reader(batch_rows))
            while True:
                batch = self._guard(lambda: next(reader, None))
                if batch is None:
                    return
                if batch.num_rows:
                    yield batch
        finally:
            self._streaming.remove(cursor)
            cursor.close()

    def store(
        self,
        batches: Iterator[pa.RecordBatch],
        schema: pa.Schema,
        file: Path,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        """Write batches to a Parquet file of the work folder in their order, holding a few at a time.

        An error raised while the batches are made is raised here as it was, not as the engine's. The engine works on a
        thread of its own, so that this one hears of an interrupt whatever the engine waits for; abandon: makes who is
        asked for a batch at that moment give up.
        """
        failed: list[BaseException] = []
        stopped = threading.Event()

        def guarded() -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    if stopped.is_set():
                        raise KeyboardInterrupt
                    yield batch
            except BaseException as error:
                failed.append(error)
                raise

        cursor = self._connection.cursor()
        try:
            reader = pa.RecordBatchReader.from_batches(schema, guarded())
            cursor.register("incoming", reader)
            target = f"to '{quote_path(file)}' (format parquet, compression lz4)"
            with ThreadPoolExecutor(1) as pool:
                try:
                    writing = pool.submit(cursor.execute, f"copy (select * from incoming) {target}")
                    wait([writing])
                except KeyboardInterrupt:
                    stopped.set()
                    abandon()
                    for busy in (cursor, *self._streaming):
                        with suppress(duckdb.Error):  # it has come to its end
                            busy.interrupt()
                    raise
            writing.result()
        except Exception as error:
            if failed:
                raise failed[0] from None
            raise self._log_error(error) from error
        finally:
            cursor.close()

    def reduce(self, sql: str, make: Callable[[], SumsT], progress: Progress | None = None) -> SumsT:
        """The sums of all rows, shared by half of the threads in no order."""
        # The engine reckons as long as the sums do, on threads of its own: as many again would only fight for the caches.
        first, *others = states = [make() for _ in range((self.threads + 1) // 2)]
        share(self.stream(sql, SUMMED_ROWS), lambda batch, state: state.add(batch), states, progress)
        for other in others:
            first.merge(other)
        return first

    def follow(self, sql: str, make: Callable[[], Course], again: bool = False) -> Sequence[Any]:
        """The lanes of a course over rows in the budget's order, side by side. again: put them in it by `ordinal`."""
        course = make()
        lanes = course.lanes(self.threads)
        show(self.stream(f"{sql}{' order by ordinal' if again else ''}"), course.prepare, [lane.add for lane in lanes])
        return lanes

    def change(
        self,
        sql: str,
        make: Callable[[], Change],
        view: str,
        progress: Progress,
        *,
        in_order: bool,
        again: bool = False,
    ) -> bool:
        """Pass rows through Python and keep what comes out as `view`; False, and no view, where there is no row."""
        function = make()
        batches = self.stream(f"{sql}{' order by ordinal' if again else ''}")
        # What scores rows may have processes beside this one, which end with the last batch, or with whatever ends it.
        end: Callable[[], None] = getattr(function, "end", lambda: None)
        changed = map(function, batches) if in_order else ordered_map(function, batches, self.threads, end)
        try:
            first = next(changed, None)
            if first is None:
                return False

            def counted() -> Iterator[pa.RecordBatch]:
                rows = 0
                for batch in chain([first], changed):
                    rows += batch.num_rows
                    progress(rows)
                    yield batch

            file = self._file()
            self.store(counted(), first.schema, file, end)
        finally:
            end()
        self._relate(view, file)
        return True

    def keep(self, sql: str, view: str, *, order: str = "", numbered: bool = False) -> list[str]:
        """Write rows aside, in an order where one is given, as `view`; numbered: with their place in it as `ordinal`."""
        file = self._file()
        sql = f"{sql} order by {order}" if order else sql
        self.run(f"copy ({sql}) to '{quote_path(file)}' (format parquet, compression lz4)")
        self._relate(view, file, numbered)
        return [name for name, _ in self.names(f"from {view}")]

    def _file(self) -> Path:
        self._files += 1
        return self.work / f"stage-{self._files}.parquet"

    def _relate(self, view: str, file: Path, numbered: bool = False) -> None:
        """Make a file the relation `view`, and delete the one that it replaces."""
        number = ", file_row_number as ordinal from" if numbered else " from"
        what = "* exclude (file_row_number)" if numbered else "*"
        # A folder above it that is called price=1 is none of its columns.
        options = f", hive_partitioning = false{', file_row_number = true' if numbered else ''}"
        self.run(f"create or replace view {view} as select {what}{number} read_parquet('{quote_path(file)}'{options})")
        old = self._kept.pop(view, None)
        if old is not None:
            old.unlink()
        self._kept[view] = file

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException):
            raise  # our own SQL is wrong
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise self._log_error(error) from error

    def _log_error(self, error: Exception) -> BidsimError:
        text = str(error)
        if isinstance(error, duckdb.OutOfMemoryException):
            said = " ".join(text.split("Possible solutions")[0].removeprefix("Out of Memory Error: ").split())[:200]
            return LogError(f"the memory given is not enough ({said}); raise --memory, or lower --threads")
        if "No space left" in text:
            return LogError("the disk is full while bidsim spilled to it; free some space or set TMPDIR")
        return complaint(text, self.files, self._readable)

    def _readable(self, file: str) -> bool:
        """Whether a Parquet file can be read from end to end."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(f"select max(hash(t)) from read_parquet({list_files([file])}) as t").fetchall()
        except duckdb.Error:
            return False
        finally:
            cursor.close()
        return True


def quote_path(path: Path | str) -> str:
    """A path as the inside of a SQL string literal."""
    return str(path).replace("'", "''")
