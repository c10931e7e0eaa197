"""What another bid level would do: spend and results as one multiplier on all of a policy's bids sweeps.

Each row has the multiplier at which its bid starts to win, so wins sorted by it give the whole frontier. In second price
a win costs its price from there on; in first price it costs the bid, which grows with the multiplier until it is cut at
its maximum: then the row takes a second step, from a cost that grows to one that does not. The scan counts steps in
logarithmic cells of the multiplier; sums up to a cell's upper edge are exact, and inside the cell where a wanted spend
is crossed the rows themselves are walked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

OCTAVES = 16
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Whole = npt.NDArray[np.object_]

# Multipliers of the frontier in the result: a quarter to four times the bid.
MULTIPLIERS: tuple[float, ...] = tuple(float(2.0 ** (j / 4)) for j in range(-8, 9))
# Just below a multiplier, further than the roundings of a bid.
BELOW = 1 - 2.0**-40


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

    @cached_property
    def edges(self) -> Floats:
        """Zero, and every cell's upper edge, shape (cells + 1,)."""
        return np.array([0.0, *(self.upper(cell) for cell in range(self.cells))])

    def below(self, multiplier: float) -> int:
        """Number of cells that lie wholly at or below a multiplier that is an edge of the grid."""
        edge = round(math.log2(multiplier) * self.per_octave) + OCTAVES * self.per_octave
        return edge if self.ties_lose else edge + 1

    def upper(self, cell: int) -> float:
        """A multiplier at which all rows of a cell win."""
        return float(2.0 ** ((cell + (1 if self.ties_lose else 0)) / self.per_octave - OCTAVES))


@dataclass(frozen=True)
class Levels:
    """Sums by cell of the multiplier from which they count, for each segment value, shape (values, cells), whole numbers.

    growing: of what is paid in first price, the bids at multiplier one; None where nothing is. spend: what does not grow.
    """

    spend: Whole
    clicks: Whole
    conversions: Whole
    growing: Whole | None = None

    def together(self) -> Levels:
        """All segment values as one."""
        spend, clicks, conversions = (a.sum(axis=0, keepdims=True) for a in (self.spend, self.clicks, self.conversions))
        growing = None if self.growing is None else self.growing.sum(axis=0, keepdims=True)
        return Levels(spend, clicks, conversions, growing)

    def upto(self, value: int, cells: int, multiplier: float) -> Totals:
        """Sums of the first `cells` cells, at a multiplier at which all of them count."""
        spend, clicks, conversions = (int(sum(a[value, :cells])) for a in (self.spend, self.clicks, self.conversions))
        return Totals(spend + paid(self.growing_upto(value, cells), multiplier), clicks, conversions)

    def growing_upto(self, value: int, cells: int) -> int:
        """The part of the spend of the first `cells` cells that grows, at multiplier one."""
        return 0 if self.growing is None else int(sum(self.growing[value, :cells]))

    def at_edges(self, grid: Grid) -> dict[str, Floats]:
        """By name of SUMS, the sums at every cell's upper edge, after those at none, shape (values, cells + 1)."""
        out = {name: _running(getattr(self, name)) for name in ("spend", "clicks", "conversions")}
        if self.growing is not None:
            out["spend"] = out["spend"] + grid.edges * _running(self.growing)
        return out

    def slopes(self, grid: Grid, multiplier: Floats) -> dict[str, Floats]:
        """How the sums of each segment value move with the logarithm of the multiplier, from the cells of an octave
        around it. multiplier: shape (values,)."""
        half = max(1, grid.per_octave // 2)
        cell = grid.cell(multiplier)
        first, last = np.maximum(cell - half, 0), np.minimum(cell + half + 1, grid.cells)
        width = (last - first) * math.log(2.0) / grid.per_octave
        value = np.arange(len(multiplier))
        return {name: (sums[value, last] - sums[value, first]) / width for name, sums in self.at_edges(grid).items()}

    def crossing(self, value: int, goal: int, grid: Grid) -> int | None:
        """The first cell that takes spend above the goal; None where even winning everything does not."""
        spend = np.cumsum(self.spend[value])
        if self.growing is not None:
            spend = spend + np.cumsum(self.growing[value]) * grid.edges[1:]
        above = np.flatnonzero(spend > goal)
        return int(above[0]) if len(above) else None


def _running(sums: Whole) -> Floats:
    each = sums.astype(np.float64)
    return np.concatenate([np.zeros((len(each), 1)), np.cumsum(each, axis=1)], axis=1)


def paid(growing: int, multiplier: float) -> int:
    """What bids of so much at multiplier one cost at another, to the nearest unit of the scan, exactly at one."""
    return round(Fraction(multiplier) * growing) if growing else 0


@dataclass(frozen=True)
class Steps:
    """Steps of rows in one crossing cell, in any order: the multiplier from which each counts, and its whole-number sums.
    shape (steps,). growing: as of `Levels`."""

    start: Floats
    spend: Ints
    clicks: Ints
    conversions: Ints
    growing: Ints


def climb(begin: Totals, steps: Steps, goal: int) -> tuple[Totals, float | None]:
    """Go on from `begin`, equal multipliers together, while spend stays at or below the goal.

    Returns the totals reached and the multiplier of the last step taken (None: no step was taken).
    """
    spend, clicks, conversions, at = _taken_in_turn(begin, steps)
    taken = max(int(np.searchsorted(spend > goal, True)) - 1, 0)
    reached = Totals(int(spend[taken]), int(clicks[taken]), int(conversions[taken]))
    return reached, float(at[taken - 1]) if taken else None


def surely(multiplier: float, starts: Floats) -> float:
    """A multiplier at which what starts at this one wins whatever the roundings of a bid, and where ties lose, but nothing
    that starts later. starts: of all steps."""
    later = starts[starts > multiplier]
    above = multiplier / BELOW
    return min(above, (multiplier + float(later.min())) / 2) if len(later) else above


def climb_growing(begin: Totals, growing: int, steps: Steps, goal: int, upper: float) -> tuple[Totals, float]:
    """As `climb` where what is paid grows between steps: up to the multiplier at which spend comes to the goal, or to
    just below the step that would take it further.

    begin: without what grows, of which there is `growing`; upper: the cell's edge. Returns the totals reached, and where.
    """
    fixed, clicks, conversions, at = _taken_in_turn(begin, steps)
    grows = _in_turn(growing, steps.growing, steps.start)
    until = np.append(at, max(upper, at[-1] if len(at) else 0.0))
    # What is spent just before each step, and by all of them.
    spend = fixed.astype(np.float64) + until * grows.astype(np.float64)
    taken = min(int(np.searchsorted(spend > goal, True)), len(at))
    if taken and fixed[taken] + paid(int(grows[taken]), float(at[taken - 1])) > goal:
        taken -= 1
        multiplier = float(until[taken]) * BELOW
    elif grows[taken] > 0:
        multiplier = min(float(Fraction(goal - int(fixed[taken]), int(grows[taken]))), float(until[taken]))
    else:
        multiplier = float(until[taken])
    total = int(fixed[taken]) + paid(int(grows[taken]), multiplier)
    return Totals(total, int(clicks[taken]), int(conversions[taken])), multiplier


def _taken_in_turn(begin: Totals, steps: Steps) -> tuple[Whole, Whole, Whole, Floats]:
    """(spend, clicks, conversions) after each number of steps from none on, equal multipliers together, and their
    multipliers."""
    sums = (
        _in_turn(first, values, steps.start)
        for first, values in (
            (begin.spend, steps.spend),
            (begin.clicks, steps.clicks),
            (begin.conversions, steps.conversions),
        )
    )
    return (*sums, np.unique(steps.start))  # type: ignore[return-value]


def _in_turn(first: int, values: Ints, start: Floats) -> Whole:
    order = np.argsort(start, kind="stable")
    ordered = start[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], np.ones(min(1, len(ordered)), dtype=bool)))
    return np.append(np.array([first], dtype=object), np.cumsum(values[order].astype(object))[ends] + first)
