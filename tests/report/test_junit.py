"""junit.xml: valid XML, each judgement once, the verdict's meaning kept."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import MODEL, empty_result, make_result, null_result

from bidsim.report import render_junit
from bidsim.result import Result

GOLDEN = Path(__file__).parent / "golden"


def cases(result: Result) -> dict[str, ET.Element]:
    suites = ET.fromstring(render_junit(result))
    found = suites.findall(".//testcase")
    names = [c.get("name", "") for c in found]
    assert len(set(names)) == len(names)
    for element in (suites, *suites.findall("testsuite")):
        assert element.get("tests") == str(len(found))
        assert element.get("failures") == str(len(suites.findall(".//failure")))
        assert element.get("skipped") == str(len(suites.findall(".//skipped")))
    return dict(zip(names, found, strict=True))


def test_golden() -> None:
    """After a wanted change: python tests/report/update_golden.py"""
    assert render_junit(make_result()) == (GOLDEN / "junit.xml").read_text("utf-8")


def many() -> Result:
    return make_result(500)


@pytest.mark.parametrize("make", [many, empty_result, null_result])
def test_names_are_unique_and_counts_add_up(make: Callable[[], Result]) -> None:
    assert cases(make())


def test_what_fails_the_verdict_fails_and_a_warning_passes_with_its_text() -> None:
    found = cases(make_result())
    failing = {name for name, case in found.items() if case.find("failure") is not None}
    assert failing == {
        "fidelity",
        f"nothing | {MODEL} | - | all",
        f"predictions add up | {MODEL} | ctr | campaign: 103",
    }
    warned = found[f"CPA <b>& more</b> | {MODEL} | - | all"]
    assert [child.tag for child in warned] == ["system-out"]
    assert (warned[0].text or "").startswith("warning: ")
    assert "waived" in (found[f"waived | {MODEL} | - | all"].find("skipped").attrib["message"])  # type: ignore[union-attr]
    assert found[f"predictions add up | {MODEL} | ctr | campaign: 105"].find("skipped") is not None


def test_passing_segments_of_one_rule_are_one_case() -> None:
    case = cases(make_result(500))[f"predictions add up | {MODEL} | ctr | campaign: passing"]
    assert (case[0].text or "").startswith("498 of 500 pass:")
    assert "and 298 more" in (case[0].text or "")


def test_without_rules_one_case_is_skipped() -> None:
    found = cases(make_result(verdict="no_gate"))
    assert [c.tag for c in found["no gate rules"]] == ["skipped"]


def test_characters_that_xml_forbids_are_gone() -> None:
    result = make_result(campaigns=3)
    rules = [
        r.model_copy(update={"rule": "a\x00\x01\ufffe\ud800b ]]>", "sentence": "\x1f]]>"}) for r in result.gate.rules
    ]
    broken = result.model_copy(update={"gate": result.gate.model_copy(update={"rules": rules})})
    render_junit(broken).encode("utf-8")
    assert any(name.startswith("ab ]]>") for name in cases(broken))


def test_too_little_data_fails_where_the_scenario_says_so() -> None:
    result = make_result(campaigns=6)
    rules = [
        r.model_copy(update={"action": "fail"}) if r.status == "insufficient_data" else r for r in result.gate.rules
    ]
    strict = result.model_copy(update={"gate": result.gate.model_copy(update={"rules": rules})})
    assert cases(strict)[f"predictions add up | {MODEL} | ctr | campaign: 105"].find("failure") is not None
