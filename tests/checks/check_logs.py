"""A clean log of three days for the data check, which each test spoils in its own way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.checks.catalogue import Outcome, Report
from bidsim.checks.run import run_check
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, pack_hashed
from bidsim.models.columns import hash_term
from bidsim.scenario.loading import scenario_from_dict

START = datetime(2026, 11, 1, tzinfo=UTC)
HOURS = 72
ROWS = 7200
SPOTS = ("top", "side", "foot")
# Logits of the click rate that the baseline's model knows, by spot.
LOGIT = {"top": -1.0, "side": -1.6, "foot": -2.2}
Rows = dict[str, list[Any]]


def clean(seed: int = 3) -> Rows:
    """Four campaigns, 400 users; labels drawn from the predictions; conversions come within two hours of the click."""
    rng = np.random.default_rng(seed)
    rows: Rows = {}
    for i in range(ROWS):
        ts = START + timedelta(hours=HOURS) * i / ROWS
        spot = SPOTS[int(rng.integers(3))]
        pctr = float(1 / (1 + np.exp(-np.float64(np.float32(LOGIT[spot])))))
        pcvr = 0.3
        bid = 1000 * 0.5 * pctr * pcvr
        price = round(float(rng.uniform(0.2, 1.4)) * bid, 4)
        won = bid >= price
        click = int(rng.random() < pctr) if won else None
        conversion = (int(click and rng.random() < pcvr)) if won else None
        click_time = ts + timedelta(seconds=float(rng.exponential(20))) if click else None
        delay = timedelta(minutes=min(float(rng.exponential(20)), 120.0))
        row = {
            "ts": ts,
            "request_id": i,
            "user_id": int(rng.integers(400)),
            "campaign": int(rng.integers(1, 5)),
            "spot": spot,
            "price": price if won else None,
            "bid": bid,
            "won": int(won),
            "click": click,
            "conversion": conversion,
            "click_time": click_time,
            "conversion_time": click_time + delay if conversion and click_time else None,
            "pctr": pctr,
            "pcvr": pcvr,
            "target_cpa": 0.5,
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return rows


SCHEMA = {
    **dict.fromkeys(("ts", "click_time", "conversion_time"), pa.timestamp("us", "UTC")),
    **dict.fromkeys(("price", "bid", "pctr", "pcvr", "target_cpa", "weight", "pctr_v2"), pa.float64()),
    **dict.fromkeys(("request_id", "user_id", "campaign", "won", "click", "conversion"), pa.int64()),
    "spot": pa.string(),
}

SCENARIO: dict[str, Any] = {
    "columns": {"time": "ts", "unit": "user_id", "request": "request_id"},
    "segments": ["campaign", "spot"],
}


def map_rows(rows: Rows, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Rows:
    """The rows after a change of each; None leaves it out."""
    out: Rows = {}
    for values in zip(*rows.values(), strict=True):
        row = change(dict(zip(rows, values, strict=True)))
        for name, value in (row or {}).items():
            out.setdefault(name, []).append(value)
    return out


def check(
    folder: Path, rows: Rows, *, without: tuple[str, ...] = (), made: dict[str, str] | None = None, **keys: Any
) -> Report:
    """made: columns of the log as SQL over the others."""
    arguments = {name: keys.pop(name) for name in ("baseline", "models") if name in keys}
    kept = {name: pa.array(values, SCHEMA[name]) for name, values in rows.items() if name not in without}
    log = pa.table(kept)
    for name, sql in (made or {}).items():
        new = duckdb.sql(f"select {sql} from log").to_arrow_table().column(0)
        log = (log.drop_columns([name]) if name in kept else log).append_column(name, new)
    pq.write_table(log, folder / "log.parquet")
    columns = {role: name for role, name in SCENARIO["columns"].items() if name not in without}
    document = {"logs_tables": {"ad": {"path": str(folder / "log.parquet")}}, **SCENARIO, "columns": columns, **keys}
    loaded = scenario_from_dict(document, directory=folder)
    return run_check(loaded, arguments.get("models", ()), baseline=arguments.get("baseline"))


def outcome(report: Report, code: str) -> Outcome:
    return next(o for o in report.outcomes if o.code == code)


def codes(report: Report) -> list[str]:
    """What was found."""
    return [o.code for o in report.outcomes if o.status == "found"]


def model(path: Path, *, spots: tuple[str, ...] = SPOTS, window: tuple[str, str] | None = None) -> Path:
    """The baseline's model: it predicts what the clean log carries, and knows `spots`."""
    weights = np.zeros(1 << 10, dtype=np.float32)
    for spot in spots:
        weights[hash_term(["spot", spot]) % len(weights)] = LOGIT[spot]
    features = (Feature(name="spot", type="categorical"),)
    spec = HashedSpec(bits=10, features=("spot",))
    pack_hashed(path, {"ctr": HashedLogisticRegression(spec, features, weights, 0.0)}, training_window=window)
    return path
