"""What runs in Spark's Python workers: batches cast to the types that DuckDB would have given, then the very code that
DuckDB's batches go through. Sums travel home pickled, and merge there.

Errors of ours must not arrive as a stranger's traceback: they are written into its text and read out of it again.
"""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from bidsim import errors
from bidsim.errors import BidsimError

MARK = "bidsim error "
END = " end of bidsim error"


class Home(Exception):
    """Carries an error of ours through Spark."""


def _carried(error: BidsimError) -> Home:
    said = {"kind": type(error).__name__, "message": error.message, "file": error.file, "line": error.line}
    return Home(f"{MARK}{json.dumps(said)}{END}")


def error_in(text: str) -> BidsimError | None:
    """The error that a worker raised, out of what Spark says of it."""
    begin = text.find(MARK)
    end = text.find(END, begin)
    if begin < 0 or end < 0:
        return None
    said = json.loads(text[begin + len(MARK) : end])
    kind = getattr(errors, said["kind"], BidsimError)
    found: BidsimError = kind(said["message"], file=said["file"], line=said["line"])
    return found


def cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """By place, with the schema's names."""
    arrays = [cast_column(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([pa.field(f.name, f.type) for f in schema]))


def cast_column(column: Any, kind: pa.DataType) -> Any:
    """A column (pa.Array or pa.ChunkedArray) of Spark's as the type that DuckDB gives it."""
    if pa.types.is_null(kind):  # without values, and of any type there
        return pa.nulls(len(column))
    return column if column.type == kind else column.cast(kind)


def pack(state: Any) -> bytes:
    """Most sums of most groups are zero, so this is small."""
    return zlib.compress(pickle.dumps(state, protocol=5), 1)


def unpack(data: bytes) -> Any:
    return pickle.loads(zlib.decompress(data))


def _states(rows: int, states: list[Any]) -> pa.RecordBatch:
    return pa.record_batch({"rows": pa.array([rows], pa.int64()), "state": pa.array([pack(states)], pa.binary())})


def summing(
    make: Callable[[], Any], schema: pa.Schema
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `reduce`: one state a part of the rows."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            state, rows = make(), 0
            for batch in batches:
                if batch.num_rows:
                    state.add(cast(batch, schema))
                    rows += batch.num_rows
        except BidsimError as error:
            raise _carried(error) from None
        if rows:
            yield _states(rows, [state])

    return run


def following(
    make: Callable[[], Any], schema: pa.Schema
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `follow`: one lane does everything, over parts that are whole groups."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            course, rows = make(), 0
            lanes = course.lanes(1)
            for batch in batches:
                if batch.num_rows:
                    given = course.prepare(cast(batch, schema))
                    for lane in lanes:
                        lane.add(given)
                    rows += batch.num_rows
        except BidsimError as error:
            raise _carried(error) from None
        if rows:
            yield _states(rows, list(lanes))

    return run


def merging() -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Several parts' states as one, before they go home."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total: list[Any] | None = None
        rows = 0
        for batch in batches:
            for count, data in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                total = merged(total, unpack(data))
                rows += count
        if total is not None:
            yield _states(rows, total)

    return run


def merged(total: list[Any] | None, states: list[Any]) -> list[Any]:
    if total is None:
        return states
    for mine, theirs in zip(total, states, strict=True):
        mine.merge(theirs)
    return total


def changing(
    make: Callable[..., Any], schema: pa.Schema, made: pa.Schema, shipped: bool
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `change`. shipped: whether it opens models, which came along as files."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            function = make(locate) if shipped else make()
            for batch in batches:
                if batch.num_rows:
                    yield cast(function(cast(batch, schema)), made)
        except BidsimError as error:
            raise _carried(error) from None

    return run


def locate(model: Any) -> Path:
    """Where this worker has a model's file."""
    from pyspark import SparkFiles

    return Path(SparkFiles.get(shipped_name(model.path, model.sha256)))


def shipped_name(path: str, sha256: str) -> str:
    """Two models may have one name; the ending stays, since a few formats are told by it."""
    return f"bidsim-{sha256[:16]}{''.join(Path(path).suffixes[-1:])}"
