"""The plan of an A/B test says what the log can't know of the change that it is planned on."""

from __future__ import annotations

import json

import pytest
from fixtures import make_result

from bidsim.report.plan import plan_json, render_plan
from bidsim.result import IdentifiedChange, Range, Result
from bidsim.statistics.experiment import Need


def with_range(low: float | None, high: float | None) -> tuple[Result, Need]:
    result = make_result(candidates=1, intervals=True)
    span = IdentifiedChange(absolute=Range(low=low, high=high), relative=Range(low=low, high=high))
    differences = [
        d.model_copy(update={"identified": span}) if d.metric == "conversions" and not d.segment else d
        for d in result.differences
    ]
    need = Need(result.candidates[0], "conversions", 0.249, 0.158, 0.347, (), None)
    return result.model_copy(update={"differences": differences}), need


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.334, 0.249, "anywhere from −33.4% to +24.9%"),
        (0.1, None, "anywhere from +10.0% to without limit"),
        (0.249, 0.249 + 1e-15, None),
    ],
)
def test_what_undecided_rows_could_make_of_the_change_is_said(low: float, high: float | None, said: str | None) -> None:
    result, need = with_range(low, high)
    text = render_plan(result, [need], power=0.8, confidence=0.95)
    assert ("can't decide" in text) == (said is not None)
    assert said is None or said in text
    found = json.loads(plan_json(result, [need], power=0.8, confidence=0.95))["needs"][0]["identified"]
    assert found == (None if said is None else {"low": low, "high": high})


@pytest.mark.parametrize(("weighted", "told"), [(10.0, "down to 1/10 of what follows"), (1.0, None), (1.005, None)])
def test_a_log_that_keeps_one_row_in_n_asks_for_more_than_is_needed_and_says_so(
    weighted: float, told: str | None
) -> None:
    result, need = with_range(0.1, 0.2)
    rows = next(m for m in result.metrics if m.metric == "wins" and not m.segment and m.policy == result.baseline)
    rows = rows.model_copy(update={"metric": "rows", "value": weighted * result.data.rows})
    result = result.model_copy(update={"metrics": [*result.metrics, rows]})
    text = render_plan(result, [need], power=0.8, confidence=0.95)
    assert ("The log keeps rows for others" in text) == (told is not None)
    assert told is None or told in text
    assert json.loads(plan_json(result, [need], power=0.8, confidence=0.95))["mean_weight"] == pytest.approx(weighted)


@pytest.mark.parametrize("budget", [None, {"amount": "daily_budget", "per": "day"}])
def test_under_a_budget_each_arm_needs_its_own_share_of_it(budget: dict[str, str] | None) -> None:
    result, need = with_range(0.1, 0.2)
    result = result.model_copy(update={"scenario": {**result.scenario, "budget": budget}})
    text = render_plan(result, [need], power=0.8, confidence=0.95)
    assert ("Give each arm its own share of every budget" in text) == (budget is not None)
    assert json.loads(plan_json(result, [need], power=0.8, confidence=0.95))["budget"] is (budget is not None)
