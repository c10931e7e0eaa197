"""Why spend and cost per result change: the candidate's change split into level, mix and ranking.

Two counterfactual stages lie between the baseline and the candidate. First all of the baseline's bids are multiplied by
one number, so that its mean bid is the candidate's: what changes there is *level*. Then each campaign's bids are
multiplied by a number of their own, so that every campaign's mean bid is the candidate's: what changes more is *mix*,
money moved between campaigns. What remains to the candidate itself is *ranking*, the order within campaigns. The parts
add up to the whole change by construction; mean bids are over rows on which both policies bid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from bidsim.statistics.intervals import absolute_interval, step_interval
from bidsim.statistics.measured import Measured, is_unseen, ratio_of, total_of
from bidsim.statistics.rare import Rare, widened
from bidsim.statistics.spread import Bounds, Sample
from bidsim.statistics.tallies import Family, ratio

Floats = npt.NDArray[np.float64]
PartName = Literal["level", "mix", "ranking"]
PARTS: tuple[PartName, ...] = ("level", "mix", "ranking")
SUMS = ("spend", "clicks", "conversions")
UNKNOWN = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Level:
    """What takes the baseline's mean bid to a candidate's.

    overall: the multiplier of all bids; by_campaign: of each campaign's, shape (campaigns,). moved, moved_by_campaign:
    influence of each bucket on their logarithms, shape (buckets,) and (campaigns, buckets).
    """

    overall: float
    by_campaign: Floats
    moved: Floats
    moved_by_campaign: Floats


@dataclass(frozen=True)
class Stage:
    """What wins come to at one stage, by name of SUMS: totals, and parts by bucket of units, shape (buckets,).

    The parts include what the level's own sampling adds to first order, so they sum to the total.
    """

    totals: dict[str, float]
    parts: dict[str, Floats]


@dataclass(frozen=True)
class Part:
    """One part of one metric's change. relative: to the size of the baseline's metric."""

    metric: str
    part: PartName
    absolute: float
    absolute_bounds: tuple[float, float]
    relative: float
    relative_bounds: tuple[float, float]


def level_of(campaigns: Family, policy: int) -> Level | None:
    """A candidate's level against the baseline's; None where they never bid on the same row.

    campaigns: the family of campaigns, or the whole log where it has none. A campaign on which they never both bid
    keeps the overall level.
    """
    theirs, ours = (campaigns.by_bucket(name, policy) for name in ("bid_level", "bid_level_from"))
    if not (theirs.sum() > 0 and ours.sum() > 0):
        return None
    overall, moved = _log_ratio(theirs.sum(axis=0, keepdims=True), ours.sum(axis=0, keepdims=True))
    each, each_moved = _log_ratio(theirs, ours)
    known = np.isfinite(each)
    return Level(
        float(overall[0]),
        np.where(known, each, overall[0]),
        moved[0],
        np.where(known[:, None], each_moved, moved),
    )


def _log_ratio(above: Floats, below: Floats) -> tuple[Floats, Floats]:
    """(ratio of sums, influence of each bucket on its logarithm); NaN where either sum is zero."""
    n, d = above.sum(axis=1), below.sum(axis=1)
    usable = (n > 0) & (d > 0)
    n, d = np.where(usable, n, np.nan), np.where(usable, d, np.nan)
    return n / d, above / n[:, None] - below / d[:, None]


def stage_of(overall: Family, policy: int, buckets: int) -> Stage:
    """A policy as it is. overall: the family of the whole log."""
    return Stage(
        {name: float(overall.get(name, policy)[0]) for name in SUMS if overall.has(name, policy)},
        {name: fewer(overall.by_bucket(name, policy)[0], buckets) for name in SUMS if overall.has(name, policy)},
    )


def fewer(parts: Floats, buckets: int) -> Floats:
    """Sums by bucket in fewer, nested buckets."""
    return np.asarray(parts.reshape(buckets, -1).sum(axis=1))


def split(
    stages: tuple[Stage, Stage, Stage, Stage],
    sample: Sample,
    rare: Rare | None = None,
    nothing: Collection[PartName] = (),
) -> Iterator[Part]:
    """The parts of every metric that the stages can give. stages: baseline, level moved, mix moved, candidate.

    rare: what few rows that are decided differently leave open; nothing: the parts that are no step at all."""
    steps = [
        None if rare is None else _step(rare, before, after, part in nothing)
        for part, before, after in zip(PARTS, stages[:-1], stages[1:], strict=True)
    ]
    metrics: list[tuple[str, str, str | None]] = [("spend", "spend", None)]
    for name, cost in (("clicks", "cpc"), ("conversions", "cpa")):
        if name in stages[0].totals:
            metrics += [(name, name, None), (cost, "spend", name)]
    weight = np.ones(1) if rare is None else rare.weight
    for metric, above, below in metrics:
        measured = [_measured(stage, above, below) for stage in stages]
        for place, part in enumerate(PARTS):
            before, after = measured[place], measured[place + 1]
            change = after.value - before.value
            known = (
                below is not None or above == "spend" or not _unseen(stages[place], stages[place + 1], above, weight)
            )
            size = np.abs(measured[0].value)
            relative = ratio(change, size)
            bounds = absolute_interval(before, after, sample), step_interval(measured[0], before, after, sample)
            step = steps[place]
            if step is not None:
                by = step.reach(metric, measured[0].value, sample.confidence, bounds[0][0] == bounds[0][1])
                assert by is not None
                bounds = widened(change, bounds[0], by), widened(relative, bounds[1], ratio(by, size))
            yield Part(
                metric,
                part,
                float(change[0]),
                _single(bounds[0]) if known else UNKNOWN,
                float(relative[0]),
                _single(bounds[1]) if known else UNKNOWN,
            )


def _step(rare: Rare, before: Stage, after: Stage, nothing: bool) -> Rare:
    """What it leaves open. How many rows a step decides differently is told by the money that it moves."""
    money = np.abs(after.parts["spend"] - before.parts["spend"]).sum(keepdims=True)
    return replace(rare, events=ratio(money, rare.money), same=np.array([nothing]))


def _unseen(before: Stage, after: Stage, results: str, weight: Floats) -> bool:
    """Whether money that a step moves should have moved results, and moved none."""
    moved, money = ((after.parts[name] - before.parts[name])[None, :] for name in (results, "spend"))
    rate = ratio(np.array([before.totals[results]]), np.array([before.totals["spend"]]))
    return bool(is_unseen(moved, money, rate, weight)[0])


def _single(bounds: Bounds) -> tuple[float, float]:
    return float(bounds[0][0]), float(bounds[1][0])


def _measured(stage: Stage, above: str, below: str | None) -> Measured:
    value, parts = np.array([stage.totals[above]]), stage.parts[above][None, :]
    if below is None:
        return total_of(parts, value)
    return ratio_of(ratio(value, np.array([stage.totals[below]])), parts, stage.parts[below][None, :], log=False)
