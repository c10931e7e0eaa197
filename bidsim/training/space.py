"""The space of a tuning: for each hyperparameter a range, some choices, or one value for all trials.

    learning_rate: {low: 0.01, high: 1, log: true}
    bits: {choices: [16, 18, 20]}
    cvr.l2: {low: 0.1, high: 100, log: true}
    model: hashed_logistic

Whole numbers are drawn where the hyperparameter is one. Messages name file and line as a scenario's do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from bidsim.errors import BidsimError, ScenarioError
from bidsim.scenario.explaining import explain
from bidsim.scenario.loading import read_text
from bidsim.scenario.reading import line_of, read_yaml
from bidsim.scenario.schema import HEADS, Block, Number
from bidsim.training.hyperparameters import MODELS, SHARED, Hyperparameters

EXAMPLE = "learning_rate: {low: 0.01, high: 1, log: true}"


class Axis(Block):
    """low and high, both inclusive, with log or step; or choices."""

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    choices: Annotated[list[Any], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        ranged = self.low is not None or self.high is not None or self.log or self.step is not None
        if ranged == (self.choices is not None):
            raise ValueError("give low and high, or choices")
        if self.choices is not None:
            texts = [json.dumps(c, sort_keys=True) for c in self.choices]
            if len(set(texts)) != len(texts):
                raise ValueError("a choice stands twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range has both low and high")
        if self.low >= self.high:
            raise ValueError(f"low must be less than high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a range on a log scale begins above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.low + self.step > self.high:
            raise ValueError(f"the step {self.step:g} leads beyond high, {self.high:g}; there is nothing to choose")
        return self

    @property
    def last(self) -> float:
        """The largest number of the range that is a whole number of steps above `low`."""
        assert self.low is not None
        assert self.high is not None
        if self.step is None:
            return self.high
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        return float(low + (high - low) // step * step)

    def holds(self, value: Any) -> bool:
        """Whether a number lies in the range, and on its steps."""
        if value is None or self.low is None or self.high is None or not self.low <= value <= self.high:
            return False
        return self.step is None or abs(math.remainder(value - self.low, self.step)) < 1e-9 * self.step


@dataclass(frozen=True)
class Space:
    """axes: what is tuned; base: the hyperparameters that all trials share; whole: axes of whole numbers; file: for
    messages."""

    axes: Mapping[str, Axis]
    base: Hyperparameters
    whole: frozenset[str]
    file: str = "space"

    def content(self) -> dict[str, Any]:
        """Everything that decides the trials, as plain data."""
        return {
            "axes": {key: axis.model_dump(exclude_none=True) for key, axis in sorted(self.axes.items())},
            "base": self.base.document,
        }

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """Those of one trial; values: as `distributions` draws them."""
        drawn = {k: json.loads(v) if self.axes[k].choices is not None else v for k, v in values.items()}
        return self.base.with_values(**drawn)

    def start(self) -> dict[str, Any] | None:
        """The shared hyperparameters as a point of the space, where they lie in it: the first trial."""
        found: dict[str, Any] = {}
        for key, axis in self.axes.items():
            value = self._default(key)
            if axis.choices is not None:
                texts = [json.dumps(choice) for choice in axis.choices]
                value = json.dumps(value)
                if value not in texts:
                    return None
            elif not axis.holds(value):
                return None
            found[key] = value
        return found

    def _default(self, key: str) -> Any:
        head, dot, rest = key.partition(".")
        chosen = self.base.head(head) if dot and head in HEADS else self.base.shared
        return chosen.model_dump()[rest if dot else key]

    def distributions(self) -> dict[str, Any]:
        """As Optuna has them; choices as JSON texts, for it takes plain values only."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for key, axis in self.axes.items():
            if axis.choices is not None:
                found[key] = CategoricalDistribution([json.dumps(choice) for choice in axis.choices])
                continue
            assert axis.low is not None
            if key in self.whole:
                step = int(axis.step or 1)
                found[key] = IntDistribution(int(axis.low), int(axis.last), log=axis.log, step=step)
            else:
                found[key] = FloatDistribution(float(axis.low), float(axis.last), log=axis.log, step=axis.step)
        return found


def load_space(path: Path, base: Hyperparameters) -> Space:
    """Read a space; single values in it replace those of `base`. Raises ScenarioError with file, line and key."""
    file = str(path)
    text = read_text(path, "space")
    if not text.strip():
        raise ScenarioError(f"is empty; name what to tune, such as {EXAMPLE}", file=file)
    try:
        document, lines = read_yaml(text, file)
    except ScenarioError as error:
        said = error.message.replace("a scenario", "a space").replace("such as logs_tables: ...", f"such as {EXAMPLE}")
        raise ScenarioError(said, file=file, line=error.line, column=error.column) from error

    def at(key: str, message: str) -> ScenarioError:
        return ScenarioError(message, file=file, line=line_of(lines, (key,)))

    axes: dict[str, Axis] = {}
    fixed: dict[str, Any] = {}
    for key, value in document.items():
        if not isinstance(value, dict):
            fixed[key] = value
            continue
        try:
            axes[key] = Axis.model_validate(value)
        except ValidationError as error:
            place, message = explain(error, value, Axis)[0]
            line = line_of(lines, (key, *place))
            raise ScenarioError(f"{key}: {message}", file=file, line=line) from None
    try:
        shared = base.with_values(**fixed)
    except BidsimError as error:
        bad = next((key for key in fixed if key in error.message), None)
        raise ScenarioError(error.message, file=file, line=line_of(lines, (bad,)) if bad else None) from None
    if not axes:
        raise ScenarioError("has nothing to tune: no key has low and high, or choices", file=file)
    kind = MODELS[shared.shared.model]
    whole = set()
    for key, axis in axes.items():
        head, dot, rest = key.partition(".")
        name = rest if dot and head in HEADS else key
        if name in SHARED:
            raise at(key, f"{key} can't be tuned: it is one for all trials; write a single value")
        field = kind.model_fields.get(name)
        if field is not None and field.annotation is int:
            whole.add(key)
            for end in (axis.low, axis.high, axis.step):
                if end is not None and end != int(end):
                    raise at(key, f"{key} is a whole number, so its range is of whole numbers, got {end:g}")
        ends = axis.choices if axis.choices is not None else [axis.low, axis.high]
        for end in ends:
            try:
                shared.with_values(**{key: int(end) if key in whole and isinstance(end, float) else end})
            except BidsimError as error:
                raise at(key, error.message) from None
    return Space(axes, shared, frozenset(whole), file)
