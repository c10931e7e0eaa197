"""remove_anomaly_cvr_cpns: campaigns whose CVR is impossible are left out for every policy, and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bidsim


def scenario(folder: Path, **keys: Any) -> dict[str, Any]:
    table = pa.table(
        {
            "campaign": ["good", "good", "bad", "bad", None],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0],
            "click": [1, 0, 1, 0, 0],
            "conversion": [1, 0, 1, 1, 0],
            "pctr": [0.5] * 5,
        }
    )
    pq.write_table(table, folder / "log.parquet")
    return {
        "logs_tables": {"ad": {"path": str(folder / "log.parquet")}},
        "bid": {"formula": "100 * pctr"},
        "candidates": {"new": {"columns": {"pctr": "pctr / 2"}}},
        **keys,
    }


@pytest.mark.parametrize("spelling", ["remove_anomaly_cvr_cpns", "remove_anormaly_cvr_cpns"])
def test_a_campaign_with_more_conversions_than_clicks_is_left_out_and_listed(tmp_path: Path, spelling: str) -> None:
    result = bidsim.replay(scenario(tmp_path, **{spelling: True}))
    wins = {m.policy: m.value for m in result.metrics if m.metric == "wins" and not m.segment}
    assert wins == {"baseline": 3, "new": 3}
    (finding,) = [f for f in result.findings if f.code == "anomaly_cvr"]
    assert "bad (1 click, 2 conversions)" in finding.message
    assert "good" not in finding.message


def test_without_the_key_every_campaign_counts(tmp_path: Path) -> None:
    result = bidsim.replay(scenario(tmp_path))
    assert result.data.rows == 5
    assert not [f for f in result.findings if f.code == "anomaly_cvr"]


def daily(folder: Path, days: list[tuple[int, int]], **keys: Any) -> Any:
    """A campaign with so many (clicks, conversions) each day, beside a steady one."""
    from datetime import UTC, datetime, timedelta

    columns: dict[str, list[Any]] = {n: [] for n in ("time", "campaign", "price", "click", "conversion", "pctr")}
    for campaign, counts in (("jumping", days), ("steady", [(200, 10)] * len(days))):
        for day, (clicks, conversions) in enumerate(counts):
            for i in range(clicks):
                values = (datetime(2026, 3, 1 + day, tzinfo=UTC) + timedelta(minutes=i), campaign, 1.0, 1)
                for name, value in zip(columns, (*values, int(i < conversions), 0.5), strict=True):
                    columns[name].append(value)
    pq.write_table(pa.table(columns), folder / "log.parquet")
    document = {
        "logs_tables": {"ad": {"path": str(folder / "log.parquet")}},
        "bid": {"formula": "100 * pctr"},
        "candidates": {"new": {"columns": {"pctr": "pctr / 2"}}},
        **keys,
    }
    result = bidsim.replay(document)
    found = [f.message for f in result.findings if f.code == "anomaly_cvr_jump"]
    return result.data.rows, found


RISE = [(300, 12), (300, 15), (300, 120)]
FALL = [(300, 60), (300, 66), (300, 1)]


def test_a_campaign_whose_cvr_jumps_is_left_out_and_listed_with_its_day(tmp_path: Path) -> None:
    rows, (message,) = daily(tmp_path, RISE, remove_anomaly_cvr_cpns=True)
    assert rows == 600
    assert "jumping (2026-03-03: 40.00% after 4.50%)" in message
    assert "steady" not in message


def test_the_thresholds_of_a_jump_are_the_scenarios(tmp_path: Path) -> None:
    for block in ({"ratio": 10.0}, {"z": 50.0}, {"min_conversions": 121}, {"min_clicks": 601}):
        assert daily(tmp_path, RISE, remove_anomaly_cvr_cpns=block) == (1500, [])
    assert daily(tmp_path, RISE, remove_anomaly_cvr_cpns={"ratio": 8.0, "min_clicks": 600})[0] == 600


def test_a_fall_counts_only_where_conversions_are_mature(tmp_path: Path) -> None:
    assert daily(tmp_path, FALL, remove_anomaly_cvr_cpns=True)[1] == []
    late = {"conversion_window_hours": 1.0, "observed_until": "2026-04-01T00:00:00"}
    assert daily(tmp_path, FALL, remove_anomaly_cvr_cpns=True, maturity=late)[0] == 600
    # Without its last day the campaign is steady.
    early = {"conversion_window_hours": 1.0, "observed_until": "2026-03-03T00:30:00"}
    assert daily(tmp_path, FALL, remove_anomaly_cvr_cpns=True, maturity=early)[1] == []
