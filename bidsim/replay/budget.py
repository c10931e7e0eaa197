"""Budgets, settled in order: which bids are entered while money is left, and what each win pays (spec 3.7).

Pure functions on arrays, no engine: the caller sorts the rows by (campaign, period, time, request, order of the log)
and hands them over batch by batch. Money is whole numbers of 1e-9 currency per 1000 impressions times the row's
weight, so the last affordable auction is not lost to rounding. A decision reads only rows before it.

As long as nothing has run short, what was spent before a row is the running sum of the wins; most rows are settled by
that alone. From the first row of a (campaign, period) that falls short, rows depend on each other: those are walked in
lanes, all groups and all policies side by side, one row of each at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bidsim.replay.limits import PLENTY, Limits

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# With fewer lanes than this, a plain loop over the rows of each is quicker than numpy's calls.
FEWEST_LANES = 48


@dataclass(frozen=True)
class Rows:
    """One policy's rows in order. All arrays have shape (rows,).

    bids: whether the policy bids at all. wins: whether that bid, uncut, would be decided and won.
    pay: what it would pay. bar: the money needed to win at all (its price; in first price the bid may be cut to it).
    first_price: whether a win pays the (cut) bid. All money in 1e-9 CPM times weight.
    """

    bids: Bools
    wins: Bools
    pay: Ints
    bar: Ints
    first_price: Bools


@dataclass(frozen=True)
class Wins:
    """Which rows are won, and what each costs; shapes as in Rows."""

    won: Bools
    paid: Ints


@dataclass(frozen=True)
class Settled(Wins):
    """What became of each row.

    entered: the bid was made. left: the period's money left before the row, 0 or more, exact for budgets up to PLENTY.
    short: the bid would have won but for the whole period's money (not for pacing).
    """

    entered: Bools
    left: Ints
    short: Bools


Outcome = TypeVar("Outcome", bound=Wins)


@dataclass
class _Lanes:
    """Winning rows that depend on each other: lane i is [edges[i], edges[i + 1]) of each array; spent before its first.

    gate: what must not be spent yet for a bid to be entered; money: what a bid may cost at most where it is capped.
    """

    edges: Ints
    spent: Ints
    gate: Ints
    money: Ints
    pay: Ints
    bar: Ints
    first_price: Bools


class Ledger:
    """Settles batch after batch of several policies; remembers what the last group of each has spent.

    never: cap every bid at the money left. strict: a bid equal to the price loses.
    """

    def __init__(self, policies: int = 1, *, never: bool, strict: bool) -> None:
        self._never = never
        self._strict = strict
        self._spent = [0] * policies

    def settle(self, starts: Bools, limits: Limits, policies: Sequence[Rows]) -> list[Settled]:
        """starts[i]: row i begins a new (campaign, period); False at row 0 goes on with the last batch's group."""
        return self._settle(starts, limits, policies, _Work.settled)

    def wins(self, starts: Bools, limits: Limits, policies: Sequence[Rows]) -> list[Wins]:
        """As `settle`, without the rest: where a log is settled dozens of times, that is half of the time."""
        return self._settle(starts, limits, policies, _Work.outcome)

    def _settle(
        self, starts: Bools, limits: Limits, policies: Sequence[Rows], result: Callable[[_Work], Outcome]
    ) -> list[Outcome]:
        pieces: list[list[Outcome]] = []
        begin = 0
        most = max((int(rows.pay.max(initial=0, where=rows.wins)) for rows in policies), default=0)
        for end in _pieces(len(starts), most):
            cut = [Rows(*(getattr(rows, f)[begin:end] for f in Rows.__dataclass_fields__)) for rows in policies]
            works = self._settle_piece(starts[begin:end], limits, cut, begin, end)
            pieces.append([result(work) for work in works])
            begin = end
        if len(pieces) == 1:
            return pieces[0]
        return [_joined(parts) for parts in zip(*pieces, strict=True)]

    def _settle_piece(
        self, starts: Bools, limits: Limits, policies: Sequence[Rows], begin: int, end: int
    ) -> list[_Work]:
        bounds = np.flatnonzero(starts)
        carried = int(bounds[0]) if len(bounds) else len(starts)
        fresh = carried == 0
        if not fresh:
            bounds = np.concatenate([[0], bounds])
        works = [
            _Work(rows, bounds, limits, 0 if fresh else spent, carried, begin, end, self._never, self._strict)
            for rows, spent in zip(policies, self._spent, strict=True)
        ]
        _walk([lanes for work in works for lanes in work.lanes], self._never, self._strict)
        for i, work in enumerate(works):
            self._spent[i] = work.close() + (self._spent[i] if len(bounds) == 1 and not fresh else 0)
        return works


class _Work:
    """One policy's piece: settled by running sums where nothing runs short, the rest handed out as lanes."""

    def __init__(
        self,
        rows: Rows,
        bounds: npt.NDArray[np.intp],
        limits: Limits,
        spent: int,
        carried: int,
        begin: int,
        end: int,
        never: bool,
        strict: bool,
    ) -> None:
        self.rows = rows
        self.bounds = bounds
        self.money = limits.money(spent, carried, begin, end)
        released = limits.paced(spent, carried, begin, end)
        self.gate = self.money if released is None else released
        self.never = never
        self.paid = np.where(rows.wins, rows.pay, 0)
        self.won = rows.wins.copy()
        self.lanes: list[_Lanes] = []
        before = _running(self.paid, bounds)
        bad = rows.wins & (before >= self.gate)
        if never:
            left = self.money - before
            bad |= rows.wins & ((rows.bar >= left) if strict else (rows.bar > left))
            bad |= rows.wins & rows.first_price & (rows.pay > left)
        hurt = np.add.reduceat(bad, bounds) > 0 if len(bounds) else np.zeros(0, dtype=bool)
        if not hurt.any():
            return
        sizes = np.diff(np.append(bounds, len(bad)))
        # The first row of each group that falls short, and the spending of its group up to it.
        firsts = np.flatnonzero(bad)
        group = np.repeat(np.arange(len(bounds)), sizes)
        groups, at = np.unique(group[firsts], return_index=True)
        first = np.full(len(bounds), len(bad))
        first[groups] = firsts[at]
        spent_before = np.zeros(len(bounds), dtype=np.int64)
        spent_before[groups] = before[firsts[at]]
        late = np.arange(len(bad)) >= first[group]
        constant = np.maximum.reduceat(self.money, bounds) == np.minimum.reduceat(self.money, bounds)
        alive = rows.wins & late
        if released is None and not never:
            # A budget that does not change within its period: once reached, nothing is entered any more.
            alive &= ~constant[group]
        elif never:
            # What the money left can't reach now it can't reach later, unless the budget is raised.
            left = self.money - spent_before[group]
            alive &= ((rows.bar < left) if strict else (rows.bar <= left)) | ~constant[group]
        self.won &= ~late
        self.paid[late] = 0
        self.at = np.flatnonzero(alive)
        if len(self.at) == 0:
            return
        of = group[self.at]
        edges = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
        self.lanes = [
            _Lanes(
                np.append(edges, len(of)),
                spent_before[of[edges]],
                self.gate[self.at],
                self.money[self.at],
                rows.pay[self.at],
                rows.bar[self.at],
                rows.first_price[self.at],
            )
        ]

    def close(self) -> int:
        """Take over what was walked in lanes, which hold what was paid, -1 for lost. What the last group has spent in
        this piece."""
        for lanes in self.lanes:
            self.won[self.at] = lanes.pay >= 0
            self.paid[self.at] = np.maximum(lanes.pay, 0)
        return int(self.paid[self.bounds[-1] :].sum()) if len(self.bounds) else 0

    def outcome(self) -> Wins:
        return Wins(self.won, self.paid)

    def settled(self) -> Settled:
        before = _running(self.paid, self.bounds)
        open_ = before < self.gate
        entered = self.rows.bids & open_
        left = np.maximum(self.money - before, 0)
        lost = self.rows.wins & ~self.won
        # Lost to pacing alone, a bid could still have been paid from the period's money.
        held = lost & ~open_ & ((self.rows.bar <= left) & (left > 0) if self.never else left > 0)
        return Settled(self.won, self.paid, entered, left, lost & ~held)


def _joined(parts: Sequence[Outcome]) -> Outcome:
    fields = parts[0].__dataclass_fields__
    return type(parts[0])(*(np.concatenate([getattr(part, f) for part in parts]) for f in fields))


def _walk(parts: Sequence[_Lanes], never: bool, strict: bool) -> None:
    """Settle lanes in place: pay becomes what was paid, -1 where nothing was won."""
    if not parts:
        return
    shift = np.cumsum([0, *(len(p.gate) for p in parts)])
    begin = np.concatenate([p.edges[:-1] + s for p, s in zip(parts, shift, strict=False)])
    length = np.concatenate([np.diff(p.edges) for p in parts])
    order = np.argsort(-length, kind="stable")
    begin, length = begin[order], length[order]
    spent = np.concatenate([p.spent for p in parts])[order]
    gate, money, pay, bar = (np.concatenate([getattr(p, f) for p in parts]) for f in ("gate", "money", "pay", "bar"))
    first_price = np.concatenate([p.first_price for p in parts])
    any_first = bool(first_price.any())
    step, longest = 0, int(length[0])
    while step < longest:
        active = int(np.searchsorted(-length, -step, side="left"))  # lanes longer than step
        if active < FEWEST_LANES:
            break
        at = begin[:active] + step
        now = spent[:active]
        wins = now < gate[at]
        cost = pay[at]
        if never:
            left = money[at] - now
            wins &= (bar[at] < left) if strict else (bar[at] <= left)
            if any_first:
                cost = np.where(first_price[at], np.minimum(cost, left), cost)
        pay[at] = np.where(wins, cost, -1)
        spent[:active] = now + np.where(wins, cost, 0)
        step += 1
    if step < longest:
        for lane in range(int(np.searchsorted(-length, -step, side="left"))):
            rows = slice(int(begin[lane]) + step, int(begin[lane]) + int(length[lane]))
            if never:
                _walk_capped(int(spent[lane]), rows, gate, money, pay, bar, first_price, strict)
            else:
                _walk_plain(int(spent[lane]), rows, gate, pay)
    for p, s in zip(parts, shift, strict=False):
        p.pay = pay[s : s + len(p.pay)]


def _walk_plain(spent: int, rows: slice, gate: Ints, pay: Ints) -> None:
    paid = []
    for limit, cost in zip(gate[rows].tolist(), pay[rows].tolist(), strict=True):
        if spent < limit:
            spent += cost
            paid.append(cost)
        else:
            paid.append(-1)
    pay[rows] = paid


def _walk_capped(
    spent: int, rows: slice, gate: Ints, money: Ints, pay: Ints, bar: Ints, first_price: Bools, strict: bool
) -> None:
    paid = []
    columns = (a[rows].tolist() for a in (gate, money, pay, bar, first_price))
    for limit, whole, cost, least, first in zip(*columns, strict=True):
        left = whole - spent
        if spent < limit and (least < left if strict else least <= left):
            if first and cost > left:
                cost = left
            spent += cost
            paid.append(cost)
        else:
            paid.append(-1)
    pay[rows] = paid


def _pieces(n: int, most: int) -> list[int]:
    """Ends of pieces short enough that no running sum of a piece can leave 64 bits. most: the dearest win."""
    size = max(1, min(n, (PLENTY - 1) // max(1, most)))
    return [*range(size, n, size), n] if n else []


def _running(cost: Ints, bounds: npt.NDArray[np.intp]) -> Ints:
    """Sum of the costs before each row within its group; bounds: first row of each group."""
    total = np.cumsum(cost)
    before = total - cost
    sizes = np.diff(np.append(bounds, len(cost)))
    return before - np.repeat(before[bounds], sizes)
