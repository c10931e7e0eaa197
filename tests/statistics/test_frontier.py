"""What other bid levels would do, from sums by cell: against the rows themselves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from bidsim.statistics.frontier import Grid, Levels, Steps, Totals, climb, climb_growing

Floats = npt.NDArray[np.float64]


def levels_of(grid: Grid, start: Floats, fixed: Floats, growing: Floats | None) -> Levels:
    """One segment value; one click a row."""

    def by_cell(values: Floats) -> npt.NDArray[np.object_]:
        sums = np.zeros((1, grid.cells), dtype=object)
        np.add.at(sums[0], grid.cell(start), values.astype(np.int64).astype(object))
        return sums

    ones = np.ones(len(start))
    return Levels(by_cell(fixed), by_cell(ones), by_cell(0 * ones), None if growing is None else by_cell(growing))


@pytest.mark.parametrize("first_price", [False, True])
def test_slopes_are_what_sums_move_with_the_logarithm_of_the_multiplier(first_price: bool) -> None:
    draw = np.random.default_rng(1)
    start = np.exp(draw.uniform(-3, 3, 40_000))
    money = draw.integers(100, 1000, len(start)).astype(float)
    growing = money if first_price else None
    levels = levels_of(Grid(16, ties_lose=False), start, 0 * money if first_price else money, growing)

    def total(x: float) -> tuple[float, float]:
        won = start <= x
        return float(money[won].sum()) * (x if first_price else 1.0), float(won.sum())

    for x in (0.5, 1.0, 2.5):
        step = 2.0**0.5
        above, below = total(x * step), total(x / step)
        found = levels.slopes(Grid(16, ties_lose=False), np.array([x]))
        for name, a, b in zip(("spend", "clicks"), above, below, strict=True):
            assert found[name][0] == pytest.approx((a - b) / math.log(2), rel=0.06), name


def steps(start: list[float], spend: list[int], growing: list[int]) -> Steps:
    ones = np.ones(len(start), dtype=np.int64)
    return Steps(np.array(start), np.array(spend), ones, 0 * ones, np.array(growing))


def test_what_grows_is_followed_to_the_goal_or_to_just_below_the_step_that_takes_it_further() -> None:
    rows = steps([2.0, 1.0], [0, 0], [10, 10])
    total, at = climb_growing(Totals(0, 0, 0), 0, rows, 15, 4.0)
    assert (total, at) == (Totals(15, 1, 0), 1.5)
    total, at = climb_growing(Totals(0, 0, 0), 0, rows, 25, 4.0)
    assert total == Totals(20, 1, 0)
    assert 2.0 * (1 - 1e-9) < at < 2.0  # at 2 itself the second row is won too
    total, at = climb_growing(Totals(0, 0, 0), 0, rows, 50, 4.0)
    assert (total, at) == (Totals(50, 2, 0), 2.5)


def test_a_bid_that_is_cut_at_its_maximum_grows_no_more() -> None:
    rows = steps([1.0, 2.0], [0, 20], [10, -10])
    total, at = climb_growing(Totals(0, 0, 0), 0, rows, 18, 4.0)
    assert (total.spend, at) == (18, 1.8)
    total, at = climb_growing(Totals(5, 0, 0), 1, rows, 27, 4.0)
    assert (total.spend, at) == (27, 2.0)


def test_steps_at_one_multiplier_are_taken_together_or_not_at_all() -> None:
    rows = steps([1.0, 2.0, 2.0], [3, 4, 5], [0, 0, 0])
    assert climb(Totals(1, 0, 0), rows, 8) == (Totals(4, 1, 0), 1.0)
    assert climb(Totals(1, 0, 0), rows, 13) == (Totals(13, 3, 0), 2.0)
    assert climb(Totals(1, 0, 0), rows, 3) == (Totals(1, 0, 0), None)
