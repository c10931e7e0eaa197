"""The market is one world per seed: days don't depend on each other, dice don't depend on bids."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.market.market import CAMPAIGNS, CPA, LOG_SCHEMA, Market, model_bids

DAY = date(2026, 11, 3)


def test_a_day_is_the_same_whichever_other_days_are_made() -> None:
    first, second = Market(1), Market(1)
    first.opportunities(date(2026, 11, 2), 500)
    bids = first.heuristic_bids(first.opportunities(DAY, 2000))
    one = first.settle(first.opportunities(DAY, 2000), bids)
    assert one.equals(second.settle(second.opportunities(DAY, 2000), bids))
    assert not one.equals(second.settle(second.opportunities(date(2026, 11, 4), 2000), bids))
    assert one.schema.equals(LOG_SCHEMA)


def test_a_higher_bid_wins_more_and_changes_no_outcome() -> None:
    market = Market(1)
    auctions = market.opportunities(DAY, 5000)
    bid = market.heuristic_bids(auctions)
    low, high = market.settle(auctions, bid), market.settle(auctions, 2 * bid)
    won = pc.equal(low["is_win"], 1)
    assert pc.sum(high["is_win"]).as_py() > pc.sum(low["is_win"]).as_py()
    for name in ("paying_price", "is_click", "cv", "cv_ts"):
        assert low[name].filter(won).equals(high[name].filter(won))


def test_no_bid_is_null_and_loses() -> None:
    market = Market(1)
    log = market.settle(market.opportunities(DAY, 100), np.full(100, np.nan))
    assert log["bid_price"].null_count == 100
    assert pc.sum(log["is_win"]).as_py() == 0


def test_clicks_and_conversions_follow_the_truth_and_competition_knows_quality() -> None:
    market = Market(1)
    auctions = market.opportunities(DAY, 100_000)
    log = market.settle(auctions, np.full(100_000, 1e9))
    clicks = pc.sum(log["is_click"]).as_py()
    assert abs(clicks / auctions.ctr.sum() - 1) < 0.1
    clicked = log["is_click"].to_numpy() == 1
    assert abs(pc.sum(log["cv"]).as_py() / auctions.cvr[clicked].sum() - 1) < 0.25
    assert np.corrcoef(np.log(auctions.price), np.log(auctions.ctr))[0, 1] > 0.1
    delay = pc.subtract(log["cv_ts"].cast("int64"), log["click_ts"].cast("int64")).drop_null().to_numpy()
    assert (delay > 0).all()


def test_bids_follow_the_campaigns_target() -> None:
    auctions = Market(1).opportunities(DAY, 50)
    bid = model_bids(auctions, np.full(50, 0.02), np.full(50, 0.1))
    for place, got in zip(auctions.campaign, bid, strict=True):
        campaign = CAMPAIGNS[place]
        rate = 0.02 * 0.1 if campaign.billing_type == CPA else 0.02
        assert abs(got - 1000 * campaign.target * rate) < 1e-9
        assert (campaign.target_cpa is None) != (campaign.target_cpc is None)


def test_request_ids_are_unique() -> None:
    market = Market(1)
    ids = pa.concat_arrays(
        [market.opportunities(day, 300).features()["request_id"].combine_chunks() for day in (DAY, date(2026, 11, 4))]
    )
    assert pc.count_distinct(ids).as_py() == 600
