"""`bidsim plan RUN`: from a saved run alone, in words and as JSON; what can't be planned is said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import bidsim


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    rng = np.random.default_rng(20261130)
    n = 6000
    pctr = rng.uniform(0.01, 0.3, n).astype(np.float32)
    columns = {
        "unit": pa.array(rng.integers(0, 1500, n)),
        "price": pa.array(rng.exponential(8.0, n)),
        "bid": pa.array(np.full(n, 200.0)),
        "won": pa.array(np.ones(n, dtype=np.int8)),
        "click": pa.array((rng.random(n) < pctr).astype(np.int8)),
        "pctr": pa.array(pctr),
        "pnew": pa.array((pctr * rng.uniform(0.7, 1.0, n)).astype(np.float32)),
        "ts": pa.array(np.datetime64("2026-11-01T00:00:00") + rng.integers(0, 86400 * 2, n).astype("timedelta64[s]")),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    (folder / "s.yaml").write_text(
        "logs_tables: {ad: {path: log.parquet, last_hour: '2026-11-02T23:00:00', duration_hour: 48}}\n"
        "columns: {time: ts}\n"
        'bid: {formula: "100 * pctr"}\n'
        "candidates: {new: {columns: {pctr: pnew}}}\n"
    )
    done = bidsim("replay", "--scenario", "s.yaml", "--out", "run", cwd=folder)
    assert done.status == 0, done.err
    # Nothing but the run itself is needed.
    (folder / "log.parquet").unlink()
    (folder / "s.yaml").unlink()
    return folder / "run"


def test_the_plan_says_traffic_impressions_and_days(saved: Path) -> None:
    done = bidsim("plan", str(saved), "--metric", "spend", "--share", "0.5", cwd=saved.parent)
    assert done.status == 0, done.err
    assert "2 days" in done.out
    assert "new, spend: predicted −" in done.out
    assert "50% of the traffic" in done.out
    assert "impressions in all" in done.out


def test_the_plan_writes_numbers_out(saved: Path) -> None:
    words = ["--metric", "ctr", "--share", "0.005", "--share", "0.125", "--power", "0.995", "--confidence", "0.999"]
    done = bidsim("plan", str(saved), *words, cwd=saved.parent)
    assert "with power 99.5% at confidence 99.9%" in done.out
    assert "  0.5% of the traffic: " in done.out
    assert " 12.5% of the traffic: " in done.out
    assert "e+" not in done.out


def test_the_plan_as_json(saved: Path) -> None:
    done = bidsim("plan", str(saved), "--json", cwd=saved.parent)
    plan = json.loads(done.out)
    assert plan["schema"] == "bidsim.plan/1"
    assert plan["days"] == 2.0
    assert {need["metric"] for need in plan["needs"]} == {"spend", "wins", "clicks", "ctr", "cpm", "cpc"}
    assert [arm["share"] for arm in plan["needs"][0]["arms"]] == [0.05, 0.1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "1.5"], "--share 1.5: write a number between 0 and 1"),
        (["--power", "0"], "--power 0: write a number between 0 and 1"),
        (["--confidence", "0.1"], "--confidence 0.1: write at least 0.5"),
        (["--metric", "auc"], "--metric auc: an A/B test is planned for spend"),
    ],
)
def test_flags_out_of_range_are_one_message_and_status_2(saved: Path, arguments: list[str], message: str) -> None:
    done = bidsim("plan", str(saved), *arguments, cwd=saved.parent)
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_a_folder_that_is_no_run_or_lacks_its_statistics_is_refused(saved: Path, tmp_path: Path) -> None:
    done = bidsim("plan", str(tmp_path), cwd=tmp_path)
    assert done.status == 2
    assert "give a run's folder or its result.json" in done.err
    shutil.copy(saved / "result.json", tmp_path / "result.json")
    done = bidsim("plan", str(tmp_path), cwd=tmp_path)
    assert done.status == 2
    assert "replay the log again" in done.err
    (tmp_path / "result.json").write_text("[1, 2]")
    done = bidsim("plan", str(tmp_path), cwd=tmp_path)
    assert done.status == 2
    assert "no result of a replay" in done.err


def test_the_gate_is_judged_with_other_confidence_from_the_saved_tables(saved: Path) -> None:
    rules = saved.parent / "rules.yaml"
    rules.write_text("[{metric: spend, max_increase: 0%}]")

    def low(*arguments: str) -> float:
        done = bidsim("gate", str(saved), "--rules", str(rules), "--json", *arguments, cwd=saved.parent)
        assert done.status == 0, done.err
        return float(json.loads(done.out)["gate"]["rules"][0]["low"])

    assert low("--confidence", "0.99") < low() == low("--confidence", "0.95") < low("--confidence", "0.8")
    done = bidsim("gate", str(saved), "--rules", str(rules), "--confidence", "0.2", cwd=saved.parent)
    assert done.status == 2
    assert "--confidence 0.2: write a number from 0.5" in done.err
    page = saved.parent / "again.html"
    assert bidsim("report", str(saved), "--out", str(page), "--confidence", "0.8", cwd=saved.parent).status == 0
    assert "80%" in page.read_text(encoding="utf-8")


def test_statistics_of_another_run_are_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "run")
    result = json.loads((saved / "result.json").read_text(encoding="utf-8"))
    result["data"]["rows"] = 10
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    done = bidsim("plan", str(tmp_path / "run"), cwd=tmp_path)
    assert done.status == 2
    assert "of another run" in done.err
