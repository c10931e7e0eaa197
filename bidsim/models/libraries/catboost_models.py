"""CatBoost's binary models (cbm). Extra: `catboost`, which brings pandas."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Literal

import catboost
import numpy as np
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.libraries import Description, Inputs
from bidsim.models.manifest import LibraryHead

LOSSES = ("Logloss", "CrossEntropy")


class CatBoost:
    def __init__(self, model: Any) -> None:
        self._model = model
        params = model.get_metadata()["params"] if "params" in model.get_metadata().keys() else "{}"  # noqa: SIM118
        loss = json.loads(params).get("loss_function", {}).get("type")
        if loss not in LOSSES:
            raise ModelError(
                f"the CatBoost model was trained with loss {loss or 'unknown'}, so its predictions are no probabilities "
                "of a click or conversion; train it with Logloss"
            )
        if model._get_text_feature_indices() or model._get_embedding_feature_indices():
            raise ModelError("the CatBoost model has text or embedding features, which bidsim can't give it")
        self._categorical = set(model.get_cat_feature_indices())

    def describe(self) -> Description:
        names = tuple(str(name) for name in self._model.feature_names_)
        kinds: tuple[Literal["numeric", "code", "text"], ...] = tuple(
            "text" if place in self._categorical else "numeric" for place in range(len(names))
        )
        return Description(names, kinds, named=not all(name.isdecimal() for name in names))

    def predict(self, given: Inputs) -> NDArray[np.float64]:
        if not self._categorical:
            data: Any = given.matrix(np.float32)
        else:
            pandas = import_module("pandas")
            columns = {}
            for place, name in enumerate(given.entry.features):
                if place in self._categorical:
                    codes, values = given.texts(name)
                    # Two spellings may mean the same to the model: a missing value and the text that stands for it.
                    distinct = list(dict.fromkeys(values))
                    places = np.array([distinct.index(v) for v in values]) if len(distinct) < len(values) else None
                    codes = codes if places is None else places[codes]
                    # An index of objects: CatBoost asks for the texts one by one, which pandas' own strings are slow at.
                    columns[place] = pandas.Categorical.from_codes(codes, pandas.Index(distinct, dtype=object))
                else:
                    columns[place] = given.numbers(name).astype(np.float32)
            data = pandas.DataFrame(columns)
            data.columns = list(self._model.feature_names_)
        pool = catboost.Pool(data, cat_features=sorted(self._categorical), thread_count=1)
        # One thread: the replay scores several batches at once.
        return np.asarray(self._model.predict(pool, prediction_type="Probability", thread_count=1)[:, 1])


def load(payload: bytes, entry: LibraryHead | None) -> CatBoost:
    model = catboost.CatBoost()
    model.load_model(blob=payload, format="cbm")
    return CatBoost(model)
