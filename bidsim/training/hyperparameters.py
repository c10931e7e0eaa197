"""Hyperparameters of one training: what a JSON file says, checked key by key.

One flat mapping for all models. A key with a head in front (`cvr.l2`) counts for that head alone. Every value may
also be given as text, as training services hand them over; a text is read as JSON where the key takes no text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidsim.errors import BidsimError
from bidsim.scenario.explaining import explain, nearest
from bidsim.scenario.schema import HEADS, Head

MOST_BYTES = 1 << 20
NO_LIGHTGBM = "model lightgbm needs LightGBM: pip install 'bidsim[lightgbm]'"
ModelName = Literal["hashed_logistic", "factorization_machine", "lightgbm"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Names = list[str]


class Common(BaseModel):
    """What every model has. Features default to the scenario's, kinds to what the log's types suggest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    model: ModelName = "hashed_logistic"
    train_hours: Annotated[int, Field(ge=1)] | None = None
    gap_hours: NotNegative | None = None
    keep_negatives: Share = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    validation_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.15, description="of the training rows: the last in time, from which no model learns"
    )
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 5
    patience: Annotated[int, Field(ge=1)] = Field(
        default=2, description="rounds without a better validation log loss after which training ends"
    )
    max_miscalibration: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        default=1.25, description="factor by which predicted / observed on validation may be off 1, either way"
    )
    features: Names | None = Field(default=None, description="some of the scenario's features")
    numeric: Names = []
    categorical: Names = []
    lists: Names = Field(default=[], description="features that hold several values, as lists or split at commas")


class Hashed(Common):
    bits: Annotated[int, Field(ge=1, le=28)] = 18
    crosses: list[Annotated[list[str], Field(min_length=2, max_length=4)]] = []
    batch_rows: Annotated[int, Field(ge=1, le=65_536)] = Field(default=128, description="rows to a step")


class HashedLogistic(Hashed):
    """FTRL-proximal with a learning rate of its own for each weight (McMahan et al. 2013)."""

    model: Literal["hashed_logistic"] = "hashed_logistic"
    learning_rate: Positive = 0.1
    beta: NotNegative = Field(default=1.0, description="smooths the first learning rates")
    l1: NotNegative = 0.0
    l2: NotNegative = 1.0


class FactorizationMachine(Hashed):
    """A linear part as in `HashedLogistic`, and factors by AdaGrad (Duchi et al. 2011)."""

    model: Literal["factorization_machine"]
    bits: Annotated[int, Field(ge=1, le=24)] = 18
    learning_rate: Positive = 0.1
    beta: NotNegative = 1.0
    l1: NotNegative = 0.0
    l2: NotNegative = 1.0
    factors: Annotated[int, Field(ge=1, le=256)] = 8
    factor_rate: Positive = Field(default=0.05, description="learning rate of the factors")
    factor_l2: NotNegative = 0.001
    init_scale: Positive = Field(default=0.05, description="standard deviation of the first factors")


class LightGBM(Common):
    """Boosted trees; a round is `trees_per_round` of them."""

    model: Literal["lightgbm"]
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 20
    trees_per_round: Annotated[int, Field(ge=1, le=1000)] = 10
    learning_rate: Positive = 0.05
    leaves: Annotated[int, Field(ge=2, le=4096)] = 31
    min_rows_leaf: Annotated[int, Field(ge=1)] = 50
    l2: NotNegative = 1.0
    feature_share: Share = 1.0
    row_share: Share = 1.0
    max_categories: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000,
        description="of a feature, the most frequent, for all heads; the others are one with what is missing",
    )


MODELS: dict[str, type[Common]] = {
    "hashed_logistic": HashedLogistic,
    "factorization_machine": FactorizationMachine,
    "lightgbm": LightGBM,
}
# One extraction, one split and one bundle serve all heads.
SHARED = ("model", "train_hours", "gap_hours", "keep_negatives", "seed", "max_miscalibration")
# Not of one head either, but trials of a search may differ in it: the heads share a table of categories.
ONE_TABLE = "max_categories"
# What decides which rows are extracted, and nothing else.
EXTRACTING = ("train_hours", "gap_hours", "keep_negatives")


class Hyperparameters:
    """The checked hyperparameters of a training. shared: without a head; document: as given, defaults left out."""

    def __init__(self, document: Mapping[str, Any], file: str = "hyperparameters", *, like: str | None = None) -> None:
        """like: what a default model is where the document names none. Raises BidsimError naming file and key."""
        self.file = file
        values = dict(document)
        if like is not None:
            values.setdefault("model", like)
        name = values.get("model", "hashed_logistic")
        kind = MODELS.get(name) if isinstance(name, str) else None
        if kind is None:
            hint = nearest(str(name), MODELS) or f"; known are {', '.join(MODELS)}"
            raise BidsimError(f'model: there is no model "{name}"{hint}', file=file)
        own: dict[Head, dict[str, Any]] = {}
        general: dict[str, Any] = {}
        for key, value in values.items():
            head, dot, rest = str(key).partition(".")
            if dot and head in HEADS:
                if rest in (*SHARED, ONE_TABLE):
                    raise BidsimError(f"{key}: {rest} is the same for all heads; write it without {head}.", file=file)
                own.setdefault(head, {})[rest] = _read(rest, value, kind)
            else:
                general[str(key)] = _read(str(key), value, kind)
        self.shared = self._build(kind, general, "")
        self._heads = {head: self._build(kind, {**general, **extra}, f"{head}.") for head, extra in own.items()}
        self.document = {**general, **{f"{h}.{k}": v for h, extra in own.items() for k, v in extra.items()}}

    def head(self, head: Head) -> Common:
        """What counts for one head."""
        return self._heads.get(head, self.shared)

    def with_values(self, **changes: Any) -> Hyperparameters:
        """The same with some keys replaced."""
        return Hyperparameters({**self.document, **changes}, self.file)

    def content(self) -> dict[str, Any]:
        """Every value that counts for training, defaults included, as plain data in a fixed order."""
        left_out = {"features"} if self.shared.features is None else set()
        shared = self.shared.model_dump(exclude={*EXTRACTING, *left_out})
        return {"": shared, **{h: m.model_dump() for h, m in sorted(self._heads.items())}}

    def _build(self, kind: type[Common], values: Mapping[str, Any], prefix: str) -> Common:
        try:
            return kind.model_validate(dict(values))
        except ValidationError as error:
            found = [
                f"{prefix if path and f'{prefix}{path[0]}' else ''}{self._elsewhere(str(path[-1]), message, kind)}"
                for path, message in explain(error, values, kind)
            ]
            raise BidsimError("\n".join(found), file=self.file) from None

    def _elsewhere(self, key: str, message: str, kind: type[Common]) -> str:
        """An unknown key may be another model's."""
        others = [name for name, other in MODELS.items() if other is not kind and key in other.model_fields]
        if message.startswith("unknown key") and others:
            return f'"{key}" is a hyperparameter of {" and ".join(others)}, not of {_name(kind)}'
        return message


def _name(kind: type[Common]) -> str:
    return next(name for name, each in MODELS.items() if each is kind)


def to_train_here(found: Hyperparameters) -> Hyperparameters:
    """The same, where this machine has what they train with: told before hours of extraction. Raises BidsimError."""
    if found.shared.model == "lightgbm" and find_spec("lightgbm") is None:
        raise BidsimError(NO_LIGHTGBM)
    return found


def load_hyperparameters(path: Path | None) -> Hyperparameters:
    """Read a JSON file; None gives the defaults. Raises BidsimError naming the file and the key."""
    if path is None:
        return Hyperparameters({})
    return Hyperparameters(read_mapping(path, "check --hyperparameters"), str(path))


def read_mapping(path: Path, hint: str) -> dict[str, Any]:
    """The mapping that a JSON file holds, without duplicate keys or NaN. hint: what to do where there is no file.

    Raises BidsimError naming the file.
    """
    file = str(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BidsimError(f"has more than {MOST_BYTES} bytes, which is too much", file=file)
        text = path.read_text("utf-8-sig")
        document = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except FileNotFoundError:
        raise BidsimError(f"no such file; {hint}", file=file) from None
    except OSError as error:
        raise BidsimError(f"can't be read: {error.strerror}", file=file) from None
    except json.JSONDecodeError as error:
        raise BidsimError(f"is not JSON: {error.msg}", file=file, line=error.lineno, column=error.colno) from None
    except (ValueError, RecursionError) as error:
        raise BidsimError(f"is not JSON that can be used: {error}", file=file) from None
    if not isinstance(document, dict):
        raise BidsimError('is no mapping of keys, such as {"model": "hashed_logistic"}', file=file)
    return document


def _read(key: str, value: Any, kind: type[Common]) -> Any:
    """A value given as text, as the JSON that it holds; texts stay where the key takes one."""
    field = kind.model_fields.get(key)
    if isinstance(value, str) and field is not None and key != "model":
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, float) and value.is_integer() and field is not None and "int" in str(field.annotation):
        return int(value)  # tuning services write whole numbers as 18.0
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f'the key "{next(k for k in names if names.count(k) > 1)}" stands twice')
    if any(isinstance(v, float) and not math.isfinite(v) for v in found.values()):
        raise ValueError("a number is out of range")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
