"""Boosted trees by LightGBM (extra: `lightgbm`). The examples of a head are held in memory, eight bytes a cell.

A round is some trees on top of the model so far, read back from its own text: so a training that was killed goes on
from a checkpoint with the same trees as one that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import BidsimError
from bidsim.models.bundle import Bundle
from bidsim.models.columns import Columns, HashCache
from bidsim.models.libraries import Inputs
from bidsim.models.manifest import LibraryHead, TrainingWindow
from bidsim.scenario.schema import HEADS, Head
from bidsim.training.curve import Measures, Progress
from bidsim.training.hyperparameters import LightGBM
from bidsim.training.measuring import measure
from bidsim.training.problem import Batch, Problem
from bidsim.training.streaming import Arrays, Learned, Stop

Floats = NDArray[np.float64]
Categories = Mapping[str, tuple[str, ...]]


def category_tables(problems: Sequence[Problem]) -> dict[str, tuple[str, ...]]:
    """The most frequent values of each categorical feature, most frequent first: one table for all heads.

    They are counted in the head with most rows, among those that are learned from.
    """
    counts: dict[str, Counter[str]] = {}
    for problem in sorted(problems, key=lambda problem: -problem.learned):
        new = [f.name for f in problem.features if f.type == "categorical" and f.name not in counts]
        counts |= {name: Counter() for name in new}
        for batch in problem.learning() if new else ():
            columns = Columns(batch.columns, problem.features, cache=HashCache(0), file="")
            for name in new:
                codes, values = columns.category(name)
                for value, count in zip(values, np.bincount(codes, minlength=len(values)).tolist(), strict=True):
                    counts[name][value] += count
    hyper = problems[0].hyper
    assert isinstance(hyper, LightGBM)
    return {
        name: tuple(v for v, n in sorted(counter.items(), key=lambda item: (-item[1], item[0])) if v and n)[
            : hyper.max_categories
        ]
        for name, counter in counts.items()
    }


class Trees:
    """Trains one head; see `streaming.Streaming` for what each method is."""

    def __init__(self, problem: Problem, tables: Categories, seed: int) -> None:
        try:
            import lightgbm
        except ImportError as error:
            raise BidsimError("model lightgbm needs LightGBM: pip install 'bidsim[lightgbm]'") from error
        from bidsim.models.libraries import lightgbm_models

        lightgbm.register_logger(lightgbm_models._Silent())
        hyper = problem.hyper
        assert isinstance(hyper, LightGBM)
        self.problem = problem
        self.hyper = hyper
        self._lightgbm = lightgbm
        self._tables = {name: {v: code for code, v in enumerate(values)} for name, values in tables.items()}
        self._params = {
            "objective": "binary",
            "metric": "binary_logloss",
            "learning_rate": hyper.learning_rate,
            "num_leaves": hyper.leaves,
            "min_data_in_leaf": hyper.min_rows_leaf,
            "lambda_l2": hyper.l2,
            "feature_fraction": hyper.feature_share,
            "bagging_fraction": hyper.row_share,
            "bagging_freq": int(hyper.row_share < 1),
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 0,
            "verbosity": -1,
        }
        self._seed = seed
        self._text = self._best = ""
        matrix, y, w = self._matrix(problem.learning)
        coded = [i for i, f in enumerate(problem.features) if f.type == "categorical"]
        self._training = lightgbm.Dataset(
            matrix, y, weight=w, categorical_feature=coded, free_raw_data=False, params=self._params
        )
        self._validation = self._matrix(problem.validation)

    def round(self, number: int, stop: Stop, progress: Progress | None) -> Learned:
        found: dict[str, dict[str, list[float]]] = {}
        if stop():
            return Learned(0, None)

        def check(environment: Any) -> None:
            if stop():
                raise self._lightgbm.callback.EarlyStopException(environment.iteration, [])

        booster = self._lightgbm.train(
            {**self._params, "seed": (self._seed + 7919 * number) % 2**31},
            self._training,
            num_boost_round=self.hyper.trees_per_round,
            init_model=self._lightgbm.Booster(model_str=self._text) if self._text else None,
            valid_sets=[self._training],
            valid_names=["training"],
            callbacks=[self._lightgbm.record_evaluation(found), check],
        )
        self._text = booster.model_to_string(num_iteration=-1)
        losses = found.get("training", {}).get("binary_logloss", [])
        return Learned(self.problem.learned, losses[-1] if losses else None)

    def validate(self) -> Measures:
        matrix, y, w = self._validation
        booster = self._lightgbm.Booster(model_str=self._text)
        return measure(np.asarray(booster.predict(matrix), dtype=np.float64), y, w)

    def keep(self) -> None:
        self._best = self._text

    def state(self) -> Arrays:
        texts = {"text": self._text, "best": self._best}
        return {name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._text, self._best = (state[name].tobytes().decode() for name in ("text", "best"))

    def text(self) -> str:
        """The best model as LightGBM writes it."""
        return self._best

    def categories(self, name: str) -> tuple[str, ...]:
        """The values of a categorical feature in the order of their codes."""
        return tuple(self._tables[name])

    def _matrix(self, batches: Callable[[], Any]) -> tuple[Floats, Floats, Floats]:
        names = tuple(f.name for f in self.problem.features)
        entry = LibraryHead(format="lightgbm/1", payloads=(f"{self.problem.head}/model.txt",), features=names)
        parts: list[tuple[Floats, Floats, Floats]] = []
        batch: Batch
        for batch in batches():
            columns = Columns(batch.columns, self.problem.features, cache=HashCache(0), file="")
            parts.append((Inputs(entry, columns, self._tables).matrix(), batch.label, batch.weight))
        matrix, y, w = (np.concatenate(column) for column in zip(*parts, strict=True))
        return matrix, y, w


def pack_trees(trainings: Mapping[Head, Trees], window: tuple[str, str] | None, path: Path) -> Bundle:
    """A bundle of the best models, in memory, with some validation rows as its examples. path: for messages."""
    from bidsim.models.feature_file import FeatureEntry, FeatureFile, HeadOptions
    from bidsim.models.packing import pack_models

    models: dict[Head, Path] = {}
    entries: dict[str, FeatureEntry | Literal["numeric", "categorical"] | None] = {}
    options = dict.fromkeys(HEADS, HeadOptions())
    for head, trees in trainings.items():
        models[head] = path.parent / f"{head}.txt"
        models[head].write_text(trees.text(), encoding="utf-8")
        features = trees.problem.features
        options[head] = HeadOptions(features=tuple(f.name for f in features))
        for feature in features:
            known = feature.type == "categorical"
            entries[feature.name] = FeatureEntry(
                type="categorical" if known else "numeric", categories=trees.categories(feature.name) if known else None
            )
    rows = next(next(iter(trainings.values())).problem.validation()).columns
    examples = pa.Table.from_batches([rows.select(list(entries))])
    said = FeatureFile(
        features=dict(entries),
        ctr=options["ctr"],
        cvr=options["cvr"],
        ctcvr=options["ctcvr"],
        training_window=TrainingWindow(start=window[0], end=window[1]) if window else None,
    )
    return pack_models(models, said, out=path, examples=examples)
