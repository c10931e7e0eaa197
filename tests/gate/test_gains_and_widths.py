"""Spec section 5: `max_width` bounds the interval itself, `suspicious` warns of gains too good to be true."""

from __future__ import annotations

from typing import Any

import pytest
from made import judged, metric, one, result
from pydantic import ValidationError

from bidsim.scenario.schema import Rule


@pytest.mark.parametrize(
    ("width", "status"),
    [(1.0, "pass"), (0.99, "fail"), ("10%", "pass"), ("9.9%", "fail")],  # 1.0 wide, 10% of the baseline's 10
)
def test_the_interval_of_the_change_may_be_so_wide(width: Any, status: str) -> None:
    outcome = one(result(metric("cpa", 10.0, 12.0, half=0.5)), {"metric": "cpa", "max_width": width})
    assert (outcome.status, outcome.action) == (status, status)
    assert outcome.p is None
    assert "wide" in outcome.sentence


def test_without_an_interval_its_width_is_not_known() -> None:
    outcome = one(result(metric("cpa", 10.0, 12.0)), {"metric": "cpa", "max_width": 1})
    assert (outcome.status, outcome.action) == ("insufficient_data", "warn")


@pytest.mark.parametrize(
    "rule",
    [{"max_width": 1, "evidence": "point"}, {"max_width": 0}, {"max_width": "-1%"}, {"suspicious": 0}],
)
def test_a_width_or_gain_that_makes_no_sense_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate({"metric": "cpa", **rule})


@pytest.mark.parametrize(
    ("name", "old", "new", "half", "most", "status"),
    [
        ("auc", 0.70, 0.74, 0.01, 0.03, "fail"),
        ("auc", 0.70, 0.72, 0.01, 0.03, "pass"),
        ("auc", 0.70, 0.60, 0.01, 0.03, "pass"),  # worse is another rule's
        ("auc", 0.70, 0.74, 0.05, 0.03, "pass"),  # large, and chance
        ("cpa", 10.0, 6.0, 1.0, "30%", "fail"),
        ("cpa", 10.0, 8.0, 1.0, "30%", "pass"),
        ("cpa", 10.0, 16.0, 1.0, "30%", "pass"),
        ("cpa", 10.0, 6.0, 4.5, "30%", "pass"),
    ],
)
def test_a_gain_beyond_the_bound_and_beyond_chance_warns(
    name: str, old: float, new: float, half: float, most: Any, status: str
) -> None:
    gate = judged(result(metric(name, old, new, half=half)), {"metric": name, "suspicious": most})
    (outcome,) = gate.rules
    assert outcome.status == status
    assert gate.verdict == {"fail": "warn"}.get(status, status)
    assert ("too good to be true" in outcome.sentence) is (status == "fail")
    strict = judged(result(metric(name, old, new, half=half)), {"metric": name, "suspicious": most, "on_fail": "fail"})
    assert strict.verdict == status


def test_a_gain_judged_by_the_point_needs_no_interval() -> None:
    given = result(metric("auc", 0.70, 0.74))
    assert one(given, {"metric": "auc", "suspicious": 0.03}).status == "insufficient_data"
    assert one(given, {"metric": "auc", "suspicious": 0.03, "evidence": "point"}).status == "fail"


@pytest.mark.parametrize("name", ["auc", "gauc"])
@pytest.mark.parametrize(
    ("high", "new", "fires"),
    [(0.8, 1.0, True), (1.0, 1.0, False), (None, 1.0, False), (0.8, 0.99, False)],
    ids=["a leak", "the baseline may be perfect too", "too few rows", "not flawless"],
)
def test_a_ranking_without_one_error_is_suspicious_though_it_has_no_interval(
    name: str, high: float | None, new: float, fires: bool
) -> None:
    (old, candidate), difference = metric(name, 0.7, new, head="ctr")
    old = old.model_copy(update={"low": None if high is None else 0.6, "high": high})
    given = result(([old, candidate], difference), metric("spend", 1, 1, half=0.1))
    (outcome,) = judged(given, {"metric": name, "suspicious": 0.03}).rules[:1]
    assert outcome.status == ("fail" if fires else "insufficient_data")
    assert ("rises by 0.3 (0.7 to 1); a gain of over 0.03 is too good to be true" in outcome.sentence) is fires
    # No other rule passes on it: that it has no interval is no evidence of anything good.
    good = one(given, {"metric": name, "at_least": 0.6})
    assert (good.status, good.action) == ("insufficient_data", "warn")
    built_in = judged(given, {"metric": "spend", "at_most": 100})
    assert built_in.verdict == ("warn" if fires and name == "auc" else "pass")


def test_a_metric_without_a_better_direction_has_no_gain() -> None:
    outcome = one(result(metric("calibration", 1, 2, head="ctr")), {"metric": "calibration", "suspicious": 1})
    assert (outcome.status, outcome.action) == ("not_found", "fail")


FINE = {"metric": "cpa", "at_most": 100}


@pytest.mark.parametrize(
    ("name", "head", "old", "new", "half", "fires"),
    [
        ("auc", "ctr", 0.70, 0.731, 0.01, True),
        ("auc", "ctr", 0.70, 0.729, 0.01, False),
        ("auc", "ctr", 0.70, 0.731, 0.04, False),
        ("auc", "ctr", 0.70, 0.731, None, False),
        ("cpa", None, 10, 6.9, 1.0, True),
        ("cpa", None, 10, 7.1, 1.0, False),
        ("cpc", None, 10, 6.9, 1.0, True),
        ("logloss", "ctr", 10, 6.9, 1.0, False),
    ],
)
def test_by_default_an_auc_gain_of_003_or_a_third_off_the_cpa_warns(
    name: str, head: str | None, old: float, new: float, half: float | None, fires: bool
) -> None:
    given = result(metric(name, old, new, half=half, head=head), metric("spend", 1, 1, half=0.1))
    gate = judged(given, {"metric": "spend", "at_most": 100})
    assert gate.verdict == ("warn" if fires else "pass")
    assert [o.rule for o in gate.rules[1:]] == [
        f"too good to be true (built in): {name}" + (f" ({head})" if head else "")
    ] * fires
    # Without rules nothing is judged, but it is said.
    alone = judged(given)
    assert alone.verdict == "no_gate"
    assert ("too good to be true" in alone.reason) is fires
    # The scenario's own rule takes its place.
    own = {"metric": name, "suspicious": 20, "head": head} if name != "logloss" else {"metric": "spend", "at_most": 9}
    assert judged(given, own).verdict == ("pass" if half is not None or name == "logloss" else "warn")


def test_a_rule_of_the_scenarios_own_takes_the_place_of_the_built_in_one_of_its_metric_alone() -> None:
    given = result(metric("auc", 0.70, 0.74, half=0.01, head="ctr"), metric("cpa", 10, 6.5, half=1.0))
    gate = judged(given, {"metric": "auc", "suspicious": 0.2})
    assert [(o.metric, o.status) for o in gate.rules] == [("auc", "pass"), ("cpa", "fail")]
    assert gate.verdict == "warn"
    # A rule that bounds the metric otherwise does not: a CPA that halves passes it.
    gate = judged(given, {"metric": "cpa", "max_increase": "1%"})
    assert [(o.metric, o.status) for o in gate.rules] == [("cpa", "pass"), ("auc", "fail"), ("cpa", "fail")]
