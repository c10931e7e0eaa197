"""Spec section 5: a waiver counts through its last day, is said to end 14 days before, and says that it has ended."""

from __future__ import annotations

from typing import Any

import pytest
from made import judged, metric, result

from bidsim.gate import judge
from bidsim.scenario.schema import Rule

FAILING = {"metric": "cpa", "at_most": 1, "evidence": "point", "name": "cheap"}
WAIVE = {"until": "2026-12-31", "reason": "known drift, ticket 41", "owner": "ads-ml"}


@pytest.mark.parametrize(
    ("as_of", "verdict", "state", "left", "reminded"),
    [
        ("2026-11-01", "pass", "active", 60, None),
        ("2026-12-16", "pass", "active", 15, None),
        ("2026-12-17", "pass", "ending", 14, "ends in 14 days, on 2026-12-31"),
        ("2026-12-30", "pass", "ending", 1, "ends in 1 day,"),
        ("2026-12-31", "pass", "ending", 0, "ends today"),
        ("2027-01-01", "fail", "expired", -1, "ended on 2026-12-31 and no longer counts"),
    ],
)
def test_a_waiver_lives_through_its_last_day(
    as_of: str, verdict: str, state: str, left: int, reminded: str | None
) -> None:
    given = judge(
        result(metric("cpa", 10, 10), as_of=as_of),
        [Rule.model_validate({**FAILING, "waive": WAIVE})],
        fidelity_warns=False,
    )
    (outcome,) = given.gate.rules
    assert given.gate.verdict == verdict
    assert (outcome.status, outcome.action) == ("fail", "fail")  # what was found is not hidden
    assert outcome.waived is (verdict == "pass")
    assert outcome.waiver is not None
    assert (outcome.waiver.state, outcome.waiver.days_left) == (state, left)
    if outcome.waived:
        assert "Waived through 2026-12-31 by ads-ml: known drift, ticket 41." in outcome.sentence
        assert given.gate.reason == "0 of 1 judgements pass, 1 is waived."
    else:
        assert "Its waiver by ads-ml ended on 2026-12-31 and no longer counts." in given.gate.reason
    messages = [f.message for f in given.findings if f.severity == "warning"]
    assert len(messages) == (reminded is not None)
    assert all(reminded in m and '"cheap"' in m for m in messages if reminded)


def test_judging_again_replaces_the_reminders() -> None:
    rules = [Rule.model_validate({**FAILING, "waive": WAIVE})]
    once = judge(result(metric("cpa", 10, 10), as_of="2026-12-20"), rules, fidelity_warns=False)
    assert judge(once, rules, fidelity_warns=False) == once
    later = judge(once.model_copy(update={"as_of": "2027-02-01"}), rules, fidelity_warns=False)
    assert [f.code for f in later.findings] == ["waiver_expired"]
    assert judge(later, [], fidelity_warns=False).findings == []


def test_a_waiver_covers_its_own_rule_alone_and_every_status_of_it() -> None:
    given = result(metric("cpa", 10, 10))
    waived = {**FAILING, "waive": WAIVE}
    assert judged(given, waived, FAILING).verdict == "fail"
    assert judged(given, waived, {**FAILING, "at_most": 20}).verdict == "pass"
    assert judged(given, {**waived, "metric": "cppa"}).verdict == "pass"
    assert judged(given, {**waived, "on_fail": "warn"}).verdict == "pass"
    # The rule holds: there is nothing to waive.
    (outcome,) = judged(given, {**waived, "at_most": 20}).rules
    assert (outcome.status, outcome.waived) == ("pass", False)


def test_over_segments_the_waiver_covers_each_value() -> None:
    places: list[Any] = [metric("cpa", 10, 10, segment={"campaign": c}) for c in "789"]
    gate = judged(result(*places), {**FAILING, "by": "campaign", "waive": WAIVE})
    assert [o.waived for o in gate.rules] == [True] * 3
    assert gate.verdict == "pass"


def test_fidelity_is_never_waived() -> None:
    gate = judged(result(metric("cpa", 10, 10), fidelity=False), {**FAILING, "waive": WAIVE})
    assert gate.verdict == "fail"
