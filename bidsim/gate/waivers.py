"""Waivers: a rule that may fail for a while, who answers for it, and a reminder before it ends.

A waiver counts through its last day in the scenario's time zone, judged against the result's as-of day. It covers
whatever the rule says but a pass; once expired it no longer counts, and the outcome says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from bidsim.gate.sentences import title
from bidsim.result import Finding, RuleOutcome, WaiverState
from bidsim.scenario.schema import Rule

# From so many days before its end on a waiver is said to end.
WARNING_DAYS = 14
CODES = ("waiver_ends", "waiver_expired")


def state_of(rule: Rule, as_of: str) -> WaiverState | None:
    """The rule's waiver on a day (ISO 8601)."""
    if rule.waive is None:
        return None
    left = (date.fromisoformat(rule.waive.until) - date.fromisoformat(as_of)).days
    state = WaiverState(
        until=rule.waive.until, reason=rule.waive.reason, owner=rule.waive.owner, state="active", days_left=left
    )
    if left < 0:
        return state.model_copy(update={"state": "expired"})
    return state.model_copy(update={"state": "ending"}) if left <= WARNING_DAYS else state


def waive(outcomes: Sequence[RuleOutcome], rule: Rule, as_of: str) -> list[RuleOutcome]:
    """The rule's outcomes with its waiver."""
    waiver = state_of(rule, as_of)
    if waiver is None:
        return list(outcomes)
    found = []
    for o in outcomes:
        counts = waiver.state != "expired" and o.action != "pass"
        sentence = o.sentence
        if counts:
            sentence += f" Waived through {waiver.until} by {waiver.owner}: {waiver.reason.rstrip('. ')}."
        elif o.action != "pass":
            sentence += f" Its waiver by {waiver.owner} ended on {waiver.until} and no longer counts."
        found.append(o.model_copy(update={"waived": counts, "waiver": waiver, "sentence": sentence}))
    return found


def reminders(rules: Sequence[Rule], as_of: str) -> list[Finding]:
    """A warning for each waiver that is about to end or has ended."""
    found = []
    for rule in rules:
        waiver = state_of(rule, as_of)
        if waiver is None or waiver.state == "active":
            continue
        who = f'The waiver of "{title(rule)}" by {waiver.owner}'
        if waiver.state == "expired":
            code, text = "waiver_expired", f"{who} ended on {waiver.until} and no longer counts."
        else:
            left = "today" if waiver.days_left == 0 else f"in {waiver.days_left} day{'s' * (waiver.days_left != 1)}"
            code, text = "waiver_ends", f"{who} ends {left}, on {waiver.until}."
        found.append(Finding(code=code, severity="warning", message=text))
    return found
