"""The log reduced to sums: small tables of exact whole numbers from which every smooth metric is computed.

Rows arrive in batches; each adds whole numbers to a group (a segment value and a bucket of units). Sums of whole
numbers don't depend on an order, so batches, threads and files can't change a digit. Tables merge by addition, so
parts of a log can be reduced apart. Sums leave as Python integers; they become floats once, by one correctly rounded
division.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bidsim.statistics.halves import by_stratum

Key = tuple[str, int | None, str | None]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OVERALL = ""

# Doubles hold whole numbers exactly up to here.
EXACT = 2.0**53
SPLIT = 24
LIMB = 32


class Sum:
    """Whole-number sums by group. `add` takes float64 sums of a batch as long as they are exact."""

    __slots__ = ("bound", "high", "low", "small")

    def __init__(self, groups: int) -> None:
        self.small = np.zeros(groups)
        self.bound = 0.0
        self.high: Ints | None = None
        self.low: Ints | None = None

    def add(self, sums: Floats | Ints, bound: float) -> None:
        """sums: whole numbers, shape (groups,); bound: no sum of their sizes is larger, at most 2^53."""
        if self.bound + bound > EXACT:
            self.flush()
        self.small += sums
        self.bound += bound

    def flush(self) -> tuple[Ints, Ints]:
        """(high, low): the sums so far are high * 2^32 + low."""
        if self.high is None or self.low is None:
            self.high, self.low = np.zeros(len(self.small), dtype=np.int64), np.zeros(len(self.small), dtype=np.int64)
        whole = self.small.astype(np.int64)
        self.low += whole & (2**LIMB - 1)
        self.high += whole >> LIMB
        self.small[:] = 0.0
        self.bound = 0.0
        return self.high, self.low

    def merge(self, other: Sum) -> None:
        for mine, theirs in zip(self.flush(), other.flush(), strict=True):
            mine += theirs


@dataclass
class Tally:
    """Sums by key and group of one family while the log streams by. groups: segment values x buckets."""

    groups: int
    sums: dict[tuple[Key, int], Sum] = field(default_factory=dict)

    def add(self, key: Key, at: Ints, values: Floats | Ints | None) -> None:
        """Add one whole number a row to its group. at: groups, shape (rows,), int64; values None: ones.

        values: whole numbers, as int64 or as float64.
        """
        if values is None:
            self._sum(key, 0).add(np.bincount(at, minlength=self.groups), float(len(at)))
            return
        bound = float(np.abs(values).sum(dtype=np.float64))
        if bound == 0.0:
            self._sum(key, 0)
            return
        if bound <= EXACT * (1 - 1e-9):
            self._sum(key, 0).add(np.bincount(at, weights=values, minlength=self.groups), bound)
            return
        # Too large for one exact double: the digits are summed in two parts, of fewer rows if need be.
        if values.dtype == np.int64:
            whole = values.astype(np.int64, copy=False)
            high, rest = (whole >> SPLIT).astype(np.float64), (whole & (2**SPLIT - 1)).astype(np.float64)
        else:
            high = np.floor(values * 2.0**-SPLIT)
            rest = values - high * 2.0**SPLIT
        bounds = [float(np.abs(part).sum()) for part in (rest, high)]
        if max(bounds) > EXACT * (1 - 1e-9):
            middle = len(values) // 2
            self.add(key, at[:middle], values[:middle])
            self.add(key, at[middle:], values[middle:])
            return
        for shift, part, size in zip((0, SPLIT), (rest, high), bounds, strict=True):
            self._sum(key, shift).add(np.bincount(at, weights=part, minlength=self.groups), size)

    def _sum(self, key: Key, shift: int) -> Sum:
        found = self.sums.get((key, shift))
        if found is None:
            found = self.sums[(key, shift)] = Sum(self.groups)
        return found

    def merge(self, other: Tally) -> None:
        for place, theirs in other.sums.items():
            if place in self.sums:
                self.sums[place].merge(theirs)
            else:
                self.sums[place] = theirs

    def exact(self, values: int, buckets: int) -> tuple[dict[Key, npt.NDArray[np.object_]], dict[Key, Floats]]:
        """(sums by segment value as Python integers, the same by bucket as float64 of shape (values, buckets))."""
        totals: dict[Key, npt.NDArray[np.object_]] = {}
        parts: dict[Key, Floats] = {}
        for (key, shift), each in self.sums.items():
            high, low = (limb.reshape(values, buckets) for limb in each.flush())
            whole = high.sum(axis=1).astype(object) * (1 << LIMB) + low.sum(axis=1).astype(object)
            whole = whole * (1 << shift)
            share: Floats = np.asarray((high * 2.0**LIMB + low) * 2.0**shift, dtype=np.float64)
            totals[key] = totals[key] + whole if key in totals else whole
            parts[key] = parts[key] + share if key in parts else share
        return totals, parts


@dataclass(frozen=True)
class Family:
    """One way to cut the log: the sums of each of its segment values.

    name: the segment's name, "" for the whole log; values: labels of the segment values, in a fixed order;
    sums: by key, whole numbers, shape (values,); scales: what a sum is divided by; parts: the sums by bucket of units,
    shape (values, buckets), in the unit of the sums. expected: what rows of unknown fate add in expectation, by key, by
    bucket, in the measure's own unit (outcomes: predicted); `get` and `by_bucket` include it, `observed` does not.
    reruns: of sums whose rows share a budget, by key, what stands in for their parts: by stratum of half-samples (see
    `halves`), shape (values, strata), in the unit of the sums; `by_bucket` then has all of the policies' sums by stratum.
    """

    name: str
    values: tuple[str, ...]
    sums: Mapping[Key, npt.NDArray[np.object_]]
    scales: Mapping[Key, int]
    parts: Mapping[Key, Floats] = field(default_factory=dict)
    buckets: int = 1
    expected: Mapping[Key, Floats] = field(default_factory=dict)
    reruns: Mapping[Key, Floats] = field(default_factory=dict)

    def get(self, name: str, policy: int | None = None, head: str | None = None) -> Floats:
        """The sums of a measure in its own unit, shape (values,); NaN where it was not measured."""
        more = self.expected.get((name, policy, head))
        seen = self.observed(name, policy, head)
        return seen if more is None else seen + more.sum(axis=1)

    def observed(self, name: str, policy: int | None = None, head: str | None = None) -> Floats:
        """As `get`, of what the log shows alone."""
        key = (name, policy, head)
        if key not in self.scales:
            return np.full(len(self.values), np.nan)
        if key not in self.sums:
            return np.zeros(len(self.values))
        scale = self.scales[key]
        # int / int rounds once; a float sum or product before the division could round twice.
        return np.array([int(v) / scale for v in self.sums[key]], dtype=np.float64)

    def by_bucket(self, name: str, policy: int | None = None, head: str | None = None) -> Floats:
        """The sums of a measure in its own unit by bucket of units, shape (values, buckets)."""
        key = (name, policy, head)
        if key in self.reruns:
            return self.reruns[key] / self.scales[key]
        seen = self.parts[key] / self.scales[key] if key in self.parts else np.zeros((len(self.values), self.buckets))
        more = self.expected.get(key)
        if self.reruns and policy is not None and head is None:
            return by_stratum(seen)
        return seen if more is None else seen + more

    def observed_by_bucket(self, name: str, policy: int | None = None, head: str | None = None) -> Floats:
        """As `by_bucket`, of what the log shows alone."""
        return replace(self, expected={}).by_bucket(name, policy, head)

    def exact(self, name: str, policy: int | None = None, head: str | None = None) -> list[int]:
        """The whole-number sums themselves, in units of 1/scale; zeros where not measured."""
        key = (name, policy, head)
        return [int(v) for v in self.sums[key]] if key in self.sums else [0] * len(self.values)

    def rerun(self, moved: Mapping[Key, Floats]) -> Family:
        """With what replays of half-samples say. moved: by key, as `by_stratum` takes it, in the unit of the sums."""
        none = np.zeros((len(self.values), self.buckets))
        return replace(self, reruns={key: by_stratum(self.parts.get(key, none), each) for key, each in moved.items()})

    def has(self, name: str, policy: int | None = None, head: str | None = None) -> bool:
        return (name, policy, head) in self.scales


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is zero or either is NaN (written as null)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator != 0, numerator / np.where(denominator == 0, np.nan, denominator), np.nan)
