"""The log reduced to sums: a small table of exact whole numbers from which every smooth metric is computed.

Tallies merge by addition, so parts of a log can be reduced apart. Sums are Python integers in numpy object arrays;
they become floats once, at the end, by one correctly rounded division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Key = tuple[str, int | None, str | None]
Floats = npt.NDArray[np.float64]

OVERALL = ""


@dataclass(frozen=True)
class Family:
    """One way to cut the log: the sums of each of its segment values.

    name: the segment's name, "" for the whole log; values: labels of the segment values, in a fixed order;
    sums: by key, whole numbers, shape (values,); scales: what a sum is divided by.
    """

    name: str
    values: tuple[str, ...]
    sums: dict[Key, npt.NDArray[np.object_]]
    scales: dict[Key, int]

    def get(self, name: str, policy: int | None = None, head: str | None = None) -> Floats:
        """The sums of a measure in its own unit, shape (values,); NaN where it was not measured."""
        key = (name, policy, head)
        if key not in self.sums:
            return np.full(len(self.values), np.nan)
        scale = self.scales[key]
        # int / int rounds once; a float sum or product before the division could round twice.
        return np.array([int(v) / scale for v in self.sums[key]], dtype=np.float64)

    def exact(self, name: str, policy: int | None = None, head: str | None = None) -> list[int]:
        """The whole-number sums themselves, in units of 1/scale; zeros where not measured."""
        key = (name, policy, head)
        return [int(v) for v in self.sums[key]] if key in self.sums else [0] * len(self.values)

    def has(self, name: str, policy: int | None = None, head: str | None = None) -> bool:
        return (name, policy, head) in self.sums


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is zero or either is NaN (written as null)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator != 0, numerator / np.where(denominator == 0, np.nan, denominator), np.nan)
