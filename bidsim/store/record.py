"""What a run's run.json keeps for the leaderboard: what was judged on which data, and the overall numbers.

A record is made of the result alone (and the scenario's text), so a leaderboard reads a few kilobytes a run instead of
every segment, and any row of it can be traced to the models, the scenario and the data that it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bidsim.result import Difference, Estimate, Metric, PolicyInfo, Result

SCHEMA: Literal["bidsim.run/1"] = "bidsim.run/1"
# What a scenario may change without making its numbers incomparable: who is judged and how, not what is replayed.
NOT_COMPARED = ("name", "candidates", "gate", "fidelity")


class Kept(BaseModel):
    """Later versions may keep more: unknown keys are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PolicyRecord(Kept):
    name: str
    model: str | None
    sha256: str | None = Field(description="of the model file")
    identity: str = Field(description="sha256 over predictions and bid, whatever the policy is called")


class ForecastRecord(Kept):
    """One overall number of a candidate beside the baseline's."""

    policy: str
    metric: str
    head: str | None
    beta: float | None
    baseline: float | None
    candidate: float | None
    absolute: Estimate
    relative: Estimate


class Record(Kept):
    name: str
    as_of: str
    fingerprint: str = Field(description="of the data")
    scenario_sha256: str = Field(description="of the scenario's content, comments and layout apart")
    comparison: str = Field(description="equal where runs may be compared: same data, replay and baseline")
    currency: str | None
    indicator: str | None
    rows: int
    baseline: PolicyRecord
    candidates: list[PolicyRecord]
    verdict: Literal["pass", "warn", "fail", "no_gate"]
    reason: str
    forecasts: list[ForecastRecord]
    files: dict[str, str] = Field(description="sha256 of the files that the run was made from or says most in")


class Judged(Kept):
    """How many candidates had been judged on the same data when the run was written, these included."""

    candidates: int
    runs: int


class RunFile(Kept):
    """run.json."""

    schema_: Literal["bidsim.run/1"] = Field(alias="schema")
    started: str
    record: Record
    judged: Judged | None = None


def make_record(result: Result, scenario_sha256: str, files: dict[str, str | bytes]) -> Record:
    """The record of a result. files: name -> content, of which the hashes are kept."""
    baseline = next(p for p in result.policies if p.role == "baseline")
    metrics = {(m.policy, m.metric, m.head, m.beta): m for m in result.metrics if not m.segment}
    changes = {(d.policy, d.metric, d.head, d.beta): d for d in result.differences if not d.segment}
    currency = result.scenario.get("currency")
    indicator = result.scenario.get("performance_indicator_type")
    return Record(
        name=result.name,
        as_of=result.as_of,
        fingerprint=result.data.fingerprint,
        scenario_sha256=scenario_sha256,
        comparison=_comparison(result, baseline),
        currency=currency if isinstance(currency, str) else None,
        indicator=indicator if indicator in ("cpa", "cpc") else None,
        rows=result.data.rows,
        baseline=_policy(result, baseline),
        candidates=[_policy(result, p) for p in result.policies if p.role == "candidate"],
        verdict=result.gate.verdict,
        reason=result.gate.reason,
        forecasts=[_forecast(m, changes.get(key)) for key, m in metrics.items() if m.policy != baseline.name],
        files={name: _digest(content) for name, content in sorted(files.items())},
    )


def _forecast(metric: Metric, change: Difference | None) -> ForecastRecord:
    none = Estimate(value=None)
    return ForecastRecord(
        policy=metric.policy,
        metric=metric.metric,
        head=metric.head,
        beta=metric.beta,
        baseline=change.baseline if change else None,
        candidate=metric.value,
        absolute=change.absolute if change else none,
        relative=change.relative if change else none,
    )


def _policy(result: Result, policy: PolicyInfo) -> PolicyRecord:
    return PolicyRecord(
        name=policy.name, model=policy.model, sha256=policy.sha256, identity=policy_identity(result, policy)
    )


def policy_identity(result: Result, policy: PolicyInfo) -> str:
    """sha256 over what a policy predicts and bids; logged predictions are told apart by how well they predict too."""
    given: Any = result.scenario.get("candidates" if policy.role == "candidate" else "baseline") or {}
    block = given.get(policy.name) if policy.role == "candidate" and isinstance(given, dict) else given
    bid = block.get("bid") if isinstance(block, dict) else None
    losses = [
        [m.head, m.value]
        for m in result.metrics
        if m.policy == policy.name and m.metric == "logloss" and not m.segment and policy.sha256 is None
    ]
    return _hash([policy.sha256, policy.columns, policy.formula, policy.multiplier, policy.borrowed_heads, bid, losses])


def _comparison(result: Result, baseline: PolicyInfo) -> str:
    replayed = {k: v for k, v in result.scenario.items() if k not in NOT_COMPARED and k != "baseline"}
    tables = replayed.get("logs_tables")
    if isinstance(tables, dict):
        # Where the log and the campaign table lie is no part of what they are: the fingerprint tells data apart.
        elsewhere = ("path", "format", "version", "snapshot")
        replayed["logs_tables"] = {
            name: {k: v for k, v in (table or {}).items() if k not in elsewhere} for name, table in tables.items()
        }
    if replayed.get("campaigns") is not None:
        replayed["campaigns"] = True
    return _hash([result.data.fingerprint, replayed, policy_identity(result, baseline)])


def count_judged(record: Record, others: Iterable[Record]) -> Judged:
    """How many different candidates have been judged on the record's data, with those of other runs."""
    same = [record, *(r for r in others if r.fingerprint == record.fingerprint)]
    return Judged(candidates=len({c.identity for r in same for c in r.candidates}), runs=len(same))


def _hash(content: Any) -> str:
    return _digest(json.dumps(content, sort_keys=True, ensure_ascii=True, default=str))


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
