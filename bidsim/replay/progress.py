"""How a long replay tells what it is doing. The replay calls; the command line decides what is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def step(self, name: str) -> None:
        """A new step begins."""

    def total(self, rows: int) -> None:
        """The rows of the window are known."""

    def rows(self, done: int) -> None:
        """So many rows of this step are done."""

    def warn(self, text: str) -> None:
        """What is done is hardly what was meant."""


class Silent:
    """Shows nothing."""

    def step(self, name: str) -> None:
        pass

    def total(self, rows: int) -> None:
        pass

    def rows(self, done: int) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
