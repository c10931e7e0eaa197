"""What the scan counts of the log's own bids, and of what it leaves open: for fidelity and for what exchanges tell.

A row's facts are a few bits (see sql/stream.sql), so counts by their pattern answer every question afterwards. The whole
log only, exact; merges like everything that the scan sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bidsim import kernels
from bidsim.kernels.reference import Wide, add_wide, limbs, wide
from bidsim.replay.batches import ROW_WON, UNKNOWN, Batch
from bidsim.replay.measures import AMOUNT_BITS, Adder
from bidsim.replay.plan import Plan
from bidsim.statistics.tallies import MOST

ROW_LOST = 8
COMPARABLE, REPLAYED, BLOCKED, HAS_BID, DRIFTED, SHOWN, OWN_PRICE = 1, 2, 4, 8, 16, 32, 64
ROW_BITS, LOGGED_BITS, STATE_BITS = 4, 7, 4
FIRST_PRICE = 1 << (ROW_BITS + LOGGED_BITS)
PATTERNS = FIRST_PRICE << 1
SUMS = ("rows", "weight", "paid", "clicks", "conversions")
Patterns = npt.NDArray[np.int64]


def add_drift(add: Adder, batch: Batch) -> None:
    """Rows whose logged bid stands beside the baseline's recomputed one, and those of them where it differs."""
    if "logged" not in batch.columns:
        return
    bits = batch["logged"]
    compared = (bits & (COMPARABLE | HAS_BID)) == (COMPARABLE | HAS_BID)
    add.whole(("bids_compared", 0, None), batch.pick(compared), None)
    add.whole(("bids_drifted", 0, None), batch.pick(compared & ((bits & DRIFTED) != 0)), None)


class Logged:
    """Sums by pattern. policies: indices of those whose open rows are counted; campaigns: how many there are.

    labels: numbers of rows by which label they have or lack (see `checks.counted`).
    """

    def __init__(self, plan: Plan, policies: Sequence[int], campaigns: int = 0) -> None:
        self.plan = plan
        self.labels = dict.fromkeys(("no_click", "clicks", "no_conversion", "conversions"), 0)
        self._spend: Wide = wide(campaigns)
        self.policies = list(policies)
        self._sums: dict[str, Wide] = {name: wide(PATTERNS) for name in SUMS}
        self._states: list[Wide] = [wide(1 << (ROW_BITS + STATE_BITS)) for _ in policies]
        self._open: Wide = wide(1 << ROW_BITS)

    def add(self, batch: Batch) -> None:
        plan, n = self.plan, batch.rows
        row = batch["row"].astype(np.int64)
        pattern = row
        if "logged" in batch.columns:
            pattern = row | (batch["logged"].astype(np.int64) << ROW_BITS)
        if plan.any_first_price:
            pattern = pattern | (batch["first_price"].astype(np.int64) * FIRST_PRICE)
        weight = batch["wi"] if plan.weighted else None

        def count(name: str, rows: Any) -> None:
            sums = [self._sums[name]]
            many = n if rows is None else len(rows)
            if weight is None:
                kernels.sum_ones(many, rows, [pattern], sums)
            else:
                kernels.sum_ints(many, rows, weight if rows is None else weight[rows], [pattern], sums)

        self._add_labels(batch)
        if len(self._spend):
            assert plan.campaign_segment is not None
            paid = np.flatnonzero((batch["row"] & ROW_WON) != 0)
            kernels.sum_ints(len(paid), paid, batch["money"][paid], [batch.codes[plan.campaign_segment]], [self._spend])
        kernels.sum_ones(n, None, [pattern], [self._sums["rows"]])
        count("weight", None)
        kernels.sum_ints(n, None, batch.columns.get("paid", batch["money"]), [pattern], [self._sums["paid"]])
        if plan.has("click"):
            count("clicks", np.flatnonzero(batch["click"] == 1))
        if plan.has("conversion"):
            some = np.flatnonzero(batch["conversion"] > 0)
            w = batch["w"] if plan.weighted else None
            values = batch["conversion"][some]
            kernels.sum_fixed(
                len(some), some, values, w, 2.0**AMOUNT_BITS, MOST, [pattern], [self._sums["conversions"]]
            )
        unknown = np.zeros(n, dtype=bool)
        for policy, sums in zip(self.policies, self._states, strict=True):
            state = batch[f"policy_{policy}"].astype(np.int64)
            both = row | (state << ROW_BITS)
            if weight is None:
                kernels.sum_ones(n, None, [both], [sums])
            else:
                kernels.sum_ints(n, None, weight, [both], [sums])
            unknown |= (state & UNKNOWN) != 0
        rows = np.flatnonzero(unknown)
        kernels.sum_ints(
            len(rows), rows, np.ones(len(rows), dtype=np.int64) if weight is None else weight[rows], [row], [self._open]
        )

    def _add_labels(self, batch: Batch) -> None:
        plan, won = self.plan, (batch["row"] & ROW_WON) != 0
        clicked = None
        if plan.has("click"):
            click = batch["click"]
            clicked = np.flatnonzero(won & (click == 1))
            self.labels["no_click"] += int(np.count_nonzero(won & (click > 1)))
            self.labels["clicks"] += len(clicked)
        if plan.has("conversion"):
            conversion = batch["conversion"]
            self.labels["conversions"] += int(np.count_nonzero(conversion > 0))
            if clicked is not None:
                self.labels["no_conversion"] += int(np.count_nonzero(np.isnan(conversion[clicked])))

    def spend(self) -> list[float]:
        """What the log paid for its wins, by campaign, in 1e-9 CPM times the weight."""
        high, low = limbs(self._spend)
        return [float((int(h) << 32) + int(x)) for h, x in zip(high, low, strict=True)]

    def merge(self, other: Self) -> None:
        for name, rows in other.labels.items():
            self.labels[name] += rows
        ours = [*self._sums.values(), *self._states, self._open, self._spend]
        theirs = [*other._sums.values(), *other._states, other._open, other._spend]
        for mine, more in zip(ours, theirs, strict=True):
            add_wide(mine, more[:, 0], more[:, 1])

    def total(self, name: str, where: Any = None) -> int:
        """A sum over the patterns for which `where` holds; where: called with (row bits, logged bits, first price)."""
        pattern = np.arange(PATTERNS)
        chosen = np.ones(PATTERNS, dtype=bool)
        if where is not None:
            row, logged = pattern & ((1 << ROW_BITS) - 1), (pattern >> ROW_BITS) & ((1 << LOGGED_BITS) - 1)
            chosen = where(row, logged, (pattern & FIRST_PRICE) != 0)
        return _total(self._sums[name], chosen)

    def of_policy(self, place: int, where: Any) -> int:
        """Weight of the rows by what they are to a policy; where: called with (row bits, state bits)."""
        pattern = np.arange(1 << (ROW_BITS + STATE_BITS))
        return _total(self._states[place], where(pattern & ((1 << ROW_BITS) - 1), pattern >> ROW_BITS))

    def open_rows(self, where: Any) -> int:
        """Weight of the rows that may be won by some policy or not; where: called with the row bits."""
        return _total(self._open, where(np.arange(1 << ROW_BITS)))


def _total(sums: Wide, chosen: npt.NDArray[np.bool_]) -> int:
    high, low = limbs(sums[chosen])
    return sum((int(h) << 32) + int(x) for h, x in zip(high, low, strict=True))
