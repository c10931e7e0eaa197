"""Where each row's bid starts to win: the spend frontier of a log without a budget, from the main scan.

A row wins from one multiplier of its bid upwards, so counting rows by it (`LevelScan`) gives what any level would win;
in first price what is paid grows with the multiplier, to the bid's maximum. Where a win's chance depends on other rows
(budgets, internal auctions), or what is paid does not grow in proportion (first-price bids that are rounded): `sweeps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.replay.batches import Batch
from bidsim.replay.measures import AMOUNT_BITS, COUNT_BITS, MONEY_SCALE, MOST_PAID, whole_money
from bidsim.replay.plan import Plan
from bidsim.replay.policies import PolicyPlan, bidder
from bidsim.statistics.frontier import Grid, Levels, Totals
from bidsim.statistics.split import SUMS, Stage
from bidsim.statistics.tables import AtLevel, Matched
from bidsim.statistics.tallies import OVERALL, Key, Tally

Frontier = dict[int, list[tuple[float, Totals]]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A fine grid leaves fewer rows to walk, a coarse one fewer cells to keep for many segment values.
FINE_GRID, COARSE_GRID, MANY_VALUES = 16, 4, 300
GROWING = "growing"


@dataclass(frozen=True)
class OtherLevels:
    """What other bid levels would do. frontier: by policy; matched: by policy and family, at the baseline's spend;
    stages: by candidate, the baseline moved to its level, overall and campaign by campaign; seen: by policy and family, the
    sums by cell of a grid from which they come, where they come from one."""

    frontier: Frontier
    matched: dict[tuple[int, str], Matched]
    stages: dict[int, tuple[Stage, Stage]]
    grid: Grid | None = None
    seen: Mapping[int, dict[str, Levels]] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """SQL of the multiplier at which the bid on each row starts to win, NaN where none does. raw: of the bid at multiplier
    one before it is cut, where that is what may be paid."""

    policy: int
    sql: str
    raw: str | None = None


def level_starts(plan: Plan, ties_lose: bool) -> list[Start]:
    """For every policy; empty where multipliers of single rows can't say what wins and costs (see above)."""
    rounded = plan.any_first_price and any(p.round_down for p in plan.policies)
    if plan.budgeted or plan.internal or rounded:
        return []
    raws = [bidder(p, str(p.index)).raw if plan.any_first_price else None for p in plan.policies]
    return [Start(p.index, start_of(plan, p, ties_lose), raw) for p, raw in zip(plan.policies, raws, strict=True)]


def winnable(plan: Plan) -> str:
    """SQL: whether a bid that is high enough is a counted win; a row with a price is decidable."""
    return f"observed and {_priced(plan)}"


def _priced(plan: Plan) -> str:
    known = "price is not null"
    if plan.any_first_price:  # a win at an unknown price is won again by the logged bid
        known = "(price is not null or (won and first_price and bid_log is not null))"
    return f"{known}{' and not blocked' if plan.has('loss_reason') else ''}"


def start_of(plan: Plan, policy: PolicyPlan, ties_lose: bool) -> str:
    """SQL of the multiplier at which a policy's bid starts to win at a known price, NaN where none does."""
    b = bidder(policy, str(policy.index))
    price = "coalesce(price, bid_log)" if plan.any_first_price else "price"
    if b.round_down:
        bar = f"(floor({price}) + 1e0)" if ties_lose else f"ceil({price})"
    else:
        bar = price
    reach = f" and not (first_price and {b.limited} * w >= 9e9)" if plan.any_first_price else ""  # as bids.sql
    if policy.max is not None:
        # Above max no multiplier helps; unrounded bids must beat the price strictly where ties lose.
        strictly = ties_lose and not b.round_down
        most = f"{policy.max!r}::double"
        equal = f" or (price is null and {bar} <= {most})" if plan.any_first_price and strictly else ""
        reach += f" and ({bar} {'<' if strictly else '<='} {most}{equal})"
    raw = b.raw
    # Prices are never negative: only a minimum above zero can stand in the way.
    start = f"{f'greatest({bar}, {b.min})' if policy.min else bar} / {raw}"
    if ties_lose:
        # Where min or a whole unit decides, reaching it is enough: start a hair lower, so that above means at or above.
        # So where the logged bid itself, which won, is reached.
        reached = "true" if b.round_down else f"price < {b.min}"
        reached = f"(price is null or {reached})" if plan.any_first_price else reached
        start = f"{start} * case when {reached} then {1 - 2.0**-52!r}::double else 1e0 end"
    return f"case when {_priced(plan)} and isfinite({raw}) and {raw} > 0e0{reach} then {start} else 'nan'::double end"


def whole_sums(plan: Plan, batch: Batch, rows: Ints) -> dict[str, npt.NDArray[Any]]:
    """Whole-number money, clicks and conversions of some rows."""
    out: dict[str, npt.NDArray[Any]] = {"spend": batch["money"][rows]}
    if plan.has("click"):
        clicks = batch["click"][rows] == 1
        out["clicks"] = np.where(clicks, batch["wi"][rows], 0) if plan.weighted else clicks.astype(np.int64)
    if plan.has("conversion"):
        amount = batch["conversion"][rows] * (batch["w"][rows] if plan.weighted else 1.0)
        out["conversions"] = np.rint(amount * 2.0**AMOUNT_BITS).astype(np.int64)
    return out


@dataclass(frozen=True)
class RowSteps:
    """What some rows add to a policy's wins from a multiplier on. rows: their places in the batch; sums: whole numbers by
    name, GROWING the bids at multiplier one where it is the bids that are paid. Shape (steps,) each."""

    rows: Ints
    at: Floats
    sums: dict[str, npt.NDArray[Any]]


def steps_of(plan: Plan, batch: Batch, policy: int, counted: npt.NDArray[np.bool_] | None = None) -> Iterator[RowSteps]:
    """The steps of a policy's bids on the rows of a batch. counted: of which rows, None for all."""
    start = batch[f"start_{policy}"]
    wins = ~np.isnan(start)
    rows = np.flatnonzero(wins if counted is None else wins & counted)
    if len(rows) == 0:
        return
    sums = whole_sums(plan, batch, rows)
    if not plan.any_first_price:
        yield RowSteps(rows, start[rows], sums)
        return
    own = batch["first_price"][rows] == 1
    weight = batch["w"][rows] if plan.weighted else np.ones(len(rows))
    raw = batch[f"raw_{policy}"][rows]
    # Of more than can be paid, a bid is cut as soon as it wins: see `start_of`.
    fits = own & (raw * weight < MOST_PAID)
    growing = np.where(fits, whole_money(raw, weight), 0)
    yield RowSteps(rows, start[rows], sums | {"spend": np.where(own, 0, sums["spend"]), GROWING: growing})
    most = plan.policies[policy].max
    if most is not None:
        cut = np.flatnonzero(own)
        at = np.where(fits[cut], np.maximum(most / raw[cut], start[rows][cut]), start[rows][cut])
        capped = whole_money(np.full(len(cut), most), weight[cut])
        yield RowSteps(rows[cut], at, {"spend": capped, GROWING: -growing[cut]})


class LevelScan:
    """Counts the rows of batches whose outcome was observed, by segment value and cell of the multipliers of their steps."""

    def __init__(self, plan: Plan, sizes: Sequence[int], grid: Grid) -> None:
        self.plan = plan
        self.grid = grid
        self.sizes = list(sizes)
        self.tallies = [Tally(size * grid.cells) for size in sizes]

    def add(self, batch: Batch) -> None:
        for policy in self.plan.policies:
            for steps in steps_of(self.plan, batch, policy.index, batch.observed):
                cell = self.grid.cell(steps.at)
                for i, tally in enumerate(self.tallies):
                    at = batch.codes[i][steps.rows] * self.grid.cells + cell if batch.codes else cell
                    for name, values in steps.sums.items():
                        key: Key = (name, policy.index, None)
                        if name == "spend":
                            tally.add(key, at, values)
                        else:
                            some = np.flatnonzero(values)
                            tally.add(key, at[some], values[some])

    def merge(self, other: LevelScan) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)

    def levels(self, policy: int, names: Sequence[str]) -> dict[str, Levels]:
        """By family name; the whole log is the sum over the first segment."""
        found: dict[str, Levels] = {}
        for name, size, tally in zip(names or [OVERALL], self.sizes, self.tallies, strict=True):
            sums = tally.exact(size * self.grid.cells, 1)[0]
            zero = np.zeros(size * self.grid.cells, dtype=object)
            spend, clicks, conversions, growing = (
                sums.get((what, policy, None), zero).reshape(size, self.grid.cells) for what in (*SUMS, GROWING)
            )
            found[name] = Levels(spend, clicks, conversions, growing if self.plan.any_first_price else None)
        if OVERALL not in found:
            found[OVERALL] = found[names[0]].together()
        return found


def level_scan(plan: Plan, values: Sequence[tuple[str, ...]], ties_lose: bool) -> Callable[[], LevelScan]:
    """What makes one."""
    most = max((len(v) for v in values), default=1)
    grid = Grid(FINE_GRID if most <= MANY_VALUES else COARSE_GRID, ties_lose)
    return partial(LevelScan, plan, [len(v) for v in values] or [1], grid)


def count_scale(plan: Plan) -> int:
    return 2**COUNT_BITS if plan.weighted else 1


def sum_scales(plan: Plan) -> dict[str, int]:
    """What the whole-number sums of wins are divided by."""
    return {"spend": MONEY_SCALE, "clicks": count_scale(plan), "conversions": 2**AMOUNT_BITS}


def matched_at(
    plan: Plan,
    results: Sequence[tuple[Totals, float] | None],
    level: AtLevel | None = None,
) -> Matched:
    """results: by segment value, the totals and the multiplier at which they are reached; None: out of reach."""

    def column(value: Callable[[Totals], int], scale: int) -> Any:
        return np.array([np.nan if r is None else value(r[0]) / scale for r in results])

    return Matched(
        multiplier=np.array([np.nan if r is None else r[1] for r in results]),
        spend=column(lambda t: t.spend, MONEY_SCALE),
        clicks=column(lambda t: t.clicks, count_scale(plan)),
        conversions=column(lambda t: t.conversions, 2**AMOUNT_BITS),
        level=level,
    )
