"""ONNX models through ONNX Runtime on the CPU. Extra: `onnx`.

The file is walked before the runtime sees it: loops, subgraphs, functions, custom operators and tensors in other
files are refused, so that no model runs for ever or reads what lies beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.libraries import Description, Inputs, dictionary
from bidsim.models.manifest import LibraryHead

# From 1.32 on the runtime writes an id below the home directory when it is imported and reports its use to its makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

FORBIDDEN = ("Loop", "If", "Scan", "SequenceMap", "Optional")
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class Onnx:
    def __init__(self, payload: bytes, output: str | None) -> None:
        check_graph(payload)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the replay scores several batches at once
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
        self._inputs = list(self._session.get_inputs())
        for given in self._inputs:
            if given.type not in NUMBERS and given.type != "tensor(string)":
                raise ModelError(f"the ONNX model's input {given.name} is {given.type}, which bidsim can't give it")
        self._output = self._choose(output)

    def describe(self) -> Description:
        if len(self._inputs) == 1 and self._width(self._inputs[0]) != 1:
            width = self._width(self._inputs[0])
            if width is None:
                raise ModelError(
                    f"the ONNX model doesn't say how wide its input {self._inputs[0].name} is; export it with a fixed "
                    "number of features, such as FloatTensorType([None, 5])"
                )
            kind = self._kind(self._inputs[0])
            return Description(tuple(f"f{i}" for i in range(width)), (kind,) * width, named=False)
        wide = [i.name for i in self._inputs if self._width(i) not in (1, None)]
        if wide:
            raise ModelError(f"the ONNX model has several inputs, and {wide[0]} is wider than one feature")
        return Description(tuple(i.name for i in self._inputs), tuple(self._kind(i) for i in self._inputs))

    def predict(self, given: Inputs) -> NDArray[np.float64]:
        names = given.entry.features
        if len(self._inputs) == 1 and self._width(self._inputs[0]) != 1:
            kind = self._inputs[0].type
            if kind == "tensor(string)":
                feed = {self._inputs[0].name: np.column_stack([_texts(given, name) for name in names])}
            elif "int" in kind:
                feed = {self._inputs[0].name: np.column_stack([_numbers(given, name, kind) for name in names])}
            else:
                feed = {self._inputs[0].name: given.matrix(NUMBERS[kind])}
        else:
            feed = {}
            for place, name in zip(self._inputs, names, strict=True):
                column = _texts(given, name) if place.type == "tensor(string)" else _numbers(given, name, place.type)
                feed[place.name] = column[:, None] if len(place.shape) == 2 else column
        (result,) = self._session.run([self._output], feed)
        if isinstance(result, list):  # ZipMap: a dict for each row
            return np.array([row.get(1, row.get("1", np.nan)) for row in result], dtype=np.float64)
        values = np.asarray(result, dtype=np.float64)
        if values.ndim == 2 and values.shape[1] in (1, 2):
            return np.ascontiguousarray(values[:, -1])
        return values

    def _choose(self, wanted: str | None) -> str:
        outputs = {output.name: output for output in self._session.get_outputs()}
        if wanted is not None:
            if wanted not in outputs:
                raise ModelError(f"the ONNX model has no output {wanted}; it has {', '.join(outputs)}")
            return wanted
        usable = [
            str(o.name) for o in outputs.values() if o.type in ("tensor(float)", "tensor(double)") or "map(" in o.type
        ]
        if len(usable) != 1:
            raise ModelError(
                f"which output of the ONNX model ({', '.join(outputs)}) is the probability? Pack it with `output: NAME` "
                "under its head in the features file"
            )
        return usable[0]

    @staticmethod
    def _width(given: Any) -> int | None:
        if len(given.shape) == 1:
            return 1
        return given.shape[1] if len(given.shape) == 2 and isinstance(given.shape[1], int) else None

    @staticmethod
    def _kind(given: Any) -> Literal["numeric", "code", "text"]:
        return "text" if given.type == "tensor(string)" else "code" if "int" in given.type else "numeric"


def _texts(given: Inputs, name: str) -> NDArray[Any]:
    if given.columns.feature(name).type == "numeric":
        raise given.columns.unfit(name, given.columns.array(name).type, ", and the ONNX model wants text")
    return np.asarray(dictionary(*given.texts(name)).cast("string").to_numpy(zero_copy_only=False), dtype=object)


def _numbers(given: Inputs, name: str, kind: str) -> NDArray[Any]:
    numbers = given.numbers(name)
    if "int" in kind:
        if np.isnan(numbers).any():
            numbers = np.where(np.isnan(numbers), -1, numbers)  # what encoders call unknown; no integer is NaN
        return numbers.astype(NUMBERS[kind])
    with np.errstate(over="ignore"):
        return numbers.astype(NUMBERS[kind])


def check_graph(payload: bytes) -> None:
    """Walk the protobuf. Raises ModelError for what may not be in a model that bidsim runs, ValueError for garbage."""
    for field, value in _fields(payload):
        if field == 25:
            raise ModelError("the ONNX model defines functions of its own, which bidsim refuses")
        if field == 7:
            _check_nodes(value)


def _check_nodes(graph: Any) -> None:
    for field, value in _fields(graph):
        if field == 1:
            parts = list(_fields(value))
            # Of a field that comes twice the last counts: each has to be one that may.
            operators, domains = (
                [bytes(v).decode("utf-8", "replace") for f, v in parts if f == field and not isinstance(v, int)]
                for field in (4, 7)
            )
            strange = [d for d in domains if d not in DOMAINS]
            forbidden = [o for o in operators if o in FORBIDDEN]
            if strange or forbidden:
                name = ".".join([*strange[:1], *(forbidden or operators)[:1]])
                raise ModelError(
                    f"the ONNX model uses the operator {name[:80]!a}; bidsim runs standard operators without loops and "
                    "branches, so that scoring ends"
                )
            for attribute in (v for f, v in parts if f == 5):
                for inner, content in _fields(attribute):
                    if inner in (6, 11):
                        raise ModelError("the ONNX model holds graphs within graphs, which bidsim refuses")
                    if inner in (5, 10):
                        _check_tensor(content)
                    elif inner in (22, 23):
                        _check_sparse(content)
        elif field == 5:
            _check_tensor(value)
        elif field == 15:
            _check_sparse(value)


def _check_sparse(sparse: Any) -> None:
    """Its values and their indices are tensors."""
    for field, value in _fields(sparse):
        if field in (1, 2):
            _check_tensor(value)


def _check_tensor(tensor: Any) -> None:
    for field, value in _fields(tensor):
        if field == 13 or (field == 14 and value == 1):
            raise ModelError("the ONNX model keeps weights in another file; save it as one file")


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one protobuf message; raises ValueError where it is cut short."""
    view = memoryview(data) if not isinstance(data, int) else memoryview(b"")
    place = 0
    while place < len(view):
        key, place = _varint(view, place)
        if key >> 32:  # protobuf itself would cut it, and see another field than is seen here
            raise ValueError("the ONNX file is damaged")
        wire, field = key & 7, key >> 3
        if wire == 0:
            value, place = _varint(view, place)
            yield field, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, place = _varint(view, place)
        if size is None or place + size > len(view):
            raise ValueError("the ONNX file is cut short or damaged")
        yield field, view[place : place + size]
        place += size


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(view) and shift < 70:
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("the ONNX file is cut short or damaged")


def load(payload: bytes, entry: LibraryHead | None) -> Onnx:
    return Onnx(payload, entry.output if entry is not None else None)
