"""Budgets, settled in order: which bids are entered while money is left, and what each win pays (spec 3.7).

Pure functions on arrays, no engine: the caller sorts the rows by (campaign, period, time, request, order of the log)
and hands them over batch by batch. Money is whole numbers of 1e-9 currency per 1000 impressions times the row's
weight, so the last affordable auction is not lost to rounding. A decision reads only rows before it.

Without a cap (``overspend: last_win``) a group's spend is the running sum of its wins up to the first row at which
the limit is reached. With a cap (``overspend: never``) every bid is cut at the money left; rows then depend on each
other, but a row that the money left can't reach stays out of reach, so the group is settled in few vectorised sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

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


def nano(currency: float) -> int:
    """Money in currency as a whole number of 1e-9 CPM (a win priced x CPM costs x / 1000 currency), to the nearest.

    The number meant is the decimal of at most 15 digits that the double stands for: the binary form of 8695.61 is half
    a unit above it, and a budget one unit too large would let one more auction in once all of it is spent.
    """
    return int(Decimal(f"{currency:.15g}").scaleb(UNIT_DIGITS).to_integral_value())


@dataclass(frozen=True)
class Rows:
    """One policy's rows in order. All arrays have shape (rows,).

    limit: budget of the row's campaign and period, in currency; NaN means no budget, and no bid is entered.
    bids: whether the policy bids at all. wins: whether that bid, uncut, would be decided and won.
    pay: what it would pay. bar: the money needed to win at all (its price; in first price the bid may be cut to it).
    first_price: whether a win pays the (cut) bid. All money in 1e-9 CPM times weight.
    """

    limit: Floats
    bids: Bools
    wins: Bools
    pay: Ints
    bar: Ints
    first_price: Bools


@dataclass(frozen=True)
class Settled:
    """entered: the bid was made; won; paid; left: money left before the row (at most PLENTY), same shapes as Rows."""

    entered: Bools
    won: Bools
    paid: Ints
    left: Ints


class Ledger:
    """Settles batch after batch of one policy; remembers what the last group has spent.

    never: cap every bid at the money left. strict: a bid equal to the price loses.
    """

    def __init__(self, *, never: bool, strict: bool) -> None:
        self._never = never
        self._strict = strict
        self._spent = 0

    def settle(self, starts: Bools, rows: Rows) -> Settled:
        """starts[i]: row i begins a new (campaign, period); False at row 0 goes on with the last batch's group."""
        n = len(starts)
        parts: list[Settled] = []
        begin = 0
        for end in _pieces(rows.pay, rows.wins):
            piece = Rows(*(getattr(rows, f)[begin:end] for f in Rows.__dataclass_fields__))
            parts.append(self._settle_piece(starts[begin:end], piece))
            begin = end
        assert begin == n
        if len(parts) == 1:
            return parts[0]
        return Settled(
            entered=np.concatenate([p.entered for p in parts]),
            won=np.concatenate([p.won for p in parts]),
            paid=np.concatenate([p.paid for p in parts]),
            left=np.concatenate([p.left for p in parts]),
        )

    def _settle_piece(self, starts: Bools, rows: Rows) -> Settled:
        n = len(starts)
        group = np.cumsum(starts)
        if not starts[0]:
            first_end = int(np.searchsorted(group, 1)) if group[-1] > 0 else n
        else:
            self._spent = 0
            first_end = 0
        allowance = _allowance(rows.limit, self._spent, first_end)
        bounds = np.flatnonzero(starts)
        if len(bounds) == 0 or bounds[0] != 0:
            bounds = np.concatenate([[0], bounds])
        cost = np.where(rows.wins, rows.pay, 0)
        left = allowance - _running(cost, bounds)
        if self._never:
            left, won, paid = self._capped(rows, bounds, allowance, left)
        else:
            self._reopen(rows, bounds, allowance, left)
            won = rows.wins & (left > 0)
            paid = np.where(won, cost, 0)
        spent_here = int(paid[bounds[-1] :].sum())
        self._spent = spent_here + (self._spent if len(bounds) == 1 and not starts[0] else 0)
        entered = rows.bids & (left > 0)
        return Settled(entered, won & entered, np.where(won & entered, paid, 0), np.minimum(left, PLENTY))

    @staticmethod
    def _reopen(rows: Rows, bounds: npt.NDArray[np.intp], allowance: Ints, left: Ints) -> None:
        """A budget raised within its period lets bids in again; the running sum counted wins that never were.

        Rare, so such a group is walked row by row.
        """
        ends = np.append(bounds[1:], len(left))
        spread = np.maximum.reduceat(allowance, bounds) > np.minimum.reduceat(allowance, bounds)
        spread &= np.minimum.reduceat(left, bounds) <= 0
        for begin, end in zip(bounds[spread].tolist(), ends[spread].tolist(), strict=True):
            spent = 0
            for row in range(begin, end):
                left[row] = int(allowance[row]) - spent
                if rows.wins[row] and left[row] > 0:
                    spent += int(rows.pay[row])

    def _capped(
        self, rows: Rows, bounds: npt.NDArray[np.intp], allowance: Ints, left: Ints
    ) -> tuple[Ints, Bools, Ints]:
        """Groups in which no bid is ever cut are done; the others are swept one by one."""
        won, paid = rows.wins.copy(), np.where(rows.wins, rows.pay, 0)
        left = left.copy()
        cut = rows.wins & (rows.pay > left) if not self._strict else rows.wins & (rows.pay >= left)
        ends = np.append(bounds[1:], len(left))
        hurt = np.add.reduceat(cut, bounds) > 0
        for begin, end in zip(bounds[hurt].tolist(), ends[hurt].tolist(), strict=True):
            self._sweep(rows, allowance, left, won, paid, begin, end)
        return left, won, paid

    def _sweep(self, rows: Rows, allowance: Ints, left: Ints, won: Bools, paid: Ints, begin: int, end: int) -> None:
        spent = 0
        width = end - begin
        while begin < end:
            stop = min(end, begin + width)
            money = allowance[begin:stop] - spent
            bar = rows.bar[begin:stop]
            reach = rows.wins[begin:stop] & ((bar < money) if self._strict else (bar <= money)) & (money > 0)
            cost = np.where(reach, rows.pay[begin:stop], 0)
            before = np.cumsum(cost) - cost
            now = money - before
            short = reach & ((bar >= now) | (now <= 0) if self._strict else (bar > now) | (now <= 0))
            # A first-price bid above the money left is cut to it and, where that still wins, pays all of it.
            emptied = reach & rows.first_price[begin:stop] & (cost > now)
            events = np.flatnonzero(short | emptied)
            done = int(events[0]) if len(events) else stop - begin
            left[begin : begin + done] = now[:done]
            won[begin : begin + done] = reach[:done]
            paid[begin : begin + done] = cost[:done]
            spent += int(cost[:done].sum())
            if done < stop - begin:
                row = begin + done
                money_now = int(allowance[row]) - spent
                left[row] = money_now
                takes = bool(emptied[done]) and not bool(short[done])
                won[row], paid[row] = takes, money_now if takes else 0
                spent += money_now if takes else 0
                done += 1
                width = max(256, width // 4)
            else:
                width *= 4
            begin += done


def _pieces(pay: Ints, wins: Bools) -> list[int]:
    """Ends of pieces short enough that no running sum of a piece can leave 64 bits."""
    n = len(pay)
    most = int(pay.max(initial=0, where=wins))
    size = max(1, min(n, (PLENTY - 1) // max(1, most)))
    return [*range(size, n, size), n] if n else []


def _allowance(limit: Floats, spent: int, carried: int) -> Ints:
    """Money that each row's budget allows before the piece, in [0, PLENTY]; rows [:carried] have spent some already."""
    values, inverse = np.unique(limit, return_inverse=True)
    exact = [nano(v) if np.isfinite(v) else ENDLESS if v > 0 else 0 for v in values.tolist()]
    fresh = np.array([max(0, min(PLENTY, v)) for v in exact], dtype=np.int64)[inverse]
    if carried:
        late = np.array([max(0, min(PLENTY, v - spent)) for v in exact], dtype=np.int64)
        fresh[:carried] = late[inverse[:carried]]
    return fresh


def _running(cost: Ints, bounds: npt.NDArray[np.intp]) -> Ints:
    """Sum of the costs before each row within its group; bounds: first row of each group."""
    total = np.cumsum(cost)
    before = total - cost
    sizes = np.diff(np.append(bounds, len(cost)))
    return before - np.repeat(before[bounds], sizes)
