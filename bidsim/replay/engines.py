"""What a replay asks of an engine: SQL in DuckDB's dialect, and a few verbs for rows that must pass through Python.

The code behind the verbs runs where the rows are: on threads of this process, or in the workers of a cluster. So what
makes it is handed over, not the thing itself: a picklable call that begins with nothing, sums the batches that it is
shown, and is merged with its like. Which batches it is shown never changes a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import pyarrow as pa

from bidsim.logs.origins import Span
from bidsim.logs.source import Source

Progress = Callable[[int], None]


class Sums(Protocol):
    """What one thread, or one part of the rows, comes to."""

    def add(self, batch: pa.RecordBatch, /) -> None: ...

    def merge(self, other: Self, /) -> None: ...


class Change(Protocol):
    """Makes other columns of a batch's rows, one for one."""

    def __call__(self, batch: pa.RecordBatch, /) -> pa.RecordBatch: ...

    def schema(self, incoming: pa.Schema, /) -> pa.Schema:
        """The columns that it makes of those that come."""
        ...


class Lane(Protocol):
    """A part of what is reckoned of rows in order; it sees every one of them, as `Course.prepare` left them."""

    def add(self, given: Any, /) -> None: ...

    def merge(self, other: Self, /) -> None: ...


class Course(Protocol):
    """What is reckoned of rows in the budget's order. Groups never lie apart: parts of the rows are whole groups."""

    def lanes(self, most: int, /) -> Sequence[Lane]:
        """At most so many lanes that can run side by side; together they do everything."""
        ...

    def prepare(self, batch: pa.RecordBatch, /) -> Any:
        """What every lane needs of a batch, found once; batches come in order."""
        ...


SumsT = TypeVar("SumsT", bound=Sums)


class AnyEngine(Protocol):
    """One engine with the views of one replay. SQL is DuckDB's; errors of the log are LogError."""

    work: Path
    # Whether rows stay in the log's order, so that the first of them are the same ones each time.
    keeps_order: bool
    # Whether what sums rows runs in this process, and may keep files in `work`.
    local: bool
    threads: int

    def open(self, source: Source) -> Source:
        """The source as this engine reads it, with types that fit every row. Raises LogError."""
        ...

    def run(self, sql: str) -> None:
        """Run a statement for its effect: create a view, or a small table."""
        ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result; whole numbers arrive as exact Python integers."""
        ...

    def column(self, sql: str) -> pa.Array:
        """The first column of a small result."""
        ...

    def names(self, sql: str) -> list[tuple[str, str]]:
        """(name, DuckDB's type) of the columns that a query gives."""
        ...

    def bring(self, source: Source, asked: Sequence[str], conditions: Sequence[str], span: Span | None) -> Source:
        """The source with the rows that it is asked for, see `bring_rows`."""
        ...

    def reduce(self, sql: str, make: Callable[[], SumsT], progress: Progress | None = None) -> SumsT:
        """The sums of all rows, in no order."""
        ...

    def follow(self, sql: str, make: Callable[[], Course], again: bool = False) -> Sequence[Any]:
        """The lanes of a course over rows in the budget's order. again: the query has lost the order; put them in it."""
        ...

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
        """Pass rows through Python, batch by batch, and keep what comes out as relation `view`; it takes the place of
        an earlier one. in_order: one batch after the other, in the budget's order. False, and no view, without rows."""
        ...

    def keep(self, sql: str, view: str, *, order: str = "", numbered: bool = False) -> list[str]:
        """Keep rows aside as relation `view`; returns its columns. order: the budget's; numbered: with their place in
        it as column `ordinal`."""
        ...
