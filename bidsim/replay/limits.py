"""What the rows of a budget may spend: money as whole numbers, budgets, and what pacing has released of them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
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
