"""What a rule's outcome says in numbers, the beta that a rule means, and the chance that its failure goes by."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from made import metric, one, result
from pydantic import ValidationError
from scipy.special import ndtr, ndtri

from bidsim.gate.bounds import Bound
from bidsim.gate.index import Index
from bidsim.gate.judging import _chance
from bidsim.gate.sentences import said
from bidsim.scenario.schema import Rule

CHANGE = Bound("relative", -math.inf, 0.01, "an increase of at most 1%")


@pytest.mark.parametrize(
    ("quantity", "interval", "sentence"),
    [
        (0.031, (0.012, 0.05), "rises by 3.1% [1.2%, 5%] (50 to 51.55)"),
        (-0.031, (-0.05, -0.012), "falls by 3.1% [1.2%, 5%] (50 to 51.55)"),
        (0.031, None, "rises by 3.1% (50 to 51.55)"),
        (0.031, (-0.012, 0.05), "changes by +3.1% [-1.2%, +5%] (50 to 51.55)"),
        (-0.031, (-0.05, 0.012), "changes by -3.1% [-5%, +1.2%] (50 to 51.55)"),
        (0.0, (-0.01, 0.01), "does not change [-1%, +1%] (50 to 51.55)"),
        (12.345, (9.0, 15.0), "rises by 1,234% [900%, 1,500%] (50 to 51.55)"),
        (0.0, (0.0, 0.0), "does not change (50 to 51.55)"),
    ],
)
def test_a_change_is_told_with_its_interval_and_both_values(quantity: float, interval: Any, sentence: str) -> None:
    assert said(CHANGE, quantity, 51.55, 50.0, interval) == sentence


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"at_most": 1234567}, "spend of v2 is 1,271,604 [1,261,604, 1,281,604]; the rule allows at most 1,234,567."),
        ({"max_increase": 1e6}, ("spend of v2 rises by 36,604 [26,604, 46,604] (1,235,000 to 1,271,604); the rule allows "
         "an increase of at most 1,000,000.")),
        ({"max_width": 100000.5}, ("spend of v2 rises by 36,604 [26,604, 46,604] (1,235,000 to 1,271,604): the interval is "
         "20,000 wide; the rule allows an interval of the change at most 100,000.5 wide.")),
        ({"max_increase": "0.12345678%"}, ("spend of v2 rises by 2.96% [2.15%, 3.77%] (1,235,000 to 1,271,604); the rule "
         "allows an increase of at most 0.12345678%.")),
        ({"at_most": 0.1 + 0.2}, "spend of v2 is 1,271,604 [1,261,604, 1,281,604]; the rule allows at most 0.3."),
        ({"max_increase": "0.123456789012%"}, ("spend of v2 rises by 2.96% [2.15%, 3.77%] (1,235,000 to 1,271,604); the "
         "rule allows an increase of at most 0.123456789012%.")),
        ({"at_most": 1e300}, "spend of v2 is 1,271,604 [1,261,604, 1,281,604]; the rule allows at most 1e+300."),
        ({"at_most": 1, "min_clicks": 2e6}, ("spend of v2 is not judged: the baseline has 1,500,000 clicks, the rule asks "
         "for 2,000,000.")),
    ],
)  # fmt: skip
def test_numbers_of_millions_are_written_out(rule: dict[str, Any], sentence: str) -> None:
    given = result(metric("spend", 1_235_000, 1_271_604, half=10_000), metric("clicks", 1_500_000, 1))
    assert one(given, {"metric": "spend", **rule}).sentence == sentence


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"max_increase": "-5%"}, "asks for a decrease of at least 5%"),
        ({"max_decrease": -0.5}, "asks for an increase of at least 0.5"),
        ({"min_improvement": "-1%"}, "allows a loss of at most 1%"),
        ({"max_increase": 0}, "allows an increase of at most 0"),
        ({"max_decrease": 0}, "allows a decrease of at most 0"),
        ({"min_improvement": 0}, "asks for an improvement of at least 0"),
        ({"min_improvement": "1%"}, "asks for an improvement of at least 1%"),
    ],
)
def test_a_bound_below_zero_is_told_as_what_it_asks_for(rule: dict[str, Any], words: str) -> None:
    found = one(result(metric("cpa", 10.0, 10.0, half=0.01)), {"metric": "cpa", **rule})
    assert words in found.sentence
    assert found.bound == words.split(maxsplit=1)[1].removeprefix("for ")


def test_an_absolute_bound_that_reads_like_per_cent_is_told() -> None:
    """`max_increase: 5` of a CPA of 0.5 allows ten times as much, where 5% was meant."""
    found = one(result(metric("cpa", 0.5, 0.51, half=0.01)), {"metric": "cpa", "max_increase": 5})
    assert found.sentence.endswith(
        "allows an increase of at most 5 (in its own unit, more than the baseline's 0.5; per cent would be 5%)."
    )
    for bound, told in ((1, True), (100, True), (0.9, False), (100.5, False)):
        sentence = one(result(metric("cpa", 0.5, 0.51, half=0.01)), {"metric": "cpa", "max_increase": bound}).sentence
        assert ("per cent would be" in sentence) is told
    found = one(result(metric("cpa", 50.0, 51.0, half=0.01)), {"metric": "cpa", "max_increase": 5})
    assert found.sentence.endswith("allows an increase of at most 5.")


@pytest.mark.parametrize(("name", "close"), [("CPA", "cpa"), ("spendd", "spend"), ("auc", None)])
def test_a_metric_that_is_not_there_is_told_with_the_one_most_like_it(name: str, close: str | None) -> None:
    found = one(result(metric("cpa", 10.0, 10.0), metric("spend", 1.0, 1.0)), {"metric": name, "at_most": 1})
    guess = f' (did you mean "{close}"?)' if close else ""
    assert found.status == "not_found"
    assert found.sentence.endswith(f'the result has no metric "{name}"{guess}.')


def test_the_expected_utility_that_is_judged_is_told_by_its_beta() -> None:
    values, difference = metric("expected_utility", 10.0, 11.0, half=0.1)
    update = {"beta": 123.456}
    utility = [v.model_copy(update=update) for v in values], difference.model_copy(update=update)
    given = result(metric("cpa", 10.0, 11.0), utility)
    found = one(given, {"metric": "expected_utility", "at_least": 1, "beta": 100})
    assert found.rule == "expected utility (beta 100): at least 1"
    assert found.sentence.startswith("expected utility (beta 123.5) of v2 is 11")


@pytest.mark.parametrize(("change", "message"), [("1e400%", "too large"), ("-1e400%", "too large"), ("٥%", "neither")])
def test_a_bound_that_nothing_can_pass_or_fail_is_refused(change: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rule(metric="cpa", max_increase=change)
    assert Rule(metric="cpa", max_increase=".5 %").max_increase == ".5 %"


@pytest.mark.parametrize(
    ("metrics", "rule", "why"),
    [
        ([("cpa_at_matched_spend", 2.0, None), ("multiplier_at_matched_spend", 1.0, None)], {"max_increase": "1%"},
         "CPA at matched spend of v2 has no value: no multiplier of its bids makes it spend as much as the baseline"),
        ([("cpa_at_matched_spend", 2.0, None), ("multiplier_at_matched_spend", 1.0, 1.5)], {"max_increase": "1%"},
         "CPA at matched spend of v2 is undefined here (a zero denominator or no labels)"),
        ([("cpa_at_matched_spend", 2.0, None)], {"max_increase": "1%"},
         "CPA at matched spend of v2 is undefined here (a zero denominator or no labels)"),
        ([("spend", 0.0, 2.0)], {"max_increase": "1%"},
         "spend of v2 is undefined as a percentage: 2 against the baseline's 0 (bound the change in its own unit)"),
        ([("cpa", None, 2.0)], {"max_increase": 0.1},
         "CPA of v2 is undefined for the baseline here (a zero denominator or no labels)"),
        ([("cpa", None, None)], {"at_most": 0.1}, "CPA of v2 is undefined here (a zero denominator or no labels)"),
    ],
    ids=["out of reach", "no results", "no level", "baseline of zero", "no baseline", "no value"],
)  # fmt: skip
def test_what_can_not_be_judged_says_why(metrics: list[Any], rule: dict[str, Any], why: str) -> None:
    found = one(result(*(metric(*m) for m in metrics)), {"metric": metrics[0][0], **rule})
    assert found.status == "insufficient_data"
    assert found.sentence == f"{why}, so it can't be judged."


@pytest.mark.parametrize("bound", ["max_increase", "max_decrease", "min_improvement", "max_width", "suspicious"])
@pytest.mark.parametrize("name", ["churn", "disagreement", "spend_lost"])
def test_a_change_of_what_only_candidates_have_is_refused_with_the_rule(name: str, bound: str) -> None:
    with pytest.raises(ValidationError, match=f'{bound} bounds a change, and "{name}" is of the candidate alone'):
        Rule.model_validate({"metric": name, bound: 0.1})
    assert Rule(metric=name, at_most=0.1).at_most == 0.1


def test_a_change_that_a_result_does_not_give_is_not_found_and_fails() -> None:
    given = result(metric("coverage", 0.5, 0.5))
    found = one(given.model_copy(update={"differences": []}), {"metric": "coverage", "max_decrease": 0.1})
    assert (found.status, found.action) == ("not_found", "fail")
    assert found.sentence.startswith("coverage of v2 is of the candidate alone, without a baseline's to change from")


def test_a_metric_without_a_better_direction_is_told_without_a_bound() -> None:
    found = one(result(metric("spend", 1.0, 1.0)), {"metric": "spend", "min_improvement": 1})
    assert found.sentence.startswith('spend: "spend" has no better direction')


def test_a_change_in_its_own_unit_has_four_digits() -> None:
    found = one(result(metric("cpa", 10.0, 11.23456, half=0.23456)), {"metric": "cpa", "max_width": 0.5})
    assert found.sentence == (
        "CPA of v2 rises by 1.235 [1, 1.469] (10 to 11.2346): the interval is 0.4691 wide; the rule allows an interval of "
        "the change at most 0.5 wide."
    )


def test_values_that_are_not_there_are_told_as_zero() -> None:
    assert said(CHANGE, 2.5, None, None, (1.5, 3.5)) == "rises by 250% [150%, 350%] (0 to 0)"


@pytest.mark.parametrize(("wanted", "meant"), [(None, 100.0), (2, 1.0), (60, 100.0), (900, 1000.0)])
def test_a_rule_means_the_nearest_beta_and_by_default_the_middle_one(wanted: float | None, meant: float) -> None:
    index = Index.__new__(Index)
    index.betas = [1.0, 10.0, 100.0, 1000.0, 9000.0]
    assert index.beta(Rule(metric="expected_utility", beta=wanted, at_least=0)) == meant
    assert index.beta(Rule(metric="cpa", at_most=1)) is None


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_an_interval_that_touches_the_edge_has_half_of_what_its_confidence_leaves(scale: float) -> None:
    index: Any = SimpleNamespace(freedom=lambda segment: math.inf, confidence=0.9)
    bound = Bound("value", 0.0, 3 * scale, "at most")
    chance = _chance(index, "spend", bound, {}, 5 * scale, (3 * scale, 7 * scale))
    assert chance(2 * scale) == pytest.approx(0.05)
    assert chance(0.0) == pytest.approx(0.5)


def test_a_number_known_exactly_is_beyond_an_edge_or_not() -> None:
    index: Any = SimpleNamespace(freedom=lambda segment: math.inf, confidence=0.9)
    chance = _chance(index, "spend", Bound("value", 0.0, 3.0, "at most"), {}, 3.5, (3.5, 3.5))
    assert (chance(0.5), chance(0.0), chance(-0.5)) == (0.0, 1.0, 1.0)


def test_an_end_that_was_drawn_in_to_what_can_be_makes_no_failure_more_certain() -> None:
    index: Any = SimpleNamespace(freedom=lambda segment: math.inf, confidence=0.9)
    bound = Bound("value", 0.95, math.inf, "at least")
    drawn_in, free = (_chance(index, name, bound, {}, 0.7, (0.3, 1.0))(0.25) for name in ("auc", "calibration"))
    assert drawn_in == pytest.approx(_chance(index, "auc", bound, {}, 0.7, (0.3, 1.1))(0.25))
    assert free < drawn_in
    # The same at the lower limit: a cost can't be below zero.
    cost = _chance(index, "cpa", Bound("value", -math.inf, 1.0, "at most"), {}, 1.5, (0.0, 4.0))
    assert cost(0.5) == pytest.approx(ndtr(-0.5 / 2.5 * ndtri(0.95)))


def test_names_of_any_length_leave_room_for_what_is_said() -> None:
    segment = {"campaign": "7" * 900}
    given = result(metric("cpa", 10.0, 12.0, half=0.1, segment=segment, policy="v" * 300), candidates=("v" * 300,))
    names = {"7" * 900: "n" * 900}
    given = given.model_copy(update={"data": given.data.model_copy(update={"campaign_names": names})})
    found = one(given, {"metric": "cpa", "by": "campaign", "at_most": 11})
    assert found.sentence.endswith("is 12 [11.9, 12.1]; the rule allows at most 11.")
    assert len(found.sentence) < 400
    assert found.segment == segment


@pytest.mark.parametrize("value", ["", "  "])
def test_a_segment_without_a_name_is_told_as_empty(value: str) -> None:
    given = result(metric("cpa", 10.0, 12.0, half=0.1, segment={"site": value}))
    found = one(given, {"metric": "cpa", "by": "site", "at_most": 11})
    assert found.sentence == "CPA of v2 on site (empty) is 12 [11.9, 12.1]; the rule allows at most 11."
