"""Small tables beside a model: example rows and files of predictions, Parquet or CSV."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from bidsim.errors import ModelError


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """The whole table, told apart by content. Raises ModelError naming the file."""
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            parquet = stream.read(4) == b"PAR1"
        if parquet:
            import pyarrow.parquet as pq

            table = pq.ParquetFile(path).read()
        else:
            import pyarrow.csv as csv

            table = csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
        _ = table.column_names  # decoded only here
        return table
    except UnicodeDecodeError as error:
        raise ModelError("a column's name is not UTF-8 text", file=file) from error
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror or error}", file=file) from error
    except pa.ArrowException as error:
        raise ModelError(f"this is neither Parquet nor CSV: {' '.join(str(error).split())[:200]}", file=file) from error


def example_batch(columns: Mapping[str, Sequence[Any]], file: str) -> pa.RecordBatch:
    """Log rows from the plain values of their columns. Raises ModelError where these have several types."""
    try:
        return pa.RecordBatch.from_pydict({name: _array(values) for name, values in columns.items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ModelError(f"the manifest's examples mix types: {error}; pack it again", file=file) from error


def _array(values: Sequence[Any]) -> pa.Array:
    """Arrow takes whole numbers for 64 bits with a sign; ids may have 64 bits without one, or more."""
    whole = [v for v in values if isinstance(v, int)]
    if not whole or (min(whole) >= -(1 << 63) and max(whole) < 1 << 63):
        return pa.array(values)
    if min(whole) >= 0 and max(whole) < 1 << 64:
        return pa.array(values, type=pa.uint64())
    return pa.array([None if v is None else Decimal(v) for v in values])
