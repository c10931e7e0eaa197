"""Win curves: the product-limit estimator and the monotone fit against plain code, and chances between bids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from bidsim.statistics.winning import (
    CELLS,
    EDGES,
    ROUNDS,
    SETTLED,
    Curves,
    cell_of,
    expected_win,
    monotone,
    product_limit,
    self_consistent,
)


def kaplan_meier(prices: list[float], censored: list[float], at: float) -> float:
    """P(price <= at), one death after the other; a bid that lost at a price's size is still at risk there."""
    alive = 1.0
    for p in sorted(set(prices)):
        if p > at:
            break
        risk = sum(x >= p for x in prices) + sum(x >= p for x in censored)
        alive *= 1 - prices.count(p) / risk
    return 1 - alive


# Every second cell holds prices, the cells between them losses: then the life-table form is the product limit itself.
even = st.integers(1, 40).map(lambda i: float(EDGES[400 + 2 * i]))
odd = st.integers(1, 40).map(lambda i: float(EDGES[401 + 2 * i]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(even, min_size=1, max_size=30), st.lists(odd, max_size=30), even)
def test_the_product_limit_is_kaplan_and_meiers(prices: list[float], losses: list[float], at: float) -> None:
    events, censored = (np.bincount(cell_of(np.array(x)), minlength=CELLS + 1).astype(float) for x in (prices, losses))
    chance = product_limit(events, censored)
    assert chance[cell_of(np.array([at]))[0]] == pytest.approx(kaplan_meier(prices, losses, at), abs=1e-12)
    assert (np.diff(chance) >= 0).all()


def test_the_monotone_fit_is_isotonic_regression_at_the_bids() -> None:
    rng = np.random.default_rng(20261204)
    bids = rng.choice(EDGES[700:900:7], 500)
    won = rng.random(500) < bids / bids.max()
    cells = cell_of(bids)
    wins, losses = (np.bincount(cells[m], minlength=CELLS + 1).astype(float) for m in (won, ~won))
    fit = IsotonicRegression().fit(cells, won)
    middle = (EDGES[cells - 1] + EDGES[cells]) / 2
    found, _ = Curves.of(monotone(wins, losses)[None, :]).at(np.zeros(500, dtype=np.int64), middle)
    assert found == pytest.approx(fit.predict(cells), abs=0.03)
    assert (np.diff(monotone(wins, losses)) >= 0).all()


def by_cell(values: np.ndarray) -> np.ndarray:
    return np.bincount(cell_of(values), minlength=CELLS + 1).astype(float)


def test_the_step_by_step_fit_is_the_product_limit_where_every_win_shows_its_price() -> None:
    rng = np.random.default_rng(20261127)
    price, bid = rng.gamma(2.0, 4.0, 4000), rng.gamma(2.0, 5.0, 4000)
    prices, losses = by_cell(price[price <= bid]), by_cell(bid[price > bid])
    found, expected = self_consistent(prices, losses, np.zeros(CELLS + 1)), product_limit(prices, losses)
    # Beyond the last price nothing is known.
    known = np.arange(CELLS + 1) <= cell_of(price[price <= bid]).max()
    assert found[known] == pytest.approx(expected[known], abs=0.002)


@pytest.mark.parametrize("shown", [0.0, 0.02, 0.5])
def test_the_step_by_step_fit_finds_the_curve_whatever_share_of_the_wins_shows_a_price(shown: float) -> None:
    rng = np.random.default_rng(20261128)
    price, bid = rng.gamma(2.0, 4.0, 40_000), rng.gamma(2.0, 5.0, 40_000)
    won, seen = price <= bid, rng.random(40_000) < shown
    found = self_consistent(by_cell(price[won & seen]), by_cell(bid[~won]), by_cell(bid[won & ~seen]))
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[-1]) == (pytest.approx(0.0, abs=0.01), pytest.approx(1.0, abs=0.02))
    for at in (2.0, 5.0, 8.0, 15.0, 25.0):
        assert found[cell_of(np.array([at]))[0]] == pytest.approx((price <= at).mean(), abs=0.03)


@pytest.mark.parametrize("seed", range(6))
def test_the_step_by_step_fit_is_turnbulls_row_by_row(seed: int) -> None:
    """Each auction by itself: its price lies where the curve says among the cells that are left for it."""
    rng = np.random.default_rng(seed)
    cells = [[int(c) for c in rng.integers(0, 12, rng.integers(0, 7)) * 130] for _ in range(3)]
    cells[1].append(CELLS if seed % 2 else 900)  # a loss at the last cell leaves what lies beyond all of them
    seen, lost, won = cells
    rows = []
    for kind, many in enumerate(cells):
        for cell in many:
            may = np.zeros(CELLS + 2)
            may[cell] = 1.0 if kind == 0 else 0.5
            if kind == 1:
                may[cell + 1 :] = 1.0
            if kind == 2:
                may[:cell] = 1.0
            rows.append(may)
    mass = np.full(CELLS + 2, 1 / (CELLS + 2))
    for _ in range(ROUNDS):
        before = mass
        mass = np.sum([may * mass / (may * mass).sum() for may in rows], axis=0) / len(rows)
        if np.abs(np.cumsum(mass - before)).max() < SETTLED:
            break
    found = self_consistent(*(np.bincount(c, minlength=CELLS + 1).astype(float) for c in (seen, lost, won)))
    assert found == pytest.approx(np.cumsum(mass[:-1]), abs=1e-9)


def test_a_log_without_a_row_says_nothing_of_prices() -> None:
    nothing = np.zeros(CELLS + 1)
    assert not self_consistent(nothing, nothing, nothing).any()


def test_chances_and_costs_between_bids_are_those_of_the_curve() -> None:
    """An even market from 0 to 8 CPM: F(b) = b / 8."""
    curves = Curves.of(np.minimum(EDGES / 8.0, 1.0)[None, :])
    zero = np.zeros(5, dtype=np.int64)
    bid, logged = np.array([4.0, 6.0, 8.0, 20.0, 3.0]), np.array([2.0, 2.0, np.nan, 4.0, 6.0])
    no, yes = np.zeros(5, dtype=bool), np.ones(5, dtype=bool)
    chance, cost = expected_win(curves, zero[:4], bid[:4], logged[:4], no[:4], no[:4])
    assert chance == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0], rel=1e-3)
    assert cost == pytest.approx([3.0 / 3, 4.0 * 2 / 3, 4.0, 6.0], rel=1e-3)
    # A floor of 3 between the bid that lost and this one: half of what it wins at 2 to 4 would have cost less.
    chance, cost = expected_win(curves, zero[:1], bid[:1], logged[:1], no[:1], no[:1], np.array([3.0]))
    assert (chance[0], cost[0] / chance[0]) == pytest.approx((1 / 3, 3.25), rel=1e-3)
    chance, cost = expected_win(curves, zero[:1], bid[:1], logged[:1], no[:1], no[:1], np.array([4.5]))
    assert (chance[0], cost[0]) == (0.0, 0.0)
    # At the floor itself all that it wins costs the floor.
    chance, cost = expected_win(curves, zero[:1], bid[:1], logged[:1], no[:1], no[:1], np.array([4.0]))
    assert (chance[0], cost[0] / chance[0]) == pytest.approx((1 / 3, 4.0), rel=1e-3)
    # A floor of half a CPM, below which an auction without a logged bid has nothing to sell.
    chance, cost = expected_win(curves, zero[:1], bid[:1], logged[2:3], no[:1], no[:1], np.array([0.5]))
    assert (chance[0], cost[0]) == pytest.approx((0.5, 0.5 * 0.5 / 8 + (4.0**2 - 0.5**2) / 16), rel=1e-3)
    # A first-price win at 6 whose price nobody knows: a bid of 3 wins half of them, and pays 3.
    chance, cost = expected_win(curves, zero[4:], bid[4:], logged[4:], yes[4:], yes[4:])
    assert (chance[0], cost[0]) == pytest.approx((0.5, 1.5), rel=1e-3)


def test_where_the_log_never_saw_a_higher_price_nothing_more_is_won() -> None:
    curves = Curves.of(np.where(EDGES >= 4.0, 1.0, 0.0)[None, :])
    chance, cost = expected_win(
        curves, np.zeros(1, dtype=np.int64), np.array([9.0]), np.array([5.0]), np.array([False]), np.array([False])
    )
    assert (chance[0], cost[0]) == (0.0, 0.0)


def test_cells_hold_what_lies_between_their_edges() -> None:
    prices = np.array([0.0, 1e-12, 0.5, 1.0, 3.3, 1e5, 1e12])
    cells = cell_of(prices)
    assert cells[0] == 0
    for price, cell in zip(prices[1:-1], cells[1:-1], strict=True):
        assert EDGES[cell - 1] <= price <= EDGES[cell] * (1 + 1e-12)
    assert cells[-1] == CELLS


def test_a_win_below_every_price_that_the_log_knows_says_nothing_of_lower_bids() -> None:
    curves = Curves.of(np.where(EDGES >= 4.0, 1.0, 0.0)[None, :])
    chance, cost = expected_win(
        curves, np.zeros(1, dtype=np.int64), np.array([2.0]), np.array([3.0]), np.array([True]), np.array([True])
    )
    assert (chance[0], cost[0]) == (0.0, 0.0)
