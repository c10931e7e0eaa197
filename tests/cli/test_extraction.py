"""An extraction config as training pipelines have it (spec section 2, first block) replays unchanged."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command import bidsim, write_log, write_model
from spec_text import EXTRACTION

from bidsim.models import Feature

END = datetime(2017, 10, 15, 13, tzinfo=UTC)
BROKEN = 9  # a campaign that converts more often than it is clicked


def rows() -> list[dict[str, Any]]:
    """Around the edges of the window and of the conditions, and the broken campaign."""
    found = []
    for i in range(600):
        campaign = i % 3 + 1
        found.append((END - timedelta(minutes=5 * i + 1), campaign, 1, 1, int(i % 4 == 0), int(i % 8 == 0)))
    found += [
        (END, 1, 1, 1, 1, 1),  # one instant too late
        (END - timedelta(hours=24), 1, 1, 1, 1, 1),  # the first that counts
        (END - timedelta(hours=24, microseconds=1), 1, 1, 1, 1, 1),
        (END - timedelta(hours=1), 1, 2, 1, 1, 1),
        (END - timedelta(hours=1), 1, 1, 0, 1, 1),
        (END - timedelta(hours=1), 1, None, 1, 1, 1),  # NULL is not true
        *[(END - timedelta(hours=2), BROKEN, 1, 1, int(i == 0), 1) for i in range(4)],
    ]
    names = ("time", "campaign", "billing_type", "is_application", "click", "conversion")
    return [
        {**dict(zip(names, row, strict=True)), "ad_id": row[1], "spot_id": i % 7, "price": 20.0 + i % 30, "won": 1,
         "pctr": 0.25, "pcvr": 0.5, "target_cpa": 0.3}
        for i, row in enumerate(found)
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", ["remove_anomaly_cvr_cpns", "remove_anormaly_cvr_cpns"])
def test_the_config_replays_unchanged_with_a_table_on_the_command_line(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "extraction.yaml").write_text(EXTRACTION.replace("remove_anomaly_cvr_cpns:", f"{spelling}:", 1))
    write_log(tmp_path / "logs" / "a.parquet", pa.Table.from_pylist(rows()))
    features = tuple(Feature(name=name, type="categorical") for name in ("ad_id", "hour", "spot_id"))
    write_model(tmp_path / "new.bin", features=features)
    said = bidsim("replay", "--scenario", "extraction.yaml", "--model", "new.bin", "--table", "ad=logs/", "--json",
                  cwd=tmp_path)  # fmt: skip
    assert said.status == 0, said.err
    result = json.loads(said.out)
    # 24 hours of 12 rows each, and the one at the first instant; the broken campaign's rows are left out.
    inside = [r for r in rows() if END - timedelta(hours=24) <= r["time"] < END]
    kept = [r for r in inside if r["billing_type"] == 1 and r["is_application"] == 1 and r["campaign"] != BROKEN]
    assert len(kept) == 289
    assert result["data"]["window"] == {"start": "2017-10-14T13:00:00+00:00", "end": "2017-10-15T13:00:00+00:00"}
    (removal,) = (f["message"] for f in result["findings"] if f["code"] == "anomaly_cvr")
    assert "9 (1 click, 4 conversions)" in removal
    values = {(m["policy"], m["metric"], m["head"]): m["value"] for m in result["metrics"]}
    # cpa: 1000 x 0.3 x 0.25 x 0.5 = 37.5 CPM
    assert values["baseline", "bids", None] == 289
    assert values["baseline", "wins", None] == sum(r["price"] <= 37.5 for r in kept)
    assert values["baseline", "clicks", None] == sum(r["click"] for r in kept if r["price"] <= 37.5)
    assert {head for _, metric, head in values if metric == "auc"} == {"ctr"}
    assert values["new", "auc", "ctr"] != 0.5
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("extraction-new-")
