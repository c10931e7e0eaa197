"""Small tables beside a model: example rows and files of predictions, Parquet or CSV."""

from __future__ import annotations

import os
from pathlib import Path

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
