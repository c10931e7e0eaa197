"""Spec 3.6: numbers at matched spend, too, carry their range over whatever the unknown rows did at that level."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_logs import Row, replay

from bidsim.replay import matched_fates
from bidsim.result import Range, Result

Floats = npt.NDArray[np.float64]
CANDIDATE = {"new": {"columns": {"pctr": "pother"}}}
FATES = ("lost", "dear", "cheap")


def make_log(seed: int, n: int = 6_000) -> list[Row]:
    """Won rows show what they paid, a fifth of the lost ones the price; the others only the bid that lost."""
    rng = np.random.default_rng([20261126, seed])
    market, bid = rng.exponential(8.0, n).round(3), rng.exponential(10.0, n).round(3)
    won, told = bid >= market, rng.random(n) < 0.2
    pctr = rng.uniform(0.05, 0.25, n).astype(np.float32)
    pother = np.clip(pctr * rng.lognormal(-0.15, 0.4, n), 0.001, 1).astype(np.float32)
    rows: list[Row] = []
    for i in range(n):
        rows.append(
            {
                "campaign": int(rng.integers(1, 3)),
                "price": float(market[i]) if won[i] or told[i] else None,
                "bid": float(bid[i]),
                "won": int(won[i]),
                "click": int(rng.random() < pctr[i]) if won[i] else None,
                "weight": float(rng.choice([1.0, 2.0])),
                "pctr": float(pctr[i]),
                "pother": float(pother[i]),
            }
        )
    return rows


def run(rows: list[Row], threads: int = 1, **keys: Any) -> Result:
    given: dict[str, Any] = {"bid": {"formula": "60 * pctr"}, "candidates": CANDIDATE, **keys}
    return replay(
        rows,
        threads=threads,
        segments=["campaign"],
        performance_indicator_type="cpc",
        fidelity="warn",
        sample_type="imp-click",
        **given,
    )


class Naive:
    """The rows as columns, and what either policy's bids come to at a level, in a world of fates."""

    def __init__(self, rows: list[Row], factors: dict[str, float], most: float = np.inf, first: bool = False) -> None:
        def column(name: str) -> Floats:
            return np.array([np.nan if r[name] is None else r[name] for r in rows], dtype=np.float64)

        self.price, self.logged, self.won = column("price"), column("bid"), column("won") == 1
        self.first = (column("kind") == 1) if "kind" in rows[0] else np.full(len(rows), first)
        self.click, self.w, self.most = column("click"), column("weight"), most
        self.bid = {f: 60 * column(f) for f in ("pctr", "pother")}
        self.best = np.maximum(*(np.minimum(1.0, column(f) * factors[f]) for f in ("pctr", "pother")))
        self.ours = self.state("pctr", 1.0)[1]

    def state(self, field: str, level: float) -> tuple[Any, Any]:
        """(counted wins, unknown rows)."""
        bid = np.minimum(level * self.bid[field], self.most)
        unpriced = np.isnan(self.price)
        reached = bid >= np.where(unpriced & self.won, self.logged, self.price)
        open_ = np.where(self.won, unpriced & ~reached, unpriced & (bid > self.logged) | reached)
        return self.won & reached, open_

    def sums(self, field: str, level: float, fate_of: npt.NDArray[np.object_]) -> tuple[float, float]:
        """(spend, clicks) at a level, each unknown row with its fate."""
        counted, open_ = self.state(field, level)
        bid = np.minimum(level * self.bid[field], self.most)
        known = ~np.isnan(self.price)
        dear, cheap = np.where(known, self.price, bid), np.where(known, self.price, self.logged)
        dear, cheap = np.where(self.first, bid, dear), np.where(self.first, bid, cheap)
        spend = np.where(counted, np.where(self.first, bid, self.price), 0.0)
        spend = (
            spend
            + np.where(open_ & (fate_of == "dear"), dear, 0.0)
            + np.where(open_ & (fate_of == "cheap"), cheap, 0.0)
        )
        best = np.where(self.won, self.click, self.best)
        clicks = np.where(counted, self.click, 0.0) + np.where(open_ & (fate_of == "cheap"), best, 0.0)
        return float(np.nansum(self.w * spend)) / 1000, float(np.nansum(self.w * clicks))

    def world(self, own: str, base: str, shared: str) -> tuple[dict[str, float], dict[str, float]]:
        """Numbers of the candidate at the baseline's spend, and of the baseline."""

        def at(level: float) -> tuple[tuple[float, float], tuple[float, float]]:
            both = self.state("pother", level)[1] & self.ours
            return (
                self.sums("pother", level, np.where(both, shared, own)),
                self.sums("pctr", 1.0, np.where(both, shared, base)),
            )

        # The last of some levels that is affordable, then more closely.
        level, step = 0.5, 2.0**0.0625
        for closer in (1, 32):
            step **= 1 / closer
            levels = level * step ** np.arange(40)
            affordable = [spend <= goal for (spend, _), (goal, _) in map(at, levels)]
            assert affordable[0]
            assert not affordable[-1]
            level = float(levels[len(affordable) - 1 - affordable[::-1].index(True)])
        after, before = at(level)
        return numbers(*after, level), numbers(*before, 1.0)


def numbers(spend: float, clicks: float, level: float) -> dict[str, float]:
    return {"multiplier": level, "clicks": clicks, "cpc": spend / clicks}


def factors(rows: list[Row]) -> dict[str, float]:
    shown = [r for r in rows if r["won"]]
    clicks = sum(r["weight"] * r["click"] for r in shown)
    return {p: clicks / sum(r["weight"] * r[p] for r in shown) for p in ("pctr", "pother")}


def ends(found: Range | None) -> tuple[float, float]:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def first_price(rows: list[Row]) -> list[Row]:
    """Half of the wins don't tell the price that would have been enough."""
    rng = np.random.default_rng(20261126)
    return [{**r, "price": None if r["won"] and rng.random() < 0.5 else r["price"]} for r in rows]


@pytest.mark.parametrize("kind", ["second_price", "first_price", "kind"])
@pytest.mark.parametrize("most", [None, 14.0])
def test_ranges_at_matched_spend_are_those_of_the_fates(most: float | None, kind: str) -> None:
    rows = make_log(1)
    if kind == "first_price":
        rows = first_price(rows)
    if kind == "kind":  # of either sort; a second-price win without a price could not be decided
        own = first_price(rows)
        rows = [{**(own if i % 2 else rows)[i], "kind": 2 - i % 2} for i in range(len(rows))]
    bid = {"formula": "60 * pctr"} | ({"max": most} if most else {})
    result = run(rows, bid=bid, auction={"type": kind})
    k = factors(rows)
    for segment in ({}, {"campaign": "2"}) if most is None else ({},):
        chosen = [r for r in rows if not segment or r["campaign"] == 2]
        mine = Naive(chosen, k, most or np.inf, kind == "first_price")
        worlds = {fates: mine.world(*fates) for fates in itertools.product(FATES, repeat=3)}
        own = [worlds[(fate, fate, fate)][0] for fate in FATES]
        assert max(w["cpc"] for w in own) > 1.03 * min(w["cpc"] for w in own), "the log tests nothing"
        found = {m.metric: m for m in result.metrics if m.policy == "new" and m.segment == segment and m.head is None}
        changes = {d.metric: d for d in result.differences if d.segment == segment and d.head is None}
        for name in own[0]:
            m, d = found[f"{name}_at_matched_spend"], changes[f"{name}_at_matched_spend"]
            low, high = ends(m.identified)
            assert (low, high) == pytest.approx((min(w[name] for w in own), max(w[name] for w in own)), rel=0.01), name
            assert m.value is not None
            assert low <= m.value <= high
            assert d.identified is not None
            moved = [after[name] - before[name] for after, before in worlds.values()]
            size = 0.01 * max(w[name] for w in own)
            assert ends(d.identified.absolute) == pytest.approx((min(moved), max(moved)), abs=size), name
            relative = [after[name] / before[name] - 1 for after, before in worlds.values()]
            assert ends(d.identified.relative) == pytest.approx((min(relative), max(relative)), abs=0.01), name


def test_a_level_above_the_logged_bids_is_uncertain_even_where_the_policies_bids_are_not() -> None:
    """The candidate bids less than the log everywhere, so nothing is unknown, until its bids are raised to match."""
    rows = [{**r, "bid": 60 * r["pctr"], "pother": r["pctr"] * 0.8} for r in make_log(2)]
    rows = [r for r in rows if r["price"] is None or bool(r["won"]) == (r["bid"] >= r["price"])]
    rows = [r for r in rows if r["won"] or r["price"] is None]
    # Above the log on some rows, once it is raised.
    rows = [{**r, "pother": r["pctr"] * (0.99 if i % 2 else 0.6)} for i, r in enumerate(rows)]
    result = run(rows)
    new = {m.metric: m for m in result.metrics if m.policy == "new" and not m.segment and m.head is None}
    assert new["unknown_wins"].value == 0
    assert ends(new["clicks"].identified) == (new["clicks"].value, new["clicks"].value)
    assert new["multiplier_at_matched_spend"].value > 1.02  # type: ignore[operator]
    low, high = ends(new["cpc_at_matched_spend"].identified)
    assert high > 1.01 * low
    baseline = {m.metric: m for m in result.metrics if m.policy == "baseline" and not m.segment and m.head is None}
    assert ends(baseline["cpc_at_matched_spend"].identified) == (baseline["cpc"].value, baseline["cpc"].value)


@pytest.mark.parametrize("rows", [40, 2_000], ids=["few rows, so that many levels spend alike", "many rows"])
def test_the_same_bids_are_the_same_whatever_the_unknown_rows_did(rows: int) -> None:
    result = run(make_log(3, rows), candidates={"new": {"columns": {"pctr": "pctr"}}})
    for d in result.differences:
        if d.metric.endswith("_at_matched_spend"):
            assert d.identified is not None
            assert ends(d.identified.absolute) == (0.0, 0.0), (d.metric, d.segment)  # so that rules without room pass


def test_where_every_fate_is_known_the_range_is_the_value() -> None:
    result = run([r for r in make_log(4, 2_000) if r["won"]])
    for m in result.metrics:
        if m.metric.endswith("_at_matched_spend") and m.value is not None:
            assert ends(m.identified) == (m.value, m.value)
    assert all(d.identified is None for d in result.differences)


def test_segments_whose_sums_take_too_much_have_no_range_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matched_fates, "MOST_BYTES", 200_000)
    one, two = (run(make_log(5, 2_000), threads=threads) for threads in (1, 2))
    assert one.metrics == two.metrics
    matched = [m for m in one.metrics if m.metric == "cpc_at_matched_spend" and m.policy == "new"]
    assert [m.identified is None for m in matched] == [False, True, True]


def test_rows_that_nobody_can_decide_open_nothing_at_matched_spend() -> None:
    """Spec 3.6: neither a price nor a logged result, or a second-price win that shows no price: left out for every policy."""
    rows = make_log(4, n=700)
    row: Row = {**rows[0], "price": None, "bid": 0.5, "click": None, "weight": 2.0, "pctr": 0.2, "pother": 0.25}
    ranges = [
        {
            (m.policy, m.metric, str(m.segment)): (m.value, m.identified)
            for m in run(given).metrics
            if m.metric.endswith("_at_matched_spend")
        }
        for given in (rows, [*rows, {**row, "won": 1}, {**row, "won": None}])
    ]
    assert ranges[0] == ranges[1]
    assert any(span.low != span.high for _, span in ranges[0].values() if span is not None)


def test_a_second_candidates_ranges_at_matched_spend_are_its_own() -> None:
    rows = make_log(4, 2_000)
    other = {"third": {"columns": {"pctr": "pother"}, "bid": {"multiplier": 0.6}}}
    both = run(rows, candidates={**CANDIDATE, **other})
    for name, alone in (("new", run(rows)), ("third", run(rows, candidates=other))):
        assert at_matched(both, name) == at_matched(alone, name)
    assert at_matched(both, "new") != at_matched(both, "third")


def at_matched(result: Result, policy: str) -> dict[tuple[str, str], tuple[Range | None, Range | None]]:
    """By metric and campaign, the identified ranges of a policy's number and of its change."""
    found: dict[tuple[str, str], tuple[Range | None, Range | None]] = {}
    for d in result.differences:
        if d.policy == policy and d.metric.endswith("_at_matched_spend") and d.head is None:
            (own,) = (
                m.identified for m in result.metrics if (m.policy, m.metric, m.segment) == (policy, d.metric, d.segment)
            )
            found[(d.metric, str(d.segment))] = (own, None if d.identified is None else d.identified.absolute)
    assert any(own is not None and own.low != own.high for own, _ in found.values())
    return found
