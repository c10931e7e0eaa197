"""Spec section 4, Determinism: the same scenario, model and data give the same bytes, however they are run or laid out.

Every output but run.json, which holds what is true of one run alone, is compared byte by byte.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command import SCENARIO, log, process, replayed, write_log, write_model, write_scenario

# Weights, a model, logged predictions, budgets, segments and a gate at once: whatever depends on order would show.
FULL: dict[str, Any] = {
    "columns": {**SCENARIO["columns"], "weight": "sample_weight"},
    "timezone": "Asia/Tokyo",
    "segments": ["campaign", "spot_id", "hour"],
    "budget": {"amount": 0.9, "per": "day"},
    "gate": [{"metric": "cpa", "max_increase": "5%"}, {"metric": "calibration", "head": "ctr", "between": [0.9, 1.1]}],
}
UNLIMITED = {k: v for k, v in FULL.items() if k != "budget"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determinism")
    write_log(folder / "log.parquet")
    write_model(folder / "m.bin")
    return folder


def run(folder: Path, name: str, table: str, scenario: dict[str, Any] = FULL, *more: str) -> dict[str, bytes]:
    path = write_scenario(folder / "s.yaml", scenario)
    return replayed(
        folder, name, "--scenario", path, "--table", f"ad={folder / table}", "--model", folder / "m.bin", *more
    )


@pytest.fixture(scope="module")
def once(folder: Path) -> dict[str, bytes]:
    outputs = run(folder, "once", "log.parquet", FULL, "--threads", "1")
    assert sorted(outputs) == [
        "junit.xml",
        "report.html",
        "result.json",
        "scenario.yaml",
        "statistics.parquet",
        "summary.md",
    ]
    # The scenario does something that an order of rows or threads could change.
    metrics = json.loads(outputs["result.json"])["metrics"]
    wins = {m["policy"]: m["value"] for m in metrics if m["metric"] == "wins" and not m["segment"]}
    bids = {m["policy"]: m["value"] for m in metrics if m["metric"] == "bids" and not m["segment"]}
    assert all(0 < wins[p] < bids[p] < pc.sum(log()["sample_weight"]).as_py() for p in ("baseline", "v2", "m"))
    return outputs


@pytest.mark.parametrize("threads", ["1", "2", "4"])
def test_the_run_and_its_threads_change_no_byte(folder: Path, once: dict[str, bytes], threads: str) -> None:
    assert run(folder, f"threads {threads}", "log.parquet", FULL, "--threads", threads) == once


def split(folder: Path) -> None:
    """Files of uneven size, each a stretch of time, named against the order of time."""
    for i, (begin, end) in enumerate([(0, 7), (7, 500), (500, 501), (501, 1200)]):
        write_log(folder / f"{9 - i}.parquet", log().slice(begin, end - begin))


def shuffle(folder: Path) -> None:
    """Every row somewhere else, in five files."""
    order = random.Random(5).sample(range(log().num_rows), log().num_rows)
    for i in range(5):
        write_log(folder / f"{i}.parquet", log().take(order[i::5]), row_group_size=50)


def another_writer(folder: Path) -> None:
    """Small row groups, another compression, columns in another order, and one that nothing reads."""
    table = log().select(log().column_names[::-1]).append_column("x", pa.nulls(log().num_rows, pa.int8()))
    pq.write_table(table, folder / "a.parquet", row_group_size=17, compression="zstd", use_dictionary=False)


@pytest.mark.parametrize("layout", [split, shuffle, another_writer])
def test_the_layout_of_the_log_changes_no_byte(
    folder: Path, once: dict[str, bytes], layout: Callable[[Path], None]
) -> None:
    (folder / layout.__name__).mkdir()
    layout(folder / layout.__name__)
    assert run(folder, f"as {layout.__name__}", layout.__name__) == once


def test_without_times_or_budgets_the_order_of_rows_changes_no_byte(folder: Path) -> None:
    """Rows without units are told apart by what they hold, never by where they stand."""
    order = random.Random(6).sample(range(log().num_rows), log().num_rows)
    write_log(folder / "ordered" / "a.parquet", log().drop_columns(["ts", "user_id"]))
    for i in range(2):
        write_log(folder / "disordered" / f"{i}.parquet", log().drop_columns(["ts", "user_id"]).take(order[i::2]))
    columns = {"campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
    scenario = {**UNLIMITED, "columns": columns, "segments": ["campaign"]}
    assert run(folder, "one", "ordered", scenario, "--threads", "1") == run(folder, "two", "disordered", scenario)


def test_ties_in_time_under_a_budget_go_by_request_wherever_the_rows_stand(folder: Path) -> None:
    """Spec 3.7: equal times are ordered by request, so even they don't depend on the layout where there is one."""
    hours = log().set_column(0, "ts", pc.floor_temporal(log()["ts"], unit="hour"))
    order = random.Random(7).sample(range(hours.num_rows), hours.num_rows)
    write_log(folder / "tied" / "a.parquet", hours)
    for i in range(3):
        write_log(folder / "tied shuffled" / f"{i}.parquet", hours.take(order[i::3]))
    scenario = {**FULL, "segments": [], "columns": {**FULL["columns"], "request": "request_id"}}
    assert run(folder, "in order", "tied", scenario) == run(folder, "in disorder", "tied shuffled", scenario)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_machines_time_zone_changes_nothing(zone: str, folder: Path) -> None:
    """An engine takes the machine's zone for its own; `hour(ts)` and times without an offset are the scenario's."""
    expressions = {
        "timezone": zone,
        "conditions": ["ts >= '2026-01-01'"],
        "segments": [{"clock": "hour(ts)"}, "hour"],
        "columns": {**SCENARIO["columns"], "time": "cast(cast(ts as varchar) as timestamptz)"},
    }
    scenario = write_scenario(folder / "zone.yaml", expressions)
    outputs = []
    for machine in ("UTC", "America/New_York"):
        out = folder / f"zone-{zone[:3]}-{machine[:3]}"
        words = ["replay", "--scenario", scenario, "--table", f"ad={folder / 'log.parquet'}", "--out", out, "--quiet"]
        child = process(*words, "--model", folder / "m.bin", "--as-of", "2026-12-01", cwd=folder, env={"TZ": machine})
        assert child.communicate()[1] == ""
        outputs.append((out / "result.json").read_bytes())
    assert outputs[0] == outputs[1]
    wins = {"clock": {}, "hour": {}}
    for m in json.loads(outputs[0])["metrics"]:
        if m["metric"] == "wins" and m["segment"] and m["policy"] == "baseline":
            ((name, value),) = m["segment"].items()
            wins[name][value] = m["value"]
    assert len(wins["hour"]) > 3
    assert wins["clock"] == wins["hour"]
