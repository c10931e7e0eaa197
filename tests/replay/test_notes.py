"""What the settled rows tell beside the sums: when budgets ran out, and whose ad would be shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from small_logs import Row, numbers, replay

NOON = datetime(2026, 3, 8, 3, tzinfo=UTC)  # in Tokyo


def auctions(count: int, campaign: int = 1) -> list[Row]:
    """One a minute from noon, each won for 1 CPM by any bid of 10."""
    return [
        {
            "time": NOON + timedelta(minutes=i), "request": i, "campaign": campaign, "price": 1.0, "bid": 10.0, "won": 1,
            "click": 1, "pctr": 0.5,
        }
        for i in range(count)
    ]  # fmt: skip


def test_a_formula_that_reads_the_price_is_told_and_one_that_does_not_is_not() -> None:
    # Roles that the log lacks (conversion) and names that are no log columns (the target) are both None, and no match.
    columns = {"target_cpc": "20"}
    keys: dict[str, Any] = {"columns": columns, "performance_indicator_type": "cpc"}
    assert [f for f in replay(auctions(5), **keys).findings if f.code == "hindsight"] == []
    seen = replay(auctions(5), bid={"formula": "price + 1"}, **keys)
    assert {f.message.split('"')[1] for f in seen.findings if f.code == "hindsight"} == {"baseline", "new"}


def test_a_candidate_whose_bids_are_alike_is_said_to_spend_less_at_matched_spend() -> None:
    # Prices 1 to 20 CPM, of which the baseline wins those up to 10, for 55. "lumps" wins 1 to 4, for 10, or all at once.
    rows = [{**row, "price": float(i + 1), "bid": 30.0} for i, row in enumerate(auctions(20))]
    lumps = {"bid": {"formula": "case when price <= 4 then 10 * price else 2 * price end"}}
    result = replay(
        rows,
        bid={"formula": "10"},
        candidates={"twice": {"bid": {"formula": "20"}}, "lumps": lumps},
        columns={"target_cpc": "20"},
    )
    (found,) = (f.message for f in result.findings if f.code == "unmatched_spend")
    assert found.startswith('At matched spend "lumps" spends 81.8% less than the baseline')


@pytest.mark.parametrize("overspend", ["last_win", "never"])
def test_the_time_at_which_each_policy_ran_out_of_money_is_told_by_campaign_and_day(overspend: str) -> None:
    rows = auctions(30) + auctions(5, campaign=2)
    result = replay(
        rows,
        bid={"formula": "10"},
        candidates={"dear": {"bid": {"multiplier": 3.0}}, "none": {"bid": {"multiplier": 0.01}}},
        budget={"amount": 0.02, "per": "day", "overspend": overspend},
        auction={"type": "first_price"},
        timezone="Asia/Tokyo",
    )
    # A first-price bid costs itself: 0.01 an auction, 0.03 with three times the bid; none bids too low to win.
    found = {(g["campaign"], g["period"]): g["at"] for g in result.diagnostics["budget"]["exhausted_at"]}
    assert found == {
        ("1", "2026-03-08"): {
            "baseline": "2026-03-08T12:02",
            "dear": "2026-03-08T12:01",
            "none": None,
        },
        ("2", "2026-03-08"): {
            "baseline": "2026-03-08T12:02",
            "dear": "2026-03-08T12:01",
            "none": None,
        },
    }
    assert result.diagnostics["budget"]["exhausted"] == {"baseline": 2, "dear": 2, "none": 0}


def test_waiting_for_the_next_minute_is_not_running_out() -> None:
    keys: dict[str, Any] = {"bid": {"formula": "10"}, "timezone": "Asia/Tokyo"}
    # Half of the day has passed: of 0.06 about 0.03 is released, and the day's money is never spent.
    paced = replay(auctions(60), budget={"amount": 0.06, "per": "day", "pacing": "even"}, **keys)
    assert numbers(paced, "new")["wins"] == 33.0
    assert paced.diagnostics["budget"]["exhausted_at"] == []


def test_requests_in_which_another_campaign_would_be_shown_are_counted() -> None:
    rows = []
    for i in range(10):
        shown, other = {"pctr": 0.5, "won": 1, "price": 1.0, "click": 1}, {"pctr": 0.4, "won": 0, "click": None}
        rows += [
            {**auctions(1)[0], "request": i, "campaign": 1, **shown, "pother": 0.5},
            # In three requests the candidate prefers the other campaign, in two of these at a known price.
            {**auctions(1)[0], "request": i, "campaign": 2, **other, "price": 1.0 if i < 2 else None,
             "pother": 0.9 if i < 3 else 0.1},
        ]  # fmt: skip
    result = replay(
        rows,
        bid={"formula": "20 * pctr"},
        candidates={"new": {"columns": {"pctr": "pother"}}},
        auction={"internal": True},
        fidelity="warn",
    )
    assert result.diagnostics["internal"] == {
        "baseline": {"requests": 10, "other_campaign_bids": 0.0, "other_campaign_shown": 0.0},
        "new": {"requests": 10, "other_campaign_bids": 0.3, "other_campaign_shown": 0.2},
    }
    assert [numbers(result, p)["bids"] for p in ("baseline", "new")] == [10, 10]
    assert numbers(result, "new")["unknown_outcomes"] == 2
    level = {(f.policy, f.multiplier): f.spend for f in result.frontier}
    assert level[("new", 1.0)] == numbers(result, "new")["spend"]
