"""Values that can't be used are counted and reported on every output that a reviewer reads, and never used."""

from __future__ import annotations

import json
import re
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


LOST = {**GOOD, "won": 0, "click": None, "conversion": None, "price": None}
REVENUE = {**GOOD, "conversion": 3200.0}


@pytest.mark.parametrize(
    ("rows", "finding", "says"),
    [
        ([{**LOST, "click": 1}, *[GOOD] * 5], "clicks_of_lost", "1 row is logged as lost with a click"),
        (
            [{**LOST, "loss_reason": 1}, *[GOOD] * 5],
            "losses_by_price",
            "1 lost row has a loss_reason and none has 100",
        ),
        ([REVENUE] * 3 + [GOOD] * 2, "conversions_of_many", '3 of 5 rows .* write columns: {conversion: "column > 0"}'),
        (
            [{**GOOD, "weight": 0.1}, *[GOOD] * 5],
            "weights_below_one",
            r'1 row .* write columns: {weight: "1 / column"}',
        ),
        ([{**GOOD, "target_cpa": None}, *[GOOD] * 5], "target_missing", "1 row has no target_cpa above 0"),
        ([{**GOOD, "target_cpa": 0.0}, *[GOOD] * 5], "target_missing", "1 row has no target_cpa above 0"),
        ([{**GOOD, "price": None}, *[GOOD] * 5], "undecidable", "1 row has no price and is not logged as lost"),
    ],
)
def test_columns_that_can_hardly_be_what_they_are_taken_for_are_findings(
    tmp_path: Path, rows: list[dict[str, Any]], finding: str, says: str
) -> None:
    """Nothing in such a log is unusable, and its numbers would silently be of something else."""
    write_log(
        tmp_path / "log.parquet",
        pa.Table.from_pylist([{"target_cpa": 0.1, "pcvr": 0.1, "loss_reason": None, **row} for row in rows]),
    )
    changes = {"columns": {}, "segments": [], "candidates": {"new": {"columns": {"pctr": "pnew"}}}}
    write_scenario(tmp_path / "s.yaml", changes)
    words = ["--scenario", "s.yaml", "--table", "ad=log.parquet", "--out", "run", "-q"]
    said = bidsim("replay", *words, cwd=tmp_path)
    assert said.status in (0, 1), said.err
    found = {f["code"]: f for f in json.loads((tmp_path / "run" / "result.json").read_text())["findings"]}
    assert found[finding]["severity"] == "warning"
    assert re.search(says, found[finding]["message"])
    assert not {
        "clicks_of_lost",
        "conversions_of_many",
        "weights_below_one",
        "target_missing",
        "losses_by_price",
    } & found.keys() - {finding}


def test_a_campaign_table_of_none_of_the_campaigns_is_an_error_that_shows_both_spellings(tmp_path: Path) -> None:
    """1.0 in the table (as pandas writes it beside a gap) is not 1 in the log, and nothing would be bid."""
    write_log(tmp_path / "log.parquet", pa.Table.from_pylist([{"campaign": 1, "pcvr": 0.1, **GOOD}] * 5))
    (tmp_path / "c.csv").write_text("campaign,target_cpa\n1.0,2\n")
    changes = {"columns": {}, "segments": [], "candidates": {"new": {"bid": {"multiplier": 2}}}, "campaigns": "c.csv"}
    write_scenario(tmp_path / "s.yaml", changes)
    words = ["--scenario", "s.yaml", "--table", "ad=log.parquet", "--out", "run", "-q"]
    assert bidsim("replay", *words, cwd=tmp_path).status in (0, 1)
    found = {f["code"]: f for f in json.loads((tmp_path / "run" / "result.json").read_text())["findings"]}
    assert found["campaigns_missing"]["severity"] == "error"
    assert "that the campaign table lacks (1; the table has 1.0)" in found["campaigns_missing"]["message"]


def test_a_text_in_the_campaign_table_is_told_of_that_table(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", pa.Table.from_pylist([{"campaign": 1, "pcvr": 0.1, **GOOD}] * 5))
    (tmp_path / "c.csv").write_text('campaign,target_cpa\n1,2\n2,"1,000"\n')
    changes = {"columns": {}, "segments": [], "candidates": {"new": {"bid": {"multiplier": 2}}}, "campaigns": "c.csv"}
    write_scenario(tmp_path / "s.yaml", changes)
    said = bidsim("replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", "--out", "run", "-q", cwd=tmp_path)
    assert said.status == 2
    assert re.search(
        r'c\.csv: .*the campaign table\'s column "target_cpa" is VARCHAR, such as "1,000", .*cast\(replace', said.err
    ), said.err
    assert not (tmp_path / "run").exists()


def test_a_log_whose_weights_are_all_zero_says_that_nothing_is_counted(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", pa.Table.from_pylist([{**GOOD, "weight": 0.0}] * 5))
    changes = {
        "columns": {},
        "sample_type": "imp-click",
        "segments": [],
        "bid": {"formula": "2"},
        "candidates": {"new": {"bid": {"multiplier": 2}}},
    }
    write_scenario(tmp_path / "s.yaml", changes)
    words = ["--scenario", "s.yaml", "--table", "ad=log.parquet", "--out", "run", "-q"]
    assert bidsim("replay", *words, cwd=tmp_path).status in (0, 1)
    found = {f["code"]: f for f in json.loads((tmp_path / "run" / "result.json").read_text())["findings"]}
    assert found["weightless"]["severity"] == "error"
