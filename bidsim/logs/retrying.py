"""What is transient is tried again, with longer and longer pauses; everything else fails at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 16.0


def pause(seconds: float) -> None:
    time.sleep(seconds)


def retrying(call: Callable[[], Value], transient: Callable[[Exception], bool]) -> Value:
    """The value of a call; where it fails for a transient reason it is called again, up to ATTEMPTS times.

    Pauses double and are drawn between a half and the whole of themselves, so that many readers don't come back at once.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if attempt + 1 == ATTEMPTS or not transient(error):
                raise
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt)
        pause(longest * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")
