"""The errors that bidsim raises on purpose, each one clear message for the person who can mend it.

Every error names the thing that is wrong, where it stands (file, line or column, where known) and what to do.
The command line prints ``str(error)`` as one message and exits with status 2.
"""

from __future__ import annotations

from bidsim.visible import visible

MOST_CHARACTERS = 4_000  # names in a message may have megabytes


class BidsimError(Exception):
    """The scenario, a model, the log or a flag can't be used.

    message: what is wrong and what to do, one or two sentences.
    file: the file at fault, as the user named it; line, column: 1-based place in it.
    """

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = self.file or ""
        if place and self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        text = f"{place}: {self.message}" if place else self.message
        return visible(text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}...")


class ScenarioError(BidsimError):
    """The scenario file or an expression in it can't be used."""


class LogError(BidsimError):
    """The log or the campaign table can't be read, or lacks a column."""


class ExpressionError(LogError):
    """An expression of the scenario has no value for a row of the log; the message goes on after the expression's key."""


class ModelError(BidsimError):
    """A model file can't be used: unreadable, foreign, damaged, or made for other features."""


class NotSupportedYetError(ScenarioError):
    """The key is part of the scenario format, its behaviour comes with a later version."""
