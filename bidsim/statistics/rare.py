"""What a handful of rows that two policies decide differently leaves unknown of a change.

Where both win the very same rows every change is zero in every bucket of units, and a spread taken from buckets is zero
too; of one or two rows it is hardly better. But none of n rows says only that -ln(0.025) = 3.7 of n may be decided
differently next time (the rule of three, two-sided; Hanley, Lippman-Hand 1983, "If nothing goes wrong, is everything all
right?"). So much is added to the interval, less the more such rows there are, and nothing from `FEW` on or where both
bid the same on every row. Such a row counts as one that costs what a bid is worth and brings what a win brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.spread import Bounds
from bidsim.statistics.tallies import Family, ratio

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# So many rows that are decided differently show by themselves how much they scatter.
FEW = 10
# Of sums of fixed-point numbers, relative.
ROUNDING = 1e-6
RESULTS = frozenset(
    ("win_rate", "clicks", "conversions", "ctr", "cvr", "value", "predicted_clicks", "predicted_conversions")
)
COSTS = frozenset(("cpm", "cpc", "cpa", "target_attainment"))
# What they are made of.
SHARES = {"win_rate": ("wins", "bids"), "ctr": ("clicks", "wins"), "cvr": ("conversions", "clicks")}
# Of a value less what it costs.
WORTH = frozenset(("surplus", "expected_utility"))
MATCHED = frozenset(f"{name}_at_matched_spend" for name in ("clicks", "conversions", "cpc", "cpa"))


@dataclass(frozen=True)
class Rare:
    """Rows that may yet be decided differently, by segment value, shape (values,) each.

    weight: of such a row, in wins; money: what it costs, in currency; wins, spend, value: of the baseline; either: wins of
    one of both at least; events: how many were decided differently, in rows; same: whether both bid the same everywhere,
    ranked: but for one factor.
    """

    weight: Floats
    money: Floats
    wins: Floats
    spend: Floats
    value: Floats
    either: Floats
    events: Floats
    same: Bools
    ranked: Bools

    @staticmethod
    def of(family: Family, policy: int) -> Rare | None:
        """Of a candidate beside the baseline; None where the tables don't say (those of earlier builds)."""
        if not family.has("bid_level_from", policy) or not family.has("wins_gained", policy):
            return None
        theirs, ours = (family.by_bucket(name, policy) for name in ("bid_level", "bid_level_from"))
        entered = (family.by_bucket("bids", 0) == family.by_bucket("bids", policy)).all(axis=1)
        level = ratio(theirs.sum(axis=1), ours.sum(axis=1))[:, None]
        weight = family.row_weight
        wins, spend = family.get("wins", 0), family.get("spend", 0)
        bid = ratio(family.get("bid_level_from", policy), family.get("bids", 0)) / 1000
        same = entered & (theirs == ours).all(axis=1)
        return Rare(
            weight=weight,
            money=weight * np.fmax(bid, ratio(spend, wins)),
            wins=wins,
            spend=spend,
            value=family.get("value", 0),
            either=family.observed("wins", 0) + family.get("wins_gained", policy),
            events=ratio(family.get("wins_gained", policy) + family.get("wins_lost", policy), weight),
            same=same,
            # Where they never bid on the same row there is no factor, though both may bid nothing.
            ranked=same | (entered & (np.abs(theirs - level * ours) <= ROUNDING * theirs).all(axis=1)),
        )

    def disagreement(self, confidence: float) -> Floats:
        """How far they may move the share of the rows that one of both wins alone."""
        rows = np.where(self.same, 0.0, hidden_rows(self.events, confidence))
        return self._moved(rows, ratio(self.weight, self.either))

    def reach(self, metric: str, baseline: Floats, confidence: float, still: Bools) -> Floats | None:
        """How far they may move a metric of the candidate, in its unit; NaN where that can't be said, None for a metric that
        does not rest on wins. baseline: the baseline's values, shape (values,); still: whether its change has no spread."""
        matched = metric in MATCHED
        # What multiplied bids decide differently is not counted; where nothing moves they decide alike.
        events = np.where(still & matched, 0.0, self.events)
        rows = np.where(self.ranked if matched else self.same, 0.0, hidden_rows(events, confidence))
        if metric == "spend":
            return self._moved(rows, self.money)
        if metric == "wins":
            return self._moved(rows, self.weight)
        won, paid = ratio(self.weight, self.wins), ratio(self.money, self.spend)
        if metric in RESULTS or metric in COSTS or matched:
            # Where there was no result, nobody knows what such a row brings.
            known = np.where(baseline == 0, np.nan, np.abs(baseline))
            return self._moved(rows, known * (won if metric in RESULTS else np.fmax(won, paid)))
        if metric in WORTH:
            return self._moved(rows, np.abs(self.value) * won + self.money)
        if metric == "roi":
            return self._moved(rows, np.abs(baseline + 1) * np.fmax(won, paid))
        return None

    @staticmethod
    def _moved(rows: Floats, each: Floats) -> Floats:
        return np.where(rows > 0, rows * each, 0.0)


def hidden_rows(events: Floats, confidence: float) -> Floats:
    """How many rows there may be beside those that were seen (events), as what is added to a half-length in quadrature."""
    return np.asarray(-np.log((1 - confidence) / 2) * np.sqrt(np.clip(1 - events / FEW, 0.0, 1.0)))


def with_exceptions(metric: str, family: Family, policy: int, bounds: Bounds, confidence: float) -> Bounds:
    """The interval of a policy's share of rows, such as of bids that win, where nearly all do: how many that don't may be."""
    above, below = SHARES[metric]
    part, all_ = family.get(above, policy), family.get(below, policy)
    weight = family.row_weight
    by = hidden_rows(ratio(all_ - part, weight), confidence) * ratio(weight, all_)
    # A row may count as several conversions, or as part of one.
    return widened(ratio(part, all_), bounds, np.where(part <= all_, by, 0.0), least=0.0, most=1.0)


def widened(
    centre: Floats, bounds: Bounds, by: Floats, *, least: Floats | float = -np.inf, most: Floats | float = np.inf
) -> Bounds:
    """Bounds with what is added to them. by: in their unit; least, most: of what the number can be at all."""
    low, high = bounds
    # Only where something is added: the square root of a square is not always the number.
    lower = np.maximum(centre - np.hypot(centre - low, by), least)
    upper = np.minimum(centre + np.hypot(high - centre, by), most)
    return np.where(by == 0, low, lower), np.where(by == 0, high, upper)
