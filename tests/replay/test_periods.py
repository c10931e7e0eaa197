"""Windows, days and hours in the scenario's time zone (spec 3.1, 3.7), and budgets that read only the past."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv
from small_logs import Row, by_segment, few, numbers, replay

import bidsim
from bidsim.errors import LogError, ScenarioError
from bidsim.replay.settling import starts_of

TOKYO, NEW_YORK = "Asia/Tokyo", "America/New_York"


def impressions(times: list[datetime], price: float = 1.0) -> list[Row]:
    """Impressions of one campaign that any bid of 10 wins, at these times."""
    return [
        {"time": t, "request": i, "campaign": 1, "price": price, "won": 1, "click": 1, "pctr": 0.5}
        for i, t in enumerate(times)
    ]


def wins(rows: list[Row], **keys: Any) -> float | None:
    return numbers(replay(rows, bid={"formula": "10"}, **keys), "new")["wins"]


@pytest.mark.parametrize("wall", [False, True], ids=["instants", "wall clock"])
def test_the_window_is_closed_at_its_start_and_open_at_its_end_in_the_scenarios_zone(wall: bool) -> None:
    zone, tick = ZoneInfo(TOKYO), timedelta(microseconds=1)
    start, end = datetime(2026, 3, 8, 0, tzinfo=zone), datetime(2026, 3, 9, 0, tzinfo=zone)
    times = [start - tick, start, end - tick, end]
    rows = impressions([t.replace(tzinfo=None) if wall else t.astimezone(UTC) for t in times])
    day = {"last_hour": "2026-03-08T23:00:00", "duration_hour": 24}
    assert wins(rows, timezone=TOKYO, window=day) == 2.0
    result = replay(rows, bid={"formula": "10"}, timezone=TOKYO, window=day, segments=["request", "hour", "day"])
    assert set(by_segment(result, "new", "request", [])) == {"1", "2"}
    assert set(by_segment(result, "new", "hour", [])) == {"0", "23"}
    assert set(by_segment(result, "new", "day", [])) == {"2026-03-08"}
    same = {"last_hour": "2026-03-08T23:00:00+09:00", "duration_hour": 24}
    if not wall:
        assert wins(rows, timezone="UTC", window=same) == 2.0
        later = replay(rows, bid={"formula": "10"}, timezone="UTC", window=day, segments=["request"])
        assert set(by_segment(later, "new", "request", [])) == {"2", "3"}  # the same words, nine hours later


def test_a_day_of_budget_begins_at_midnight_of_the_scenarios_zone() -> None:
    midnight = datetime(2026, 3, 8, tzinfo=ZoneInfo(TOKYO)).astimezone(UTC)
    rows = impressions([midnight + timedelta(seconds=s) for s in (-3, -2, -1, 0, 1, 2)])
    budget = {"amount": 0.002, "per": "day"}
    assert wins(rows, timezone=TOKYO, budget=budget) == 4.0  # two on each day
    assert wins(rows, timezone="UTC", budget=budget) == 2.0  # one and the same day
    assert wins(rows, timezone=TOKYO, budget={**budget, "per": "hour"}) == 4.0
    assert wins(rows, timezone=TOKYO, budget={**budget, "per": "total"}) == 2.0


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25)], ids=["spring", "autumn"])
def test_days_and_hours_across_a_change_of_clocks(day: tuple[int, int, int], hours: int) -> None:
    zone = ZoneInfo(NEW_YORK)
    midnight = datetime(*day, tzinfo=zone).astimezone(UTC)
    half_hours = [midnight + timedelta(minutes=30 * i) for i in range(-2, 2 * hours + 2)]
    rows = impressions(half_hours)
    # The day has as many hours as it has; one impression an hour is affordable, before, during and after.
    assert wins(rows, timezone=NEW_YORK, budget={"amount": 0.001, "per": "hour"}) == hours + 2
    found = replay(
        rows, bid={"formula": "10"}, timezone=NEW_YORK, budget={"amount": 0.045, "per": "day"}, segments=["day"]
    )
    days = {k: v["wins"] for k, v in by_segment(found, "new", "day", ["wins"]).items()}
    date = f"{datetime(*day):%Y-%m-%d}"
    assert days.pop(date) == 45.0
    assert list(days.values()) == [2.0, 2.0]


def test_a_window_across_a_change_of_clocks_has_the_hours_that_it_says() -> None:
    end = datetime(2026, 3, 9, tzinfo=ZoneInfo(NEW_YORK)).astimezone(UTC)
    rows = impressions([end - timedelta(hours=h) for h in range(26)])
    window = {"last_hour": "2026-03-08T23:00:00", "duration_hour": 23}
    assert wins(rows, timezone=NEW_YORK, window=window) == 23.0


@pytest.mark.parametrize("wall", [False, True], ids=["instants", "wall clock"])
def test_even_pacing_releases_the_budget_by_the_minute(wall: bool) -> None:
    midnight = datetime(2026, 3, 8, tzinfo=ZoneInfo(TOKYO))
    times = [midnight + timedelta(minutes=m) for m in (0, 1, 1, 2, 718, 719, 720, 720, 1439, 1439)]
    rows = impressions([t.replace(tzinfo=None) if wall else t.astimezone(UTC) for t in times])
    budget = {"amount": 1.44, "per": "day", "pacing": "even"}  # one impression a minute
    assert wins(rows, timezone=TOKYO, budget=budget) == 9.0
    tight = {"amount": 0.002, "per": "day", "pacing": "even"}
    # The first passes the limit of its minute; the next may come after noon's minute has begun to release more.
    assert wins(rows, timezone=TOKYO, budget=tight) == 2.0
    assert wins(rows[:6], timezone=TOKYO, budget=tight) == 1.0
    assert wins(rows, timezone=TOKYO, budget={**tight, "per": "hour"}) == 6.0


def test_even_pacing_knows_how_long_a_day_is() -> None:
    for day, hours in (((2026, 3, 8), 23), ((2026, 11, 1), 25)):
        midnight = datetime(*day, tzinfo=ZoneInfo(NEW_YORK)).astimezone(UTC)
        rows = impressions([midnight + timedelta(minutes=m) for m in range(hours * 60)], price=1.0)
        # Two a minute would be affordable only with the right length of the day, to the last minute.
        budget = {"amount": hours * 60 / 1000, "per": "day", "pacing": "even"}
        assert wins(rows, timezone=NEW_YORK, budget=budget) == hours * 60
        twice = impressions(
            [midnight + timedelta(minutes=m, seconds=30 * s) for m in range(hours * 60) for s in (0, 1)]
        )
        assert wins(twice, timezone=NEW_YORK, budget=budget) == hours * 60


def test_even_pacing_begins_a_day_at_its_first_midnight_where_clocks_go_back_to_it() -> None:
    # In Havana 2020-11-01 begins twice: the hour from midnight on comes again.
    midnight = datetime(2020, 11, 1, 4, tzinfo=UTC)
    budget = {"amount": 25 * 60 / 1000, "per": "day", "pacing": "even"}  # one impression a minute
    rows = impressions([midnight + timedelta(minutes=m, seconds=30 * s) for m in range(25 * 60) for s in (0, 1)])
    assert wins(rows, timezone="America/Havana", budget=budget) == 25 * 60
    assert wins(rows[:120], timezone="America/Havana", budget=budget) == 60


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("per", ["day", "hour"])
def test_a_row_without_a_time_comes_last_in_its_period_when_all_of_the_budget_is_released(zone: str, per: str) -> None:
    rows = impressions([datetime(2026, 3, 8, tzinfo=UTC)] * 11)
    for row in rows[1:]:
        row["time"] = None
    budget = {"amount": 0.005, "per": per, "pacing": "even"}
    assert wins(rows, timezone=zone, budget=budget) == 6.0


@pytest.mark.parametrize(
    ("per", "said"), [("total", "last_hour and duration_hour"), ("request", "may be anything")], ids=["total", "column"]
)
def test_even_pacing_is_refused_where_the_length_of_the_period_is_not_known(per: str, said: str) -> None:
    rows = impressions([datetime(2026, 3, 8, tzinfo=UTC)])
    with pytest.raises(ScenarioError, match=said):
        wins(rows, budget={"amount": 1.0, "per": per, "pacing": "even"})


@st.composite
def auctions(draw: st.DrawFn) -> list[Row]:
    """Observed wins of two campaigns around midnight in Tokyo at distinct times."""
    start = datetime(2026, 3, 7, 13, 0, tzinfo=UTC)
    minutes = draw(st.lists(st.integers(0, 240), min_size=8, max_size=50, unique=True))
    rows = []
    for minute in sorted(minutes):
        ts = start + timedelta(minutes=minute)
        rows.append(
            {
                "time": ts,
                "request": 0,
                "campaign": draw(st.integers(1, 2)),
                "price": draw(st.sampled_from([0.0, 1.0, 2.5, 4.0, 9.0])),
                "won": 1,
                "click": draw(st.integers(0, 1)),
                "pctr": draw(st.sampled_from([0.125, 0.25, 0.5, 1.0])),
                "half": int(ts >= start + timedelta(minutes=100)),
                "block": minute // 37,
            }
        )
    return rows


PERIODS: dict[str, Callable[[Row], Any]] = {
    "day": lambda r: r["time"].astimezone(ZoneInfo(TOKYO)).date(),
    "hour": lambda r: r["time"].replace(minute=0),
    "total": lambda r: 0,
    "block": lambda r: r["block"],
}
budgets = st.fixed_dictionaries(
    {
        "amount": st.sampled_from([0.0025, 0.006, 0.011, 0.03]),
        "per": st.sampled_from(sorted(PERIODS)),
        "overspend": st.sampled_from(["never", "last_win"]),
        "pacing": st.sampled_from(["asap", "even"]),
    }
).filter(lambda b: b["pacing"] == "asap" or b["per"] in ("day", "hour"))
kinds = st.fixed_dictionaries(
    {"type": st.sampled_from(["second_price", "first_price"]), "ties": st.sampled_from(["win", "lose"])}
)
LEVEL_FREE = ("bids", "wins", "spend", "clicks", "ctr", "cpc", "win_rate", "predicted_clicks")


@few
@given(auctions(), budgets, kinds)
def test_each_period_of_a_campaign_keeps_its_budget(
    rows: list[Row], budget: dict[str, Any], auction: dict[str, Any]
) -> None:
    """never: at most the budget. last_win: past it by less than the one impression that crossed it."""
    keys = [(r["campaign"], PERIODS[budget["per"]](r)) for r in rows]
    groups = {k: i for i, k in enumerate(dict.fromkeys(keys))}
    marked = [{**r, "unit": groups[k]} for r, k in zip(rows, keys, strict=True)]
    result = replay(
        marked,
        bid={"formula": "8 * pctr"},
        timezone=TOKYO,
        budget=budget,
        auction=auction,
        segments=[{"group": "unit"}],
    )
    limit = Fraction(str(budget["amount"]))
    for value, found in by_segment(result, "new", "group", ["spend"]).items():
        mine = [r for r in marked if r["unit"] == int(value)]
        dearest = max(r["pctr"] * 8 if auction["type"] == "first_price" else r["price"] for r in mine)
        spend = Fraction(str(found["spend"]))
        if budget["overspend"] == "never":
            assert spend <= limit
        else:
            assert spend < limit + Fraction(dearest) / 1000 or spend == 0


@few
@given(auctions(), budgets, kinds, st.integers(0, 2**30))
def test_what_comes_later_and_the_order_of_rows_change_no_decision(
    rows: list[Row], budget: dict[str, Any], auction: dict[str, Any], seed: int
) -> None:
    keys: dict[str, Any] = {
        "bid": {"formula": "8 * pctr"}, "timezone": TOKYO, "budget": budget, "auction": auction, "segments": ["half"],
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    later = [
        {**r, "price": float(rng.integers(0, 9)), "pctr": float(rng.choice([0.0, 0.5, 1.0])), "click": 1}
        if r["half"]
        else r
        for r in rows
        if not r["half"] or rng.random() < 0.8
    ]
    one, two = replay(rows, **keys), replay(later, **keys)
    if any(r["half"] == 0 for r in rows):
        before, after = (numbers(r, "new", {"half": "0"}) for r in (one, two))
        assert {k: before[k] for k in LEVEL_FREE} == {k: after[k] for k in LEVEL_FREE}
    shuffled = replay([rows[i] for i in rng.permutation(len(rows))], threads=2, **keys)
    for part in ("metrics", "differences", "frontier", "calibration", "data"):
        assert getattr(shuffled, part) == getattr(one, part), part


@pytest.mark.parametrize("pacing", ["asap", "even"])
def test_the_last_hour_read_is_inclusive_also_where_clocks_go_back(pacing: str) -> None:
    """A log on wall clocks names the hour that comes twice once: it is read whole, whichever of the two a row was in."""
    last = datetime(2026, 11, 1, 1)
    rows = impressions([last + timedelta(minutes=15 * i) for i in range(-16, 8)])
    window = {"last_hour": "2026-11-01T01:00:00", "duration_hour": 3}
    budget = {"amount": 1.0, "per": "total", "pacing": pacing}
    result = replay(rows, bid={"formula": "10"}, timezone=NEW_YORK, window=window, budget=budget, segments=["hour"])
    found = by_segment(result, "new", "hour", ["wins"])
    assert {hour: each["wins"] for hour, each in found.items()} == {"23": 4.0, "0": 4.0, "1": 4.0}
    assert result.data.window is not None
    assert (result.data.window.start, result.data.window.end) == (
        "2026-10-31T23:00:00-04:00",
        "2026-11-01T02:00:00-05:00",
    )


def test_rows_without_a_budget_are_not_bid_on_and_said_to_be() -> None:
    """Spec 3.7: a bid is entered only while the money spent so far is below the limit; without one it never is."""
    rows = impressions([datetime(2026, 3, 8, h) for h in range(6)])
    rows = [{**row, "limit": 1.0 if i % 3 else None} for i, row in enumerate(rows)]
    result = replay(rows, bid={"formula": "10"}, budget={"amount": "limit"})
    assert numbers(result, "new")["bids"] == 4.0
    assert next(f.message for f in result.findings if f.code == "budget_missing").startswith("2 rows have no budget")
    known = replay(rows, bid={"formula": "10"}, budget={"amount": "coalesce(limit, 1)"})
    assert "budget_missing" not in {f.code for f in known.findings}
    none = replay([{**row, "weight": -1.0} for row in rows], bid={"formula": "10"}, budget={"amount": "limit"})
    assert "budget_missing" not in {f.code for f in none.findings}


def test_a_period_goes_on_in_the_next_batch_whatever_its_campaign_is_called() -> None:
    for campaign in (float("nan"), 0.5, None):
        batch = pa.record_batch({"campaign": pa.array([campaign], pa.float64()), "period": pa.array(["x"])})
        _, last = starts_of(batch, None)
        again, _ = starts_of(batch, last)
        assert not again.any()


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
def test_rows_at_one_time_are_in_order_of_the_log_also_beside_a_campaign_table_that_is_larger(
    ending: str, tmp_path: Path
) -> None:
    """Spec 3.7: ties in order of the log. The engine may look each campaign of the smaller log up, and no order remains."""
    rows = [{"i": i, "campaign": i % 3, "price": 1000.0, "won": 1, "click": 1, "pctr": 0.5} for i in range(60)]
    rows = [{**row, "time": "2026-03-08T10:00:00"} for row in rows]
    (tmp_path / "log").mkdir()
    for part in range(2):
        table = pa.Table.from_pylist(rows[30 * part : 30 * part + 30])
        if ending == "csv":
            csv.write_csv(table, tmp_path / "log" / f"{part}.csv")
        elif ending == "ndjson":
            lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
            (tmp_path / "log" / f"{part}.ndjson").write_text("".join(lines))
        else:
            pq.write_table(table, tmp_path / "log" / f"{part}.parquet")
    names = pa.table({"campaign": range(5000), "name": [f"campaign {i}" for i in range(5000)]})
    csv.write_csv(names, tmp_path / "campaigns.csv")
    document = {
        "logs_tables": {"ad": {"path": str(tmp_path / "log")}},
        "columns": {"time": "cast(time as timestamp)"},
        "conditions": ["won = 1", "price > 1 or click = 1"],
        "campaigns": str(tmp_path / "campaigns.csv"),
        "bid": {"formula": "2000"},
        "budget": {"amount": 5.0},
        "segments": ["i"],
        "candidates": {"new": {"bid": {"multiplier": 1.0}}},
    }
    won = by_segment(bidsim.replay(document), "new", "i", ["wins"])
    assert [i for i in range(60) if won[str(i)]["wins"]] == list(range(15))


def test_times_of_an_expression_without_an_offset_and_its_hours_and_days_are_in_the_scenarios_zone() -> None:
    """Spec 2: times in the scenario without an offset are in `timezone`; also those of conditions, beside instants."""
    rows = impressions(
        [datetime(2026, 11, 4, 20, tzinfo=UTC) + timedelta(hours=h) for h in range(8)]
    )  # from 5:00 in Tokyo
    said = {
        "time >= '2026-11-05 08:00:00'": 5,
        "time < '2026-11-05'": None,
        "time >= timestamp '2026-11-05 08:00:00'": 5,
        "time >= '2026-11-05T08:00:00+00:00'": None,
        "time >= '2026-11-05T00:00:00+00:00'": 4,
        "time between '2026-11-05 06:00:00' and '2026-11-05 07:00:00'": 2,
        "hour(time) = 5": 1,
        "cast(time as date) = '2026-11-05'": 8,
        "date_trunc('day', time) = '2026-11-05'": 8,
    }
    for condition, expected in said.items():
        keys: dict[str, Any] = {"conditions": [condition], "timezone": TOKYO}
        if expected is None:
            with pytest.raises(LogError, match="no row of the log"):
                wins(rows, **keys)
        else:
            assert wins(rows, **keys) == expected, condition
