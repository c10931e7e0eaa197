"""Expected utility of a bidding policy (Chapelle 2015, "Offline evaluation of response prediction in online
advertising auctions"): the logged highest other bid is blurred, so that a better prediction counts even where it
flips no logged auction.

With z the price of a row in currency per impression, the highest other bid is taken as Gamma-distributed with shape
a = beta z + 1 and rate beta, whose mode is z; b is the policy's bid in currency per impression, v y the value of the
observed result, P the lower regularised incomplete gamma function:
second price: v y P(a, beta b) - (a / beta) P(a + 1, beta b); first price: (v y - b) P(a, beta b).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, ndtr

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# Default betas: these over the mean price. The blur's relative width is then about 1 / sqrt(this): 30%, 10% and 3%.
RELATIVE_BETAS = (10.0, 100.0, 1000.0)
# Beyond so many standard deviations (Wilson-Hilferty) P is 0 or 1 to more digits than a double has.
FAR = 9.0
# Steps of the table that stands in for the incomplete gamma function in large logs, and its largest shape.
SHAPE_STEPS, DEVIATION_STEPS = 16, 64
MOST_OCTAVES = 24
BLOCK = 16_384


def expected_utility(
    price: Floats, bid: Floats, value: Floats, beta: float, first_price: Bools | bool, *, quick: bool = False
) -> Floats:
    """Expected utility of each row in currency, shape (rows,).

    price, bid: currency per impression, shape (rows,), bid NaN where the policy does not bid (utility 0); value: v y
    in currency; beta: impressions per currency, positive; first_price: whether a win pays the bid; quick: take P from
    a table, within 1e-6 of a row's price and without a bias above 1e-8 of it, instead of exactly.
    """
    first = np.broadcast_to(first_price, price.shape)
    result = np.empty(len(price))
    # Blocks that stay in the processor's cache.
    for begin in range(0, len(price), BLOCK):
        rows = slice(begin, begin + BLOCK)
        result[rows] = _block(price[rows], bid[rows], value[rows], beta, first[rows], quick)
    return result


def _block(price: Floats, bid: Floats, value: Floats, beta: float, first: Bools, quick: bool) -> Floats:
    result = np.zeros(len(price))
    bids = np.flatnonzero(bid > 0)
    z, b, vy = price[bids], bid[bids], value[bids]
    a = beta * z + 1.0
    x = beta * b
    # Second price needs P(a, x) only where there is a value, and P(a + 1, x) everywhere.
    paid = _probability(a + 1.0, x, quick=quick)
    utility = -a / beta * paid
    worth = np.flatnonzero(vy)
    utility[worth] += vy[worth] * _probability(a[worth], x[worth], quick=False)
    if first.any():
        utility = np.where(first[bids], (vy - b) * _probability(a, x, quick=quick), utility)
    result[bids] = utility
    return result


def _deviation(a: Floats, x: Floats) -> Floats:
    """How many standard deviations x lies above the middle of a Gamma(a): (x / a)^(1/3) is nearly normal."""
    with np.errstate(divide="ignore"):
        root = np.exp(np.log(x / a) / 3.0)
    return np.asarray((root - (1 - 1 / (9 * a))) * 3 * np.sqrt(a))


def _probability(a: Floats, x: Floats, *, quick: bool) -> Floats:
    """P(a, x), the lower regularised incomplete gamma function; a >= 1."""
    deviation = _deviation(a, x)
    p = (deviation > 0).astype(np.float64)
    near = np.flatnonzero(np.abs(deviation) < FAR)
    if quick:
        p[near] = _looked_up(a[near], deviation[near])
    else:
        p[near] = gammainc(a[near], x[near])
    return p


@cache
def _table() -> tuple[Floats, int]:
    """(P minus the normal approximation by log2 of the shape and deviation, flat; entries of one shape)."""
    shape = 2.0 ** (np.arange(MOST_OCTAVES * SHAPE_STEPS + 2) / SHAPE_STEPS)[:, None]
    deviation = (np.arange(2 * int(FAR) * DEVIATION_STEPS + 2) / DEVIATION_STEPS - FAR)[None, :]
    root = np.maximum(deviation / (3 * np.sqrt(shape)) + 1 - 1 / (9 * shape), 0.0)
    difference = gammainc(shape, shape * root**3) - ndtr(deviation)
    return difference.ravel(), difference.shape[1]


def _looked_up(a: Floats, deviation: Floats) -> Floats:
    """The normal approximation (Wilson, Hilferty 1931) with what it lacks, interpolated linearly in the table."""
    table, width = _table()
    row = np.minimum(np.log2(a) * SHAPE_STEPS, MOST_OCTAVES * SHAPE_STEPS)
    column = (deviation + FAR) * DEVIATION_STEPS
    i, j = row.astype(np.int64), column.astype(np.int64)
    across, along = row - i, column - j
    at = i * width + j
    low = table[at] + along * (table[at + 1] - table[at])
    high = table[at + width] + along * (table[at + width + 1] - table[at + width])
    return np.asarray(ndtr(deviation) + low + across * (high - low))
