"""How large an online A/B test must be to confirm what the replay predicts.

Users are dealt to two arms, so the arms are independent: the squared standard error of the difference of a metric's
logarithm is e0^2 / (1 - share) + e1^2 / share for as many units as the log has, e0 and e1 each policy's own relative
standard error, clustered by unit, and falls with their number. Totals are taken per unit, since arms differ in size. The
test finds an effect d (a difference of logarithms) with a given power where that error is at most d / (z + z_power).
The replay itself sees both policies on every auction; `gain` says what that pairing is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from bidsim.statistics.intervals import interval, lone, relative_error, relative_interval
from bidsim.statistics.measured import Measured
from bidsim.statistics.metrics import economic_values
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import OVERALL

# What an A/B test of a bidder is judged on, the economic totals per unit and their ratios.
METRICS = ("spend", "wins", "clicks", "conversions", "value", "ctr", "cvr", "cpm", "cpc", "cpa")


@dataclass(frozen=True)
class Arm:
    """One way to divide the traffic. share: of the candidate; times: how many logs' worth of traffic the whole test
    needs, by both arms together; None where the prediction is no change."""

    share: float
    times: float | None
    times_if_smaller: float | None


@dataclass(frozen=True)
class Need:
    """What a test of one metric of one candidate needs.

    change: predicted, relative, with its interval from the replay; arms: by traffic share, `times_if_smaller` for the
    end of the interval that lies nearer to no change (None where the interval includes none). gain: how many times
    fewer auctions the replay needed than a test of equal halves for the same precision.
    """

    policy: str
    metric: str
    change: float
    low: float | None
    high: float | None
    arms: tuple[Arm, ...]
    gain: float | None


def plan_experiment(
    tables: Tables, *, shares: Sequence[float], power: float, confidence: float, metrics: Sequence[str] = METRICS
) -> Iterator[Need]:
    """Of every candidate and metric that the log knows with an interval. shares: of the candidate's traffic, in (0, 1)."""
    outline, family = tables.outline, tables.families[OVERALL]
    sample = tables.sample(OVERALL, confidence)
    quantiles = float(ndtri(0.5 + confidence / 2) + ndtri(power))
    has_click, has_conversion = outline.has_click, outline.has_conversion
    base = economic_values(family, 0, has_click=has_click, has_conversion=has_conversion)
    for index, policy in enumerate(outline.policies):
        if index == 0:
            continue
        ours = economic_values(family, index, has_click=has_click, has_conversion=has_conversion)
        for metric in metrics:
            key = (metric, None, None)
            if key in base and key in ours:
                need = _need(policy, metric, base[key], ours[key], sample, shares, quantiles)
                if need is not None:
                    yield need


def _need(
    policy: str,
    metric: str,
    base: Measured,
    candidate: Measured,
    sample: Sample,
    shares: Sequence[float],
    quantiles: float,
) -> Need | None:
    before, after = float(base.value[0]), float(candidate.value[0])
    if not (before > 0 and after > 0):
        return None
    if any(lone(m, sample)[0] or not math.isfinite(interval(m, sample)[0][0]) for m in (base, candidate)):
        return None  # so few units that nobody knows how much a user differs from another
    change = after / before - 1
    low, high = (None if not math.isfinite(b[0]) else float(b[0]) for b in relative_interval(base, candidate, sample))
    first, second = (float(relative_error(m, sample)[0]) for m in (base, candidate))
    if not (math.isfinite(first) and math.isfinite(second)):
        return None
    smaller = None
    if low is not None and high is not None and low * high > 0:
        smaller = low if low > 0 else high

    def times(effect: float | None, share: float) -> float | None:
        if effect is None or effect == 0 or not effect > -1:
            return None
        return (quantiles / math.log1p(effect)) ** 2 * (first**2 / (1 - share) + second**2 / share)

    arms = tuple(Arm(share, times(change, share), times(smaller, share)) for share in shares)
    paired = float(relative_error(_difference(base, candidate), sample)[0])
    halves = 2 * first**2 + 2 * second**2
    return Need(policy, metric, change, low, high, arms, halves / paired**2 if paired > 0 else None)


def _difference(base: Measured, candidate: Measured) -> Measured:
    """The difference of logarithms, by its influence."""
    assert base.parts is not None
    assert candidate.parts is not None
    z = candidate.parts / candidate.value[:, None] - base.parts / base.value[:, None]
    return Measured(np.ones(1), z, "log")
