"""Every number of spec section 4, computed from the reduced tables, for each value of one family of segments.

A function takes tables and returns arrays, one value for each segment value; NaN means undefined (a ratio with a zero
denominator, no labels). Economic numbers are over a policy's own counted wins; prediction numbers over the labelled
rows with a valid prediction of the policy, whatever it would have won.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.auc import auc, grouped_auc
from bidsim.statistics.calibration import Bins, calibration_error, corp, ece, ece_if_calibrated, equal_mass_bins
from bidsim.statistics.ranking import Cells, Ladder
from bidsim.statistics.tallies import Family, ratio

Floats = npt.NDArray[np.float64]

# (metric, head, beta) -> one value for each segment value
Values = dict[tuple[str, str | None, float | None], Floats]

ECONOMIC = [
    "bids",
    "wins",
    "win_rate",
    "spend",
    "clicks",
    "conversions",
    "ctr",
    "cvr",
    "cpm",
    "cpc",
    "cpa",
    "value",
    "surplus",
    "roi",
    "target_attainment",
    "predicted_clicks",
    "predicted_conversions",
]
# Economic numbers that unknown rows could change: exact where the policy has none.
EXACT_WITHOUT_UNKNOWNS = frozenset(
    ["wins", "win_rate", "spend", "clicks", "conversions", "ctr", "cvr", "cpm", "cpc", "cpa", "value", "surplus", "roi"]
)


@dataclass(frozen=True)
class Matched:
    """Results at the baseline's spend, shape (values,), NaN where the policy can't spend as much."""

    multiplier: Floats
    spend: Floats
    clicks: Floats
    conversions: Floats
    by_bucket: Mapping[str, Floats] | None = None


@dataclass(frozen=True)
class Ranked:
    """One prediction of one head in one family.

    ladders: by segment value; cells: score cells by segment value. lost, won: shape (values, buckets), over negatives
    the share of positives that they do not beat (ties half), over positives the share of negatives that they beat.
    by_bucket: score cells by bucket of units, for the whole log only.
    """

    ladders: list[Ladder]
    cells: Cells
    lost: Floats
    won: Floats
    by_bucket: Cells | None = None


def economic_values(family: Family, policy: int, *, has_click: bool, has_conversion: bool) -> Values:
    """Counts, money and their ratios of one policy."""

    def get(name: str) -> Floats:
        return family.get(name, policy)

    bids, wins, spend = get("bids"), get("wins"), get("spend")
    out: Values = {}

    def put(name: str, value: Floats) -> None:
        out[(name, None, None)] = value

    put("bids", bids)
    put("wins", wins)
    put("win_rate", ratio(wins, bids))
    put("spend", spend)
    put("cpm", ratio(1000 * spend, wins))
    if has_click:
        clicks = get("clicks")
        put("clicks", clicks)
        put("ctr", ratio(clicks, wins))
        put("cpc", ratio(spend, clicks))
    if has_conversion:
        conversions = get("conversions")
        put("conversions", conversions)
        put("cpa", ratio(spend, conversions))
        if has_click:
            put("cvr", ratio(conversions, get("clicks")))
    if family.has("value", policy):
        value = get("value")
        put("value", value)
        put("surplus", value - spend)
        put("roi", ratio(value - spend, spend))
    for name in ("predicted_clicks", "predicted_conversions"):
        if family.has(name, policy):
            put(name, get(name))
    put("coverage", ratio(spend, spend + get("unobserved_spend")))
    for name in ("unknown_wins", "unknown_outcomes", "invalid_predictions"):
        put(name, get(name))
    put("undecidable", family.get("undecidable"))
    return out


def target_attainment(campaigns: Family, policy: int) -> tuple[Floats, float]:
    """Cost per result over target of each campaign, and their spend-weighted mean over campaigns with results.

    spend / value is cpa / target_cpa, since value = target x results; a target that varies is weighted by results.
    """
    spend, value = campaigns.get("spend", policy), campaigns.get("value", policy)
    each = ratio(spend, value)
    known = ~np.isnan(each)
    total = spend[known].sum()
    return each, float((each[known] * spend[known]).sum() / total) if total > 0 else float("nan")


def matched_values(matched: Matched, *, has_click: bool, has_conversion: bool) -> Values:
    """Numbers of the policy bidding at one multiplier at which its spend equals the baseline's."""
    out: Values = {("multiplier_at_matched_spend", None, None): matched.multiplier}
    if has_click:
        out[("clicks_at_matched_spend", None, None)] = matched.clicks
        out[("cpc_at_matched_spend", None, None)] = ratio(matched.spend, matched.clicks)
    if has_conversion:
        out[("conversions_at_matched_spend", None, None)] = matched.conversions
        out[("cpa_at_matched_spend", None, None)] = ratio(matched.spend, matched.conversions)
    return out


def head_values(family: Family, policy: int, head: str, ranked: Ranked) -> tuple[Values, list[Bins]]:
    """Prediction metrics of one head, and the reliability bins of each segment value."""

    def get(name: str) -> Floats:
        return family.get(name, policy, head)

    n, y, p = get("n"), get("y"), get("p")
    logloss, brier, rate = ratio(get("loss"), n), ratio(get("squared"), n), ratio(y, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    entropy = np.where(entropy > 0, entropy, 0.0)
    parts = [corp(ranked.ladders[code], float(b)) for code, b in enumerate(brier)]
    bins = bins_by_code(ranked.cells, len(family.values))
    values: dict[str, Floats] = {
        "logloss": logloss,
        "normalized_entropy": ratio(logloss, entropy),
        "auc": np.array([auc(ladder) for ladder in ranked.ladders]),
        "brier": brier,
        "miscalibration": np.array([c.miscalibration for c in parts]),
        "discrimination": np.array([c.discrimination for c in parts]),
        "uncertainty": np.array([c.uncertainty for c in parts]),
        "calibration": ratio(p, y),
        "ece": np.array([ece(b) for b in bins]),
        "ece_if_calibrated": np.array([ece_if_calibrated(b, float(m)) for b, m in zip(bins, n, strict=True)]),
        "calibration_error": np.array([calibration_error(b, float(m)) for b, m in zip(bins, n, strict=True)]),
        "clipped_predictions": get("clipped_predictions"),
    }
    if family.has("moved", policy, head):
        values["churn"] = ratio(get("moved"), get("moved_from"))
    return {(name, head, None): value for name, value in values.items()}, bins


def campaign_auc(campaigns: Family, policy: int, head: str, aucs: Floats) -> float:
    """gauc over all campaigns; aucs: of each campaign."""
    return grouped_auc(aucs, campaigns.get("n", policy, head))


def bins_by_code(cells: Cells, codes: int) -> list[Bins]:
    """Equal-mass bins of each segment value."""
    code, negative, positive, score = cells.table()
    edges = np.searchsorted(code, np.arange(codes + 1))
    return [equal_mass_bins(negative[a:b], positive[a:b], score[a:b]) for a, b in itertools.pairwise(edges)]


def differences(
    baseline: Values, candidate: Values
) -> Mapping[tuple[str, str | None, float | None], tuple[Floats, ...]]:
    """(baseline, candidate, absolute, relative) of every metric that both have; relative to the baseline's size."""
    out = {}
    for key, theirs in candidate.items():
        if key in baseline:
            ours = baseline[key]
            out[key] = (ours, theirs, theirs - ours, ratio(theirs - ours, np.abs(ours)))
    return out
