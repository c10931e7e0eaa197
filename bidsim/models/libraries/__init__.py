"""Models of other libraries as heads of a bundle: one adapter a library, and what they share.

The libraries get numbers in the model's own order and never a log column: bidsim encodes categories itself, by the
table that travels with the model, because the libraries differ in what they make of texts, gaps and column order.
Nothing here may be called on a payload that `sandbox` has not tried before: these libraries abort on damaged files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.arrays import array_of, array_of_texts
from bidsim.errors import ModelError
from bidsim.models.columns import Columns
from bidsim.models.manifest import LibraryFormat, LibraryHead

EXTRAS: dict[LibraryFormat, tuple[str, tuple[str, ...]]] = {
    "lightgbm/1": ("lightgbm", ("lightgbm",)),
    "xgboost/1": ("xgboost", ("xgboost", "xgboost-cpu")),
    "catboost/1": ("catboost", ("catboost",)),
    "onnx/1": ("onnx", ("onnxruntime", "onnxruntime-gpu")),
    "vw/1": ("vw", ("vowpalwabbit",)),
}
LABELS: dict[LibraryFormat, str] = {
    "lightgbm/1": "LightGBM",
    "xgboost/1": "XGBoost",
    "catboost/1": "CatBoost",
    "onnx/1": "ONNX",
    "vw/1": "Vowpal Wabbit",
}
CATEGORIES = "categories.json"
MAX_CATEGORIES = 64 << 20
Value = TypeVar("Value")
Tables = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Description:
    """What a model file says about its inputs.

    names: in the model's order. kinds: "numeric", "code" (a category as its place in a table, or as the whole number
    that it is), "text" (a category as text). categories: tables of some "code" inputs, by name.
    named: False where the names are made up by the library (f0, Column_0) or there are none.
    best: XGBoost's number of rounds up to the best one, where training stopped later.
    any_inputs: the model takes whatever features it is given, as hashed ones do, and names none.
    untold: tables of categories in the file that belong to inputs of which it does not say.
    """

    names: tuple[str, ...]
    kinds: tuple[Literal["numeric", "code", "text"], ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    named: bool = True
    best: int | None = None
    any_inputs: bool = False
    untold: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Description:
        """The inverse of `to_json`."""
        lists = {key: tuple(values[key]) for key in ("names", "kinds")}
        return cls(**{**values, **lists, "categories": {k: tuple(v) for k, v in values["categories"].items()}})


class Loaded(Protocol):
    """One model in its library. The functions are safe to call from several threads."""

    def describe(self) -> Description: ...

    def predict(self, given: Inputs) -> NDArray[np.float64]: ...


class Adapter(Protocol):
    """What a module of this package offers."""

    def load(self, payload: bytes, entry: LibraryHead | None) -> Loaded: ...


@dataclass(frozen=True)
class Inputs:
    """The features of one batch, encoded in different ways for different libraries."""

    entry: LibraryHead
    columns: Columns
    tables: Tables

    @property
    def rows(self) -> int:
        return self.columns.rows

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A numeric feature, or a category as its code; NaN where missing or not in the table."""
        feature = self.columns.feature(name)
        if feature.type == "numeric":
            return self.columns.numeric(name)
        codes, values = self.columns.category(name)
        table = self.tables.get(name)
        if table is not None:
            return np.array([table.get(value, np.nan) for value in values], dtype=np.float64)[codes]
        try:
            return np.array([float(int(value)) if value else np.nan for value in values], dtype=np.float64)[codes]
        except ValueError:
            kind = self.columns.array(name).type
            raise self.columns.unfit(
                name, kind, ", with values that are no whole numbers, and the model has no table of categories for it"
            ) from None

    def matrix(self, dtype: Any = np.float64) -> NDArray[Any]:
        """All features, shape (rows, features), in the order of the head."""
        names = self.entry.features
        matrix = np.empty((self.rows, len(names)), dtype=dtype)
        with np.errstate(over="ignore"):  # beyond float32 is infinite there
            for place, name in enumerate(names):
                matrix[:, place] = self.numbers(name)
        return matrix

    def texts(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """A category as codes into its distinct texts; a missing one is the text that it was in training."""
        codes, values = self.columns.category(name)
        missing = self.entry.missing.get(name, "")
        return codes, [value or missing for value in values]


class LibraryModel:
    """A head whose probabilities come from its library."""

    def __init__(self, loaded: Loaded, entry: LibraryHead, tables: Tables, *, head: str, file: str) -> None:
        self._loaded = loaded
        self._entry = entry
        self._tables = tables
        self._head = head
        self._file = file

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """See `HeadModel.predict`. Whatever the library raises comes out as ModelError."""
        if columns.rows == 0:
            return np.empty(0, dtype=np.float64)
        try:
            scores = np.asarray(self._loaded.predict(Inputs(self._entry, columns, self._tables)), dtype=np.float64)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"head {self._head}: {LABELS[self._entry.format]} failed ({type(error).__name__}: {brief(error)}); "
                "check that the log's columns have the types and values that it was trained on",
                file=self._file,
            ) from error
        if scores.shape != (columns.rows,):
            raise ModelError(
                f"head {self._head}: {LABELS[self._entry.format]} gave shape {scores.shape} for {columns.rows} rows",
                file=self._file,
            )
        return scores


def load_library_head(
    entry: LibraryHead, payload: bytes, categories: bytes | None, *, head: str, file: str
) -> LibraryModel:
    """Load one head. Raises ModelError where the library is absent or refuses the payload."""
    tables = parse_categories(categories, entry, head=head, file=file)
    loaded = load_payload(entry.format, payload, entry, what=f"head {head}", file=file)
    described = _guarded(entry.format, loaded.describe, f"head {head}", file)
    if len(described.names) != len(entry.features) and not described.any_inputs:
        raise ModelError(
            f"head {head}: the model has {len(described.names)} inputs, the bundle names {len(entry.features)} "
            "features; pack the model again",
            file=file,
        )
    return LibraryModel(loaded, entry, tables, head=head, file=file)


def load_payload(format: LibraryFormat, payload: bytes, entry: LibraryHead | None, *, what: str, file: str) -> Loaded:
    """Give a payload to its library. entry: None where only its inputs are asked for."""
    extra = EXTRAS[format][0]
    try:
        adapter: Adapter = import_module(f"bidsim.models.libraries.{extra}_models")
    except ImportError as error:
        raise ModelError(
            f"this is a model of {LABELS[format]}, which is not installed: pip install 'bidsim[{extra}]'", file=file
        ) from error
    return _guarded(format, lambda: adapter.load(payload, entry), what, file)


def describe_payload(format: LibraryFormat, payload: bytes, *, file: str) -> Description:
    """What the file says about its inputs, as its library reads it. To be called in the sandbox."""
    loaded = load_payload(format, payload, None, what="the model", file=file)
    return _guarded(format, loaded.describe, "the model", file)


def parse_categories(data: bytes | None, entry: LibraryHead, *, head: str, file: str) -> Tables:
    """Read `categories.json`: {feature: [its values in the order of their codes]}. Raises ModelError."""
    if data is None:
        return {}
    try:
        if len(data) > MAX_CATEGORIES:
            raise ValueError(f"it has more than {MAX_CATEGORIES} bytes")
        raw = json.loads(data)
        tables: dict[str, dict[str, int]] = {}
        for name, values in raw.items():
            if name not in entry.features or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{name!r} is no feature of this head with a list of texts")
            tables[name] = {value: code for code, value in enumerate(values)}
            if len(tables[name]) != len(values):
                raise ValueError(f"{name!r} has a value twice")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"head {head}: {CATEGORIES} is damaged ({brief(error)}); pack it again", file=file) from error
    return tables


def versions_of(formats: set[LibraryFormat]) -> dict[str, str]:
    """Installed versions of the libraries that read these formats."""
    found = {}
    for name in (name for format in formats for name in EXTRAS[format][1]):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def brief(error: BaseException) -> str:
    """An exception's text on one line, without the addresses that some libraries add."""
    return " ".join(str(error).partition("Stack trace:")[0].split())[:300]


def dictionary(codes: NDArray[np.int64], values: list[str]) -> pa.DictionaryArray:
    """Codes into texts as Arrow has them."""
    return pa.DictionaryArray.from_arrays(array_of(codes.astype(np.int32)), array_of_texts(values))


def _guarded(format: LibraryFormat, function: Callable[[], Value], what: str, file: str) -> Value:
    try:
        return function()
    except ModelError as error:
        raise ModelError(error.message, file=file) from error
    except Exception as error:
        raise ModelError(
            f"{what} can't be loaded by {LABELS[format]} ({type(error).__name__}: {brief(error)}); the file is damaged "
            "or of another version of the library",
            file=file,
        ) from error
