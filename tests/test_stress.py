"""Stress: a market with dearer prices is the log with dearer prices, written out; flips are where a fine scan finds them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import bidsim
from small_logs import Row, as_table, replay

from bidsim.cli_stress import in_words
from bidsim.result import Result
from bidsim.scenario.loading import scenario_from_dict
from bidsim.stress import Stress, stress

DAY = date(2026, 11, 24)
GATE = [{"metric": "cpc", "name": "clicks cost no more", "max_increase": "4%", "evidence": "point"}]


def make_log(seed: int, n: int = 400, told: float = 0.3) -> list[Row]:
    """told: the share of lost auctions whose price is known; where few are, rows that nobody knows leave most rules open."""
    rng = np.random.default_rng([20261124, seed])
    rows: list[Row] = []
    for _ in range(n):
        market, bid = float(np.round(rng.exponential(8.0), 2)), float(np.round(rng.exponential(14.0), 2))
        won = bid >= market
        known = won or rng.random() < told
        rows.append(
            {
                "campaign": int(rng.integers(1, 4)),
                "price": market if known else None,
                "bid": bid,
                "won": int(won),
                "click": int(rng.random() < 0.3) if won else None,
                "pctr": float(np.float32(rng.uniform(0.01, 0.3))),
                "pother": float(np.float32(rng.uniform(0.01, 0.35))),
                "limit": 0.4,
            }
        )
    return rows


def document(rows: list[Row], directory: Path, **keys: Any) -> dict[str, Any]:
    pq.write_table(as_table(rows), directory / "log.parquet")
    return {
        "name": "small",
        "logs_tables": {"ad": {"path": str(directory / "log.parquet")}},
        "bid": {"formula": "100 * pctr"},
        "candidates": {"new": {"columns": {"pctr": "pother"}}},
        "gate": GATE,
        **keys,
    }


def run(rows: list[Row], directory: Path, *, prices: Any = (), calibration: Any = (), **keys: Any) -> Stress:
    loaded = scenario_from_dict(document(rows, directory, **keys), directory=directory)
    return stress(loaded, [], as_of=DAY, prices=prices, calibration=calibration)


def changes(result: Result) -> dict[str, float | None]:
    wanted = ("spend", "clicks", "cpc")
    return {d.metric: d.relative.value for d in result.differences if not d.segment and d.metric in wanted}


SETTINGS: list[dict[str, Any]] = [
    {},
    {"auction": {"type": "first_price"}},
    {"budget": {"amount": "limit", "per": "total"}},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["second price", "first price", "budget"])
@pytest.mark.parametrize("shift", [-0.25, 0.5])
def test_a_dearer_market_is_the_log_with_dearer_prices(shift: float, settings: dict[str, Any], tmp_path: Path) -> None:
    rows = make_log(1)
    found = run(rows, tmp_path, prices=[shift], **settings)
    (point,) = (p for p in found.points["prices"] if p.shift == shift)
    # Powers of two and their sums: no rounding differs between here and there.
    dearer = [
        {**r, "price": None if r["price"] is None else r["price"] * (1 + shift), "bid": r["bid"] * (1 + shift)}
        for r in rows
    ]
    keys = {k: v for k, v in document(rows, tmp_path, **settings).items() if k not in ("logs_tables", "name")}
    written = replay(dearer, **keys)
    assert point.verdict == written.gate.verdict
    for metric, value in changes(written).items():
        assert point.change["new"][metric] == pytest.approx(value, rel=1e-12)
    assert written.fidelity.passed


def test_candidates_that_are_off_bid_so_much_more(tmp_path: Path) -> None:
    rows = make_log(2)
    found = run(rows, tmp_path, calibration=[0.25])
    (point,) = (p for p in found.points["calibration"] if p.shift == 0.25)
    keys = {k: v for k, v in document(rows, tmp_path).items() if k not in ("logs_tables", "name", "candidates")}
    written = replay(rows, candidates={"new": {"columns": {"pctr": "pother"}, "bid": {"multiplier": 1.25}}}, **keys)
    assert {m: point.change["new"][m] for m in ("spend", "clicks", "cpc")} == changes(written)


def test_the_world_as_it_is_is_the_replay(tmp_path: Path) -> None:
    rows = make_log(3)
    found = run(rows, tmp_path, prices=[0.1])
    keys = {k: v for k, v in document(rows, tmp_path).items() if k not in ("logs_tables", "name")}
    written = replay(rows, **keys)
    (whole,) = (p for p in found.points["prices"] if p.shift == 0)
    assert found.verdict == whole.verdict == written.gate.verdict
    assert {m: whole.change["new"][m] for m in ("spend", "clicks", "cpc")} == changes(written)


def test_a_flip_is_where_a_fine_scan_finds_it(tmp_path: Path) -> None:
    rows = make_log(1, told=1.0)
    found = run(rows, tmp_path, calibration=[-0.6, 0.6])
    assert found.flips
    for flip in found.flips:
        assert abs(flip.breaks - flip.holds) <= 0.005
        inner, outer = sorted((flip.holds, flip.breaks))
        again = run(rows, tmp_path, calibration=[inner, outer])
        verdicts = {p.shift: p.verdict for p in again.points["calibration"]}
        assert verdicts[flip.holds] == found.verdict
        assert verdicts[flip.breaks] == flip.verdict != found.verdict
        assert flip.rules == ("clicks cost no more",)


def test_a_formula_that_bids_by_the_logged_bid_bids_what_was_logged(tmp_path: Path) -> None:
    rows = [{**r, "price": r["price"] if r["price"] is not None else r["bid"] * 2} for r in make_log(4)]
    plain = {"baseline": {"bid": {"formula": "bid"}}, "candidates": {"new": {"bid": {"formula": "bid * 1.5"}}}}
    found = run(rows, tmp_path, prices=[0.25], **plain)
    (point,) = (p for p in found.points["prices"] if p.shift == 0.25)
    won = {k: [r for r in rows if k * r["bid"] >= r["price"] * 1.25 and r["won"]] for k in (1.0, 1.5)}
    spend = {k: sum(r["price"] for r in each) for k, each in won.items()}
    assert point.change["new"]["spend"] == pytest.approx(spend[1.5] / spend[1.0] - 1)


def test_the_command_prints_worlds_and_flips_and_writes_json(tmp_path: Path) -> None:
    rows = make_log(1, told=1.0)
    (tmp_path / "s.yaml").write_text(json.dumps(document(rows, tmp_path)), encoding="utf-8")
    options = ("stress", "--scenario", tmp_path / "s.yaml", "--prices", "-10,20%", "--calibration", "-60,60", "--quiet")
    told = bidsim(*options, "--out", tmp_path / "out")
    assert "others' prices" in told.out
    assert "+20.0%" in told.out
    assert "(clicks cost no more)" in told.out
    given = json.loads((tmp_path / "out" / "stress.json").read_text(encoding="utf-8"))
    assert given["schema"] == "bidsim.stress/1"
    assert [p["shift"] for p in given["points"]["prices"]] == [-0.1, 0.0, 0.2]
    assert told.status == (1 if given["verdict"] == "fail" else 0)
    strict = bidsim(*options, "--fail-on-flip", "--json")
    assert strict.status == 1
    assert json.loads(strict.out) == given


def test_names_of_rules_reach_the_terminal_as_text(tmp_path: Path) -> None:
    gate = [{**GATE[0], "name": "\x1b[31mred\x07 rule"}]
    found = run(make_log(1, told=1.0), tmp_path, calibration=[-0.6, 0.6], gate=gate)
    said = in_words(found)
    assert found.flips
    assert "red" in said
    assert not {"\x1b", "\x07"} & set(said)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--prices", "a", '--prices: "a" is not a shift'),
        ("--calibration", "-100", '--calibration: "-100" is not a shift'),
        ("--prices", ",".join(["1"] * 51), "51 worlds are too many"),
        ("--prices", "10,,20", '--prices: "" is not a shift'),
    ],
)
def test_shifts_that_are_none_are_told(option: str, value: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: x\n", encoding="utf-8")
    told = bidsim("stress", "--scenario", tmp_path / "s.yaml", f"{option}={value}")
    assert told.status == 2
    assert says in told.err


def test_no_other_market_at_all_is_told(tmp_path: Path) -> None:
    told = bidsim("stress", "--scenario", tmp_path / "s.yaml", "--prices=", "--calibration= ")
    assert told.status == 2
    assert "--prices, --calibration: both are empty" in told.err
