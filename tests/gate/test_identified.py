"""Spec section 5: a pass or a fail that would not hold over the whole identified range is unidentified."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import judged, metric, one, result

from bidsim.result import Difference, IdentifiedChange, Metric, Range, Result

Made = tuple[list[Metric], Difference]


def ranged(made: Made, old: Any, new: Any, change: tuple[Any, Any] | None = None) -> Made:
    """The same with identified ranges of both values, and of the change where given (absolute, relative)."""
    values, difference = made
    with_ranges = [v.model_copy(update={"identified": span(r)}) for v, r in zip(values, (old, new), strict=True)]
    if change is not None:
        both = IdentifiedChange(absolute=Range(low=change[0][0], high=change[0][1]), relative=span(change[1]))
        difference = difference.model_copy(update={"identified": both})
    return with_ranges, difference


def span(ends: tuple[float | None, float | None] | None) -> Any:
    return None if ends is None else Range(low=ends[0], high=ends[1])


# What the interval alone says, and what it says when the value may be anywhere in the identified range. The bound is
# at most 10; half the interval is 1, so a pass holds where high + 1 <= 10, a fail where low - 1 > 10.
TABLE = [
    # value, identified, status
    (8.0, None, "pass"),
    (8.0, (8.0, 8.0), "pass"),
    (8.0, (5.0, 9.0), "pass"),
    (8.0, (5.0, 9.5), "unidentified"),
    (8.0, (5.0, None), "unidentified"),
    (8.0, (None, 9.0), "pass"),
    (8.0, (None, None), "pass"),  # not computed
    (12.0, None, "fail"),
    (12.0, (12.0, 12.0), "fail"),
    (12.0, (11.5, 20.0), "fail"),
    (12.0, (10.5, 20.0), "unidentified"),
    (12.0, (None, 20.0), "unidentified"),
    (12.0, (11.5, None), "fail"),
    (10.0, (9.9, 10.1), "inconclusive"),
    (10.0, (0.0, 99.0), "inconclusive"),
]


@pytest.mark.parametrize(("value", "identified", "status"), TABLE)
@pytest.mark.parametrize("action", ["fail", "warn", "ignore"])
def test_truth_table_with_interval_evidence(value: float, identified: Any, status: str, action: str) -> None:
    given = result(ranged(metric("cpa", 10.0, value, half=1.0), None, identified))
    gate = judged(given, {"metric": "cpa", "at_most": 10, f"on_{status}": action} if status != "pass" else
                  {"metric": "cpa", "at_most": 10})  # fmt: skip
    expected = "pass" if status == "pass" else action
    assert [(o.status, o.action) for o in gate.rules] == [(status, expected)]
    assert gate.verdict == {"ignore": "pass"}.get(expected, expected)
    (outcome,) = gate.rules
    if status == "unidentified":
        assert "rows that this log can't decide" in outcome.sentence
        assert outcome.identified is not None
        assert (outcome.identified.low, outcome.identified.high) == identified
    if identified in (None, (None, None)) or identified == (value, value):
        assert outcome.identified is None


@pytest.mark.parametrize(
    ("value", "identified", "status"),
    [
        (8.0, (5.0, 10.0), "pass"),
        (8.0, (5.0, 10.1), "unidentified"),
        (12.0, (10.1, 13.0), "fail"),
        (12.0, (9.9, 13.0), "unidentified"),
    ],
)
def test_truth_table_with_point_evidence(value: float, identified: Any, status: str) -> None:
    given = result(ranged(metric("cpa", 10.0, value), None, identified))
    assert one(given, {"metric": "cpa", "at_most": 10, "evidence": "point"}).status == status


def test_by_default_unidentified_warns() -> None:
    given = result(ranged(metric("cpa", 10.0, 8.0, half=1.0), None, (5.0, 20.0)))
    assert judged(given, {"metric": "cpa", "at_most": 10}).verdict == "warn"


@pytest.mark.parametrize(
    ("bound", "identified", "status"),
    [
        # the change is +2 or +20%, half an interval 0.5 or 5%
        ({"max_increase": 3}, ((1.5, 2.5), (0.15, 0.25)), "pass"),
        ({"max_increase": 3}, ((1.5, 2.6), (0.15, 0.25)), "unidentified"),
        ({"max_increase": "30%"}, ((1.5, 9.9), (0.15, 0.25)), "pass"),
        ({"max_increase": "30%"}, ((1.5, 2.5), (0.15, 0.26)), "unidentified"),
        ({"max_increase": 1}, ((1.6, 2.5), (0.0, 0.0)), "fail"),
        ({"max_increase": 1}, ((1.4, 2.5), (0.0, 0.0)), "unidentified"),
        ({"max_decrease": 0}, ((0.5, 2.5), (0.15, 0.25)), "pass"),
        ({"max_decrease": 0}, ((0.4, 2.5), (0.15, 0.25)), "unidentified"),
        ({"min_improvement": "10%"}, ((1.5, 2.5), (-0.2, 0.25)), "unidentified"),
    ],
)
def test_a_change_is_judged_by_its_own_range(bound: dict[str, Any], identified: Any, status: str) -> None:
    """Whatever the ranges of the two values are: the same rows are unknown for both policies."""
    made = ranged(metric("cpa", 10.0, 12.0, half=0.5), (0.0, 99.0), (0.0, 99.0), identified)
    assert one(result(made), {"metric": "cpa", **bound}).status == status


def test_without_its_own_range_a_change_gets_the_widest_that_both_values_allow() -> None:
    def status(old: Any, new: Any, **bound: Any) -> str:
        return one(result(ranged(metric("cpa", 10.0, 12.0, half=0.5), old, new)), {"metric": "cpa", **bound}).status

    assert status((10.0, 10.0), (12.0, 12.0), max_increase=3) == "pass"
    assert status((9.6, 10.0), (12.0, 12.0), max_increase=3) == "pass"
    assert status((9.4, 10.0), (12.0, 12.0), max_increase=3) == "unidentified"
    assert status((10.0, 10.0), (12.0, 12.6), max_increase=3) == "unidentified"
    assert status((10.0, 10.0), (11.4, 12.0), max_increase=1) == "unidentified"
    assert status((0.0, 10.0), (12.0, 12.0), max_increase="900%") == "unidentified"
    # One policy's range alone says nothing about a change.
    assert status(None, (0.0, 99.0), max_increase=3) == "pass"
    assert status((0.0, 99.0), None, max_increase=3) == "pass"


@given(
    st.tuples(st.floats(0.1, 50), st.floats(0, 20), st.floats(0, 20)),
    st.tuples(st.floats(0.1, 50), st.floats(0, 20), st.floats(0, 20)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.floats(-0.9, 3),
)
def test_what_passes_or_fails_does_so_for_every_value_in_the_ranges(
    old: tuple[float, float, float], new: tuple[float, float, float], at: tuple[float, float], bound: float
) -> None:
    """Property: the verdict on point values anywhere inside the ranges is the verdict that was given."""
    low = [max(0.01, v[0] - v[1]) for v in (old, new)]
    high = [v[0] + v[2] for v in (old, new)]
    rule = {"metric": "cpa", "max_increase": f"{100 * bound:.6f}%", "evidence": "point"}
    ranges = [(lo, hi) for lo, hi in zip(low, high, strict=True)]
    whole = one(result(ranged(metric("cpa", old[0], new[0]), *ranges)), rule)
    if whole.status in ("pass", "fail"):
        truth = [lo + share * (hi - lo) for lo, hi, share in zip(low, high, at, strict=True)]
        assert one(result(metric("cpa", truth[0], truth[1])), rule).status == whole.status
    else:
        assert whole.status == "unidentified"


def test_over_segments_a_failure_that_the_undecided_rows_could_undo_is_unidentified() -> None:
    def made(name: str, low: float) -> Made:
        return ranged(metric("cpa", 10, 30, half=1.0, segment={"campaign": name}), None, (low, 31.0))

    others = [metric("cpa", 10, 10, half=1.0, segment={"campaign": f"x{i}"}) for i in range(20)]
    rule = {"metric": "cpa", "by": "campaign", "at_most": 15}
    outcomes = judged(result(made("sure", 29.0), made("unsure", 15.5), *others), rule).rules
    assert [o.status for o in outcomes] == ["fail", "unidentified", *["pass"] * 20]
    assert "can't decide" in outcomes[1].sentence


def test_an_interval_is_moved_to_both_ends_and_never_only_the_value() -> None:
    """7 + 2 is inside, and so is the whole interval; 7 + 2 with the interval's half of 2 is not."""
    given: Result = result(ranged(metric("cpa", 10.0, 7.0, half=2.0), None, (7.0, 9.0)))
    assert one(given, {"metric": "cpa", "at_most": 10}).status == "unidentified"
    assert one(given, {"metric": "cpa", "at_most": 11}).status == "pass"


def test_a_number_without_a_range_says_that_the_log_leaves_wins_open() -> None:
    def said(name: str, unknown: float) -> str:
        made = [metric(name, 10.0, 9.0, half=0.1), metric("unknown_wins", 0.0, unknown)]
        judged = one(result(*made), {"metric": name, "max_increase": "0%"})
        assert judged.status == "pass"
        return judged.sentence

    assert "among counted wins" in said("cpa_at_matched_spend", 9.0)
    assert "among counted wins" in said("target_attainment", 9.0)
    assert "among counted wins" not in said("cpa_at_matched_spend", 0.0)
    assert "among counted wins" not in said("calibration", 9.0)


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ({"at_most": 9.5}, None, "anywhere from 6.1235 to without limit"),
        ({"max_increase": 1}, ((-3.12345, 5.0), (0.0, 0.0)), "anywhere from -3.123 to +5"),
        ({"max_increase": "5%"}, ((0.0, 0.0), (-0.31234, None)), "anywhere from -31.2% to without limit"),
    ],
)
def test_how_far_the_undecided_rows_reach_is_told_in_the_unit_of_the_rule(
    rule: dict[str, Any], change: Any, words: str
) -> None:
    made = ranged(metric("cpa", 10.0, 9.0, half=0.2), None, (6.12345, None), change)
    assert words in one(result(made), {"metric": "cpa", **rule}).sentence
