"""The plan of an A/B test in words and as JSON: traffic, impressions and days for each metric and share of traffic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bidsim.report.format import change, clean_name
from bidsim.result import Range, Result
from bidsim.statistics.experiment import Arm, Need

# Mean weights up to here are rounding, or a few rows.
KEEPS_ALL = 1.01


def days_of(result: Result) -> float | None:
    """Length of the log's window in days; None where the scenario gives no window."""
    window = result.data.window
    if window is None:
        return None
    span = datetime.fromisoformat(window.end) - datetime.fromisoformat(window.start)
    return span.total_seconds() / 86400


def impressions_of(result: Result) -> float:
    """Impressions that the baseline won in the log: what one log's worth of traffic buys."""
    own = (m.value for m in result.metrics if (m.policy, m.metric, m.segment) == (result.baseline, "wins", {}))
    return next(own, None) or 0.0


def weight_of(result: Result) -> float:
    """The mean weight of the log's rows: above 1 it keeps some of several."""
    own = (m.value for m in result.metrics if (m.policy, m.metric, m.segment) == (result.baseline, "rows", {}))
    return (next(own, None) or result.data.rows) / max(result.data.rows, 1)


def has_budget(result: Result) -> bool:
    """Whether what a policy wins depends on what it has spent."""
    return bool(result.scenario.get("budget"))


def render_plan(result: Result, needs: Sequence[Need], *, power: float, confidence: float) -> str:
    """A paragraph for each candidate and metric."""
    days, impressions = days_of(result), impressions_of(result)
    lines = [
        f"To see the predicted change with power {_percent(power)} at confidence {_percent(confidence)}, users dealt to two arms.",
        f"The log: {impressions:,.0f} impressions of the baseline{f', {days:g} days' if days else ''}.",
    ]
    weight = weight_of(result)
    if weight > KEEPS_ALL:
        lines.append(
            f"The log keeps rows for others, {weight:,.3g} for each by their weights, and intervals know those it keeps. A test "
            f"sees them all: it may need down to 1/{weight:,.3g} of what follows."
        )
    if has_budget(result):
        lines.append(
            "The replay gives each policy all budgets to itself. Give each arm its own share of every budget (budget split): "
            "where arms spend from the same budgets, the one that bids more takes the other's money, and the test shows "
            "another change than this one."
        )
    for need in needs:
        interval = "" if need.low is None or need.high is None else f" [{change(need.low)}, {change(need.high)}]"
        lines += ["", f"{clean_name(need.policy)}, {need.metric}: predicted {change(need.change)}{interval}"]
        for arm in need.arms:
            lines.append(
                f"  {_percent(arm.share):>4} of the traffic: {_amount(arm.times, impressions, days)}{_other(arm)}"
            )
        if need.low is not None and need.high is not None and need.low <= 0 <= need.high:
            lines.append(
                "  The replay itself does not tell this change from none: a test planned on it may find nothing."
            )
        undecided = _undecided(result, need)
        if undecided is not None:
            lines.append(
                "  Rows that this log can't decide could put the change anywhere from "
                f"{_end(undecided.low)} to {_end(undecided.high)}: the truth may need a larger test."
            )
        if need.gain is not None:
            lines.append(
                f"  The replay sees both policies on every auction: a test of equal halves needs {_round(need.gain)} times "
                "its auctions to be as precise."
            )
    if not needs:
        lines += ["", "Nothing can be planned from it: no wins, no results, or too few units for an interval."]
    return "\n".join(lines) + "\n"


def _undecided(result: Result, need: Need) -> Range | None:
    """The predicted change over whatever the unknown rows did; None where they can't change it."""
    for d in result.differences:
        if (d.policy, d.metric, d.head, d.segment) == (need.policy, need.metric, None, {}) and d.identified is not None:
            found = d.identified.relative
            known = None not in (found.low, found.high) and math.isclose(
                found.low or 0.0, found.high or 0.0, abs_tol=1e-12
            )
            return None if known else found
    return None


def _end(value: float | None) -> str:
    return "without limit" if value is None else change(value)


def _amount(times: float | None, impressions: float, days: float | None) -> str:
    if times is None:
        return "no change is predicted, so no test can confirm it"
    words = f"{_round(times * impressions)} impressions in all, {_round(times)} times the log"
    return words + (f", {_round(times * days)} days" if days else "")


def _other(arm: Arm) -> str:
    if arm.times_if_smaller is None or arm.times is None:
        return ""
    return f" ({_round(arm.times_if_smaller / arm.times)} times as much if the truth is the interval's near end)"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _round(count: float) -> str:
    digits = max(0, len(str(int(count))) - 3)
    return f"{round(count, -digits):,.0f}" if digits else f"{count:.3g}"


def plan_json(result: Result, needs: Sequence[Need], *, power: float, confidence: float) -> str:
    """{"schema", "days", "impressions", "mean_weight", "budget", "power", "confidence", "needs": [...]}: `times` is in logs'
    worth of traffic, more than needed by up to the mean weight of the log's rows; `identified` is the change over whatever
    rows did that the log can't decide; with a `budget` each arm needs its own share of it."""

    def said(need: Need) -> dict[str, Any]:
        undecided = _undecided(result, need)
        return asdict(need) | {"identified": undecided.model_dump() if undecided else None}

    document = {
        "schema": "bidsim.plan/1",
        "days": days_of(result),
        "impressions": impressions_of(result),
        "mean_weight": weight_of(result),
        "budget": has_budget(result),
        "power": power,
        "confidence": confidence,
        "needs": [said(need) for need in needs],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
