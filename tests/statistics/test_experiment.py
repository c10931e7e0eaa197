"""The plan of an A/B test: as many users as it asks for find the predicted change as often as it says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from bidsim.report.plan import render_plan
from bidsim.statistics.experiment import plan_experiment
from bidsim.statistics.tables import Outline, Tables
from bidsim.statistics.tallies import OVERALL, Family, Tally
from bidsim.statistics.units import BUCKETS

UNITS = 40_000
NAMES = ("wins", "spend", "conversions")


def market(rng: np.random.Generator, units: int) -> dict[tuple[str, int], np.ndarray]:
    """What each user brings to either policy. The candidate spends 4% less per conversion; users differ a lot."""
    wins = rng.negative_binomial(2, 0.15, units)
    lucky = rng.random(units) < 0.9
    out: dict[tuple[str, int], np.ndarray] = {}
    taste = rng.gamma(1.0, 0.02, units)
    conversions = rng.poisson(wins * taste)
    for policy, cost in ((0, 100.0), (1, 96.0)):
        mine = np.where(lucky | (policy == 0), wins, wins + rng.poisson(1.0, units))
        out[("wins", policy)] = mine
        out[("spend", policy)] = np.rint(mine * cost * rng.uniform(0.9, 1.1, units)).astype(np.int64)
        out[("conversions", policy)] = conversions + np.where(mine > wins, rng.poisson(taste), 0)
    return out


def tables_of(market: dict[tuple[str, int], np.ndarray], rng: np.random.Generator) -> Tables:
    bucket = rng.integers(0, BUCKETS, len(next(iter(market.values()))))
    tally = Tally(BUCKETS)
    tally.add(("rows", None, None), bucket, None)
    for (name, policy), values in market.items():
        tally.add((name, policy, None), bucket, values)
    sums, parts = tally.exact(1, BUCKETS)
    scales = dict.fromkeys(sums, 1)
    outline = Outline(("baseline", "new"), (), {}, (OVERALL,), None, False, True, False, (), UNITS)
    return Tables(outline, {OVERALL: Family(OVERALL, ("",), sums, scales, parts, BUCKETS)}, {}, {}, {}, {})


@pytest.mark.parametrize(("metric", "share"), [("cpa", 0.5), ("cpa", 0.2), ("wins", 0.5)])
def test_a_test_of_the_planned_size_finds_the_change_with_the_power_asked_for(metric: str, share: float) -> None:
    rng = np.random.default_rng(20261128)
    log = market(rng, UNITS)
    need = next(
        iter(plan_experiment(tables_of(log, rng), shares=[share], power=0.8, confidence=0.95, metrics=[metric]))
    )
    times = need.arms[0].times
    assert times is not None
    users = round(times * UNITS)
    found = 0
    tries = 400
    true = math.log1p(need.change)
    for _ in range(tries):
        arms = []
        for policy, part in ((0, 1 - share), (1, share)):
            chosen = rng.integers(0, UNITS, round(users * part))
            above = log[("spend" if metric == "cpa" else metric, policy)][chosen].astype(float)
            below = log[("conversions", policy)][chosen].astype(float) if metric == "cpa" else np.ones(len(chosen))
            rate = above.sum() / below.sum()
            influence = (above - rate * below) / above.sum()
            arms.append((math.log(rate), float((influence**2).sum())))
        z = (arms[1][0] - arms[0][0]) / math.sqrt(arms[0][1] + arms[1][1])
        found += z * math.copysign(1, true) > 1.96
    # 400 tries at 80%: a standard error of 2%.
    assert 0.73 <= found / tries <= 0.87


def test_more_power_and_uneven_arms_need_more_and_pairing_needs_less() -> None:
    rng = np.random.default_rng(20261129)
    tables = tables_of(market(rng, UNITS), rng)

    def needs(**keys: float) -> dict[str, list[float]]:
        settings = {"power": 0.8, "confidence": 0.95, **keys}
        found = plan_experiment(tables, shares=[0.05, 0.5], power=settings["power"], confidence=settings["confidence"])
        return {n.metric: [a.times or math.nan for a in n.arms] for n in found}

    plain = needs()
    assert {"wins", "spend", "conversions", "cpm", "cpa"} == set(plain)
    for metric, (few, half) in plain.items():
        assert few > half, metric
        for more in (needs(power=0.9), needs(confidence=0.99)):
            assert more[metric][1] > half
    for need in plan_experiment(tables, shares=[0.5], power=0.8, confidence=0.95):
        assert need.gain is not None
        assert need.gain > 1
        if need.low is not None and need.high is not None and need.low * need.high > 0:
            arm = need.arms[0]
            assert arm.times is not None
            assert arm.times_if_smaller is not None
            assert arm.times_if_smaller > arm.times
        else:
            assert need.arms[0].times_if_smaller is None


def test_a_log_of_too_few_units_for_an_interval_plans_nothing() -> None:
    rng = np.random.default_rng(7)
    log = market(rng, 3)
    tables = tables_of(log, rng)
    assert list(plan_experiment(tables, shares=[0.5], power=0.8, confidence=0.95, metrics=["spend", "cpm"])) == []
    result = SimpleNamespace(
        data=SimpleNamespace(window=None, rows=0),
        baseline="b",
        scenario={},
        metrics=[SimpleNamespace(policy="b", metric="wins", segment={}, value=9.0)],
    )
    words = render_plan(result, [], power=0.8, confidence=0.95)  # type: ignore[arg-type]
    assert "Nothing can be planned from it" in words
