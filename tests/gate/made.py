"""Results made by hand to judge: every number that a rule sees stands in the test."""

from __future__ import annotations

from typing import Any

from bidsim.gate import judge
from bidsim.result import (
    DataInfo,
    Difference,
    Estimate,
    Fidelity,
    Gate,
    Metric,
    PolicyInfo,
    Result,
    RuleOutcome,
)
from bidsim.scenario.schema import Rule

NEW, OLD = "v2", "baseline"


def metric(
    name: str,
    old: float | None,
    new: float | None,
    *,
    half: float | None = None,
    head: str | None = None,
    segment: dict[str, str] | None = None,
    policy: str = NEW,
) -> tuple[list[Metric], Difference]:
    """Both policies' values and their difference. half: half the width of every interval; None: no intervals."""
    place: dict[str, Any] = {"metric": name, "head": head, "segment": segment or {}}

    def estimate(value: float | None, scale: float = 1.0) -> dict[str, Any]:
        if value is None or half is None:
            return {"value": value, "low": None, "high": None}
        return {"value": value, "low": value - half * scale, "high": value + half * scale}

    change = None if old is None or new is None else new - old
    relative = change / old if change is not None and old else None
    values = [Metric(policy=OLD, **place, **estimate(old)), Metric(policy=policy, **place, **estimate(new))]
    return values, Difference(
        policy=policy,
        baseline=old,
        candidate=new,
        absolute=Estimate(**estimate(change)),
        relative=Estimate(**estimate(relative, 1 / abs(old) if old else 1.0)),
        **place,
    )


def result(
    *metrics: tuple[list[Metric], Difference],
    fidelity: bool | None = True,
    candidates: tuple[str, ...] = (NEW,),
    as_of: str = "2026-12-01",
) -> Result:
    roles: list[tuple[str, Any]] = [(OLD, "baseline"), *((name, "candidate") for name in candidates)]
    return Result(
        name="x",
        as_of=as_of,
        scenario={},
        policies=[PolicyInfo(name=n, role=r, model=None, sha256=None, formula="1", multiplier=1) for n, r in roles],
        data=DataInfo(rows=1, labelled={}, window=None, fingerprint="0"),
        metrics=[m for values, _ in metrics for m in values],
        differences=[difference for _, difference in metrics],
        calibration=[],
        frontier=[],
        diagnostics={},
        findings=[],
        fidelity=Fidelity(checked=fidelity is not None, passed=fidelity, mismatched_rows=3 if fidelity is False else 0),
        gate=Gate(verdict="no_gate"),
    )


def judged(given: Result, *rules: dict[str, Any], fidelity_warns: bool = False) -> Gate:
    return judge(given, [Rule.model_validate(r) for r in rules], fidelity_warns=fidelity_warns).gate


def one(given: Result, rule: dict[str, Any]) -> RuleOutcome:
    """The outcome of the only rule; what the gate looks for by itself has tests of its own."""
    (outcome,) = (o for o in judged(given, rule).rules if "built in" not in o.rule)
    return outcome
