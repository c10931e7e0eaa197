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
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, ndtr

from bidsim import kernels
from bidsim.kernels.reference import root3

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

# Default betas: these over the mean price. The blur's relative width is then about 1 / sqrt(this): 30%, 10% and 3%.
RELATIVE_BETAS = (10.0, 100.0, 1000.0)
# Beyond so many standard deviations (Wilson-Hilferty) P is 0 or 1 to more digits than a double has.
FAR = 9.0
# The table that stands in for the incomplete gamma function in large logs: 2^SHAPE_BITS shapes an octave; above its last
# octave the normal approximation is within 3e-7.
SHAPE_BITS, OCTAVES, DEVIATION_STEPS = 6, 14, 32


def expected_utility(
    rows: Ints | None,
    price: Floats,
    bid: Floats,
    value: Floats,
    beta: float,
    first: Bytes | None,
    *,
    quick: bool = False,
) -> Floats:
    """Expected utility of some rows of a batch in currency, shape (rows,).

    rows: which ones, None for all; of the whole batch: price, bid: CPM, bid NaN where the policy does not bid (utility 0);
    value: v y in currency; first: 1 where a win pays the bid, None where none does. beta: impressions per currency,
    positive; quick: take P from a table instead of exactly: within 1.5e-6 of it, 5e-6 for shapes below 2 (first price, prices
    below 1 / beta), errors that average out to below 1e-7.
    """
    n = len(price) if rows is None else len(rows)
    if not quick:
        return _exact(_take(price, rows), _take(bid, rows), _take(value, rows), beta, _take(first, rows))
    table, normal = _tables()
    utility = kernels.utility(
        n, rows, price, bid, value, first, beta, FAR, SHAPE_BITS, OCTAVES, DEVIATION_STEPS, table, normal
    )
    # In second price P(a, x) is needed only where there is a value: few rows, so exactly.
    worth = np.flatnonzero((_take(value, rows) != 0) & (_take(bid, rows) > 0))
    if first is not None:
        worth = worth[_take(first, rows)[worth] != 1]
    at = worth if rows is None else rows[worth]
    utility[worth] += value[at] * _probability(beta * (price[at] / 1e3) + 1.0, beta * (bid[at] / 1e3))
    return utility


def _take(column: Any, rows: Ints | None) -> Any:
    return column if rows is None or column is None else column[rows]


def _exact(price: Floats, bid: Floats, value: Floats, beta: float, first: Bytes | None) -> Floats:
    result = np.zeros(len(price))
    bids = np.flatnonzero(bid > 0)
    z, b, vy = price[bids] / 1e3, bid[bids] / 1e3, value[bids]
    a = beta * z + 1.0
    x = beta * b
    utility = -a / beta * _probability(a + 1.0, x)
    worth = np.flatnonzero(vy)
    utility[worth] += vy[worth] * _probability(a[worth], x[worth])
    if first is not None and first.any():
        utility = np.where(first[bids] == 1, (vy - b) * _probability(a, x), utility)
    result[bids] = utility
    return result


def _probability(a: Floats, x: Floats) -> Floats:
    """P(a, x), the lower regularised incomplete gamma function; a >= 1."""
    # (x / a)^(1/3) is nearly normal: how many standard deviations x lies above the middle of a Gamma(a).
    deviation = (root3(x / a) - (1.0 - 1.0 / (9.0 * a))) * 3.0 * np.sqrt(a)
    p = (deviation > 0).astype(np.float64)
    near = np.flatnonzero(np.abs(deviation) < FAR)
    p[near] = gammainc(a[near], x[near])
    return p


@cache
def _tables() -> tuple[Floats, Floats]:
    """(P minus the normal approximation (Wilson, Hilferty 1931) by shape and deviation, the normal distribution
    function), as `kernels.utility` looks them up."""
    lines = np.arange((OCTAVES << SHAPE_BITS) + 2)
    shape = (2.0 ** (lines >> SHAPE_BITS) * (1 + (lines & ((1 << SHAPE_BITS) - 1)) / (1 << SHAPE_BITS)))[:, None]
    deviation = (np.arange(2 * int(FAR) * DEVIATION_STEPS + 2) / DEVIATION_STEPS - FAR)[None, :]
    root = np.maximum(deviation / (3 * np.sqrt(shape)) + 1 - 1 / (9 * shape), 0.0)
    table = np.ascontiguousarray(gammainc(shape, shape * root**3) - ndtr(deviation))
    normal = ndtr((np.arange(2 * int(FAR) * DEVIATION_STEPS + 5) - 1) / DEVIATION_STEPS - FAR)
    return table, np.asarray(normal)
