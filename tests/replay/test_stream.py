"""Threads that share batches: all of them once, and an end as soon as one fails."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from bidsim.replay.sharing import share

BATCHES = 5_000


def batches(taken: list[int]) -> Iterator[pa.RecordBatch]:
    for i in range(BATCHES):
        taken.append(i)
        yield pa.record_batch({"x": [i]})


def test_every_batch_is_worked_on_once() -> None:
    states: list[list[int]] = [[], [], []]
    share(batches([]), lambda batch, state: state.extend(batch.column("x").to_pylist()), states)
    assert sorted(i for state in states for i in state) == list(range(BATCHES))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_others_stop_where_one_fails(error: type[BaseException]) -> None:
    taken: list[int] = []

    def work(batch: pa.RecordBatch, state: list[int]) -> None:
        if batch.column("x")[0].as_py() == 7:
            raise error

    with pytest.raises(error):
        share(batches(taken), work, [[], []])
    assert len(taken) < BATCHES
