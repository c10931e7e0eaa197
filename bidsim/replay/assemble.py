"""From the reduced tables to the result: metrics by policy and segment, differences, curves, diagnostics.

Nothing here sees a row of the log. The order of records is fixed: policies as given, families as in the scenario,
metrics as computed, segment values as the log orders them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.replay.findings import find_all
from bidsim.replay.levels import Frontier, OtherLevels
from bidsim.replay.measures import AMOUNT_BITS, COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.replay.policies import PolicyPlan
from bidsim.replay.reduce import Tables
from bidsim.result import (
    CalibrationBin,
    CalibrationCurve,
    DataInfo,
    Difference,
    Estimate,
    Fidelity,
    FrontierPoint,
    Gate,
    Metric,
    PolicyInfo,
    Range,
    Result,
    SplitPart,
    Window,
)
from bidsim.scenario.loading import LoadedScenario
from bidsim.statistics.bands import bands, no_bands
from bidsim.statistics.calibration import Bins
from bidsim.statistics.intervals import Bounds, Sample, bucket_weights, interval, total_of
from bidsim.statistics.metrics import (
    EXACT_WITHOUT_UNKNOWNS,
    AtLevel,
    Matched,
    Values,
    campaign_auc,
    differences,
    economic_values,
    head_values,
    matched_values,
    target_attainment,
)
from bidsim.statistics.split import split, stage_of
from bidsim.statistics.tallies import OVERALL, Family
from bidsim.statistics.units import BUCKETS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reduced:
    """All small tables of one replay."""

    plan: Plan
    census: dict[str, int]
    tables: Tables
    levels: OtherLevels
    fidelity: Fidelity
    removed: list[tuple[str, int, int]] | None


@dataclass(frozen=True)
class _Cut:
    """Everything computed for one policy in one family."""

    values: Values
    bins: dict[str, list[Bins]]


def assemble(loaded: LoadedScenario, reduced: Reduced, as_of: date) -> Result:
    """The result without its gate, which is judged on it."""
    plan, families = reduced.plan, reduced.tables.families
    shown = [OVERALL, *(s.name for s in plan.segments if s.shown)]
    cuts = {
        (p.index, name): _cut(reduced, p.index, name)
        for p in plan.policies
        for name in dict.fromkeys([*shown, *families])
    }
    _over_campaigns(reduced, cuts)
    samples = {name: _sample(loaded, reduced, name) for name in shown}
    metrics: list[Metric] = []
    changes: list[Difference] = []
    curves: list[CalibrationCurve] = []
    for policy in plan.policies:
        for name in shown:
            cut, family = cuts[(policy.index, name)], families[name]
            metrics += _metrics(policy.name, policy.index, family, cut.values, samples[name])
            curves += _curves(reduced, policy, family, cut.bins, samples[name])
            if policy.index > 0:
                changes += _differences(policy.name, family, cuts[(0, name)].values, cut.values, samples[name])
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
        metrics=metrics,
        differences=changes,
        calibration=curves,
        split=list(_split(reduced, samples[OVERALL])),
        frontier=_frontier(plan, reduced.levels.frontier),
        diagnostics=_diagnostics(reduced),
        findings=list(find_all(plan, reduced.census, families[OVERALL], reduced.removed)),
        fidelity=reduced.fidelity,
        gate=Gate(verdict="no_gate"),
    )


def _cut(reduced: Reduced, policy: int, name: str) -> _Cut:
    plan, family = reduced.plan, reduced.tables.families[name]
    has_click, has_conversion = plan.has("click"), plan.has("conversion")
    values = economic_values(family, policy, has_click=has_click, has_conversion=has_conversion)
    matched = reduced.levels.matched.get((policy, name))
    if policy == 0:
        # The baseline at its own spend is the baseline.
        matched = _own_level(family)
    if matched is not None:
        values |= matched_values(matched, family, has_click=has_click, has_conversion=has_conversion)
    for beta in reduced.tables.betas:
        key = ("expected_utility", policy, repr(beta))
        values[("expected_utility", None, beta)] = total_of(family.by_bucket(*key), family.get(*key), signed=True)
    bins: dict[str, list[Bins]] = {}
    for head in plan.heads:
        ranked = reduced.tables.ranked[(head, plan.source_of(policy, head), name)]
        more, bins[head] = head_values(
            family, policy, head, ranked, bucket_weights(BUCKETS) if name == OVERALL else None
        )
        values |= more
    return _Cut(values, bins)


def _own_level(family: Family) -> Matched:
    spend, clicks, conversions = (family.get(n, 0) for n in ("spend", "clicks", "conversions"))
    own = [family.by_bucket(n, 0) for n in ("spend", "clicks", "conversions")]
    still = np.zeros(len(family.values))
    return Matched(
        np.ones(len(family.values)), spend, clicks, conversions, AtLevel(own[0], own[1], own[2], still, still, still)
    )


def _sample(loaded: LoadedScenario, reduced: Reduced, name: str) -> Sample:
    given = loaded.scenario.intervals
    rows = reduced.tables.families[name].by_bucket("rows")
    return Sample(given.confidence if given else 0.95, rows, reduced.tables.units)


def _over_campaigns(reduced: Reduced, cuts: dict[tuple[int, str], _Cut]) -> None:
    """gauc and target_attainment are means over campaigns: given overall, and for each campaign itself."""
    plan = reduced.plan
    place = plan.campaign_segment
    name = None if place is None else plan.segments[place].name
    for policy in plan.policies:
        campaigns = reduced.tables.families[name or OVERALL]
        whole, each = cuts[(policy.index, OVERALL)], cuts[(policy.index, name or OVERALL)]
        if campaigns.has("value", policy.index):
            rates, mean = target_attainment(campaigns, policy.index)
            if name:
                each.values[("target_attainment", None, None)] = rates
            whole.values[("target_attainment", None, None)] = mean
        for head in plan.heads:
            aucs = each.values[("auc", head, None)]
            if name:
                each.values[("gauc", head, None)] = aucs
            whole.values[("gauc", head, None)] = campaign_auc(campaigns, policy.index, head, aucs)


def _null(value: float) -> float | None:
    return None if not math.isfinite(value) else float(value)


def _segment(family: Family, code: int) -> dict[str, str]:
    return {} if family.name == OVERALL else {family.name: family.values[code]}


# Tens of thousands of records of plain floats and texts: they are built without validation, which tests make up for.
def _metrics(policy: str, index: int, family: Family, values: Values, sample: Sample) -> Iterator[Metric]:
    unknown = family.get("unknown_wins", index) + family.get("unknown_outcomes", index)
    for (metric, head, beta), measured in values.items():
        array, (low, high) = measured.value, interval(measured, sample)
        exact = head is None and metric in EXACT_WITHOUT_UNKNOWNS
        for code in range(len(family.values)):
            value = _null(array[code])
            sure = exact and unknown[code] == 0 and value is not None
            yield Metric.model_construct(
                policy=policy,
                metric=metric,
                head=head,
                segment=_segment(family, code),
                value=value,
                low=_null(low[code]),
                high=_null(high[code]),
                identified=Range.model_construct(low=value, high=value) if sure else None,
                beta=beta,
            )


def _estimate(value: Floats, bounds: Bounds, code: int) -> Estimate:
    return Estimate.model_construct(value=_null(value[code]), low=_null(bounds[0][code]), high=_null(bounds[1][code]))


def _differences(
    policy: str, family: Family, baseline: Values, candidate: Values, sample: Sample
) -> Iterator[Difference]:
    for (metric, head, beta), change in differences(baseline, candidate, sample):
        for code in range(len(family.values)):
            yield Difference.model_construct(
                policy=policy,
                metric=metric,
                head=head,
                segment=_segment(family, code),
                baseline=_null(change.baseline[code]),
                candidate=_null(change.candidate[code]),
                absolute=_estimate(change.absolute, change.absolute_bounds, code),
                relative=_estimate(change.relative, change.relative_bounds, code),
                beta=beta,
            )


def _curves(
    reduced: Reduced, policy: PolicyPlan, family: Family, bins: Mapping[str, list[Bins]], sample: Sample
) -> Iterator[CalibrationCurve]:
    for head, by_value in bins.items():
        ranked = reduced.tables.ranked[(head, reduced.plan.source_of(policy.index, head), family.name)]
        for code, b in enumerate(by_value):
            grid, weighted = ranked.by_bucket, reduced.plan.weighted
            low, high = bands(b, grid, sample, weighted=weighted) if grid is not None else no_bands(b)
            columns = (b.predicted, b.observed, b.weight, low, high)
            yield CalibrationCurve(
                policy=policy.name,
                head=head,
                segment=_segment(family, code),
                bins=[
                    CalibrationBin(predicted=p, observed=o, weight=w, low=_null(lower), high=_null(upper))
                    for p, o, w, lower, upper in zip(*(c.tolist() for c in columns), strict=True)
                ],
            )


def _split(reduced: Reduced, sample: Sample) -> Iterator[SplitPart]:
    overall = reduced.tables.families[OVERALL]
    for index, (level, mix) in reduced.levels.stages.items():
        buckets = len(level.parts["spend"])
        ends = (stage_of(overall, index_of, buckets) for index_of in (0, index))
        stages = (next(ends), level, mix, next(ends))
        for part in split(stages, sample):
            yield SplitPart(
                policy=reduced.plan.policies[index].name,
                metric=part.metric,
                part=part.part,
                absolute=_given(part.absolute, part.absolute_bounds),
                relative=_given(part.relative, part.relative_bounds),
            )


def _given(value: float, bounds: tuple[float, float]) -> Estimate:
    return Estimate(value=_null(value), low=_null(bounds[0]), high=_null(bounds[1]))


def _data(loaded: LoadedScenario, reduced: Reduced) -> DataInfo:
    plan, overall = reduced.plan, reduced.tables.families[OVERALL]
    window = loaded.window()
    place = plan.campaign_segment
    name = None if place is None else plan.segments[place].name
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
        units=reduced.tables.units if plan.unit != "row" else None,
        clicks=_null(overall.get("log_clicks")[0]),
        conversions=_null(overall.get("log_conversions")[0]),
        campaign_names=plan.campaigns.names if plan.campaigns else {},
    )


def _fingerprint(reduced: Reduced) -> str:
    """sha256 over the log's exact totals, overall and by segment: the same however the rows lie in files.

    It tells data apart for bookkeeping; two logs made to have equal totals everywhere have equal fingerprints.
    """
    totals: list[Any] = [sorted(reduced.census.items())]
    for name, family in sorted(reduced.tables.families.items()):
        keys = sorted((k for k in family.sums if k[1] is None), key=str)
        totals.append([name, family.values, [[str(k), [str(v) for v in family.sums[k]]] for k in keys]])
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
        spend = overall.get("spend", p.index)[0]
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
