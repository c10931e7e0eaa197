"""Intervals under budgets: half-samples of the units, replayed with half of every budget, checked against naive replays."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from oracle import Policy, Rules, Sums
from oracle import replay as replay_naively
from scipy.linalg import hadamard
from small_logs import Row, as_table

from bidsim.replay.pipeline import run_replay
from bidsim.scenario.loading import scenario_from_dict
from bidsim.statistics import units
from bidsim.statistics.halves import DESIGN, REPLICATES, STRATA, by_stratum, in_half
from bidsim.statistics.intervals import interval
from bidsim.statistics.measured import total_of
from bidsim.statistics.metrics import economic_values
from bidsim.statistics.numbers import numbers_of
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import OVERALL

START = datetime(2026, 11, 24, tzinfo=UTC)
RESULTS = ("wins", "spend", "clicks", "conversions")
NAMES = (*RESULTS, "value")


def make_log(seed: int, n: int = 600, units_of: int = 150, **same: Any) -> list[Row]:
    rng = np.random.default_rng([20261124, seed])
    rows = []
    for i in range(n):
        p = float(np.float32(rng.uniform(0.01, 0.2)))
        rows.append(
            {
                "time": START + timedelta(minutes=int(rng.integers(0, 2 * 24 * 60))),
                "request": i,
                "unit": int(rng.integers(0, units_of)),
                "campaign": int(rng.integers(1, 4)),
                "price": float(np.round(rng.exponential(8.0), 3)),
                "won": 1,
                "click": int(rng.random() < 0.3),
                "conversion": float(rng.random() < 0.2),
                "weight": float(rng.choice([1.0, 2.0, 0.5])),
                "target_cpa": 3.0,
                "pctr": p,
                "pother": float(np.float32(min(1.0, p * rng.lognormal(0.1, 0.4)))),
                "limit": 0.25,
                **same,
            }
        )
    return rows


def tables_of(rows: list[Row], *, threads: int = 1, **scenario: Any) -> Tables:
    with tempfile.TemporaryDirectory(prefix="bidsim-test-") as folder:
        path = Path(folder) / "log.parquet"
        pq.write_table(as_table(rows), path, row_group_size=200)
        document = {
            "logs_tables": {"ad": {"path": str(path)}},
            "bid": {"formula": "100 * pctr"},
            "candidates": {"new": {"columns": {"pctr": "pother"}}},
            "segments": ["campaign"],
            **scenario,
        }
        loaded = scenario_from_dict(document, directory=Path(folder))
        return run_replay(loaded, [], as_of=date(2026, 11, 24)).tables


def sums(rows: list[Row], rules: Rules, campaign: int | None) -> dict[tuple[str, int], float]:
    """By (name, place of the policy): each policy's own wins, and those that only one of them has."""
    policies = [
        Policy(field, None, lambda row, pctr, pcvr: None if pctr is None else 100 * pctr)
        for field in ("pctr", "pother")
    ]
    each = [replay_naively(rows, policy, rules, segment="request") for policy in policies]
    out = dict.fromkeys([(name, place) for name in NAMES for place in (0, 1)], 0.0)
    out |= dict.fromkeys([(f"{name}_{side}", 1) for name in RESULTS for side in ("gained", "lost")], 0.0)
    for row in rows:
        if campaign is not None and row["campaign"] != campaign:
            continue
        ours, theirs = (found.get(row["request"]) or Sums() for found in each)
        for name in NAMES:
            out[name, 0] += float(getattr(ours, name))
            out[name, 1] += float(getattr(theirs, name))
        side, alone = ("gained", theirs) if not ours.wins else ("lost", ours)
        if bool(ours.wins) != bool(theirs.wins):
            for name in RESULTS:
                out[f"{name}_{side}", 1] += float(getattr(alone, name))
    return out


@pytest.mark.parametrize(
    ("budget", "rules", "extra"),
    [
        ({}, {}, {}),
        ({"overspend": "never"}, {"never": True}, {}),
        ({"pacing": "even"}, {"even": True}, {}),
        ({"overspend": "never"}, {"never": True, "first_price": True}, {"auction": {"type": "first_price"}}),
    ],
    ids=["asap", "never", "even", "never, first price"],
)
def test_half_samples_are_replays_of_half_the_units_with_half_the_budget(
    budget: dict[str, Any], rules: dict[str, Any], extra: dict[str, Any]
) -> None:
    rows = make_log(1)
    tables = tables_of(rows, budget={"amount": "limit", "per": "day", **budget}, **extra)
    bucket = units.buckets_of(units.hash_whole(np.array([r["unit"] for r in rows])))
    halves = in_half()[:, bucket]
    how = Rules(budget="limit", per="day", **rules)
    for name, labels in ((OVERALL, [None]), ("campaign", [1, 2, 3])):
        family = tables.families[name]
        for i, campaign in enumerate(labels):
            whole = sums(rows, how, campaign)
            found = [
                sums([{**r, "limit": r["limit"] / 2} for r, own in zip(rows, half, strict=True) if own], how, campaign)
                for half in halves
            ]
            assert any(each[name, 1] != whole[name, 1] / 2 for each in found for name in ("wins_gained", "wins_lost"))
            for (measure, place), value in whole.items():
                # What strata differ by, from the definition: replicates times the design, but for its constant.
                doubled = np.array([2 * each[measure, place] for each in found])
                contrast = DESIGN.T @ doubled / REPLICATES * np.sqrt(STRATA / (STRATA - 1))
                contrast[0] = 0.0
                expected = value / STRATA + contrast - contrast.mean()
                np.testing.assert_allclose(family.by_bucket(measure, place)[i], expected, rtol=0, atol=1e-9)


def test_half_samples_are_balanced() -> None:
    halves = in_half()
    assert halves.shape == (REPLICATES, units.BUCKETS)
    assert (halves.sum(axis=1) == units.BUCKETS // 2).all()
    # Any two strata's halves come together in all four ways equally often.
    np.testing.assert_array_equal(DESIGN.T @ DESIGN, REPLICATES * np.eye(STRATA))
    np.testing.assert_array_equal(DESIGN, hadamard(STRATA))


def test_where_rows_share_nothing_strata_spread_as_buckets_do() -> None:
    rng = np.random.default_rng(7)
    ratios = []
    for _ in range(400):
        own = rng.gamma(2.0, 1.0, (1, units.BUCKETS))
        strata = by_stratum(own)
        assert strata.sum() == pytest.approx(own.sum())
        spread = ((strata - strata.mean()) ** 2).sum() * STRATA / (STRATA - 1)
        ratios.append(spread / (units.BUCKETS * 2.0))  # of a gamma's variance, 2
    assert np.mean(ratios) == pytest.approx(1.0, abs=5 * np.std(ratios) / 20)


def test_where_no_budget_binds_nothing_is_moved() -> None:
    rows = make_log(2)
    with_budget = tables_of(rows, budget={"amount": "1000", "per": "day"})
    without = tables_of(rows)
    for name in (OVERALL, "campaign"):
        assert not with_budget.families[name].reruns
    ours, theirs = (
        {(m.policy, m.metric, str(m.segment)): (m.low, m.high) for m in numbers_of(t, 0.95).metrics if m.head is None}
        for t in (with_budget, without)
    )
    # At other levels a budget of 1000 holds nothing back either, but they are found on another grid.
    assert {k: v for k, v in ours.items() if "matched" not in k[1]} == {
        k: v for k, v in theirs.items() if k in ours and "matched" not in k[1]
    }


def test_a_win_rate_takes_the_budgets_course_as_it_was_since_bids_are_not_replayed() -> None:
    tables = tables_of(make_log(5), budget={"amount": "limit", "per": "day"})
    for name in (OVERALL, "campaign"):
        family = tables.families[name]
        assert family.reruns
        found = economic_values(family, 1, has_click=True, has_conversion=True)["win_rate", None, None]
        bids, wins = (family.parts[name, 1, None] / family.scales[name, 1, None] for name in ("bids", "wins"))
        assert found.parts is not None
        assert found.parts.shape == bids.shape
        np.testing.assert_allclose(
            found.parts, (wins - found.value[:, None] * bids) / bids.sum(axis=1, keepdims=True), rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize("unit", [True, False], ids=["units", "rows are units"])
def test_spend_that_a_budget_fixes_does_not_vary_however_users_differ(unit: bool) -> None:
    # That what a group's absence moves cancels its own sums shows also that both put a row in the same group.
    rows = make_log(3, n=4000, units_of=800, price=1.0, weight=1.0, limit=0.04, campaign=1)
    if not unit:
        rows = [{k: v for k, v in r.items() if k != "unit"} for r in rows]
    tables = tables_of(rows, budget={"amount": "limit", "per": "day"})
    family, sample = tables.families[OVERALL], tables.sample(OVERALL, 0.95)
    low, high = interval(total_of(family.by_bucket("spend", 0), family.get("spend", 0)), sample)
    assert low[0] == pytest.approx(0.08)
    assert high[0] == pytest.approx(0.08)
    low, high = interval(total_of(family.by_bucket("clicks", 0), family.get("clicks", 0)), sample)
    assert low[0] < family.get("clicks", 0)[0] < high[0]


@pytest.mark.parametrize("unit", [True, False], ids=["units", "rows are units"])
def test_threads_and_files_change_no_digit(unit: bool) -> None:
    rows = make_log(4)
    if not unit:
        rows = [{k: v for k, v in r.items() if k != "unit"} for r in rows]
    budget = {"amount": "limit", "per": "day"}
    one, two = tables_of(rows, budget=budget), tables_of(rows, budget=budget, threads=2)
    assert one.families[OVERALL].reruns
    for name in (OVERALL, "campaign"):
        for key, parts in one.families[name].reruns.items():
            np.testing.assert_array_equal(parts, two.families[name].reruns[key])
