"""What another bid level would do: spend and results as one multiplier on all of a policy's bids sweeps.

In second price each row has the multiplier at which its bid starts to win, so wins sorted by it give the whole
frontier. The scan counts rows in logarithmic cells of that multiplier; sums up to a cell's upper edge are exact, and
inside the cell where a wanted spend is crossed the rows themselves are walked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

OCTAVES = 16
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Whole = npt.NDArray[np.object_]

# Multipliers of the frontier in the result: a quarter to four times the bid.
MULTIPLIERS: tuple[float, ...] = tuple(float(2.0 ** (j / 4)) for j in range(-8, 9))


@dataclass(frozen=True)
class Totals:
    """What a policy's wins come to at one multiplier. Exact whole numbers in the units of the scan."""

    spend: int
    clicks: int
    conversions: int


@dataclass(frozen=True)
class Grid:
    """Cells of the starting multiplier: cell c holds the rows that start in (2^((c-1)/n), 2^(c/n)], n to the octave.

    Where ties lose a row starts just above its own multiplier, so cells close at their lower edge instead.
    """

    per_octave: int
    ties_lose: bool

    @property
    def cells(self) -> int:
        """Number of cells; the first and the last also hold what lies beyond."""
        return 2 * OCTAVES * self.per_octave + 1

    def cell(self, start: Floats) -> Ints:
        """Index of the cell of each starting multiplier, positive, shape (rows,)."""
        place = np.log2(np.maximum(start, 2.0**-OCTAVES)) * self.per_octave
        place = np.floor(place) if self.ties_lose else np.ceil(place)
        most = OCTAVES * self.per_octave
        return np.asarray(np.clip(place, -most, most).astype(np.int64) + most)

    def below(self, multiplier: float) -> int:
        """Number of cells that lie wholly at or below a multiplier that is an edge of the grid."""
        edge = round(math.log2(multiplier) * self.per_octave) + OCTAVES * self.per_octave
        return edge if self.ties_lose else edge + 1

    def upper(self, cell: int) -> float:
        """A multiplier at which all rows of a cell win."""
        return float(2.0 ** ((cell + (1 if self.ties_lose else 0)) / self.per_octave - OCTAVES))


@dataclass(frozen=True)
class Levels:
    """Sums by cell of the starting multiplier for each segment value, shape (values, cells), whole numbers."""

    spend: Whole
    clicks: Whole
    conversions: Whole

    def upto(self, value: int, cells: int) -> Totals:
        """Sums of the first `cells` cells."""
        return Totals(*(int(sum(a[value, :cells])) for a in (self.spend, self.clicks, self.conversions)))

    def slopes(self, grid: Grid, multiplier: Floats) -> dict[str, Floats]:
        """How the sums of each segment value move with the logarithm of the multiplier, from the cells of an octave
        around it. multiplier: shape (values,)."""
        half = max(1, grid.per_octave // 2)
        cell = grid.cell(multiplier)
        first, last = np.maximum(cell - half, 0), np.minimum(cell + half + 1, grid.cells)
        width = (last - first) * math.log(2.0) / grid.per_octave
        value = np.arange(len(multiplier))
        out = {}
        for name in ("spend", "clicks", "conversions"):
            sums = getattr(self, name).astype(np.float64)
            running = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, axis=1)], axis=1)
            out[name] = (running[value, last] - running[value, first]) / width
        return out

    def crossing(self, value: int, goal: int) -> int | None:
        """The first cell that takes spend above the goal; None where even winning everything does not."""
        above = np.flatnonzero(np.cumsum(self.spend[value]) > goal)
        return int(above[0]) if len(above) else None


@dataclass(frozen=True)
class Steps:
    """Rows of one crossing cell, in any order: where each starts, and its whole-number sums. shape (rows,)."""

    start: Floats
    spend: Ints
    clicks: Ints
    conversions: Ints


def climb(begin: Totals, steps: Steps, goal: int) -> tuple[Totals, float | None]:
    """Go on from `begin`, equal multipliers together, while spend stays at or below the goal.

    Returns the totals reached and the multiplier of the last step taken (None: no step was taken).
    """
    order = np.argsort(steps.start, kind="stable")
    start = steps.start[order]
    if len(start) == 0:
        return begin, None
    ends = np.append(np.flatnonzero(start[1:] != start[:-1]) + 1, len(start))

    def reached(values: Ints, first: int) -> Whole:
        return np.asarray(np.cumsum(values[order].astype(object))[ends - 1] + first)

    spend = reached(steps.spend, begin.spend)
    taken = int(np.searchsorted(spend > goal, True))
    if taken == 0:
        return begin, None
    clicks, conversions = reached(steps.clicks, begin.clicks), reached(steps.conversions, begin.conversions)
    last = taken - 1
    return Totals(int(spend[last]), int(clicks[last]), int(conversions[last])), float(start[ends[last] - 1])
