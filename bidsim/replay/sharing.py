"""How batches of rows reach the code that sums them, on threads of this process: side by side, or in order.

What an engine runs where the rows are is said in `engines`; this is how the one in this process does it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

State = TypeVar("State")
Given = TypeVar("Given")
Progress = Callable[[int], None]


def share(
    batches: Iterator[pa.RecordBatch],
    work: Callable[[pa.RecordBatch, State], None],
    states: Sequence[State],
    progress: Progress | None = None,
) -> None:
    """Hand batches to as many threads as there are states; a state is touched by its own thread only.

    progress: told how many rows are done. Where one fails, or the user interrupts, the others stop after the batch they
    are at.
    """
    lock = threading.Lock()
    stop = threading.Event()
    done = 0

    def run(state: State) -> None:
        nonlocal done
        try:
            while not stop.is_set():
                with lock:
                    batch = next(batches, None)
                if batch is None:
                    return
                work(batch, state)
                if progress is not None:
                    with lock:
                        done += batch.num_rows
                        progress(done)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(states)) as pool:
        try:
            for future in [pool.submit(run, state) for state in states]:
                future.result()
        finally:
            stop.set()


def show(
    batches: Iterator[pa.RecordBatch],
    prepare: Callable[[pa.RecordBatch], Given],
    works: Sequence[Callable[[Given], None]],
) -> None:
    """Show every batch, prepared once, to all in the order of the batches, they side by side."""
    with ThreadPoolExecutor(max(1, len(works))) as pool:
        for batch in batches:
            given = prepare(batch)
            for future in [pool.submit(work, given) for work in works]:
                future.result()


def ordered_map(
    function: Callable[[pa.RecordBatch], pa.RecordBatch],
    batches: Iterator[pa.RecordBatch],
    threads: int,
    end: Callable[[], None] = lambda: None,
) -> Iterator[pa.RecordBatch]:
    """Apply to batches on several threads, results in the order of the batches, a few at a time in memory.

    end: ends calls of the function that are under way, where nobody waits for them any more.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:  # also an interrupt, or the end of this generator
            for future in waiting:
                future.cancel()
            end()
            raise
