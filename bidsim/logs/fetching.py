"""Bytes of objects brought to the work folder: several at a time, a few megabytes each, with the disk looked at first."""

from __future__ import annotations

import errno
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from bidsim.errors import LogError
from bidsim.logs.origins import Told
from bidsim.logs.stores import Store, StoredObject

Given = TypeVar("Given")
Made = TypeVar("Made")
THREADS = 8
PIECE_BYTES = 8 * 2**20
EVERY_SECONDS = 10.0
ENDING_SECONDS = 1.0


@dataclass(frozen=True)
class Piece:
    """Bytes of an object and where they go: `at` in `file`."""

    thing: StoredObject
    start: int
    length: int
    file: Path
    at: int


def in_threads(call: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Results in their order, a few at a time; the first error, or an interrupt, ends it.

    It ends without those that wait for an answer: a store that has gone silent would keep an interrupt for minutes.
    """
    tasks: SimpleQueue[tuple[Future[Made], Given] | None] = SimpleQueue()

    def work() -> None:
        while (task := tasks.get()) is not None:
            future, one = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(one))
                except BaseException as error:
                    future.set_exception(error)

    threads = 0
    waiting: deque[Future[Made]] = deque()
    try:
        for one in given:
            future: Future[Made] = Future()
            waiting.append(future)
            tasks.put((future, one))
            if threads < THREADS:
                Thread(target=work, daemon=True).start()
                threads += 1
            if len(waiting) >= 2 * THREADS:
                yield waiting[0].result()
                waiting.popleft()
        while waiting:
            yield waiting[0].result()
            waiting.popleft()
    finally:
        running = [future for future in waiting if not future.cancel()]
        for _ in range(threads):
            tasks.put(None)
        wait(running, ENDING_SECONDS)


def fetch(store: Store, pieces: Sequence[Piece], work: Path, told: Told, what: str) -> None:
    """Bring all pieces; their files are there before. what: the log, for messages. Raises LogError."""
    total = sum(piece.length for piece in pieces)
    require_space(work, total, what)
    files = len({piece.file for piece in pieces})
    words = f"fetching {what}: {size_text(total)} in {files:,} file{'s' * (files != 1)}"
    told(words)
    done, last = 0, time.monotonic()
    for length in in_threads(lambda piece: _bring(store, piece), _split(pieces)):
        done += length
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            told(f"{words}, {100 * done // max(1, total)}% done")


def require_space(work: Path, needed: int, what: str) -> None:
    """Raises LogError where the disk of the work folder has no room for so many bytes."""
    free = shutil.disk_usage(work).free
    if needed > free:
        raise LogError(
            f"{what} takes {size_text(needed)} of disk for the run and {size_text(free)} are free; set TMPDIR to a folder "
            "on a larger disk, or read a shorter window",
            file=str(work.parent),
        )


def disk_full(error: OSError) -> LogError | None:
    """The error of a disk that is full; None for any other."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return LogError("the disk is full while the log was brought to it; free some space or set TMPDIR")


def size_text(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _split(pieces: Sequence[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        for done in range(0, piece.length, PIECE_BYTES):
            length = min(PIECE_BYTES, piece.length - done)
            yield Piece(piece.thing, piece.start + done, length, piece.file, piece.at + done)


def _bring(store: Store, piece: Piece) -> int:
    body = store.read(piece.thing, piece.start, piece.length)
    try:
        with open(piece.file, "r+b") as stream:
            stream.seek(piece.at)
            stream.write(body)
    except OSError as error:
        raise disk_full(error) or error from None
    return len(body)
