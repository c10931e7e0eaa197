"""What the log can't know, as ranges: every economic number over whatever the unknown rows did (spec 3.6).

An unknown row is an auction that a policy may have won, or a win whose outcome nobody saw. Its fates: it was lost; it was
won at the dearest price it could have had and brought nothing; it was won at the cheapest and brought what the larger
of the calibrated predictions says. A number's range is over all unknown rows sharing each fate in turn. For a difference
the rows that are unknown to both policies share one fate, those unknown to one of them only have fates of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]
Range = tuple[Floats, Floats]

FATES = ("lost", "dear", "cheap")
SUMS = ("wins", "spend", "clicks", "conversions", "value")


@dataclass(frozen=True)
class Unknown:
    """Unknown rows of one policy, shape (values,) each: their weight, the money they cost at most and at least, and what
    they bring at most. clicks, conversions, value: NaN where no prediction says; rows: NaN where nobody can say anything,
    since under a budget an unknown win would have used money that later wins had."""

    rows: Floats
    dear: Floats
    cheap: Floats
    clicks: Floats
    conversions: Floats
    value: Floats

    def adds(self, fate: str) -> dict[str, Floats]:
        """What the rows add to each of SUMS under one fate."""
        nothing = np.zeros(len(self.rows))
        if fate == "lost":
            return dict.fromkeys(SUMS, nothing)
        if fate == "dear":
            return {"wins": self.rows, "spend": self.dear, "clicks": nothing, "conversions": nothing, "value": nothing}
        return {
            "wins": self.rows,
            "spend": self.cheap,
            "clicks": self.clicks,
            "conversions": self.conversions,
            "value": self.value,
        }

    def __add__(self, other: Unknown) -> Unknown:
        return Unknown(
            self.rows + other.rows,
            self.dear + other.dear,
            self.cheap + other.cheap,
            self.clicks + other.clicks,
            self.conversions + other.conversions,
            self.value + other.value,
        )


@dataclass(frozen=True)
class UnknownPair:
    """A candidate's and the baseline's unknown rows: those of one alone, and those unknown to both (at each one's cost)."""

    candidate_alone: Unknown
    candidate_both: Unknown
    baseline_alone: Unknown
    baseline_both: Unknown

    @property
    def candidate(self) -> Unknown:
        return self.candidate_alone + self.candidate_both

    @property
    def baseline(self) -> Unknown:
        return self.baseline_alone + self.baseline_both


def _counted(family: Family, policy: int) -> dict[str, Floats]:
    found = {name: family.observed(name, policy) for name in SUMS if family.has(name, policy)}
    return found | {"bids": family.get("bids", policy)}


def _numbers(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """The economic numbers of sums; inf where something is paid for nothing, NaN where there is nothing at all."""
    out = {"wins": sums["wins"], "spend": sums["spend"]}
    with np.errstate(divide="ignore", invalid="ignore"):
        out["win_rate"] = sums["wins"] / sums["bids"]
        out["cpm"] = 1000 * sums["spend"] / sums["wins"]
        if "clicks" in sums:
            out |= {
                "clicks": sums["clicks"],
                "ctr": sums["clicks"] / sums["wins"],
                "cpc": sums["spend"] / sums["clicks"],
            }
        if "conversions" in sums:
            out |= {"conversions": sums["conversions"], "cpa": sums["spend"] / sums["conversions"]}
            if "clicks" in sums:
                out["cvr"] = sums["conversions"] / sums["clicks"]
        if "value" in sums:
            surplus = sums["value"] - sums["spend"]
            out |= {"value": sums["value"], "surplus": surplus, "roi": surplus / sums["spend"]}
    return out


def _with(counted: Mapping[str, Floats], *added: Mapping[str, Floats]) -> dict[str, Floats]:
    out = dict(counted)
    for more in added:
        out |= {name: out[name] + more[name] for name in SUMS if name in out}
    return out


def _span(found: list[Floats]) -> Range:
    """Over all fates; a fate that leaves a number undefined says nothing, unless all do. NaN from what nobody can say."""
    stacked = np.array(found)
    low = np.where(np.isnan(stacked), np.inf, stacked).min(axis=0)
    high = np.where(np.isnan(stacked), -np.inf, stacked).max(axis=0)
    return np.where(low > high, np.nan, low), np.where(low > high, np.nan, high)


def identified(family: Family, policy: int, unknown: Unknown) -> dict[str, Range]:
    """(low, high) of each economic number of a policy that has one, shape (values,); inf: without a bound."""
    if np.isnan(unknown.rows).any():
        return {}
    counted = _counted(family, policy)
    worlds = [_numbers(_with(counted, unknown.adds(fate))) for fate in FATES]
    sayable = _sayable(unknown)
    return {name: _span([w[name] for w in worlds]) for name in worlds[0] if sayable.get(name, True)}


def identified_change(family: Family, policy: int, pair: UnknownPair) -> dict[str, tuple[Range, Range]]:
    """((low, high) of candidate - baseline, the same relative to the baseline's size) of each economic number."""
    if np.isnan(pair.candidate.rows).any() or np.isnan(pair.baseline.rows).any():
        return {}
    ours, theirs = _counted(family, 0), _counted(family, policy)
    absolute: dict[str, list[Floats]] = {}
    relative: dict[str, list[Floats]] = {}
    for own, base, shared in itertools.product(FATES, repeat=3):
        before = _numbers(_with(ours, pair.baseline_alone.adds(base), pair.baseline_both.adds(shared)))
        after = _numbers(_with(theirs, pair.candidate_alone.adds(own), pair.candidate_both.adds(shared)))
        for name in before.keys() & after.keys():
            with np.errstate(divide="ignore", invalid="ignore"):
                change = after[name] - before[name]
                absolute.setdefault(name, []).append(change)
                relative.setdefault(name, []).append(change / np.abs(before[name]))
    sayable = _sayable(pair.candidate) | {n: s for n, s in _sayable(pair.baseline).items() if not s}
    return {name: (_span(absolute[name]), _span(relative[name])) for name in absolute if sayable.get(name, True)}


def _sayable(unknown: Unknown) -> dict[str, bool]:
    """Which numbers the predictions can bound at all."""
    clicks, conversions, value = (not np.isnan(a).any() for a in (unknown.clicks, unknown.conversions, unknown.value))
    return {
        "clicks": clicks,
        "ctr": clicks,
        "cpc": clicks,
        "conversions": conversions,
        "cpa": conversions,
        "cvr": clicks and conversions,
        "value": value,
        "surplus": value,
        "roi": value,
    }
