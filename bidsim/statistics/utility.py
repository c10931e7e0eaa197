"""Expected utility of a bidding policy (Chapelle 2015, "Offline evaluation of response prediction in online
advertising auctions"): the logged highest other bid is blurred, so that a better prediction counts even where it
flips no logged auction.

With z the price of a row in currency per impression, the highest other bid is taken as Gamma-distributed with shape
a = beta z + 1 and rate beta, whose mode is z; b is the policy's bid in currency per impression, v y the value of the
observed result, P the lower regularised incomplete gamma function:
second price: v y P(a, beta b) - (a / beta) P(a + 1, beta b); first price: (v y - b) P(a, beta b).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, gammaln

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Default betas: these over the mean price. The blur's relative width is then about 1 / sqrt(this): 30%, 10% and 3%.
RELATIVE_BETAS = (10.0, 100.0, 1000.0)
# Beyond so many standard deviations (Wilson-Hilferty) P is 0 or 1 to more digits than a double has.
FAR = 9.0


def expected_utility(price: Floats, bid: Floats, value: Floats, beta: float, first_price: Bools | bool) -> Floats:
    """Expected utility of each row in currency, shape (rows,).

    price, bid: currency per impression, shape (rows,), bid NaN where the policy does not bid (utility 0); value: v y
    in currency; beta: impressions per currency, positive; first_price: whether a win pays the bid.
    """
    result = np.zeros(len(price))
    bids = bid > 0
    z, b, vy = price[bids], bid[bids], value[bids]
    first = np.broadcast_to(first_price, price.shape)[bids]
    a = beta * z + 1.0
    x = beta * b
    # Wilson-Hilferty: (x / a)^(1/3) is nearly normal; far from its centre the special function is not needed.
    deviation = (np.cbrt(x / a) - (1 - 1 / (9 * a))) * 3 * np.sqrt(a)
    p = (deviation > 0).astype(np.float64)
    p_next = p.copy()
    near = np.abs(deviation) < FAR
    an, xn = a[near], x[near]
    pn = gammainc(an, xn)
    p[near] = pn
    # P(a + 1, x) = P(a, x) - x^a e^-x / Gamma(a + 1)
    p_next[near] = pn - np.exp(an * np.log(xn) - xn - gammaln(an + 1.0))
    second = vy * p - a / beta * p_next
    result[bids] = np.where(first, (vy - b) * p, second) if np.any(first) else second
    return result
