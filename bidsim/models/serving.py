"""A bundle whose heads belong to other libraries, scored in child processes for as long as it is used.

`ServedScorer` looks like any scorer. It cuts a batch into pieces, hands each to a thread of a child through memory that
both share, and takes the scores from there: rows are copied once, and never pickled. A child that dies or takes too long
ends in one message that names the model and the payload. Where the libraries score one batch at a time, as they hold
Python's lock, children are added while batches wait.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import socket
import tempfile
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.sandbox import Child, Limits
from bidsim.models.wire import ANSWER, IDLE, MARK, REQUEST

if TYPE_CHECKING:
    from bidsim.models.bundle import Bundle
    from bidsim.scenario.schema import Head

PIECE_ROWS = 32_768  # more don't make the libraries faster, and threads would end at more different times
PIECE_BYTES = 16 << 20
# Formats whose scoring holds Python's lock for long. They get whole batches: each call of a pipeline costs a millisecond.
LOCKED = ("sklearn.skops/1", "vw/1")
PATIENCE_SECONDS = 1.0  # of waiting for a child until another is started
_THREAD_MEMORY = 256 << 20  # address space that a thread reserves, more than it uses


class ServedScorer:
    """See `Scorer`. threads: how many batches are scored at once; default: as many as there are cores."""

    def __init__(self, bundle: Bundle, limits: Limits | None = None, threads: int | None = None) -> None:
        self.heads: tuple[Head, ...] = bundle.manifest.order
        self.features: tuple[str, ...] = bundle.features
        self._bundle = bundle
        self._limits = limits or Limits()
        threads = threads or os.cpu_count() or 1
        locked = any(entry.format in LOCKED for entry in bundle.manifest.heads.values())
        self._turns = 1 if locked else threads
        self._piece_rows = None if locked else PIECE_ROWS
        self._more = threads - 1 if locked else 0
        self._waited = 0.0
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[_Channel] = queue.LifoQueue()
        self._children: list[_Server] = []
        # Also when the interpreter ends; where that doesn't come to it, the children see that their parent is gone.
        self._closing = weakref.finalize(self, _end_all, self._children, os.getpid())
        self._add_child()

    def score(self, batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
        """See `Scorer.score`. Raises ModelError also where the child dies or hangs."""
        wanted = [place for place, name in enumerate(batch.schema.names) if name in self.features]
        given = pa.RecordBatch.from_arrays(
            [batch.column(place) for place in wanted], schema=pa.schema([batch.schema.field(i) for i in wanted])
        )
        rows = batch.num_rows
        scores = {str(head): np.empty(rows, dtype=np.float64) for head in self.heads}
        pieces = max(1, -(-rows // (self._piece_rows or rows or 1)), -(-given.nbytes // PIECE_BYTES))
        step = max(1, -(-rows // pieces))
        waiting: deque[tuple[_Channel, int]] = deque()

        def collect() -> None:
            channel, start = waiting.popleft()
            try:
                for head, values in zip(self.heads, channel.receive(), strict=True):
                    scores[head][start : start + len(values)] = values
            finally:
                self._free.put(channel)

        try:
            for start in range(0, max(rows, 1), step):
                channel = self._take(wait=not waiting)
                while channel is None:
                    collect()
                    channel = self._take(wait=not waiting)
                waiting.append((channel, start))
                channel.send(given.slice(start, step) if rows else given)
            while waiting:
                collect()
        except ModelError:
            while waiting:  # channels whose answers are read can be used again
                with contextlib.suppress(ModelError):
                    collect()
            raise
        except BaseException:
            self.close()
            raise
        return scores

    def close(self) -> None:
        """End the children; threads that wait for scores get a ModelError, and so does who asks afterwards."""
        self._closing()
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait()

    def _take(self, *, wait: bool) -> _Channel | None:
        """A channel without a request; None where all are busy and the caller has answers to collect."""
        start = time.monotonic()
        channel: _Channel | None = None
        while channel is None:
            if not self._closing.alive:
                raise ModelError("the model was closed; open it again", file=str(self._bundle.path))
            with contextlib.suppress(queue.Empty):
                channel = self._free.get(timeout=1.0 if wait else 0.0)
            if not wait:
                return channel
        with self._lock:
            self._waited += time.monotonic() - start
            grow = self._more > 0 and self._waited > PATIENCE_SECONDS
            if grow:
                self._more, self._waited = self._more - 1, 0.0
        if grow:
            threading.Thread(target=self._grow, daemon=True).start()
        return channel

    def _grow(self) -> None:
        with contextlib.suppress(ModelError):  # then those that are there go on alone
            self._add_child()

    def _add_child(self) -> None:
        child = _Server(self._bundle, self.heads, self._limits, self._turns)
        with self._lock:
            self._children.append(child)
        if not self._closing.alive:  # closed meanwhile
            child.end()
            return
        for channel in child.channels:
            self._free.put(channel)


class _Server:
    """A child that has loaded the bundle, and the channels to its threads."""

    def __init__(self, bundle: Bundle, heads: tuple[Head, ...], limits: Limits, turns: int) -> None:
        self.file = str(bundle.path)
        self.seconds = limits.batch_seconds
        self.heads = heads
        self._payloads = [bundle.manifest.heads[head].payloads[0] for head in heads]
        pairs = [socket.socketpair() for _ in range(2 * turns)]
        memories = [_memory() for _ in pairs]
        theirs = [(their.fileno(), memory) for (_, their), memory in zip(pairs, memories, strict=True)]
        self.channels: list[_Channel] = []
        try:
            self._child = Child(
                {"do": "serve", "turns": turns, "channels": theirs},
                bundle.data,
                self.file,
                limits,
                descriptors=[number for both in theirs for number in both],
                memory=2 * turns * _THREAD_MEMORY,
            )
        except BaseException:
            for (ours, _), memory in zip(pairs, memories, strict=True):
                ours.close()
                os.close(memory)
            raise
        finally:
            for _, their in pairs:
                their.close()
        self.channels = [_Channel(self, ours, memory) for (ours, _), memory in zip(pairs, memories, strict=True)]
        try:
            self._child.answer()
        except BaseException:
            self.end()
            raise

    def fail(self, *, late: bool = False) -> ModelError:
        """The error for a child that did not answer."""
        if late:
            self._child.too_late()
        busy = {head for channel in self.channels if (head := channel.scoring) is not None}
        payloads = [payload for place, payload in enumerate(self._payloads) if place in busy or not busy]
        return self._child.death(" or ".join(payloads))

    def end(self) -> None:
        """The channels' descriptors are closed with the last thread that uses them: their numbers may be others' then."""
        self._child.end()
        self.channels = []


class _Channel:
    """One thread of a child. Used by one thread at a time."""

    def __init__(self, server: _Server, connection: socket.socket, memory: int) -> None:
        self._server = server
        self._connection = connection
        self._connection.settimeout(server.seconds)
        self._memory = memory
        self._shared: mmap.mmap | None = None
        self._at = self._rows = 0
        weakref.finalize(self, _close, connection, memory)

    @property
    def scoring(self) -> int | None:
        """The number of the head that the child is at; None where it has no rows or has not begun."""
        mark = IDLE if self._shared is None else self._shared[self._at]
        return None if mark == IDLE else mark

    def send(self, batch: pa.RecordBatch) -> None:
        """Leave rows for the child. It is not an error here when it has died: `receive` says so."""
        size = batch.nbytes + 1024 * (batch.num_columns + 4)
        while True:
            at = -(-size // 64) * 64
            needed = at + MARK + 8 * batch.num_rows * len(self._server.heads)
            shared = self._room(needed)
            try:
                sink = pa.FixedSizeBufferWriter(pa.py_buffer(memoryview(shared)[:at]))
                with pa.ipc.new_stream(sink, batch.schema) as writer:
                    writer.write_batch(batch)
                size = sink.tell()
                break
            except (pa.ArrowInvalid, OSError):  # dictionaries and the like took more than was reckoned
                size = 2 * size
                if size > 1 << 40:
                    raise
        shared[at] = IDLE
        self._at, self._rows = at, batch.num_rows
        with contextlib.suppress(OSError):
            self._connection.sendall(REQUEST.pack(len(shared), size, at, batch.num_rows))

    def receive(self) -> list[NDArray[np.float64]]:
        """The scores of the rows sent last, one array a head. Raises ModelError."""
        try:
            good, length = ANSWER.unpack(self._exactly(ANSWER.size))
            text = self._exactly(length)
        except TimeoutError:
            raise self._server.fail(late=True) from None
        except OSError:
            raise self._server.fail() from None
        assert self._shared is not None
        self._shared[self._at] = IDLE
        if not good:
            raise ModelError(text.decode("utf-8", "replace"), file=self._server.file)
        start = self._at + MARK
        found = np.frombuffer(self._shared, np.float64, self._rows * len(self._server.heads), start)
        return list(found.reshape(len(self._server.heads), self._rows))

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self._connection.recv(size - len(found))
            if not more:
                raise ConnectionResetError
            found += more
        return found

    def _room(self, needed: int) -> mmap.mmap:
        if self._shared is None or len(self._shared) < needed:
            capacity = max(1 << 20, 1 << (needed - 1).bit_length())
            os.ftruncate(self._memory, capacity)
            self._shared = mmap.mmap(self._memory, capacity)
        return self._shared


def _memory() -> int:
    """A file that lies nowhere, to be shared with a child."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bidsim")
    with tempfile.TemporaryFile(prefix="bidsim-") as file:
        return os.dup(file.fileno())


def _close(connection: socket.socket, memory: int) -> None:
    connection.close()
    os.close(memory)


def _end_all(children: list[_Server], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the process that has the children
        return
    while children:
        children.pop().end()
