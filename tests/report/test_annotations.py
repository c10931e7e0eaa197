"""GitHub Actions annotations: one command a line, ten of a kind at most, no name gives the runner a command."""

from __future__ import annotations

import re

from fixtures import make_result

from bidsim.report.annotations import MOST, render_annotations
from bidsim.result import Result

COMMAND = re.compile(r"::(error|warning|notice) title=[^:,\r\n]*::[^\r\n]+")


def test_the_verdict_comes_first_then_failures_then_warnings() -> None:
    lines = render_annotations(make_result())
    assert all(COMMAND.fullmatch(line) for line in lines)
    kinds = [line.split()[0].strip(":") for line in lines]
    assert lines[0].startswith(
        "::error title=bidsim%3A weekly-gate <i>2026-W46</i>::FAIL%3A".replace("FAIL%3A", "FAIL:")
    )
    assert kinds == sorted(kinds)  # error before warning
    assert not any("waived" in line or "title=bidsim%3A ignored" in line for line in lines)


def test_verdicts_without_a_failure_are_warnings_or_notices() -> None:
    for verdict, kind in (("warn", "warning"), ("pass", "notice"), ("no_gate", "notice")):
        assert render_annotations(make_result(verdict=verdict))[0].startswith(f"::{kind} ")


def test_no_more_than_github_shows_and_the_rest_is_counted() -> None:
    result = make_result(500)
    rules = [r.model_copy(update={"action": "fail", "waived": False}) for r in result.gate.rules]
    lines = render_annotations(result.model_copy(update={"gate": result.gate.model_copy(update={"rules": rules})}))
    assert len(lines) == MOST
    assert lines[-1] == f"::error title=bidsim::{len(rules) - MOST + 2} more; report.html has all"


def test_names_cannot_make_commands() -> None:
    result = make_result(campaigns=3)
    evil = "x\n::set-env name=PATH::y\r##[add-mask]z %0A::error::w"

    def spoil(given: Result) -> Result:
        rules = [r.model_copy(update={"rule": evil, "sentence": evil}) for r in given.gate.rules]
        gate = given.gate.model_copy(update={"rules": rules, "reason": evil})
        return given.model_copy(update={"gate": gate, "name": evil})

    for line in render_annotations(spoil(result)):
        assert COMMAND.fullmatch(line), line
        assert "##[" not in line
        assert "%0A" not in line.replace("%250A", "")
