"""Arrow arrays as numpy arrays, and back. pyarrow's own conversions import pandas wherever that is installed, which nothing
here needs: a quarter of a second and 40 MB of every replay."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def values_of(array: pa.Array, missing: float | None = None) -> npt.NDArray[Any]:
    """Numbers or booleans of an array, shape (rows,), `missing` for null; without nulls, numbers are a view of Arrow's memory,
    not to be written to. Raises ValueError for other types, and for nulls where nothing stands in for them."""
    kind = array.type
    flags = pa.types.is_boolean(kind)
    if not (flags or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{kind} array where numbers or booleans are needed")
    known, content = array.buffers()
    if array.null_count and missing is None:
        raise ValueError(f"{array.null_count} nulls in an array where none can be")
    dtype = np.dtype(np.bool_ if flags else kind.to_pandas_dtype())
    if len(array) == 0 or content is None:  # no values but nulls
        return np.full(len(array), missing or 0, dtype=dtype)
    if flags:
        values = _bits(content, array.offset, len(array))
    else:
        values = np.frombuffer(content, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)
    return np.where(_bits(known, array.offset, len(array)), values, dtype.type(missing)) if array.null_count else values


def _bits(content: pa.Buffer, offset: int, count: int) -> npt.NDArray[np.bool_]:
    first, last = offset // 8, (offset + count + 7) // 8
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8)[first:last], bitorder="little")
    return bits[offset - 8 * first :][:count].view(np.bool_)


def texts_of(array: pa.Array) -> list[str]:
    """Texts of an array of strings without nulls."""
    texts = array.cast(pa.large_string())
    if texts.null_count:
        raise ValueError(f"{texts.null_count} nulls where texts without nulls are needed")
    _, where, content = texts.buffers()
    if len(texts) == 0 or where is None or content is None:
        return [""] * len(texts)
    ends = np.frombuffer(where, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1].tolist()
    data = memoryview(content)
    return [str(data[begin:end], "utf-8") for begin, end in pairwise(ends)]


def array_of(values: npt.NDArray[Any]) -> pa.Array:
    """Numbers or booleans as an Arrow array without nulls (NaN stays NaN), a view of numbers' memory. values: shape (rows,)."""
    values = np.ascontiguousarray(values)
    content = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(content)])


def array_of_texts(texts: Sequence[str]) -> pa.StringArray:
    """Texts as an Arrow array without nulls."""
    each = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, each)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(each))]
    return pa.Array.from_buffers(pa.string(), len(each), buffers)
