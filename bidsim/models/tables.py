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

            return pq.ParquetFile(path).read()
        import pyarrow.csv as csv

        return csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror or error}", file=file) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ModelError(f"this is neither Parquet nor CSV: {' '.join(str(error).split())[:200]}", file=file) from error
