"""Runs made by hand for the store: small results with known numbers, written as the replay writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bidsim.result import DataInfo, Difference, Estimate, Fidelity, Gate, Metric, PolicyInfo, Result
from bidsim.store.record import SCHEMA, make_record
from bidsim.store.runs import write_run

Change = tuple[float, float, float]
BASE = {"cpa": 100.0, "spend": 1000.0, "conversions": 10.0, "auc": 0.7, "calibration": 1.0, "logloss": 0.5}
HEADS = {"auc": "ctr", "calibration": "ctr", "logloss": "ctr"}


def make(
    candidates: Mapping[str, Mapping[str, float | Change]],
    *,
    data: str = "d1",
    scenario: Mapping[str, Any] | None = None,
    verdict: str = "pass",
    sha256: str | None = None,
) -> Result:
    """candidates: name -> metric -> the candidate's value, or (value, low, high)."""
    old, metrics, changes = "prod", [], []
    used = dict.fromkeys(m for values in candidates.values() for m in values)
    metrics += [Metric(policy=old, metric=m, head=HEADS.get(m), segment={}, value=BASE[m]) for m in used]
    for name, values in candidates.items():
        for m, given in values.items():
            value, low, high = given if isinstance(given, tuple) else (given, None, None)
            metrics.append(
                Metric(policy=name, metric=m, head=HEADS.get(m), segment={}, value=value, low=low, high=high)
            )
            ends = [None if v is None else v - BASE[m] for v in (value, low, high)]
            relative = [None if v is None else v / BASE[m] for v in ends]
            changes.append(
                Difference(
                    policy=name, metric=m, head=HEADS.get(m), segment={}, baseline=BASE[m], candidate=value,
                    absolute=Estimate(value=ends[0], low=ends[1], high=ends[2]),
                    relative=Estimate(value=relative[0], low=relative[1], high=relative[2]),
                )
            )  # fmt: skip
    roles: list[tuple[str, Any]] = [(old, "baseline"), *((n, "candidate") for n in candidates)]
    return Result(
        name="weekly",
        as_of="2026-11-20",
        scenario={"currency": "JPY", **(scenario or {})},
        policies=[
            PolicyInfo(
                name=n, role=r, model=f"{n}.bin", sha256=sha256 if sha256 and r == "candidate" else f"sha of {n}",
                formula="1", multiplier=1,
            )
            for n, r in roles
        ],
        data=DataInfo(rows=10, labelled={}, window=None, fingerprint=data),
        metrics=metrics,
        differences=changes,
        calibration=[],
        frontier=[],
        diagnostics={},
        findings=[],
        fidelity=Fidelity(checked=False, passed=None),
        gate=Gate.model_validate({"verdict": verdict, "reason": "made by hand"}),
    )  # fmt: skip


def run_files(result: Result, started: str = "2026-11-20T10:00:00+00:00") -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {"result.json": result.to_json()}
    record = make_record(result, "0" * 64, files)
    facts = {"schema": SCHEMA, "started": started, "record": record.model_dump()}
    return {**files, "run.json": json.dumps(facts)}


def store(folder: Path, result: Result, started: str = "2026-11-20T10:00:00+00:00") -> Path:
    write_run(folder, run_files(result, started))
    return folder
