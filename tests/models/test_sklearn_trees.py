"""scikit-learn's trees predict in a bundle what they predict outside it; forged ones never predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pd = pytest.importorskip("pandas")
skops_io = pytest.importorskip("skops.io")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

from bidsim.errors import ModelError  # noqa: E402
from bidsim.models import pack_sklearn, sklearn_trees  # noqa: E402

DRAW = np.random.default_rng(12)
FRAME = pd.DataFrame(
    {
        "x": DRAW.normal(size=300),
        "y": DRAW.normal(size=300),
        "z": DRAW.normal(size=300),
        "os": DRAW.choice(["a", "b"], 300),
    }
)
LABEL = (DRAW.random(300) < 1 / (1 + np.exp(-FRAME.x * FRAME.y))).astype(int)
NUMBERS = FRAME[["x", "y", "z"]]


def packed(path: Path, model: Any, frame: Any = NUMBERS) -> Any:
    return pack_sklearn(path, ctr=model, features=list(frame.columns), example=frame)


@pytest.mark.parametrize(
    "last",
    [
        RandomForestClassifier(4, random_state=1),
        ExtraTreesClassifier(4, random_state=1),
        GradientBoostingClassifier(n_estimators=4, random_state=1),
        HistGradientBoostingClassifier(max_iter=4, random_state=1),
        DecisionTreeClassifier(max_depth=4, random_state=1),
        AdaBoostClassifier(n_estimators=3, random_state=1),
        BaggingClassifier(GradientBoostingClassifier(n_estimators=2), n_estimators=3, max_features=0.5, random_state=1),
        CalibratedClassifierCV(RandomForestClassifier(3, random_state=1), cv=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_ensembles_of_trees_predict_the_same_inside_the_bundle(tmp_path: Path, last: Any) -> None:
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["os"]), remainder="passthrough")
    model = make_pipeline(encode, last).fit(FRAME, LABEL)
    scorer = packed(tmp_path / "m.bin", model, FRAME).scorer()
    scores = scorer.score(pa.RecordBatch.from_pandas(FRAME, preserve_index=False))["ctr"]
    np.testing.assert_allclose(scores, model.predict_proba(FRAME)[:, 1], rtol=1e-12)


def forge(tree: Any, **changes: Any) -> None:
    """Set fields of a tree's first node that splits, as only a forger does."""
    state = tree.__getstate__()
    for name, value in changes.items():
        state["nodes"][name][0] = value
    tree.__setstate__(state)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"left_child": 10**6}, "a child that is no later node"),
        ({"right_child": 0}, "a child that is no later node"),
        ({"right_child": -7}, "a child that is no later node"),
        ({"feature": 3}, "a feature that the estimator has not"),
        ({"feature": -5}, "a feature that the estimator has not"),
    ],
)
@pytest.mark.parametrize("kind", [RandomForestClassifier, GradientBoostingClassifier, DecisionTreeClassifier])
def test_a_tree_that_points_outside_itself_is_refused(tmp_path: Path, kind: Any, changes: Any, said: str) -> None:
    model = kind(random_state=1).set_params(**({} if kind is DecisionTreeClassifier else {"n_estimators": 2}))
    model.fit(NUMBERS, LABEL)
    tree = model if kind is DecisionTreeClassifier else np.ravel(model.estimators_)[1]
    forge(tree.tree_, **changes)
    with pytest.raises(ModelError, match=said):
        packed(tmp_path / "m.bin", model)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("left", 0, "no later node"), ("right", 2**31, "no later node"), ("feature_idx", 3, "has not"),
     ("is_categorical", 1, "splits by categories")],
)  # fmt: skip
def test_a_histogram_tree_that_points_outside_itself_is_refused(
    tmp_path: Path, field: str, value: int, said: str
) -> None:
    model = HistGradientBoostingClassifier(max_iter=2).fit(NUMBERS, LABEL)
    model._predictors[1][0].nodes[field][0] = value
    with pytest.raises(ModelError, match=said):
        packed(tmp_path / "m.bin", model)


def test_a_forest_that_lies_about_its_features_is_refused(tmp_path: Path) -> None:
    model = RandomForestClassifier(2).fit(NUMBERS, LABEL)
    model.n_features_in_ = 1
    del model.feature_names_in_
    with pytest.raises(ModelError, match="a feature that the estimator has not"):
        packed(tmp_path / "m.bin", model, NUMBERS[["x"]])
    boosted = GradientBoostingClassifier(n_estimators=2).fit(NUMBERS, LABEL)
    boosted.estimators_ = np.hstack([boosted.estimators_, boosted.estimators_])
    with pytest.raises(ModelError, match="several trees a round"):
        packed(tmp_path / "m.bin", boosted)


def test_trees_where_no_estimator_has_them_are_refused() -> None:
    tree = DecisionTreeClassifier().fit(NUMBERS, LABEL)
    with pytest.raises(ValueError, match="belongs to no estimator"):
        sklearn_trees.check_trees({"tree": tree.tree_}, 1)
    with pytest.raises(ValueError, match="2 trees are in the file, and 1 where"):
        sklearn_trees.check_trees(tree, 2)
    schema = {
        "content": [{"__class__": "Tree", "__id__": 1}, {"__class__": "Tree", "__id__": 1}, {"__class__": "list"}]
    }
    assert sklearn_trees.count_declared(schema) == 1
    deep: Any = tree.tree_
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        sklearn_trees.check_trees(deep, 1)


def test_categories_within_a_histogram_model_are_refused_by_name(tmp_path: Path) -> None:
    frame = FRAME.assign(os=FRAME.os.astype("category"))
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features=["os"]).fit(frame, LABEL)
    with pytest.raises(ModelError, match=r"not known to be safe: functools\.partial"):
        packed(tmp_path / "m.bin", model, frame)
