"""The public names: `replay` takes what a caller has at hand, and gives the same result for it."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest
from command import SCENARIO, log, write_log, write_model, write_scenario

import bidsim

DAY = date(2026, 11, 26)


def test_a_scenario_is_replayed_as_its_file_or_its_content_is(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", log())
    write_model(tmp_path / "m.bin")
    tables = {"ad": str(tmp_path / "log.parquet")}
    document = {
        **SCENARIO,
        "remove_anomaly_cvr_cpns": {"ratio": 4.0},
        "gate": [
            {"metric": "cpa", "max_increase": "5%", "waive": {"until": "2026-12-31", "reason": "r", "owner": "o"}}
        ],
    }
    write_scenario(tmp_path / "s.yaml", document)
    found = [
        bidsim.replay(scenario, models, tables=tables, threads=1, as_of=DAY)
        for scenario in (tmp_path / "s.yaml", document, bidsim.Scenario.model_validate(document))
        for models in ([tmp_path / "m.bin"], str(tmp_path / "m.bin"))
    ]
    # The scenario's own text has its keys in another order.
    assert all(result == found[0] for result in found[1:])


def test_the_day_may_be_a_date_a_moment_or_text_and_a_table_a_path(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", log().slice(0, 300))
    write_model(tmp_path / "m.bin")
    path, models = tmp_path / "log.parquet", [tmp_path / "m.bin"]
    days: list[date | str] = [DAY, datetime(2026, 11, 26, 23, 59), "2026-11-26"]
    found = [bidsim.replay(SCENARIO, models, tables={"ad": path}, as_of=day).to_json() for day in days]
    assert found[0] == found[1] == found[2]
    with pytest.raises(bidsim.BidsimError, match="as_of yesterday: not a day; write YYYY-MM-DD"):
        bidsim.replay(SCENARIO, models, tables={"ad": path}, as_of="yesterday")
