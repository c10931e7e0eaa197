"""The gate as JUnit XML, for CI systems that show tests.

What makes the verdict fail is a <failure>. A warning passes, with its text as output, since JUnit knows none. Waived
rules and rules with too little data are skipped, unless the scenario makes too little data fail. The passing segments
of one rule are one case. No times are written: the same result gives the same bytes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from bidsim.report import format as f
from bidsim.report import knowledge
from bidsim.report.lookup import Lookup
from bidsim.report.view import outcome_action
from bidsim.result import Result, RuleOutcome

LISTED = 200
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """kind: "pass", "failure" or "skipped"."""

    name: str
    kind: str
    message: str = ""
    text: str = ""


def render_junit(result: Result, *, lookup: Lookup | None = None) -> str:
    """junit.xml of a result. lookup: of it, where there is one already."""
    lookup = lookup or Lookup(result)
    cases = list(_unique([_fidelity(lookup), *_rules(lookup)]))
    kinds = [c.kind for c in cases]
    counts = {
        "tests": str(len(cases)),
        "failures": str(kinds.count("failure")),
        "errors": "0",
        "skipped": str(kinds.count("skipped")),
    }
    suites = ET.Element("testsuites", {"name": "bidsim", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": _legal(f.clean_name(result.name)), **counts})
    for case in cases:
        element = ET.SubElement(suite, "testcase", {"name": _legal(case.name), "classname": "bidsim.gate"})
        message = _legal(case.message)
        if case.kind != "pass":
            ET.SubElement(element, case.kind, {"message": message}).text = _legal(case.text) or message
        elif case.text:
            ET.SubElement(element, "system-out").text = _legal(case.text)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)


def _fidelity(lookup: Lookup) -> Case:
    found = lookup.result.fidelity
    sentence, sides = knowledge.fidelity(lookup)
    text = "\n".join([sentence, *(", ".join(row) for row in (sides.rows if sides else []))])
    if not found.checked:
        return Case("fidelity", "skipped", sentence)
    if found.passed:
        return Case("fidelity", "pass")
    if lookup.result.scenario.get("fidelity") == "warn":
        return Case("fidelity", "pass", text=f"warning: {text}")
    return Case("fidelity", "failure", sentence, text)


def _rules(lookup: Lookup) -> Iterator[Case]:
    if not lookup.result.gate.rules:
        yield Case("no gate rules", "skipped", "The scenario has no gate rules, so nothing was judged.")
        return
    groups: dict[tuple[str, str, str, str | None], list[RuleOutcome]] = {}
    for outcome in lookup.result.gate.rules:
        groups.setdefault((outcome.rule, outcome.policy, outcome.metric, outcome.head), []).append(outcome)
    for group in groups.values():
        passing = [o for o in group if o.segment and o.action == "pass"]
        for outcome in group:
            if outcome.segment and outcome.action == "pass":
                continue
            yield _case(lookup, outcome)
        if passing:
            yield _passing(lookup, passing, len(group))


def _title(outcome: RuleOutcome, where: str) -> str:
    return " | ".join([f.clean_name(outcome.rule, 120), f.clean_name(outcome.policy), outcome.head or "-", where])


def _case(lookup: Lookup, outcome: RuleOutcome) -> Case:
    title = _title(outcome, f.place(outcome.segment))
    action = outcome_action(outcome)
    sentence = f.clean_text(outcome.sentence)
    details = [
        sentence,
        f"metric: {outcome.metric}",
        f"where: {f.place(outcome.segment)}" + (f" ({lookup.label(outcome.segment)})" if outcome.segment else ""),
        f"value: {f.significant(outcome.value, 6)}, baseline: {f.significant(outcome.baseline, 6)}",
        f"bound: {f.clean_text(outcome.bound)}",
        f"status: {outcome.status}, judged on the {'value alone' if outcome.evidence == 'point' else 'interval'}",
    ]
    if outcome.low is not None and outcome.high is not None:
        details.insert(4, f"interval: {f.significant(outcome.low, 6)} to {f.significant(outcome.high, 6)}")
    text = "\n".join(details)
    if action == "fail":
        return Case(title, "failure", sentence, text)
    if action == "waived":
        return Case(title, "skipped", f"waived: {sentence}", text)
    if outcome.status == "insufficient_data":
        return Case(title, "skipped", sentence, text)
    if action == "pass":
        return Case(title, "pass")
    return Case(title, "pass", text=f"{'warning' if action == 'warn' else 'ignored'}: {text}")


def _passing(lookup: Lookup, passing: list[RuleOutcome], total: int) -> Case:
    family = f.clean_name(" x ".join(passing[0].segment), 40)
    lines = [f"{len(passing)} of {total} pass:", *(f.clean_text(o.sentence) for o in passing[:LISTED])]
    if len(passing) > LISTED:
        lines.append(f"and {len(passing) - LISTED} more")
    return Case(_title(passing[0], f"{family}: passing"), "pass", text="\n".join(lines))


def _unique(cases: list[Case]) -> Iterator[Case]:
    """Equal names get a number: CI systems keep one case of each name."""
    seen: dict[str, int] = {}
    taken = {c.name for c in cases}
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        name = case.name
        while seen[case.name] > 1 and name in taken:
            name = f"{case.name} #{seen[case.name]}"
            if name in taken:
                seen[case.name] += 1
        taken.add(name)
        yield Case(name, case.kind, case.message, case.text)
