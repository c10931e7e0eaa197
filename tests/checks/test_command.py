"""`bidsim check`: exit status, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from command import bidsim, write_log, write_scenario


def test_check_says_what_it_found_and_its_status_is_for_scripts(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet")
    scenario = write_scenario(
        tmp_path / "s.yaml",
        {
            "columns": {
                "time": "ts",
                "unit": "user_id",
                "campaign": "ad_id",
                "price": "paying_price",
                "request": "request_id",
            }
        },
    )
    fine = bidsim("check", "--scenario", scenario, "--table", f"ad={log}", "--quiet")
    assert fine.status == 0, fine.out
    assert "C02 nothing found: duplicate rows" in fine.out
    assert fine.err == ""
    write_scenario(
        scenario, {"columns": {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price * 1e6"}}
    )
    wrong = bidsim("check", "--scenario", scenario, "--table", f"ad={log}", "--quiet", "--json")
    assert wrong.status == 1
    said = json.loads(wrong.out)
    assert said["schema"] == "bidsim.check/1"
    assert [c["code"] for c in said["checks"]] == [f"C{i:02d}" for i in range(1, 17)]
    (units,) = [c for c in said["checks"] if c["code"] == "C06"]
    assert (units["status"], units["severity"]) == ("found", "error")
    assert "C06 error: units of money" in bidsim("check", "--scenario", scenario, "--table", f"ad={log}", "-q").out


def test_check_needs_no_candidate_and_bad_input_is_one_message(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet")
    scenario = write_scenario(tmp_path / "s.yaml", without=["candidates"])
    assert bidsim("check", "--scenario", scenario, "--table", f"ad={log}", "-q").status == 0
    missing = bidsim("check", "--scenario", scenario, "--table", "ad=nowhere.parquet", "-q")
    assert missing.status == 2
    assert missing.err.count("\n") == 1
    write_scenario(scenario, {"conditions": ["billing_type = 9"]})
    empty = bidsim("check", "--scenario", scenario, "--table", f"ad={log}", "-q")
    assert empty.status == 2
    assert "no row of the log" in empty.err
