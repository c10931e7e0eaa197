"""The same scenario on DuckDB and on Spark gives the same result, every field of it.

Each case takes half a minute on Spark, so a few rich ones stand for the rest: together they read every file of
replay/sql and every kind of budget, auction, source and model. `BIDSIM_ENGINE=spark pytest tests/replay` runs them all.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.errors import LogError
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, pack_hashed
from bidsim.replay.pipeline import Settings, run_replay
from bidsim.scenario.loading import scenario_from_dict

sys.path.insert(0, str(Path(__file__).parent.parent))
from test_oracle import FORMULA, make_log, write_log

START = datetime(2026, 3, 1, tzinfo=UTC)


def differences(a: Any, b: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two documents differ; numbers by more than 1e-9."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in {**a, **b} for d in differences(a.get(k), b.get(k), f"{path}/{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}/{i}")]
    if isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
        return []
    return [] if a == b and type(a) is type(b) else [(path, a, b)]


EXACT = ("wins", "bids", "spend", "clicks", "conversions", "unknown_wins", "unknown_outcomes", "undecidable", "rows")


def check_same(scenario: dict[str, Any], models: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The result; fails where the engines differ."""
    ours, theirs = (
        json.loads(bidsim.replay(scenario, models, threads=2, engine=engine).to_json())  # type: ignore[arg-type]
        for engine in ("duckdb", "spark")
    )
    assert differences(ours, theirs) == []
    counted = [[m["value"] for m in each["metrics"] if m["metric"] in EXACT] for each in (ours, theirs)]
    assert counted[0] == counted[1]
    return dict(theirs)


def rich_log(rng: np.random.Generator, n: int, **more: Any) -> list[dict[str, Any]]:
    rows = make_log(rng, n, zone=None, integer_prices=False)
    for row in rows:
        row["floor"] = None if rng.random() < 0.7 else float(rng.integers(0, 10))
        row["loss_reason"] = None if rng.random() < 0.5 else int(rng.choice([100, 1, 203]))
        if more.get("weights"):
            row["weight"] = [1.0, 2.0, 0.5, 10.0, 0.0, float("nan")][rng.integers(0, 6)]
    return rows


def test_prices_labels_segments_and_unknown_rows(spark: Any, tmp_path: Path) -> None:
    rows = rich_log(np.random.default_rng(1), 400, weights=True)
    table = pa.table({"campaign": [1, 2, 3], "cap": [300.0, 150.0, 80.0], "name": ["one", "two", "three"]})
    pc.write_csv(table, tmp_path / "campaigns.csv")
    (tmp_path / "log").mkdir()
    path = write_log(rows, tmp_path / "log", files=3)
    result = check_same(
        {
            "logs_tables": {
                "ad": {
                    "path": path,
                    "last_hour": "2026-03-07T16:00:00+00:00",
                    "duration_hour": 3,
                }
            },
            "campaigns": str(tmp_path / "campaigns.csv"),
            "columns": {"campaign": "campaign", "exchange": "block", "unit": "cast(request as ubigint)"},
            "conditions": ["block < 2 or campaign is null", "cap is null or cap > 100"],
            "timezone": "America/New_York",
            "bid": {"formula": FORMULA, "min": 0.5, "max": 6.5},
            "candidates": {
                "new": {"columns": {"pctr": "other_ctr"}},
                "more": {"bid": {"multiplier": 1.7, "round": "down"}},
            },
            "segments": ["campaign", "hour", {"big": "price > 3"}],
            "expected_utility": {"betas": [0.001]},
        }
    )
    assert result["diagnostics"]["exchanges"]
    assert result["data"]["rows"] > 50


@pytest.mark.parametrize(
    "keys",
    [
        {"budget": {"amount": "limit", "per": "day", "pacing": "even"}},
        {
            "budget": {"amount": 0.013, "per": "hour", "overspend": "never"},
            "auction": {"type": "case when block = 1 then 'first_price' else 'second_price' end", "ties": "lose"},
            "weights": True,
        },
        {"budget": {"amount": 0.005, "per": "total"}, "auction": {"internal": True}},
    ],
    ids=["even", "never, two kinds of auctions", "total, internal auctions"],
)
def test_budgets(spark: Any, tmp_path: Path, keys: dict[str, Any]) -> None:
    rows = rich_log(np.random.default_rng(2), 300, weights=keys.pop("weights", False))
    result = check_same(
        {
            "logs_tables": {"ad": {"path": write_log(rows, tmp_path, files=2)}},
            "timezone": "Asia/Tokyo",
            "bid": {"formula": FORMULA},
            "candidates": {"new": {"columns": {"pctr": "other_ctr"}}},
            "segments": ["campaign"],
            **keys,
        }
    )
    assert any(result["diagnostics"]["budget"]["exhausted"].values())


def test_late_conversions_and_campaigns_with_impossible_ones(spark: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n = 4000
    minutes = rng.uniform(0, 10 * 24 * 60, n)
    delay = np.minimum(rng.exponential(10.0, n), 48.0)
    campaign = rng.integers(1, 4, n)
    seen = (rng.random(n) < np.where(campaign == 3, 0.9, 0.3)) & (minutes / 60 + delay < 240)
    times = [START + timedelta(minutes=float(m)) for m in minutes]
    table = pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "conversion_time": pa.array(
                [t + timedelta(hours=float(d)) if s else None for t, d, s in zip(times, delay, seen, strict=True)],
                pa.timestamp("us", "UTC"),
            ),
            "campaign": campaign,
            "price": 1.0 + rng.integers(0, 300, n) / 100,
            "won": np.ones(n, dtype=np.int8),
            "click": (rng.random(n) < 0.8).astype(np.int8),
            "conversion": seen.astype(np.float64),
            "pctr": np.full(n, 0.5, dtype=np.float32),
            "pcvr": rng.choice([0.2, 0.4], n).astype(np.float32),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    result = check_same(
        {
            "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
            "maturity": {
                "conversion_window_hours": 48.0,
                "observed_until": (START + timedelta(days=10)).isoformat(),
                "immature": "weight",
            },
            "columns": {"conversion_time": "conversion_time"},
            "remove_anomaly_cvr_cpns": True,
            "bid": {"formula": "20 * pctr * pcvr"},
            "candidates": {"new": {"bid": {"multiplier": 1.2}}},
        }
    )
    assert result["diagnostics"]["maturity"]["mature"] < result["diagnostics"]["maturity"]["rows"]
    assert [f for f in result["findings"] if f["code"] == "anomaly_cvr"]


def hashed_model(path: Path) -> Path:
    weights = np.random.default_rng(4).normal(0, 1, 1 << 10).astype(np.float32)
    features = (Feature(name="spot", type="categorical"), Feature(name="hour", type="categorical"))
    spec = HashedSpec(bits=10, features=("spot", "hour"))
    pack_hashed(path, {"ctr": HashedLogisticRegression(spec, features, weights, -2.0)})
    return path


def text_log(folder: Path, rows: int = 2000) -> dict[str, Any]:
    """A log in CSV with a model's feature, hidden prices of lost auctions, and times without a zone."""
    rng = np.random.default_rng(5)
    won = rng.random(rows) < 0.5
    price = np.round(rng.exponential(2.0, rows), 2)
    table = pa.table(
        {
            "time": pa.array(
                [START.replace(tzinfo=None) + timedelta(seconds=30 * i) for i in range(rows)], pa.timestamp("s")
            ),
            "user": rng.integers(0, 300, rows),
            "campaign": [("north", "south, east", 'the "west"')[i] for i in rng.integers(0, 3, rows)],
            "spot": [f"s{i}" for i in rng.integers(0, 20, rows)],
            "bid": np.round(price + np.where(won, 1.0, -1.0) * rng.random(rows), 2).clip(0.01),
            "price": pa.array(np.where(won, price, np.nan), from_pandas=True),
            "won": won.astype(np.int8),
            "click": (won & (rng.random(rows) < 0.1)).astype(np.int8),
            "pctr": np.round(rng.uniform(0.01, 0.3, rows), 4),
        }
    )
    pc.write_csv(table, folder / "log.csv")
    return {
        "logs_tables": {"ad": {"path": str(folder / "log.csv")}},
        "columns": {"unit": "user"},
        "conditions": ["campaign like '%t%'"],
        "bid": {"formula": "20 * pctr"},
        "segments": ["campaign"],
    }


def test_models_score_in_the_workers_and_text_logs_mean_the_same(spark: Any, tmp_path: Path) -> None:
    scenario = text_log(tmp_path)
    result = check_same(scenario, (hashed_model(tmp_path / "hashed.bundle"),))
    (logloss,) = [
        m for m in result["metrics"] if m["metric"] == "logloss" and m["policy"] == "hashed" and not m["segment"]
    ]
    assert logloss["value"] > 0


def test_outcomes_in_expectation(spark: Any, tmp_path: Path) -> None:
    scenario = text_log(tmp_path)
    check_same({**scenario, "outcomes": "predicted", "candidates": {"new": {"bid": {"multiplier": 1.5}}}})


def test_files_of_one_log_may_differ_in_types(spark: Any, tmp_path: Path) -> None:
    whole = pa.table(
        {"price": pa.array([1, 2, 3], pa.int32()), "pctr": [0.1, 0.2, 0.3], "click": pa.array([1, 0, 0], pa.int8())}
    )
    pq.write_table(whole, tmp_path / "b.parquet")
    fractions = {"click": [0, 1, 0], "pctr": pa.array([0.4, 0.5, 0.6], pa.float32()), "price": [1.5, 2.5, None]}
    pq.write_table(pa.table(fractions), tmp_path / "a c%20d.parquet")
    # pandas writes times in nanoseconds.
    result = check_same(
        {
            "logs_tables": {"ad": {"path": str(tmp_path / "*.parquet")}},
            "bid": {"formula": "10 * pctr"},
            "candidates": {"new": {"bid": {"multiplier": 2.0}}},
        }
    )
    assert result["data"]["rows"] == 6


@pytest.mark.parametrize(
    ("form", "more"),
    [("csv", {}), ("parquet", {"budget": {"amount": 0.05, "per": "total"}})],
    ids=["csv", "parquet, budget"],
)
def test_columns_without_values_are_of_any_type(spark: Any, tmp_path: Path, form: str, more: dict[str, Any]) -> None:
    rows = 30
    empty = ("time", "unit", "campaign", "segment", "conversion", "floor", "pcvr", "spot")
    table = pa.table(
        {
            **{name: pa.nulls(rows) for name in empty},
            "price": [i * 0.5 for i in range(rows)],
            "won": [1] * rows,
            "click": [int(i % 3 == 0) for i in range(rows)],
            "pctr": [0.1 + i / 100 for i in range(rows)],
        }
    )
    (pc.write_csv if form == "csv" else pq.write_table)(table, tmp_path / f"log.{form}")
    result = check_same(
        {
            "logs_tables": {"ad": {"path": str(tmp_path / f"log.{form}")}},
            "columns": {"exchange": "segment"},
            "sample_type": "imp-click",
            "bid": {"formula": "20 * pctr"},
            "segments": ["segment", "hour", "campaign"],
            "candidates": {"new": {"bid": {"multiplier": 1.5}}},
            **more,
        },
        (hashed_model(tmp_path / "hashed.bundle"),),
    )
    assert result["data"]["rows"] == rows


def test_a_table_of_the_catalog_is_its_files(spark: Any, tmp_path: Path) -> None:
    rows = make_log(np.random.default_rng(6), 200, zone="UTC", integer_prices=True)
    path = write_log(rows, tmp_path)
    scenario = {
        "timezone": "Asia/Tokyo",
        "budget": {"amount": "limit", "per": "day"},
        "bid": {"formula": FORMULA},
        "candidates": {"new": {"columns": {"pctr": "other_ctr"}}},
    }
    spark.read.parquet(f"file:{tmp_path}/part-000.parquet").createOrReplaceTempView("loose")
    spark.sql(f"create table kept using parquet location 'file:{tmp_path}/kept' as select * from loose")
    try:
        ours = bidsim.replay({**scenario, "logs_tables": {"ad": {"path": path}}}, engine="duckdb")
        theirs = bidsim.replay({**scenario, "logs_tables": {"ad": {"table": "kept"}}}, engine="spark")
        found, wanted = (json.loads(r.to_json()) for r in (theirs, ours))
        assert differences(found["metrics"], wanted["metrics"]) == []
        with pytest.raises(LogError, match="use --engine spark"):
            bidsim.replay({**scenario, "logs_tables": {"ad": {"table": "kept"}}})
        with pytest.raises(LogError, match="gives no nowhere"):
            bidsim.replay({**scenario, "logs_tables": {"ad": {"table": "nowhere"}}}, engine="spark")
    finally:
        spark.sql("drop table kept")
        spark.catalog.dropTempView("loose")


def test_bids_and_prices_are_counted_alike(spark: Any, tmp_path: Path) -> None:
    """Not in the result but in the run's statistics, to the last bit: weights, internal auctions, two kinds of auctions."""
    rows = rich_log(np.random.default_rng(9), 400, weights=True)
    scenario: dict[str, Any] = {
        "logs_tables": {"ad": {"path": write_log(rows, tmp_path, files=3)}},
        "columns": {"unit": "block"},
        "bid": {"formula": FORMULA},
        "auction": {"type": "case when block = 1 then 'first_price' else 'second_price' end", "internal": True},
        "candidates": {"new": {"columns": {"pctr": "other_ctr"}}},
    }
    found = [
        run_replay(
            scenario_from_dict(scenario, directory=tmp_path),
            [],
            as_of=START.date(),
            settings=Settings(threads=2, engine=engine),
        ).tables.prices
        for engine in ("duckdb", "spark")
    ]
    assert found[0] is not None
    assert found[0].bids.any(axis=1).all()
    assert found[0].known.all()
    for part in fields(found[0]):
        assert np.array_equal(*(getattr(each, part.name) for each in found)), part.name
