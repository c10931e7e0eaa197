"""What one head is to learn: its examples split in time, its features, and what a first scan says of them.

The last rows in time are for validation, and nothing is learned from them: neither weights nor scales nor the first
rate. Rows of one time stay on one side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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

    rate: weighted share of positives among the rows learned from. scaling: of numeric features.
    """

    head: Head
    hyper: Common
    examples: Examples
    features: tuple[Feature, ...]
    learned: int
    rate: float
    scaling: dict[str, Scale]

    @property
    def rows(self) -> int:
        return self.examples.sample.rows

    def learning(self, start: int = 0) -> Iterator[Batch]:
        """The rows to learn from, in the order of time, without the first `start`."""
        return self._batches(start, self.learned)

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
    features = _features(extraction, hyper, hyperparameters.file)
    examples = extraction.examples(head)
    rows = examples.sample.rows
    learned = _boundary(examples, rows - max(1, round(rows * hyper.validation_share)))
    if learned < 1:
        raise _too_few(extraction, head, f"{rows} rows")
    rate, positives, scaling = _scan(examples, learned, [f.name for f in features if f.type == "numeric"])
    if positives == 0 or rate >= 1:
        label = "positive" if positives == 0 else "negative"
        raise _too_few(extraction, head, f"no {label} one among {learned:,} to learn from")
    return Problem(head, hyper, examples, features, learned, rate, scaling)


def _too_few(extraction: Extraction, head: Head, what: str) -> BidsimError:
    return BidsimError(
        f"head {head}: the {HEAD_SAMPLE[head]} examples are too few to train on ({what}); take a longer training window, "
        "or leave this sample type out of the scenario",
        file=str(extraction.directory),
    )


def _features(extraction: Extraction, hyper: Common, file: str) -> tuple[Feature, ...]:
    """The features as a model takes them: the log's kinds with what the hyperparameters say on top."""
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
    for name in used:
        if isinstance(hyper, LightGBM) and kinds[name] == "list":
            raise BidsimError(
                f'LightGBM can\'t read the list "{name}"; leave it out with features, or take a hashed model', file=file
            )
        if name in crosses and kinds[name] != "categorical":
            raise BidsimError(f'crosses: "{name}" is {kinds[name]}, and only categories cross', file=file)
    return tuple(Feature(name=name, type=kinds[name]) for name in used)


def _boundary(examples: Examples, row: int) -> int:
    """The nearest row at or before `row` at which a new time begins."""
    name = examples.columns.get("time")
    if name is None or row < 1:
        return row
    times = [batch.column(name) for batch in examples.batches(row, row + 1)]
    if not times:
        return row
    at = times[0][0]
    while row > 0:
        start = max(0, row - BATCH_ROWS)
        column = pa.concat_arrays([batch.column(name) for batch in examples.batches(start, row)])
        # Rows without a time stand last, as if at a time of their own.
        before = pc.sum(pc.less(column, at) if at.is_valid else pc.is_valid(column)).as_py() or 0
        if before:
            return start + int(before)
        row = start
    return 0


def _scan(examples: Examples, learned: int, numeric: list[str]) -> tuple[float, int, dict[str, Scale]]:
    """Weighted rate of positives, their number, and mean and deviation of each numeric feature where it is present."""
    names = examples.columns
    weight = positive = 0.0
    positives = 0
    sums = {name: np.zeros(3) for name in numeric}
    for batch in examples.batches(0, learned):
        y, w = _floats(batch, names["label"]), _floats(batch, names["weight"])
        weight, positive, positives = weight + w.sum(), positive + w[y > 0].sum(), positives + int((y > 0).sum())
        for name in numeric:
            x = _number(batch, name)
            known = np.isfinite(x)
            sums[name] += [w[known].sum(), (w[known] * x[known]).sum(), (w[known] * x[known] ** 2).sum()]
    scaling = {}
    for name, (n, total, squares) in sums.items():
        mean = total / n if n > 0 else 0.0
        deviation = math.sqrt(max(squares / n - mean**2, 0.0)) if n > 0 else 0.0
        scaling[name] = Scale(mean=float(mean), scale=float(deviation) if deviation > 1e-12 * abs(mean) else 1.0)
        if not math.isfinite(scaling[name].mean + scaling[name].scale):
            raise BidsimError(f'feature "{name}" has values too large to learn from; mend the log')
    return (positive / weight if weight > 0 else 0.0), positives, scaling


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
