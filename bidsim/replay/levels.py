"""The replay at other bid levels: the spend frontier, and each policy brought to the baseline's spend.

In second price without a budget one scan counts rows by the multiplier at which they start to win; the crossing cell
is then walked row by row, so the matched multiplier is exact. With first-price payments or budgets a win's price or
chance depends on the multiplier itself: whole replays at many multipliers bracket the match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bidsim.replay.engine import Engine
from bidsim.replay.measures import MONEY_SCALE, Writer
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder, PolicyPlan, bidder
from bidsim.replay.sql import render
from bidsim.replay.stages import Stages
from bidsim.statistics.frontier import CELLS_PER_OCTAVE, MULTIPLIERS, OCTAVES, Totals, climb, crossing, upto
from bidsim.statistics.metrics import Matched
from bidsim.statistics.tallies import OVERALL, Family

LAST = CELLS_PER_OCTAVE * OCTAVES
Frontier = dict[int, list[tuple[float, Totals]]]
Levels = tuple[Frontier, dict[tuple[int, str], Matched]]

# Whole replays: a coarse grid first, then two refinements between the neighbours that bracket the match.
COARSE: tuple[float, ...] = tuple(float(2.0 ** (j / 2)) for j in range(-8, 9))
REFINEMENTS = 2
FINE = 13


def levels(engine: Engine, plan: Plan, stages: Stages, families: dict[str, Family]) -> Levels:
    """(frontier by policy, matched results by policy and family). See the module for the two ways."""
    if plan.any_first_price or plan.budgeted:
        return _by_replays(engine, plan, stages, families)
    return _by_cells(engine, plan, stages, families)


def _sums(plan: Plan) -> str:
    write = Writer(plan.weighted)
    clicks = write.count("click = 1e0")[0] if plan.has("click") else "0"
    conversions = write.amount("conversion", "true")[0] if plan.has("conversion") else "0"
    return (
        "sum(cast(floor(price * w * 1e9 + 0.5e0) as bigint)) as spend, sum(wi) as wins, "
        f"sum({clicks}) as clicks, sum({conversions}) as conversions"
    )


def _totals(row: Sequence[Any]) -> Totals:
    return Totals(*(int(v or 0) for v in row))


def _by_cells(engine: Engine, plan: Plan, stages: Stages, families: dict[str, Family]) -> Levels:
    marks = [_start(p, stages.ties_lose) for p in plan.policies]
    celled = render(
        "cells",
        bidders=marks,
        ties_lose=stages.ties_lose,
        per_octave=CELLS_PER_OCTAVE,
        lowest=f"{2.0**-OCTAVES!r}::double",
        first=-LAST,
        last=LAST,
    )
    sets = [f"(cell_{m['key']})" for m in marks]
    sets += [f"(cell_{m['key']}, {s.column})" for m in marks for s in plan.segments]
    names = [f"cell_{m['key']}" for m in marks] + [s.column for s in plan.segments]
    engine.run(
        f"create or replace table levels as select grouping({', '.join(names)}) as family, {', '.join(names)}, "
        f"{_sums(plan)} from ({celled}) group by grouping sets ({', '.join(sets)})"
    )
    frontier: Frontier = {}
    matched: dict[tuple[int, str], Matched] = {}
    everything = (1 << len(names)) - 1
    for m, policy in zip(marks, plan.policies, strict=True):
        cell = f"cell_{m['key']}"
        bit = 1 << (len(names) - 1 - policy.index)
        rows = engine.rows(
            f"select {cell}, spend, wins, clicks, conversions from levels "
            f"where family = {everything & ~bit} and {cell} is not null order by 1"
        )
        cells = {int(r[0]): _totals(r[1:]) for r in rows}
        edges = [(x, round(np.log2(x) * CELLS_PER_OCTAVE) - (1 if stages.ties_lose else 0)) for x in MULTIPLIERS]
        frontier[policy.index] = [(x, upto(cells, edge)) for x, edge in edges]
        if policy.index == 0:
            continue
        by_family: dict[str, list[dict[int, Totals]]] = {OVERALL: [cells]}
        for i, segment in enumerate(plan.segments):
            seg_bit = 1 << (len(plan.segments) - 1 - i)
            found: list[dict[int, Totals]] = [{} for _ in families[segment.name].values]
            for r in engine.rows(
                f"select c.code, {cell}, spend, wins, clicks, conversions from levels l join codes_{i} c "
                f"on l.{segment.column} is not distinct from c.value "
                f"where family = {everything & ~bit & ~seg_bit} and {cell} is not null"
            ):
                found[int(r[0])][int(r[1])] = _totals(r[2:])
            by_family[segment.name] = found
        for name, tables in by_family.items():
            matched[(policy.index, name)] = _match(engine, plan, families[name], celled, cell, m["key"], tables)
    engine.run("drop table levels")
    return frontier, matched


def _start(policy: PolicyPlan, ties_lose: bool) -> dict[str, str]:
    """What the cells need of a policy: its bid, the bid that wins a row's auction, and whether max lets it get there."""
    b = bidder(policy, str(policy.index))
    if b.round_down:
        bar = "(floor(price) + 1e0)" if ties_lose else "ceil(price)"
    else:
        bar = "price"
    reach = ""
    if policy.max is not None:
        # Above max no multiplier helps; unrounded bids must beat the price strictly where ties lose.
        strictly = ties_lose and not b.round_down
        reach = f"{bar} {'<' if strictly else '<='} {policy.max!r}::double"
    return {"key": b.key, "raw": b.raw, "bar": bar, "min": b.min, "reach": reach}


def _match(
    engine: Engine, plan: Plan, family: Family, celled: str, cell: str, key: str, tables: list[dict[int, Totals]]
) -> Matched:
    """The largest multiplier whose spend is at most the baseline's, for each segment value."""
    goals = family.exact("spend", 0)
    below = [crossing(cells, goal) for cells, goal in zip(tables, goals, strict=True)]
    open_cells = {code: cut for code, (_, cut) in enumerate(below) if cut is not None}
    steps: dict[int, list[tuple[float, Totals]]] = {}
    if open_cells:
        wanted = ", ".join(f"({code}, {cut})" for code, cut in open_cells.items())
        if family.name == OVERALL:
            join, code = f"join (values {wanted}) v(code, cut) on {cell} = v.cut", "0"
        else:
            i = next(i for i, s in enumerate(plan.segments) if s.name == family.name)
            join = (
                f"join codes_{i} c on r.{plan.segments[i].column} is not distinct from c.value "
                f"join (values {wanted}) v(code, cut) on c.code = v.code and {cell} = v.cut"
            )
            code = "c.code"
        for r in engine.rows(
            f"select {code} as code, start_{key} as start, {_sums(plan)} from ({celled}) r {join} group by all order by 1, 2"
        ):
            steps.setdefault(int(r[0]), []).append((float(r[1]), _totals(r[2:])))
    results: list[tuple[Totals, float] | None] = []
    for value, (start, cut) in enumerate(below):
        total, at = climb(start, steps.get(value, []), goals[value])
        if cut is None and total.spend < goals[value]:
            results.append(None)  # even winning everything the policy spends less
        elif at is not None:
            results.append((total, at))
        else:
            results.append((total, 2.0 ** ((cut - 1 if cut is not None else LAST) / CELLS_PER_OCTAVE)))
    return _matched(plan, results)


def _matched(plan: Plan, results: Sequence[tuple[Totals, float] | None]) -> Matched:
    write = Writer(plan.weighted)
    conversions = write.amount("0e0", "true")[1]

    def column(value: Callable[[Totals], int], scale: int) -> Any:
        return np.array([np.nan if r is None else value(r[0]) / scale for r in results])

    return Matched(
        multiplier=np.array([np.nan if r is None else r[1] for r in results]),
        spend=column(lambda t: t.spend, MONEY_SCALE),
        clicks=column(lambda t: t.clicks, write.count_scale),
        conversions=column(lambda t: t.conversions, conversions),
    )


def _by_replays(engine: Engine, plan: Plan, stages: Stages, families: dict[str, Family]) -> Levels:
    goal = families[OVERALL].exact("spend", 0)[0]
    known: dict[int, dict[float, Totals]] = {p.index: {} for p in plan.policies}

    def evaluate(wanted: dict[int, Sequence[float]]) -> None:
        bidders: list[Bidder] = []
        at: list[tuple[int, float]] = []
        for index, multipliers in wanted.items():
            for x in multipliers:
                if x not in known[index]:
                    bidders.append(bidder(plan.policies[index], f"x{len(bidders)}", x))
                    at.append((index, x))
        if not bidders:
            return
        view = stages.settle(bidders, "levels_outcomes")
        write = Writer(plan.weighted)
        sums = []
        for b in bidders:
            won = f"o_{b.key}"
            clicks = write.count(f"{won} and click = 1e0")[0] if plan.has("click") else "0"
            conversions = write.amount("conversion", won)[0] if plan.has("conversion") else "0"
            sums += [
                f"sum(case when {won} then cost_{b.key} else 0 end)",
                f"sum(case when {won} then wi else 0 end)",
                f"sum({clicks})",
                f"sum({conversions})",
            ]
        row = engine.rows(f"select {', '.join(sums)} from {view}")[0]
        for i, (index, x) in enumerate(at):
            known[index][x] = _totals(row[4 * i : 4 * i + 4])

    evaluate({p.index: COARSE for p in plan.policies})
    frontier: Frontier = {i: sorted(points.items()) for i, points in known.items()}
    for _ in range(REFINEMENTS):
        between: dict[int, Sequence[float]] = {}
        for policy in plan.policies[1:]:
            low, high = _bracket(known[policy.index], goal)
            if low is not None and high is not None:
                between[policy.index] = [float(x) for x in np.geomspace(low, high, FINE)[1:-1]]
        evaluate(between)
    matched: dict[tuple[int, str], Matched] = {}
    for policy in plan.policies[1:]:
        low, high = _bracket(known[policy.index], goal)
        reached = low is not None and (high is not None or known[policy.index][low].spend == goal)
        result = (known[policy.index][low], low) if reached and low is not None else None
        matched[(policy.index, OVERALL)] = _matched(plan, [result])
    return frontier, matched


def _bracket(points: dict[float, Totals], goal: int) -> tuple[float | None, float | None]:
    """The largest multiplier before spend first exceeds the goal, and the first that exceeds it."""
    low: float | None = None
    for x in sorted(points):
        if points[x].spend > goal:
            return low, x
        low = x
    return low, None
