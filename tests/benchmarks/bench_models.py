"""Rows a second: bidsim's scoring beside the library's own batch predict, on the same rows in the same run.

    python tests/benchmarks/bench_models.py --rows 300000
    python tests/benchmarks/bench_models.py --rows 300000 --only LightGBM --only ONNX

bidsim scores record batches of 65,536 rows on as many threads as there are cores, as a replay does, with the library in
its child processes, of which there are as many as a log of some million rows has. The library predicts all rows at once
with its own threads: from the same Arrow table, and from the table it likes best, made before (encoded categories, one
matrix, for Vowpal Wabbit lines of text; it has no batch predict, so line by line). They take turns, and the least wall
and CPU time of each counts; on a machine that others use, CPU is what to read. The native hashed model is set against
scikit-learn's FeatureHasher with a dot product, on 20 categorical features. Needs `pip install '.[dev]'`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bidsim.models import Bundle, Feature, HashedLogisticRegression, HashedSpec, open_model, pack_hashed, pack_sklearn
from bidsim.models.feature_file import FeatureFile, HeadOptions
from bidsim.models.packing import pack_models
from bidsim.models.scorer import Scorer

# The model, the library's predict from a table made before, and from the rows of an Arrow table.
Made = tuple[Bundle, Callable[[], Any], Callable[[pa.Table], Any]]
BATCH_ROWS = 65_536
WARM_SECONDS = 60.0
FEATURES = 20
TRAIN = 20_000  # rows; and at most
HASHED = "hashed, 20 categories, beside FeatureHasher"
BITS = 20


OS, AD_IDS = ["android", "ios", "web"], list(range(100, 300))


def make_frame(rows: int) -> pd.DataFrame:
    draw = np.random.default_rng(20261206)
    frame = pd.DataFrame({f"x{i}": draw.normal(size=rows).astype("float32") for i in range(8)})
    frame["os"] = draw.choice(OS, rows)
    frame["ad_id"] = draw.choice(AD_IDS, rows)
    return frame


@dataclass(frozen=True)
class Took:
    """Seconds."""

    wall: float
    cpu: float


def best(works: Sequence[Callable[[], Any]], repeat: int, pids: Callable[[], list[int]] = list) -> list[Took]:
    """Least seconds of each; in turns, so that all see the same machine. pids: of processes whose CPU counts too."""
    took: list[list[Took]] = [[] for _ in works]
    for _ in range(repeat):
        for work, seconds in zip(works, took, strict=True):
            wall, cpu = time.perf_counter(), cpu_of(pids())
            work()
            seconds.append(Took(time.perf_counter() - wall, cpu_of(pids()) - cpu))
    return [Took(min(t.wall for t in each), min(t.cpu for t in each)) for each in took]


def cpu_of(pids: list[int]) -> float:
    """CPU seconds of this process and others."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def children(scorer: Any) -> list[int]:
    return [server._child._process.pid for server in scorer._children]


def score_as_a_replay(scorer: Scorer, table: pa.Table) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(scorer.score, table.to_batches(max_chunksize=BATCH_ROWS)):
            pass


def warm_up(scorer: Any, table: pa.Table) -> None:
    """Score until the scorer has as many processes as it will have, which takes a second or two of a replay."""
    wanted, end = 1 + scorer._more, time.monotonic() + WARM_SECONDS
    while True:
        score_as_a_replay(scorer, table)
        if len(children(scorer)) >= wanted or time.monotonic() > end:
            return


def label_of(frame: pd.DataFrame) -> Any:
    return (frame.x0 + (frame.os == "ios") + np.random.default_rng(1).normal(size=len(frame)) > 1).astype(int)


def coded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"os": pd.CategoricalDtype(OS), "ad_id": pd.CategoricalDtype(AD_IDS)})


def with_lightgbm(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    import lightgbm

    given = coded(frame)
    model = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, verbose=-1).fit(given.head(TRAIN), label)
    model.booster_.save_model(folder / "ctr.txt")
    return (
        open_model(folder / "ctr.txt"),
        lambda: model.predict_proba(given),
        lambda t: model.predict_proba(coded(t.to_pandas())),
    )


def with_xgboost(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    import xgboost

    given = coded(frame)
    model = xgboost.XGBClassifier(n_estimators=200, max_depth=5, enable_categorical=True).fit(given.head(TRAIN), label)
    model.save_model(folder / "ctr.ubj")
    return (
        open_model(folder / "ctr.ubj"),
        lambda: model.predict_proba(given),
        lambda t: model.predict_proba(coded(t.to_pandas())),
    )


def with_catboost(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    import catboost

    model = catboost.CatBoostClassifier(
        iterations=200, depth=5, verbose=0, cat_features=["os", "ad_id"], allow_writing_files=False
    ).fit(frame.head(TRAIN), label)
    model.save_model(str(folder / "ctr.cbm"))
    return (
        open_model(folder / "ctr.cbm"),
        lambda: model.predict_proba(frame),
        lambda t: model.predict_proba(t.to_pandas()),
    )


def with_onnx(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    """200 trees on 9 numbers, one matrix."""
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier

    names = [name for name in frame.columns if name != "os"]
    matrix = frame[names].to_numpy("float32")
    model = GradientBoostingClassifier(n_estimators=200, max_depth=5, max_features=3).fit(matrix[:TRAIN], label)
    made = to_onnx(model, matrix[:1], options={"zipmap": False})
    (folder / "ctr.onnx").write_bytes(made.SerializeToString())
    said = FeatureFile(ctr=HeadOptions(features=tuple(names), output="probabilities"))
    bundle = pack_models({"ctr": folder / "ctr.onnx"}, said, out=folder / "onnx.bin")
    session = onnxruntime.InferenceSession(folder / "ctr.onnx", providers=["CPUExecutionProvider"])
    place = session.get_inputs()[0].name

    def run(matrix: Any) -> Any:
        return session.run(["probabilities"], {place: matrix})

    return bundle, lambda: run(matrix), lambda t: run(t.select(names).to_pandas().to_numpy("float32"))


def with_vowpal_wabbit(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    import vowpalwabbit

    numbers = [name for name in frame.columns if name.startswith("x")]

    def written(frame: pd.DataFrame) -> list[str]:
        columns = [[f" {name}:{value:.9g}" for value in frame[name].tolist()] for name in numbers]
        columns += [[f" {name}={value}" for value in frame[name].tolist()] for name in ("os", "ad_id")]
        return [" |" + "".join(row) for row in zip(*columns, strict=True)]

    lines = written(frame)
    path = folder / "ctr.vw"
    model = vowpalwabbit.Workspace(f"--loss_function logistic --link logistic -f {path} --quiet")
    for line, y in zip(lines[:TRAIN], label, strict=True):
        model.learn(f"{2 * y - 1}{line}")
    model.finish()
    own = vowpalwabbit.Workspace(f"-i {path} -t --quiet")
    said = FeatureFile(features={**dict.fromkeys(numbers, "numeric"), "os": "categorical", "ad_id": "categorical"})
    bundle = pack_models({"ctr": path}, said, out=folder / "vw.bin")

    def run(lines: list[str]) -> Any:
        return np.fromiter((own.predict(line) for line in lines), dtype=np.float64, count=len(lines))

    return bundle, lambda: run(lines), lambda t: run(written(t.to_pandas()))


def with_sklearn(folder: Path, frame: pd.DataFrame, label: Any) -> Made:
    """A usual pipeline: one-hot categories, scaled numbers, logistic regression."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    doubles = {name: "float64" for name in frame.columns if name.startswith("x")}
    frame = frame.astype(doubles)
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["os", "ad_id"]), remainder=StandardScaler()
    )
    model = make_pipeline(encode, LogisticRegression()).fit(frame.head(TRAIN), label)
    bundle = pack_sklearn(folder / "sk.bin", ctr=model, features=list(frame.columns), example=frame.head(20))
    return bundle, lambda: model.predict_proba(frame), lambda t: model.predict_proba(t.to_pandas().astype(doubles))


LIBRARIES: dict[str, Callable[[Path, pd.DataFrame, Any], Made]] = {
    "LightGBM": with_lightgbm,
    "XGBoost": with_xgboost,
    "CatBoost": with_catboost,
    "ONNX": with_onnx,
    "Vowpal Wabbit": with_vowpal_wabbit,
    "scikit-learn": with_sklearn,
}


def hashed(folder: Path, rows: int, repeat: int) -> list[Took]:
    """Of the native model, and of FeatureHasher and dot, for as many rows of 20 categorical features."""
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
    score_as_a_replay(scorer, table)
    own = lambda: 1 / (1 + np.exp(3 - hasher.transform(lists) @ weights))  # noqa: E731
    return best([lambda: score_as_a_replay(scorer, table), own], repeat)


def say(name: str, rows: int, took: list[Took]) -> None:
    ours, *theirs = took
    speeds = [f"{rows / each.wall:,.0f}" for each in took]
    walls = [f"{each.wall / ours.wall:.2f}" for each in theirs]
    cpus = [f"{each.cpu / ours.cpu:.2f}" for each in theirs]
    print("| " + " | ".join([name, *speeds, *walls, *cpus]) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=300_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", action="append", choices=[*LIBRARIES, HASHED])
    given = parser.parse_args()
    rows = int(given.rows)
    frame = make_frame(rows)
    label = label_of(frame.head(TRAIN))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    print(
        "| model | bidsim, rows/s | the library from the same rows | from its own table | bidsim to it | to it | "
        "in CPU | in CPU |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, make in LIBRARIES.items():
            if name not in (given.only or LIBRARIES):
                continue
            bundle, own, from_rows = make(Path(folder), frame, label)
            scorer = bundle.scorer()
            warm_up(scorer, table)
            works = [lambda scorer=scorer: score_as_a_replay(scorer, table), lambda own=from_rows: own(table), own]
            say(name, rows, best(works, given.repeat, lambda scorer=scorer: children(scorer)))
        if not given.only or HASHED in given.only:
            few = BATCH_ROWS * max(4, rows // BATCH_ROWS)  # a long stream keeps all threads busy, a short one doesn't
            ours, theirs = hashed(Path(folder), few, given.repeat)
            say(HASHED, few, [ours, theirs, theirs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
