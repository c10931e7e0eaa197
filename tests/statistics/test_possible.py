"""No interval reaches beyond what its number can be at all, in logs of few units with results that jump about."""

from __future__ import annotations

import numpy as np
import pytest
from small_logs import Row, replay

from bidsim.statistics.possible import limits_of, within


def log(seed: int, units: int, rate: float) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(12 * units):
        p = float(np.clip(rng.beta(8 * rate, 8 * (1 - rate)), 0.01, 0.99))
        won = int(rng.random() < 0.85)
        click = int(rng.random() < p) if won and rng.random() < 0.95 else None
        rows.append(
            {"unit": i % units, "campaign": int(rng.integers(3)), "price": float(rng.exponential(5)), "bid": 9.0}
            | {"won": won, "click": click, "target_cpc": float(rng.choice([0.5, 20])), "pctr": p}
            | {"pnew": float(np.clip(p * rng.lognormal(0, 0.6), 0, 1))}
        )
    return rows


@pytest.mark.parametrize(("units", "rate"), [(6, 0.5), (9, 0.1), (12, 0.9)])
def test_no_interval_reaches_beyond_what_its_number_can_be(units: int, rate: float) -> None:
    found = replay(
        log(20261126, units, rate),
        candidates={"new": {"columns": {"pctr": "pnew"}}},
        performance_indicator_type="cpc",
        segments=["campaign"],
        fidelity="warn",
    )
    seen = set()
    for m in found.metrics:
        low, high = limits_of(m.metric)
        if m.low is not None and m.high is not None and m.value is not None:
            assert min(low, m.value) <= m.low <= m.high <= max(high, m.value), m
            seen |= {m.metric} if m.low == low or m.high == high else set()
    for d in found.differences:
        for change, quantity in ((d.absolute, "absolute"), (d.relative, "relative")):
            low, high = limits_of(d.metric, quantity)  # type: ignore[arg-type]
            if change.low is not None and change.high is not None:
                assert low <= change.low <= change.high <= high, d
    assert seen, "this log is too tame to show anything"
    for curve in found.calibration:
        for b in curve.bins:
            if b.low is not None and b.high is not None:
                assert 0 <= b.low <= b.observed <= b.high <= 1, b


@pytest.mark.parametrize(
    ("metric", "quantity", "limits"),
    [
        ("auc", "value", (0, 1)),
        ("auc", "absolute", (-1, 1)),
        ("spend", "value", (0, np.inf)),
        ("spend", "absolute", (-np.inf, np.inf)),
        ("ece", "relative", (-1, np.inf)),
        ("surplus", "relative", (-np.inf, np.inf)),
        ("roi", "value", (-1, np.inf)),
        ("roi", "relative", (-np.inf, np.inf)),
        ("calibration_error", "value", (-np.inf, np.inf)),
        ("uncertainty", "value", (0, 0.25)),
    ],
)
def test_costs_counts_and_distances_are_not_negative_and_shares_at_most_one(
    metric: str, quantity: str, limits: tuple[float, float]
) -> None:
    assert limits_of(metric, quantity) == limits  # type: ignore[arg-type]


def test_an_end_is_drawn_in_to_the_limit_but_never_past_the_value() -> None:
    value, low, high = (
        np.array([0.5, 0.5, -1e-18, np.nan]),
        np.array([-2, 0.4, -2, np.nan]),
        np.array([3, 0.6, 3, np.nan]),
    )
    found = within(value, (low, high), (0.0, 1.0))
    np.testing.assert_array_equal(found, [[0, 0.4, -1e-18, np.nan], [1, 0.6, 1, np.nan]])


@pytest.mark.parametrize("label", [0, 1])
def test_predictions_of_rows_with_one_label_have_no_interval_and_the_same_ones_differ_by_nothing(label: int) -> None:
    """None of 600 clicks says only that up to 3.7 may come, and each would cost a log loss as much as all others do."""
    rows = [{**r, "won": 1, "click": label} for r in log(5, 50, 0.2)]
    found = replay(
        rows,
        candidates={"new": {"columns": {"pctr": "pnew"}}, "same": {"bid": {"multiplier": 1.0}}},
        performance_indicator_type="cpc",
        segments=["campaign"],
        fidelity="warn",
    )
    names = ("logloss", "brier", "uncertainty", "ece", "calibration_error")
    own = [m for m in found.metrics if m.metric in names]
    assert len(own) == 3 * 5 * 4
    assert all(m.value is not None and m.low is None for m in own)
    changes = [d for d in found.differences if d.metric in names]
    assert all(d.absolute.low is None for d in changes if d.policy == "new")
    assert all((d.absolute.low, d.absolute.high) == (0, 0) for d in changes if d.policy == "same" and not d.segment)
