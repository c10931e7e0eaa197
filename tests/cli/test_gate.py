"""The gate as a pipeline sees it: exit status, the first line on stdout, and the outputs that tools read."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from command import SCENARIO, bidsim, log, write_log, write_scenario

CALIBRATION = {"metric": "calibration", "head": "ctr", "evidence": "point"}
PASS = {**CALIBRATION, "name": "sane", "between": [0.5, 2]}
FAIL = {**CALIBRATION, "name": "insane", "at_most": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small log with the bids that its winner made; three rows of `odd.parquet` say otherwise."""
    folder = tmp_path_factory.mktemp("gate")
    table = log().slice(0, 400).filter(pc.is_valid(log().slice(0, 400)["paying_price"]))
    formula = pc.multiply(pc.multiply(table["pctr"], table["pcvr"]), pc.multiply(table["target_cpa"], 1000.0))
    won = pc.cast(pc.greater_equal(formula, table["paying_price"]), pa.int64())
    table = table.set_column(table.column_names.index("won"), "won", won).append_column("bid", formula)
    write_log(folder / "log.parquet", table)
    odd = [1 - w if i in (3, 5, 8) else w for i, w in enumerate(won.to_pylist())]
    write_log(folder / "odd.parquet", table.set_column(table.column_names.index("won"), "won", pa.array(odd)))
    return folder


def run(
    folder: Path, out: str, rules: list[dict[str, Any]], table: str = "log.parquet", **changes: Any
) -> tuple[int, str]:
    scenario = folder / f"{out}.yaml"
    columns = {**SCENARIO["columns"], "bid": "bid"}
    write_scenario(scenario, {"segments": [], "columns": columns, "gate": rules, "currency": "JPY", **changes})
    said = bidsim(
        "replay", "--scenario", scenario, "--table", f"ad={folder / table}", "--out", folder / out, drawn=True
    )
    assert said.status in (0, 1), said.err
    return said.status, said.out


@pytest.mark.parametrize(
    ("out", "rules", "status", "verdict"),
    [
        ("none", [], 0, "no_gate"),
        ("pass", [PASS], 0, "pass"),
        ("warn", [PASS, {**FAIL, "on_fail": "warn"}], 0, "warn"),
        ("fail", [PASS, FAIL, {**CALIBRATION, "name": "strange", "metric": "calibratoin", "at_most": 1}], 1, "fail"),
    ],
)
def test_exit_status_and_outputs_tell_the_verdict(
    folder: Path, out: str, rules: list[dict[str, Any]], status: int, verdict: str
) -> None:
    code, shown = run(folder, out, rules)
    result = json.loads((folder / out / "result.json").read_text())
    gate = result["gate"]
    assert (code, gate["verdict"]) == (status, verdict)
    assert result["fidelity"]["passed"] is True
    assert result["fidelity"]["formula_drift"] == 0
    assert shown.splitlines()[0] == f"{verdict.upper().replace('_', ' ')}: {gate['reason']}"
    assert gate["reason"]
    summary = (folder / out / "summary.md").read_text()
    assert gate["reason"].split(" [")[0] in summary
    junit = ElementTree.parse(folder / out / "junit.xml").getroot()
    suite = junit if junit.tag == "testsuite" else junit[0]
    failed = [c.get("name") for c in suite.iter("testcase") if c.find("failure") is not None]
    assert len(failed) == {"fail": 2}.get(verdict, 0), failed
    # A verdict by the point alone says so wherever it is read.
    assert {r["evidence"] for r in gate["rules"]} <= {"point"}
    if rules:
        for output in (summary, (folder / out / "report.html").read_text()):
            assert "judged on the value alone, without an interval as evidence" in output


@pytest.mark.parametrize(
    ("fidelity", "status", "verdict"), [(None, 1, "fail"), ("warn", 0, "warn"), ("fail", 1, "fail")]
)
def test_a_log_that_its_own_bids_do_not_reproduce(
    folder: Path, fidelity: str | None, status: int, verdict: str
) -> None:
    changes = {} if fidelity is None else {"fidelity": fidelity}
    code, shown = run(folder, f"odd {fidelity}", [PASS], "odd.parquet", **changes)
    result = json.loads((folder / f"odd {fidelity}" / "result.json").read_text())
    assert (code, result["gate"]["verdict"]) == (status, verdict)
    assert result["fidelity"]["passed"] is False
    assert result["fidelity"]["mismatched_rows"] == 3
    assert result["fidelity"]["log"] != result["fidelity"]["replayed"]
    assert shown.startswith(f"{verdict.upper()}: The replay does not reproduce the log: 3 rows")


def test_a_failed_check_fails_even_without_rules(folder: Path) -> None:
    code, _ = run(folder, "odd none", [], "odd.parquet")
    assert code == 1


def test_a_baseline_that_is_not_what_bid_shows_as_drift(folder: Path) -> None:
    """Production's formula was another one: the log still reproduces itself, but the recomputed bids are off."""
    code, _ = run(folder, "drift", [PASS], baseline={"bid": {"multiplier": 1.02}})
    result = json.loads((folder / "drift" / "result.json").read_text())
    assert code == 0
    assert result["fidelity"]["passed"] is True
    assert result["fidelity"]["formula_drift"] == 1
