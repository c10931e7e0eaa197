"""Other bid levels (spec 4: the frontier, numbers at matched spend) against brute force on small logs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from small_logs import Row, numbers, replay

FORMULA = "100 * pctr"
BID_RULES: list[dict[str, Any]] = [
    {},
    {"min": 3.0},
    {"max": 12.0},
    {"min": 2.0, "max": 9.0, "round": "down"},
]


def make_log(seed: int, n: int = 60) -> list[Row]:
    """Prices of few values, so that spends can be equal, some of them free; predictions of few values, so bids tie."""
    rng = np.random.default_rng([20261125, seed])
    return [
        {
            "campaign": int(rng.integers(0, 3)),
            "price": float(rng.choice([0.0, 1.0, 2.5, 4.0, 8.0, 13.0])) if rng.random() < 0.95 else None,
            "won": 1,
            "click": int(rng.random() < 0.4),
            "conversion": float(rng.integers(0, 2)),
            "weight": float(rng.choice([1.0, 2.0, 10.0])),
            "pctr": float(rng.choice([0.01, 0.02, 0.04, 0.08])),
            "pother": float(np.float32(rng.choice([0.008, 0.016, 0.05, rng.random() / 8]))),
        }
        for _ in range(n)
    ]


Totals = tuple[Fraction, Fraction, Fraction]


def bidding(bid: dict[str, Any], ties: str, field: str) -> Callable[[Row, float], bool]:
    """Whether a policy wins a row with its bid times m, as spec 3.3 and 3.5 say."""

    def wins(row: Row, m: float) -> bool:
        raw = 100 * float(np.float32(row[field])) * m
        if row["price"] is None or not raw > 0 or raw < bid.get("min", 0.0):
            return False
        final = min(raw, bid.get("max", math.inf))
        if bid.get("round") == "down":
            final = math.floor(final)
        return final > row["price"] if ties == "lose" else final >= row["price"]

    return wins


def totals(rows: list[Row], wins: Callable[[Row, float], bool], m: float) -> Totals:
    """(spend, clicks, conversions) of all rows at one multiplier."""
    won = [(Fraction(r["weight"]), r) for r in rows if wins(r, m)]
    return (
        sum((w * Fraction(r["price"]) / 1000 for w, r in won), Fraction(0)),
        sum((w * r["click"] for w, r in won), Fraction(0)),
        sum((w * Fraction(r["conversion"]) for w, r in won), Fraction(0)),
    )


def at_matched_spend(rows: list[Row], wins: Callable[[Row, float], bool], goal: Fraction, field: str) -> Totals | None:
    """The totals at the largest multiplier that spends at most the goal; None where no multiplier spends as much."""
    levels = {1e-9, 1e9}
    for row in rows:
        raw = 100 * float(np.float32(row[field]))
        # Prices, and the whole units to which bids are cut, are where something changes.
        for bar in {row["price"] or 0.0, math.floor(row["price"] or 0.0) + 1.0, 2.0, 3.0}:
            levels |= {bar / raw * (1 - 1e-12), bar / raw * (1 + 1e-12)}
    found = None
    for m in sorted(levels):
        now = totals(rows, wins, m)
        if now[0] > goal:
            return found
        found = now
    return found if found is not None and found[0] == goal else None


@pytest.mark.parametrize("ties", ["win", "lose"])
@pytest.mark.parametrize("rule", range(len(BID_RULES)))
def test_numbers_at_matched_spend_are_a_search_over_all_multipliers(rule: int, ties: str) -> None:
    bid = BID_RULES[rule]
    reached = 0
    for seed in (0, 1):
        rows = make_log(seed)
        # A baseline of a third of the level, so that candidates have to come down, and one above what they can spend.
        for level in (0.4, 20.0) if seed == 0 else (1.0,):
            result = replay(
                rows,
                bid={"formula": FORMULA, **bid},
                auction={"ties": ties},
                baseline={"columns": {"pctr": "pctr"}, "bid": {"multiplier": level}},
                candidates={"new": {"columns": {"pctr": "pother"}, "bid": {"multiplier": 1.5}}},
                segments=["campaign"],
            )
            for value in (None, 0, 1, 2):
                mine = [r for r in rows if value is None or r["campaign"] == value]
                segment = {} if value is None else {"campaign": str(value)}
                goal = totals(mine, bidding(bid, ties, "pctr"), level)[0]
                assert numbers(result, "baseline", segment)["spend"] == float(goal)
                expected = at_matched_spend(mine, bidding(bid, ties, "pother"), goal, "pother")
                found = numbers(result, "new", segment)
                if expected is None:
                    assert found["clicks_at_matched_spend"] is None
                    assert found["cpa_at_matched_spend"] is None
                    continue
                reached += 1
                spend, clicks, conversions = map(float, expected)
                assert found["clicks_at_matched_spend"] == clicks
                assert found["conversions_at_matched_spend"] == conversions
                assert found["cpc_at_matched_spend"] == (spend / clicks if clicks else None)
                assert found["cpa_at_matched_spend"] == (spend / conversions if conversions else None)
    assert reached >= 5


@pytest.mark.parametrize("ties", ["win", "lose"])
@pytest.mark.parametrize("rule", range(len(BID_RULES)))
def test_the_multiplier_at_matched_spend_gives_these_numbers(rule: int, ties: str) -> None:
    bid, rows = BID_RULES[rule], make_log(7)
    result = replay(
        rows,
        bid={"formula": FORMULA, **bid},
        auction={"ties": ties},
        baseline={"columns": {"pctr": "pctr"}, "bid": {"multiplier": 0.7}},
        # Several, since the level mostly lies between rows, where any multiplier does.
        candidates={f"x{m}": {"columns": {"pctr": "pother"}, "bid": {"multiplier": m}} for m in (1.0, 1.1, 1.3, 1.7)},
        segments=["campaign"],
    )
    for policy in result.candidates:
        for segment in ({}, {"campaign": "0"}, {"campaign": "1"}, {"campaign": "2"}):
            found = numbers(result, policy, segment)
            multiplier = found["multiplier_at_matched_spend"]
            assert multiplier is not None
            mine = [row for row in rows if not segment or str(row["campaign"]) == segment["campaign"]]
            own = bidding(bid, ties, "pother")
            spend, clicks, _ = totals(mine, own, multiplier * float(policy[1:]))
            assert found["clicks_at_matched_spend"] == float(clicks)
            assert found["cpc_at_matched_spend"] == pytest.approx(float(spend / clicks), rel=1e-12)


def frontier_and_direct(bid: dict[str, Any], auction: dict[str, Any], budget: dict[str, Any] | None) -> list[Any]:
    """(multiplier, frontier point, direct replay) of a candidate at many multipliers."""
    rows = make_log(3)
    keys: dict[str, Any] = {"bid": {"formula": FORMULA, **bid}, "auction": auction}
    if budget:
        keys["budget"] = budget
    first = replay(rows, candidates={"new": {"columns": {"pctr": "pother"}}}, **keys)
    points = [p for p in first.frontier if p.policy == "new"]
    assert len(points) == 17
    assert [p.multiplier for p in points] == sorted(p.multiplier for p in points)
    some = points[4:13:4] if budget or auction.get("type") else points[::2]
    direct = replay(
        rows,
        candidates={
            f"x{i}": {"columns": {"pctr": "pother"}, "bid": {"multiplier": p.multiplier}} for i, p in enumerate(some)
        },
        **keys,
    )
    return [(p.multiplier, p, numbers(direct, f"x{i}")) for i, p in enumerate(some)]


KINDS = ("first_price", "second_price")
Paying = Callable[[Row, float], "float | None"]


def make_first_price_log(seed: int, n: int = 60) -> list[Row]:
    """Wins at known prices and at unknown ones, losses that tell the price, some second-price rows among them."""
    rng = np.random.default_rng([20261126, seed])
    rows = make_log(seed, n)
    for row in rows:
        row["won"] = int(rng.random() < 0.8)
        row["bid"] = float(rng.choice([3.0, 5.0, 9.0])) if rng.random() < 0.9 else None
        row["kind"] = int(rng.choice([1, 1, 2]))
        if row["kind"] == 1 and rng.random() < 0.4:
            row["price"] = None
        if not row["won"]:
            row |= {"click": None, "conversion": None}
    return rows


def paying(bid: dict[str, Any], ties: str, field: str, level: float = 1.0) -> Paying:
    """What a policy's counted win costs with its bid times m, None where there is none (spec 3.3, 3.5, 3.6)."""

    def cost(row: Row, m: float) -> float | None:
        raw = 100 * float(np.float32(row[field])) * level * m
        own = row["kind"] == 1
        if not row["won"] or not raw > 0 or raw < bid.get("min", 0.0):
            return None
        final = min(raw, bid.get("max", math.inf))
        if row["price"] is None:
            wins = own and row["bid"] is not None and final >= row["bid"]
        else:
            wins = final > row["price"] if ties == "lose" else final >= row["price"]
        return (final if own else row["price"]) * row["weight"] / 1000 if wins else None

    return cost


def paid_totals(rows: list[Row], cost: Paying, m: float) -> tuple[float, float, float]:
    won = [(c, r) for r in rows if (c := cost(r, m)) is not None]
    return (
        math.fsum(c for c, _ in won),
        math.fsum(r["weight"] * r["click"] for _, r in won),
        math.fsum(r["weight"] * r["conversion"] for _, r in won),
    )


def paid_at_matched_spend(
    rows: list[Row], bid: dict[str, Any], cost: Paying, goal: float, field: str, level: float
) -> tuple[float, tuple[float, float, float]] | None:
    """(largest multiplier that spends at most the goal, its totals): between two changes of who wins spend is a line."""
    changes = {1e-9, 1e3}
    for row in rows:
        raw = 100 * float(np.float32(row[field])) * level
        for bar in (row["price"], row["bid"], bid.get("min"), bid.get("max")):
            changes |= {bar / raw} if bar else set()
    ordered = sorted(changes)
    found = None
    for a, b in itertools.pairwise(ordered):
        low, high = a * (1 + 1e-12), b * (1 - 1e-12)
        begin, end = paid_totals(rows, cost, low), paid_totals(rows, cost, high)
        if begin[0] > goal * (1 + 1e-11):
            return found
        if end[0] > goal:
            x = low + (goal - begin[0]) / (end[0] - begin[0]) * (high - low)
            return x, (goal, *begin[1:])
        found = high, end
    return found if found is not None and found[1][0] >= goal * (1 - 1e-11) else None


@pytest.mark.parametrize("kind", ["first_price", "kind"])
@pytest.mark.parametrize("ties", ["win", "lose"])
@pytest.mark.parametrize("bid", [{}, {"min": 3.0}, {"max": 8.5}, {"min": 2.0, "max": 9.0}], ids=str)
def test_in_first_price_numbers_at_matched_spend_are_a_search_over_all_multipliers(
    bid: dict[str, Any], ties: str, kind: str
) -> None:
    reached = 0
    for seed, level in ((0, 0.4), (1, 1.0)):
        rows = make_first_price_log(seed)
        rows = rows if kind == "kind" else [r | {"kind": 1} for r in rows]
        result = replay(
            rows,
            bid={"formula": FORMULA, **bid},
            auction={"type": kind, "ties": ties},
            baseline={"columns": {"pctr": "pctr"}, "bid": {"multiplier": level}},
            candidates={"new": {"columns": {"pctr": "pother"}, "bid": {"multiplier": 1.5}}},
            segments=["campaign"],
            fidelity="warn",
        )
        points = [p for p in result.frontier if p.policy == "new"]
        assert len(points) == 17
        for p in points:
            expected = paid_totals(rows, paying(bid, ties, "pother", 1.5), p.multiplier)
            assert (p.spend, p.clicks, p.conversions) == pytest.approx(expected, rel=1e-9)
        for value in (None, 0, 1, 2):
            mine = [r for r in rows if value is None or r["campaign"] == value]
            segment = {} if value is None else {"campaign": str(value)}
            goal = paid_totals(mine, paying(bid, ties, "pctr", level), 1.0)[0]
            assert numbers(result, "baseline", segment)["spend"] == pytest.approx(goal, rel=1e-9)
            matched = paid_at_matched_spend(mine, bid, paying(bid, ties, "pother", 1.5), goal, "pother", 1.5)
            found = numbers(result, "new", segment)
            if matched is None:
                assert found["clicks_at_matched_spend"] is None
                continue
            reached += 1
            at, (spend, clicks, conversions) = matched
            assert found["multiplier_at_matched_spend"] == pytest.approx(at, rel=1e-9)
            assert found["clicks_at_matched_spend"] == pytest.approx(clicks)
            assert found["conversions_at_matched_spend"] == pytest.approx(conversions)
            assert found["cpc_at_matched_spend"] == (pytest.approx(spend / clicks, rel=1e-9) if clicks else None)
    assert reached >= 4


def test_where_bids_are_paid_no_multiplier_spends_as_much_as_a_baseline_that_wins_nothing() -> None:
    rows = [{"campaign": 1, "price": float(p), "won": 1, "click": 1, "pctr": 0.05} for p in (0, 2, 4)]
    bid = {"formula": FORMULA, "min": 100.0}
    new = {"new": {"bid": {"min": 0.0}}}
    first, second = (numbers(replay(rows, bid=bid, auction={"type": kind}, candidates=new), "new") for kind in KINDS)
    assert (first["clicks_at_matched_spend"], first["multiplier_at_matched_spend"]) == (None, None)
    assert second["clicks_at_matched_spend"] == 1.0  # the one that costs nothing


FRONTIERS: list[Any] = [
    ({}, {}, None),
    ({"min": 2.5}, {"ties": "win"}, None),
    ({"max": 8.0}, {"ties": "lose"}, None),
    ({"round": "down", "min": 1.0, "max": 12.5}, {"ties": "win"}, None),
    ({"round": "down"}, {"type": "first_price"}, None),
    ({}, {"ties": "lose"}, {"amount": 0.2, "per": "total", "overspend": "never"}),
    ({"max": 10.0}, {"type": "first_price"}, {"amount": 0.3, "per": "total"}),
]


@pytest.mark.parametrize("case", range(len(FRONTIERS)))
def test_every_point_of_the_frontier_is_a_replay_at_its_multiplier(case: int) -> None:
    found = frontier_and_direct(*FRONTIERS[case])
    assert len({p.spend for _, p, _ in found}) > 2
    for multiplier, point, direct in found:
        assert (point.spend, point.clicks, point.conversions) == (
            direct["spend"],
            direct["clicks"],
            direct["conversions"],
        ), multiplier


@pytest.mark.parametrize(
    ("auction", "budget"),
    [({"type": "first_price"}, None), ({}, {"amount": 0.15, "per": "total"})],
    ids=["rounded first-price bids", "budget"],
)
def test_where_whole_replays_find_the_match_it_is_a_replay_that_spends_no_more(
    auction: dict[str, Any], budget: dict[str, Any] | None
) -> None:
    bid = {"formula": FORMULA} if budget else {"formula": FORMULA, "round": "down"}
    keys: dict[str, Any] = {"bid": bid, "auction": auction, **({"budget": budget} if budget else {})}
    rows = make_log(5)
    result = replay(rows, candidates={"new": {"columns": {"pctr": "pother"}, "bid": {"multiplier": 1.7}}}, **keys)
    goal, found = numbers(result, "baseline")["spend"], numbers(result, "new")
    multiplier = found["multiplier_at_matched_spend"]
    assert goal is not None
    assert multiplier is not None
    candidates = {
        str(i): {"columns": {"pctr": "pother"}, "bid": {"multiplier": 1.7 * multiplier * factor}}
        for i, factor in enumerate((1.0, 1.01))
    }
    at, above = (numbers(replay(rows, candidates=candidates, **keys), name) for name in "01")
    for name in ("clicks", "conversions", "cpc", "cpa"):
        assert found[f"{name}_at_matched_spend"] == at[name]
    assert at["spend"] is not None
    assert above["spend"] is not None
    assert at["spend"] <= goal <= above["spend"]


@pytest.mark.parametrize(
    "bid", [{"formula": "5", "round": "down"}, {"formula": "2.5", "min": 5.0}], ids=["round", "min"]
)
def test_with_ties_lost_a_bid_that_just_reaches_min_or_a_whole_unit_is_on_the_frontier(bid: dict[str, Any]) -> None:
    rows = [{"campaign": i, "price": 4.0, "won": 1, "click": 1, "pctr": 0.5} for i in range(4)]
    multipliers = {1.0, 2.0}
    result = replay(
        rows, bid=bid, auction={"ties": "lose"}, candidates={f"x{x}": {"bid": {"multiplier": x}} for x in multipliers}
    )
    spends = {p.multiplier: p.spend for p in result.frontier if p.policy == "x1.0" and p.multiplier in multipliers}
    assert spends == {x: numbers(result, f"x{x}")["spend"] for x in multipliers}


def test_a_spend_reached_only_by_winning_everything_has_the_multiplier_of_the_last_win() -> None:
    rows = [{"campaign": 1, "price": float(p), "won": 1, "click": 1, "pctr": 0.05} for p in (1, 2, 4)]
    result = replay(rows, bid={"formula": FORMULA}, candidates={"new": {"columns": {"pctr": "pctr / 2"}}})
    found = numbers(result, "new")
    assert found["clicks_at_matched_spend"] == 3.0
    assert found["multiplier_at_matched_spend"] == pytest.approx(1.6, rel=0.01)  # 4 / 2.5


def test_a_policy_that_spends_as_much_already_is_matched_as_it_is() -> None:
    rows = [
        {"campaign": 1, "price": 4.0, "won": 1, "click": 1, "pctr": 0.5},
        {"campaign": 1, "price": 0.0, "won": 1, "click": 1, "pctr": 0.1},
    ]
    result = replay(rows, bid={"formula": "10 * pctr", "min": 5.0}, candidates={"same": {"bid": {"multiplier": 1.0}}})
    assert numbers(result, "same")["clicks"] == 1.0
    assert numbers(result, "same")["clicks_at_matched_spend"] == 1.0


@pytest.mark.parametrize("overspend", ["never", "last_win"])
def test_under_a_budget_that_every_level_uses_up_the_match_is_the_level_nearest_to_the_policys_own(
    overspend: str,
) -> None:
    """Spec section 4: the policy with one multiplier chosen so that its spend equals the baseline's: itself, if it does."""
    rows = [
        {"campaign": 1, "request": i, "price": 1.0, "won": 1, "click": i % 2, "pctr": [0.0625, 0.25][i % 2]}
        for i in range(40)
    ]
    # The budget pays for ten: by its own bids those that are clicked, by twice as high ones whatever comes first.
    candidates = {f"x{m}": {"bid": {"multiplier": m}} for m in (0.125, 1.0, 4.0)}
    budget = {"amount": 0.01, "per": "total", "overspend": overspend}
    result = replay(rows, bid={"formula": "8 * pctr"}, budget=budget, candidates=candidates)
    for multiplier, clicks in ((0.125, 10.0), (1.0, 10.0), (4.0, 5.0)):
        found = numbers(result, f"x{multiplier}")
        assert found["clicks_at_matched_spend"] == clicks
        assert found["multiplier_at_matched_spend"] == (4.0 if multiplier < 1 else 1.0)


@pytest.mark.parametrize("budget", [None, {"amount": 0.4, "per": "total"}])
def test_a_candidate_that_bids_as_the_baseline_changes_nothing_at_matched_spend_to_the_last_digit(budget: Any) -> None:
    """So that a rule which allows no increase passes: the last digits of money and of its slopes are not a change."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "request": i,
            "unit": int(rng.integers(200)),
            "campaign": int(rng.integers(3)),
            "price": float(rng.exponential(40.0)),
            "weight": float(rng.choice([1.0, 1.7, 0.3])),
            "won": 1,
            "click": int(rng.random() < 0.4),
            "pctr": float(rng.uniform(0.01, 0.1)),
        }
        for i in range(1500)
    ]
    keys = {"bid": {"formula": "1000 * pctr"}, "segments": ["campaign"]} | ({"budget": budget} if budget else {})
    result = replay(rows, **keys)
    changes = [d for d in result.differences if d.metric.endswith("_at_matched_spend")]
    assert len(changes) >= 3
    for change in changes:
        for ends in (change.absolute, change.relative):
            assert {ends.value, ends.low, ends.high} == {0.0}, change
