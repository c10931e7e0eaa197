"""What the data check looks for, by numbers that stay: the words of each check, and what one found.

A check that found nothing is `ok`, one that the log has no columns for is `skipped` and says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bidsim.result import Finding

Severity = Literal["info", "warning", "error"]

CHECKS: Mapping[str, str] = {
    "C01": "missing hours",
    "C02": "duplicate rows",
    "C03": "join fan-out",
    "C04": "order of events",
    "C05": "price not below bid",
    "C06": "units of money",
    "C07": "down-sampled rows",
    "C08": "immature conversions",
    "C09": "training days in the evaluation window",
    "C10": "categories unseen in training",
    "C11": "one campaign dominates",
    "C12": "too few units or conversions",
    "C13": "rows without labels",
    "C14": "throttled traffic",
    "C15": "skew of predictions",
    "C16": "skew of bids",
}
# Those that a replay runs too.
QUICK = ("C01", "C05", "C06", "C07", "C09", "C11", "C12", "C13")


@dataclass(frozen=True)
class Outcome:
    """What one check came to. evidence and fix are sentences; facts: the numbers behind them, for programs."""

    code: str
    status: Literal["found", "ok", "skipped"]
    severity: Severity | None = None
    evidence: str = ""
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return CHECKS[self.code]

    def finding(self) -> Finding:
        """The same for the result of a replay."""
        message = f"{self.name[:1].upper()}{self.name[1:]}: {self.evidence} {self.fix}"
        return Finding(code=self.code, severity=self.severity or "info", message=message)

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "name": self.name,
            "status": self.status,
            "severity": self.severity,
            "evidence": self.evidence,
            "fix": self.fix,
            "facts": dict(self.facts),
        }


def found(code: str, severity: Severity, evidence: str, fix: str, **facts: Any) -> Outcome:
    return Outcome(code, "found", severity, evidence, fix, facts)


def ok(code: str, **facts: Any) -> Outcome:
    return Outcome(code, "ok", facts=facts)


def skipped(code: str, why: str) -> Outcome:
    return Outcome(code, "skipped", evidence=why)


@dataclass(frozen=True)
class Report:
    """All checks of one log, in the order of their codes."""

    scenario: str
    rows: int
    outcomes: Sequence[Outcome]

    @property
    def failed(self) -> bool:
        return any(o.severity == "error" for o in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": "bidsim.check/1",
            "scenario": self.scenario,
            "rows": self.rows,
            "checks": [o.as_dict() for o in self.outcomes],
        }

    def text(self) -> str:
        """One line a check, those that found something first and with what to do."""
        lines = []
        for o in sorted((o for o in self.outcomes if o.status == "found"), key=lambda o: RANK[o.severity or "info"]):
            lines += [f"{o.code} {o.severity}: {o.name}", f"    {o.evidence}", f"    {o.fix}"]
        for status, words in (("ok", "nothing found"), ("skipped", "not checked")):
            for o in self.outcomes:
                if o.status == status:
                    lines.append(f"{o.code} {words}: {o.name}{': ' + o.evidence if o.evidence else ''}")
        counts = {s: sum(o.severity == s for o in self.outcomes) for s in ("error", "warning")}
        lines.append(
            f"{self.rows:,} rows: {counts['error']} error{'s' * (counts['error'] != 1)}, "
            f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}"
        )
        return "\n".join(lines)


RANK: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}
