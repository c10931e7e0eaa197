"""What numbers can be at all: ends of intervals that no log could show are drawn in to it.

Intervals of few units reach far, and a straight line through a share of 0.9 beyond 1: an AUC of 2.4 or a fall by 130% is
no news. Drawing an end in costs no coverage, since the truth does not lie beyond.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from bidsim.statistics.spread import Bounds

Floats = npt.NDArray[np.float64]
Quantity = Literal["value", "absolute", "relative"]

# Costs, counts and distances are not negative; these are not, and not above these.
HIGHEST = {
    **dict.fromkeys(
        ("win_rate", "ctr", "coverage", "disagreement", "auc", "gauc", "brier", "miscalibration", "ece"), 1.0
    ),
    # A rate's variance, and what of it predictions may tell.
    **dict.fromkeys(("uncertainty", "discrimination"), 0.25),
}
# A calibration error is a root with a sign.
SIGNED = frozenset(("surplus", "expected_utility", "calibration_error"))


def limits_of(metric: str, quantity: Quantity = "value") -> tuple[float, float]:
    """(low, high) of a metric, or of its change against the baseline; infinite: without a limit."""
    low, high = -math.inf if metric in SIGNED else 0.0, HIGHEST.get(metric, math.inf)
    if metric == "roi":
        low = -1.0
    if quantity == "value":
        return low, high
    if quantity == "absolute":
        return low - high, high - low
    return -1.0 if low == 0.0 else -math.inf, math.inf


def within(value: Floats, bounds: Bounds, limits: tuple[float, float]) -> Bounds:
    """The bounds drawn in to the limits, but never past the value. Shape (values,) each."""
    low, high = limits
    return np.maximum(bounds[0], np.minimum(value, low)), np.minimum(bounds[1], np.maximum(value, high))
