"""Relations between whole replays: what must not change a number, and what must change it by a known factor.

No expected values are needed, so these see what an evaluator of single rows can't: intervals, differences, splits,
frontiers, diagnostics and what features do to each other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bidsim.gate import judge
from bidsim.result import Result
from bidsim.scenario.schema import Rule
from tests.small_logs import Row, replay

START = datetime(2026, 11, 2, tzinfo=UTC)


def lonely_win(price: float) -> list[Row]:
    """Sixty users, one of whom was won."""
    rows: list[Row] = []
    for i in range(60):
        won = i == 11
        rows.append(
            {
                "time": START + timedelta(minutes=i),
                "unit": i,
                "campaign": 1,
                "price": price if won else 10_000.0,
                "bid": 9.0,
                "won": int(won),
                "click": 1 if won else None,
                "conversion": 1.0 if won else None,
                "pctr": 0.1,
                "pcvr": 0.1,
                "target_cpa": 0.9,
            }
        )
    return rows


def found(result: Result, metric: str, policy: str = "baseline") -> Any:
    return next(m for m in result.metrics if (m.metric, m.policy, m.segment) == (metric, policy, {}))


def test_what_the_only_win_cost_is_no_evidence_of_what_others_will() -> None:
    result = replay(lonely_win(7.3))
    for metric in ("cpm", "cpc", "cpa", "roi"):
        assert found(result, metric).value is not None, metric
        assert (found(result, metric).low, found(result, metric).high) == (None, None), metric
    judged = judge(result, [Rule(metric="cpa", at_most=0.01)], fidelity_warns=True)
    assert [o.status for o in judged.gate.rules if o.metric == "cpa"] == ["insufficient_data"]
