"""Spec section 5: what each rule says of a result, and the verdict that rules and fidelity add up to."""

from __future__ import annotations

from typing import Any

import pytest
from made import judged, metric, one, result
from scipy import stats
from small_logs import replay

from bidsim.result import Estimate, Result

POINT = {"evidence": "point"}


@pytest.mark.parametrize(
    ("bound", "old", "passing", "failing"),
    [
        # the edge itself passes, however its binary fraction falls
        ({"at_most": 0.3}, 1.0, [0.1 + 0.2, 0.0, -5.0], [0.3001, 7.0]),
        ({"at_least": 0.3}, 1.0, [0.3, 9.0], [0.2999, -1.0]),
        ({"between": [0.9, 1.1]}, 5.0, [0.9, 1.0, 1.1], [0.8999, 1.1001]),
        ({"max_increase": 2}, 10.0, [12.0, 10.0, 1.0], [12.01, 99.0]),
        ({"max_increase": "1%"}, 200.0, [202.0, 200.0, 3.0], [202.1, 400.0]),
        ({"max_increase": 0}, 10.0, [10.0, 9.0], [10.001]),
        ({"max_increase": "-5%"}, 100.0, [95.0, 10.0], [95.1, 100.0]),
        ({"max_decrease": 2}, 10.0, [8.0, 10.0, 99.0], [7.99, 0.0]),
        ({"max_decrease": "1%"}, 200.0, [198.0, 500.0], [197.9, 0.0]),
        ({"max_decrease": "50 %"}, 200.0, [100.0], [99.0]),
        ({"min_improvement": "10%"}, 100.0, [90.0, 1.0], [90.1, 100.0, 130.0]),  # a CPA improves downwards
        ({"min_improvement": 5}, 100.0, [95.0], [95.1, 105.0]),
    ],
)
def test_a_bound_passes_inside_and_at_its_edge_and_fails_outside(
    bound: dict[str, Any], old: float, passing: list[float], failing: list[float]
) -> None:
    for status, values in (("pass", passing), ("fail", failing)):
        for new in values:
            outcome = one(result(metric("cpa", old, new)), {"metric": "cpa", **bound, **POINT})
            assert (outcome.status, outcome.action) == (status, status), new
            assert (outcome.value, outcome.baseline, outcome.evidence) == (new, old, "point")
            assert (outcome.low, outcome.high, outcome.p) == (None, None, None)


def test_an_improvement_goes_the_way_that_is_better() -> None:
    more = {"metric": "conversions", "min_improvement": "10%", **POINT}
    assert one(result(metric("conversions", 100, 110)), more).status == "pass"
    assert one(result(metric("conversions", 100, 90)), more).status == "fail"
    # A calibration has no better direction: neither up nor down is an improvement.
    outcome = one(result(metric("calibration", 1.0, 1.2, head="ctr")), {**more, "metric": "calibration"})
    assert (outcome.status, outcome.action) == ("not_found", "fail")
    assert "no better direction" in outcome.sentence


@pytest.mark.parametrize(
    ("bound", "new", "half", "status"),
    [
        ({"at_most": 10}, 8.0, 1.0, "pass"),
        ({"at_most": 10}, 9.0, 1.0, "pass"),  # the interval's end is the edge
        ({"at_most": 10}, 9.5, 1.0, "inconclusive"),  # inside, but who knows
        ({"at_most": 10}, 10.5, 1.0, "inconclusive"),
        ({"at_most": 10}, 12.0, 1.0, "fail"),
        ({"at_least": 10}, 12.0, 1.0, "pass"),
        ({"at_least": 10}, 10.5, 1.0, "inconclusive"),  # its lower end alone is outside
        ({"at_least": 10}, 8.0, 1.0, "fail"),
        ({"between": [5, 10]}, 7.5, 1.0, "pass"),
        ({"between": [5, 10]}, 7.5, 4.0, "inconclusive"),  # wider than the bound on both sides
        ({"between": [5, 10]}, 5.5, 1.0, "inconclusive"),
        ({"between": [5, 10]}, 9.5, 1.0, "inconclusive"),
        ({"between": [5, 10]}, 13.0, 1.0, "fail"),
        ({"max_increase": "10%"}, 10.0, 1.0, "pass"),
        ({"max_increase": "10%"}, 10.0, 1.1, "inconclusive"),
        ({"max_increase": "10%"}, 12.5, 1.0, "fail"),
        ({"max_decrease": 1}, 9.5, 0.4, "pass"),
        ({"max_decrease": 1}, 8.0, 0.9, "fail"),
        ({"min_improvement": "10%"}, 8.0, 0.9, "pass"),
        ({"min_improvement": "10%"}, 9.5, 1.0, "inconclusive"),
        ({"min_improvement": "10%"}, 10.5, 1.0, "fail"),
    ],
)
def test_an_interval_passes_whole_fails_whole_and_is_inconclusive_between(
    bound: dict[str, Any], new: float, half: float, status: str
) -> None:
    outcome = one(result(metric("cpa", 10.0, new, half=half)), {"metric": "cpa", **bound})
    assert outcome.status == status
    assert outcome.action == {"inconclusive": "warn"}.get(status, status)
    assert outcome.evidence == "interval"
    assert outcome.low is not None
    assert outcome.high is not None
    assert outcome.low < outcome.high
    # 2.8 standard errors; half a 95% interval is 1.96 of them.
    scale = 0.1 if "%" in str(bound) else 1.0
    assert outcome.detectable == pytest.approx(2.8 * half * scale / 1.959964, rel=1e-6)
    # Judged by the point alone, the same rule is never inconclusive and carries no p.
    alone = one(result(metric("cpa", 10.0, new, half=half)), {"metric": "cpa", **bound, **POINT})
    assert alone.status in ("pass", "fail")
    assert alone.p is None


def test_without_an_interval_a_rule_that_wants_one_has_insufficient_data() -> None:
    outcome = one(result(metric("cpa", 10.0, 1.0)), {"metric": "cpa", "at_most": 10})
    assert (outcome.status, outcome.action) == ("insufficient_data", "warn")
    # One end is no interval either.
    for end in ({"low": None}, {"high": None}):
        values, difference = metric("cpa", 10.0, 1.0, half=0.5)
        ends = [v.model_copy(update=end) for v in values]
        assert one(result((ends, difference)), {"metric": "cpa", "at_most": 10}).status == "insufficient_data"


@pytest.mark.parametrize(
    ("old", "new", "bound"),
    [(None, None, {"at_most": 1}), (0.0, 5.0, {"max_increase": "1%"}), (None, 5.0, {"max_increase": 1})],
)
def test_what_is_undefined_is_insufficient_data_and_never_passes(
    old: float | None, new: float | None, bound: dict[str, Any]
) -> None:
    for evidence in ("point", "interval"):
        outcome = one(result(metric("cpa", old, new)), {"metric": "cpa", "evidence": evidence, **bound})
        assert (outcome.status, outcome.action) == ("insufficient_data", "warn")
        assert "undefined" in outcome.sentence


STATUSES: dict[str, tuple[Result, dict[str, Any]]] = {
    "fail": (result(metric("cpa", 10, 12, half=0.5)), {"metric": "cpa", "at_most": 10}),
    "inconclusive": (result(metric("cpa", 10, 10, half=0.5)), {"metric": "cpa", "at_most": 10}),
    "insufficient_data": (result(metric("cpa", None, None)), {"metric": "cpa", "at_most": 10}),
}


@pytest.mark.parametrize("action", ["fail", "warn", "ignore"])
@pytest.mark.parametrize("status", STATUSES)
def test_what_a_status_does_is_the_rules_to_say(status: str, action: str) -> None:
    given, rule = STATUSES[status]
    gate = judged(given, {**rule, f"on_{status}": action})
    assert [(o.status, o.action) for o in gate.rules] == [(status, action)]
    assert gate.verdict == {"ignore": "pass"}.get(action, action)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"metric": "cppa"}, 'no metric "cppa"'),
        ({"metric": "expected_utility"}, 'no metric "expected_utility"'),  # of which there is no beta either
        ({"metric": "cpa", "policy": "v3"}, 'no candidate "v3"'),
        ({"metric": "cpa", "policy": "baseline"}, 'no candidate "baseline"'),
        ({"metric": "cpa", "by": "hour"}, 'no segment "hour"'),
        ({"metric": "auc"}, "must name a head (ctr, cvr)"),
        ({"metric": "auc", "head": "ctcvr"}, '"auc" is not given for head ctcvr, only for ctr, cvr.'),
        ({"metric": "cpa", "head": "ctr"}, '"cpa" is not given for head ctr, but without a head.'),
        ({"metric": "auc", "head": "ctr", "by": "campaign"}, '"auc" is not given by campaign'),
    ],
)
def test_what_does_not_exist_is_not_found_and_fails_whatever_else_the_rule_says(rule: dict[str, Any], why: str) -> None:
    given = result(
        metric("cpa", 10, 10),
        metric("cpa", 10, 10, segment={"campaign": "7"}),
        metric("auc", 0.7, 0.7, head="ctr"),
        metric("auc", 0.6, 0.6, head="cvr"),
    )
    for extra in ({}, {"on_inconclusive": "ignore", "on_insufficient_data": "ignore"}):
        gate = judged(given, {"at_most": 100, **POINT, **rule, **extra})
        assert [(o.status, o.action) for o in gate.rules] == [("not_found", "fail")]
        assert why in gate.rules[0].sentence
        assert gate.verdict == "fail"


def test_the_only_head_need_not_be_named() -> None:
    outcome = one(result(metric("auc", 0.7, 0.7, head="ctr")), {"metric": "auc", "at_least": 0.6, **POINT})
    assert (outcome.status, outcome.head) == ("pass", "ctr")


def by_campaign(values: dict[str, tuple[float, float]], **counts: dict[str, float]) -> Result:
    """CPA by campaign (old, new), and counts of the baseline and a candidate with a thousand of everything."""
    found = [metric("cpa", *values["all"])]
    for name, pair in values.items():
        if name != "all":
            found.append(metric("cpa", *pair, segment={"campaign": name}))
    for count, by in counts.items():
        found += [metric(count, n, 1000, segment={} if c == "all" else {"campaign": c}) for c, n in by.items()]
    return result(*found)


@pytest.mark.parametrize(
    ("count", "least"), [("rows", "min_rows"), ("clicks", "min_clicks"), ("conversions", "min_conversions")]
)
def test_a_segment_value_counts_from_the_rules_minimum_on_the_baseline(count: str, least: str) -> None:
    given = by_campaign(
        {"all": (10, 10), "7": (10, 10), "8": (10, 30), "9": (10, 30)},
        **{count: {"all": 1000, "7": 100, "8": 99.5, "9": 100}},
    )
    gate = judged(given, {"metric": "cpa", "by": "campaign", "max_increase": "5%", least: 100, **POINT})
    assert {o.segment["campaign"]: o.status for o in gate.rules} == {"7": "pass", "8": "insufficient_data", "9": "fail"}
    assert "the baseline has 99.5" in next(o.sentence for o in gate.rules if o.segment["campaign"] == "8")
    assert gate.verdict == "fail"
    # Overall too.
    assert one(given, {"metric": "cpa", "max_increase": "5%", least: 1000, **POINT}).status == "pass"
    assert one(given, {"metric": "cpa", "max_increase": "5%", least: 1001, **POINT}).status == "insufficient_data"


def test_every_candidate_is_judged_unless_the_rule_names_one() -> None:
    given = result(metric("cpa", 10, 10), metric("cpa", 10, 20, policy="v3"), candidates=("v2", "v3"))
    rule = {"metric": "cpa", "max_increase": "1%", **POINT}
    assert [(o.policy, o.status) for o in judged(given, rule).rules] == [("v2", "pass"), ("v3", "fail")]
    gate = judged(given, {**rule, "policy": "v2"})
    assert [(o.policy, o.status) for o in gate.rules] == [("v2", "pass")]
    assert gate.verdict == "pass"


def test_rules_without_a_candidate_to_judge_are_no_pass() -> None:
    assert judged(result(metric("cpa", 10, 10), candidates=()), {"metric": "cpa", "at_most": 100}).verdict == "no_gate"


PASS = {"metric": "cpa", "at_most": 100, **POINT}
WARN = {"metric": "cpa", "at_most": 1, "on_fail": "warn", **POINT}
FAIL = {"metric": "cpa", "at_most": 2, **POINT}
IGNORED = {"metric": "cpa", "at_most": 3, "on_fail": "ignore", **POINT}


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([], "no_gate"),
        ([PASS], "pass"),
        ([PASS, WARN], "warn"),
        ([WARN, FAIL, PASS], "fail"),
        ([PASS, IGNORED], "pass"),
        ([IGNORED, WARN], "warn"),
    ],
)
@pytest.mark.parametrize(
    ("fidelity", "warns", "least"),
    [(True, False, None), (None, False, None), (None, True, None), (False, False, "fail"), (False, True, "warn")],
)
def test_the_worst_of_rules_and_fidelity_is_the_verdict(
    rules: list[dict[str, Any]], verdict: str, fidelity: bool | None, warns: bool, least: str | None
) -> None:
    gate = judged(result(metric("cpa", 10, 10), fidelity=fidelity), *rules, fidelity_warns=warns)
    if least == "fail":
        verdict = "fail"
    if least == "warn" and verdict == "pass":
        verdict = "warn"
    assert gate.verdict == verdict  # without rules a failed check warns in words: the verdict is no_gate, never a pass
    assert len(gate.rules) == len(rules)
    if fidelity is False and (least == "fail" or verdict in ("warn", "no_gate")):
        assert "3 rows of the logged bids" in gate.reason
    assert gate.reason


def test_a_pass_says_how_much_of_it_was_ignored() -> None:
    given = result(metric("cpa", 10, 10))
    assert judged(given, PASS).reason == "The one judgement passes."
    assert judged(given, PASS, PASS).reason == "All 2 judgements pass."
    assert judged(given, PASS, IGNORED).reason == "1 of 2 judgements pass; the rules say to ignore the others."
    assert judged(given, IGNORED).reason == "0 of 1 judgements pass; the rules say to ignore the others."


def test_a_verdict_gives_the_first_reason_and_says_how_many_more_there_are() -> None:
    given = result(metric("cpa", 10, 10))
    for rule, verb in ((FAIL, "fail"), (WARN, "warn")):
        for many, more in ((1, ""), (2, f" 1 more {verb}s."), (3, f" 2 more {verb}.")):
            gate = judged(given, PASS, *[rule] * many)
            assert gate.reason == gate.rules[1].sentence + more


def test_the_value_of_what_only_candidates_have_is_judged_without_a_change() -> None:
    given = result(metric("churn", None, 0.2)).model_copy(update={"differences": []})
    assert one(given, {"metric": "churn", "at_most": 0.25, **POINT}).status == "pass"
    assert one(given, {"metric": "churn", "at_most": 0.15, **POINT}).status == "fail"


def test_p_goes_by_the_confidence_of_the_results_intervals() -> None:
    """The end of an interval at 80% touches the edge: one-sided 10%; and half of it is 1.28 standard errors."""
    given = result(metric("cpa", 10, 12, half=1.0)).model_copy(update={"scenario": {"intervals": {"confidence": 0.8}}})
    outcome = one(given, {"metric": "cpa", "max_increase": 1})
    assert outcome.p == pytest.approx(0.1)
    assert outcome.detectable == pytest.approx(2.8 / stats.norm.ppf(0.9))


def test_an_outcome_carries_what_the_rule_allows_in_the_quantity_that_it_judges() -> None:
    def allowed(**bound: Any) -> Any:
        outcome = one(result(metric("cpa", 10, 12, half=1.0)), {"metric": "cpa", **bound})
        return outcome.judged, outcome.quantity, outcome.allowed and (outcome.allowed.low, outcome.allowed.high)

    assert allowed(between=[1, 13]) == ("value", 12.0, (1.0, 13.0))
    assert allowed(max_increase=3) == ("absolute", 2.0, (None, 3.0))
    assert allowed(max_decrease="5%") == ("relative", 0.2, (-0.05, None))
    assert allowed(max_width=3) == ("absolute", 2.0, None)  # of the interval, not of the value


def test_p_is_that_of_the_intervals_own_side_and_t_law() -> None:
    """An interval from 11 to 17 around 12: 1 below, 5 above. The edge at its lower end has a p of 2.5%."""
    values, difference = metric("cpa", 10, 12, half=1.0)
    low_side = difference.model_copy(update={"absolute": Estimate(value=2.0, low=1.0, high=7.0)})
    for freedom in (None, 0.0, 4.0, 40.0):  # of no degree: not known
        given = result((values, low_side))
        given = given.model_copy(update={"diagnostics": {"freedom": {"": {} if freedom is None else {"": freedom}}}})
        t = stats.t(freedom) if freedom else stats.norm
        for bound, reach in ((1.0, 1.0), (0.5, 1.5), (1.5, 0.5)):
            outcome = one(given, {"metric": "cpa", "max_increase": bound})
            assert outcome.p == pytest.approx(t.sf(reach * t.ppf(0.975))), (freedom, bound)
        # What must not fall below an edge, here 3 away, looks at the upper end, 5 away.
        least = one(given, {"metric": "cpa", "max_decrease": 1.0})
        assert least.p == pytest.approx(t.cdf(t.ppf(0.975) * 3 / 5)), freedom


def test_over_many_segment_values_chance_alone_does_not_fail_a_release() -> None:
    """One of forty intervals lies outside by a hair: alone a failure, among forty what chance does."""
    hair = metric("cpa", 10, 12.1, half=1.0, segment={"campaign": "0"})
    others = [metric("cpa", 10, 10, half=1.0, segment={"campaign": str(i)}) for i in range(1, 40)]
    rule = {"metric": "cpa", "by": "campaign", "max_increase": "10%"}
    alone, among = judged(result(hair), rule), judged(result(hair, *others), rule)
    assert [o.status for o in alone.rules] == ["fail"]
    first = among.rules[0]
    assert (first.status, first.action) == ("inconclusive", "warn")
    assert first.p == alone.rules[0].p
    assert "may be chance" in first.sentence
    assert [o.status for o in among.rules[1:]] == ["pass"] * 39
    # What is far outside fails among however many, and what straddles the bound says no more than that.
    far = metric("cpa", 10, 20, half=1.0, segment={"campaign": "0"})
    on_edge = metric("cpa", 10, 11.1, half=1.0, segment={"campaign": "1"})
    outcomes = judged(result(far, on_edge, *others[1:]), rule).rules
    assert [o.status for o in outcomes] == ["fail", "inconclusive"] + ["pass"] * 38
    assert outcomes[0].sentence.endswith("the rule allows an increase of at most 10%.")
    assert outcomes[1].sentence.endswith("but the interval straddles it.")


@pytest.mark.parametrize("count", [2, 20])
def test_many_values_a_little_beyond_the_bound_are_more_than_chance(count: int) -> None:
    """Each interval straddles (one-sided p about 0.05), two or twenty together do not."""
    hairs = [metric("cpa", 10, 11.84, half=1.0, segment={"campaign": str(i)}) for i in range(count)]
    rule = {"metric": "cpa", "by": "campaign", "max_increase": "10%"}
    outcomes = judged(result(*hairs), rule).rules
    assert {o.status for o in judged(result(hairs[0]), rule).rules} == {"inconclusive"}
    assert {o.status for o in outcomes} == {"fail"}
    assert "straddles" not in outcomes[0].sentence
    assert "not chance" in outcomes[0].sentence


def test_the_rows_of_a_segment_value_are_those_that_the_log_has() -> None:
    """Of a real result: every count is multiplied by the row's weight."""
    rows = [
        {"campaign": c, "price": 1.0, "won": 1, "click": i % 2, "weight": 2.0, "pctr": 0.1 + i / 100}
        for c, n in ((7, 50), (8, 10))
        for i in range(n)
    ]
    rule = {"metric": "win_rate", "by": "campaign", "min_rows": 100, "at_least": 1.0, **POINT}
    found = replay(rows, bid={"formula": "50 * pctr"}, segments=["campaign"], gate=[rule])
    assert {o.segment["campaign"]: o.status for o in found.gate.rules} == {"7": "pass", "8": "insufficient_data"}
    assert "the baseline has 20 rows, the rule asks for 100" in found.gate.rules[1].sentence
    # A result of before the rows were given.
    older = found.model_copy(update={"metrics": [m for m in found.metrics if m.metric != "rows"]})
    assert "does not say how many rows" in judged(older, rule).rules[0].sentence
