"""Rows a second: bidsim's scoring beside the library's own batch predict, on the same rows in the same run.

    python tests/benchmarks/bench_models.py --rows 500000

bidsim scores record batches of 65,536 rows on as many threads as there are cores, as a replay does; the library predicts
the whole table at once with its own threads, from the table it likes best (already encoded). The native hashed model is
set against scikit-learn's FeatureHasher with a dot product, on 20 categorical features. Needs `pip install '.[dev]'`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, open_model, pack_hashed
from bidsim.models.scorer import Scorer

BATCH_ROWS = 65_536
FEATURES = 20
BITS = 20


def make_frame(rows: int) -> pd.DataFrame:
    draw = np.random.default_rng(20261206)
    frame = pd.DataFrame({f"x{i}": draw.normal(size=rows).astype("float32") for i in range(8)})
    frame["os"] = draw.choice(["ios", "android", "web"], rows)
    frame["ad_id"] = draw.integers(100, 300, rows)
    return frame


def best(work: Callable[[], Any], repeat: int) -> float:
    took = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def score_as_a_replay(scorer: Scorer, table: pa.Table) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(scorer.score, table.to_batches(max_chunksize=BATCH_ROWS)):
            pass


def libraries(folder: Path, frame: pd.DataFrame) -> dict[str, tuple[Path, Callable[[], Any]]]:
    """By format: the model's file, and the library's own prediction of the frame."""
    import catboost
    import lightgbm
    import xgboost

    train = frame.head(20_000)
    label = (train.x0 + (train.os == "ios") + np.random.default_rng(1).normal(size=len(train)) > 1).astype(int)
    kinds = {
        "os": pd.CategoricalDtype(sorted(frame.os.unique())),
        "ad_id": pd.CategoricalDtype(sorted(frame.ad_id.unique())),
    }
    coded = frame.astype(kinds)
    lgb = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, verbose=-1).fit(coded.head(20_000), label)
    lgb.booster_.save_model(folder / "ctr.txt")
    xgb = xgboost.XGBClassifier(n_estimators=200, max_depth=5, enable_categorical=True).fit(coded.head(20_000), label)
    xgb.save_model(folder / "ctr.ubj")
    cat = catboost.CatBoostClassifier(
        iterations=200, depth=5, verbose=0, cat_features=["os", "ad_id"], allow_writing_files=False
    ).fit(train, label)
    cat.save_model(str(folder / "ctr.cbm"))
    return {
        "LightGBM": (folder / "ctr.txt", lambda: lgb.predict_proba(coded)),
        "XGBoost": (folder / "ctr.ubj", lambda: xgb.predict_proba(coded)),
        "CatBoost": (folder / "ctr.cbm", lambda: cat.predict_proba(frame)),
    }


def hashed(folder: Path, rows: int, repeat: int) -> tuple[float, float]:
    """(seconds of the native model, seconds of FeatureHasher and dot) for as many rows of 20 categorical features."""
    from sklearn.feature_extraction import FeatureHasher

    draw = np.random.default_rng(20261207)
    names = [f"c{i}" for i in range(FEATURES)]
    table = pa.table(
        {n: pa.array(draw.integers(0, 10 ** (1 + i % 5), rows)).cast(pa.string()) for i, n in enumerate(names)}
    )
    weights = draw.normal(size=1 << BITS).astype(np.float32)
    spec = HashedSpec(bits=BITS, features=tuple(names))
    model = HashedLogisticRegression(spec, tuple(Feature(name=n, type="categorical") for n in names), weights, -3.0)

    pack_hashed(folder / "hashed.bin", {"ctr": model})
    scorer = open_model(folder / "hashed.bin").scorer()
    lists = list(zip(*([f"{n}={v}" for v in table[n].to_pylist()] for n in names), strict=True))
    hasher = FeatureHasher(1 << BITS, input_type="string", alternate_sign=False)
    return best(lambda: score_as_a_replay(scorer, table), repeat), best(
        lambda: 1 / (1 + np.exp(3 - hasher.transform(lists) @ weights)), 1
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=500_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    rows = int(given.rows)
    frame = make_frame(rows)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    print("| model | bidsim, rows/s | the library's own predict, rows/s | bidsim to it |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, own) in libraries(Path(folder), frame).items():
            scorer = open_model(path).scorer()
            ours = best(lambda scorer=scorer: score_as_a_replay(scorer, table), given.repeat)
            theirs = best(own, given.repeat)
            print(f"| {name} | {rows / ours:,.0f} | {rows / theirs:,.0f} | {theirs / ours:.2f} |", flush=True)
        few = min(rows, 200_000)
        ours, theirs = hashed(Path(folder), few, given.repeat)
    print(
        f"| hashed, 20 categories, beside FeatureHasher | {few / ours:,.0f} | {few / theirs:,.0f} | {theirs / ours:.1f} |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
