"""Spec 3.6 under budgets: money that unknown rows may have spent decides what later rows have left."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from small_logs import Row
from unknown_rows import FATES, SHARED, SUMS, ends, factors, fate_of, make_log, metrics, run, span


def settled(
    rows: list[Row], field: str, fates: list[Any], unknown: list[Any], first_price: bool, amount: float, never: bool
) -> dict[str, float]:
    """A policy's sums under each campaign's budget, one row after the other, where row i has the fate fates[i]."""
    out = dict.fromkeys((*SUMS, "bids"), 0.0)
    spent: dict[Any, Fraction] = defaultdict(Fraction)
    limit = Fraction(str(amount))
    for r, fate, options in zip(rows, fates, unknown, strict=True):
        bid, w, c = 100 * r[field], Fraction(r["weight"]), r["campaign"]
        if spent[c] >= limit or (r["price"] is None and r["won"] and not first_price):
            continue
        left = limit - spent[c]
        adds, floor_ = None, Fraction(0)
        if options is None:
            if not (bid >= r["price"] if r["price"] is not None else r["won"] and bid >= r["bid"]):
                continue
            cost = money(bid if first_price else r["price"], w)
            floor_ = money(r["price"] if r["price"] is not None else r["bid"], w)
            adds = {"clicks": r["click"], "conversions": r["conversion"], "value": r["target_cpa"] * r["conversion"]}
        elif r["price"] is not None:  # won for sure at a known price
            cost, floor_ = money(bid if first_price else r["price"], w), money(r["price"], w)
            if fate != "lost":
                adds = {n: options[fate][n] / r["weight"] for n in ("clicks", "conversions", "value")}
        elif fate == "lost":
            continue
        else:
            fate, least = fate if isinstance(fate, tuple) else (fate, 0.0)
            cost = money(bid if first_price or fate == "dear" else max(least, r["bid"]), w)
            floor_ = cost if fate == "dear" else Fraction(0) if r["won"] else money(r["bid"], w) + Fraction(1, 10**12)
            if fate == "cheap":
                floor_ = max(floor_, money(least, w))
            adds = {n: options[fate][n] / r["weight"] for n in ("clicks", "conversions", "value")}
        if never:
            if floor_ > left:
                continue
            cost = min(cost, left) if first_price else cost
        spent[c] += cost
        if adds is not None:
            out["wins"] += float(w)
            out["spend"] += float(cost)
            for name, each in adds.items():
                out[name] += float(w) * each
    return {**out, "bids": math.nan}


def money(cpm: float, weight: Fraction) -> Fraction:
    """Currency, to a billionth of a CPM."""
    return Fraction(math.floor(cpm * float(weight) * 1e9 + 0.5), 10**12)


@pytest.mark.parametrize("never", [False, True], ids=["last win", "never"])
@pytest.mark.parametrize("first_price", [False, True], ids=["second price", "first price"])
@pytest.mark.parametrize("seed", range(2))
def test_under_a_budget_every_world_of_fates_is_settled_anew(seed: int, first_price: bool, never: bool) -> None:
    rows = make_log(seed, first_price=first_price)
    amount = 0.3
    result = run(
        rows,
        budget={"amount": amount, "per": "total", "overspend": "never" if never else "last_win"},
        **({"auction": {"type": "first_price"}} if first_price else {}),
    )
    k = factors(rows)
    unknown = {f: [fate_of(r, f, k, first_price) for r in rows] for f in ("pctr", "pother")}
    both = [a is not None and b is not None for a, b in zip(unknown["pctr"], unknown["pother"], strict=True)]

    def fate_in(r: Row, is_both: bool, field: str, own: str, shared: Any) -> Any:
        if not is_both or shared in FATES:
            return shared if is_both else own
        winner, fate = shared
        other = "pother" if field == "pctr" else "pctr"
        if winner != field or r["price"] is not None or r[field] <= r[other]:
            return "lost"
        return (fate, 100 * r[other])

    worlds = {
        (f, own, shared): settled(
            rows,
            f,
            [fate_in(r, b, f, own, shared) for r, b in zip(rows, both, strict=True)],
            unknown[f],
            first_price,
            amount,
            never,
        )
        for f in unknown
        for own, shared in itertools.product(FATES, SHARED)
    }
    moved = 0
    for policy, f in (("baseline", "pctr"), ("new", "pother")):
        own = {m.metric: m for m in result.metrics if m.policy == policy and not m.segment and m.head is None}
        expected = [metrics(worlds[(f, fate, fate)]) for fate in FATES]
        for name in ("wins", "spend", "clicks", "conversions", "cpm", "cpa", "value", "surplus"):
            low, high = span([e[name] for e in expected])
            assert ends(own[name].identified) == pytest.approx((low, high), rel=1e-9, abs=1e-8)
            moved += low < high
        assert own["win_rate"].identified is None
    assert moved > 8
    changes = {d.metric: d for d in result.differences if not d.segment and d.head is None}
    for name in ("wins", "spend", "conversions", "cpa"):
        found = [
            metrics(worlds[("pother", own, shared)])[name] - metrics(worlds[("pctr", base, shared)])[name]
            for own, base, shared in itertools.product(FATES, FATES, SHARED)
        ]
        known = changes[name].identified
        assert ends(known.absolute if known else None) == pytest.approx(span(found), rel=1e-9, abs=1e-8)


def test_under_a_budget_ranges_of_segments_add_up_and_threads_change_nothing() -> None:
    rows = make_log(6)
    budget = {"amount": 0.2, "per": "total"}
    one, two = run(rows, budget=budget), run(rows, budget=budget, threads=2)
    assert one.metrics == two.metrics
    assert one.differences == two.differences
    for policy in ("baseline", "new"):
        parts = [m.identified for m in one.metrics if m.policy == policy and m.metric == "wins"]
        assert len(parts) == 4
        whole, *each = [ends(p) for p in parts]
        # Each campaign has a budget of its own; wins are most where all unknown rows are won at the cheapest.
        assert sum(high for _, high in each) >= whole[1]
        assert min(low for low, _ in each) >= 0


def test_a_value_lies_within_its_range_to_the_last_digit_with_fractions_of_conversions_too() -> None:
    rows = [{**r, "conversion": None if r["conversion"] is None else r["conversion"] * 0.3} for r in make_log(7)]
    result = run([{**r, "weight": r["weight"] / 3} for r in rows], budget={"amount": 0.2, "per": "total"})
    for m in result.metrics:
        if m.identified is not None and m.metric in ("wins", "spend", "clicks", "conversions", "value"):
            low, high = ends(m.identified)
            assert m.value is not None
            assert low <= m.value <= high, m


def test_a_baseline_whose_log_it_is_has_no_range_but_its_value() -> None:
    rows = make_log(6)
    # The log was made by the baseline: it never bids above the logged bid.
    rows = [{**r, "bid": 100 * r["pctr"], "won": int(100 * r["pctr"] >= (r["price"] or r["bid"]))} for r in rows]
    rows = [r if r["won"] or r["price"] is None else {**r, "click": None, "conversion": None} for r in rows]
    rows = [{**r, "price": r["price"] or r["bid"] / 2} if r["won"] else r for r in rows]
    rows = [{**r, "click": r["click"] or 0, "conversion": r["conversion"] or 0.0} if r["won"] else r for r in rows]
    result = run(rows, budget={"amount": 0.2, "per": "total"})
    spend = {m.policy: m for m in result.metrics if m.metric == "spend" and not m.segment}
    assert ends(spend["baseline"].identified) == (spend["baseline"].value, spend["baseline"].value)
    low, high = ends(spend["new"].identified)
    assert low < high
