"""Moments that an interrupt may not split: it is told once they are over.

Between a folder that has been made and the `try` that removes it there is a moment that no `finally` covers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def held() -> Iterator[None]:
    """Signals that Python code answers wait until the block ends. Enter it inside of the `try` that cleans up."""
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread alone
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {}
    try:
        for number in NUMBERS:
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
