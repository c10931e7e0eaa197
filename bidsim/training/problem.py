"""What one head is to learn: its examples split in time, its features, and what a first scan says of them.

The last rows in time are for validation, and nothing is learned from them: neither weights nor scales nor the first
rate. Rows of one time stay on one side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bidsim.errors import BidsimError
from bidsim.models.manifest import Feature, Scale
from bidsim.scenario.explaining import nearest
from bidsim.scenario.schema import Head
from bidsim.training.examples import BATCH_ROWS, HEAD_SAMPLE, Examples, Extraction
from bidsim.training.hyperparameters import Common, Hashed, Hyperparameters, LightGBM

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Some rows: their columns, labels (0 or 1) and weights, shape (rows,)."""

    columns: pa.RecordBatch
    label: Floats
    weight: Floats


@dataclass(frozen=True)
class Problem:
    """One head's examples and features. Rows [0, learned) are learned from, [learned, rows) are for validation.

    rate: weighted share of positives among the rows learned from. unit: mean weight of these positives, which counts as
    one row's in learning: a log that keeps one row in a thousand, with weights of 1000, has no more to learn from than
    its rows, and steps and penalties are made for rows. scaling: of numeric features, where the model scales.
    """

    head: Head
    hyper: Common
    examples: Examples
    features: tuple[Feature, ...]
    learned: int
    rate: float
    scaling: dict[str, Scale]
    unit: float = 1.0

    @property
    def rows(self) -> int:
        return self.examples.sample.rows

    def learning(self, start: int = 0) -> Iterator[Batch]:
        """The rows to learn from, in the order of time, without the first `start`; weights in units of `unit`."""
        for batch in self._batches(start, self.learned):
            yield Batch(batch.columns, batch.label, batch.weight / self.unit)

    def validation(self) -> Iterator[Batch]:
        """The rows to judge by."""
        return self._batches(self.learned, self.rows)

    def _batches(self, start: int, stop: int) -> Iterator[Batch]:
        names = self.examples.columns
        for batch in self.examples.batches(start, stop):
            yield Batch(batch, _floats(batch, names["label"]), _floats(batch, names["weight"]))


def make_problem(extraction: Extraction, head: Head, hyperparameters: Hyperparameters) -> Problem:
    """Split and scan the examples of a head. Raises BidsimError where they are too few to learn from."""
    hyper = hyperparameters.head(head)
    features = features_of(extraction, hyper, hyperparameters.file)
    examples = extraction.examples(head)
    rows = examples.sample.rows
    learned = _boundary(examples, rows - max(1, round(rows * hyper.validation_share)))
    if learned < 1:
        raise _too_few(head, f"{rows:,} rows" + (" of one time" if rows > 1 else ""))
    scaled = [f.name for f in features if f.type == "numeric"] if isinstance(hyper, Hashed) else []
    found = _scan(examples, learned, scaled)
    if not 0 < found.rate < 1:
        label = "positive" if found.rate <= 0 else "negative"
        raise _too_few(head, f"no {label} one with a weight among {learned:,} to learn from")
    return Problem(head, hyper, examples, features, learned, found.rate, found.scaling, found.unit)


def check_kinds(problems: Iterable[Problem], file: str) -> None:
    """Raises BidsimError where two heads take a feature for different things: one bundle has one kind of each."""
    kinds: dict[str, tuple[str, Head]] = {}
    for problem in problems:
        for feature in problem.features:
            kind, head = kinds.setdefault(feature.name, (feature.type, problem.head))
            if kind != feature.type:
                raise BidsimError(
                    f'"{feature.name}" is {kind} for head {head} and {feature.type} for head {problem.head}, and a bundle '
                    "has one kind of each feature; write numeric, categorical and lists without a head",
                    file=file,
                )


def _too_few(head: Head, what: str) -> BidsimError:
    return BidsimError(
        f"head {head}: the {HEAD_SAMPLE[head]} examples are too few to train on ({what}); take a longer training window, "
        "or leave this sample type out of the scenario"
    )


def features_of(extraction: Extraction, hyper: Common, file: str) -> tuple[Feature, ...]:
    """The features as a model takes them: the log's kinds with what the hyperparameters say on top.

    file: of the hyperparameters. Raises BidsimError where they don't fit the examples.
    """
    known = {column.name: column.kind for column in extraction.manifest.features}
    crosses = [name for cross in hyper.crosses for name in cross] if isinstance(hyper, Hashed) else []
    for key, names in (
        ("features", hyper.features or []),
        ("numeric", hyper.numeric),
        ("categorical", hyper.categorical),
        ("lists", hyper.lists),
        ("crosses", crosses),
    ):
        for name in names:
            if name not in known:
                raise BidsimError(f'{key}: the examples have no feature "{name}"{nearest(name, known)}', file=file)
    said = [*hyper.numeric, *hyper.categorical, *hyper.lists]
    twice = next((name for name in said if said.count(name) > 1), None)
    if twice is not None:
        raise BidsimError(f'"{twice}" stands in two of numeric, categorical and lists; keep one', file=file)
    kinds = dict(known)
    kinds |= dict.fromkeys(hyper.numeric, "numeric")
    kinds |= dict.fromkeys(hyper.categorical, "categorical")
    kinds |= dict.fromkeys(hyper.lists, "list")
    chosen = [n for n in known if hyper.features is None or n in hyper.features]
    used = [*chosen, *(name for name in dict.fromkeys(crosses) if name not in chosen)]
    if not used and isinstance(hyper, LightGBM):
        raise BidsimError("features: a model of trees needs one at least", file=file)
    for name in used:
        if isinstance(hyper, LightGBM) and kinds[name] == "list":
            raise BidsimError(
                f'LightGBM can\'t read the list "{name}"; leave it out with features, or take a hashed model', file=file
            )
        if name in crosses and kinds[name] != "categorical":
            raise BidsimError(f'crosses: "{name}" is {kinds[name]}, and only categories cross', file=file)
    return tuple(Feature(name=name, type=kinds[name]) for name in used)


def _boundary(examples: Examples, row: int) -> int:
    """The nearest row at or before `row` at which a new time begins; where none does, the first one after it."""
    name = examples.columns.get("time")
    if name is None or row < 1:
        return row
    times = [batch.column(name) for batch in examples.batches(row, row + 1)]
    if not times:
        return row
    at, end = times[0][0], row
    while row > 0:
        start = max(0, row - BATCH_ROWS)
        column = pa.concat_arrays([batch.column(name) for batch in examples.batches(start, row)])
        # Rows without a time stand last, as if at a time of their own.
        before = pc.sum(pc.less(column, at) if at.is_valid else pc.is_valid(column)).as_py() or 0
        if before:
            return start + int(before)
        row = start
    for batch in examples.batches(end) if at.is_valid else ():
        same = pc.sum(pc.equal(batch.column(name), at)).as_py() or 0
        if same < batch.num_rows:
            return end + int(same)
        end += batch.num_rows
    return 0


@dataclass(frozen=True)
class _Scan:
    """See `Problem`."""

    rate: float
    unit: float
    scaling: dict[str, Scale]


def _scan(examples: Examples, learned: int, numeric: list[str]) -> _Scan:
    """A pass over the rows to learn from: their rate and unit, mean and deviation of numbers where they are present."""
    names = examples.columns
    weight = positive = 0.0
    positives = 0
    moments = {name: _Moments() for name in numeric}
    for batch in examples.batches(0, learned):
        y, w = _floats(batch, names["label"]), _floats(batch, names["weight"])
        counted = (y > 0) & (w > 0)
        weight, positive, positives = weight + w.sum(), positive + w[counted].sum(), positives + int(counted.sum())
        for name in numeric:
            x = _number(batch, name)
            known = np.isfinite(x)
            moments[name].add(x[known], w[known])
    scaling = {}
    for name, found in moments.items():
        scale = found.scale()
        if scale is None:
            raise BidsimError(f'feature "{name}" has values too large to learn from; mend the log')
        scaling[name] = scale
    return _Scan(
        rate=float(positive / weight) if weight > 0 else 0.0,
        unit=float(positive / positives) if positives else 1.0,
        scaling=scaling,
    )


class _Moments:
    """Weighted mean and deviation of rows that come in batches (Chan, Golub and LeVeque 1983).

    Sums of squares would leave noise where a value hardly varies: a deviation a thousand times too large or too small.
    """

    def __init__(self) -> None:
        self._weight = self._mean = self._squares = 0.0

    def add(self, x: Floats, w: Floats) -> None:
        """Values and weights, shape (rows,) each."""
        weight = float(w.sum())
        if weight <= 0:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float((w * x).sum() / weight)
            squares = float((w * (x - mean) ** 2).sum())
        total, apart = self._weight + weight, mean - self._mean
        self._squares += squares + apart * apart * self._weight * weight / total
        self._mean += apart * weight / total
        self._weight = total

    def scale(self) -> Scale | None:
        """A value that does not vary keeps its unit. None where the numbers are too large to be squared."""
        deviation = math.sqrt(self._squares / self._weight) if self._weight > 0 else 0.0
        if not math.isfinite(self._mean + deviation):
            return None
        return Scale(mean=self._mean, scale=deviation if deviation > 1e-12 * abs(self._mean) else 1.0)


def _number(batch: pa.RecordBatch, name: str) -> Floats:
    column = batch.column(name)
    try:
        values = column.cast(pa.float64(), safe=False).fill_null(np.nan)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BidsimError(
            f'feature "{name}" is {column.type} in the log, not a number; take it as categorical'
        ) from error
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _floats(batch: pa.RecordBatch, name: str) -> Floats:
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
