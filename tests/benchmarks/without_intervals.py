"""The replay without what it does for intervals alone: the measure of what they cost.

    python tests/benchmarks/without_intervals.py replay --scenario /tmp/log5/scenario.yaml --out /tmp/plain

Takes what `bidsim` takes, but for a scenario with a `unit` (leave it out: the column is then not read). Units are not
hashed and stand in one bucket, scores are not counted by bucket, nothing is resampled; so every interval is null and every
value is what it was. One thing stays: the share of negatives below each positive, added up in passing with the exact AUC.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.replay import batches, reduce, worker
from bidsim.statistics import metrics, numbers, units


class NoCells:
    """In place of the counts of scores by bucket of units."""

    def add(self, *_: Any, **__: Any) -> None:
        return

    def merge(self, _: NoCells) -> None:
        return

    def matrix(self) -> tuple[npt.NDArray[np.float64], ...]:
        return np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(0)


def one_unit(_: Any, unit: Any, __: Any) -> npt.NDArray[np.uint64]:
    return np.zeros(len(unit), dtype=np.uint64)


def take_out_intervals() -> None:
    for module in (units, reduce, worker, numbers):
        module.BUCKETS = 1  # type: ignore[attr-defined]
    reduce.buckets_for = lambda values: 1
    batches.hash_units = one_unit
    worker.UnitCount.add = lambda self, hashes: None  # type: ignore[method-assign]
    numbers._drawn = lambda tables: {}
    metrics.with_noise = lambda *_: {}
    make = worker.Worker.__init__

    def made(self: worker.Worker, scan: worker.Scan) -> None:
        make(self, scan)
        self.by_bucket = {pair: NoCells() for pair in self.by_bucket}  # type: ignore[misc]

    worker.Worker.__init__ = made  # type: ignore[method-assign]


if __name__ == "__main__":
    take_out_intervals()
    from bidsim.__main__ import main

    sys.exit(main())
