"""Rows that later looks need, set aside by the scan: few columns of some rows, in files of the work folder.

What wins at another bid level, and what rows of unknown fate may have cost, can only be asked when all rows are summed.
Reading the log again for it costs as much as a third of the scan; the rows that matter, a copy of a few numbers each.
Where they can't be kept (the disk is full, or the scan runs in other processes) the log is read again instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.arrays import array_of
from bidsim.replay.batches import COUNTED, DECIDED, ROW_WON, UNKNOWN, Batch
from bidsim.replay.engines import SumsT
from bidsim.replay.plan import Plan
from bidsim.replay.sharing import share
from bidsim.replay.stream import STREAM_ROWS

Kind = Literal["starts", "fates", "raised"]
KINDS: tuple[Kind, ...] = ("starts", "fates", "raised")
Columns = Mapping[str, npt.NDArray[Any]]

# Of an unknown row, see sql/unknowns.sql.
UNKNOWN_WIN, UNKNOWN_OUTCOME = 1, 2
# Rows without an outcome are kept where a candidate's bid, so many times as high, wins them.
NEAR = 1.6


@dataclass(frozen=True)
class Wanted:
    """What is set aside. starts: policies whose bids' start to win is looked at again; fates: policies whose unknown rows
    are; dearer: whether unknown wins have costs of their own; sources: indices of predictions that unknown rows need; raised:
    policies for whose raised bids rows without an observed outcome are kept, see sql/matched_fates.sql."""

    plan: Plan
    folder: Path
    starts: tuple[int, ...]
    fates: tuple[int, ...]
    dearer: bool
    sources: tuple[int, ...]
    raised: tuple[int, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if getattr(self, kind))


class Aside:
    """What one thread has set aside, or several of them together. Arrow files, written in pieces of STREAM_ROWS and more."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.whole = True
        self._files: dict[Kind, list[Path]] = {kind: [] for kind in wanted.kinds}
        self._writers: dict[Kind, pa.RecordBatchFileWriter] = {}
        self._waiting: dict[Kind, list[pa.RecordBatch]] = {kind: [] for kind in wanted.kinds}

    def add(self, batch: Batch) -> None:
        for kind in self.wanted.kinds:
            if self.whole:
                found = getattr(self, f"_{kind}_rows")(batch)
                if found is not None:
                    self._put(kind, found)

    def merge(self, other: Self) -> None:
        self._end()
        other._end()
        self.whole = self.whole and other.whole
        for kind, files in other._files.items():
            self._files[kind] += files

    def has(self, kind: Kind) -> bool:
        """Whether all rows of a kind were kept."""
        self._end()
        return self.whole and kind in self._files

    def reduce(self, kind: Kind, make: Callable[[], SumsT], threads: int) -> SumsT:
        """The sums of the rows of a kind that `has` says is here, shared by the threads in no order."""
        first, *others = states = [make() for _ in range(threads)]
        share(self._batches(kind), lambda batch, state: state.add(batch), states)
        for other in others:
            first.merge(other)
        return first

    def drop(self) -> None:
        """Give the disk back."""
        self._end()
        for file in (f for files in self._files.values() for f in files):
            file.unlink(missing_ok=True)

    def _starts_rows(self, batch: Batch) -> pa.RecordBatch | None:
        """Rows on which some policy's bid can start to win, and what comes of it was observed."""
        plan = self.wanted.plan
        names = [f"start_{policy}" for policy in self.wanted.starts]
        never = np.isnan(batch[names[0]])
        for name in names[1:]:
            never &= np.isnan(batch[name])
        rows = np.flatnonzero(batch.observed & ~never)
        names += ["money", *(role for role in ("click", "conversion") if plan.has(role)), *self._own_bids(batch)]
        return self._rows(batch, rows, {name: batch[name][rows] for name in names})

    def _own_bids(self, batch: Batch) -> list[str]:
        """Columns that say what is paid where it is the bid."""
        return [name for name in batch.columns if name == "first_price" or name.startswith("raw_")]

    def _raised_rows(self, batch: Batch) -> pa.RecordBatch | None:
        """Rows without an observed outcome that some candidate's bids win, raised or not, as sql/matched_fates.sql gives
        them where all prices are known."""
        near = np.zeros(batch.rows, dtype=bool)
        for policy in self.wanted.raised:
            near |= batch[f"start_{policy}"] <= NEAR
        rows = np.flatnonzero(near & ~batch.observed)
        if len(rows) == 0:
            return None
        outcome = (batch["policy_0"][rows] & (DECIDED | COUNTED)) == DECIDED
        cost = np.where(outcome, batch.cost(0)[rows], 0)
        columns: dict[str, npt.NDArray[Any]] = {f"start_{p}": batch[f"start_{p}"][rows] for p in self.wanted.raised}
        columns |= {name: batch[name][rows] for name in self._own_bids(batch)}
        columns |= {"cheap": batch["money"][rows], "dear_0": cost, "cheap_0": cost}
        columns["unknown_0"] = np.where(outcome, UNKNOWN_OUTCOME, 0).astype("u1")
        columns |= {f"score_{i}": batch[f"score_{i}"][rows] for i in self.wanted.sources}
        return self._rows(batch, rows, columns | self._labels(batch, rows))

    def _labels(self, batch: Batch, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """What the log shows of rows that it won."""
        won = (batch["row"][rows] & ROW_WON) != 0
        columns: dict[str, npt.NDArray[Any]] = {}
        if self.wanted.plan.has("click"):
            click = batch["click"][rows]
            columns["click"] = np.where(won & (click <= 1), click, np.nan)
        if self.wanted.plan.has("conversion"):
            columns["conversion"] = np.where(won, batch["conversion"][rows], np.nan)
        return columns

    def _fates_rows(self, batch: Batch) -> pa.RecordBatch | None:
        """Rows whose fate under some policy the log does not show, as sql/unknowns.sql gives them."""
        plan = self.wanted.plan
        states = {policy: batch[f"policy_{policy}"] for policy in self.wanted.fates}
        some = np.zeros(batch.rows, dtype=bool)
        for state in states.values():
            some |= ((state & UNKNOWN) != 0) | ((state & (DECIDED | COUNTED)) == DECIDED)
        rows = np.flatnonzero(some)
        if len(rows) == 0:
            return None
        columns: dict[str, npt.NDArray[Any]] = {}
        for policy, whole in states.items():
            state, cost = whole[rows], batch.cost(policy)[rows]
            win = (state & UNKNOWN) != 0
            outcome = (state & (DECIDED | COUNTED)) == DECIDED
            columns[f"unknown_{policy}"] = np.where(win, UNKNOWN_WIN, np.where(outcome, UNKNOWN_OUTCOME, 0)).astype(
                "u1"
            )
            for name in ("dear", "cheap"):
                own = batch[f"{name}_{policy}"][rows] if self.wanted.dearer else cost
                columns[f"{name}_{policy}"] = np.where(win, own, np.where(outcome, cost, 0))
        columns |= self._labels(batch, rows)
        names = [f"score_{i}" for i in self.wanted.sources]
        names += [target for target in ("target_cpc", "target_cpa") if plan.has(target)]
        return self._rows(batch, rows, columns | {name: batch[name][rows] for name in names})

    def _rows(self, batch: Batch, rows: npt.NDArray[np.int64], columns: Columns) -> pa.RecordBatch | None:
        """With what every kind has: weights, segment values, buckets of units."""
        if len(rows) == 0:
            return None
        plan = self.wanted.plan
        more = {name: batch[name][rows] for name in ("w", "wi") if plan.weighted}
        more |= {f"code_{i}": batch[f"code_{i}"][rows] for i in range(len(plan.segments))}
        more["bucket"] = batch.bucket[rows].astype(np.uint8)
        return pa.record_batch({name: array_of(column) for name, column in {**columns, **more}.items()})

    def _put(self, kind: Kind, batch: pa.RecordBatch) -> None:
        waiting = self._waiting[kind]
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= STREAM_ROWS:
            self._flush(kind)

    def _flush(self, kind: Kind) -> None:
        waiting, self._waiting[kind] = self._waiting[kind], []
        if not waiting or not self.whole:
            return
        try:
            if kind not in self._writers:
                handle, name = tempfile.mkstemp(prefix=f"{kind}-", suffix=".arrow", dir=self.wanted.folder)
                os.close(handle)
                self._files[kind].append(Path(name))
                self._writers[kind] = pa.ipc.new_file(name, waiting[0].schema)
            self._writers[kind].write_batch(pa.concat_batches(waiting))
        except OSError:  # no space: the log is read again instead
            self._give_up()

    def _end(self) -> None:
        """Finish the files."""
        for kind in self.wanted.kinds:
            self._flush(kind)
        try:
            while self._writers:
                self._writers.popitem()[1].close()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        self.whole = False
        self._writers.clear()
        self.drop()

    def _batches(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """Read, not mapped into memory: what was read would count as ours."""
        for file in self._files[kind]:
            with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
                for i in range(reader.num_record_batches):
                    yield reader.get_batch(i)
