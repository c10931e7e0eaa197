"""Numbers at matched spend over whatever the unknown rows did (spec 3.6): at another level other rows are unknown.

In each world of fates (see `identified`) both policies spend what their unknown rows cost there, so the multiplier at
which the candidate spends what the baseline does is another one. What a policy's bids come to as they are multiplied
is known by cells of the multiplier at which rows start to be won, or to be unknown; the level lies between the edges
of a cell, where sums are taken to be linear. The world in which all unknown rows were lost is known exactly, and others
are told by how far they are from it, so that what cells hide cancels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from bidsim.statistics.identified import FATES, Range, Sums, span_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

AT_MATCHED = "_at_matched_spend"
ROUNDING = 1e-12
NAMES = ("spend", "clicks", "conversions")
Fates = tuple[str, str, str]  # of rows unknown to the candidate alone, to the baseline alone, to both
LOST: Fates = ("lost", "lost", "lost")


@dataclass(frozen=True)
class MatchedRanges:
    """Of one candidate and family, by metric (without AT_MATCHED): the range of its value, of its difference from the
    baseline, and of that relative to the baseline's (neither where nothing is unknown). Shape (values,) each; NaN: nothing
    to say; inf: no bound."""

    value: dict[str, Range]
    absolute: dict[str, Range]
    relative: dict[str, Range]


@dataclass(frozen=True)
class Opening:
    """What unknown rows could add at each cell's upper edge, shape (values, cells): the money they cost at most and at
    least, in currency, and the clicks and conversions they bring at most."""

    dear: Floats
    cheap: Floats
    clicks: Floats
    conversions: Floats

    def adds(self, fate: str) -> dict[str, Floats]:
        """What they add to a policy's sums under one fate."""
        nothing = np.zeros(())
        if fate == "lost":
            return dict.fromkeys(NAMES, nothing)
        if fate == "dear":
            return {"spend": self.dear, "clicks": nothing, "conversions": nothing}
        return {"spend": self.cheap, "clicks": self.clicks, "conversions": self.conversions}


@dataclass(frozen=True)
class Curves:
    """What a candidate's bids come to as they are multiplied, and what the baseline's come to meanwhile.

    multiplier: upper edges of the cells, ascending; seen: counted wins at each edge, shape (values, cells); alone, both: the
    candidate's unknown rows, by whether they are to the baseline too; ours: the baseline's unknown rows that are to the
    candidate too at that multiplier, by fate, shape (values, cells); counted: the baseline's counted wins, all_ours: its
    unknown rows by fate, shape (values,); exact: the candidate at matched spend where all are lost.
    """

    multiplier: Floats
    seen: Sums
    alone: Opening
    both: Opening
    ours: Mapping[str, Sums]
    counted: Sums
    all_ours: Mapping[str, Sums]
    exact: Sums
    exact_multiplier: Floats

    def ranges(self, unsayable: frozenset[str]) -> MatchedRanges:
        """unsayable: clicks and conversions that no prediction bounds."""
        if not self._any():
            exact = _numbers(self.exact, self.exact_multiplier)
            return MatchedRanges({name: (value, value) for name, value in exact.items()}, {}, {})
        worlds = {fates: self._world(fates) for fates in itertools.product(FATES, FATES, FATES)}
        names = [n for n in worlds[LOST][0] if not any(n in (r, cost) for r, cost in _COSTS.items() if r in unsayable)]
        own = [worlds[(fate, fate, fate)][0] for fate in FATES]
        absolute: dict[str, list[Floats]] = {name: [] for name in names}
        relative: dict[str, list[Floats]] = {name: [] for name in names}
        for after, before in worlds.values():
            for name in names:
                with np.errstate(divide="ignore", invalid="ignore"):
                    change = after[name] - before[name]
                    # Sums of many cells: a policy that does as the baseline does would change by some last digits.
                    change = np.where(np.abs(change) <= ROUNDING * np.abs(before[name]), 0.0, change)
                    absolute[name].append(change)
                    relative[name].append(change / np.abs(before[name]))
        return MatchedRanges(
            {name: span_of([w[name] for w in own]) for name in names},
            {name: span_of(absolute[name]) for name in names},
            {name: span_of(relative[name]) for name in names},
        )

    def _any(self) -> bool:
        """Whether anything is unknown at the levels that are looked at."""
        rows = (getattr(side, part.name) for side in (self.alone, self.both) for part in fields(Opening))
        return any(np.any(a) for a in (*rows, self.all_ours["dear"]["spend"], self.all_ours["cheap"]["spend"]))

    def _world(self, fates: Fates) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """The candidate's numbers at matched spend in a world, and the baseline's."""
        if fates == LOST:
            return _numbers(self.exact, self.exact_multiplier), _numbers(self.counted, np.ones(()))
        after, before, multiplier = self._level(fates)
        lost, _, usual = self._level(LOST)
        # Where even all counted wins cost no more than the baseline's, cells hide nothing of what they come to.
        all_of_it = np.isnan(usual)
        with np.errstate(invalid="ignore"):
            moved = {
                name: np.where(all_of_it, after[name], self.exact[name] + (after[name] - lost[name])) for name in NAMES
            }
            at = np.where(all_of_it, multiplier, self.exact_multiplier * (multiplier / usual))
        for name in NAMES:
            # What is none of several sums is not some last digits of them, which relative to others were everything.
            size = self.counted[name] + self.all_ours["cheap"][name] + np.nan_to_num(self.exact[name])
            moved[name], before[name] = (
                np.where(np.abs(x) <= ROUNDING * size, 0.0, x) for x in (moved[name], before[name])
            )
        return _numbers(moved, at), _numbers(before, np.where(np.isnan(at), np.nan, 1.0))

    def _level(self, fates: Fates) -> tuple[dict[str, Floats], dict[str, Floats], Floats]:
        """(the candidate's sums where it spends what the baseline does, the baseline's, the multiplier); NaN where it
        can't spend as much."""
        own, base, shared = fates
        alone, both = self.alone.adds(own), self.both.adds(shared)
        sums = {name: self.seen[name] + alone[name] + both[name] for name in NAMES}
        goals = {
            name: (self.counted[name] + self.all_ours[base][name])[:, None]
            - self.ours[base][name]
            + self.ours[shared][name]
            for name in NAMES
        }
        over = sums["spend"] - goals["spend"]
        cells = over.shape[1]
        # The last edge that is affordable; free wins follow it as far as they go. Before the first there is nothing.
        last = cells - 1 - np.argmax((over <= 0)[:, ::-1], axis=1)
        last = np.where((over <= 0).any(axis=1), last, -1)
        reached = (last < cells - 1) & (last >= 0)
        at = np.clip(last, 0, cells - 2)
        value = np.arange(len(at))
        below, above = over[value, at], over[value, at + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(above > below, -below / (above - below), 0.0)
        share = np.where(reached, np.clip(share, 0.0, 1.0), np.nan)

        def between(columns: Floats) -> Floats:
            begin, end = columns[value, at], columns[value, at + 1]
            return np.asarray(begin + share * (end - begin))

        edges = np.log(self.multiplier)
        multiplier = np.exp(edges[at] + share * (edges[at + 1] - edges[at]))
        return {n: between(sums[n]) for n in NAMES}, {n: between(goals[n]) for n in NAMES}, multiplier


_COSTS = {"clicks": "cpc", "conversions": "cpa"}


def _numbers(sums: Sums, multiplier: Floats) -> dict[str, Floats]:
    out = {"multiplier": multiplier, "clicks": sums["clicks"], "conversions": sums["conversions"]}
    with np.errstate(divide="ignore", invalid="ignore"):
        return out | {cost: sums["spend"] / sums[result] for result, cost in _COSTS.items()}
