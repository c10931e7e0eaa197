"""What really happens when a policy bids: the auctions, budgets and reactions that a replay can only guess at.

Everything is decided from prices and probabilities that no log shows. Outcomes are expected values (wins count their
probability of a click and a conversion), so that a truth needs no luck. Money: currency; bids and prices per 1000
impressions. It is written apart from `bidsim.replay` on purpose: the one is there to check the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bidsim.market.market import Floats, Ints

DAY_MINUTES = 24 * 60
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """How the exchange and the DSP settle. reaction: by what share of our bids' rise the others' prices rise.

    budget: currency per campaign (by place) and day, shape (campaigns,), or None.
    """

    first_price: bool = False
    reaction: float = 0.0
    budget: Floats | None = None
    pacing: Literal["asap", "even"] = "asap"


@dataclass(frozen=True)
class Day:
    """One day's auctions in order of time, arrays of shape (rows,). minute: of the day; request: rows of one request lie
    together, a row for each of the DSP's campaigns that could answer."""

    request: Ints
    campaign: Ints
    minute: Ints
    price: Floats


def run_live(day: Day, bid: Floats, usual_bid: Floats, rules: Rules) -> tuple[Flags, Floats]:
    """(which rows are won, what each costs in currency), shape (rows,).

    usual_bid: what the others are used to, the baseline's bids; their prices follow ours away from it.
    """
    price = day.price
    if rules.reaction:
        with np.errstate(divide="ignore", invalid="ignore"):
            louder = np.nan_to_num(bid / usual_bid, nan=1.0, posinf=1.0)
        price = price * np.clip(1 + rules.reaction * (louder - 1), 0.7, 1.5)
    wins = (bid >= price) & _highest(day.request, bid)
    cost = np.where(wins, bid if rules.first_price else price, 0.0) / 1000
    if rules.budget is None:
        return wins, cost
    for place in np.unique(day.campaign):
        mine = np.flatnonzero((day.campaign == place) & wins)
        amount = float(rules.budget[place])
        if rules.pacing == "asap":
            entered = np.cumsum(cost[mine]) - cost[mine] < amount
        else:
            entered = _evenly(cost[mine], day.minute[mine], amount)
        wins[mine] = entered
    return wins, np.where(wins, cost, 0.0)


def _highest(request: Ints, bid: Floats) -> Flags:
    """Whether a row's bid is the highest of its request."""
    starts = np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]]))
    if len(starts) == len(request):
        return np.ones(len(request), dtype=bool)
    best = np.maximum.reduceat(np.nan_to_num(bid, nan=-1.0), starts)
    return np.asarray(bid >= np.repeat(best, np.diff(np.append(starts, len(request)))))


def _evenly(cost: Floats, minute: Ints, amount: float) -> Flags:
    """A bid is entered while less is spent than the share of the day that has gone by the end of its minute."""
    entered, spent = np.zeros(len(cost), dtype=bool), 0.0
    for i, (each, at) in enumerate(zip(cost.tolist(), minute.tolist(), strict=True)):
        if spent < amount * (at + 1) / DAY_MINUTES:
            entered[i] = True
            spent += each
    return entered
