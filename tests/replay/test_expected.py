"""`outcomes: predicted` (spec 3.6): unknown rows count in expectation, in markets whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_logs import numbers, replay

from bidsim.errors import LogError
from bidsim.report.drawings import of_frontier
from bidsim.report.knowledge import curse
from bidsim.report.lookup import Lookup
from bidsim.result import Result

N = 40_000


def market(
    seed: int, *, first_price: bool, priced: float | None = None
) -> tuple[pa.Table, dict[str, dict[str, float]]]:
    """A log that shows prices only where it won (second price), or never (first price), or of a share `priced` of its wins;
    and what is true of both policies: the baseline's bids and half as much again."""
    rng = np.random.default_rng([20261203, seed])
    price = rng.gamma(2.0, 4.0, N)
    pctr = rng.uniform(0.02, 0.3, N).astype(np.float32).astype(np.float64)
    bid = 100 * pctr
    logged = bid * rng.lognormal(0.0, 0.5, N)
    won = logged >= price
    click = rng.random(N) < pctr
    shown = won & (rng.random(N) < (1.0 - first_price if priced is None else priced))
    log = pa.table(
        {
            "unit": pa.array(rng.integers(0, 4000, N)),
            "campaign": pa.array(rng.integers(0, 2, N)),
            "price": pa.array(np.where(shown, price, 0.0), mask=~shown),
            "bid": pa.array(logged),
            "won": pa.array(won.astype(np.int8)),
            "click": pa.array(click.astype(np.int8), mask=~won),
            "target_cpc": pa.array(np.full(N, 0.05)),
            "pctr": pa.array(pctr),
            "pmore": pa.array(np.minimum(1.5 * pctr, 1.0)),
        }
    )
    truth = {}
    for name, bids in (("baseline", bid), ("more", 1.5 * bid)):
        wins = bids >= price
        paid = bids if first_price else price
        truth[name] = {
            "wins": float(wins.sum()),
            "spend": float(paid[wins].sum() / 1000),
            "clicks": float(click[wins].sum()),
            "value": float(click[wins].sum() * 0.05),
        }
    return log, truth


def run(log: pa.Table, **keys: Any) -> Result:
    return replay(
        log,
        bid={"formula": "100 * pctr"},
        candidates={"more": {"columns": {"pctr": "pmore"}}},
        performance_indicator_type="cpc",
        fidelity="warn",
        segments=["campaign"],
        **keys,
    )


@pytest.mark.parametrize(
    ("first_price", "priced"),
    [(False, None), (True, None), (True, 1.0), (True, 0.5), (True, 0.02)],
    ids=[
        "second price",
        "first price",
        "prices of its wins",
        "prices of half of its wins",
        "prices of few of its wins",
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_expected_totals_are_near_the_truth_that_the_log_hides(
    seed: int, first_price: bool, priced: float | None
) -> None:
    log, truth = market(seed, first_price=first_price, priced=priced)
    kind = "first_price" if first_price else "second_price"
    found = run(log, auction={"type": kind}, outcomes="predicted")
    blind = run(log, auction={"type": kind})
    for policy in ("baseline", "more"):
        mine, seen = numbers(found, policy), numbers(blind, policy)
        for name, true in truth[policy].items():
            assert mine[name] == pytest.approx(true, rel=0.04), (policy, name)
            assert seen[name] < 0.95 * true, "the log hides nothing"  # type: ignore[operator]
        assert mine["cpc"] == pytest.approx(truth[policy]["spend"] / truth[policy]["clicks"], rel=0.04)
        spend = next(m for m in found.metrics if m.policy == policy and m.metric == "spend" and not m.segment)
        assert spend.low is not None
        assert spend.high is not None
        assert spend.identified is not None
        assert spend.low < truth[policy]["spend"] * 1.05
        assert spend.high > truth[policy]["spend"] * 0.95
        assert spend.identified.low <= spend.value <= spend.identified.high  # type: ignore[operator]
        # What is not asked of expectations stays as the log shows it.
        for name in ("unknown_wins", "unknown_outcomes", "coverage", "bids", "disagreement", "wins_gained"):
            assert mine.get(name) == seen.get(name)
        assert mine.get("cpc_at_matched_spend") is None
    assert found.split == []


def test_the_report_tells_what_counts_in_expectation_and_what_does_not() -> None:
    log, _ = market(6, first_price=False)
    found, blind = run(log, outcomes="predicted"), run(log)
    said, plain = ([f.message for f in r.findings if f.code == "unknown_wins"] for r in (found, blind))
    assert {m.rpartition("they ")[2] for m in said} == {"count in expectation."}
    assert {m.rpartition("they ")[2] for m in plain} == {"are not counted."}
    # What was observed on a policy's own wins is what the log shows, whatever else counts.
    assert curse(Lookup(found)) == curse(Lookup(blind))
    # The frontier is of what was observed: so is the line at the baseline's spend.
    lines = [[d.plot.arguments["spend"] for d in of_frontier(Lookup(r))] for r in (found, blind)]
    assert lines[0] == lines[1] == [numbers(blind, "baseline")["spend"]] * 2


def test_an_unknown_win_below_the_floor_counts_for_nothing_and_one_above_it_pays_the_floor_at_least() -> None:
    log, _ = market(0, first_price=False)
    bid, lost, odd = 100 * np.array(log["pctr"]), np.array(log["won"]) == 0, np.arange(N) % 2 == 1
    open_rows = lost & (bid > np.array(log["bid"]))
    above = log.append_column("floor", pa.array(1.001 * bid, mask=~lost))
    below = log.append_column("floor", pa.array(0.95 * bid, mask=~(lost & odd)))
    seen = numbers(run(log), "baseline")
    hopeless, plain, floored = (numbers(run(x, outcomes="predicted"), "baseline") for x in (above, log, below))
    assert (hopeless["wins"], hopeless["spend"]) == (seen["wins"], seen["spend"])
    assert hopeless["unknown_wins"] == floored["unknown_wins"] == plain["unknown_wins"] == open_rows.sum()
    assert floored["wins"] == pytest.approx(plain["wins"], rel=1e-9)
    # What cost the mean between the two bids costs nearly all of the own one on half of the rows.
    more = (floored["spend"] - plain["spend"]) / (plain["wins"] - seen["wins"])  # type: ignore[operator]
    assert 0.05 * bid[open_rows].mean() < 1000 * more < 0.5 * bid[open_rows].mean()


def test_segments_add_up_to_the_whole_in_expectation_too() -> None:
    log, _ = market(3, first_price=False)
    result = run(log, outcomes="predicted")
    for policy in ("baseline", "more"):
        for name in ("wins", "spend", "clicks", "value"):
            parts = [m.value for m in result.metrics if m.policy == policy and m.metric == name and m.segment]
            assert sum(p or 0.0 for p in parts) == pytest.approx(numbers(result, policy)[name], rel=1e-9)
    assert run(log, outcomes="predicted", threads=4).metrics == result.metrics  # whoever adds them up


def test_a_log_that_knows_every_fate_counts_the_same_either_way() -> None:
    log, _ = market(4, first_price=False)
    known = log.filter(pa.compute.is_valid(log["price"]))
    plain, predicted = run(known), run(known, outcomes="predicted")
    assert [m.value for m in plain.metrics] == [m.value for m in predicted.metrics]
    assert plain.split == predicted.split


def test_first_price_bids_of_one_size_can_not_say_how_bids_win() -> None:
    log, _ = market(5, first_price=True)
    flat = log.set_column(log.schema.get_field_index("bid"), "bid", pa.array(np.full(N, 9.0)))
    with pytest.raises(LogError, match="first-price auctions show no prices and only 1 sizes of bids"):
        run(flat, auction={"type": "first_price"}, outcomes="predicted")
    some = np.flatnonzero(np.array(log["won"]) == 1)[:120]
    known = np.isin(np.arange(N), some)
    few = flat.set_column(flat.schema.get_field_index("price"), "price", pa.array(np.full(N, 3.0), mask=~known))
    with pytest.raises(LogError, match="first-price auctions show 120 prices and only 1 sizes of bids"):
        run(few, auction={"type": "first_price"}, outcomes="predicted")


def test_a_campaign_of_many_rows_has_a_win_curve_of_its_own() -> None:
    """One campaign's auctions are four times as dear as the other's: the curve of both together would be wrong for each."""
    rng = np.random.default_rng(20261127)
    campaign = rng.integers(0, 2, N)
    price = rng.gamma(2.0, 4.0, N) * np.where(campaign == 1, 2.0, 0.5)
    pctr = rng.uniform(0.02, 0.3, N).astype(np.float32).astype(np.float64)
    logged = 100 * pctr * rng.lognormal(0.0, 0.5, N)
    won = logged >= price
    log = pa.table(
        {
            "campaign": campaign,
            "price": pa.array(price, mask=~won),
            "bid": logged,
            "won": won.astype(np.int8),
            "click": pa.array((rng.random(N) < pctr).astype(np.int8), mask=~won),
            "target_cpc": np.full(N, 0.05),
            "pctr": pctr,
            "pmore": np.minimum(1.5 * pctr, 1.0),
        }
    )
    found = run(log, outcomes="predicted")
    for place in (0, 1):
        wins = (150 * pctr >= price) & (campaign == place)
        mine = numbers(found, "more", {"campaign": str(place)})
        assert mine["wins"] == pytest.approx(wins.sum(), rel=0.02)
        assert mine["spend"] == pytest.approx(price[wins].sum() / 1000, rel=0.02)


def test_weights_make_no_campaign_better_known() -> None:
    """Two campaigns of 1,500 rows are too few for curves of their own, whatever each row stands for."""
    log = market(3, first_price=False)[0].slice(0, 3_000)
    heavy = log.append_column("weight", pa.array(np.full(len(log), 4.0)))
    for segment in ({}, {"campaign": "0"}):
        once, four = (numbers(run(each, outcomes="predicted"), "more", segment) for each in (log, heavy))
        for metric in ("wins", "spend", "clicks"):
            assert four[metric] == pytest.approx(4 * once[metric], rel=1e-8)
