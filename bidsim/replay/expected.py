"""`outcomes: predicted`: what rows of unknown fate count for in expectation (spec 3.6).

A win whose outcome nobody saw counts the baseline's calibrated probabilities, never the candidate's own. An unknown win
counts its chance, from win curves estimated on the log, and the mean price at that. Curves are by campaign where it has
enough rows, else of the whole log, for second-price and first-price auctions apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.errors import LogError
from bidsim.replay.batches import Batch
from bidsim.replay.engines import AnyEngine
from bidsim.replay.measures import COUNT_BITS
from bidsim.replay.plan import Plan
from bidsim.replay.sql import render
from bidsim.replay.worth import worth_of
from bidsim.statistics.tallies import Family, Key, Tally
from bidsim.statistics.winning import (
    CELLS,
    LOWEST,
    PER_OCTAVE,
    Curves,
    expected_win,
    monotone,
    product_limit,
    self_consistent,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A campaign has a curve of its own from so many rows, and so many prices seen among them.
LEAST_ROWS, LEAST_PRICES = 2_000, 200
# A monotone fit needs bids of several sizes, or it says nothing between them.
LEAST_LEVELS = 8
FIXED = 2.0**40
MONEY = 10.0**9
NAMES = ("wins", "spend", "clicks", "conversions", "value")


@dataclass(frozen=True)
class WinCurves:
    """curves, with the index of the one for each campaign: shape (2, campaigns), second price first."""

    curves: Curves
    index: Ints


def estimate_curves(engine: AnyEngine, plan: Plan, campaigns: int) -> WinCurves:
    """From the log. campaigns: how many codes there are, 1 without a campaign column.

    Raises LogError for first-price auctions that show few prices and too few sizes of bids.
    """
    place = plan.campaign_segment
    sql = render(
        "curves",
        campaigns=place,
        column=None if place is None else plan.segments[place].column,
        cells=CELLS,
        lowest=LOWEST,
        per_octave=PER_OCTAVE,
    )
    scale = 2.0**COUNT_BITS if plan.weighted else 1.0
    found: dict[tuple[bool, int, int], Floats] = {}
    seen: Counter[tuple[bool, int, int]] = Counter()
    for code, first_price, kind, cell, weight, rows in engine.rows(sql):
        seen[(bool(first_price), int(code), int(kind))] += int(rows)
        for whose in (int(code), -1):
            weights = found.setdefault((bool(first_price), whose, int(kind)), np.zeros(CELLS + 1))
            weights[int(cell)] += int(weight) / scale
    nothing = np.zeros(CELLS + 1)
    chances: list[Floats] = []
    index = np.zeros((2, campaigns), dtype=np.int64)
    for first_price in (False, True):
        overall = len(chances)
        priced = sum(n for (kind_of, _, kind), n in seen.items() if kind_of == first_price and kind == 0)
        chances.append(_chance(plan, priced, *(found.get((first_price, -1, k), nothing) for k in range(3))))
        index[int(first_price)] = overall
        for code in range(campaigns):
            prices, losses, wins = (found.get((first_price, code, k), nothing) for k in range(3))
            # Rows, not what they stand for: weights make a curve no better known.
            counts = [seen[(first_price, code, k)] for k in range(3)]
            if counts[0] >= LEAST_PRICES and sum(counts) >= LEAST_ROWS:
                index[int(first_price), code] = len(chances)
                chances.append(_chance(plan, counts[0], prices, losses, wins))
    return WinCurves(Curves.of(np.array(chances)), index)


def _chance(plan: Plan, seen: int, prices: Floats, losses: Floats, wins: Floats) -> Floats:
    """seen: number of rows with a price; wins: without a known price, in first price."""
    if not wins.any():
        # Prices known of losses too, or of wins only: the losses without one bound theirs from below.
        return product_limit(prices, losses)
    # A few prices mend what bids of few sizes leave open no more than they would alone.
    levels = int(np.count_nonzero(losses + wins))
    if seen < LEAST_PRICES and levels < LEAST_LEVELS:
        raise LogError(
            f"outcomes: predicted needs to know how bids win, but first-price auctions show {seen or 'no'} prices and only "
            f"{levels} sizes of bids; give columns.price (the minimum bid to win), or use outcomes: observed",
            file=plan.source.files[0],
        )
    return self_consistent(prices, losses, wins) if prices.any() else monotone(wins, losses)


class Expectation:
    """Adds what unknown rows count for. baseline: by result, (source, calibration factor) of the baseline's prediction."""

    def __init__(self, plan: Plan, curves: WinCurves, baseline: dict[str, tuple[int, float]]) -> None:
        self.plan = plan
        self.curves = curves
        self.baseline = baseline

    def add(self, batch: Batch, tallies: list[Tally]) -> None:
        """tallies: one for each family of the batch, by segment value and bucket."""
        plan = self.plan
        brings = self._brings(batch)
        weight = batch["w"] if plan.weighted else np.ones(batch.rows)
        place = plan.campaign_segment
        code = np.zeros(batch.rows, dtype=np.int64) if place is None else batch.codes[place]
        first = batch["first_price"] == 1
        won = batch["won"] == 1
        floor = batch.columns.get("floor_cpm")
        curve = self.curves.index[first.astype(np.int64), code]
        for policy in plan.policies:
            unknown = batch[f"unknown_{policy.index}"]
            rows = np.flatnonzero(unknown)
            if len(rows) == 0:
                continue
            chance = np.ones(len(rows))
            # In 1e-9 CPM times the weight; what a known win costs is exact.
            cost = batch[f"cheap_{policy.index}"][rows].astype(np.float64)
            open_rows = np.flatnonzero(unknown[rows] == 1)
            at = rows[open_rows]
            chance[open_rows], mean = expected_win(
                self.curves.curves,
                curve[at],
                batch[f"bid_{policy.index}"][at],
                batch["bid_log"][at],
                first[at],
                won[at],
                floor[at] if floor is not None else None,
            )
            cost[open_rows] = mean * weight[at] * 1e9
            sums: dict[str, Floats] = {"wins": chance * weight[rows] * FIXED, "spend": cost}
            for name, each in brings.items():
                scale = MONEY if name == "value" else FIXED
                sums[name] = chance * each[rows] * weight[rows] * scale
            for family, tally in enumerate(tallies):
                group = batch.groups[family][rows]
                for name, values in sums.items():
                    tally.add((name, policy.index, None), group, np.rint(values))

    def _brings(self, batch: Batch) -> dict[str, Floats]:
        """What each row brings if it is won: its label where the log shows it, else what the baseline expects of it."""
        out: dict[str, Floats] = {}
        for result, label in (("clicks", "click"), ("conversions", "conversion")):
            if result in self.baseline:
                source, factor = self.baseline[result]
                believed = np.nan_to_num(np.minimum(batch[f"score_{source}"] * factor, 1.0), nan=0.0)
                seen = batch[label].astype(np.float64)
                out[result] = np.where(np.isnan(seen), believed, seen)
        value = worth_of(self.plan, batch.columns, out)
        if value is not None:
            out["value"] = value
        return out

    def families(self, families: dict[str, Family], tallies: list[Tally]) -> dict[str, dict[Key, Floats]]:
        """What is expected, by family and key, in the measures' own units, shape (values, buckets)."""
        out = {}
        for (name, family), tally in zip(families.items(), tallies, strict=True):
            parts = tally.exact(len(family.values), family.buckets)[1]
            out[name] = {
                key: part / (MONEY * 1e3 if key[0] == "spend" else MONEY if key[0] == "value" else FIXED)
                for key, part in parts.items()
                if key in family.scales
            }
        return out
