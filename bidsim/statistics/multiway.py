"""How sure a change would be if campaigns were new too: intervals clustered by unit and by campaign.

Intervals are about other users of the same campaigns. What next month's campaigns would show varies more, since a
candidate that does well in one campaign may do badly in another. The variance by unit plus that by campaign, less what
both count twice (Cameron, Gelbach, Miller 2011, "Robust Inference With Multiway Clustering"), from the same table of
sums by campaign and bucket of units.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bidsim.statistics.intervals import ROUNDING, relative_error
from bidsim.statistics.measured import Measured
from bidsim.statistics.spread import LEAST_BUCKETS, LEAST_FREEDOM, Sample
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]

# By metric the sums that are divided.
METRICS: dict[str, tuple[str, str | None]] = {
    "spend": ("spend", None),
    "wins": ("wins", None),
    "clicks": ("clicks", None),
    "conversions": ("conversions", None),
    "ctr": ("clicks", "wins"),
    "cpc": ("spend", "clicks"),
    "cpa": ("spend", "conversions"),
}


def if_campaigns_were_new(tables: Tables, confidence: float) -> dict[str, dict[str, list[float]]]:
    """[low, high] of the relative change of each candidate and metric; empty without campaigns, or under budgets, whose
    half-samples are not of campaigns."""
    name = tables.outline.campaigns
    family = tables.families.get(name or "")
    if not name or family is None or family.reruns or family.expected:
        return {}
    found = {}
    for index, policy in enumerate(tables.outline.policies):
        if index > 0:
            each = {metric: _bounds(family, index, *sums, confidence) for metric, sums in METRICS.items()}
            found[policy] = {metric: bounds for metric, bounds in each.items() if bounds is not None}
    return found


def _bounds(family: Family, policy: int, above: str, below: str | None, confidence: float) -> list[float] | None:
    shares, logarithm, held = np.zeros((len(family.values), family.buckets)), 0.0, family.buckets
    for name, power in ((above, 1.0), (below, -1.0)):
        if name is None:
            continue
        for which, sign in ((policy, power), (0, -power)):
            if not family.has(name, which):
                return None
            sums = family.by_bucket(name, which)
            if not sums.sum() > 0:
                return None
            shares += sign * sums / sums.sum()
            logarithm += sign * float(np.log(sums.sum()))
            held = min(held, int((sums.sum(axis=0) > 0).sum()))
    if held < LEAST_BUCKETS and np.abs(shares).max() <= ROUNDING < abs(logarithm):
        return None  # each has what it counts in the same few places, which says nothing of others
    rows = family.by_bucket("rows")
    errors, freedoms = [], []
    for axis in (0, 1):
        weighs = rows.sum(axis=axis)[None, :]
        sample = Sample(confidence, weighs, 1)
        if sample.used[0] < LEAST_BUCKETS:
            return None
        moved = Measured(np.ones(1), shares.sum(axis=axis)[None, :], "log")
        errors.append(float(relative_error(moved, sample)[0]))
        freedoms.append(float(sample.freedom(weighs.shape[1])[0]))
    freedom = min(freedoms)
    if not freedom >= LEAST_FREEDOM:
        return None
    both = errors[0] ** 2 + errors[1] ** 2 - float((shares**2).sum())
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * float(np.sqrt(max(both, *(e**2 for e in errors))))
    with np.errstate(over="ignore"):
        low, high = np.expm1(logarithm - half), np.expm1(logarithm + half)
    return [float(low), float(high)] if np.isfinite([low, high]).all() else None
