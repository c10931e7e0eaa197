"""Files of predictions as a model: a table with a key column and pctr, pcvr or pctcvr, joined to the log row by row.

For models that score elsewhere. The key is a column of the log that names its rows (such as request_id), whole
numbers or texts. A log row whose key is not in the file has no prediction (NaN): it is counted as an invalid
prediction and never bid on. The table is held in memory, sorted by key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bidsim.arrays import values_of
from bidsim.errors import ModelError
from bidsim.models.tables import read_table
from bidsim.scenario.schema import HEADS, Head

COLUMNS: dict[str, Head] = {"pctr": "ctr", "pcvr": "cvr", "pctcvr": "ctcvr"}
KEY_BYTES = 256


class PredictionFile:
    """A `Scorer`. sha256: of the file, hex."""

    def __init__(self, path: Path) -> None:
        self._file = str(path)
        before = _digest(path)
        table = read_table(path)
        self._key, predictions = self._columns(table)
        order, self._keys = self._sorted(table[self._key])
        self._values = {}
        for head, name in predictions.items():
            column = table[name]
            if not (
                pa.types.is_floating(column.type)
                or pa.types.is_integer(column.type)
                or pa.types.is_decimal(column.type)
            ):
                raise ModelError(f'column "{name}" is {column.type}, not a number', file=self._file)
            values = values_of(column.cast(pa.float64(), safe=False).combine_chunks(), np.nan)
            self._values[head] = self._probabilities(name, values)[order]
        self.heads: tuple[Head, ...] = tuple(head for head in HEADS if head in predictions)
        self.features: tuple[str, ...] = (self._key,)
        self.sha256 = _digest(path)
        if self.sha256 != before:
            raise ModelError("the file was changed while it was read; run again", file=self._file)

    def score(self, batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
        """See `Scorer.score`."""
        column = batch.column(batch.schema.get_field_index(self._key))
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        whole = self._keys.dtype.kind == "i"
        if pa.types.is_integer(column.type) != whole:
            raise ModelError(
                f'the key "{self._key}" is {"a whole number" if whole else "text"} in the file of predictions, but '
                f"{column.type} in the log; cast one of them",
                file=self._file,
            )
        missing = values_of(column.is_null())
        keys = _plain(column, self._keys.dtype)
        if whole:
            found = np.searchsorted(self._keys, keys)
        else:
            missing |= values_of(
                pc.greater(pc.binary_length(column.cast(pa.binary())), self._keys.dtype.itemsize), True
            )
            found = np.searchsorted(self._keys, keys)
        found = np.minimum(found, len(self._keys) - 1)
        missing |= self._keys[found] != keys
        return {head: np.where(missing, np.nan, values[found]) for head, values in self._values.items()}

    def _columns(self, table: pa.Table) -> tuple[str, dict[Head, str]]:
        if len(set(table.column_names)) != len(table.column_names):
            raise ModelError("two columns have the same name", file=self._file)
        predictions = {COLUMNS[name]: name for name in table.column_names if name in COLUMNS}
        others = [name for name in table.column_names if name not in COLUMNS]
        if not predictions or len(others) != 1:
            raise ModelError(
                f"this table has the columns {', '.join(table.column_names[:20])}; a file of predictions has pctr, pcvr "
                "or pctcvr, and exactly one other column: the key, which the log has too",
                file=self._file,
            )
        if not table.num_rows:
            raise ModelError("the file of predictions has no rows", file=self._file)
        return others[0], predictions

    def _probabilities(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values as they are; refused where most of those that are there can't be probabilities."""
        given = values[~np.isnan(values)]
        beyond = given[(given < 0) | (given > 1)]
        if not len(given):
            raise ModelError(f'column "{name}" is empty', file=self._file)
        if 2 * len(beyond) > len(given):
            raise ModelError(
                f'{len(beyond):,} of {len(given):,} values of column "{name}" lie outside 0 to 1, such as {beyond[0]:g}; '
                "predictions are probabilities, not percentages, scores or log odds",
                file=self._file,
            )
        return values

    def _sorted(self, column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64] | NDArray[np.bytes_]]:
        kind = column.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (pa.types.is_integer(kind) or text):
            raise ModelError(f'the key "{self._key}" is {kind}, not a whole number or text', file=self._file)
        if column.null_count:
            raise ModelError(f'the key "{self._key}" is missing in some row', file=self._file)
        width = 1
        if text:
            width = max(1, int(pc.max(pc.binary_length(column)).as_py()))
            if width > KEY_BYTES:
                raise ModelError(f'the key "{self._key}" has texts longer than {KEY_BYTES} bytes', file=self._file)
        keys = _plain(column.combine_chunks(), np.dtype(f"S{width}") if text else np.dtype(np.int64))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            key = keys[twice[0]]
            shown = key.decode("utf-8", "replace") if isinstance(key, bytes) else int(key)
            raise ModelError(f'the key "{self._key}" has {shown!r} twice; one row for each key', file=self._file)
        return order, keys


def is_prediction_file(path: Path) -> bool:
    """Whether a file is Parquet, or a CSV whose first line names a prediction."""
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    if head.startswith(b"PAR1"):
        return True
    names = head.partition(b"\n")[0].decode("utf-8", "replace").strip().lstrip("\ufeff")
    return bool({name.strip().strip('"') for name in names.split(",")} & set(COLUMNS)) and "," in names


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror or error}", file=str(path)) from error


def _plain(column: pa.Array, dtype: np.dtype[np.int64] | np.dtype[np.bytes_]) -> NDArray[np.int64] | NDArray[np.bytes_]:
    """Keys as numpy compares them; too long texts are cut, and told apart by their length elsewhere."""
    if dtype.kind == "i":
        try:
            return values_of(column.cast(pa.int64()), 0)
        except pa.ArrowInvalid as error:
            raise ModelError("a key is beyond 2^63") from error
    texts: NDArray[np.bytes_] = np.array(column.cast(pa.binary()).fill_null(b"").to_pylist(), dtype=dtype)
    return texts
