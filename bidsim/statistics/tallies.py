"""The log reduced to sums: small tables of exact whole numbers from which every smooth metric is computed.

Rows arrive in batches; each adds whole numbers to a group (a segment value and a bucket of units). Sums of whole
numbers don't depend on an order, so batches, threads and files can't change a digit. Tables merge by addition, so
parts of a log can be reduced apart. Sums leave as Python integers; they become floats once, by one correctly rounded
division.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bidsim import kernels
from bidsim.kernels.reference import Wide, add_wide, limbs, wide
from bidsim.statistics.halves import FEW, STRATA, by_stratum

Key = tuple[str, int | None, str | None]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OVERALL = ""
MOST = 2.0**74  # of a whole number that is added

LIMB = 32
# Of sums by stratum that are the same.
ROUNDING = 1e-12


@dataclass
class Tally:
    """Sums by key and group of one family while the log streams by. groups: segment values x buckets.

    Each key's sums are whole numbers of 128 bits, see `kernels.reference`.
    """

    groups: int
    sums: dict[Key, Wide] = field(default_factory=dict)

    def add(self, key: Key, at: Ints, values: Floats | Ints | npt.NDArray[np.bool_] | None) -> None:
        """Add one whole number a row to its group. at: groups, shape (rows,), int64; values None: ones.

        values: whole numbers, as int64, or as float64 below 2^74 in size.
        """
        add_to_all([self], key, None, [np.ascontiguousarray(at, dtype=np.int64)], len(at), values)

    def of(self, key: Key) -> Wide:
        """The sums of a key, zeros where nothing was added yet."""
        found = self.sums.get(key)
        if found is None:
            found = self.sums[key] = wide(self.groups)
        return found

    def merge(self, other: Tally) -> None:
        for key, theirs in other.sums.items():
            if key in self.sums:
                add_wide(self.sums[key], theirs[:, 0], theirs[:, 1])
            else:
                self.sums[key] = theirs

    def exact(self, values: int, buckets: int) -> tuple[dict[Key, npt.NDArray[np.object_]], dict[Key, Floats]]:
        """(sums by segment value as Python integers, the same by bucket as float64 of shape (values, buckets))."""
        totals: dict[Key, npt.NDArray[np.object_]] = {}
        parts: dict[Key, Floats] = {}
        for key, sums in self.sums.items():
            high, low = (limb.reshape(values, buckets) for limb in limbs(sums))
            totals[key] = high.sum(axis=1).astype(object) * (1 << LIMB) + low.sum(axis=1).astype(object)
            parts[key] = np.asarray(high * 2.0**LIMB + low, dtype=np.float64)
        return totals, parts


def add_to_all(
    tallies: Sequence[Tally],
    key: Key,
    rows: Ints | None,
    groups: Sequence[Ints],
    count: int,
    values: Floats | Ints | npt.NDArray[np.bool_] | None,
) -> None:
    """Add whole numbers to a group in each of several families at once.

    groups: of every row of a batch, by family; rows: those that are meant, None for all; values: theirs, as
    `Tally.add` takes them, shape (count,).
    """
    sums = [tally.of(key) for tally in tallies]
    if values is None:
        kernels.sum_ones(count, rows, groups, sums)
    elif values.dtype == np.float64:
        kernels.sum_fixed(count, rows, np.asarray(values, dtype=np.float64), None, 1.0, MOST, groups, sums)
    else:
        kernels.sum_ints(count, rows, values.astype(np.int64, copy=False), groups, sums)


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

    def untold(self, name: str, policy: int) -> npt.NDArray[np.bool_]:
        """Where half-samples say nothing of how a sum varies, shape (values,): they show no spread, and not since a budget
        fixes it: a few buckets hold all of it, or the one stratum that they leave out."""
        parts = self.parts.get((name, policy, None))
        if parts is None or not self.reruns:
            return np.zeros(len(self.values), dtype=bool)
        held = parts != 0
        few = held.any(axis=1) & ((held.sum(axis=1) < FEW) | ~held[:, self.buckets // STRATA :].any(axis=1))
        strata = self.by_bucket(name, policy)
        return np.asarray(few & (np.ptp(strata, axis=1) <= ROUNDING * np.abs(strata).max(axis=1)))

    @property
    def row_weight(self) -> Floats:
        """What a row counts for on average, shape (values,)."""
        return ratio(self.get("weight"), self.get("rows"))

    def exact(self, name: str, policy: int | None = None, head: str | None = None) -> list[int]:
        """The whole-number sums themselves, in units of 1/scale; zeros where not measured."""
        key = (name, policy, head)
        return [int(v) for v in self.sums[key]] if key in self.sums else [0] * len(self.values)

    def rerun(self, moved: Mapping[Key, Floats]) -> Family:
        """With what replays of half-samples say. moved: by key, as `by_stratum` takes it, in the unit of the sums."""
        none = np.zeros((len(self.values), self.buckets))
        return replace(self, reruns={key: by_stratum(self.parts.get(key, none), each) for key, each in moved.items()})

    def as_it_went(self) -> Family:
        """Without what replays of half-samples say: by bucket, given the course that the budget took."""
        return replace(self, reruns={}) if self.reruns else self

    def has(self, name: str, policy: int | None = None, head: str | None = None) -> bool:
        return (name, policy, head) in self.scales


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is zero or either is NaN (written as null)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.asarray(numerator / denominator)
    # Called thousands of times, mostly without a zero.
    if np.count_nonzero(denominator) == np.size(denominator):
        return found
    return np.where(np.asarray(denominator) == 0, np.nan, found)
