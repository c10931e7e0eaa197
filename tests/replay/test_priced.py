"""Bids and prices by cell against a replay row by row, and the same table however the rows come."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Policy, Row, Rules, bid_of, replay, usable
from test_oracle import CASES, FORMULA, make_log, policy_of, write_log

from bidsim import kernels
from bidsim.kernels import reference
from bidsim.replay.pipeline import run_replay
from bidsim.scenario.loading import scenario_from_dict
from bidsim.statistics.prices import (
    CELLS,
    COUNTED,
    EDGES,
    FATES,
    HIGHEST,
    LOST,
    LOWEST,
    NO_BID,
    PRICE_BUCKETS,
    UNSEEN,
    Prices,
    cells_of,
)
from bidsim.statistics.units import buckets_of, hash_whole
from bidsim.store.statistics import tables_to_parquet


def edge_of(value: float) -> float:
    """The lower end of a value's cell, by the words of the module alone: eight equal steps an octave."""
    if value < LOWEST:
        return 0.0
    if value >= HIGHEST:
        return HIGHEST
    mantissa, exponent = math.frexp(value)
    return math.ldexp(0.5 + math.floor((mantissa - 0.5) * 16) / 16, exponent)


@pytest.mark.parametrize(
    "value",
    [
        *(0.0, -0.0, 5e-324, 1e-300, LOWEST, math.nextafter(LOWEST, 0)),
        *(1.0, math.nextafter(1.0, 0), 1.124, 1.125, 3.1, 12345.6),
        *(HIGHEST, math.nextafter(HIGHEST, 0), 1e300, 1.7976931348623157e308),
    ],
)
def test_a_cell_is_an_eighth_of_an_octave_and_the_ends_hold_what_is_beyond(value: float) -> None:
    (cell,) = cells_of(np.array([value]))
    assert EDGES[cell] == edge_of(value)
    assert len(EDGES) == CELLS
    assert (np.diff(EDGES) > 0).all()
    assert cell == CELLS - 1 or EDGES[cell] <= value < EDGES[cell + 1]


def test_what_is_no_number_never_leaves_the_grid() -> None:
    cells = cells_of(np.array([math.nan, -math.nan, math.inf, -math.inf, -1.0, -1e300]))
    assert ((cells >= 0) & (cells < CELLS)).all()


def reduced(scenario: dict[str, Any], **settings: Any) -> Prices:
    found = run_replay(scenario_from_dict(scenario, directory=Path()), [], as_of=date(2026, 11, 24), **settings)
    assert found.tables.prices is not None
    return found.tables.prices


def price_of(row: Row) -> float | None:
    price: float | None = row["price"]
    if price is None or not math.isfinite(price) or price < 0:
        return None
    return price if row.get("floor") is None else max(price, row["floor"])


def by_edge(numbers: np.ndarray) -> dict[float, float]:
    return {float(EDGES[i]): float(numbers[i]) for i in np.flatnonzero(numbers)}


def summed(rows: Sequence[Row], policy: Policy, rules: Rules, key: str, *names: str) -> dict[float, float]:
    """Sums of the oracle by a field of the rows that holds the end of a cell, None for rows without one."""
    found = replay(list(rows), policy, rules, key)
    totals = {k: sum((getattr(s, n) for n in names), Fraction(0)) for k, s in found.items() if k is not None}
    return {k: float(v) for k, v in totals.items() if v}


@pytest.mark.parametrize("case", range(len(CASES)))
def test_bids_and_prices_are_those_of_a_replay_row_by_row(case: int, tmp_path: Path) -> None:
    """Budgets, internal auctions, first price, weights, floors: every case of the oracle."""
    options = CASES[case]
    rng = np.random.default_rng([20261127, case])
    rows = make_log(rng, 150, zone="UTC", integer_prices=case % 2 == 0)
    for row in rows:
        if options.get("weights"):
            row["weight"] = [1.0, 2.0, 0.5, 10.0, 0.0, math.nan, -1.0][rng.integers(0, 7)]
        if options.get("floors"):
            row["floor"] = None if rng.random() < 0.5 else float(rng.integers(0, 10))
        if options.get("reasons"):
            row["loss_reason"] = None if rng.random() < 0.5 else int(rng.choice([100, 101, 102, 1, 203]))
        if options.get("no_win"):
            del row["won"]
    scenario: dict[str, Any] = {
        "logs_tables": {"ad": {"path": write_log(rows, tmp_path, files=2)}},
        "timezone": "UTC",
        "bid": {"formula": FORMULA, **options.get("bid", {})},
        "auction": options.get("auction", {}),
        "candidates": {"new": {"columns": {"pctr": "other_ctr"}}},
    }
    budget, bid, auction = options.get("budget"), options.get("bid", {}), options.get("auction", {})
    if options.get("window"):
        scenario["logs_tables"]["ad"] |= {"last_hour": "2026-03-07T19:00:00+00:00", "duration_hour": 8}
    if budget:
        scenario["budget"] = budget
    prices = reduced(scenario)
    rules = Rules(
        first_price=auction.get("type") == "first_price",
        ties_lose=auction.get("ties") == "lose",
        zone="UTC",
        budget=budget["amount"] if budget else None,
        per=budget["per"] if budget else "day",
        never=bool(budget) and budget.get("overspend") == "never",
        even=bool(budget) and budget.get("pacing") == "even",
        internal=auction.get("internal", False),
        has_win=not options.get("no_win"),
    )
    if options.get("window"):
        start = rows[0]["time"].replace(hour=12, minute=0)
        rules.window = start, start.replace(hour=20)
    weight = {id(r): w if math.isfinite(w := r.get("weight", 1.0)) and w >= 0 else 0.0 for r in rows}
    known: dict[tuple[bool, bool], float] = defaultdict(float)
    total: dict[float, float] = defaultdict(float)
    for row in rows:
        price = price_of(row)
        row["price_edge"] = None if price is None else edge_of(price)
        known[(row.get("won", 1) == 1, price is not None)] += weight[id(row)]
        if price is not None and weight[id(row)]:
            total[edge_of(price)] += weight[id(row)]
    assert by_edge(prices.priced) == total
    assert {(bool(i), bool(j)): prices.known[i, j] for i in (0, 1) for j in (0, 1) if prices.known[i, j]} == {
        k: v for k, v in known.items() if v
    }
    for i, pctr in enumerate(("pctr", "other_ctr")):
        policy = policy_of(bid, pctr)
        for row in rows:
            mine = bid_of(policy, row) if usable(row, rules) else None
            row["bid_edge"] = None if mine is None else edge_of(mine)
        assert by_edge(prices.bids[i]) == summed(rows, policy, rules, "bid_edge", "bids")
        fates = prices.fates[i].sum(axis=1)
        assert by_edge(fates[COUNTED]) == summed(rows, policy, rules, "price_edge", "wins")
        assert by_edge(fates[UNSEEN]) == summed(rows, policy, rules, "price_edge", "unknown_outcomes")
        assert by_edge(fates[[LOST, UNSEEN, COUNTED]].sum(axis=0)) == summed(rows, policy, rules, "price_edge", "bids")
        assert by_edge(fates.sum(axis=0)) == total


def plain_log(n: int = 3000) -> list[Row]:
    rng = np.random.default_rng(7)
    rows = make_log(rng, n, zone=None, integer_prices=False)
    for row in rows:
        row["price"] = [0.0, row["price"], 1e-9][rng.choice(3, p=[0.1, 0.8, 0.1])]
        row["block"] = int(rng.integers(0, 500))
    return rows


def scenario_of(path: str) -> dict[str, Any]:
    return {
        "logs_tables": {"ad": {"path": path}},
        "columns": {"unit": "block"},
        "bid": {"formula": FORMULA},
        "candidates": {"new": {"columns": {"pctr": "other_ctr"}}, "none": {"bid": {"min": 1e12}}},
    }


def test_rows_are_counted_in_the_bucket_of_their_unit_and_zero_is_a_price(tmp_path: Path) -> None:
    rows = plain_log()
    prices = reduced(scenario_of(write_log(rows, tmp_path)))
    bucket = buckets_of(hash_whole(np.array([row["block"] for row in rows]))) // 4
    expected = np.zeros((PRICE_BUCKETS, CELLS))
    for row, at in zip(rows, bucket, strict=True):
        price = price_of(row)
        if price is not None:
            expected[at, int(np.flatnonzero(edge_of(price) == EDGES)[0])] += 1
    for policy in range(3):
        assert (prices.fates[policy].sum(axis=0) == expected).all()
    assert prices.priced[0] == sum((p := price_of(row)) is not None and p < LOWEST for row in rows) > 500
    assert not prices.bids[2].any()
    assert not prices.fates[2, 1:].any()
    assert prices.fates[2, NO_BID].sum() == expected.sum()
    assert prices.fates.shape == (3, len(FATES), PRICE_BUCKETS, CELLS)


def test_the_table_is_the_same_for_any_order_threads_and_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bidsim.replay.pipeline import Settings

    rows = plain_log()
    for name, files, order in (("one", 1, range(len(rows))), ("three", 3, np.random.default_rng(3).permutation(3000))):
        (tmp_path / name).mkdir()
        write_log([rows[i] for i in order], tmp_path / name, files=files)

    def content(name: str, threads: int) -> bytes:
        scenario = scenario_of(str(tmp_path / name / "*.parquet"))
        found = run_replay(
            scenario_from_dict(scenario, directory=Path()),
            [],
            as_of=date(2026, 11, 24),
            settings=Settings(threads=threads),
        )
        return tables_to_parquet(found.tables)

    first = content("one", 1)
    assert content("three", 4) == first
    monkeypatch.setattr(kernels, "cells", reference.cells)
    assert content("three", 2) == first
