"""Worlds know the truth: a replay of a log that hides nothing finds what really happens, and each knob hides or changes
what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.market.live import Day, Rules, run_live
from bidsim.market.worlds import CANDIDATES, POLICIES, Knobs, Size, World
from bidsim.result import Result

SMALL = Size(users=300, days=2, requests=3000)


def replay(world: World, directory: Path) -> Result:
    world.write(directory / "log.parquet")
    return bidsim.replay(world.scenario(directory / "log.parquet"), threads=1)


def value(result: Result, policy: str, metric: str) -> float:
    (found,) = (m.value for m in result.metrics if (m.policy, m.metric, m.segment) == (policy, metric, {}))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "knobs",
    [
        Knobs(),
        Knobs(first_price=True),
        Knobs(budget=0.5),
        Knobs(budget=0.5, pacing="even"),
        Knobs(budget=0.5, first_price=True),
    ],
    ids=["second price", "first price", "budgets", "even pacing", "budgets, first price"],
)
def test_a_replay_of_a_log_that_hides_nothing_finds_what_really_happens(knobs: Knobs, tmp_path: Path) -> None:
    world = World(knobs, SMALL, crowd=3)
    result = replay(world, tmp_path)
    for policy in POLICIES:
        truth = world.live(policy)
        assert value(result, policy, "wins") == truth.wins
        assert value(result, policy, "spend") == pytest.approx(truth.spend, rel=1e-9)
        # Drawn outcomes scatter around what is expected.
        assert value(result, policy, "clicks") == pytest.approx(truth.clicks, abs=5 * truth.clicks**0.5)
        assert value(result, policy, "conversions") == pytest.approx(truth.conversions, abs=5 * truth.conversions**0.5)
    assert result.fidelity.passed


def test_where_own_campaigns_compete_all_decided_wins_cost_what_they_really_cost(tmp_path: Path) -> None:
    world = World(Knobs(campaigns=3), SMALL, crowd=1)
    result = replay(world, tmp_path)
    for policy in POLICIES:
        decided = value(result, policy, "spend") / value(result, policy, "coverage")
        assert decided == pytest.approx(world.live(policy).spend, rel=1e-9)


def test_a_crowd_is_other_users_and_days_of_the_same_market() -> None:
    one, again, other = (World(Knobs(), SMALL, crowd=n) for n in (1, 1, 2))
    assert one.live("better") == again.live("better")
    assert one.live("better") != other.live("better")
    day, same, another = one.days[0], again.days[0], other.days[0]
    np.testing.assert_array_equal(day.price, same.price)
    assert not np.array_equal(day.user, another.user)
    # The same ad on the same spot for the same audience and device at the same hour is predicted alike, whoever sees it.
    seen: list[dict[tuple[int, ...], float]] = []
    for auctions, world in ((day, one), (another, other)):
        pctr, pcvr = world.predictions("baseline", auctions)
        assert pctr.dtype == pcvr.dtype == np.float32
        cells = zip(auctions.campaign, auctions.spot, auctions.audience, auctions.os, auctions.hour, strict=True)
        seen.append(dict(zip((tuple(map(int, cell)) for cell in cells), pctr.tolist(), strict=True)))
    common = seen[0].keys() & seen[1].keys()
    assert len(common) > 20
    for cell in common:
        assert seen[0][cell] == pytest.approx(seen[1][cell], rel=1e-5)


def test_the_log_shows_only_the_prices_that_the_knob_says(tmp_path: Path) -> None:
    for prices, expected in (("all", 1.0), ("won", None), ("none", 0.0)):
        world = World(Knobs(logger="baseline", prices=prices), SMALL)  # type: ignore[arg-type]
        world.write(tmp_path / "log.parquet")
        log = pq.read_table(tmp_path / "log.parquet")
        won = log["is_win"].to_numpy() == 1
        known = log["price"].is_valid().to_numpy()
        np.testing.assert_array_equal(known, won if expected is None else np.full(len(won), bool(expected)))
        np.testing.assert_array_equal(log["is_click"].is_valid().to_numpy(), won)


def test_a_thinned_log_keeps_its_sums_by_weight(tmp_path: Path) -> None:
    whole, thin = (World(Knobs(kept=kept), SMALL) for kept in (1.0, 0.25))
    for name, world in (("whole", whole), ("thin", thin)):
        world.write(tmp_path / f"{name}.parquet")
    full, part = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "thin"))
    assert part.num_rows < 0.75 * full.num_rows
    assert pc.sum(part["sample_weight"]).as_py() == pytest.approx(full.num_rows, rel=0.05)


def test_late_conversions_are_missing_at_the_end_of_the_log_and_count_in_the_truth(tmp_path: Path) -> None:
    size = replace(SMALL, days=3, requests=6000)
    world, prompt = World(Knobs(delay_hours=10), size), World(Knobs(), size)
    assert 0.6 < world.live("better").conversions / prompt.live("better").conversions < 1
    rates = []
    world.write(tmp_path / "log.parquet")
    log = pq.read_table(tmp_path / "log.parquet").sort_by("ts")
    half = log.num_rows // 2
    for part in (log.slice(0, half), log.slice(half)):
        rates.append(pc.sum(part["cv"]).as_py() / pc.sum(part["is_click"]).as_py())
    assert rates[1] < rates[0]
    result = bidsim.replay(world.scenario(tmp_path / "log.parquet"), threads=1)
    assert result.diagnostics["maturity"]["used"] > 0


def test_prices_follow_bids_only_in_the_truth() -> None:
    calm, nervous = World(Knobs(), SMALL), World(Knobs(reaction=0.3), SMALL)
    assert calm.live("baseline") == nervous.live("baseline")
    assert calm.live("better") != nervous.live("better")


def test_budgets_are_a_share_of_what_the_baseline_spends() -> None:
    free, tight = World(Knobs(), SMALL), World(Knobs(budget=0.5), SMALL)
    share = tight.live("baseline").spend / free.live("baseline").spend
    assert 0.4 < share < 0.6
    for policy in CANDIDATES:
        assert tight.live(policy).spend < free.live(policy).spend


DAY = Day(
    request=np.array([0, 0, 1, 2, 3]),
    campaign=np.array([0, 1, 0, 0, 1]),
    minute=np.array([0, 0, 10, 700, 1439]),
    price=np.array([100.0, 100.0, 50.0, 70.0, 10.0]),
)
BIDS = np.array([150.0, 160.0, 60.0, 60.0, np.nan])


@pytest.mark.parametrize(
    ("rules", "bids", "wins", "costs"),
    [
        # The highest bid of a request stands for the DSP; 60 is less than 70; no bid is none.
        (Rules(), BIDS, [0, 1, 1, 0, 0], [0, 0.1, 0.05, 0, 0]),
        (Rules(first_price=True), BIDS, [0, 1, 1, 0, 0], [0, 0.16, 0.06, 0, 0]),
        # A bid is entered while less than the budget is spent: the win that crosses it is paid.
        (Rules(budget=np.array([0.04, 0.0])), 2 * BIDS, [0, 0, 1, 0, 0], [0, 0, 0.05, 0, 0]),
        # By minute 701 of 1440 half of 0.2 is released and 0.05 spent.
        (Rules(budget=np.array([0.2, 0.2]), pacing="even"), 2 * BIDS, [0, 1, 1, 1, 0], [0, 0.1, 0.05, 0.07, 0]),
    ],
    ids=["second price", "first price", "asap", "even"],
)
def test_auctions_and_budgets_by_hand(rules: Rules, bids: Any, wins: list[int], costs: list[float]) -> None:
    got, cost = run_live(DAY, bids, bids, rules)
    np.testing.assert_array_equal(got, np.array(wins, dtype=bool))
    np.testing.assert_allclose(cost, costs)


def test_others_raise_their_prices_by_a_share_of_our_rise() -> None:
    lone = replace(DAY, request=np.arange(5))
    bid = np.full(5, 200.0)
    _, cost = run_live(lone, 2 * bid, bid, Rules(reaction=0.2))
    np.testing.assert_allclose(cost, lone.price * 1.2 / 1000)
