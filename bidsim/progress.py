"""Progress on stderr: a live line on a terminal, plain lines elsewhere (CI, a file), nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from bidsim.replay.progress import Progress, Silent


class Lines:
    """One plain line as a step begins, and when a long one goes on: what a CI log can show."""

    def __init__(self, stream: TextIO, every: float = 10.0) -> None:
        self._stream = stream
        self._every = every
        self._name = ""
        self._began = self._told = time.monotonic()
        self._total = 0

    def step(self, name: str) -> None:
        self._name = name
        self._began = self._told = time.monotonic()
        print(f"bidsim: {name}", file=self._stream, flush=True)

    def total(self, rows: int) -> None:
        self._total = rows
        print(f"bidsim: {rows:,} rows in the window", file=self._stream, flush=True)

    def rows(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            rate = done / (now - self._began)
            print(f"bidsim: {self._name}: {done:,} rows, {rate:,.0f} rows/s", file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        print(_warning(text), file=self._stream, flush=True)


def _warning(text: str) -> str:
    return f"bidsim: warning: {text}"


class Live:
    """A line that changes in place: what is being done, rows, rate, time left where it is known."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rows]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, rows="")
        self._began = time.monotonic()
        self._total: int | None = None

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, name: str) -> None:
        self._began = time.monotonic()
        self._bar.reset(self._task, description=name, total=None, rows="")

    def total(self, rows: int) -> None:
        self._total = rows

    def rows(self, done: int) -> None:
        rate = done / max(1e-9, time.monotonic() - self._began)
        self._bar.update(self._task, completed=done, total=self._total, rows=f"{done:,} rows, {rate:,.0f}/s")

    def warn(self, text: str) -> None:
        self._bar.console.print(_warning(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_for(stream: TextIO = sys.stderr, *, quiet: bool) -> Iterator[Progress]:
    """The progress that suits the stream."""
    if quiet:
        yield Silent()
    elif stream.isatty():
        with Live(stream) as live:
            yield live
    else:
        yield Lines(stream)
