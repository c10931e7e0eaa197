"""The gate as GitHub Actions annotations: workflow commands that show failures and warnings on the pull request.

GitHub shows ten of a kind for a step, so the most severe come first and the rest are counted. Names are data: line
ends, percent signs and the marks of a command are escaped, so no name can give the runner a command.
"""

from __future__ import annotations

from collections.abc import Iterator

from bidsim.report import format as f
from bidsim.report.view import outcome_action
from bidsim.result import Result, RuleOutcome

MOST = 10


def render_annotations(result: Result) -> list[str]:
    """One workflow command a line: the verdict, then what fails and what warns."""
    verdict = result.gate.verdict
    kind = {"fail": "error", "warn": "warning"}.get(verdict, "notice")
    said = f"{verdict.upper().replace('_', ' ')}: {result.gate.reason}"
    lines = [_command(kind, f"bidsim: {result.name}", said)]
    for action, kind in (("fail", "error"), ("warn", "warning")):
        found = [o for o in result.gate.rules if outcome_action(o) == action]
        lines += _some(kind, found)
    return lines


def _some(kind: str, outcomes: list[RuleOutcome]) -> Iterator[str]:
    room = MOST - 1  # the verdict may be of the same kind
    shown = outcomes if len(outcomes) <= room else outcomes[: room - 1]
    for o in shown:
        yield _command(kind, f"bidsim: {o.rule}", o.sentence)
    if len(shown) < len(outcomes):
        yield _command(kind, "bidsim", f"{len(outcomes) - len(shown)} more; report.html has all")


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(f.clean_name(title, 120))}::{_data(f.clean_text(message))}"


def _data(text: str) -> str:
    # "##[" begins a command of the older form wherever it stands in a line.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace("##[", "# #[")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
