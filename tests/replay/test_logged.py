"""What the scan counts of the log's own bids: fidelity against a loop over the rows, exchanges against their own query."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.report import render_report, render_summary


def rows_of(seed: int, count: int = 500) -> list[dict[str, Any]]:
    """Rows of every kind, with logs that contradict themselves: lost above the price, won below it."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        won = bool(draw.random() < 0.5)
        rows.append(
            {
                "price": None if draw.random() < 0.3 else float(draw.integers(0, 8)),
                "bid": None if draw.random() < 0.1 else float(draw.integers(1, 9)),
                "won": None if draw.random() < 0.05 else int(won),
                "click": int(draw.random() < 0.4) if won else None,
                "conversion": float(draw.integers(0, 3)) if won else None,
                "loss_reason": None if won or draw.random() < 0.5 else int(draw.choice([102, 203])),
                "weight": float(draw.choice([0.5, 1.0, 4.0])),
                "pctr": float(draw.integers(1, 9)) / 10,
                "v2": float(draw.integers(1, 9)) / 10,
                "exchange": "x",
            }
        )
    return rows


def replay(folder: Path, rows: list[dict[str, Any]], *, ties: str, kind: str, exchange: bool) -> Any:
    table = pa.Table.from_pylist(rows)
    pq.write_table(table if exchange else table.drop_columns(["exchange"]), folder / "log.parquet")
    return bidsim.replay(
        {
            "logs_tables": {"ad": {"path": str(folder / "log.parquet")}},
            "sample_type": "imp-click",
            "bid": {"formula": "10 * pctr"},
            "auction": {"ties": ties, "type": kind},
            "candidates": {"v2": {"columns": {"pctr": "v2"}}},
        }
    )


def naive(rows: list[dict[str, Any]], *, ties: str, kind: str) -> dict[str, Any]:
    """Fidelity as the specification says it, row by row."""
    out = {side: dict.fromkeys(("wins", "spend", "clicks", "conversions"), 0.0) for side in ("log", "replayed")}
    mismatched = bids = drifted = 0
    for row in rows:
        won, lost = row["won"] == 1, row["won"] == 0
        price, bid, w = row["price"], row["bid"], row["weight"]
        if (price is None and not lost and not (won and kind == "first_price")) or row["won"] is None:
            continue
        if bid is None and not won:
            continue
        if bid is None:
            wins = False
        elif price is not None:
            wins = bid > price if ties == "lose" else bid >= price
        else:
            wins = won
        blocked = lost and row["loss_reason"] == 203
        mismatched += wins != won and not (blocked and not won)
        paid = (bid if kind == "first_price" else price) or 0.0
        for side, counted in (("log", won), ("replayed", wins and not blocked)):
            out[side]["wins"] += w * counted
            out[side]["spend"] += w * paid / 1000 * counted
        for side, counted in (("log", won), ("replayed", wins and won)):
            out[side]["clicks"] += w * ((row["click"] or 0) * counted)
            out[side]["conversions"] += w * ((row["conversion"] or 0.0) * counted)
        if bid is not None:
            bids += 1
            drifted += not abs(10 * row["pctr"] - bid) <= 0.01 * bid
    return {**out, "mismatched": mismatched, "drift": drifted / bids}


@pytest.mark.parametrize("ties", ["win", "lose"])
@pytest.mark.parametrize("kind", ["second_price", "first_price"])
def test_fidelity_is_that_of_a_loop_over_the_rows(tmp_path: Path, ties: str, kind: str) -> None:
    rows = rows_of(11)
    result = replay(tmp_path, rows, ties=ties, kind=kind, exchange=False)
    found, expected = result.fidelity, naive(rows, ties=ties, kind=kind)
    for name in ("click", "conversion"):
        shown = sum(r["weight"] * (r[name] or 0.0) for r in rows if r["won"] == 1)
        assert getattr(result.data, f"{name}s") == pytest.approx(shown, rel=1e-12)
    assert found.mismatched_rows == expected["mismatched"] > 0
    assert math.isclose(found.formula_drift, expected["drift"], rel_tol=1e-12)
    assert not found.passed
    for side in ("log", "replayed"):
        assert getattr(found, side) == pytest.approx(expected[side], rel=1e-12)


def test_won_rows_without_a_logged_bid_are_said_to_be_why_the_log_is_not_reproduced(tmp_path: Path) -> None:
    """Spec 5, Fidelity: the logged bids must reproduce the log's wins; a win without one can't be."""
    rows = [{**row, "price": 0.5, "bid": 5.0, "won": 1, "click": 0, "conversion": 0.0} for row in rows_of(13)]
    for row in rows[:7]:
        row["bid"] = None
    rows[10]["bid"] = 0.25
    result = replay(tmp_path, rows, ties="win", kind="second_price", exchange=False)
    assert result.fidelity.mismatched_rows == 8
    said = "out otherwise than logged. 7 rows were won without a logged bid, so their wins can't be reproduced; mend columns.bid"
    assert said in result.gate.reason
    assert said in render_summary(result)


def test_a_column_of_bids_that_holds_none_is_nothing_to_check(tmp_path: Path) -> None:
    rows = [{**row, "price": 0.5, "bid": None, "won": 0, "click": None, "conversion": None} for row in rows_of(14)]
    result = replay(tmp_path, rows, ties="win", kind="second_price", exchange=False)
    assert not result.fidelity.checked
    assert result.fidelity.passed is None
    assert "The log has no bids of its own" in render_report(result)


@pytest.mark.parametrize(("off", "told"), [(10, False), (11, True)])
def test_a_baseline_that_does_not_bid_as_the_log_did_is_a_finding(tmp_path: Path, off: int, told: bool) -> None:
    rows = [
        {"price": 1.0, "bid": 5.0 if i >= off else 5.1, "won": 1, "click": 0, "pctr": 0.5, "v2": 0.6, "exchange": "x"}
        for i in range(100)
    ]
    found = replay(tmp_path, rows, ties="win", kind="second_price", exchange=False)
    said = [f.message for f in found.findings if f.code == "formula_drift"]
    assert ["1% off the logged one in 11.0% of the rows" in message for message in said] == [True] * told


def test_formula_drift_is_a_number_of_each_segment_value_that_a_rule_can_bound(tmp_path: Path) -> None:
    rows = rows_of(12)
    for n, row in enumerate(rows):
        row["exchange"] = "ab"[n % 2]
        if n % 2 and row["bid"] is not None:
            row["pctr"] = row["bid"] / 10
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    result = bidsim.replay(
        {
            "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
            "sample_type": "imp-click",
            "bid": {"formula": "10 * pctr"},
            "candidates": {"v2": {"columns": {"pctr": "v2"}}},
            "segments": [{"side": "exchange"}],
            "gate": [{"metric": "formula_drift", "at_most": 0.5, "by": "side"}],
        }
    )
    seen = {(m.policy, m.segment.get("side")): m for m in result.metrics if m.metric == "formula_drift"}
    for policy in ("baseline", "v2"):
        assert seen[(policy, None)].value == result.fidelity.formula_drift
        for side in "ab":
            own = [r for r in rows if r["exchange"] == side]
            expected = naive(own, ties="win", kind="second_price")["drift"]
            found = seen[(policy, side)]
            assert found.value == found.low == found.high == pytest.approx(expected, rel=1e-12)
    assert seen[("v2", "b")].value == 0 < 0.5 < seen[("v2", "a")].value
    assert {o.segment["side"]: o.status for o in result.gate.rules} == {"a": "fail", "b": "pass"}


@pytest.mark.parametrize("kind", ["second_price", "first_price"])
def test_a_log_of_one_exchange_tells_what_a_log_that_names_it_tells(tmp_path: Path, kind: str) -> None:
    named, plain = (
        replay(tmp_path, rows_of(5), ties="win", kind=kind, exchange=e).diagnostics["exchanges"] for e in (True, False)
    )
    assert named[0].pop("exchange") == "x"
    assert plain[0].pop("exchange") is None
    assert named == plain
    assert all(0 < share < 1 for share in plain[0]["policies"]["v2"].values())
