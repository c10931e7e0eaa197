"""scikit-learn pipelines as heads of a bundle, through skops, which builds known types and never runs code of its own.

Needs the extra `sklearn` (skops and pandas). A pipeline that holds anything but types that skops trusts, and a few that
are known to be safe, is refused, and so is a file that would unpack to far more than it is; trees are checked node by
node (`sklearn_trees`). Unlike hashed models, skops files are not the same bytes from run to run.

What the pipeline is given: numeric features as float64 with NaN for missing; categories in the `dtype` that it was
fitted on, texts canonical as in `columns` with NaN for missing (pandas' own marker); text with "" for missing; lists
as their text.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models import sklearn_trees
from bidsim.models.columns import Columns
from bidsim.models.manifest import Feature, SkopsHead

if TYPE_CHECKING:
    from bidsim.models.bundle import Bundle

MAX_UNPACKED = 2 << 30
MAX_SCHEMA = 64 << 20
MAX_INNER_MEMBERS = 100_000
TRUSTED = (
    "numpy.dtype",  # every plain pipeline holds one
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    *sklearn_trees.TYPES,
)
_LOADING = threading.Lock()


class SkopsPipeline:
    """A loaded pipeline; asked for the probability of class 1."""

    def __init__(self, pipeline: Any, entry: SkopsHead, positive: int, *, head: str, file: str) -> None:
        self.pipeline = pipeline
        self._entry = entry
        self._positive = positive
        self._head = head
        self._file = file

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """See `HeadModel.predict`. Whatever the library raises comes out as ModelError."""
        if columns.rows == 0:  # scikit-learn refuses empty input
            return np.empty(0, dtype=np.float64)
        given = model_input(self._entry, columns)
        try:
            scores = np.asarray(self.pipeline.predict_proba(given), dtype=np.float64)
        except Exception as error:
            raise ModelError(
                f"head {self._head}: the scikit-learn pipeline failed on features "
                f"{', '.join(self._entry.features)} ({type(error).__name__}: {_brief(error)}); check that the log's "
                "columns have the types and values that it was trained on",
                file=self._file,
            ) from error
        if scores.ndim != 2 or scores.shape[0] != columns.rows or scores.shape[1] <= self._positive:
            raise ModelError(f"head {self._head}: predict_proba gave shape {scores.shape}", file=self._file)
        return np.ascontiguousarray(scores[:, self._positive])


def load_pipeline(
    entry: SkopsHead, features: tuple[Feature, ...], payload: bytes, *, head: str, file: str
) -> SkopsPipeline:
    """From a bundle's entry and payload. Raises ModelError where the payload is unsafe, too large or unreadable."""
    skops_io = library("skops.io", file)
    library("pandas", file)
    schema = _check_sizes(payload, head, file)
    try:
        with _LOADING:
            unknown = sorted(set(skops_io.get_untrusted_types(data=payload)) - set(TRUSTED))
            if not unknown:
                pipeline = skops_io.loads(payload, trusted=list(TRUSTED))
                sklearn_trees.check_trees(pipeline, sklearn_trees.count_declared(schema))
    except Exception as error:
        raise ModelError(
            f"head {head}: the scikit-learn pipeline can't be loaded ({type(error).__name__}: {_brief(error)}); "
            f"it is damaged, or was packed with other versions, perhaps: here are {_versions_text()}",
            file=file,
        ) from error
    if unknown:
        raise ModelError(
            f"head {head} holds types that are not known to be safe: {', '.join(unknown[:5])}; bidsim loads only "
            "what is: scikit-learn's linear models, trees and their ensembles, encoders and the like; leave the others out",
            file=file,
        )
    return SkopsPipeline(pipeline, entry, _positive_class(pipeline, head, file), head=head, file=file)


def model_input(entry: SkopsHead, columns: Columns) -> Any:
    """The features as the pipeline wants them: a pandas DataFrame, an array (rows, features), or a list of dicts."""
    pandas = import_module("pandas")
    values = {name: _values(columns, name) for name in entry.features}
    if entry.input == "dataframe":
        # Series with an explicit dtype: pandas 3 would make its own string type of object arrays.
        return pandas.DataFrame({name: pandas.Series(array, dtype=array.dtype) for name, array in values.items()})
    if entry.input == "array":
        return np.column_stack(list(values.values()))
    rows = zip(*(array.tolist() for array in values.values()), strict=True)
    # DictVectorizer takes a missing key for "not there", and NaN for a category of its own.
    return [{name: v for name, v in zip(values, row, strict=True) if v == v} for row in rows]


def seen_categories(bundle: Bundle) -> list[tuple[str, list[str]]]:
    """(feature, texts of its categories) of the encoders in the column transformers of a bundle's first head."""
    head = bundle.manifest.order[0]
    entry = bundle.manifest.heads[head]
    if not isinstance(entry, SkopsHead):
        return []
    file = str(bundle.path)
    model = load_pipeline(entry, bundle.manifest.features, bundle.payload(entry.payloads[0]), head=head, file=file)
    found = []
    for _, step in getattr(model.pipeline, "steps", ()):
        for _, transformer, columns in getattr(step, "transformers_", ()):
            last = transformer.steps[-1][1] if hasattr(transformer, "steps") else transformer
            for column, categories in zip(columns, getattr(last, "categories_", ()), strict=False):
                if isinstance(column, str):
                    found.append((column, [_spelled(value) for value in categories]))
    return found


def _spelled(value: Any) -> str:
    """A category as `Columns` spells it."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _values(columns: Columns, name: str) -> NDArray[Any]:
    feature = columns.feature(name)
    if feature.type == "numeric":
        return columns.numeric(name)
    if feature.dtype in ("int64", "float64", "bool"):
        array = columns.array(name)
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            raise columns.unfit(name, kind, f" and the pipeline was fitted on {feature.dtype}")
        if feature.dtype == "int64" and pa.types.is_signed_integer(kind) and not array.null_count:
            return np.asarray(array).astype(np.int64)  # ids above 2^53 are no float64
        numbers = columns.numeric(name)
        # A column with gaps stays float64, as pandas itself has it.
        return numbers if np.isnan(numbers).any() else numbers.astype(feature.dtype)
    codes, values = columns.category(name)
    missing: Any = "" if feature.type in ("text", "list") else np.nan
    distinct = np.array([value if value else missing for value in values] + [None], dtype=object)[:-1]
    return distinct[codes]


def _positive_class(pipeline: Any, head: str, file: str) -> int:
    try:
        classes = np.asarray(pipeline.classes_).tolist()
        if callable(pipeline.predict_proba) and len(classes) == 2 and set(classes) == {0, 1}:
            return int(classes.index(1))
        found = f"classes {classes}"
    except Exception as error:
        found = _brief(error)
    raise ModelError(
        f"head {head} is no fitted classifier with classes 0 and 1 and predict_proba ({found}); pack the fitted "
        "classifier or pipeline itself",
        file=file,
    )


def _check_sizes(payload: bytes, head: str, file: str) -> Any:
    """Add up what loading would unpack, before it does: a 2 MB skops file can hold 2 GB of zeros. Returns the schema.

    Counted are the arrays that schema.json asks for, as often as it asks, by their declared sizes, which zipfile
    enforces, and by the shapes in their headers, which numpy allocates.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            if len(infos) > MAX_INNER_MEMBERS or infos["schema.json"].file_size > MAX_SCHEMA:
                raise ModelError(f"head {head} is too large a skops file to be loaded safely", file=file)
            schema = json.loads(archive.read("schema.json"))
            total = 0
            for name in _files(schema):
                total += infos[name].file_size
                if total <= MAX_UNPACKED:
                    total += _array_size(archive, name)
                if total > MAX_UNPACKED:
                    raise ModelError(
                        f"head {head} would unpack to more than {MAX_UNPACKED >> 20} MB; it is damaged or hostile",
                        file=file,
                    )
            return schema
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError(f"head {head} is no skops file ({_brief(error)}); pack it again", file=file) from error


def _files(node: Any) -> Iterator[str]:
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if isinstance(node.get("file"), str):
                yield node["file"]
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _array_size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes that numpy would allocate for a member, by its header; an .npz is a zip of such members."""
    with archive.open(name) as member:
        start = member.read(4)
    if start.startswith(b"PK"):
        with archive.open(name) as member, zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            sizes = [info.file_size + _array_size(inner, info.filename) for info in inner.infolist()]
            return sum(sizes)
    if not start.startswith(b"\x93NUM"):
        return 0
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    size = int(dtype.itemsize)
    for length in shape:
        size *= int(length)
    return size


def library(name: str, file: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"this model needs {name.partition('.')[0]}: pip install 'bidsim[sklearn]'", file=file
        ) from error


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("numpy", "pandas", "scikit-learn", "skops")}


def _versions_text() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
