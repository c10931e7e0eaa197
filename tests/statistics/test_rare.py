"""Where two policies decide (nearly) all rows alike, an interval says how few rows were there to see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from small_logs import Row, replay

from bidsim.result import Difference, Estimate, Result
from bidsim.statistics.measured import total_of
from bidsim.statistics.metrics import Values, differences
from bidsim.statistics.rare import FEW, Rare, hidden_rows
from bidsim.statistics.spread import Sample
from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]

BUCKETS, ROWS = 256, 400
THREE = -np.log(0.025)
ONE = (None, None)
MOVES = np.array([False])


def seen(lost: Floats, *, same: bool = False) -> Rare:
    """Of a log of ROWS wins of the baseline, a unit of money each."""
    one = np.ones(len(lost))
    return Rare(
        weight=one, money=2 * one, wins=ROWS * one, spend=ROWS * one, value=3 * ROWS * one, either=ROWS * one,
        events=lost, same=np.full(len(lost), same), ranked=np.full(len(lost), same),
    )  # fmt: skip


def changes(won: Floats, lost: Floats, rare: Rare | None) -> tuple[Floats, Floats]:
    """The interval of the relative change of wins. won, lost: by market and bucket."""

    def values(wins: Floats) -> Values:
        return {("wins", *ONE): total_of(wins, wins.sum(axis=1))}

    found = dict(differences(values(won), values(won - lost), Sample(0.95, won, ROWS), rare))
    return found[("wins", *ONE)].relative_bounds


@pytest.mark.parametrize("rate", [0.0002, 0.001, 0.0025, 0.005, 0.01, 0.02])
def test_rare_rows_are_held(rate: float) -> None:
    """A thousand logs, of whose rows the candidate loses one in so many."""
    rng = np.random.default_rng([20261126, int(rate * 1e5)])
    bucket = rng.integers(0, BUCKETS, (1000, ROWS))
    loses = rng.random((1000, ROWS)) < rate
    won = np.array([np.bincount(b, minlength=BUCKETS) for b in bucket], dtype=np.float64)
    lost = np.array([np.bincount(b[x], minlength=BUCKETS) for b, x in zip(bucket, loses, strict=True)], dtype=float)
    for rare, least in ((seen(lost.sum(axis=1)), 0.94), (None, 0.0)):
        low, high = changes(won, lost, rare)
        known = ~np.isnan(low)
        held = ((low <= -rate) & (-rate <= high))[known].mean()
        assert held >= least
        if rare is None and rate <= 0.0025:
            assert held < 0.7  # what it was


def test_the_more_rows_are_decided_differently_the_less_is_added() -> None:
    counts = np.arange(FEW + 2, dtype=np.float64)
    won = np.full((len(counts), BUCKETS), ROWS / BUCKETS)
    lost = (np.arange(BUCKETS) < counts[:, None]).astype(np.float64)
    with_rare, without = (changes(won, lost, rare) for rare in (seen(counts), None))
    added = np.sqrt((with_rare[1] + counts / ROWS) ** 2 - (without[1] + counts / ROWS) ** 2) * ROWS
    known = ~np.isnan(added)
    assert known.sum() >= FEW
    np.testing.assert_allclose(
        added[known], THREE * np.sqrt(np.clip(1 - counts / FEW, 0, 1))[known], rtol=1e-6, atol=1e-6
    )
    assert with_rare[0][FEW:].tolist() == without[0][FEW:].tolist()
    assert with_rare[1][FEW:].tolist() == without[1][FEW:].tolist()


def test_the_reach_of_each_metric() -> None:
    rare = seen(np.zeros(1))

    def reach(metric: str, baseline: float) -> float:
        found = rare.reach(metric, np.array([baseline]), 0.95, MOVES)
        assert found is not None
        return float(found[0])

    assert reach("wins", ROWS) == pytest.approx(THREE)
    assert reach("win_rate", 0.5) == pytest.approx(0.5 * THREE / ROWS)
    assert reach("spend", ROWS) == pytest.approx(2 * THREE)
    assert reach("conversions", 20) == pytest.approx(20 * THREE / ROWS)
    assert reach("cpa", 20) == pytest.approx(20 * 2 * THREE / ROWS)
    assert reach("value", 3 * ROWS) == pytest.approx(3 * THREE)
    assert reach("surplus", 2 * ROWS) == pytest.approx(3 * THREE + 2 * THREE)
    assert reach("roi", 2) == pytest.approx(3 * 2 * THREE / ROWS)
    assert rare.disagreement(0.95)[0] == pytest.approx(THREE / ROWS)
    for metric in ("logloss", "bids", "unknown_wins", "churn"):
        assert rare.reach(metric, np.ones(1), 0.95, MOVES) is None
    wide = rare.reach("wins", np.ones(1), 0.99, MOVES)
    assert wide is not None
    assert wide[0] == pytest.approx(-np.log(0.005))


def test_of_no_row_it_is_the_exact_interval_of_a_proportion() -> None:
    """Clopper-Pearson's, by scipy."""
    for confidence in (0.8, 0.95, 0.99):
        exact = stats.binomtest(0, ROWS).proportion_ci(confidence, method="exact").high
        assert hidden_rows(np.zeros(1), confidence)[0] / ROWS == pytest.approx(exact, rel=0.01)


def test_where_neither_bids_nothing_is_open() -> None:
    scales = dict.fromkeys([(n, 1, None) for n in ("bid_level", "bid_level_from", "wins_gained", "wins_lost")], 1)
    scales |= dict.fromkeys([("bids", 0, None), ("bids", 1, None), ("rows", None, None), ("weight", None, None)], 1)
    rows = np.array([5], dtype=object)
    family = Family("", ("",), {("rows", None, None): rows, ("weight", None, None): rows}, scales, {}, BUCKETS)
    found = Rare.of(family, 1)
    assert found is not None
    assert (found.same.tolist(), found.ranked.tolist()) == ([True], [True])
    for metric in ("clicks", "clicks_at_matched_spend", "spend"):
        reach = found.reach(metric, np.zeros(1), 0.95, np.array([True]))
        assert reach is not None
        assert reach.tolist() == [0.0]


def test_the_same_bids_differ_by_nothing() -> None:
    assert [
        r.tolist() for r in (seen(np.zeros(1), same=True).reach("spend", np.ones(1), 0.95, MOVES),) if r is not None
    ] == [[0.0]]
    assert seen(np.zeros(1), same=True).disagreement(0.95).tolist() == [0.0]


def saturated(other: Any, **scenario: Any) -> Result:
    """Both policies bid far above every price; two of three rows are of campaign 1."""
    rng = np.random.default_rng(11)
    rows: list[Row] = []
    for i in range(900):
        p = float(np.float32(rng.uniform(0.1, 0.2)))
        rows.append(
            {
                "request": i,
                "unit": i % 300,
                "campaign": 1 + i % 3 // 2,
                "price": float(np.round(rng.uniform(1.0, 5.0), 3)),
                "won": 1,
                "click": int(rng.random() < 0.5),
                "pctr": p,
                "pother": other(p, rng),
            }
        )
    return replay(
        rows,
        columns={"target_cpc": "20e0"},
        performance_indicator_type="cpc",
        bid={"formula": "100 * pctr"},
        candidates={"new": {"columns": {"pctr": "pother"}}},
        segments=["campaign"],
        **scenario,
    )


def relative(result: Result, metric: str, **segment: str) -> Estimate:
    found: Difference = next(d for d in result.differences if d.metric == metric and d.segment == segment)
    return found.relative


def test_a_change_that_no_row_shows_is_as_wide_as_its_rows_are_few() -> None:
    found = saturated(lambda p, rng: float(np.float32(p * rng.uniform(0.8, 1.25))))
    for segment, wins in (({}, 900), ({"campaign": "1"}, 600), ({"campaign": "2"}, 300)):
        change = relative(found, "wins", **segment)
        assert change.value == 0.0
        assert (change.low, change.high) == pytest.approx((-THREE / wins, THREE / wins))
        clicks = relative(found, "clicks_at_matched_spend", **segment)
        assert clicks.low is not None
        assert clicks.low <= -THREE / wins
        spend, cpc = relative(found, "spend", **segment), relative(found, "cpc", **segment)
        assert (spend.low, spend.high) == pytest.approx((cpc.low, cpc.high))
        assert spend.high is not None
        assert spend.high > 2 * THREE / wins  # such a row costs what a bid is worth, 15 beside 3
        own = next(m for m in found.metrics if m.metric == "disagreement" and m.segment == segment)
        assert (own.value, own.low, own.high) == pytest.approx((0.0, 0.0, THREE / wins))


def parts(result: Result, metric: str) -> dict[str, Estimate]:
    return {p.part: p.relative for p in result.split if p.metric == metric}


def test_parts_of_a_change_that_no_row_shows_have_a_width_unless_they_are_no_steps() -> None:
    found = parts(saturated(lambda p, rng: float(np.float32(p * rng.uniform(0.8, 1.25)))), "spend")
    for part in ("level", "mix", "ranking"):
        assert found[part].value == 0.0
        assert found[part].high is not None
        assert found[part].high > THREE / 900
    dearer = saturated(lambda p, rng: p * 1.25)
    for metric in ("spend", "clicks", "cpc"):
        found = parts(dearer, metric)
        assert found["level"].low is not None
        assert found["level"].low <= -THREE / 900 * (1 - 1e-9)
        for part in ("mix", "ranking"):
            assert (found[part].value, found[part].low, found[part].high) == (0.0, 0.0, 0.0)


def test_a_share_of_nearly_all_rows_holds_exceptions() -> None:
    found = saturated(lambda p, rng: p)
    for policy in found.policies:
        own = next(m for m in found.metrics if (m.policy, m.metric, m.segment) == (policy.name, "win_rate", {}))
        assert (own.value, own.low, own.high) == pytest.approx((1.0, 1.0 - THREE / 900, 1.0))
        clicked = next(m for m in found.metrics if (m.policy, m.metric, m.segment) == (policy.name, "ctr", {}))
        assert clicked.value is not None
        assert clicked.high is not None
        assert clicked.value < 0.6
        assert clicked.high < 0.6


def test_a_model_that_is_the_same_differs_by_nothing() -> None:
    found = saturated(lambda p, rng: p)
    for metric in ("wins", "spend", "cpc", "surplus", "clicks_at_matched_spend", "cpc_at_matched_spend"):
        change = relative(found, metric)
        assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)
    own = next(m for m in found.metrics if m.metric == "disagreement" and not m.segment)
    assert (own.low, own.high) == (0.0, 0.0)


def test_a_higher_bidder_is_no_other_model_at_matched_spend() -> None:
    found = saturated(lambda p, rng: p * 1.25)
    assert relative(found, "wins").high == pytest.approx(THREE / 900)
    change = relative(found, "cpc_at_matched_spend")
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_an_area_that_can_not_be_larger_has_no_interval() -> None:
    """Campaign 1: every click scores above all else, by either model; 2: a score for all rows; 3: no such luck."""
    rng = np.random.default_rng(12)
    rows: list[Row] = []
    for i in range(600):
        campaign, click = 1 + i % 3, int(rng.random() < 0.2)
        p = float(np.float32(rng.uniform(0.1, 0.2)))
        p = 0.15 if campaign == 2 else p + 0.1 * click if campaign == 1 else p
        rows.append(
            {"request": i, "unit": i, "campaign": campaign, "price": 1.0, "won": 1, "click": click, "pctr": p,
             "pother": p * p if campaign == 1 else p, "psame": p}
        )  # fmt: skip
    found = replay(
        rows,
        columns={"target_cpc": "20e0"},
        performance_indicator_type="cpc",
        bid={"formula": "100 * pctr"},
        candidates={"new": {"columns": {"pctr": "pother"}}, "same": {"columns": {"pctr": "psame"}}},
        segments=["campaign"],
    )
    for name in ("auc", "gauc"):
        own = {m.segment["campaign"]: m for m in found.metrics if (m.policy, m.metric) == ("new", name) and m.segment}
        assert (own["1"].value, own["1"].low, own["1"].high) == (1.0, None, None)
        assert (own["2"].value, own["2"].low, own["2"].high) == (0.5, 0.5, 0.5)
        assert own["3"].low is not None
        change = {
            (d.policy, d.segment["campaign"]): d.absolute for d in found.differences if d.metric == name and d.segment
        }
        assert (change["new", "1"].value, change["new", "1"].low) == (0.0, None)
        for same in (("same", "1"), ("new", "2"), ("same", "3")):
            assert (change[same].value, change[same].low, change[same].high) == (0.0, 0.0, 0.0)
