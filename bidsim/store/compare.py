"""Two runs side by side: what differs in what they were made of, and, where they may be compared, their numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bidsim.errors import BidsimError
from bidsim.result import Difference, Estimate, Result, RuleOutcome
from bidsim.store.reading import SavedRun
from bidsim.store.record import NOT_COMPARED, make_record


@dataclass(frozen=True)
class Side:
    """A candidate's number in one run, and its change against that run's baseline."""

    value: float | None
    relative: Estimate
    absolute: Estimate


@dataclass(frozen=True)
class Compared:
    """A metric of both runs' candidates."""

    metric: str
    head: str | None
    beta: float | None
    baseline: float | None
    first: Side | None
    second: Side | None


@dataclass(frozen=True)
class Comparison:
    """names: of the runs; policies: the candidates compared; changed: what differs in how the runs were made.

    rules: (rule, where, outcome in the first run, in the second) where these differ.
    """

    names: tuple[str, str]
    policies: tuple[str, str]
    verdicts: tuple[str, str]
    currency: str | None
    changed: list[tuple[str, str, str]]
    metrics: list[Compared]
    rules: list[tuple[str, str, str, str]]

    def to_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {"schema": "bidsim.comparison/1", "runs": list(self.names)}
        data |= {"policies": list(self.policies), "verdicts": list(self.verdicts), "currency": self.currency}
        data["changed"] = [dict(zip(("what", "first", "second"), row, strict=True)) for row in self.changed]
        data["metrics"] = [asdict(m) | {"first": _side(m.first), "second": _side(m.second)} for m in self.metrics]
        data["rules"] = [dict(zip(("rule", "where", "first", "second"), row, strict=True)) for row in self.rules]
        return data


def _side(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {"value": side.value, "relative": side.relative.model_dump(), "absolute": side.absolute.model_dump()}


def compare(first: SavedRun, second: SavedRun, policies: tuple[str | None, str | None] = (None, None)) -> Comparison:
    """Compare a candidate of each run; by default the one that both have, or the first of each.

    Raises BidsimError where the runs were made on other data, with another replay or against another baseline, since
    their numbers then say nothing about each other.
    """
    a, b = first.result, second.result
    _check_comparable(first, second)
    shared = [name for name in a.candidates if name in b.candidates]
    default = (shared[0], shared[0]) if shared else (next(iter(a.candidates), None), next(iter(b.candidates), None))
    names = (policies[0] or default[0], policies[1] or default[1])
    chosen = (_candidate(first, names[0]), _candidate(second, names[1]))
    sides = (_sides(a, chosen[0]), _sides(b, chosen[1]))
    metrics = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        (base_a, one), (base_b, two) = (s.get(key, (None, None)) for s in sides)
        metrics.append(Compared(*key, base_a if base_a is not None else base_b, one, two))
    currency = a.scenario.get("currency")
    return Comparison(
        names=(first.name, second.name),
        policies=chosen,
        verdicts=(a.gate.verdict, b.gate.verdict),
        currency=currency if isinstance(currency, str) else None,
        changed=_changed(first, second, chosen),
        metrics=metrics,
        rules=_rules(a, b, chosen),
    )


def _check_comparable(first: SavedRun, second: SavedRun) -> None:
    a, b = first.result, second.result
    if make_record(a, "", {}).comparison == make_record(b, "", {}).comparison:
        return
    if a.data.fingerprint != b.data.fingerprint:
        why = f"other data (fingerprints {a.data.fingerprint[:12]} and {b.data.fingerprint[:12]})"
    else:
        keys = [k for k in dict.fromkeys([*a.scenario, *b.scenario]) if a.scenario.get(k) != b.scenario.get(k)]
        keys = [k for k in keys if k not in NOT_COMPARED]
        why = f"another replay (the scenarios differ in {', '.join(keys)})" if keys else "another baseline"
    raise BidsimError(f"{first.name} and {second.name} can't be compared: they were made with {why}")


def _candidate(run: SavedRun, name: str | None) -> str:
    if name is None:
        raise BidsimError("the run has no candidate to compare", file=str(run.file))
    if name not in run.result.candidates:
        known = ", ".join(run.result.candidates)[:200]
        raise BidsimError(f'the run has no candidate "{name[:80]}"; it has {known}', file=str(run.file))
    return name


def _sides(result: Result, policy: str) -> dict[tuple[str, str | None, float | None], tuple[float | None, Side]]:
    changes: dict[tuple[str, str | None, float | None], Difference] = {
        (d.metric, d.head, d.beta): d for d in result.differences if d.policy == policy and not d.segment
    }
    none = Estimate(value=None)
    found = {}
    for m in result.metrics:
        if m.policy == policy and not m.segment:
            key = (m.metric, m.head, m.beta)
            change = changes.get(key)
            side = Side(m.value, change.relative, change.absolute) if change else Side(m.value, none, none)
            found[key] = (change.baseline if change else None, side)
    return found


def _changed(first: SavedRun, second: SavedRun, policies: tuple[str, str]) -> list[tuple[str, str, str]]:
    a, b = first.result, second.result
    of = [next(p for p in r.policies if p.name == n) for r, n in ((a, policies[0]), (b, policies[1]))]
    facts: list[tuple[str, Any, Any]] = [
        ("candidate", of[0].name, of[1].name),
        ("model", of[0].model, of[1].model),
        ("model sha256", of[0].sha256, of[1].sha256),
        ("bid formula", of[0].formula, of[1].formula),
        ("bid multiplier", of[0].multiplier, of[1].multiplier),
        ("judged as of", a.as_of, b.as_of),
    ]
    facts += [
        (f"scenario: {k}", a.scenario.get(k), b.scenario.get(k)) for k in dict.fromkeys([*a.scenario, *b.scenario])
    ]
    versions = [run.facts.get("versions") for run in (first, second)]
    mine, theirs = (v if isinstance(v, dict) else {} for v in versions)
    facts += [(f"version of {k}", mine.get(k), theirs.get(k)) for k in dict.fromkeys([*mine, *theirs])]
    return [(what, _short(x), _short(y)) for what, x, y in facts if x != y]


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _rules(a: Result, b: Result, policies: tuple[str, str]) -> list[tuple[str, str, str, str]]:
    mine, theirs = _outcomes(a, policies[0]), _outcomes(b, policies[1])
    rows = []
    for key in dict.fromkeys([*mine, *theirs]):
        said = [_said(side.get(key)) for side in (mine, theirs)]
        if said[0] != said[1]:
            where = ", ".join(f"{name} {value}" for name, value in key[3]) or "all"
            rows.append((key[0], where, said[0], said[1]))
    return rows


def _outcomes(
    result: Result, policy: str
) -> dict[tuple[str, str, str | None, tuple[tuple[str, str], ...]], RuleOutcome]:
    return {(o.rule, o.metric, o.head, tuple(o.segment.items())): o for o in result.gate.rules if o.policy == policy}


def _said(outcome: RuleOutcome | None) -> str:
    if outcome is None:
        return "not judged"
    return "waived" if outcome.waived else outcome.status
