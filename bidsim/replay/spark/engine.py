"""The engine `spark`: the relational part in a Spark session, the rest in its Python workers; only sums come home.

Beside the session stands an empty DuckDB, with tables of the same columns and no rows. It binds every statement first:
types, names and complaints are DuckDB's, the translation knows every type, and batches reach Python as DuckDB gives
them. Rows that are kept aside are cached by the session, not written to files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from bidsim.errors import BidsimError, LogError
from bidsim.logs.bringing import bring_rows
from bidsim.logs.origins import Span
from bidsim.logs.source import Source
from bidsim.replay.engine import Engine
from bidsim.replay.engines import Change, Course, Progress, SumsT
from bidsim.replay.scoring import ScoringFactory
from bidsim.replay.spark import workers
from bidsim.replay.spark.dialect import translate
from bidsim.replay.spark.session import ship_file, ship_package
from bidsim.replay.spark.sources import read_source

CREATE = re.compile(r"create (?:or replace )?(view|table) (\w+)\s+as\s+(.*)", re.DOTALL)
# Parts of which the driver merges at once; more are merged by the workers first.
MOST_STATES = 32
STATE = "rows bigint, state binary"


class SparkEngine:
    """One replay in a session. files: of the log, which the empty DuckDB may look at for names and types."""

    keeps_order = False
    local = False
    threads = 1

    def __init__(self, session: Any, files: Sequence[str], work: Path, *, owned: bool, zone: str = "UTC") -> None:
        self.work = work
        self.session = session
        self.owned = owned
        self.empty = Engine(files, work, threads=1, memory_bytes=512 * 2**20, zone=zone)
        self.zone = zone
        self.files = tuple(files)
        self._kept: dict[str, Any] = {}
        self._views: list[str] = []
        self._sources = 0
        # The log where it was brought from elsewhere, and its relation: its rows come later than its columns.
        self._log: tuple[str, Source] | None = None
        # Translating a statement asks DuckDB for the types in it; views change rarely.
        self._texts: dict[str, str] = {}

    def __enter__(self) -> SparkEngine:
        ship_package(self.session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.empty.__exit__(kind, error, trace)
        for frame in self._kept.values():
            frame.unpersist()
        for view in self._views:
            self.session.catalog.dropTempView(view)
        if self.owned:
            self.session.stop()

    def open(self, source: Source) -> Source:
        """The source as relations of this engine, with types that fit every row."""
        name = f"source_{self._sources}"
        self._sources += 1
        if source.brought:
            self._refuse_elsewhere(source.name)
            self._log = self._log or (name, source)
        return self._relate(source, name)

    def _relate(self, source: Source, name: str) -> Source:
        settled: Source
        settled, plain, placed = self._guard(lambda: read_source(self, source, name))
        self.empty.run(
            f"create or replace table {name}_placed as select *, ''::varchar as filename, 0::bigint as file_row_number "
            f"from {name}"
        )
        self._view(name, plain)
        if placed is not None:
            self._view(f"{name}_placed", placed)
        return settled

    def _refuse_elsewhere(self, table: str) -> None:
        """What this machine fetches only a session on this machine can read."""
        master = str(self.session.conf.get("spark.master", ""))
        if not master.startswith("local"):
            raise LogError(
                f"table {table} is brought to this machine, where a session on {master or 'another machine'} can't read it; "
                "register it in the session's catalog and give logs_tables its `table`"
            )

    def bring(self, source: Source, asked: Sequence[str], conditions: Sequence[str], span: Span | None) -> Source:
        """The log's relations are made anew of what was fetched: DuckDB says what that has to be."""
        if self._log is None:
            return source
        name, found = self._log
        brought = bring_rows(found, self.empty, asked, conditions, span)
        self.files = tuple(dict.fromkeys([*brought.files, *self.files]))
        self._texts.clear()
        return self._relate(brought, name)

    def run(self, sql: str) -> None:
        found = CREATE.fullmatch(sql.strip())
        if found is None:
            raise ValueError(f"not a statement for this engine: {sql[:80]}")
        kind, name, query = found.groups()
        text = self.spark_sql(query)
        self._texts.clear()
        self.empty.run(sql)
        if kind == "view":
            self._view(name, self._guard(lambda: self.session.sql(text)))
            return
        table = self._collect(query, text)
        self._view(name, self._guard(lambda: self.session.createDataFrame(table)))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        table = self._collect(sql, self.spark_sql(sql))
        columns = [[_plain(v) for v in column.to_pylist()] for column in table.columns]
        return list(zip(*columns, strict=True)) if columns else []

    def column(self, sql: str) -> pa.Array:
        column = self._collect(sql, self.spark_sql(sql)).column(0)
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)

    def names(self, sql: str) -> list[tuple[str, str]]:
        found = self.empty.names(sql)
        self.spark_sql(sql)
        return found

    def spark_sql(self, sql: str) -> str:
        if sql not in self._texts:
            self._texts[sql] = translate(sql, self.empty.names, self.zone)
        return self._texts[sql]

    def reduce(self, sql: str, make: Callable[[], SumsT], progress: Progress | None = None) -> SumsT:
        """The sums of all rows: each part of them by a worker, merged there where they are many, and here."""
        run = workers.summing(make, self.empty.schema(sql))
        rows, states = self._states(self._frame(sql).mapInArrow(run, STATE))
        if progress is not None:
            progress(rows)
        first: SumsT = states[0] if states is not None else make()
        return first

    def follow(self, sql: str, make: Callable[[], Course], again: bool = False) -> Sequence[Any]:
        """The lanes of a course: each part of the rows is whole groups in order."""
        run = workers.following(make, self.empty.schema(sql))
        _, states = self._states(self._in_order(self._frame(sql), again).mapInArrow(run, STATE))
        return states if states is not None else make().lanes(1)

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
        schema = self.empty.schema(sql)
        shipped = isinstance(make, ScoringFactory) and bool(make.files)
        if isinstance(make, ScoringFactory):
            for model in make.files:
                path = Path(model.path)
                ship_file(
                    self.session,
                    workers.shipped_name(model.path, model.sha256),
                    lambda target, path=path: target.write_bytes(path.read_bytes()),  # type: ignore[misc]
                )
        made: pa.Schema = make().schema(schema)
        there = _with_types(made)
        run = workers.changing(make, schema, there, shipped)
        frame = self._frame(sql)
        frame = self._in_order(frame, again) if in_order else frame
        self._persist(view, self._guard(lambda: frame.mapInArrow(run, _spark_schema(there))))
        self.empty.declare(view, made)
        progress(self._guard(lambda: self._kept[view].count()))
        return True

    def keep(self, sql: str, view: str, *, order: str = "", numbered: bool = False) -> list[str]:
        """Rows in an order are whole groups (campaign, period) by part, in that order within each."""
        frame = self._frame(sql)
        if order:
            from pyspark.sql import functions as f

            keys = [f.col(name.strip()).asc_nulls_last() for name in order.split(",")]
            parts = int(self.session.conf.get("spark.sql.shuffle.partitions"))
            frame = frame.repartition(parts, "campaign", "period").sortWithinPartitions(*keys)
            frame = frame.withColumn("ordinal", f.monotonically_increasing_id()) if numbered else frame
        number = ", 0::bigint as ordinal" if numbered else ""
        self.empty.run(f"create or replace table {view} as select *{number} from ({sql}) limit 0")
        self._persist(view, frame)
        return [name for name, _ in self.empty.names(f"from {view}")]

    def _in_order(self, frame: Any, again: bool) -> Any:
        """Rows that lost the budget's order get it back by their place in it."""
        if not again:
            return frame
        from pyspark.sql import functions as f

        parts = int(self.session.conf.get("spark.sql.shuffle.partitions"))
        keys = [f.col(name).asc_nulls_last() for name in ("campaign", "period", "ordinal")]
        return frame.repartition(parts, "campaign", "period").sortWithinPartitions(*keys)

    def _frame(self, sql: str) -> Any:
        text = self.spark_sql(sql)
        return self._guard(lambda: self.session.sql(text))

    def _states(self, frame: Any) -> tuple[int, list[Any] | None]:
        parts = self._parts(frame)
        while parts > MOST_STATES:
            parts = max(1, parts // 16)
            frame = frame.repartition(parts).mapInArrow(workers.merging(), STATE)
        total: list[Any] | None = None
        rows = 0
        for row in self._guard(frame.collect):
            rows += int(row["rows"])
            total = workers.merged(total, workers.unpack(bytes(row["state"])))
        return rows, total

    def _parts(self, frame: Any) -> int:
        """How many parts the rows have; a Connect server does not say."""
        from pyspark.errors import PySparkException

        try:
            return int(frame.rdd.getNumPartitions())
        except PySparkException:
            return MOST_STATES

    def _collect(self, sql: str, text: str) -> pa.Table:
        """A small result with the types that DuckDB gives it."""
        schema = self.empty.schema(sql)
        table = self._guard(lambda: self.session.sql(text).toArrow())
        columns = [workers.cast_column(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
        return pa.table(columns, schema=pa.schema([pa.field(f.name, f.type) for f in schema]))

    def _persist(self, view: str, frame: Any) -> None:
        from pyspark import StorageLevel

        old = self._kept.pop(view, None)
        kept = self._guard(lambda: frame.persist(StorageLevel.MEMORY_AND_DISK))
        self._kept[view] = kept
        self._view(view, kept)
        if old is not None:
            old.unpersist()

    def _view(self, name: str, frame: Any) -> None:
        self._guard(lambda: frame.createOrReplaceTempView(name))
        if name not in self._views:
            self._views.append(name)

    def _guard(self, call: Callable[[], Any]) -> Any:
        from pyspark.errors import PySparkException

        try:
            return call()
        except BidsimError:
            raise
        except PySparkException as error:
            said = str(error)
            own = workers.error_in(said)
            if own is not None:
                raise own from None
            if type(error).__name__ == "AnalysisException":
                if "_placed" in said and "TABLE_OR_VIEW_NOT_FOUND" in said:
                    raise LogError(
                        "budgets and internal auctions go by where rows stand in the log, and this table does not number "
                        "its rows; write it as Parquet files"
                    ) from error
                raise  # our own SQL is wrong
            raise LogError(f"the log can't be read: Spark says: {_first_line(said)}") from error


def _plain(value: Any) -> Any:
    """Whole numbers arrive as Python integers, wide ones too."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("[") or "Caused by" in line]
    return (named or lines or ["nothing"])[0][:300]


def _with_types(schema: pa.Schema) -> pa.Schema:
    """Columns without values as whole numbers, as where Spark reads them: a join finds no null among those of no type."""
    return pa.schema([field.with_type(pa.int32()) if pa.types.is_null(field.type) else field for field in schema])


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema, prefer_timestamp_ntz=True)
