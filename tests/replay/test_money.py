"""Money is exact (spec 3.7, 3.8), and what is no money is counted, never used."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_logs import Row, by_segment, numbers, replay

from bidsim.errors import BidsimError
from bidsim.result import Result

NAN = float("nan")
GOOD: Row = {"campaign": 1, "price": 1.0, "won": 1, "click": 1, "conversion": 1.0, "target_cpa": 100.0, "pctr": 0.5}


def counted(result: Result, policy: str = "baseline") -> tuple[float | None, ...]:
    found = numbers(result, policy)
    return found["bids"], found["wins"], found["spend"]


@settings(
    max_examples=5, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.integers(1, 5000), st.integers(0, 9), st.sampled_from([1, 10, 1000]), st.integers(0, 2**30))
def test_sums_of_many_small_prices_are_exact(n: int, places: int, weight: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10 ** rng.integers(1, 8), n)
    table = pa.table(
        {
            "campaign": np.arange(n) % 3,
            "price": [float(f"{d}e-{places}") for d in digits.tolist()],
            "click": np.ones(n),
            "weight": np.full(n, float(weight)),
            "pctr": np.ones(n, np.float32),
        }
    )
    result = replay(table, bid={"formula": "1e9"}, segments=["campaign"], threads=2)
    total = Fraction(int(digits.sum()) * weight, 10 ** (places + 3))
    assert numbers(result, "new")["spend"] == float(total)
    assert numbers(result, "new")["cpm"] == pytest.approx(float(total * 1000 / (n * weight)), rel=1e-15)
    for value, found in by_segment(result, "new", "campaign", ["spend"]).items():
        mine = Fraction(int(digits[int(value) :: 3].sum()) * weight, 10 ** (places + 3))
        assert found["spend"] == float(mine)


def test_the_smallest_unit_next_to_large_amounts_is_not_lost() -> None:
    # A float sum of these prices would swallow the small ones: 1e-9 CPM is 2^-53 of the large.
    prices = [1e-9] * 1000 + [4_000_000.0] + [1e-9] * 1000
    result = replay([{**GOOD, "price": p} for p in prices], bid={"formula": "1e8"})
    assert counted(result) == (2001.0, 2001.0, float(Fraction(4_000_000_000_002_000, 10**12)))


UNUSABLE = [-1.0, -1e-300, NAN, math.inf, -math.inf, 1e15, 9e9]


def test_prices_that_are_no_price_are_counted_and_never_paid() -> None:
    rows = [GOOD, {**GOOD, "price": 0.0}, {**GOOD, "price": 8_999_999_999.0}, *({**GOOD, "price": p} for p in UNUSABLE)]
    result = replay(rows, bid={"formula": "1e12"})
    assert result.diagnostics["invalid_prices"] == len(UNUSABLE)
    assert counted(result) == (3.0, 3.0, 9_000_000.0)
    # Won by the log at a price that can't be: in second price what it paid is unknown.
    assert numbers(result, "baseline")["undecidable"] == len(UNUSABLE)
    assert "invalid_prices" in {f.code for f in result.findings}


def test_a_price_is_unusable_where_its_weight_makes_it_too_large_to_be_exact() -> None:
    rows = [{**GOOD, "price": 5e9, "weight": w} for w in (1.0, 1.75, 2.0)]
    result = replay(rows, bid={"formula": "1e12"})
    assert result.diagnostics["invalid_prices"] == 1
    assert counted(result) == (2.75, 2.75, 2.75 * 5e6)


def test_a_floor_that_no_bid_can_pay_makes_the_price_unusable() -> None:
    rows = [{**GOOD, "floor": f} for f in (None, 2.0, 1e12, 9e9)]
    result = replay(rows, bid={"formula": "1e13"})
    assert result.diagnostics["invalid_prices"] == 2
    assert counted(result) == (2.0, 2.0, 0.003)


@pytest.mark.parametrize(
    "row",
    [{**GOOD, "target_cpa": 1e300}, {**GOOD, "conversion": 1e6, "weight": 1e6}],
    ids=["target", "conversions"],
)
def test_results_too_large_to_sum_are_refused_or_right(row: Row) -> None:
    try:
        result = replay([row, row], bid={"formula": "20"})
    except BidsimError:
        return
    found, weight = numbers(result, "new"), row.get("weight", 1.0)
    assert found["conversions"] == 2 * weight * row["conversion"]
    assert found["value"] == pytest.approx(2 * weight * row["conversion"] * row["target_cpa"])


def test_a_missing_price_is_not_an_invalid_one() -> None:
    result = replay([GOOD, {**GOOD, "price": None}], bid={"formula": "10"})
    assert result.diagnostics["invalid_prices"] == 0
    assert numbers(result, "baseline")["undecidable"] == 1.0


def test_weights_that_are_no_weight_leave_the_row_out_and_are_counted() -> None:
    bad = [-1.0, NAN, None, math.inf, 1e15]
    rows = [{**GOOD, "weight": w} for w in (3.0, 0.0, 0.25, *bad)]
    result = replay(rows, bid={"formula": "10"})
    assert result.diagnostics["invalid_weights"] == len(bad)
    assert counted(result) == (3.25, 3.25, 0.00325)


def test_bids_that_are_no_bid_are_not_entered() -> None:
    formulas = {
        "null": "case when pctr > 2 then 1 end", "nan": "cast('nan' as double)", "infinite": "cast('inf' as double)",
        "zero": "0 * pctr", "negative": "-pctr", "by zero": "1 / (pctr - pctr)",
    }  # fmt: skip
    result = replay([GOOD], bid={"formula": "10"}, candidates={k: {"bid": {"formula": f}} for k, f in formulas.items()})
    for name in formulas:
        assert counted(result, name) == (0.0, 0.0, 0.0), name
        assert numbers(result, name)["cpc"] is None


def test_a_price_of_nothing_is_won_for_nothing() -> None:
    result = replay([{**GOOD, "price": 0.0}], bid={"formula": "0.001"})
    assert counted(result) == (1.0, 1.0, 0.0)
    found = numbers(result, "baseline")
    assert (found["cpc"], found["cpa"], found["cpm"]) == (0.0, 0.0, 0.0)
    assert (found["roi"], found["coverage"]) == (None, None)  # over a spend of zero


@pytest.mark.parametrize("overspend", ["last_win", "never"])
@pytest.mark.parametrize("budget", [0.3, 8695.61, 123456.789])
def test_the_last_affordable_auction_is_won_and_no_other(overspend: str, budget: float) -> None:
    # Ten equal prices come to the budget exactly, though ten float additions would not.
    rows = [{**GOOD, "request": i, "price": round(budget * 100, 6)} for i in range(12)]
    result = replay(rows, bid={"formula": "1e9"}, budget={"amount": budget, "per": "total", "overspend": overspend})
    assert counted(result) == (10.0, 10.0, budget)


def refuse(constant: str) -> Any:
    raise AssertionError(constant)


@pytest.mark.parametrize(
    "rows",
    [
        [{**GOOD, "price": None, "won": 0, "click": None, "conversion": None}],
        [{**GOOD, "pctr": NAN}],
        [{**GOOD, "weight": 0.0}],
        [{**GOOD, "weight": NAN}],
        [{**GOOD, "target_cpa": NAN}, {**GOOD, "target_cpa": math.inf}, {**GOOD, "target_cpa": -5.0}],
        [{**GOOD, "click": 0, "conversion": 0.0, "pctr": 0.0}],
        [{**GOOD, "pctr": 1.0}, {**GOOD, "pctr": 0.0}],
        [{**GOOD, "conversion": NAN}, {**GOOD, "conversion": -2.0}, {**GOOD, "conversion": math.inf}],
        [{**GOOD, "floor": NAN}, {**GOOD, "floor": math.inf}, {**GOOD, "floor": -3.0}],
        [{**GOOD, "price": 1e-300}, {**GOOD, "price": 5e-324}],
    ],
    ids=[
        "lost",
        "no prediction",
        "weightless",
        "no weight",
        "targets",
        "no result",
        "sure",
        "labels",
        "floors",
        "tiny",
    ],
)
def test_a_log_of_nothing_but_odd_rows_gives_a_result_without_nan(rows: list[Row]) -> None:
    budgeted = {"auction": {"type": "first_price"}, "budget": {"amount": 1.0, "per": "total"}}
    for keys in ({}, budgeted):
        result = replay(rows, bid={"formula": "20"}, segments=["campaign"], **keys)
        document = json.loads(result.to_json(), parse_constant=refuse)
        assert document["data"]["rows"] == len(rows)
        for record in [*document["metrics"], *document["frontier"]]:
            assert all(math.isfinite(v) for v in record.values() if isinstance(v, float))


def test_weights_so_small_that_counts_round_them_are_said() -> None:
    """Spec 3.8: every count and sum is multiplied by the row's weight."""
    row: Row = {"campaign": 1, "price": 1.0, "won": 1, "click": 1, "pctr": 0.5}
    for weight, said in ((1e-7, True), (0.0, False), (0.001, False)):
        result = replay([{**row, "weight": weight}] * 9, bid={"formula": "9"})
        found = [f.message for f in result.findings if f.code == "small_weights"]
        assert bool(found) == said
        assert not said or found[0].startswith("9 rows have a weight below 1/1024")
