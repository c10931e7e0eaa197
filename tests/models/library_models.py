"""Small models that the real libraries trained and wrote, with what they themselves predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

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


FORMATS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "LightGBM text": ("ctr.txt", lightgbm_text),
    "XGBoost JSON": ("ctr.json", _xgboost),
    "XGBoost UBJSON": ("ctr.ubj", _xgboost),
    "CatBoost": ("ctr.cbm", catboost_cbm),
    "ONNX": ("ctr.onnx", onnx),
}


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
