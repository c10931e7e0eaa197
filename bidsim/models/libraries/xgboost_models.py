"""XGBoost's JSON and UBJSON models. Extra: `xgboost`."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import numpy as np
import xgboost
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.libraries import Description, Inputs
from bidsim.models.manifest import LibraryHead

OBJECTIVES = ("binary:logistic", "reg:logistic")


class XGBoost:
    def __init__(self, booster: Any, trees: int | None) -> None:
        self._booster = booster
        self._trees = trees or 0
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        if objective not in OBJECTIVES:
            raise ModelError(
                f"the XGBoost model has objective {objective}, so its predictions are no probabilities of a click or "
                "conversion; train it with binary:logistic"
            )
        if trees is not None and trees > booster.num_boosted_rounds():
            raise ModelError(f"the XGBoost model has fewer than the {trees} rounds that the bundle wants")
        self._linear = learner["gradient_booster"]["name"] == "gblinear"
        booster.set_param({"nthread": 1})  # the replay scores several batches at once

    def describe(self) -> Description:
        count = int(self._booster.num_features())
        names = self._booster.feature_names
        types = self._booster.feature_types or ["q"] * count
        kinds: list[Literal["numeric", "code", "text"]] = ["code" if kind == "c" else "numeric" for kind in types]
        best = self._booster.attr("best_iteration")
        rounds = None if best is None else int(best) + 1
        if rounds is not None and rounds >= self._booster.num_boosted_rounds():
            rounds = None
        made_up = names is None or all(re.fullmatch(r"f\d+", name) for name in names)
        names = names or [f"f{place}" for place in range(count)]
        return Description(tuple(names), tuple(kinds), self._categories(), not made_up, rounds)

    def predict(self, given: Inputs) -> NDArray[np.float64]:
        matrix = given.matrix(np.float32)
        matrix[np.isinf(matrix)] = np.nan  # XGBoost refuses infinity, and what is undefined is missing to it
        if self._linear:  # which is not predicted in place, and whose rounds are one set of weights
            return np.asarray(self._booster.predict(xgboost.DMatrix(matrix, nthread=1), validate_features=False))
        return np.asarray(
            self._booster.inplace_predict(matrix, iteration_range=(0, self._trees), validate_features=False)
        )

    def _categories(self) -> dict[str, tuple[str, ...]]:
        """Tables that the file holds (XGBoost 3.1 and newer write them for pandas' categories)."""
        try:
            found = self._booster.get_categories(export_to_arrow=True).to_arrow()
        except Exception:
            return {}
        return {name: tuple(str(v) for v in values.to_pylist()) for name, values in found or [] if values is not None}


def load(payload: bytes, entry: LibraryHead | None) -> XGBoost:
    xgboost.set_config(verbosity=0)
    booster = xgboost.Booster()
    booster.load_model(bytearray(payload))
    return XGBoost(booster, entry.trees if entry is not None else None)
