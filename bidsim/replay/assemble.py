"""The result of one replay from what it reduced to: numbers, curves, diagnostics, findings, what was judged.

Nothing here sees a row of the log.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import date
from typing import Any

from bidsim.errors import ModelError
from bidsim.replay.census import FOR_READING
from bidsim.replay.findings import absent, drifted, find_all, unmatched
from bidsim.replay.levels import Frontier
from bidsim.replay.measures import AMOUNT_BITS, COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.result import DataInfo, Fidelity, FrontierPoint, Gate, PolicyInfo, Result, Window
from bidsim.scenario.loading import LoadedScenario
from bidsim.statistics.numbers import numbers_of
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import OVERALL, Family


@dataclass(frozen=True)
class Reduced:
    """All that one replay leaves."""

    plan: Plan
    census: dict[str, int]
    tables: Tables
    frontier: Frontier
    fidelity: Fidelity
    removed: list[tuple[str, int, int]] | None


def assemble(loaded: LoadedScenario, reduced: Reduced, as_of: date) -> Result:
    """The result without its gate, which is judged on it. Raises ModelError for a file of predictions of other rows."""
    plan = reduced.plan
    _check_keys(plan, reduced.tables.families[OVERALL])
    given, campaigns = loaded.scenario.intervals, reduced.tables.outline.campaigns
    numbers = numbers_of(reduced.tables, given.confidence if given else 0.95)
    return Result(
        name=loaded.name,
        as_of=as_of.isoformat(),
        scenario=loaded.document,
        policies=[
            PolicyInfo(
                name=p.name,
                role=p.role,
                model=p.model_file,
                sha256=p.sha256,
                columns=p.column_names,
                formula=p.formula_text,
                multiplier=p.multiplier,
                borrowed_heads=list(p.borrowed_heads),
            )
            for p in plan.policies
        ],
        data=_data(loaded, reduced),
        metrics=numbers.metrics,
        differences=numbers.differences,
        calibration=numbers.calibration,
        split=numbers.split,
        frontier=_frontier(plan, reduced.frontier),
        diagnostics=_diagnostics(reduced) | numbers.diagnostics,
        findings=[
            *find_all(plan, reduced.census, reduced.tables.families[OVERALL], reduced.removed),
            *drifted(reduced.fidelity.formula_drift),
            *unmatched(numbers.metrics),
            *absent(plan, None if campaigns is None else reduced.tables.families[campaigns]),
        ],
        fidelity=reduced.fidelity,
        gate=Gate(verdict="no_gate"),
    )


def _check_keys(plan: Plan, overall: Family) -> None:
    """A file of predictions of none of the rows is another log's: nothing can be said of its policy."""
    for policy in plan.policies:
        if policy.scorer is None or policy.bundle is not None:
            continue
        if overall.get("invalid_predictions", policy.index)[0] >= overall.get("weight")[0] > 0:
            raise ModelError(
                f'none of its keys is that of a row of the log (column "{policy.scorer.features[0]}"); '
                "check that it was made for this log and window, and writes the key as the log does",
                file=policy.model_path,
            )


def _data(loaded: LoadedScenario, reduced: Reduced) -> DataInfo:
    plan, overall = reduced.plan, reduced.tables.families[OVERALL]
    window = loaded.wall_window() if plan.time_kind == "wall" else loaded.window()
    if window and plan.time_kind == "wall":
        window = (window[0].replace(tzinfo=loaded.zone), window[1].replace(tzinfo=loaded.zone))
    name = reduced.tables.outline.campaigns
    return DataInfo(
        rows=reduced.census["rows"],
        labelled={h: overall.exact("labelled_rows", None, h)[0] for h in plan.heads},
        window=Window(
            start=window[0].astimezone(loaded.zone).isoformat(), end=window[1].astimezone(loaded.zone).isoformat()
        )
        if window
        else None,
        fingerprint=_fingerprint(reduced),
        campaigns=len(reduced.tables.families[name].values) if name else None,
        units=reduced.tables.outline.units if plan.unit != "row" else None,
        clicks=_null(overall.get("log_clicks")[0]),
        conversions=_null(overall.get("log_conversions")[0]),
        campaign_names=plan.campaigns.names if plan.campaigns else {},
    )


def _fingerprint(reduced: Reduced) -> str:
    """sha256 over the log's exact totals, overall and by campaign, and the campaign table: the same however the rows lie
    in files, and whatever heads and segments a scenario looks at.

    It tells data apart for bookkeeping; two logs made to have equal totals everywhere have equal fingerprints.
    """
    totals: list[Any] = [sorted((k, v) for k, v in reduced.census.items() if k not in FOR_READING)]
    campaigns = reduced.tables.outline.campaigns
    for name in (OVERALL, *([campaigns] if campaigns is not None else [])):
        family = reduced.tables.families[name]
        keys = sorted((k for k in family.sums if k[1] is None and k[2] is None), key=str)
        totals.append([family.values, [[str(k), [str(v) for v in family.sums[k]]] for k in keys]])
    if reduced.plan.campaigns is not None:
        totals.append(["campaigns", reduced.plan.campaigns.digest])
    return hashlib.sha256(json.dumps(totals, ensure_ascii=True).encode()).hexdigest()


def _frontier(plan: Plan, frontier: Frontier) -> list[FrontierPoint]:
    count = 2**COUNT_BITS if plan.weighted else 1
    return [
        FrontierPoint(
            policy=policy.name,
            multiplier=at,
            spend=totals.spend / MONEY_SCALE,
            clicks=totals.clicks / count if plan.has("click") else None,
            conversions=totals.conversions / 2**AMOUNT_BITS if plan.has("conversion") else None,
        )
        for policy in plan.policies
        for at, totals in frontier.get(policy.index, [])
    ]


def _diagnostics(reduced: Reduced) -> dict[str, Any]:
    plan, overall = reduced.plan, reduced.tables.families[OVERALL]
    names = ("coverage", "unknown_wins", "unknown_outcomes", "invalid_predictions")
    policies = {}
    for p in plan.policies:
        spend = overall.observed("spend", p.index)[0]
        decided = spend + overall.get("unobserved_spend", p.index)[0]
        values = {n: float(overall.get(n, p.index)[0]) for n in names[1:]}
        clipped = sum(float(overall.get("clipped_predictions", p.index, h)[0]) for h in plan.heads)
        policies[p.name] = {
            "coverage": spend / decided if decided else None,
            **values,
            "clipped_predictions": clipped,
        }
    return {
        "invalid_weights": reduced.census["invalid_weights"],
        "invalid_prices": reduced.census["invalid_prices"],
        "invalid_labels": reduced.census["invalid_clicks"] + reduced.census["invalid_conversions"],
        "undecidable": float(overall.get("undecidable")[0]),
        "formula_drift": reduced.fidelity.formula_drift,
        "policies": policies,
    }


def _null(value: float) -> float | None:
    return None if not math.isfinite(value) else float(value)
