"""How likely a bid wins, estimated from a log that shows only its own world: curves F(b) = P(price <= b) on a grid.

Where prices are known when won and only bounded when lost, the product-limit estimator of Kaplan, Meier (1958), in its
life-table form on cells of the grid: a loss at the logged bid is a price censored from the right. Where neither wins nor
losses show a price (first price without the minimum bid to win) a bid only says whether the price lay below it: the
monotone fit of wins over bids (Ayer et al. 1955; pool adjacent violators). Where some wins show theirs and others don't,
the curve that explains all of them best is found step by step (Turnbull 1976). Within a cell prices are taken as uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PER_OCTAVE = 32
LOWEST, HIGHEST = -24, 24  # octaves of CPM
CELLS = (HIGHEST - LOWEST) * PER_OCTAVE
# Of the step by step fit: at most so many, and the change of F by which it has come to rest.
ROUNDS, SETTLED = 1_000, 1e-6
# Cell 0 holds a price of zero; cell i > 0 the prices from EDGES[i - 1] to EDGES[i].
EDGES: Floats = np.concatenate([[0.0], 2.0 ** (LOWEST + np.arange(1, CELLS + 1) / PER_OCTAVE)])


def product_limit(events: Floats, censored: Floats) -> Floats:
    """F at the EDGES, shape (..., cells + 1), from weights by cell: prices seen, prices known only to lie above."""
    total = events + censored
    later = np.cumsum(total[..., ::-1], axis=-1)[..., ::-1]
    at_risk = later - censored / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = np.where(events > 0, events / at_risk, 0.0)
    return np.asarray(1.0 - np.cumprod(1.0 - np.minimum(hazard, 1.0), axis=-1))


def monotone(won: Floats, lost: Floats) -> Floats:
    """F at the EDGES, shape (cells + 1,), from the weights of won and lost auctions by the cell of the logged bid."""
    total = won + lost
    used = np.flatnonzero(total > 0)
    if len(used) == 0:
        return np.zeros(len(EDGES))
    fit = isotonic_regression(won[used] / total[used], weights=total[used]).x
    # A bid's own cell says how often bids of its size win; nothing is known below the lowest and above the highest.
    middle = np.where(used == 0, 0.0, (EDGES[np.maximum(used - 1, 0)] + EDGES[used]) / 2)
    known = np.interp(EDGES, np.concatenate([[0.0], middle]), np.concatenate([[0.0], fit]))
    return np.asarray(np.maximum.accumulate(known))


def self_consistent(prices: Floats, losses: Floats, wins: Floats) -> Floats:
    """F at the EDGES, shape (cells + 1,), from weights by cell: prices seen, and of those that were not, bids that lost and
    bids that won. Each round gives a price that was not seen to the cells where it may lie, as the last round's curve has it;
    of a bid's own cell half lies on either side. What lost and lies beyond every cell is in none.
    """
    total = float((prices + losses + wins).sum())
    if total == 0:
        return np.zeros(len(EDGES))
    cells = len(EDGES)
    mass = np.full(cells + 1, 1.0 / (cells + 1))  # the last one: beyond
    for _ in range(ROUNDS):
        inside, half = mass[:-1], mass[:-1] / 2
        below = np.cumsum(inside) - half
        above = 1.0 - below
        with np.errstate(divide="ignore", invalid="ignore"):
            won = np.where(wins > 0, wins / below, 0.0)
            lost = np.where(losses > 0, losses / above, 0.0)
        # A cell is below each winning bid of a higher cell and above each losing one of a lower cell.
        from_wins = np.cumsum(won[::-1])[::-1] - won / 2
        from_losses = np.cumsum(lost) - lost / 2
        moved = np.append(
            prices + inside * (from_wins + from_losses), mass[-1] * from_losses[-1] + mass[-1] * lost[-1] / 2
        )
        moved /= moved.sum()
        done = float(np.abs(np.cumsum(moved - mass)).max()) < SETTLED
        mass = moved
        if done:
            break
    return np.asarray(np.minimum(np.cumsum(mass[:-1]), 1.0))


@dataclass(frozen=True)
class Curves:
    """Win curves, one a row. chance: F at the EDGES, shape (curves, cells + 1); cost: the part of the mean price that lies
    below each edge, in CPM, same shape."""

    chance: Floats
    cost: Floats

    @staticmethod
    def of(chance: Floats) -> Curves:
        mass = np.diff(chance, axis=1)
        middle = (EDGES[:-1] + EDGES[1:]) / 2
        cost = np.concatenate([np.zeros((len(chance), 1)), np.cumsum(mass * middle, axis=1)], axis=1)
        return Curves(chance, cost)

    def at(self, curve: Ints, bid: Floats) -> tuple[Floats, Floats]:
        """(F(b), integral of the price up to b) of each row, shape (rows,). curve: which one; bid: CPM, >= 0."""
        cell = cell_of(bid)
        low = np.maximum(cell - 1, 0)
        inside = np.where(cell > 0, (bid - EDGES[low]) / np.where(cell > 0, EDGES[cell] - EDGES[low], 1.0), 0.0)
        inside = np.clip(inside, 0.0, 1.0)
        rise = self.chance[curve, cell] - self.chance[curve, low]
        chance = self.chance[curve, low] + inside * rise
        reached = EDGES[low] + inside * (EDGES[cell] - EDGES[low])
        return chance, self.cost[curve, low] + inside * rise * (EDGES[low] + reached) / 2


def cell_of(price: Floats) -> Ints:
    """The cell of each price in CPM: 0 for zero, and the ends of the grid for what lies beyond it."""
    with np.errstate(divide="ignore"):
        place = np.ceil((np.log2(price) - LOWEST) * PER_OCTAVE)
    return np.asarray(np.where(price > 0, np.clip(place, 1, CELLS), 0).astype(np.int64))


def expected_win(
    curves: Curves,
    curve: Ints,
    bid: Floats,
    logged: Floats,
    first_price: npt.NDArray[np.bool_],
    won: npt.NDArray[np.bool_],
    floor: Floats | None = None,
) -> tuple[Floats, Floats]:
    """(chance to win, expected cost in CPM) of unknown wins, shape (rows,) each. floor: CPM, 0 for none.

    A lost auction's price lies above the logged bid: P = [F(b) - F(b_L)] / [1 - F(b_L)], at the mean price between both,
    or at the bid in first price; below the floor the floor is paid, and no bid wins. A won one without a known price (first
    price) lies below it: P = F(b) / F(b_L). Where the log never saw a price beyond its bid, nothing says that more would
    win: 0.
    """
    chance, cost = curves.at(curve, bid)
    before, paid = curves.at(curve, np.where(np.isnan(logged), 0.0, logged))
    before, paid = np.where(np.isnan(logged), 0.0, before), np.where(np.isnan(logged), 0.0, paid)
    if floor is not None:
        higher = floor > np.where(np.isnan(logged), 0.0, logged)
        below, cheaper = curves.at(curve, floor)
        paid = np.where(higher, cheaper - floor * (below - before), paid)
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(before < 1.0, (chance - before) / (1.0 - before), 0.0)
        mean = np.where(before < 1.0, (cost - paid) / (1.0 - before), 0.0)
        down = np.where(before > 0.0, chance / before, 0.0)
    p = np.clip(np.where(won, down, up), 0.0, 1.0)
    if floor is not None:
        p, mean = np.where(bid < floor, 0.0, p), np.where(bid < floor, 0.0, mean)
    return p, np.where(first_price, p * bid, np.maximum(mean, 0.0))
