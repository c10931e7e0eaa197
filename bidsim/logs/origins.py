"""Where the rows of a source come from when they are not in local files, and what a replay asks of such a place.

First the columns and their types are brought (and whole files of formats that can't be read in part), then, when the
scenario is bound to them and nothing is wrong with it, the rows: only columns in use, only what may be in the window.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

Told = Callable[[str], None]
PART = "part"


@dataclass(frozen=True)
class Span:
    """Times that the window can hold, at most: start <= value of the column < end. Aware times, or wall clock ones."""

    column: str
    start: datetime
    end: datetime

    def may_hold(self, low: Any, high: Any) -> bool:
        """Whether values between two may lie in it; true where they are no such times."""
        for value in (low, high):
            if not isinstance(value, datetime) or (value.tzinfo is None) != (self.start.tzinfo is None):
                return True
        return bool(high >= self.start and low < self.end)


@dataclass(frozen=True)
class Wanted:
    """What a replay reads. columns: lower-case names; files: indices of the files that conditions on partitions leave;
    span: of its window; ids: numbers of columns, where files tell columns by them. None: all of them."""

    columns: frozenset[str] | None = None
    files: frozenset[int] | None = None
    span: Span | None = None
    ids: frozenset[int] | None = None

    def reads(self, column: str, number: int | None = None) -> bool:
        """number: the column's in its file; where numbers are asked for, a column without one may be any of them."""
        if self.ids is not None:
            return number is None or number in self.ids
        return self.columns is None or column.lower() in self.columns

    @property
    def digest(self) -> str:
        """A short name for it."""
        parts = [None if part is None else sorted(part) for part in (self.columns, self.ids, self.files)]
        return digest_of(parts, repr(self.span))


class Origin(Protocol):
    """files: a name for each file in the order of the log; tokens: what tells the content of each apart."""

    @property
    def files(self) -> tuple[str, ...]: ...

    @property
    def tokens(self) -> tuple[str, ...]: ...

    def describe(self) -> dict[str, Any]:
        """What run.json says of it."""

    @property
    def directory(self) -> Path | None:
        """Where its files are brought to; None before `begin`."""

    @property
    def partitions(self) -> Path | None:
        """A Parquet file with the partition values of each file, where paths don't tell them."""

    def begin(self, directory: Path, told: Told) -> tuple[list[Path], Origin]:
        """Local files with all columns and perhaps no rows yet, and what will bring the rows."""

    def rows(self, wanted: Wanted) -> list[Path]:
        """Local files, in the order of the log, with the rows and columns wanted and perhaps more; brought once."""

    def shown(self, text: str) -> str:
        """A text with names of local files put back to what they stand for."""


def digest_of(*content: Any) -> str:
    """A short name for plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def silent(text: str) -> None:
    """Tells nobody."""


def show_files(text: str, directory: Path, files: Sequence[str]) -> str:
    """Paths of files in `directory` replaced by what they were brought from; the folder above a file is its number."""

    def name(match: re.Match[str]) -> str:
        index = int(match.group(1))
        return files[index] if index < len(files) else match.group(0)

    below = r"/[^/\s]+/(\d{8})/(?:[^/\n]+=[^/\n]*/)*" + PART + r"[.a-z0-9]*"
    return re.sub(re.escape(str(directory)) + below, name, text)
