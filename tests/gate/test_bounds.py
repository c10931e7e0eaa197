"""A bound as numbers: its edges belong to it, and the least excess over an interval is that of its best point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.gate.bounds import Bound
from bidsim.gate.judging import _relative

NUMBERS = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3))


def bound(low: float, high: float) -> Bound:
    return Bound("value", low, high, "words")


@settings(max_examples=200, deadline=None)
@given(
    edges=st.tuples(NUMBERS, NUMBERS),
    interval=st.tuples(NUMBERS, NUMBERS),
    kind=st.sampled_from(["both", "low", "high"]),
)
def test_the_least_excess_is_that_of_the_best_point_of_the_interval(
    edges: tuple[float, float], interval: tuple[float, float], kind: str
) -> None:
    low, high = sorted(edges)
    limit = bound(low if kind != "high" else -math.inf, high if kind != "low" else math.inf)
    start, end = sorted(interval)
    points = np.linspace(start, end, 2001)
    best = min(limit.excess(float(x)) for x in points)
    assert limit.least_excess(start, end) == pytest.approx(best, abs=0.06)
    assert limit.least_excess(start, end) <= best + 1e-9


def test_how_far_beyond_and_on_which_side() -> None:
    limit = bound(1.0, 3.0)
    assert [limit.excess(x) for x in (0.5, 1.0, 2.0, 2.75, 4.0)] == [0.5, 0.0, -1.0, -0.25, 1.0]
    assert [limit.above(x) for x in (0.5, 1.9, 2.0, 2.1, 4.0)] == [False, False, True, True, True]
    assert limit.holds(3.0 + 1e-13)
    assert not limit.holds(3.0 + 1e-9)
    assert not limit.holds(math.inf)
    assert bound(1.0, math.inf).holds(math.inf)  # where there is no upper edge nothing is beyond it
    assert bound(-math.inf, 1.0).holds(-math.inf)
    # An edge of binary fractions is as sharp whatever its size.
    assert bound(0.0, 0.3).holds(0.3 + 1e-13)
    assert bound(0.0, 3e9).holds(3e9 * (1 + 1e-13))
    assert not bound(0.0, 3e9).holds(3e9 * (1 + 1e-11))


def test_an_interval_that_only_touches_is_not_outside() -> None:
    limit = bound(1.0, 3.0)
    assert limit.excludes(0.0, 0.9)
    assert limit.excludes(3.1, 4.0)
    assert not limit.excludes(0.0, 1.0)
    assert not limit.excludes(3.0, 4.0)
    assert not limit.excludes(0.0, 4.0)
    # Nor does it for the last digit of a binary fraction.
    assert not limit.excludes(0.0, 1.0 - 1e-14)
    assert not limit.excludes(3.0 + 1e-14, 4.0)


def test_a_change_against_a_baseline_without_a_bound_loses_all_of_it_or_knows_nothing() -> None:
    assert _relative(5.0, math.inf) == -1.0
    assert _relative(math.inf, math.inf) == math.inf
    assert _relative(3.0, -2.0) == 2.5
