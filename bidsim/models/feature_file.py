"""The features file of `bidsim model pack`: which log columns a model's inputs are, and what a file can't say itself.

YAML 1.2, read as strictly as a scenario: no duplicate keys, no anchors or tags, unknown keys refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from bidsim.errors import ModelError, ScenarioError
from bidsim.models.manifest import Feature, Name, Part, Recalibration, TrainingWindow
from bidsim.scenario.explaining import explain
from bidsim.scenario.reading import line_of, read_yaml
from bidsim.scenario.schema import Head

MAX_BYTES = 64 << 20


Kind = Literal["numeric", "categorical", "list"]


class FeatureEntry(Part):
    """One input, or a part of a cross.

    categories: of a model that was given codes, its values in the order of the codes. cross, separator: the values of
    several categorical features, joined.
    """

    type: Kind | None = None
    column: Name | None = None
    categories: tuple[str | int | bool, ...] | None = None
    cross: Annotated[tuple[Name, ...], Field(min_length=2, max_length=4)] | None = None
    separator: str | None = None
    missing: str | None = Field(default=None, description="CatBoost, ONNX: the text of a missing category in training")
    prefix: str | None = Field(default=None, description="Vowpal Wabbit: before a category's value; default: name=")


class HeadOptions(Part):
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="the inputs in the model's order; needed where the file has no names"
    )
    output: Name | None = None
    namespaces: dict[str, tuple[Name, ...]] | None = Field(default=None, description="Vowpal Wabbit: of its features")
    trees: Annotated[int, Field(ge=1)] | Literal["all", "best"] | None = None
    recalibration: tuple[Recalibration, ...] = ()


class FeatureFile(Part):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    features: dict[Name, FeatureEntry | Kind | None] = Field(default={})
    ctr: HeadOptions = HeadOptions()
    cvr: HeadOptions = HeadOptions()
    ctcvr: HeadOptions = HeadOptions()
    training_window: TrainingWindow | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None

    def head(self, head: Head) -> HeadOptions:
        options: HeadOptions = getattr(self, head)
        return options

    def entry(self, name: str) -> FeatureEntry:
        """What is said about an input, if anything."""
        found = self.features.get(name)
        if isinstance(found, FeatureEntry):
            return found
        return FeatureEntry(type=found)

    def feature(self, name: str, kind: str) -> Feature:
        """The feature of a bundle; kind: what the model file takes the input for."""
        said = self.entry(name)
        default: Kind = "numeric" if kind == "numeric" else "categorical"
        if (said.categories is not None or said.cross is not None) and said.type is None:
            default = "categorical"
        return Feature(
            name=name, type=said.type or default, column=said.column, cross=said.cross, separator=said.separator
        )


def read_feature_file(path: Path) -> FeatureFile:
    """Raises ModelError naming the file, and the line or key."""
    file = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror or error}", file=file) from error
    if len(data) > MAX_BYTES:
        raise ModelError(f"{len(data)} bytes are too many for a features file", file=file)
    try:
        text = data.decode("utf-8-sig")
        document, lines = read_yaml(text, file, most_scalars=MAX_BYTES) if text.strip() else ({}, {})
    except UnicodeDecodeError as error:
        raise ModelError("not UTF-8 text; give the YAML file of the features", file=file) from error
    except ScenarioError as error:
        said = error.message.replace("a scenario", "a features file").replace("the scenario", "the features file")
        raise ModelError(said, file=file, line=error.line, column=error.column) from error
    try:
        return FeatureFile.model_validate(_tuples(document))
    except ValidationError as error:
        place, message = explain(error, document, FeatureFile)[0]
        raise ModelError(message, file=file, line=line_of(lines, place) or 1) from error


def _tuples(node: Any) -> Any:
    """Lists as tuples, which is what strict models take outside JSON."""
    if isinstance(node, dict):
        return {key: _tuples(value) for key, value in node.items()}
    return tuple(_tuples(value) for value in node) if isinstance(node, list) else node
