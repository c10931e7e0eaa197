"""Spec 3.6: every economic number carries its range over whatever the unknown rows did, written out row by row."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from small_logs import Row, replay
from unknown_rows import (
    FATES,
    SHARED,
    between,
    counted,
    ends,
    factors,
    fate_of,
    make_log,
    metrics,
    plus,
    run,
    span,
    total,
)


@pytest.mark.parametrize("first_price", [False, True], ids=["second price", "first price"])
@pytest.mark.parametrize("seed", range(3))
def test_ranges_of_numbers_and_differences_are_those_of_the_fates(seed: int, first_price: bool) -> None:
    rows = make_log(seed, first_price=first_price)
    result = run(rows, auction={"type": "first_price" if first_price else "second_price"})
    k = factors(rows)
    checked = 0
    # What one policy wins alone are wins that count, as all of them are.
    told = {(m.policy, m.metric): m.value for m in result.metrics if not m.segment and m.head is None}
    for name in ("wins", "clicks", "conversions"):
        gained, lost = (told[("new", f"{name}_{side}")] or 0.0 for side in ("gained", "lost"))
        assert told[("new", name)] == pytest.approx((told[("baseline", name)] or 0.0) + gained - lost, rel=1e-12)
        assert gained + lost > 0
    for segment in ({}, *({"campaign": str(c)} for c in (1, 2, 3))):
        mine = [r for r in rows if not segment or str(r["campaign"]) == segment["campaign"]]
        fates = {f: [fate_of(r, f, k, first_price) for r in mine] for f in ("pctr", "pother")}
        assert any(f is not None for f in fates["pother"]), "the log tests nothing"
        base = {f: counted(mine, f, first_price) for f in ("pctr", "pother")}
        for policy, field in (("baseline", "pctr"), ("new", "pother")):
            known = [f for f in fates[field] if f is not None]
            worlds = [metrics(plus(base[field], total(known, fate))) for fate in FATES]
            for m in result.metrics:
                if m.policy != policy or m.segment != segment or m.metric not in worlds[0] or m.head is not None:
                    continue
                expected = span([w[m.metric] for w in worlds])
                assert ends(m.identified) == pytest.approx(expected, rel=1e-7, abs=1e-9, nan_ok=True), m.metric
                checked += 1
        pairs = list(zip(fates["pctr"], fates["pother"], strict=True))
        open_rows = [r for r, (a, b) in zip(mine, pairs, strict=True) if a is not None and b is not None]
        both = {f: [fate_of(r, f, k, first_price) for r in open_rows] for f in ("pctr", "pother")}
        over = {f: [between(r, f, k, first_price) for r in open_rows] for f in ("pctr", "pother")}

        def common(field: str, shared: Any) -> dict[str, float]:
            if shared in FATES:
                return total(both[field], shared)  # noqa: B023
            return total(over[field], shared[1] if shared[0] == field else "lost")  # noqa: B023

        ours = [a for a, b in pairs if a is not None and b is None]
        theirs = [b for a, b in pairs if b is not None and a is None]
        changes: dict[str, list[tuple[float, float]]] = {}
        for own, other, shared in itertools.product(FATES, FATES, SHARED):
            before = metrics(plus(base["pctr"], total(ours, other), common("pctr", shared)))
            after = metrics(plus(base["pother"], total(theirs, own), common("pother", shared)))
            for name in before:
                with np.errstate(all="ignore"):
                    change = np.float64(after[name]) - before[name]
                    changes.setdefault(name, []).append((float(change), float(change / abs(np.float64(before[name])))))
        for d in result.differences:
            if d.segment != segment or d.metric not in changes or d.head is not None:
                continue
            assert d.identified is not None, d.metric
            for i, found in enumerate((d.identified.absolute, d.identified.relative)):
                expected = span([c[i] for c in changes[d.metric]])
                # A relative change of something near zero magnifies the rounding of fixed-point sums.
                assert ends(found) == pytest.approx(expected, rel=1e-5, abs=1e-9, nan_ok=True), d.metric
                checked += 1
    assert checked > 100


def test_target_attainment_has_the_range_of_the_campaigns_in_each_world() -> None:
    rows = make_log(3)
    result = run(rows)
    k = factors(rows)
    campaigns = {c: [r for r in rows if r["campaign"] == c] for c in (1, 2, 3)}
    worlds = []
    for fate in FATES:
        each = {}
        for c, mine in campaigns.items():
            known = [f for f in (fate_of(r, "pother", k, first_price=False) for r in mine) if f is not None]
            each[c] = plus(counted(mine, "pother", first_price=False), total(known, fate))
        assert all(s["value"] > 0 for s in each.values())
        spend = sum(s["spend"] for s in each.values())
        mean = sum(s["spend"] ** 2 / s["value"] for s in each.values()) / spend
        worlds.append({"": mean} | {str(c): s["spend"] / s["value"] for c, s in each.items()})
    found = {
        m.segment.get("campaign", ""): m
        for m in result.metrics
        if m.policy == "new" and m.metric == "target_attainment"
    }
    assert len(found) == 4
    for campaign, m in found.items():
        assert ends(m.identified) == pytest.approx(span([w[campaign] for w in worlds]), rel=1e-7)
    changes = [d for d in result.differences if d.metric == "target_attainment"]
    assert len(changes) == 4
    for d in changes:
        assert d.identified is not None
        low, high = ends(d.identified.absolute)
        assert d.absolute.value is not None
        assert low < d.absolute.value < high


def test_a_campaign_that_brought_nothing_may_miss_its_target_without_bound() -> None:
    rows = [
        {**r, "click": 0 if r["won"] else r["click"], "conversion": None} if r["campaign"] == 2 else r
        for r in make_log(3)
    ]
    result = run(rows)
    here = {
        m.metric: m for m in result.metrics if m.policy == "new" and m.segment == {"campaign": "2"} and m.head is None
    }
    assert here["value"].value == 0
    assert here["target_attainment"].value is None
    assert ends(here["target_attainment"].identified)[0] > 0
    assert ends(here["target_attainment"].identified)[1] == math.inf


def test_what_counts_in_expectation_lies_within_its_range() -> None:
    """Each unknown row has a chance and a price of its own, so that ratios may lie beyond the worlds of a common fate."""
    rows = [{**r, "weight": 1.0} for r in make_log(5, first_price=True)]
    result = run(rows, outcomes="predicted", auction={"type": "first_price"})
    checked = 0
    for m in result.metrics:
        if m.identified is not None and m.value is not None:
            low, high = ends(m.identified)
            assert low - 1e-9 <= m.value <= high + 1e-9, m
            checked += m.metric == "cpm"
    for d in result.differences:
        for change, kind in ((d.absolute, "absolute"), (d.relative, "relative")):
            if d.identified is not None and change.value is not None:
                low, high = ends(getattr(d.identified, kind))
                assert low - 1e-9 <= change.value <= high + 1e-9, d
    assert checked > 6


def test_a_price_may_lie_between_the_bids_of_two_policies_that_both_outbid_the_log() -> None:
    """Three lost auctions without a price, logged bid 5: bids of 10 and 8, of 6 and 9, and of 7 both."""
    rows = [r for r in make_log(11) if r["won"]]
    row = {**rows[0], "price": None, "bid": 5.0, "won": 0, "click": None, "conversion": None, "weight": 1.0}
    lost: list[Row] = [{**row, "pother": b / 100, "pctr": a / 100} for b, a in ((10.0, 8.0), (6.0, 9.0), (7.0, 7.0))]
    found = {d.metric: d for d in run(rows + lost).differences if not d.segment and d.head is None}
    known = {d.metric: d for d in run(rows).differences if not d.segment and d.head is None}
    for metric, low, high in (("wins", -1, 1), ("spend", -0.009, 0.010)):
        span, value = found[metric].identified, known[metric].absolute.value
        assert span is not None
        assert value is not None
        assert ends(span.absolute) == pytest.approx((value + low, value + high), abs=1e-8)


def test_an_unknown_win_costs_at_most_the_bid_and_at_least_the_one_that_lost_to_the_last_unit() -> None:
    """0.00013 x 1e9 is a little less than 130,000 in binary fractions: its last unit is not lost."""
    assert int(0.00013 * 1e9) == 129_999
    won = {"campaign": 1, "price": 0.0001, "bid": 1.0, "won": 1, "click": 1, "floor": None, "pctr": 0.5}
    for bid, floor, least in ((0.0001, None, 0.0001), (None, None, 0.0), (0.00001, 0.00002, 0.00002)):
        lost = {**won, "price": None, "bid": bid, "won": 0, "click": None, "floor": floor}
        result = replay([won, lost], bid={"formula": "0.00013"}, sample_type="imp-click", fidelity="warn")
        found = {m.metric: ends(m.identified) for m in result.metrics if m.policy == "new" and m.head is None}
        assert found["spend"] == (1e-7, 2.3e-7)
        assert found["cpm"] == pytest.approx(((0.0001 + least) / 2, 0.000115), rel=1e-9)


def test_where_no_label_says_how_predictions_are_calibrated_they_are_taken_as_they_are() -> None:
    """One win that was not clicked tells nothing of a factor; that no win could ever be clicked least of all."""
    won = {"campaign": 1, "price": 1.0, "bid": 9.0, "won": 1, "click": 0, "pctr": 0.25}
    lost = {**won, "price": None, "bid": 2.0, "won": 0, "click": None}
    result = replay([won, lost], bid={"formula": "20 * pctr"}, sample_type="imp-click", fidelity="warn")
    (clicks,) = (m for m in result.metrics if m.metric == "clicks" and m.policy == "new")
    assert ends(clicks.identified) == pytest.approx((0.0, 0.25), rel=1e-9)


def test_where_every_fate_is_known_the_range_is_the_value() -> None:
    rows = [r for r in make_log(9) if r["won"]]
    result = run(rows)
    for m in result.metrics:
        if m.metric in ("spend", "wins", "cpa", "roi") and m.value is not None:
            assert m.identified is not None
            assert m.identified.low == m.identified.high == m.value
    assert all(d.identified is None for d in result.differences)


def test_the_value_lies_within_its_range_and_a_price_shrinks_it() -> None:
    rows = make_log(4)
    wide = {(m.policy, m.metric, str(m.segment)): m for m in run(rows).metrics}
    rng = np.random.default_rng(20261202)
    told = [
        r if r["price"] is not None else {**r, "price": float(r["bid"] + np.round(rng.exponential(3.0), 2) + 0.01)}
        for r in rows
    ]
    narrow = {(m.policy, m.metric, str(m.segment)): m for m in run(told).metrics}
    for key, m in wide.items():
        if m.identified is None or m.value is None:
            continue
        assert m.identified.low is None or m.identified.low <= m.value * (1 + 1e-12)
        assert m.identified.high is None or m.identified.high >= m.value * (1 - 1e-12)
        if key[1] == "wins":
            other = narrow[key]
            assert other.identified is not None
            assert other.identified.high <= m.identified.high  # type: ignore[operator]
