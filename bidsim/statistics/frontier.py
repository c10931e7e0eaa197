"""What another bid level would do: spend and results as one multiplier on all of a policy's bids sweeps.

In second price each row has the multiplier at which its bid starts to win, so wins sorted by it give the whole
frontier. The scan counts rows in cells of that multiplier (`CELLS_PER_OCTAVE` a factor of two); sums up to a cell's
upper edge are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CELLS_PER_OCTAVE = 128
OCTAVES = 16
Floats = npt.NDArray[np.float64]

# Multipliers of the frontier in the result: a quarter to four times the bid.
MULTIPLIERS: tuple[float, ...] = tuple(float(2.0 ** (j / 4)) for j in range(-8, 9))


@dataclass(frozen=True)
class Totals:
    """What a policy's wins come to at one multiplier. Exact whole numbers in the units of the scan."""

    spend: int
    wins: int
    clicks: int
    conversions: int

    def plus(self, other: Totals) -> Totals:
        return Totals(
            self.spend + other.spend,
            self.wins + other.wins,
            self.clicks + other.clicks,
            self.conversions + other.conversions,
        )


NOTHING = Totals(0, 0, 0, 0)


def upto(cells: dict[int, Totals], cell: int) -> Totals:
    """Sum of all cells up to and including `cell`."""
    total = NOTHING
    for index in sorted(cells):
        if index > cell:
            break
        total = total.plus(cells[index])
    return total


def crossing(cells: dict[int, Totals], spend: int) -> tuple[Totals, int | None]:
    """The sums below the first cell that would take spend above `spend`, and that cell (None: none would)."""
    total = NOTHING
    for index in sorted(cells):
        larger = total.plus(cells[index])
        if larger.spend > spend:
            return total, index
        total = larger
    return total, None


def climb(start: Totals, steps: list[tuple[float, Totals]], spend: int) -> tuple[Totals, float | None]:
    """Go on row group by row group, ascending multiplier, while spend stays at or below `spend`.

    Returns the totals reached and the multiplier of the last step taken (None: no step was taken).
    """
    total, multiplier = start, None
    for at, step in sorted(steps, key=lambda s: s[0]):
        larger = total.plus(step)
        if larger.spend > spend:
            break
        total, multiplier = larger, at
    return total, multiplier
