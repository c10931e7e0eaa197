"""Boosted trees by LightGBM (extra: `lightgbm`). Of the examples a byte or two a cell is held, and 40 bytes a row.

A round is some trees on top of the scores of the model so far, as read back from its own text: so a training that was
killed goes on from a checkpoint with the same trees as one that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from bidsim.training.curve import Measures, Progress, loss_sum
from bidsim.training.hyperparameters import NO_LIGHTGBM, LightGBM
from bidsim.training.measuring import Measuring
from bidsim.training.problem import Batch, Problem
from bidsim.training.streaming import Arrays, Learned, Stop, sigmoid
from bidsim.training.tree_rows import RowReader, joined

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
    """Trains one head; see `streaming.Streaming` for what each method is. threads: None for all cores."""

    def __init__(self, problem: Problem, tables: Categories, seed: int, threads: int | None = None) -> None:
        try:
            import lightgbm
        except ImportError as error:
            raise BidsimError(NO_LIGHTGBM) from error
        from bidsim.models.libraries import lightgbm_models

        lightgbm.register_logger(lightgbm_models._Silent())
        # Of the process: as the parameter num_threads it would be in the model's text.
        lightgbm.basic._LIB.LGBM_SetMaxThreads(threads or -1)
        hyper = problem.hyper
        assert isinstance(hyper, LightGBM)
        self.problem = problem
        self.hyper = hyper
        self._lightgbm = lightgbm
        names = tuple(f.name for f in problem.features)
        self._entry = LibraryHead(format="lightgbm/1", payloads=(f"{problem.head}/model.txt",), features=names)
        self._tables = {name: {v: code for code, v in enumerate(values)} for name, values in tables.items()}
        self._params = {
            "objective": "binary",
            "metric": "none",
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
            "data_random_seed": seed,
        }
        self._seed = seed
        self._text = self._best = ""
        self._counts: list[int] = []  # trees of each round
        label, weight = self._labels()
        coded = [i for i, f in enumerate(problem.features) if f.type == "categorical"]
        lightgbm.Sequence.register(RowReader)
        rows = RowReader(problem.learned, lambda: (self._matrix(batch) for batch in problem.learning()))
        self._training = lightgbm.Dataset(rows, label, weight=weight, categorical_feature=coded, params=self._params)
        self._training.construct()
        self._scores: Floats | None = None

    def round(self, number: int, stop: Stop, progress: Progress | None) -> Learned:
        if stop():
            return Learned(0, None, whole=False)

        def check(environment: Any) -> None:
            if stop():
                raise self._lightgbm.callback.EarlyStopException(environment.iteration, [])

        if self._scores is not None:
            self._training.set_init_score(self._scores)
        booster = self._lightgbm.train(
            {**self._params, "seed": (self._seed + 7919 * number) % 2**31},
            self._training,
            num_boost_round=self.hyper.trees_per_round,
            callbacks=[check],
        )
        whole = joined(self._text, booster.model_to_string(num_iteration=-1))
        self._text = self._lightgbm.Booster(model_str=whole).model_to_string(num_iteration=-1)
        self._counts.append(booster.num_trees())
        logloss = self._add_scores(len(self._counts) - 1)
        complete = bool(booster.num_trees() == self.hyper.trees_per_round) or not stop()
        return Learned(self.problem.learned, logloss, complete)

    def validate(self) -> Measures:
        booster = self._lightgbm.Booster(model_str=self._text)
        with Measuring() as measuring:
            for batch in self.problem.validation():
                p = np.asarray(booster.predict(self._matrix(batch)), dtype=np.float64)
                measuring.add(p, batch.label, batch.weight)
            return measuring.measures()

    def keep(self) -> None:
        self._best = self._text

    def state(self) -> Arrays:
        texts = {"text": self._text, "best": self._best}
        arrays: Arrays = {name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}
        return {**arrays, "counts": np.array(self._counts, dtype=np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._text, self._best = (state[name].tobytes().decode() for name in ("text", "best"))
        self._counts = [int(count) for count in state["counts"]]
        self._scores = None
        self._add_scores(0)

    def text(self) -> str:
        """The best model as LightGBM writes it."""
        return self._best

    def categories(self, name: str) -> tuple[str, ...]:
        """The values of a categorical feature in the order of their codes."""
        return tuple(self._tables[name])

    def _add_scores(self, first: int) -> float:
        """Add the log odds of the rounds from `first` on to those of the rows to learn from; returns their log loss.

        Always in this order, round by round: sums of other orders differ in the last digit, and so would trees. The loss
        that LightGBM tells depends on its number of threads likewise.
        """
        if self._scores is None:
            self._scores = np.zeros(self.problem.learned)
        booster = self._lightgbm.Booster(model_str=self._text)
        start, loss, weight = 0, 0.0, 0.0
        for batch in self.problem.learning():
            matrix = self._matrix(batch)
            stop = start + len(matrix)
            for number in range(first, len(self._counts)):
                begin, count = sum(self._counts[:number]), self._counts[number]
                if not count:  # LightGBM would take it for all of them
                    continue
                self._scores[start:stop] += booster.predict(
                    matrix, raw_score=True, start_iteration=begin, num_iteration=count
                )
            loss += loss_sum(sigmoid(self._scores[start:stop]), batch.label, batch.weight)
            weight += float(batch.weight.sum())
            start = stop
        return loss / weight

    def _labels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the rows to learn from, as LightGBM keeps them."""
        parts = [(b.label.astype(np.float32), b.weight.astype(np.float32)) for b in self.problem.learning()]
        label, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return label, weight

    def _matrix(self, batch: Batch) -> Floats:
        columns = Columns(batch.columns, self.problem.features, cache=HashCache(0), file="")
        return Inputs(self._entry, columns, self._tables).matrix()


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
