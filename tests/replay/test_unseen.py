"""Spec 4: a change whose spread nobody saw has no interval, since a spread of zero would be no knowledge."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from small_logs import Row, replay

from bidsim.result import Difference, Result


@cache
def saturated() -> Result:
    """Nearly every row is won by both policies; of the hundred dear ones each wins half, and none brought a result. In
    campaign 2 both win everything, and nothing comes of it."""
    rng = np.random.default_rng(20261126)
    rows: list[Row] = []
    for i in range(1600):
        dear = i % 15 == 0 and i < 1500
        p = float(np.float32(rng.uniform(0.1, 0.2)))
        better = i % 30 == 0
        rows.append(
            {
                "request": i,
                "unit": i % 400,
                "campaign": 1 if i < 1500 else 2,
                "price": 12.0 if dear else float(np.round(rng.uniform(1.0, 5.0), 3)),
                "won": 1,
                "click": int(not dear and rng.random() < 0.5),
                "conversion": float(not dear and i < 1500 and rng.random() < 0.3),
                "pctr": 0.13 if dear and better else 0.05 if dear else p,
                "pother": 0.05 if dear and better else 0.13 if dear else p * 1.01,
                "pcvr": 0.5,
            }
        )
    return replay(
        rows,
        columns={"target_cpa": "20e0"},
        performance_indicator_type="cpa",
        bid={"formula": "100 * pctr"},
        candidates={"new": {"columns": {"pctr": "pother", "pcvr": "pcvr"}}},
        segments=["campaign"],
    )


def change(metric: str, **segment: str) -> Difference:
    return next(d for d in saturated().differences if d.metric == metric and d.segment == segment)


def test_money_that_no_row_was_cheap_enough_for_is_in_the_interval() -> None:
    """Both win all but one row each; the candidate's costs more than is left, so it buys the same results for less."""
    rows: list[Row] = [
        {
            "request": i,
            "unit": i,
            "price": 4.0,
            "won": 1,
            "click": int(i % 10 == 0),
            "pctr": 0.1,
            "pother": 0.1,
        }
        for i in range(400)
    ]
    rows[1] |= {"price": 5.0, "pother": 0.04}
    rows[2] |= {"price": 6.0, "pctr": 0.05}
    found = replay(
        rows, columns={"target_cpc": "100e0"}, performance_indicator_type="cpc",
        bid={"formula": "100 * pctr"}, candidates={"new": {"columns": {"pctr": "pother"}}},
    )  # fmt: skip
    cpc = next(d for d in found.differences if d.metric == "cpc_at_matched_spend")
    assert cpc.relative.value is not None
    assert cpc.relative.value < 0
    assert cpc.relative.low is not None
    assert cpc.relative.high is not None
    assert cpc.relative.low <= cpc.relative.value < 0.0 <= cpc.relative.high + 1e-12


@pytest.mark.parametrize(
    "metric",
    ["conversions", "value", "surplus", "expected_utility", "conversions_at_matched_spend", "cpa_at_matched_spend"],
)
def test_a_change_of_results_that_nobody_saw_has_no_interval(metric: str) -> None:
    found = change(metric)
    assert found.absolute.value is not None
    for estimate in (found.absolute, found.relative):
        assert (estimate.low, estimate.high) == (None, None)
    assert change("spend").relative.low is not None


def test_parts_of_a_change_that_nobody_saw_have_no_interval() -> None:
    ranking = {p.metric: p for p in saturated().split if p.part == "ranking"}
    for name in ("clicks", "conversions"):
        assert ranking[name].absolute.value is not None
        for estimate in (ranking[name].absolute, ranking[name].relative):
            assert (estimate.low, estimate.high) == (None, None)
    assert ranking["spend"].absolute.low is not None


def test_what_money_earns_that_brought_nothing_has_no_interval() -> None:
    """As CPA has none: a return of -100% is not known to be one."""
    for metric in ("surplus", "roi", "expected_utility"):
        found = next(
            m for m in saturated().metrics if (m.policy, m.metric, m.segment) == ("new", metric, {"campaign": "2"})
        )
        assert found.value is not None
        assert found.value < 0
        assert (found.low, found.high) == (None, None)


def test_a_multiplier_that_buys_everything_has_no_interval() -> None:
    found = next(
        m
        for m in saturated().metrics
        if (m.policy, m.metric, m.segment) == ("new", "multiplier_at_matched_spend", {"campaign": "2"})
    )
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
