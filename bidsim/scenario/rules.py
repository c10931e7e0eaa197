"""Gate rules in a file of their own: a YAML list of rules, or a mapping with `gate`, such as a whole scenario.

With them a saved result is judged again without its log. Messages name file and line as a scenario's do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from bidsim.errors import ScenarioError
from bidsim.scenario.explaining import explain, nearest
from bidsim.scenario.loading import read_text
from bidsim.scenario.reading import Lines, line_of, read_yaml
from bidsim.scenario.schema import Block, Rule, Scenario


class GateFile(Block):
    """What of a rules file counts; the other keys of a scenario may stand beside it."""

    gate: list[Rule]
    fidelity: Literal["fail", "warn"] | None = None


@dataclass(frozen=True)
class Rules:
    """fidelity: as the file says, None where it says nothing."""

    rules: Sequence[Rule]
    fidelity: Literal["fail", "warn"] | None


def load_rules(path: str | Path) -> Rules:
    """Read a rules file. Raises ScenarioError with file and line."""
    document, lines = read_yaml(read_text(path, "rules"), str(path), list_as="gate")
    return _rules(document, str(path), lines)


def rules_of(scenario: Mapping[str, Any]) -> Rules:
    """The rules of a saved result's own scenario. Raises ScenarioError."""
    return _rules({"gate": [], **scenario}, "result.json", {})


def _rules(document: Mapping[str, Any], file: str, lines: Lines) -> Rules:
    for key in document:
        if key not in Scenario.model_fields and key != "remove_anormaly_cvr_cpns":
            hint = nearest(key, GateFile.model_fields)
            raise ScenarioError(f'unknown key "{key}"{hint}', file=file, line=line_of(lines, (key,)))
    if "gate" not in document:
        raise ScenarioError("has no gate: a rules file is a list of rules, or a mapping with gate", file=file)
    content = {key: document[key] for key in GateFile.model_fields if key in document}
    try:
        found = GateFile.model_validate(content)
    except ValidationError as error:
        problems = [
            ScenarioError(message, file=file, line=line_of(lines, path) or (1 if lines else None))
            for path, message in explain(error, content, GateFile)
        ]
        text = "\n".join([problems[0].message, *(str(other) for other in problems[1:])])
        raise ScenarioError(text, file=file, line=problems[0].line) from None
    return Rules(found.gate, found.fidelity)
