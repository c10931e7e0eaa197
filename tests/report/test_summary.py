"""summary.md: the verdict first, names as text, never over 60 kB."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import MODEL, empty_result, make_result, null_result

from bidsim.report import render_summary
from bidsim.report.summary import MOST_BYTES, text
from bidsim.result import IdentifiedChange, Range, Result

GOLDEN = Path(__file__).parent / "golden"


def test_golden() -> None:
    """After a wanted change: python tests/report/update_golden.py"""
    assert render_summary(make_result()) == (GOLDEN / "summary.md").read_text("utf-8")


def test_the_verdict_comes_first() -> None:
    for verdict, words in (("pass", "PASS"), ("warn", "WARN"), ("fail", "FAIL"), ("no_gate", "NO GATE")):
        first = render_summary(make_result(campaigns=3, verdict=verdict)).splitlines()[0]
        assert words in first


@pytest.mark.parametrize("campaigns", [3, 12, 500])
def test_names_make_no_markup(campaigns: int) -> None:
    summary = render_summary(make_result(campaigns))
    tags = set(re.findall(r"<[^>]*>", summary))
    assert tags <= {"<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>", "<!-- -->"}
    assert not re.search(r"(?<!&)[@#](?!#|\d+;)\w", summary)
    assert "https://" not in summary
    assert "](" not in summary


def test_tables_keep_their_columns() -> None:
    block: list[int] = []
    for line in [*render_summary(make_result()).splitlines(), ""]:
        if line.startswith("|"):
            block.append(line.count("|"))
        else:
            assert len(set(block)) <= 1
            block = []


def test_a_change_is_told_with_what_the_log_leaves_open_of_it() -> None:
    given = make_result(3, 1, intervals=True)
    given = given.model_copy(update={"scenario": {**given.scenario, "intervals": {"confidence": 0.9}}})
    ends = IdentifiedChange(absolute=Range(low=-1, high=1), relative=Range(low=-0.333, high=None))
    changed = [
        d.model_copy(update={"identified": ends}) if d.metric == "conversions" and not d.segment else d
        for d in given.differences
    ]
    lines = render_summary(given.model_copy(update={"differences": changed})).splitlines()
    row = next(line for line in lines if line.startswith("| Conversions |"))
    assert re.search(r"\[.*\] \(identified: −33\.3% or more\) \|$", row)
    assert next(line for line in lines if line.startswith("| CPA |")).endswith("] (counted wins only) |")
    assert any(line.startswith("Brackets hold 90% intervals. Identified: what the change could be") for line in lines)


def many() -> Result:
    return make_result(500, 6, intervals=True)


@pytest.mark.parametrize("make", [many, empty_result, null_result])
def test_never_over_60_kb_and_whole(make: Callable[[], Result]) -> None:
    summary = render_summary(make())
    assert len(summary.encode()) <= MOST_BYTES
    assert summary.count("<details>") == summary.count("</details>")
    assert not re.search(r"\b(nan|inf|None)\b", summary)


def test_what_does_not_fit_is_left_out_whole_and_said() -> None:
    result = make_result()
    rules = [r.model_copy(update={"sentence": "長" * 600, "rule": "規" * 200}) for r in result.gate.rules] * 40
    findings = [x.model_copy(update={"message": "長" * 5000}) for x in result.findings] * 10
    policies = [p.model_copy(update={"formula": "<" * 9000, "model": "<" * 200}) for p in result.policies] * 12
    crowded = result.model_copy(
        update={"gate": result.gate.model_copy(update={"rules": rules}), "findings": findings, "policies": policies}
    )
    summary = render_summary(crowded)
    assert len(summary.encode()) <= MOST_BYTES
    assert "Cut at 60 kB" in summary
    assert summary.count("<details>") == summary.count("</details>")


def test_sentences_start_no_list_and_mention_nobody() -> None:
    assert text("1. first") == "1&#46; first"
    assert text("- x") == "&#45; x"
    assert text("@user #1 www.x.y https://x :tada:").count("<!-- -->") == 5
    assert MODEL not in text(MODEL)
