"""SIGTERM asks a training to end with what it has; at any other time it interrupts, as it does everywhere in bidsim.

Schedulers and training services send it before they kill. Commands read it here, the library is only told a function
to ask.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + signal.SIGTERM
SAYING = b"bidsim: asked to stop; saving what has been learned (once more to end at once)\n"


class StopRequest:
    """Whether SIGTERM has come. Called, it answers."""

    def __init__(self) -> None:
        self.asked = False
        self._gentle = False

    def __call__(self) -> bool:
        return self.asked

    @contextmanager
    def gently(self) -> Iterator[None]:
        """In here the first SIGTERM only asks."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False

    def hear(self) -> bool:
        """Take note of a SIGTERM; False where it has to interrupt."""
        first, self.asked = not self.asked, True
        if not (first and self._gentle):
            return False
        os.write(2, SAYING)
        return True


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Hear SIGTERM until the block ends."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread alone
        yield request
        return
    before = signal.getsignal(signal.SIGTERM)

    def caught(number: int, frame: FrameType | None) -> None:
        if request.hear():
            return
        if callable(before):
            before(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, caught)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
