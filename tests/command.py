"""bidsim's command line as a user meets it: one small log in any format, a scenario, models, and what a command said.

Commands run in this process (a new one costs a second of imports) except where the process itself is tested.
"""

from __future__ import annotations

import atexit
import csv
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from html import escape
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.__main__ import _run
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, pack_hashed
from bidsim.models.manifest import Scale
from bidsim.report.plots import Plot
from bidsim.report.renderer import Labels, Renderer, draw_here

ROWS = 1200
START = datetime(2026, 11, 1, tzinfo=UTC)
FORMULA = "1000 * target_cpa * pctr * pcvr"
FEATURES = (Feature(name="spot_id", type="categorical"), Feature(name="age", type="numeric"))

SCENARIO: dict[str, Any] = {
    "name": "small",
    "sample_type": ["imp-click", "click-conversion"],
    "logs_tables": {"ad": {}},
    "columns": {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price"},
    "performance_indicator_type": "cpa",
    "candidates": {"v2": {"columns": {"pctr": "pctr_v2"}}},
    "segments": ["campaign", "spot_id"],
}


@cache
def log(rows: int = ROWS) -> pa.Table:
    """Won impressions of three campaigns over two days: every price known, every time different."""
    draw = random.Random(20261101)
    step = timedelta(days=2) / rows
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for i in range(rows):
        pctr = round(draw.uniform(0.02, 0.6), 6)
        click = int(draw.random() < pctr)
        price = None if draw.random() < 0.02 else round(draw.uniform(0, 60), 2)
        row = {
            "ts": START + i * step,
            "request_id": f"r{i:05d}",
            "user_id": draw.randrange(150),
            "ad_id": draw.choice([3, 7, 12]),
            "spot_id": draw.choice(["top", "side", "底"]),
            "age": draw.randrange(18, 80),
            "paying_price": price,
            "won": 1,
            "click": click,
            "conversion": int(click and draw.random() < 0.3),
            "pctr": pctr,
            "pcvr": round(draw.uniform(0.05, 0.5), 6),
            "pctr_v2": round(min(1.0, pctr * draw.uniform(0.7, 1.4)), 6),
            "target_cpa": draw.choice([0.5, 0.25]),
            "sample_weight": draw.choice([1.0, 2.0, 0.5]),
            "billing_type": draw.choice([1, 1, 1, 2]),
            "is_application": draw.choice([1, 1, 0]),
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


SCHEMA = pa.schema(
    [
        ("ts", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in ("request_id",)),
        *((name, pa.int64()) for name in ("user_id", "ad_id")),
        ("spot_id", pa.string()),
        ("age", pa.int64()),
        ("paying_price", pa.float64()),
        *((name, pa.int64()) for name in ("won", "click", "conversion")),
        *((name, pa.float64()) for name in ("pctr", "pcvr", "pctr_v2", "target_cpa", "sample_weight")),
        *((name, pa.int64()) for name in ("billing_type", "is_application")),
    ]
)


def write_log(path: Path, table: pa.Table | None = None, **options: Any) -> Path:
    """The log as Parquet, CSV or NDJSON, by the path's ending, compressed where it ends in .gz."""
    table = log() if table is None else table
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
        return path
    rows = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in r.items()} for r in table.to_pylist()]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        if ".csv" in path.name:
            writer = csv.DictWriter(stream, table.column_names)
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def write_model(path: Path, seed: int = 0, features: Sequence[Feature] = FEATURES) -> Path:
    """A bundle with a ctr head that reads `features` of the log."""
    weights = np.random.default_rng(seed).normal(0, 0.4, size=64).astype(np.float32)
    scaling = {f.name: Scale(mean=45.0, scale=20.0) for f in features if f.type == "numeric"}
    spec = HashedSpec(bits=6, features=tuple(f.name for f in features), scaling=scaling)
    pack_hashed(path, {"ctr": HashedLogisticRegression(spec, tuple(features), weights, -0.8)})
    return path


def write_scenario(path: Path, changes: Mapping[str, Any] | None = None, *, without: Sequence[str] = ()) -> Path:
    """The small scenario with changes, as a YAML file (JSON is YAML)."""
    document = {**SCENARIO, **(changes or {})}
    text = "".join(f"{k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in document.items() if k not in without)
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Said:
    """What a command did: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


def bidsim(*arguments: str | Path, cwd: Path | None = None, drawn: bool = False) -> Said:
    """Run a command in this process, as `python -m bidsim` does. drawn: whether the page's charts are, which takes as long as
    a small replay; else they are described, and that is all."""
    out, err = StringIO(), StringIO()
    words = [str(a) for a in arguments]
    who = renderer() if drawn else SimpleNamespace(draw=draw_here)
    with ExitStack() as stack:
        for each in (
            _inside(cwd),
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", ["bidsim", *words]),
            patch("bidsim.report.renderer.Renderer", lambda: nullcontext(who)),
            nullcontext() if drawn else patch("bidsim.report.renderer._svg", _described),
        ):
            stack.enter_context(each)
        status = _run()
    return Said(status, out.getvalue(), err.getvalue())


def _described(plot: Plot, description: str, labels: Labels) -> str:
    """In place of a picture: its document is made, of whatever is in the result, and could be handed to the library."""
    from bidsim.report.charts import spec  # loads Altair

    document = json.dumps(spec(plot), allow_nan=False)
    return f'<svg role="img" aria-label="{escape(description)}" data-length="{len(document)}"></svg>'


@cache
def renderer() -> Renderer:
    """The process that draws charts, one for all commands: to start it takes longer than a small replay."""
    drawing = Renderer()
    atexit.register(drawing.__exit__)
    return drawing.__enter__()


def process(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """`python -m bidsim` as a process of its own, with pipes."""
    words = [sys.executable, "-m", "bidsim", *map(str, arguments)]
    environment = {**os.environ, **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(words, cwd=cwd, env=environment, **pipes)


def replayed(folder: Path, name: str, *arguments: str | Path) -> dict[str, bytes]:
    """Replay into folder/name; every output but run.json, by name."""
    said = bidsim("replay", "--out", folder / name, "--as-of", "2026-12-01", "--quiet", *arguments)
    assert said.status in (0, 1), said.err
    return {p.name: p.read_bytes() for p in sorted((folder / name).iterdir()) if p.name != "run.json"}


@contextmanager
def _inside(cwd: Path | None) -> Iterator[None]:
    before = Path.cwd()
    if cwd is not None:
        os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(before)
