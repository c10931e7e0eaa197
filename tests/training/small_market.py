"""A small ad log over five days for tests of training: clicks that depend on spot and campaign, late conversions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 5
FEATURES = ("ad", "spot", "os", "age")
SCENARIO: dict[str, Any] = {
    "name": "market",
    "sample_type": ["imp-click", "click-conversion"],
    "logs_tables": {"log": {"path": "log.parquet", "last_hour": "2026-11-05T23:00:00", "duration_hour": 24}},
    "columns": {"time": "ts", "unit": "user", "campaign": "ad", "price": "price", "weight": "w"},
    "features": list(FEATURES),
    "baseline": {"columns": {"pctr": "0.1", "pcvr": "0.3"}},
    "bid": {"formula": "1000 * pctr * pcvr * 0.5"},
    "performance_indicator_type": "cpa",
    "segments": ["campaign"],
}


@cache
def market(rows: int = 6000, seed: int = 1) -> pa.Table:
    """Won impressions in the order of time; weights are 1 or 2."""
    draw = np.random.default_rng(seed)
    ad = draw.integers(0, 5, rows)
    spot = draw.integers(0, 12, rows)
    system = draw.integers(0, 3, rows)
    age = np.round(draw.normal(40, 12, rows), 1)
    z = -2.2 + 0.5 * np.sin(ad * 2.0) + np.cos(spot * 1.3) + 0.4 * np.cos(spot + ad) + 0.03 * (age - 40)
    click = (draw.random(rows) < 1 / (1 + np.exp(-z))).astype(np.int64)
    conversion = click * (draw.random(rows) < 1 / (1 + np.exp(0.7 - 0.6 * system)))
    seconds = np.sort(draw.uniform(0, DAYS * 86400, rows))
    times = [START + timedelta(seconds=round(float(s), 3)) for s in seconds]
    return pa.table(
        {
            "ts": pa.array(times, type=pa.timestamp("us", "UTC")),
            "user": draw.integers(0, 800, rows),
            "ad": ad,
            "spot": pa.array([f"s{i}" for i in spot]),
            "os": pa.array(
                [None if i == 0 and n % 50 == 0 else ("ios", "android", "other")[i] for n, i in enumerate(system)]
            ),
            "age": pa.array(age, type=pa.float64()),
            "price": np.round(draw.uniform(1, 40, rows), 2),
            "click": click,
            "conversion": conversion.astype(np.int64),
            "w": draw.choice([1.0, 2.0], rows),
        }
    )


def write_market(folder: Path, rows: int = 6000, **changes: Any) -> Path:
    """The log and its scenario in a folder; returns the scenario. changes: keys of the scenario, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(market(rows), folder / "log.parquet", row_group_size=1000)
    document = {key: value for key, value in {**SCENARIO, **changes}.items() if value is not None}
    path = folder / "scenario.yaml"
    path.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in document.items()), encoding="utf-8")
    return path


def hyperparameters(folder: Path, **values: Any) -> Path:
    path = folder / "h.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
