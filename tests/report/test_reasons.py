"""Why it changes, in the report: every part, every row won alone and every exhausted budget as the result has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_logs import Row, replay

from bidsim.report import render_report
from bidsim.report.format import change, interval
from bidsim.report.lookup import Lookup
from bidsim.report.reasons import alone, exhaustion, new_campaigns, splits
from bidsim.result import Result

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def result() -> Result:
    rng = np.random.default_rng(20261205)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    rows: list[Row] = [
        {
            "time": start + timedelta(minutes=i),
            "unit": int(rng.integers(0, 200)),
            "campaign": [HOSTILE, "b", "c"][i % 3],
            "price": float(np.round(rng.exponential(8.0), 2)),
            "won": 1,
            "click": int(rng.random() < 0.3),
            "conversion": float(rng.random() < 0.2),
            "pctr": float(np.float32(rng.uniform(0.02, 0.2))),
            "pother": float(np.float32(rng.uniform(0.02, 0.2))),
        }
        for i in range(2400)
    ]
    keys: dict[str, Any] = {"bid": {"formula": "100 * pctr"}, "candidates": {"new": {"columns": {"pctr": "pother"}}}}
    return replay(pa.Table.from_pylist(rows), segments=["campaign"], budget={"amount": 1.0, "per": "day"}, **keys)


def test_every_part_of_every_metric_stands_with_its_interval(result: Result) -> None:
    page = render_report(result)
    (split,) = splits(Lookup(result))
    assert len(split.rows) * 3 == len(result.split) > 0
    said = [part for row in split.rows for part in row.parts]
    for found, (text, under) in zip(result.split, said, strict=True):
        assert text == change(found.relative.value)
        assert under == interval(found.relative.low, found.relative.high, change)
        assert text in page


def test_rows_won_alone_are_those_of_the_result(result: Result) -> None:
    ((policy, table),) = alone(Lookup(result))
    assert policy == "new"
    wins = {m.metric: m.value for m in result.metrics if m.policy == "new" and not m.segment}
    assert [row[1] for row in table.rows[:2]] == [f"{wins[f'wins_{side}']:,.0f}" for side in ("gained", "lost")]


def test_exhausted_budgets_are_listed_and_names_are_never_markup(result: Result) -> None:
    found = exhaustion(Lookup(result))
    assert found is not None
    told = result.diagnostics["budget"]
    assert dict(found.counts) == {name: f"{count:,}" for name, count in told["exhausted"].items()}
    assert len(found.table.rows) == len(told["exhausted_at"]) > 0
    assert HOSTILE in [row[0] for row in found.table.rows]
    page = render_report(result)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page


def test_without_a_split_or_a_budget_nothing_is_claimed(result: Result) -> None:
    bare = result.model_copy(update={"split": [], "diagnostics": {}, "metrics": []})
    lookup = Lookup(bare)
    assert (splits(lookup), alone(lookup), exhaustion(lookup)) == ([], [], None)
    assert "Why it changes" not in render_report(bare)


def test_new_campaigns_have_wider_intervals_beside_the_usual_ones(result: Result) -> None:
    change_of_spend = next(d.relative for d in result.differences if d.metric == "spend" and not d.segment)
    told = {"new": {"spend": [-0.25, 0.5], "no such metric": [0.0, 1.0], "cpa": "damaged"}}
    given = result.model_copy(update={"diagnostics": {**result.diagnostics, "new_campaigns": told}})
    ((policy, table),) = new_campaigns(Lookup(given))
    assert policy == "new"
    usual = interval(change_of_spend.low, change_of_spend.high, change)
    assert table.rows == [["Spend", change(change_of_spend.value), usual, "[\u221225.0%, +50.0%]"]]
    assert "If campaigns were new" in render_report(given)
    without = result.model_copy(update={"diagnostics": {"new_campaigns": {"new": None}}})
    assert new_campaigns(Lookup(without)) == []
