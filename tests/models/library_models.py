"""Small models that the real libraries trained and wrote, with what they themselves predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bidsim.models import Bundle, open_model
from bidsim.models.feature_file import FeatureEntry, FeatureFile, HeadOptions
from bidsim.models.packing import pack_models
from bidsim.models.sandbox import Limits

DRAW = np.random.default_rng(7)
ROWS = 1500
FRAME = pd.DataFrame(
    {
        "x": np.where(DRAW.random(ROWS) < 0.1, np.nan, DRAW.normal(size=ROWS)),
        "os": DRAW.choice(["ios", "android", "web"], ROWS),
        "ad_id": DRAW.integers(100, 120, ROWS),
    }
)
LABEL = (DRAW.random(ROWS) < 1 / (1 + np.exp(-FRAME.x.fillna(0) - 2 * (FRAME.os == "ios") + FRAME.ad_id % 3))).astype(
    int
)
CATEGORIES = FRAME.assign(os=FRAME.os.astype("category"), ad_id=FRAME.ad_id.astype("category"))
BATCH = pa.RecordBatch.from_pandas(FRAME, preserve_index=False)
NUMBERS = FRAME[["x", "ad_id"]].fillna(0).astype("float32").to_numpy()


def lightgbm_text(path: Path) -> Any:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=12, num_leaves=7, verbose=-1, n_jobs=1).fit(CATEGORIES, LABEL)
    model.booster_.save_model(path)
    return model.predict_proba(CATEGORIES)[:, 1]


def _xgboost(path: Path) -> Any:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=12, max_depth=3, enable_categorical=True, n_jobs=1)
    model.fit(CATEGORIES, LABEL)
    model.save_model(path)
    return model.predict_proba(CATEGORIES)[:, 1]


def catboost_cbm(path: Path) -> Any:
    import catboost

    model = catboost.CatBoostClassifier(
        iterations=12, depth=3, verbose=0, cat_features=["os", "ad_id"], allow_writing_files=False, thread_count=1
    ).fit(FRAME, LABEL)
    model.save_model(str(path))
    return model.predict_proba(FRAME)[:, 1]


def onnx(path: Path) -> Any:
    """Inputs by name: two numbers and a text, each one column."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["os", "ad_id"]), remainder="passthrough")
    frame = FRAME.fillna({"x": 0.0})
    model = make_pipeline(encode, LogisticRegression()).fit(frame, LABEL)
    inputs = [
        ("x", FloatTensorType([None, 1])),
        ("os", StringTensorType([None, 1])),
        ("ad_id", Int64TensorType([None, 1])),
    ]
    made = to_onnx(model, initial_types=inputs, options={"zipmap": False})
    del made.graph.output[0]  # the label: leaves the probabilities as the only output
    path.write_bytes(made.SerializeToString())
    return np.where(FRAME.x.isna(), np.nan, model.predict_proba(frame)[:, 1])


def vw_lines() -> list[str]:
    """The rows as Vowpal Wabbit's text, without labels."""
    numbers = ["" if np.isnan(x) else f" x:{x:.9g}" for x in FRAME.x]
    return [f" |n{x} |c os={os} id_{ad}" for x, os, ad in zip(numbers, FRAME.os, FRAME.ad_id, strict=True)]


def vowpal_wabbit(path: Path, options: str = "--link logistic -q nc") -> Any:
    """Two namespaces and their interaction; ad_id is written as id_100."""
    import vowpalwabbit

    lines = vw_lines()
    model = vowpalwabbit.Workspace(f"--loss_function logistic {options} -b 12 -f {path} --quiet")
    for line, label in zip(lines, LABEL, strict=True):
        model.learn(f"{2 * label - 1}{line}")
    model.finish()
    read = vowpalwabbit.Workspace(f"-i {path} -t --quiet")
    own = np.array([read.predict(line) for line in lines])
    read.finish()
    return own


FORMATS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "LightGBM text": ("ctr.txt", lightgbm_text),
    "XGBoost JSON": ("ctr.json", _xgboost),
    "XGBoost UBJSON": ("ctr.ubj", _xgboost),
    "CatBoost": ("ctr.cbm", catboost_cbm),
    "ONNX": ("ctr.onnx", onnx),
    "Vowpal Wabbit": ("ctr.vw", vowpal_wabbit),
}
# What must be said of formats that don't name their inputs.
SAID: dict[str, FeatureFile] = {
    "Vowpal Wabbit": FeatureFile(
        features={
            "x": "numeric",
            "os": "categorical",
            "ad_id": FeatureEntry(type="categorical", prefix="id_"),
        },
        ctr=HeadOptions(namespaces={"n": ("x",), "c": ("os", "ad_id")}),
    )
}


def opened(name: str, path: Path, limits: Limits | None = None) -> Bundle:
    """A model file as a bundle: as `--model` opens it, or as `bidsim model pack` makes it."""
    if name in SAID:
        return pack_models({"ctr": path}, SAID[name], out=path, limits=limits).of_file(path.read_bytes())
    return open_model(path, limits)


def damage(data: bytes, seed: int) -> bytes:
    """One of several kinds of damage: cut short, bytes changed, a piece doubled, removed, or set to zero."""
    draw = np.random.default_rng(seed)
    broken = bytearray(data)
    at = int(draw.integers(len(data)))
    length = int(draw.integers(1, 64))
    kind = seed % 6
    if kind == 0:
        return bytes(broken[: max(16, at)])
    if kind == 1:
        for place in draw.integers(16, len(data), 1 + seed % 20):
            broken[place] = int(draw.integers(256))
    elif kind == 2:
        broken[at:at] = broken[at : at + length]
    elif kind == 3:
        del broken[at : at + length]
    elif kind == 4:
        broken[at : at + length] = bytes(len(broken[at : at + length]))
    else:  # digits changed: what a text format takes for another number
        places = [i for i, byte in enumerate(data) if 48 <= byte <= 57] or [at]
        for place in draw.choice(places, min(len(places), 5)):
            broken[place] = int(draw.integers(48, 58))
    return bytes(broken)
