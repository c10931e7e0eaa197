"""maturity: conversions that come late, left out or weighted, the same for every policy; and when all have come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from small_logs import Row, numbers, replay

from bidsim.errors import LogError, ScenarioError

START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = 48.0
UNTIL = START + timedelta(days=10)


def late_log(n: int = 40_000, seed: int = 5) -> tuple[list[Row], float]:
    """Clicks of ten days whose conversions come an hour to two days later, as far as they are known at UNTIL.

    Campaign 2 converts later than campaign 1. Returns the rows and the true number of conversions.
    """
    rng = np.random.default_rng(seed)
    rows, truth = [], 0
    for i in range(n):
        ts = START + timedelta(minutes=float(rng.uniform(0, 10 * 24 * 60)))
        campaign = int(rng.integers(1, 3))
        delay = timedelta(hours=min(float(rng.exponential(10.0 if campaign == 1 else 40.0)), WINDOW))
        converted = bool(rng.random() < 0.3)
        truth += converted
        known = converted and ts + delay <= UNTIL
        rows.append(
            {
                "time": ts,
                "request": i,
                "campaign": campaign,
                "price": 1.0,
                "won": 1,
                "click": 1,
                "conversion": float(known),
                "conversion_time": ts + delay if known else None,
                "pctr": 0.5,
                "pcvr": 0.3,
            }
        )
    return rows, float(truth)


def with_times(rows: list[Row]) -> Any:
    import pyarrow as pa
    from small_logs import as_table

    times = pa.array([r["conversion_time"] for r in rows], pa.timestamp("us", "UTC"))
    table = as_table([{k: v for k, v in r.items() if k != "conversion_time"} for r in rows])
    return table.append_column("conversion_time", times)


MATURITY = {"conversion_window_hours": WINDOW, "observed_until": UNTIL.isoformat()}


def run(rows: list[Row], **maturity: Any) -> Any:
    return replay(
        with_times(rows),
        bid={"formula": "10"},
        segments=["campaign"],
        sample_type=["imp-click", "click-conversion", "imp-conversion"],
        maturity={**MATURITY, **maturity},
        threads=2,
    )


def test_only_rows_whose_window_has_passed_count_and_the_day_of_decision_is_said() -> None:
    rows, _ = late_log(4000)
    result = run(rows)
    mature = [r for r in rows if r["time"] + timedelta(hours=WINDOW) <= UNTIL]
    assert result.data.rows == len(mature)
    for policy in ("baseline", "new"):
        assert numbers(result, policy)["wins"] == len(mature)
        assert numbers(result, policy)["conversions"] == sum(r["conversion"] for r in mature)
    note = result.diagnostics["maturity"]
    last = max(r["time"] for r in rows) + timedelta(hours=WINDOW)
    assert datetime.fromisoformat(note["decidable_from"]) == last.replace(microsecond=0)
    assert (note["rows"], note["mature"], note["used"]) == (len(rows), len(mature), len(mature))
    (finding,) = [f for f in result.findings if f.code == "immature"]
    assert note["decidable_from"] in finding.message
    delays = sorted((r["conversion_time"] - r["time"]).total_seconds() / 3600 for r in mature if r["conversion"])
    assert note["delay_hours"][0] == {
        "campaign": None,
        "conversions": len(delays),
        **{f"p{q}": pytest.approx(float(np.quantile(delays, q / 100)), abs=1e-3) for q in (50, 90, 99)},
    }


def test_weighting_by_the_share_that_has_come_finds_what_is_still_to_come() -> None:
    rows, truth = late_log()
    result = run(rows, immature="weight")
    used = result.diagnostics["maturity"]["used"]
    assert used > 0.95 * len(rows)
    known = sum(r["conversion"] for r in rows)
    expected = truth * used / len(rows)
    assert known < 0.95 * expected  # without weights the log shows too few
    for policy in ("baseline", "new"):
        assert numbers(result, policy)["conversions"] == pytest.approx(expected, rel=0.015)
        assert numbers(result, policy)["wins"] == used
    by_campaign = [numbers(result, "new", {"campaign": str(c)})["cvr"] for c in (1, 2)]
    assert by_campaign == pytest.approx([0.3, 0.3], rel=0.06)
    # Labels of predictions are those of mature rows: a weighted label would be no label.
    mature = result.diagnostics["maturity"]["mature"]
    assert result.data.labelled == {"ctr": used, "cvr": mature, "ctcvr": mature}
    budgeted = replay(
        with_times(rows), bid={"formula": "10"}, maturity={**MATURITY, "immature": "weight"},
        budget={"amount": 1000.0, "per": "day"}, threads=2,
    )  # fmt: skip
    assert numbers(budgeted, "new")["conversions"] == numbers(result, "new")["conversions"]


def test_what_maturity_needs_is_said() -> None:
    rows, _ = late_log(300)
    with pytest.raises(LogError, match="decidable from 2026-03"):
        run(rows, observed_until=START.isoformat())
    with pytest.raises(LogError, match="at least 100 conversions"):
        run(rows[:200], immature="weight")
    plain = [{k: v for k, v in r.items() if k != "conversion_time"} for r in rows]
    with pytest.raises(ScenarioError, match="conversion_time"):
        replay(plain, bid={"formula": "10"}, maturity={**MATURITY, "immature": "weight"})
    with pytest.raises(ScenarioError, match="not a time"):
        run(rows, observed_until="soon")
