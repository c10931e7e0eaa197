"""LightGBM's text models. Extra: `lightgbm`."""

from __future__ import annotations

import re
from typing import Any, Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.libraries import Description, Inputs
from bidsim.models.manifest import LibraryHead

OBJECTIVES = ("binary", "cross_entropy")
BLOCK_LEAVES = 400  # of the trees that are evaluated together
LEAST_TREES = 8


class _Silent:
    """LightGBM writes to stdout, which belongs to what the user asked for."""

    def info(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...


class LightGBM:
    def __init__(self, text: str) -> None:
        self._booster = lightgbm.Booster(model_str=text, params={"verbosity": -1})
        header = text[: text.find("\nTree=")] if "\nTree=" in text else text[:100_000]
        found = re.search(r"^objective=(\S+)", header, re.M)
        if found is None or found.group(1) not in OBJECTIVES:
            objective = "no objective" if found is None else f"objective {found.group(1)}"
            raise ModelError(
                f"the LightGBM model has {objective}, so its predictions are no probabilities of a click "
                "or conversion; train it with objective binary"
            )
        infos = re.search(r"^feature_infos=(.*)$", header, re.M)
        self._infos = infos.group(1).split(" ") if infos else []
        declared = re.search(r"^\[categorical_feature: (\d+(?:,\d+)*)\]$", text, re.M)
        self._declared = {int(place) for place in declared.group(1).split(",")} if declared else set()
        slope = re.search(r"^objective=binary .*sigmoid:(\S+)", header, re.M)
        self._slope = float(slope.group(1)) if slope else 1.0
        trees = int(self._booster.num_trees())
        leaves = sum(map(int, re.findall(r"^num_leaves=(\d+)$", text, re.M)))
        # A random forest's score is a mean, no sum.
        sums = self._booster.num_model_per_iteration() == 1 and not re.search(r"^average_output$", header, re.M)
        self._parts = _split(self._booster, trees, leaves) if sums else []

    def describe(self) -> Description:
        names = tuple(self._booster.feature_name())
        # A categorical feature lists its codes, 1:0:2; a numeric one has its range, [0:1]; an unused one "none", and only
        # the parameters of training tell whether it was categorical.
        kinds: list[Literal["numeric", "code", "text"]] = [
            "code"
            if place in self._declared
            or (place < len(self._infos) and re.fullmatch(r"-?\d+(:-?\d+)*", self._infos[place]))
            else "numeric"
            for place in range(len(names))
        ]
        tables: list[list[Any]] = self._booster.pandas_categorical or []
        coded = [name for name, kind in zip(names, kinds, strict=True) if kind == "code"]
        categories: dict[str, tuple[str, ...]] = {}
        if tables and len(tables) == len(coded):
            categories = {n: tuple(canonical(v) for v in t) for n, t in zip(coded, tables, strict=True)}
        named = not all(re.fullmatch(r"Column_\d+", name) for name in names)
        return Description(names, tuple(kinds), categories, named, untold=len(tables) - len(categories))

    def predict(self, given: Inputs) -> NDArray[np.float64]:
        matrix = given.matrix()
        if not self._parts:
            return np.asarray(self._booster.predict(matrix, num_threads=1))
        raw = np.zeros(given.rows, dtype=np.float64)
        for part in self._parts:
            raw += part.predict(matrix, raw_score=True, num_threads=1)
        with np.errstate(over="ignore"):
            return 1.0 / (1.0 + np.exp(-self._slope * raw))


def _split(booster: Any, trees: int, leaves: int) -> list[Any]:
    """A few trees each, none where there are only few: a part stays in the processor's cache while it sees all rows.

    That takes a third less time than all trees for a row after another. Parts are models of their own, as LightGBM's
    `start_iteration` is a state of the model, which threads would change under one another.
    """
    block = max(LEAST_TREES, BLOCK_LEAVES * trees // max(1, leaves))
    if block >= trees:
        return []
    return [
        lightgbm.Booster(
            model_str=booster.model_to_string(num_iteration=block, start_iteration=first), params={"verbosity": -1}
        )
        for first in range(0, trees, block)
    ]


def canonical(value: Any) -> str:
    """A category as `Columns` spells it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def load(payload: bytes, entry: LibraryHead | None) -> LightGBM:
    lightgbm.register_logger(_Silent())
    return LightGBM(payload.decode("utf-8"))
