"""Spec 3.6: what can be known of each exchange, against the classes written out row by row; two auction types in one log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_logs import Row, replay

from bidsim.report import render_report

FORMULA = "100 * pctr"
CANDIDATE = {"new": {"columns": {"pctr": "pother"}}}


def make_log(n: int = 500) -> list[Row]:
    rng = np.random.default_rng(20261124)
    rows: list[Row] = []
    for _ in range(n):
        exchange = str(rng.choice(["adx", "blind", "first"], p=[0.5, 0.3, 0.2]))
        market, bid = float(np.round(rng.exponential(8.0), 2)), float(np.round(rng.exponential(10.0), 2))
        won = bid >= market
        price: float | None = market
        if exchange == "blind" and not won:
            price = None
        if exchange == "first":
            price = bid if won else None
        rows.append(
            {
                "exchange": exchange,
                "price": price if rng.random() < 0.97 else None,
                "bid": bid,
                "won": int(won),
                "click": int(rng.random() < 0.3) if won else None,
                "weight": float(rng.choice([1.0, 2.0])),
                "pctr": float(np.float32(rng.uniform(0.01, 0.3))),
                "pother": float(np.float32(rng.uniform(0.01, 0.3))),
            }
        )
    return rows


def class_of(row: Row, field: str) -> str:
    bid, first = 100 * row[field], row["exchange"] == "first"
    if row["price"] is None and row["won"] and not first:
        return "undecidable"
    if row["price"] is not None:
        return "unknown_outcome" if bid >= row["price"] and not row["won"] else "exact"
    if row["won"]:
        return "exact" if bid >= row["bid"] else "unknown_win"
    return "unknown_win" if bid > row["bid"] else "exact_loss"


def run(rows: list[Row], **keys: Any) -> Any:
    keys = {"auction": {"type": "case when exchange = 'first' then 'first_price' else 'second_price' end"}, **keys}
    return replay(rows, bid={"formula": FORMULA}, candidates=CANDIDATE, fidelity="warn", **keys)


@pytest.mark.parametrize("budget", [None, {"amount": "1000", "per": "total"}], ids=["free", "budget that never binds"])
def test_shares_of_each_exchange_are_those_of_its_rows(budget: dict[str, Any] | None) -> None:
    rows = make_log()
    result = run(rows, **({"budget": budget} if budget else {}))
    told = result.diagnostics["exchanges"]
    weight = {e: sum(r["weight"] for r in rows if r["exchange"] == e) for e in ("adx", "blind", "first")}
    assert [t["exchange"] for t in told] == sorted(weight, key=lambda e: -weight[e])
    for t in told:
        mine = [r for r in rows if r["exchange"] == t["exchange"]]
        assert t["rows"] == len(mine)
        assert t["auction"] == ("first_price" if t["exchange"] == "first" else "second_price")
        for policy, field in (("baseline", "pctr"), ("new", "pother")):
            for name, share in t["policies"][policy].items():
                expected = sum(r["weight"] for r in mine if class_of(r, field) == name) / weight[t["exchange"]]
                assert share == pytest.approx(expected, abs=1e-12), (t["exchange"], policy, name)
        settle = {s["column"]: s["rows"] for s in t["would_settle"]}
        either = [r for r in mine if "unknown_win" in (class_of(r, "pctr"), class_of(r, "pother"))]
        assert settle.get("price", 0.0) == pytest.approx(sum(r["weight"] for r in either) / weight[t["exchange"]])
        lost = sum(r["weight"] for r in either if not r["won"]) / weight[t["exchange"]]
        assert settle.get("loss_reason", 0.0) == pytest.approx(lost)


def test_an_exchange_whose_wins_pay_their_bid_looks_first_price() -> None:
    rows = [{**r, "exchange": "first" if i % 2 else "adx"} for i, r in enumerate(make_log(1200))]
    for r in rows:
        if r["won"]:
            r["price"] = r["bid"] if r["exchange"] == "first" else r["bid"] / 2
    told = {t["exchange"]: t for t in run(rows, auction={"type": "second_price"}).diagnostics["exchanges"]}
    assert told["first"]["looks_like"] == "first_price"
    assert told["first"]["auction"] == "second_price"
    assert told["adx"]["looks_like"] == "second_price"


def test_a_log_that_leaves_nothing_open_has_no_table_and_one_without_exchanges_is_one() -> None:
    known = [{**r, "won": 1, "click": 0, "price": 1.0} for r in make_log(50)]
    assert "exchanges" not in run(known).diagnostics
    rows = [{k: v for k, v in r.items() if k != "exchange"} for r in make_log(200)]
    (told,) = run(rows, auction={"type": "second_price"}).diagnostics["exchanges"]
    assert told["exchange"] is None
    assert told["rows"] == 200


def test_the_report_shows_it() -> None:
    page = render_report(run(make_log()))
    assert "What can be known of each exchange" in page
    assert "the minimum bid to win, of lost auctions too" in page
