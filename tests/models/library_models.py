"""Small models that the real libraries trained and wrote, with what they themselves predict."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bidsim.models import Bundle, Feature, HashedLogisticRegression, HashedSpec, open_model, pack_hashed
from bidsim.models.archive import archive_bytes
from bidsim.models.bundle import build_bundle
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


def skops_bundle(path: Path, model: str) -> Any:
    """A pipeline of scikit-learn as a bundle: "linear" or "trees"."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from bidsim.models import pack_sklearn

    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["os", "ad_id"]), remainder="passthrough")
    last = LogisticRegression() if model == "linear" else RandomForestClassifier(5, max_depth=4, random_state=1)
    frame = FRAME.fillna({"x": 0.0})
    made = make_pipeline(encode, last).fit(frame, LABEL)
    pack_sklearn(path, ctr=made, features=list(frame.columns), example=frame)
    return made.predict_proba(frame)[:, 1]


def hashed_bundle(path: Path) -> None:
    """A small bundle of bidsim's own format."""
    features = tuple(Feature(name=n, type="numeric" if n == "x" else "categorical") for n in FRAME.columns)
    spec = HashedSpec(bits=8, features=tuple(FRAME.columns))
    weights = np.random.default_rng(3).normal(size=1 << 8).astype(np.float32)
    pack_hashed(path, {"ctr": HashedLogisticRegression(spec, features, weights, -1.0)})


def damage_payload(bundle: Bundle, seed: int, path: Path) -> bytes:
    """A whole bundle, checksums and all, around a damaged payload.

    A skops file is a zip with checksums of its own: every second time what is damaged lies in it.
    """
    (name,) = bundle.manifest.payloads
    data = bundle.payload(name)
    if seed % 2:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        # The schema as often as all arrays together.
        victim = "schema.json" if seed % 4 == 1 else sorted(members)[seed // 4 % len(members)]
        members[victim] = damage(members[victim], seed // 2)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        data = file.getvalue()
    else:
        data = damage(data, seed // 2)
    return build_bundle(path, bundle.manifest, {name: data}).data


def damage_manifest(bundle: Bundle, seed: int) -> bytes:
    """A whole zip around a damaged manifest."""
    payloads = {name: bundle.payload(name) for name in bundle.manifest.payloads}
    return archive_bytes({"manifest.json": damage(bundle.manifest.to_json(), seed), **payloads})


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
