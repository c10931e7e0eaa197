"""A batch of the reduction's stream as numpy arrays, and the rows of it that a sum is over.

Every row has a group in each family of segments: its segment value's code x the family's buckets + its unit's bucket.
The first family is the whole log, the others are the segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.arrays import values_of
from bidsim.replay.plan import Plan
from bidsim.statistics import units

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ROW_WON, ROW_UNDECIDABLE, ROW_PRICED = 1, 2, 4
ENTERED, DECIDED, COUNTED, UNKNOWN = 1, 2, 4, 8


class Batch:
    """Columns by name (see sql/stream.sql), the code of each segment, the bucket and the groups of each family."""

    def __init__(self, plan: Plan, batch: pa.RecordBatch) -> None:
        self.rows = batch.num_rows
        self.columns: dict[str, npt.NDArray[Any]] = {
            name: column_of(batch, name) for name in batch.schema.names if name not in ("unit", "bucket")
        }
        self.codes: list[Ints] = [self.columns[f"code_{i}"].astype(np.int64) for i in range(len(plan.segments))]
        if "bucket" in batch.schema.names:  # set aside by a scan that knew the units
            self.bucket: Ints = values_of(batch.column("bucket")).astype(np.int64)
        else:
            self.hashes = self._hashes(plan, batch.column("unit"))
            self.bucket = units.buckets_of(self.hashes)
        self.groups: list[Ints] = [self.bucket]
        for code, buckets in zip(self.codes, plan.buckets, strict=True):
            self.groups.append(code * buckets + self.bucket // (units.BUCKETS // buckets))

    @property
    def all(self) -> Pick:
        """All rows. Made each time: a batch that pointed to itself would stay until the collector comes by."""
        return Pick(self, None)

    def cost(self, policy: int) -> npt.NDArray[Any]:
        """What a policy pays where it wins, in 1e-9 CPM times the weight: without first-price auctions, the price."""
        return self.columns.get(f"cost_{policy}", self.columns["money"])

    @cached_property
    def observed(self) -> Bools:
        """Whether the log won the row and shows its labels (facts.sql)."""
        seen = (self["row"] & ROW_WON) != 0
        if "click" in self.columns:
            seen &= self["click"] <= 1
        if "conversion" in self.columns:
            seen &= ~np.isnan(self["conversion"])
        return np.asarray(seen)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def pick(self, mask: Bools) -> Pick:
        """The rows for which mask is true."""
        rows = np.flatnonzero(mask)
        return self.all if len(rows) == self.rows else Pick(self, rows)

    def _hashes(self, plan: Plan, unit: pa.Array) -> units.Hashes:
        if plan.unit != "row" and unit.null_count == 0:
            return hash_units(plan, unit, [])
        return hash_units(plan, unit, [self["money"], *self.codes, *(self[f"score_{i}"] for i in plan.hashed_sources)])


def column_of(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """A column of a batch; NULL becomes NaN."""
    column = batch.column(name)
    return values_of(column, np.nan if pa.types.is_floating(column.type) else None)


def hash_units(plan: Plan, unit: pa.Array, own: Sequence[npt.NDArray[Any]]) -> units.Hashes:
    """Hashes of the rows' units. own: what tells a row without a unit apart, which is then a unit of its own: what the
    log says of it before anything happens (money, codes of segments, `Plan.hashed_sources`); not needed where all have.
    """
    if plan.unit == "row":
        return units.hash_rows([own[0], values_of(unit), *own[1:]])
    known = units.hash_whole(values_of(unit, 0)) if plan.unit == "whole" else units.hash_texts(unit)
    if unit.null_count == 0:
        return known
    return np.where(values_of(unit.is_valid()), known, units.hash_rows(own))


class Pick:
    """Some rows of a batch, with their groups; rows None: all of them."""

    def __init__(self, batch: Batch, rows: Ints | None) -> None:
        self.batch = batch
        self.rows = rows
        self.count = batch.rows if rows is None else len(rows)
        self._groups: dict[int, Ints] = {}

    def take(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """These rows of a column of the batch."""
        return column if self.rows is None else column[self.rows]

    def group(self, family: int) -> Ints:
        if self.rows is None:
            return self.batch.groups[family]
        if family not in self._groups:
            self._groups[family] = self.batch.groups[family][self.rows]
        return self._groups[family]

    def pick(self, mask: Bools) -> Pick:
        """Those of these rows for which mask, of this pick's length, is true."""
        rows = np.flatnonzero(mask)
        if len(rows) == self.count:
            return self
        return Pick(self.batch, rows if self.rows is None else self.rows[rows])


Columns = Mapping[str, Sequence[Any]]
