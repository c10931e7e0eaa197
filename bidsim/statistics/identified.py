"""What the log can't know, as ranges: every economic number over whatever the unknown rows did (spec 3.6).

An unknown row is an auction that a policy may have won, or a win whose outcome nobody saw. Its fates: it was lost; it was
won at the dearest price it could have had and brought nothing; it was won at the cheapest and brought what the larger
of the calibrated predictions says. A number's range is over all unknown rows sharing each fate in turn. For a difference
the rows that are unknown to both policies share one fate, those unknown to one of them only have fates of their own.
Where both outbid the log but one bids more than the other, the price may also lie between their bids: then the higher
bidder wins alone, at its dearest and for nothing, or at the cheapest that the other can't pay and with what it brings.
Fates add up, but for unknown wins under a budget, whose money later wins would not have had: there the sums of each
world have been settled anew (`SettledPair`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidsim.statistics.tallies import Family, ratio

Floats = npt.NDArray[np.float64]
Range = tuple[Floats, Floats]

FATES = ("lost", "dear", "cheap")
# Of the rows unknown to both policies: all share a fate, or those on which one policy bids more are won by it alone.
BETWEEN = (("candidate", "dear"), ("candidate", "cheap"), ("baseline", "dear"), ("baseline", "cheap"))
SHARED = (*FATES, *(f"{who} {fate}" for who, fate in BETWEEN))
SUMS = ("wins", "spend", "clicks", "conversions", "value")
RESULTS = ("clicks", "conversions", "value")
Sums = Mapping[str, Floats]
NumbersOf = Callable[[Sums], dict[str, Floats]]


@dataclass(frozen=True)
class Unknown:
    """Unknown rows of one policy, shape (values,) each: their weight, the money they cost at most and at least, and what
    they bring at most. clicks, conversions, value: NaN where no prediction says."""

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


@dataclass(frozen=True)
class UnknownPair:
    """A candidate's and the baseline's unknown rows: those of one alone, and those unknown to both (at each one's cost).

    candidate_over, baseline_over: of the latter those on which it bids more than the other; cheap: the least that the
    other can't pay."""

    candidate_alone: Unknown
    candidate_both: Unknown
    candidate_over: Unknown
    baseline_alone: Unknown
    baseline_both: Unknown
    baseline_over: Unknown

    def after(self, counted: Sums, own: str, shared: str) -> Sums:
        """The candidate's sums in a world. counted: what the log shows; shared: of SHARED."""
        both = _shared("candidate", self.candidate_both, self.candidate_over, shared)
        return _with(counted, self.candidate_alone.adds(own), both)

    def before(self, counted: Sums, own: str, shared: str) -> Sums:
        """The baseline's."""
        both = _shared("baseline", self.baseline_both, self.baseline_over, shared)
        return _with(counted, self.baseline_alone.adds(own), both)

    @property
    def unsayable(self) -> frozenset[str]:
        """Sums that no prediction can bound."""
        parts = (self.candidate_alone, self.candidate_both, self.baseline_alone, self.baseline_both)
        return frozenset(n for n in RESULTS if any(np.isnan(getattr(part, n)).any() for part in parts))


def _shared(who: str, both: Unknown, over: Unknown, shared: str) -> dict[str, Floats]:
    """What rows unknown to both policies add to one of them."""
    if shared in FATES:
        return both.adds(shared)
    winner, fate = shared.split()
    return over.adds(fate if winner == who else "lost")


Worlds = Mapping[tuple[str, str], Sums]


@dataclass(frozen=True)
class SettledPair:
    """Both policies' whole sums under a budget in every world: by (fate of the rows unknown to it alone, of those unknown
    to both), then by name of SUMS, shape (values,). How many bids are entered is not among them."""

    candidate: Worlds
    baseline: Worlds

    def after(self, counted: Sums, own: str, shared: str) -> Sums:
        return {**counted, **self.candidate[(own, shared)], "bids": np.full(len(counted["bids"]), np.nan)}

    def before(self, counted: Sums, own: str, shared: str) -> Sums:
        return {**counted, **self.baseline[(own, shared)], "bids": np.full(len(counted["bids"]), np.nan)}

    @property
    def unsayable(self) -> frozenset[str]:
        worlds = [*self.candidate.values(), *self.baseline.values()]
        return frozenset(n for n in RESULTS if any(np.isnan(w[n]).any() for w in worlds if n in w))


Pair = UnknownPair | SettledPair


def _counted(family: Family, policy: int) -> dict[str, Floats]:
    found = {name: family.observed(name, policy) for name in SUMS if family.has(name, policy)}
    return found | {"bids": family.get("bids", policy), "seen": found.get("value", np.zeros(len(family.values)))}


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
            out["target_attainment"] = sums["spend"] / sums["value"]
    return out


def over_campaigns(sums: Sums) -> dict[str, Floats]:
    """The numbers of a whole log that are means over its campaigns, in every world those with counted results. sums: by
    campaign; seen: the value that was counted."""
    if "value" not in sums:
        return {}
    each, spend = ratio(sums["spend"], sums["value"]), sums["spend"]
    known = (sums["seen"] != 0) & ~np.isnan(each)
    return {
        "target_attainment": ratio((each[known] * spend[known]).sum(keepdims=True), spend[known].sum(keepdims=True))
    }


def _with(counted: Mapping[str, Floats], *added: Mapping[str, Floats]) -> dict[str, Floats]:
    out = dict(counted)
    for more in added:
        out |= {name: out[name] + more[name] for name in SUMS if name in out}
    return out


def span_of(found: list[Floats]) -> Range:
    """Over all fates; a fate that leaves a number undefined says nothing, unless all do. NaN from what nobody can say."""
    stacked = np.array(found)
    low = np.where(np.isnan(stacked), np.inf, stacked).min(axis=0)
    high = np.where(np.isnan(stacked), -np.inf, stacked).max(axis=0)
    return np.where(low > high, np.nan, low), np.where(low > high, np.nan, high)


def holding(span: Range, value: Floats) -> Range:
    """A range with the value in it. What rows of unknown fate come to in expectation lies in no world where all share a
    fate, since each has a chance and a price of its own: a ratio of it may lie beyond them all. Shape (values,) each."""
    low, high = span
    known = ~(np.isnan(low) | np.isnan(value))
    return np.where(known, np.minimum(low, value), low), np.where(known, np.maximum(high, value), high)


def identified(family: Family, policy: int, pair: Pair, numbers: NumbersOf = _numbers) -> dict[str, Range]:
    """(low, high) of each economic number of a policy that has one, shape (values,); inf: without a bound.

    pair: the policy's and the baseline's; any pair of the baseline for the baseline itself. numbers: of a world's sums.
    """
    counted = _counted(family, policy)
    sums = pair.before if policy == 0 else pair.after
    worlds = [numbers(sums(counted, fate, fate)) for fate in FATES]
    sayable = _sayable(pair)
    return {name: span_of([w[name] for w in worlds]) for name in worlds[0] if sayable.get(name, True)}


def identified_change(
    family: Family, policy: int, pair: Pair, numbers: NumbersOf = _numbers
) -> dict[str, tuple[Range, Range]]:
    """((low, high) of candidate - baseline, the same relative to the baseline's size) of each economic number."""
    ours, theirs = _counted(family, 0), _counted(family, policy)
    absolute: dict[str, list[Floats]] = {}
    relative: dict[str, list[Floats]] = {}
    for own, base, shared in itertools.product(FATES, FATES, SHARED):
        before = numbers(pair.before(ours, base, shared))
        after = numbers(pair.after(theirs, own, shared))
        for name in before.keys() & after.keys():
            with np.errstate(divide="ignore", invalid="ignore"):
                change = after[name] - before[name]
                absolute.setdefault(name, []).append(change)
                relative.setdefault(name, []).append(change / np.abs(before[name]))
    sayable = _sayable(pair)
    return {name: (span_of(absolute[name]), span_of(relative[name])) for name in absolute if sayable.get(name, True)}


def _sayable(pair: Pair) -> dict[str, bool]:
    """Which numbers the predictions can bound at all."""
    clicks, conversions, value = (name not in pair.unsayable for name in RESULTS)
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
        "target_attainment": value,
    }
