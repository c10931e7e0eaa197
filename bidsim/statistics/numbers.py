"""From tables to numbers: metrics by policy and segment, differences, curves and splits, each with its interval.

Needs nothing but the tables and a confidence, so a saved run can be given other intervals without its log. The order of
records is fixed: policies as given, families as in the scenario, metrics as computed, segment values as the log orders
them.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.result import (
    CalibrationBin,
    CalibrationCurve,
    Difference,
    Estimate,
    Metric,
    Result,
    SplitPart,
)
from bidsim.statistics.bands import bands, no_bands
from bidsim.statistics.calibration import Bins
from bidsim.statistics.halves import STRATA
from bidsim.statistics.intervals import interval, lone, without
from bidsim.statistics.measured import total_of
from bidsim.statistics.metrics import (
    Values,
    campaign_auc,
    differences,
    economic_values,
    head_values,
    matched_values,
    target_attainment,
)
from bidsim.statistics.multiway import if_campaigns_were_new
from bidsim.statistics.possible import limits_of, within
from bidsim.statistics.ranges import Known, KnownChange, known_changes, known_values, nulls
from bidsim.statistics.rare import SHARES, Rare, widened, with_exceptions
from bidsim.statistics.resampling import Draws, bucket_weights, resampled
from bidsim.statistics.split import PartName, split, stage_of
from bidsim.statistics.spread import Bounds, Sample
from bidsim.statistics.tables import AtLevel, Matched, Place, Tables
from bidsim.statistics.tallies import OVERALL, Family
from bidsim.statistics.units import BUCKETS

Floats = npt.NDArray[np.float64]
# From here on t and normal quantiles hardly differ.
MANY_FREEDOM = 200.0


@dataclass(frozen=True)
class Numbers:
    """The records of a result that come from the tables. freedom: of the intervals' t quantiles, by family and segment
    value, where it is so small that it matters; new_campaigns: by candidate and metric, the interval of its relative change
    if campaigns were new too."""

    metrics: list[Metric]
    differences: list[Difference]
    calibration: list[CalibrationCurve]
    split: list[SplitPart]
    freedom: dict[str, dict[str, float]]
    new_campaigns: dict[str, dict[str, list[float]]]

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What of them is told beside the numbers."""
        return {"freedom": self.freedom, "new_campaigns": self.new_campaigns}


@dataclass(frozen=True)
class _Cut:
    """Everything computed for one policy in one family."""

    values: Values
    bins: dict[str, list[Bins]]


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without the garbage collector, which would look at each of the records again and again while more are made."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_nothing_collected()
def numbers_of(tables: Tables, confidence: float) -> Numbers:
    """Every number of spec section 4, with two-sided intervals at a confidence such as 0.95."""
    outline, families = tables.outline, tables.families
    drawn = _drawn(tables)
    cuts = {
        (index, name): _cut(tables, index, name, drawn)
        for index in range(len(outline.policies))
        for name in dict.fromkeys([*outline.shown, *families])
    }
    _over_campaigns(tables, cuts)
    samples = {name: tables.sample(name, confidence) for name in outline.shown}
    metrics: list[Metric] = []
    changes: list[Difference] = []
    curves: list[CalibrationCurve] = []
    for index, policy in enumerate(outline.policies):
        for name in outline.shown:
            cut, family = cuts[(index, name)], families[name]
            rare = Rare.of(family, index) if index > 0 else None
            ranges = known_values(tables, index, name, cut.values)
            metrics += _metrics(policy, index, family, cut.values, samples[name], ranges, rare)
            curves += _curves(tables, index, family, cut.bins, samples[name])
            if index > 0:
                pair = cuts[(0, name)].values, cut.values
                known = known_changes(tables, index, name, *pair)
                changes += _differences(policy, family, *pair, samples[name], known, rare)
    freedom = {name: _freedom(families[name], sample) for name, sample in samples.items()}
    parts, anew = list(_split(tables, samples[OVERALL])), if_campaigns_were_new(tables, confidence)
    return Numbers(metrics, changes, curves, parts, freedom, anew)


def _freedom(family: Family, sample: Sample) -> dict[str, float]:
    """Under budgets that of half-samples, which is the least."""
    each = sample.freedom(STRATA if family.reruns else sample.rows.shape[1])
    return {value: round(float(f), 2) for value, f in zip(family.values, each, strict=True) if f < MANY_FREEDOM}


def with_confidence(result: Result, tables: Tables, confidence: float) -> Result:
    """A saved result with the intervals of another confidence. Its gate is as it was: judge it again."""
    numbers = numbers_of(tables, confidence)
    intervals = {**(result.scenario.get("intervals") or {}), "confidence": confidence}
    return result.model_copy(
        update={
            "scenario": {**result.scenario, "intervals": intervals},
            "metrics": numbers.metrics,
            "differences": numbers.differences,
            "calibration": numbers.calibration,
            "split": numbers.split,
            "diagnostics": {**result.diagnostics, **numbers.diagnostics},
        }
    )


def _drawn(tables: Tables) -> dict[Place, Mapping[str, Draws]]:
    """What is resampled, by head and source; older files have no cells of it. Candidates take heads from the baseline."""
    found: dict[Place, Mapping[str, Draws]] = {}
    for (policy, head), source in tables.outline.sources.items():
        place = (head, source, OVERALL)
        ranked = tables.ranked.get(place)
        if place not in found and ranked is not None and ranked.grid is not None:
            rows = tables.families[OVERALL].by_bucket("n", policy, head).sum(axis=0)
            found[place] = resampled(ranked.grid, rows, bucket_weights(BUCKETS))
    return found


def _cut(tables: Tables, policy: int, name: str, drawn: Mapping[Place, Mapping[str, Draws]]) -> _Cut:
    outline, family = tables.outline, tables.families[name]
    has_click, has_conversion = outline.has_click, outline.has_conversion
    values = economic_values(family, policy, has_click=has_click, has_conversion=has_conversion)
    matched = tables.matched.get((policy, name))
    if policy == 0 and not family.expected:
        # The baseline at its own spend is the baseline.
        matched = _own_level(family)
    if matched is not None:
        values |= matched_values(matched, family, policy, has_click=has_click, has_conversion=has_conversion)
    for beta in outline.betas:
        key = ("expected_utility", policy, repr(beta))
        parts = family.by_bucket(*key)
        if family.has("value", policy):
            # As of a surplus: of what brought nothing nobody knows how seldom it does.
            parts = np.where((family.get("value", policy) != 0)[:, None], parts, np.nan)
        values[("expected_utility", None, beta)] = total_of(parts, family.get(*key), signed=True)
    bins: dict[str, list[Bins]] = {}
    for head in outline.heads:
        place = (head, outline.sources[(policy, head)], name)
        more, bins[head] = head_values(
            family,
            policy,
            head,
            tables.ranked[place],
            drawn.get(place, {}) if name == OVERALL else None,
            weighted=outline.weighted,
            units=outline.units,
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


def _over_campaigns(tables: Tables, cuts: dict[tuple[int, str], _Cut]) -> None:
    """gauc and target_attainment are means over campaigns: given overall, and for each campaign itself."""
    name = tables.outline.campaigns
    campaigns = tables.families[name or OVERALL]
    for index in range(len(tables.outline.policies)):
        whole, each = cuts[(index, OVERALL)], cuts[(index, name or OVERALL)]
        if campaigns.has("value", index):
            rates, mean = target_attainment(campaigns, index)
            if name:
                each.values[("target_attainment", None, None)] = rates
            whole.values[("target_attainment", None, None)] = mean
        for head in tables.outline.heads:
            aucs = each.values[("auc", head, None)]
            if name:
                each.values[("gauc", head, None)] = aucs
            whole.values[("gauc", head, None)] = campaign_auc(campaigns, index, head, aucs)


def _null(value: float) -> float | None:
    return None if not math.isfinite(value) else float(value)


def _segments(family: Family) -> list[dict[str, str]]:
    return [{}] if family.name == OVERALL else [{family.name: value} for value in family.values]


def _metrics(
    policy: str, index: int, family: Family, values: Values, sample: Sample, known: Known, rare: Rare | None
) -> Iterator[Metric]:
    segments = _segments(family)
    nothing = [None] * len(segments)
    for (metric, head, beta), measured in values.items():
        bounds = interval(measured, sample)
        if metric == "disagreement" and rare is not None:
            bounds = widened(measured.value, bounds, rare.disagreement(sample.confidence), least=0.0)
        elif metric in SHARES:
            bounds = with_exceptions(metric, family, index, bounds, sample.confidence)
        elif metric != "coverage":  # of this log's own wins
            bounds = without(bounds, lone(measured, sample))
        bounds = within(measured.value, bounds, limits_of(metric))
        columns = [nulls(column) for column in (measured.value, *bounds)]
        ranges = known(metric) if head is None else nothing
        for segment, value, low, high, span in zip(segments, *columns, ranges, strict=True):
            yield Metric.built(
                policy=policy, metric=metric, head=head, segment=segment, value=value, low=low, high=high,
                identified=span, beta=beta,
            )  # fmt: skip


def _estimates(value: Floats, bounds: Bounds) -> list[Estimate]:
    columns = [nulls(column) for column in (value, *bounds)]
    return [Estimate.built(value=v, low=low, high=high) for v, low, high in zip(*columns, strict=True)]


def _differences(
    policy: str,
    family: Family,
    baseline: Values,
    candidate: Values,
    sample: Sample,
    known: KnownChange,
    rare: Rare | None,
) -> Iterator[Difference]:
    segments = _segments(family)
    nothing = [None] * len(segments)
    for (metric, head, beta), change in differences(baseline, candidate, sample, rare):
        ranges = known(metric) if head is None else nothing
        absolute = _estimates(change.absolute, change.absolute_bounds)
        relative = _estimates(change.relative, change.relative_bounds)
        own = nulls(change.baseline), nulls(change.candidate)
        for segment, ours, theirs, a, r, span in zip(segments, *own, absolute, relative, ranges, strict=True):
            yield Difference.built(
                policy=policy, metric=metric, head=head, segment=segment, baseline=ours, candidate=theirs,
                absolute=a, relative=r, beta=beta, identified=span,
            )  # fmt: skip


def _curves(
    tables: Tables, index: int, family: Family, bins: Mapping[str, list[Bins]], sample: Sample
) -> Iterator[CalibrationCurve]:
    outline = tables.outline
    segments = _segments(family)
    for head, by_value in bins.items():
        ranked = tables.ranked[(head, outline.sources[(index, head)], family.name)]
        for segment, b in zip(segments, by_value, strict=True):
            grid, weighted = ranked.grid, outline.weighted
            low, high = bands(b, grid, sample, weighted=weighted) if grid is not None else no_bands(b)
            columns = (b.predicted.tolist(), b.observed.tolist(), nulls(low), nulls(high), b.weight.tolist())
            yield CalibrationCurve.built(
                policy=outline.policies[index],
                head=head,
                segment=segment,
                bins=[
                    CalibrationBin.built(predicted=p, observed=o, low=lower, high=upper, weight=w)
                    for p, o, lower, upper, w in zip(*columns, strict=True)
                ],
            )


def _split(tables: Tables, sample: Sample) -> Iterator[SplitPart]:
    # The stages between are not rerun without groups of units, and only like can be paired with like.
    overall = replace(tables.families[OVERALL], reruns={})
    for index, (level, mix) in tables.stages.items():
        buckets = len(level.parts["spend"])
        stages = (stage_of(overall, 0, buckets), level, mix, stage_of(overall, index, buckets))
        rare, nothing = Rare.of(overall, index), _no_steps(tables, index)
        for part in split(stages, sample, rare, nothing):
            yield SplitPart(
                policy=tables.outline.policies[index],
                metric=part.metric,
                part=part.part,
                absolute=_given(part.absolute, part.absolute_bounds),
                relative=_given(part.relative, part.relative_bounds),
            )


def _no_steps(tables: Tables, index: int) -> list[PartName]:
    """The parts of a candidate's change that are none, whatever the log: its bids are the baseline's but for a factor,
    of all bids or of each campaign's."""
    campaigns = tables.families[tables.outline.campaigns or OVERALL]
    whole, each = Rare.of(tables.families[OVERALL], index), Rare.of(campaigns, index)
    if whole is None or each is None:
        return []
    steps: list[tuple[PartName, bool]] = [
        ("level", bool(whole.same.all())),
        ("mix", bool(whole.ranked.all()) or len(campaigns.values) == 1),
        ("ranking", bool(each.ranked.all())),
    ]
    return [part for part, none in steps if none]


def _given(value: float, bounds: tuple[float, float]) -> Estimate:
    return Estimate(value=_null(value), low=_null(bounds[0]), high=_null(bounds[1]))
