"""The manifest of a bundle: what the payloads are, which log columns they read, and how to know them again.

Frozen, strict pydantic models; an unknown key is an error, so that a newer bundle is refused rather than half
understood. `parse_manifest` reads the JSON more strictly than `json.loads`: no duplicate keys, no NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bidsim.errors import ModelError
from bidsim.scenario.schema import HEADS, Head
from bidsim.versions import other_version

SCHEMA = "bidsim.bundle/1"
MANIFEST_BYTES = 1 << 20

Name = Annotated[str, Field(min_length=1, max_length=200)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FeatureType = Literal["numeric", "categorical", "text", "list"]
Scalar = str | int | Finite | bool | None


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Feature(Part):
    """One input of the model.

    numeric: a number. categorical: one value of a set, of any log type. list: several values, as a list column or a
    text such as "10129,10024". text: free text, handed to the model as it is.
    cross: a category that is the values of several categorical features, joined; missing where one of them is.
    """

    name: Name
    type: FeatureType
    column: Name | None = Field(default=None, description="log column; default: the feature's name")
    dtype: Literal["string", "int64", "float64", "bool"] | None = Field(
        default=None, description="type that a library's pipeline was fitted on; default: string, float64 for numeric"
    )
    cross: Annotated[tuple[Name, ...], Field(min_length=2, max_length=4)] | None = None
    separator: str | None = Field(default=None, description="between the values of a cross; default: _")

    @property
    def source(self) -> str:
        """The log column that the feature is read from; a cross has none of its own."""
        return self.column or self.name


class Scale(Part):
    """A numeric feature enters as (value - mean) / scale."""

    mean: Finite = 0.0
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class HashedSpec(Part):
    """What `bidsim.models.hashed` needs to turn log columns into weight indices, in training and in scoring."""

    bits: Annotated[int, Field(ge=1, le=28)] = Field(description="the weight vector has 2**bits entries")
    features: Annotated[tuple[Name, ...], Field(max_length=1000)] = Field(description="names of features used")
    crosses: tuple[Annotated[tuple[Name, ...], Field(min_length=2, max_length=4)], ...] = Field(
        (), description="combinations of categorical features"
    )
    scaling: dict[Name, Scale] = Field(default={}, description="of numeric features; default: as they are")

    @model_validator(mode="after")
    def _each_once(self) -> HashedSpec:
        for what, names in (("feature", self.features), ("cross", self.crosses)):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} is named twice")
        return self


class HashedHead(Part):
    """Hashed logistic regression: one payload of little-endian float32 weights."""

    format: Literal["bidsim.hashed/1"] = "bidsim.hashed/1"
    payloads: Annotated[tuple[str], Field(description="the weights")]
    spec: HashedSpec
    bias: Finite


class SkopsHead(Part):
    """A scikit-learn pipeline saved with skops, given `features` in this order."""

    format: Literal["sklearn.skops/1"] = "sklearn.skops/1"
    payloads: Annotated[tuple[str], Field(description="the skops file")]
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    input: Literal["dataframe", "array", "dicts"] = "dataframe"


LibraryFormat = Literal["lightgbm/1", "xgboost/1", "catboost/1", "onnx/1", "vw/1"]


class LibraryHead(Part):
    """A model as its own library saved it, given `features` in this order.

    payloads: the model file and, where some features are categories of a table, `categories.json`.
    """

    format: LibraryFormat
    payloads: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    output: Name | None = Field(
        default=None,
        description="ONNX: the output that holds the probability; Vowpal Wabbit: logistic, where the link is not saved",
    )
    trees: Annotated[int, Field(ge=1)] | None = Field(default=None, description="XGBoost: boosting rounds used")
    missing: dict[Name, str] = Field(
        default={}, description="CatBoost: the text that a missing category was in training"
    )
    namespaces: dict[str, tuple[Name, ...]] | None = Field(default=None, description="Vowpal Wabbit: of its features")
    prefixes: dict[Name, str] | None = Field(
        default=None, description="Vowpal Wabbit: what stands before the value of a category; default: name="
    )

    @model_validator(mode="after")
    def _each_in_one_namespace(self) -> LibraryHead:
        named = [name for names in (self.namespaces or {}).values() for name in names]
        if self.namespaces is not None and sorted(named) != sorted(set(self.features)):
            raise ValueError("the namespaces don't name each feature once")
        return self


class FactorizationSpec(HashedSpec):
    """As `HashedSpec`, with the length of the factor vectors."""

    factors: Annotated[int, Field(ge=1, le=256)]


class FactorizationHead(Part):
    """Factorization machine: little-endian float32 weights and factors, see `bidsim.models.factorization`."""

    format: Literal["bidsim.factorization/1"] = "bidsim.factorization/1"
    payloads: Annotated[tuple[str, str], Field(description="the weights, the factors")]
    spec: FactorizationSpec
    bias: Finite


HeadEntry = Annotated[HashedHead | SkopsHead | LibraryHead | FactorizationHead, Field(discriminator="format")]


class Downsampling(Part):
    """Undo the down-sampling of negatives in training: p / (p + (1 - p) / w), w the share of negatives kept."""

    type: Literal["downsampling"] = "downsampling"
    rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Platt(Part):
    """1 / (1 + exp(-(slope * logit(p) + intercept)))."""

    type: Literal["platt"] = "platt"
    slope: Finite
    intercept: Finite


class Isotonic(Part):
    """A non-decreasing curve through points, linear between them and constant beyond."""

    type: Literal["isotonic"] = "isotonic"
    predicted: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=2000)]
    calibrated: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=2000)]

    @model_validator(mode="after")
    def _rises(self) -> Isotonic:
        if len(self.predicted) != len(self.calibrated):
            raise ValueError("predicted and calibrated differ in length")
        if any(b <= a for a, b in pairwise(self.predicted)) or any(b < a for a, b in pairwise(self.calibrated)):
            raise ValueError("the curve must rise")
        return self


Recalibration = Annotated[Downsampling | Platt | Isotonic, Field(discriminator="type")]


class PayloadEntry(Part):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)] = Field(description="bytes")


class TrainingWindow(Part):
    """A span of log time that a model has learned from, ISO 8601, start inclusive, end exclusive."""

    start: str
    end: str


class Examples(Part):
    """A few log rows with the predictions the model gave when it was packed; checked each time it is loaded."""

    columns: dict[Name, Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=100)]]
    predictions: dict[Head, tuple[Finite, ...]]

    @model_validator(mode="after")
    def _same_length(self) -> Examples:
        if len({len(values) for values in [*self.columns.values(), *self.predictions.values()]}) > 1:
            raise ValueError("columns and predictions differ in length")
        return self


class CurvePoint(Part):
    """Progressive validation: the log loss of the last rows before the model learned from them."""

    rows: Annotated[int, Field(ge=0)] = Field(description="rows learned from so far")
    logloss: Finite


class CurveRound(Part):
    """What validation rows, from which nothing is learned, showed after a round of training."""

    round: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=0)] = Field(description="rows learned from so far, each as often as it was")
    training_logloss: Finite | None = Field(
        default=None, description="of the round's rows as they were learned from; progressive in the first round"
    )
    logloss: Finite
    normalized_entropy: Finite | None = None
    auc: Finite | None = None
    calibration: Finite | None = Field(default=None, description="predicted / observed")


class LearningCurve(Part):
    """How a head was trained. chosen: the round whose model this is, the one of least validation log loss."""

    model: Name
    training_rows: Annotated[int, Field(ge=0)]
    validation_rows: Annotated[int, Field(ge=0)]
    validation_positives: Annotated[int, Field(ge=0)]
    progressive: Annotated[tuple[CurvePoint, ...], Field(max_length=100)] = ()
    rounds: Annotated[tuple[CurveRound, ...], Field(max_length=200)]
    chosen: Annotated[int, Field(ge=0)]
    stopped: bool = Field(default=False, description="training was asked to end before it was done")


class Manifest(Part):
    schema_: Literal["bidsim.bundle/1"] = Field(default="bidsim.bundle/1", alias="schema")
    heads: Annotated[dict[Head, HeadEntry], Field(min_length=1)]
    features: Annotated[tuple[Feature, ...], Field(max_length=1000)]
    payloads: dict[str, PayloadEntry] = Field(default={}, description="filled in by write_bundle")
    training_window: TrainingWindow | None = None
    versions: dict[Name, Name] = Field(default={}, description="of the libraries that made the payloads")
    recalibration: dict[Head, Annotated[tuple[Recalibration, ...], Field(max_length=10)]] = Field(
        default={}, description="applied to a head's predictions, one after the other"
    )
    calibration_windows: Annotated[tuple[TrainingWindow, ...], Field(max_length=30)] = Field(
        default=(), description="that `bidsim model calibrate` fitted recalibrations on"
    )
    examples: Examples | None = None
    learning_curve: dict[Head, LearningCurve] = Field(default={}, description="how each head was trained")
    note: Annotated[str, Field(max_length=10_000)] | None = None

    @field_validator("features")
    @classmethod
    def _named_once(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        names = [feature.name for feature in features]
        if len(set(names)) != len(names):
            raise ValueError("two features have the same name")
        return features

    @model_validator(mode="after")
    def _heads_know_their_features(self) -> Manifest:
        types = {feature.name: feature.type for feature in self.features}
        _check_crosses(self.features)
        named: list[str] = []
        for head, entry in self.heads.items():
            named += entry.payloads
            for payload in entry.payloads:
                if not payload.startswith(f"{head}/"):
                    raise ValueError(f"payload {payload} of head {head} does not lie in {head}/")
            for name in head_features(entry):
                if name not in types:
                    raise ValueError(f"head {head} reads feature {name}, which is not declared")
            if isinstance(entry, HashedHead | FactorizationHead):
                _check_types(head, entry.spec, types)
            if isinstance(entry, SkopsHead) and any(f.cross for f in self.features if f.name in entry.features):
                raise ValueError(f"head {head}: {entry.format} can't read a cross; make it in the pipeline")
            if isinstance(entry, LibraryHead):
                for name in entry.features:
                    if types[name] == "text" or (types[name] == "list" and entry.format != "vw/1"):
                        raise ValueError(f"head {head}: {entry.format} can't read feature {name} of type {types[name]}")
        if len(set(named)) != len(named):
            raise ValueError("two heads name the same payload")
        for head in self.recalibration:
            if head not in self.heads:
                raise ValueError(f"recalibration of head {head}, which the bundle lacks")
        return self

    @property
    def order(self) -> tuple[Head, ...]:
        """The heads in bidsim's order."""
        return tuple(head for head in HEADS if head in self.heads)

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, UTF-8, one trailing newline."""
        values = self.model_dump(by_alias=True, exclude_none=True, mode="json")
        if self.examples is not None:  # a missing value in an example is a fact, not an absent key
            values["examples"] = self.examples.model_dump(mode="json")
        for late in (
            "recalibration",
            "calibration_windows",
            "learning_curve",
        ):  # the same bytes as before there were any
            if not values[late]:
                del values[late]
        return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def head_features(entry: HashedHead | SkopsHead | LibraryHead | FactorizationHead) -> tuple[str, ...]:
    """Names of the features that a head reads, each once."""
    if isinstance(entry, SkopsHead | LibraryHead):
        return tuple(dict.fromkeys(entry.features))
    crossed = (name for cross in entry.spec.crosses for name in cross)
    return tuple(dict.fromkeys([*entry.spec.features, *crossed]))


def columns_read(features: tuple[Feature, ...], names: Iterable[str]) -> tuple[str, ...]:
    """The log columns of some features, each once, in the order of `features`."""
    used = set(names)
    used |= {part for feature in features if feature.name in used for part in feature.cross or ()}
    return tuple(dict.fromkeys(f.source for f in features if f.name in used and f.cross is None))


def _check_crosses(features: tuple[Feature, ...]) -> None:
    kinds = {feature.name: feature for feature in features}
    for feature in features:
        if feature.separator is not None and feature.cross is None:
            raise ValueError(f"feature {feature.name} has a separator but is no cross")
        for part in feature.cross or ():
            found = kinds.get(part)
            if found is None or found.type != "categorical" or found.cross is not None:
                raise ValueError(f"feature {feature.name} crosses {part}, which is no categorical feature of its own")
        if feature.cross is not None and (feature.type != "categorical" or feature.column is not None):
            raise ValueError(f"feature {feature.name} is a cross: it is categorical and has no column")


def _check_types(head: str, spec: HashedSpec, types: dict[str, FeatureType]) -> None:
    for name in spec.features:
        if types[name] == "text":
            raise ValueError(f"head {head}: a hashed model can't read feature {name} of type text")
    for name in (name for cross in spec.crosses for name in cross):
        if types[name] != "categorical":
            raise ValueError(f"head {head}: feature {name} is crossed but {types[name]}, not categorical")
    for name in spec.scaling:
        if types.get(name) != "numeric" or name not in spec.features:
            raise ValueError(f"head {head}: {name} is scaled but is no numeric feature of this head")


def parse_manifest(data: bytes, file: str) -> Manifest:
    """Read manifest.json; raises ModelError naming `file` for whatever is wrong with it."""

    def bad(what: str) -> ModelError:
        return ModelError(f"{what}; pack the model again", file=file)

    if len(data) > MANIFEST_BYTES:
        raise bad(f"manifest.json has {len(data)} bytes, more than {MANIFEST_BYTES}")
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise bad(f"manifest.json can't be read: {error}") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        other = other_version(schema, SCHEMA, "pack the model again")
        said = (
            f"manifest.json has schema {repr(schema)[:60]}, not {SCHEMA!r}; it is no bidsim model: pack the model again"
        )
        raise ModelError(other or said, file=file)
    try:
        # From the bytes, not from `raw`: strict mode takes JSON arrays for tuples only here.
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise bad(f"manifest.json: {place}: {first['msg']}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice!r}")
    if any(isinstance(value, float) and not math.isfinite(value) for value in keys.values()):
        raise ValueError("a number out of range")
    return keys


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
