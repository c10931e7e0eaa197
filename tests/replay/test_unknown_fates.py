"""Spec 3.6: every economic number carries its range over whatever the unknown rows did, written out row by row."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from small_logs import Row, replay

from bidsim.result import Range, Result

FORMULA = "100 * pctr"
CANDIDATE = {"new": {"columns": {"pctr": "pother"}}}
FATES = ("lost", "dear", "cheap")
# Of the rows unknown to both policies, also: where one bids more than the other, the price lies between their bids.
SHARED = (*FATES, *((field, fate) for field in ("pother", "pctr") for fate in ("dear", "cheap")))
SUMS = ("wins", "spend", "clicks", "conversions", "value")


def make_log(seed: int, n: int = 120, *, first_price: bool = False) -> list[Row]:
    """Second price: won rows show what they paid, some lost ones the price; the others only the bid that lost."""
    rng = np.random.default_rng([20261201, seed])
    rows: list[Row] = []
    for _ in range(n):
        market, bid = float(np.round(rng.exponential(8.0), 2)), float(np.round(rng.exponential(10.0), 2))
        won = bid >= market
        shown = (not first_price and won) or rng.random() < 0.2
        rows.append(
            {
                "campaign": int(rng.integers(1, 4)),
                "price": market if shown else None,
                "bid": bid,
                "won": int(won),
                "click": int(rng.random() < 0.3) if won else None,
                "conversion": float(rng.random() < 0.2) if won else None,
                "target_cpa": float(rng.choice([0.05, 0.1])),
                "weight": float(rng.choice([1.0, 2.0])),
                "pctr": float(np.float32(rng.uniform(0.01, 0.3))),
                "pother": float(np.float32(rng.uniform(0.01, 0.3))),
                "pcvr": float(np.float32(rng.uniform(0.1, 0.6))),
            }
        )
    return rows


def run(rows: list[Row], **keys: Any) -> Result:
    return replay(
        rows,
        bid={"formula": FORMULA},
        candidates=CANDIDATE,
        segments=["campaign"],
        performance_indicator_type="cpa",
        fidelity="warn",
        sample_type=["imp-click", "click-conversion"],
        **keys,
    )


def factors(rows: list[Row]) -> dict[str, float]:
    """Observed over predicted clicks of each prediction, and conversions per predicted conversion of the clicked rows."""
    shown = [r for r in rows if r["won"] and r["click"] is not None]
    out = {
        p: sum(r["weight"] * r["click"] for r in shown) / sum(r["weight"] * r[p] for r in shown)
        for p in ("pctr", "pother")
    }
    clicked = [r for r in shown if r["click"] == 1]
    hits = sum(r["weight"] * (r["conversion"] > 0) for r in clicked)
    out["pcvr"] = hits / sum(r["weight"] * r["pcvr"] for r in clicked)
    return out


def fate_of(row: Row, field: str, k: dict[str, float], first_price: bool) -> dict[str, dict[str, float]] | None:
    """What a row adds under each fate; None where nothing about it is unknown."""
    bid = 100 * row[field]
    price, won = row["price"], bool(row["won"])
    if price is not None:
        if bid < price or won:
            return None
        dear = cheap = bid if first_price else price  # won for sure, but nobody saw what came of it
    elif won:
        if not first_price or bid >= row["bid"]:
            return None
        dear = cheap = bid
    else:
        if bid <= row["bid"]:
            return None
        dear, cheap = bid, (bid if first_price else row["bid"])
    click = row["click"] if won else max(min(1.0, row[p] * k[p]) for p in ("pctr", "pother"))
    if won:
        conversion = row["conversion"]
    else:
        conversion = max(min(1.0, row[p] * row["pcvr"] * k[p] * k["pcvr"]) for p in ("pctr", "pother"))
    w = row["weight"]
    best = {"clicks": click, "conversions": conversion, "value": row["target_cpa"] * conversion}
    return {
        "lost": dict.fromkeys(SUMS, 0.0),
        "dear": {"wins": w, "spend": w * dear / 1000, "clicks": 0.0, "conversions": 0.0, "value": 0.0},
        "cheap": {"wins": w, "spend": w * cheap / 1000, **{name: w * v for name, v in best.items()}},
    }


def between(row: Row, field: str, k: dict[str, float], first_price: bool) -> dict[str, dict[str, float]]:
    """The fates of a row whose price only this policy's bid reaches: at its own bid, or just above the other's."""
    other = "pother" if field == "pctr" else "pctr"
    if row["price"] is not None or row[field] <= row[other]:
        return {fate: dict.fromkeys(SUMS, 0.0) for fate in FATES}
    fates = fate_of(row, field, k, first_price)
    assert fates is not None
    least = 100 * row[field if first_price else other]
    return {**fates, "cheap": {**fates["cheap"], "spend": row["weight"] * least / 1000}}


def counted(rows: list[Row], field: str, first_price: bool) -> dict[str, float]:
    out = dict.fromkeys((*SUMS, "bids"), 0.0)
    for r in rows:
        bid, w = 100 * r[field], r["weight"]
        if r["price"] is None and r["won"] and not first_price:
            continue
        out["bids"] += w
        if not r["won"]:
            continue
        if bid >= r["price"] if r["price"] is not None else bid >= r["bid"]:
            out["wins"] += w
            out["spend"] += w * (bid if first_price else r["price"]) / 1000
            out["clicks"] += w * r["click"]
            out["conversions"] += w * r["conversion"]
            out["value"] += w * r["target_cpa"] * r["conversion"]
    return out


def metrics(s: dict[str, float]) -> dict[str, float]:
    def over(a: float, b: float) -> float:
        return a / b if b else (math.inf if a > 0 else math.nan)

    return {
        **{name: s[name] for name in SUMS},
        "win_rate": over(s["wins"], s["bids"]),
        "cpm": over(1000 * s["spend"], s["wins"]),
        "ctr": over(s["clicks"], s["wins"]),
        "cvr": over(s["conversions"], s["clicks"]),
        "cpc": over(s["spend"], s["clicks"]),
        "cpa": over(s["spend"], s["conversions"]),
        "surplus": s["value"] - s["spend"],
        "roi": over(s["value"] - s["spend"], s["spend"]),
    }


def plus(base: dict[str, float], *more: dict[str, float]) -> dict[str, float]:
    return {name: v + sum(m.get(name, 0.0) for m in more) for name, v in base.items()}


def total(fates: list[dict[str, dict[str, float]]], fate: str) -> dict[str, float]:
    return {name: sum(f[fate][name] for f in fates) for name in SUMS}


def span(values: list[float]) -> tuple[float, float]:
    known = [v for v in values if not math.isnan(v)]
    return (min(known), max(known)) if known else (math.nan, math.nan)


def ends(found: Range | None) -> tuple[float, float]:
    """An end without a bound is null in the result."""
    if found is None:
        return math.nan, math.nan
    return -math.inf if found.low is None else found.low, math.inf if found.high is None else found.high


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
        for change, span in ((d.absolute, "absolute"), (d.relative, "relative")):
            if d.identified is not None and change.value is not None:
                low, high = ends(getattr(d.identified, span))
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
