"""Every format of models: a file made by the real library, scored and replayed beside the library's own predictions.

    python tests/benchmarks/formats.py

Scores are compared row by row, in units of the last place of float32. A replay of the file is compared with one whose
candidate is a column of the log that holds what the library itself predicted: every number of the result must be the
same to 1e-6. Ends with 1 where anything differs more than a float32 does. Needs `pip install '.[dev]'`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import bidsim  # noqa: E402
from bidsim.models import open_scorer  # noqa: E402
from tests.models.library_models import FORMATS, FRAME, LABEL, SAID, opened, skops_bundle  # noqa: E402

MOST_PLACES = 16  # of float32: libraries add up leaves or terms in float32, in an order of their own
REPLAY = 1e-6


def predictions(path: Path) -> Any:
    """A file of predictions by `row`."""
    own = np.random.default_rng(5).uniform(0.01, 0.9, len(FRAME))
    order = np.random.default_rng(6).permutation(len(FRAME))
    pq.write_table(pa.table({"row": order, "pctr": own[order]}), path)
    return own


def onnx_runtime(path: Path) -> Any:
    """What the runtime itself predicts, NaN where a number is missing."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    columns = {"x": FRAME.x.astype("float32"), "os": FRAME.os.astype(object), "ad_id": FRAME.ad_id.astype("int64")}
    given = {name: column.to_numpy()[:, None] for name, column in columns.items()}
    return session.run(["probabilities"], given)[0][:, 1]


CASES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **FORMATS,
    "scikit-learn (skops), linear": ("linear.bin", partial(skops_bundle, model="linear")),
    "scikit-learn (skops), trees": ("trees.bin", partial(skops_bundle, model="trees")),
    "predictions made elsewhere": ("predictions.parquet", predictions),
}


def log_of(frame: pd.DataFrame, own: Any) -> pa.Table:
    """A log whose rows are those of the frame, with what the library predicts as a column."""
    draw = np.random.default_rng(8)
    rows = len(frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    more = {
        "row": np.arange(rows),
        "user": draw.integers(0, 200, rows),
        "price": draw.uniform(0.0, 2.0, rows).round(3),
        "click": np.asarray(LABEL),
        "logged": draw.uniform(0.05, 0.6, rows),
        "own": own,
        "target": np.full(rows, 0.004),
    }
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    return table


def numbers(result: Any, policy: str) -> dict[tuple[Any, ...], float]:
    found = {}
    for metric in result.metrics:
        said = metric.model_dump()
        if said.get("policy") == policy:
            key = tuple((k, str(v)) for k, v in said.items() if k not in ("value", "low", "high", "policy", "interval"))
            found[key] = said["value"] if said["value"] is not None else math.nan
    return found


def compare(name: str, folder: Path) -> tuple[float, float, int]:
    """(largest difference of a score in places of float32, of a replay's number, how many numbers)."""
    file, make = CASES[name]
    path = folder / file
    own = np.asarray(make(path), dtype=np.float64)
    if name == "ONNX":  # what it was made from predicts in float64
        own = onnx_runtime(path)
    if name in SAID:
        path = folder / "packed.bin"
        opened(name, folder / file).write(path)
    keep = ~np.isnan(own)
    own = own[keep]
    table = log_of(FRAME.fillna({"x": 0.0}) if name.startswith("scikit") else FRAME, np.zeros(len(FRAME)))
    table = table.filter(pa.array(keep)).set_column(table.column_names.index("own"), "own", pa.array(own))
    batch = table.combine_chunks().to_batches()[0]
    scores = open_scorer(path).scorer.score(batch)["ctr"]
    places = np.abs(scores - own) / np.spacing(own.astype(np.float32)).astype(np.float64)
    pq.write_table(table, folder / "log.parquet")
    scenario = {
        "name": "formats",
        "sample_type": ["imp-click"],
        "logs_tables": {"ad": {"path": str(folder / "log.parquet")}},
        "columns": {"unit": "user", "campaign": "ad_id", "price": "price", "pctr": "logged", "target_cpc": "target"},
        "performance_indicator_type": "cpc",
        "candidates": {"file": {"model": str(path)}, "column": {"columns": {"pctr": "own"}}},
        "segments": ["campaign"],
    }
    result = bidsim.replay(scenario)
    of_file, of_column = numbers(result, "file"), numbers(result, "column")
    if of_file.keys() != of_column.keys() or not of_file:
        raise SystemExit(f"{name}: the replays say different things")
    worst = max(
        0.0 if a == b or (math.isnan(a) and math.isnan(b)) else abs(a - b) / max(abs(a), abs(b), 1e-9)
        for a, b in ((of_file[key], of_column[key]) for key in of_file)
    )
    return float(places.max()), worst, len(of_file)


def main() -> int:
    bad = 0
    print(
        "| format | file | rows | scores differ at most by (places of float32) | numbers of the replay | differ at most by |"
    )
    print("|---|---|--:|--:|--:|--:|")
    for name, (file, _) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            places, worst, count = compare(name, Path(folder))
        bad += not (places <= MOST_PLACES and worst <= REPLAY)
        print(f"| {name} | {file} | {len(FRAME):,} | {places:.1f} | {count:,} | {worst:.0e} |", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
