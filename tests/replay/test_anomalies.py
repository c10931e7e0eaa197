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
    assert "bad (1 clicks, 2 conversions)" in finding.message
    assert "good" not in finding.message


def test_without_the_key_every_campaign_counts(tmp_path: Path) -> None:
    result = bidsim.replay(scenario(tmp_path))
    assert result.data.rows == 5
    assert not [f for f in result.findings if f.code == "anomaly_cvr"]
