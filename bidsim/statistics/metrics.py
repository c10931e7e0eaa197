"""Every number of spec section 4, computed from the reduced tables, for each value of one family of segments.

A function takes tables and returns measured metrics: one value for each segment value, NaN where undefined (a ratio
with a zero denominator, no labels), and what an interval needs. Economic numbers are over a policy's own counted wins;
prediction numbers over the labelled rows with a valid prediction of the policy, whatever it would have won.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bidsim.statistics.auc import auc_of, grouped_auc, grouped_influence
from bidsim.statistics.binned import Sums, with_noise
from bidsim.statistics.calibration import Bins, calibration_error, ece, ece_if_calibrated, stacked, uncertainty_of
from bidsim.statistics.halves import FEW as FEWEST
from bidsim.statistics.intervals import absolute_interval, relative_interval
from bidsim.statistics.measured import UNSEEN, Mean, Measured, fact_of, is_unseen, powers, ratio_of, total_of
from bidsim.statistics.possible import limits_of, within
from bidsim.statistics.rare import FEW, Rare, widened
from bidsim.statistics.resampling import Draws
from bidsim.statistics.spread import Bounds, Sample
from bidsim.statistics.tables import AtLevel, Matched, Ranked
from bidsim.statistics.tallies import Family, ratio

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# (metric, head, beta) -> one value for each segment value
Values = dict[tuple[str, str | None, float | None], Measured]

# Economic numbers that unknown rows could change.
ECONOMIC = frozenset(
    (
        *("wins", "win_rate", "spend", "clicks", "conversions", "ctr", "cvr", "cpm", "cpc", "cpa"),
        *("value", "surplus", "roi", "target_attainment"),
    )
)


# Numbers of a head that rest on labels of both kinds, beside those that are undefined without.
OF_BOTH_LABELS = ("logloss", "brier", "uncertainty", "miscalibration", "discrimination", "ece", "calibration_error")


def economic_values(family: Family, policy: int, *, has_click: bool, has_conversion: bool) -> Values:
    """Counts, money and their ratios of one policy."""
    out: Values = {}

    def value(name: str) -> Floats:
        return family.get(name, policy)

    def part(name: str) -> Floats:
        return family.by_bucket(name, policy)

    def count(name: str) -> None:
        out[(name, None, None)] = _counted(family, name, policy)

    def rate(name: str, above: str, below: str, unit: float = 1.0) -> None:
        measured = ratio_of(ratio(unit * value(above), value(below)), unit * part(above), part(below))
        out[(name, None, None)] = measured

    count("bids")
    count("wins")
    # Half-samples don't replay bids that can't win, and wins without their bids would be no rate: both as they went.
    entered, won = (family.as_it_went().by_bucket(name, policy) for name in ("bids", "wins"))
    out[("win_rate", None, None)] = ratio_of(ratio(value("wins"), value("bids")), won, entered)
    count("spend")
    rate("cpm", "spend", "wins", 1000.0)
    if has_click:
        count("clicks")
        rate("ctr", "clicks", "wins")
        rate("cpc", "spend", "clicks")
    if has_conversion:
        count("conversions")
        rate("cpa", "spend", "conversions")
        if has_click:
            rate("cvr", "conversions", "clicks")
    if family.has("value", policy):
        count("value")
        surplus = value("value") - value("spend")
        # Where nothing came of the money, nobody knows how seldom something does.
        seen = (value("value") != 0) | (value("spend") == 0)
        parts = np.where(seen[:, None], part("value") - part("spend"), np.nan)
        total = total_of(parts, surplus, signed=True)
        out[("surplus", None, None)] = replace(total, extreme=family.untold("spend", policy))
        out[("roi", None, None)] = ratio_of(ratio(surplus, value("spend")), parts, part("spend"), log=False)
    # What the policy predicted for its own wins against what was observed there: the winner's curse.
    for name, observed, head in (
        ("predicted_clicks", "clicks", "ctr"),
        ("predicted_conversions", "conversions", "ctcvr"),
    ):
        if family.has(name, policy):
            count(name)
            seen, seen_parts = family.observed(observed, policy), family.observed_by_bucket(observed, policy)
            own = ratio_of(ratio(value(name), seen), part(name), seen_parts)
            out[("calibration_on_wins", head, None)] = own
    seen, seen_parts = family.observed("spend", policy), family.observed_by_bucket("spend", policy)
    decided, decided_parts = seen + value("unobserved_spend"), seen_parts + part("unobserved_spend")
    out[("coverage", None, None)] = ratio_of(ratio(seen, decided), seen_parts, decided_parts, log=False)
    if family.has("wins_gained", policy):
        out |= _disagreement(family, policy)
    for name in ("unknown_wins", "unknown_outcomes", "invalid_predictions"):
        out[(name, None, None)] = fact_of(value(name))
    out[("undecidable", None, None)] = fact_of(family.get("undecidable"))
    out[("rows", None, None)] = fact_of(family.get("weight"))
    if family.has("bids_compared", 0):
        # Of the baseline and the log, like the two above: given with every policy, so that a rule can name it.
        drift = ratio(family.get("bids_drifted", 0), family.get("bids_compared", 0))
        out[("formula_drift", None, None)] = fact_of(drift)
    return out


def _counted(family: Family, name: str, policy: int) -> Measured:
    total = total_of(family.by_bucket(name, policy), family.get(name, policy))
    return replace(total, extreme=family.untold(name, policy))


def _disagreement(family: Family, policy: int) -> Values:
    """The rows that only the candidate wins (gained) or only the baseline (lost), and their share of all that either
    wins, as the log shows them: no row is won in expectation here."""
    out: Values = {}
    for side in ("gained", "lost"):
        for name in ("wins", "spend", "clicks", "conversions"):
            key = f"{name}_{side}"
            if family.has(key, policy):
                out[(key, None, None)] = _counted(family, key, policy)
    gained, lost = (family.get(f"wins_{side}", policy) for side in ("gained", "lost"))
    parts = [family.by_bucket(f"wins_{side}", policy) for side in ("gained", "lost")]
    either, either_parts = family.observed("wins", 0) + gained, family.observed_by_bucket("wins", 0) + parts[0]
    out[("disagreement", None, None)] = ratio_of(
        ratio(gained + lost, either), parts[0] + parts[1], either_parts, log=False
    )
    return out


def target_attainment(campaigns: Family, policy: int) -> tuple[Measured, Measured]:
    """Cost per result over target of each campaign, and their spend-weighted mean over campaigns with results.

    spend / value is cpa / target_cpa, since value = target x results; a target that varies is weighted by results.
    """
    spend, value = campaigns.get("spend", policy), campaigns.get("value", policy)
    spend_parts, value_parts = campaigns.by_bucket("spend", policy), campaigns.by_bucket("value", policy)
    each = ratio(spend, value)
    known = ~np.isnan(each)
    total = spend[known].sum()
    mean = float((each[known] * spend[known]).sum() / total) if total > 0 else float("nan")
    # Of sum(spend^2 / value) / sum(spend).
    e = each[known][:, None]
    z = ((2 * e - mean) * spend_parts[known] - e**2 * value_parts[known]).sum(axis=0, keepdims=True)
    z = z / total if total > 0 else np.zeros_like(z)
    share = ratio(spend_parts[known].sum(axis=0, keepdims=True), np.array([[total]]))
    whole = Measured(np.array([mean]), z, "log", means=(Mean(z, share),))
    return ratio_of(each, spend_parts, value_parts), whole


def matched_values(matched: Matched, family: Family, policy: int, *, has_click: bool, has_conversion: bool) -> Values:
    """Numbers of the policy bidding at one multiplier at which its spend equals the baseline's.

    family: the one that holds the baseline's sums too. The level follows the sample: where buckets spend more than
    the baseline does, the multiplier falls, and results with it (first order).
    """
    goal = family.by_bucket("spend", 0)
    level, there = matched.level, np.zeros(len(goal), dtype=bool)
    if level is not None:
        level, there = _settled(level, goal)
    out: Values = {}

    def moved(parts: Floats, slope: Floats) -> Floats:
        assert level is not None
        return np.asarray(parts + slope[:, None] * (goal - level.spend))

    multiplier = None
    if level is not None:
        z = (goal - level.spend) * (level.multiplier_slope * matched.multiplier)[:, None]
        # Where other bids buy (nearly) the very same, as where both buy all that the log has, others would do as well.
        rare = Rare.of(family, policy)
        if rare is not None:
            z[(np.abs(goal - level.spend).sum(axis=1) < FEW * rare.money) & ~rare.same] = np.nan
        multiplier = Measured(matched.multiplier, z - z.mean(axis=1, keepdims=True), "log")
    out[("multiplier_at_matched_spend", None, None)] = multiplier or Measured(matched.multiplier)
    for wanted, name, cost in (
        (has_click, "clicks", "cpc"),
        (has_conversion, "conversions", "cpa"),
    ):
        if not wanted:
            continue
        value = getattr(matched, name)
        results, costs = Measured(value), Measured(ratio(matched.spend, value))
        if level is not None:
            own, slope = getattr(level, name), getattr(level, f"{name}_slope")
            # To first order results follow the money of the level by a power, and the money is the goal.
            one, power = np.ones(len(value)), slope * ratio(goal.sum(axis=1), own.sum(axis=1))
            follows = ((one, own), (power, goal), (-power, level.spend))
            results = replace(total_of(moved(own, slope), value), means=powers(value, follows))
            if family.reruns:
                # As `Family.untold`: of so few results half-samples may say nothing.
                few = (value > 0) & (value < FEWEST * family.row_weight)
                results = replace(results, extreme=few & (np.ptp(own, axis=1) <= 1e-12 * value))
            costs = replace(
                ratio_of(costs.value, goal, moved(own, slope)),
                means=powers(costs.value, ((-one, own), (one - power, goal), (power, level.spend))),
            )
            rate = ratio(family.get(name, 0), family.get("spend", 0))
            unseen = is_unseen(own - family.by_bucket(name, 0), level.spend - goal, rate, family.row_weight)
            # The parts are about money spent to the last cent; the next row would have cost more than was left.
            fully = value + slope * (goal.sum(axis=1) - matched.spend)
            results = replace(results, unseen=unseen, exact=np.where(there, value, fully))
            costs = replace(costs, unseen=unseen, exact=np.where(there, costs.value, ratio(goal.sum(axis=1), fully)))
        out[(f"{name}_at_matched_spend", None, None)] = results
        out[(f"{cost}_at_matched_spend", None, None)] = costs
    return out


def _settled(level: AtLevel, goal: Floats) -> tuple[AtLevel, Bools]:
    """The level, and where it spends the goal in every bucket: it stays there then, whatever the last digits of sums are, so
    that a policy that does as the baseline does changes by exactly 0."""
    there = (np.abs(goal - level.spend) <= 1e-12 * goal.sum(axis=1, keepdims=True)).all(axis=1)
    slopes = {f"{name}_slope": getattr(level, f"{name}_slope") for name in ("clicks", "conversions", "multiplier")}
    still = {name: np.where(there, 0.0, slope) for name, slope in slopes.items()}
    return replace(level, spend=np.where(there[:, None], goal, level.spend), **still), there


def head_values(
    family: Family,
    policy: int,
    head: str,
    ranked: Ranked,
    drawn: Mapping[str, Draws] | None,
    *,
    weighted: bool,
    units: int,
) -> tuple[Values, list[Bins]]:
    """Prediction metrics of one head, and the reliability bins of each segment value.

    drawn: of the metrics that are not smooth, overall, see `resampled`; None: by segment value, where bins tell. weighted:
    whether the log is; units: of the whole log.
    """

    def get(name: str) -> Floats:
        return family.get(name, policy, head)

    def part(name: str) -> Floats:
        return family.by_bucket(name, policy, head)

    n, y, p = get("n"), get("y"), get("p")
    logloss, brier, rate = ratio(get("loss"), n), ratio(get("squared"), n), ratio(y, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        slope = np.log1p(-rate) - np.log(rate)
    entropy = np.where(entropy > 0, entropy, 0.0)
    bins, whole = ranked.bins, stacked(ranked.bins)
    loss = ratio_of(logloss, part("loss"), part("n"))
    base_rate = ratio_of(rate, part("y"), part("n"), log=False)
    assert loss.parts is not None
    assert base_rate.parts is not None
    uncertainty = uncertainty_of(base_rate)
    relative = ratio(logloss, entropy)
    moved = ratio(loss.parts - relative[:, None] * slope[:, None] * base_rate.parts, entropy[:, None])
    values: dict[str, Measured] = {
        "logloss": loss,
        "normalized_entropy": Measured(relative, moved, "log", means=(Mean(moved, loss.means[0].share),)),
        "auc": auc_of(ranked.auc, ranked.won, ranked.lost, part("y"), part("n")),
        "brier": ratio_of(brier, part("squared"), part("n")),
        "miscalibration": Measured(brier - ranked.recalibrated),
        "discrimination": Measured(uncertainty.value - ranked.recalibrated),
        "uncertainty": uncertainty,
        "calibration": ratio_of(ratio(p, y), part("p"), part("y")),
        "ece": Measured(ece(whole)),
        "ece_if_calibrated": Measured(ece_if_calibrated(whole, n)),
        "calibration_error": Measured(calibration_error(whole, n), root=True),
        "clipped_predictions": fact_of(get("clipped_predictions")),
    }
    if drawn is None:
        sums = Sums(part("n"), part("y"), part("p"), part("squared"), weighted)
        values |= with_noise(values, ranked, sums, units)
    else:
        for name, draws in drawn.items():
            # What cells hide of the exact number is noise that it fits.
            hidden = float(values[name].value[0]) - draws.seen
            values[name] = replace(
                values[name],
                draws=draws.values + hidden,
                about=draws.about,
                calibrated=None if draws.calibrated is None else draws.calibrated + hidden,
            )
    # Where all labels are alike nobody knows how seldom the other comes, and what it would cost.
    alike = (y == 0) | (y == n)
    values |= {name: replace(values[name], extreme=alike) for name in OF_BOTH_LABELS}
    if family.has("moved", policy, head):
        moved = ratio(get("moved"), get("moved_from"))
        values["churn"] = ratio_of(moved, part("moved"), part("moved_from"))
    return {(name, head, None): value for name, value in values.items()}, bins


def campaign_auc(campaigns: Family, policy: int, head: str, aucs: Measured) -> Measured:
    """gauc over all campaigns; aucs: of each campaign."""
    rows, parts = campaigns.get("n", policy, head), campaigns.by_bucket("n", policy, head)
    value = grouped_auc(aucs.value, rows)
    extreme = np.array([value in (0.0, 1.0)])
    return Measured(np.array([value]), grouped_influence(value, aucs, rows, parts), extreme=extreme)


@dataclass(frozen=True)
class Change:
    """One metric of the candidate against the baseline, shape (values,) each; relative to the baseline's size."""

    baseline: Floats
    candidate: Floats
    absolute: Floats
    absolute_bounds: Bounds
    relative: Floats
    relative_bounds: Bounds


# What a change of results that nobody saw leaves unknown.
DEPENDS = {
    "clicks": ("clicks", "ctr", "cpc", "cvr"),
    "conversions": ("conversions", "cpa", "cvr"),
}
SIGNED = ("surplus", "roi", "expected_utility")
# What changes with whichever of them it counts.
WORTH = ("value", "surplus", "expected_utility")


def _unseen(baseline: Values, candidate: Values, weight: Floats | float) -> dict[str, Bools]:
    """By metric, the segment values where its change is not known to have a spread: rows that one policy alone wins
    should have brought results, and brought none. A spread of zero would be no knowledge. weight: of a row, as in `is_unseen`."""
    found: dict[str, Bools] = {}

    def count(values: Values, name: str) -> Floats:
        return values[(name, None, None)].value

    for result, metrics in DEPENDS.items():
        if (f"{result}_gained", None, None) not in candidate:
            continue
        seen = count(candidate, f"{result}_gained") + count(candidate, f"{result}_lost")
        wins = count(candidate, "wins_gained") + count(candidate, "wins_lost")
        expected = wins * ratio(count(baseline, result), count(baseline, "wins"))
        # Where no win brought any, nobody knows how many to expect.
        many = (expected >= UNSEEN * np.minimum(weight, 1.0)) | ((count(baseline, result) == 0) & (wins > 0))
        unseen, none = (seen == 0) & many, np.zeros(len(seen), dtype=bool)
        for metric in metrics:
            found[metric] = found.get(metric, none) | unseen
        if ("value", None, None) in candidate:
            ours, theirs = (values[("value", None, None)].parts for values in (baseline, candidate))
            assert ours is not None
            assert theirs is not None
            still = (ours == theirs).all(axis=1)
            for metric in WORTH:
                found[metric] = found.get(metric, none) | (unseen & still)
    return found


def _hull(one: Bounds, other: Bounds) -> Bounds:
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])


def differences(
    baseline: Values, candidate: Values, sample: Sample, rare: Rare | None = None
) -> Iterator[tuple[tuple[str, str | None, float | None], Change]]:
    """Every metric that both have, paired by bucket of units. rare: what few rows that are decided differently leave open."""
    unseen = _unseen(baseline, candidate, 1.0 if rare is None else rare.weight)
    for key, theirs in candidate.items():
        if key in baseline:
            ours = baseline[key]
            change = theirs.value - ours.value
            absolute, relative = absolute_interval(ours, theirs, sample), relative_interval(ours, theirs, sample)
            if theirs.exact is not None:
                exact = replace(theirs, value=theirs.exact)
                absolute = _hull(absolute, absolute_interval(ours, exact, sample))
                relative = _hull(relative, relative_interval(ours, exact, sample))
            unknown = unseen.get(key[0], theirs.unseen)
            if key[1] is not None and ours.extreme is not None and theirs.extreme is not None:
                # Predictions that are the same differ by nothing whatever.
                churn = candidate.get(("churn", key[1], None))
                unknown = (ours.extreme | theirs.extreme) & (churn is None or churn.value != 0)
            if unknown is not None:
                absolute, relative = (
                    (np.where(unknown, np.nan, low), np.where(unknown, np.nan, high))
                    for low, high in (absolute, relative)
                )
            size, share = np.abs(ours.value), ratio(change, np.abs(ours.value))
            if rare is not None and key[1] is None:
                reach = rare.reach(key[0], ours.value, sample.confidence, absolute[0] == absolute[1])
                if reach is not None:
                    # What is never negative falls by all of it at most.
                    least = -np.inf if key[0] in SIGNED else -size
                    absolute = widened(change, absolute, reach, least=least)
                    least = -np.inf if key[0] in SIGNED else -1.0
                    relative = widened(share, relative, ratio(reach, size), least=least)
            absolute = within(change, absolute, limits_of(key[0], "absolute"))
            relative = within(share, relative, limits_of(key[0], "relative"))
            yield key, Change(ours.value, theirs.value, change, absolute, share, relative)
