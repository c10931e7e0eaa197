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
from copy import copy
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# Money left is only ever compared with one row's money (below 9e18), so beyond this it may as well be this much.
PLENTY = 2**63 - 1
UNIT_DIGITS = 12
# A budget without end: more than any log could spend.
ENDLESS = 10**40
# With fewer lanes than this, a plain loop over the rows of each is quicker than numpy's calls.
FEWEST_LANES = 48


def nano(currency: float) -> int:
    """Money in currency as a whole number of 1e-9 CPM (a win priced x CPM costs x / 1000 currency), to the nearest.

    The number meant is the decimal of at most 15 digits that the double stands for: the binary form of 8695.61 is half
    a unit above it, and a budget one unit too large would let one more auction in once all of it is spent.
    """
    return int(Decimal(f"{currency:.15g}").scaleb(UNIT_DIGITS).to_integral_value())


@dataclass(frozen=True)
class Pace:
    """Even pacing: how much of its period each row has seen. elapsed, span: whole minutes, shape (rows,).

    elapsed counts the row's own minute to its end (spec 3.7), so it is at least 1, and at most span.
    """

    elapsed: Ints
    span: Ints


class Limits:
    """What the rows of a batch may spend, the same for every policy.

    limit: budget of the row's campaign and period, in currency; NaN means no budget, and no bid is entered.
    """

    def __init__(self, limit: Floats, pace: Pace | None = None) -> None:
        values, self._of = _distinct(limit)
        self._exact = [nano(v) if np.isfinite(v) else ENDLESS if v > 0 else 0 for v in values]
        self._pace = pace
        self._fresh: tuple[int, int, Ints] | None = None

    def scaled(self, above: int, below: int) -> Limits:
        """The same with above / below of each budget, rounded down."""
        other = copy(self)
        other._exact = [exact * above // below for exact in self._exact]
        other._fresh = None
        return other

    def money(self, spent: int, carried: int, begin: int, end: int) -> Ints:
        """Money that each row's budget leaves, in [0, PLENTY]; the first `carried` rows have spent `spent` already."""
        of = self._of[begin:end]
        fresh = self._fresh  # threads settle the same batch: what one has made, another may use
        if fresh is None or fresh[:2] != (begin, end):
            fresh = self._fresh = (begin, end, _clipped(self._exact, 0)[of])
        out = fresh[2]
        if carried and spent:
            out = out.copy()
            out[:carried] = _clipped(self._exact, spent)[of[:carried]]
        return out

    def paced(self, spent: int, carried: int, begin: int, end: int) -> Ints | None:
        """The same of what pacing has released by each row's minute; None without pacing.

        Spent < budget x elapsed / span in whole numbers: below the next whole number at or above the product.
        """
        if self._pace is None:
            return None
        of = self._of[begin:end]
        elapsed, span = self._pace.elapsed[begin:end], self._pace.span[begin:end]
        whole = _clipped(self._exact, 0)[of]
        # budget = q x span + r keeps the product within 64 bits: q x elapsed <= budget, r x elapsed < span squared.
        q, r = whole // span, whole % span
        out = q * elapsed - (-r * elapsed) // span
        out[:carried] = np.maximum(0, out[:carried] - spent) if spent <= PLENTY else 0
        vast = np.array([e > PLENTY for e in self._exact])
        for row in np.flatnonzero(vast[of]).tolist() if vast.any() else ():
            released = -(-self._exact[of[row]] * int(elapsed[row]) // int(span[row]))
            out[row] = max(0, min(PLENTY, released - (spent if row < carried else 0)))
        return out


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


def _distinct(limit: Floats) -> tuple[list[float], Ints]:
    """The distinct values, and which of them each row has. Budgets come in runs, so only their ends are sorted."""
    if len(limit) == 0:
        return [], np.zeros(0, dtype=np.int64)
    same = (limit[1:] == limit[:-1]) | (np.isnan(limit[1:]) & np.isnan(limit[:-1]))
    first = np.flatnonzero(np.append(True, ~same))
    values, inverse = np.unique(limit[first], return_inverse=True)
    return values.tolist(), np.repeat(inverse, np.diff(np.append(first, len(limit))))


def _clipped(exact: Sequence[int], spent: int) -> Ints:
    return np.array([max(0, min(PLENTY, v - spent)) for v in exact], dtype=np.int64)


def _running(cost: Ints, bounds: npt.NDArray[np.intp]) -> Ints:
    """Sum of the costs before each row within its group; bounds: first row of each group."""
    total = np.cumsum(cost)
    before = total - cost
    sizes = np.diff(np.append(bounds, len(cost)))
    return before - np.repeat(before[bounds], sizes)
