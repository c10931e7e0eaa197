"""The models' part of reading a log: rows come with the models' features, and leave with their predictions instead.

Models are opened once; where rows are scored in other processes, each opens the very files anew, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.arrays import array_of
from bidsim.errors import ModelError
from bidsim.models import Scorer, open_scorer
from bidsim.models.scorer import end
from bidsim.replay.plan import Plan

FEATURE = "feature "


@dataclass(frozen=True)
class Model:
    """A policy's model. file: its name, for messages; path, sha256: the file to open."""

    policy: str
    file: str | None
    path: str
    sha256: str


# Models that this process opened for rows that were sent to it, by their content.
_opened: dict[str, Scorer] = {}


class Scoring:
    """Takes batches with features and gives them with predictions. outputs: (policy, head, column) of each."""

    def __init__(
        self,
        models: Mapping[int, Model],
        features: Sequence[str],
        outputs: Sequence[tuple[int, str, str]],
        open_: Callable[[Model], Scorer],
    ) -> None:
        self.models = models
        self.features = list(features)
        self.outputs = list(outputs)
        self.scorers = {i: open_(model) for i, model in models.items()}

    def schema(self, incoming: pa.Schema) -> pa.Schema:
        kept = [field for field in incoming if not field.name.startswith(FEATURE)]
        return pa.schema([*kept, *(pa.field(column, pa.float64()) for _, _, column in self.outputs if self.models)])

    def end(self) -> None:
        """End what the scorers run beside this process, also while threads wait for it."""
        for scorer in self.scorers.values():
            end(scorer)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        kept = batch.select([n for n in batch.schema.names if not n.startswith(FEATURE)])
        if not self.models:
            return kept
        arrays = [batch.column(f"{FEATURE}{i}") for i in range(len(self.features))]
        given = pa.RecordBatch.from_arrays(arrays, self.features)
        scores = {i: _score(m, self.scorers[i], given) for i, m in self.models.items()}
        made = [array_of(np.asarray(scores[i][head], dtype=np.float64)) for i, head, _ in self.outputs]
        return pa.RecordBatch.from_arrays([*kept.columns, *made], self.schema(batch.schema).names)


@dataclass(frozen=True)
class ScoringFactory:
    """Makes a `Scoring`, here or in another process. here: the scorers that this process has; they don't travel."""

    models: Mapping[int, Model]
    features: Sequence[str]
    outputs: Sequence[tuple[int, str, str]]
    here: Mapping[int, Scorer] | None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}

    def __call__(self, locate: Callable[[Model], Path] | None = None) -> Scoring:
        """locate: where this process has a model's file."""
        if self.here is not None:
            scorers = {self.models[i]: scorer for i, scorer in self.here.items()}
            return Scoring(self.models, self.features, self.outputs, scorers.__getitem__)

        def open_(model: Model) -> Scorer:
            if model.sha256 not in _opened:
                _opened[model.sha256] = open_scorer(locate(model) if locate else Path(model.path)).scorer
            return _opened[model.sha256]

        return Scoring(self.models, self.features, self.outputs, open_)

    @property
    def files(self) -> Sequence[Model]:
        """The files that it opens."""
        return list(self.models.values())


def scoring_of(plan: Plan) -> ScoringFactory:
    """What scores the rows of a plan's log."""
    scored = [p for p in plan.policies if p.scorer is not None]
    return ScoringFactory(
        {p.index: Model(p.name, p.model_file, str(p.model_path), str(p.sha256)) for p in scored},
        list(plan.features),
        [(p.policy, p.head, p.column) for p in plan.predictions if p.sql is None],
        {p.index: p.scorer for p in scored if p.scorer is not None},
    )


def _score(model: Model, scorer: Scorer, batch: pa.RecordBatch) -> dict[str, npt.NDArray[np.float64]]:
    scores: dict[str, npt.NDArray[np.float64]] = scorer.score(batch)
    for head in scorer.heads:
        if head not in scores or len(scores[head]) != batch.num_rows:
            raise ModelError(
                f'policy "{model.policy}": the model gave no {head} prediction for some rows', file=model.file
            )
    return scores
