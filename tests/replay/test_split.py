"""Spec 4 and the split of changes: level, mix and ranking against replays made by hand, and who wins what alone."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from oracle import Policy, Rules, Sums
from oracle import replay as replay_naively
from small_logs import Row, numbers, replay

from bidsim.result import Result

FORMULA = "100 * pctr"
CANDIDATE = {"new": {"columns": {"pctr": "pother"}}}
NAMES = ("spend", "clicks", "conversions")


def make_log(seed: int, n: int = 300) -> list[Row]:
    rng = np.random.default_rng([20261124, seed])
    rows = []
    for i in range(n):
        campaign = [1, 2, 3, None][rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])]
        p = float(np.float32(rng.uniform(0.01, 0.2)))
        # The candidate predicts more for some campaigns, less for others, and orders rows otherwise.
        tilt = {1: 1.4, 2: 0.7, 3: 1.1, None: 2.0}[campaign]
        rows.append(
            {
                "request": i,
                "unit": int(rng.integers(0, 40)),
                "campaign": campaign,
                "price": float(np.round(rng.exponential(8.0), 3)),
                "won": 1,
                "click": int(rng.random() < 0.3),
                "conversion": float(rng.random() < 0.2),
                "pctr": p,
                "pother": float(np.float32(min(1.0, p * tilt * rng.lognormal(0.0, 0.3)))),
                "limit": 0.25,
            }
        )
    return rows


def scaled(field: str, multiplier: float) -> Policy:
    return Policy(field, None, lambda row, pctr, pcvr: None if pctr is None else 100 * pctr, multiplier)


def levels(rows: list[Row]) -> tuple[float, dict[Any, float]]:
    """The multiplier that takes the baseline's mean bid to the candidate's: overall, and by campaign."""

    def ratio(chosen: list[Row]) -> float:
        return sum(r["pother"] for r in chosen) / sum(r["pctr"] for r in chosen)

    campaigns = {r["campaign"] for r in rows}
    return ratio(rows), {c: ratio([r for r in rows if r["campaign"] == c]) for c in campaigns}


def expected_parts(rows: list[Row], rules: Rules) -> dict[tuple[str, str], float]:
    """Every part of every metric, from whole naive replays."""
    overall, each = levels(rows)

    def total(replays: list[Sums]) -> dict[str, Fraction]:
        return {name: sum((getattr(s, name) for s in replays), Fraction(0)) for name in NAMES}

    def one(policy: Policy, chosen: list[Row]) -> Sums:
        return replay_naively(chosen, policy, rules)[None]

    stages = [
        total([one(scaled("pctr", 1.0), rows)]),
        total([one(scaled("pctr", overall), rows)]),
        # Campaigns have nothing to do with each other: each is replayed alone, at its own level.
        total([one(scaled("pctr", m), [r for r in rows if r["campaign"] == c]) for c, m in each.items()]),
        total([one(scaled("pother", 1.0), rows)]),
    ]
    for stage in stages:
        stage["cpc"], stage["cpa"] = stage["spend"] / stage["clicks"], stage["spend"] / stage["conversions"]
    return {
        (metric, part): float(stages[k + 1][metric] - stages[k][metric])
        for metric in (*NAMES, "cpc", "cpa")
        for k, part in enumerate(("level", "mix", "ranking"))
    }


def parts(result: Result) -> dict[tuple[str, str], float | None]:
    return {(s.metric, s.part): s.absolute.value for s in result.split}


@pytest.mark.parametrize(
    ("auction", "budget", "rules"),
    [
        ({}, None, Rules()),
        ({"ties": "lose"}, None, Rules(ties_lose=True)),
        ({"type": "first_price"}, None, Rules(first_price=True)),
        ({}, {"amount": "limit", "per": "total"}, Rules(budget="limit", per="total")),
        ({}, {"amount": "limit", "per": "total", "overspend": "never"}, Rules(budget="limit", per="total", never=True)),
    ],
    ids=["second price", "ties lose", "first price", "budget", "budget that caps bids"],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_parts_are_what_replays_at_the_candidates_level_give(
    seed: int, auction: dict[str, Any], budget: dict[str, Any] | None, rules: Rules
) -> None:
    rows = make_log(seed)
    extra = {"budget": budget} if budget else {}
    result = replay(rows, bid={"formula": FORMULA}, candidates=CANDIDATE, auction=auction, **extra)
    assert parts(result) == pytest.approx(expected_parts(rows, rules), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("budget", [None, {"amount": "limit", "per": "total"}], ids=["free", "budget"])
def test_the_parts_add_up_to_the_whole_change_and_carry_intervals(budget: dict[str, Any] | None) -> None:
    extra = {"budget": budget} if budget else {}
    result = replay(make_log(7, 2000), bid={"formula": FORMULA}, candidates=CANDIDATE, **extra)
    for d in result.differences:
        mine = [s for s in result.split if s.metric == d.metric]
        if d.segment or not mine:
            continue
        assert sum(s.absolute.value or 0.0 for s in mine) == pytest.approx(d.absolute.value, rel=1e-9, abs=1e-12)
        assert sum(s.relative.value or 0.0 for s in mine) == pytest.approx(d.relative.value, rel=1e-9, abs=1e-12)
        for s in mine:
            for estimate in (s.absolute, s.relative):
                assert estimate.low is not None
                assert estimate.high is not None
                assert estimate.value is not None
                assert estimate.low <= estimate.value <= estimate.high
    assert {s.metric for s in result.split} == {"spend", "clicks", "conversions", "cpc", "cpa"}


def test_a_candidate_that_only_bids_higher_is_all_level() -> None:
    rows = make_log(11)
    result = replay(rows, bid={"formula": FORMULA}, candidates={"new": {"bid": {"multiplier": 1.3}}})
    for s in result.split:
        if s.part != "level":
            assert s.absolute.value == pytest.approx(0.0, abs=1e-9), (s.metric, s.part)
    assert next(s for s in result.split if s.metric == "spend" and s.part == "level").absolute.value > 0  # type: ignore[operator]


def test_a_log_without_campaigns_has_no_mix() -> None:
    rows = [{k: v for k, v in r.items() if k != "campaign"} for r in make_log(12)]
    result = replay(rows, bid={"formula": FORMULA}, candidates=CANDIDATE)
    assert {s.part for s in result.split} == {"level", "mix", "ranking"}
    assert all(s.absolute.value == 0.0 for s in result.split if s.part == "mix")


def test_wins_gained_and_lost_are_those_that_only_one_policy_has_by_segment() -> None:
    rows = make_log(3)
    result = replay(rows, bid={"formula": FORMULA}, candidates=CANDIDATE, segments=["campaign"])

    def wins(field: str) -> Callable[[Row], bool]:
        return lambda r: 100 * r[field] >= r["price"]

    ours, theirs = wins("pctr"), wins("pother")
    for segment, chosen in [
        ({}, rows),
        *(({"campaign": str(c)}, [r for r in rows if r["campaign"] == c]) for c in (1, 2, 3)),
    ]:
        found = numbers(result, "new", segment)
        alone = {"gained": [r for r in chosen if theirs(r) and not ours(r)]}
        alone["lost"] = [r for r in chosen if ours(r) and not theirs(r)]
        for side, mine in alone.items():
            assert mine or segment, "the log tests nothing"
            assert found[f"wins_{side}"] == len(mine)
            assert found[f"spend_{side}"] == pytest.approx(sum(r["price"] for r in mine) / 1000, rel=1e-12)
            assert found[f"clicks_{side}"] == sum(r["click"] for r in mine)
            assert found[f"conversions_{side}"] == sum(r["conversion"] for r in mine)
        either = [r for r in chosen if ours(r) or theirs(r)]
        differ = len(alone["gained"]) + len(alone["lost"])
        assert found["disagreement"] == pytest.approx(differ / len(either), rel=1e-12)
    base = numbers(result, "baseline")
    assert (
        numbers(result, "new")["wins"]
        == base["wins"] + numbers(result, "new")["wins_gained"] - numbers(result, "new")["wins_lost"]
    )  # type: ignore[operator]
    assert "wins_gained" not in base


@pytest.mark.parametrize(
    "extra",
    [{"budget": {"amount": "limit", "per": "total"}}, {"auction": {"type": "first_price"}}],
    ids=["budget", "first price"],
)
def test_numbers_at_matched_spend_have_intervals_with_and_without_units(extra: dict[str, Any]) -> None:
    rows = make_log(5, 3000)
    for r in rows:
        r["unit"] = r["request"] % 700
        r["limit"] = 2.0
    given = replay(rows, bid={"formula": FORMULA}, candidates=CANDIDATE, **extra)
    bare = [{k: v for k, v in r.items() if k != "unit"} for r in rows]
    without = replay(bare, bid={"formula": FORMULA}, candidates=CANDIDATE, **extra)
    for name in ("cpa_at_matched_spend", "conversions_at_matched_spend", "cpc_at_matched_spend"):
        known = next(m for m in given.metrics if m.policy == "new" and m.metric == name)
        assert known.low is not None
        assert known.high is not None
        assert known.value is not None
        assert known.low < known.value < known.high
        assert known.high / known.low < 2.0
        unknown = next(m for m in without.metrics if m.policy == "new" and m.metric == name)
        assert unknown.value == pytest.approx(known.value, rel=1e-9)
        assert unknown.low is not None
        assert unknown.high is not None
        assert unknown.low < known.value < unknown.high
