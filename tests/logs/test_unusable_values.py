"""Values that can't be used are counted and reported on every output that a reviewer reads, and never used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command import bidsim, write_log, write_scenario

GOOD: dict[str, Any] = {"price": 1.0, "won": 1, "click": 1, "conversion": 1.0, "weight": 1.0, "pctr": 0.5, "pnew": 0.5}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("ending", "column", "values", "finding", "bids"),
    [
        ("parquet", "pnew", [-0.1, 1.1, NAN, INF], "invalid_predictions", 5),
        ("csv", "pnew", [-0.1, 1.1, NAN, INF], "invalid_predictions", 5),
        ("ndjson", "pnew", [-0.1, 1.1, 7.0, -3.0], "invalid_predictions", 5),  # JSON has no NaN and no infinity
        ("parquet", "price", [-1.0, NAN, INF, -0.01], "invalid_prices", 5),
        ("csv", "price", [-1.0, NAN, INF, -0.01], "invalid_prices", 5),
        ("parquet", "weight", [-1.0, NAN, INF, -0.5], "invalid_weights", 5),
        ("parquet", "click", [2, -1, 7, 3], "invalid_clicks", 9),
        ("csv", "conversion", [-1.0, NAN, -2.0, INF], "invalid_conversions", 9),
    ],
)
def test_each_is_counted_reported_and_never_used(
    tmp_path: Path, ending: str, column: str, values: list[float], finding: str, bids: int
) -> None:
    rows = [GOOD] * 5 + [{**GOOD, column: v} for v in values]
    write_log(tmp_path / f"log.{ending}", pa.Table.from_pylist(rows))
    changes = {
        "columns": {"time": "cast(null as timestamp)"},
        "sample_type": "imp-click",
        "bid": {"formula": "2"},
        "segments": [],
        "candidates": {"new": {"columns": {"pctr": "pnew"}}},
    }
    write_scenario(tmp_path / "s.yaml", changes)
    said = bidsim(
        "replay", "--scenario", "s.yaml", "--table", f"ad=log.{ending}", "--out", "run", "--json", cwd=tmp_path
    )
    assert said.status == 0, said.err
    result = json.loads(said.out)
    messages = {f["code"]: f["message"] for f in result["findings"]}
    assert {code for code in messages if code.startswith("invalid_")} == {finding}
    assert "4 rows" in messages[finding]
    found = {
        m["metric"]: m["value"]
        for m in result["metrics"]
        if m["policy"] == "new" and not m["segment"] and not m["head"]
    }
    # Without a usable price nobody knows who wins; without a usable label the win counts for nothing but coverage.
    assert found["bids"] == bids
    assert [found[name] for name in ("spend", "clicks", "conversions")] == [0.005, 5, 5]
    assert found["coverage"] == pytest.approx(5 / bids if column in ("click", "conversion") else 1)
    # A reviewer who opens only the summary or the report reads it too.
    for output in ("summary.md", "report.html"):
        assert messages[finding].split(";")[0][:40].replace('"', "&#34;") in (
            tmp_path / "run" / output
        ).read_text().replace('"', "&#34;"), output
