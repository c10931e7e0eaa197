"""Whether files are still what they were when they were opened: a log is scanned several times, and must be one log.

A file is known by its size and the time of its last change, and where another file took its place with the same size
and time, by its first and last bytes. (On some mounted stores the number of a file changes by itself, so that alone
says nothing.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

END_BYTES = 4096


@dataclass(frozen=True)
class Stamp:
    """size in bytes, time of the last change in ns, the file's number on its device, sha256 of its two ends."""

    size: int
    changed_ns: int
    number: int
    ends: str


def stamp(file: str) -> Stamp:
    """What a file is known by. Raises OSError."""
    with open(file, "rb") as stream:
        state = os.fstat(stream.fileno())
        ends = hashlib.sha256(stream.read(END_BYTES))
        stream.seek(max(0, state.st_size - END_BYTES))
        ends.update(stream.read(END_BYTES))
    return Stamp(state.st_size, state.st_mtime_ns, state.st_ino, ends.hexdigest())


def change(before: Mapping[str, Stamp], files: Iterable[str]) -> tuple[str, str] | None:
    """The first file that is no longer what it was, or that came, and what happened to it; None where all is as it was.

    before: files as they were opened; files: those that the path of the log means now.
    """
    for file, was in before.items():
        what = _what_happened(file, was)
        if what:
            return file, what
    came = sorted(set(files) - set(before))
    return (came[0], "came to the log") if came else None


def _what_happened(file: str, was: Stamp) -> str:
    try:
        now = os.stat(file)
        if now.st_size < was.size:
            return "was cut"
        if now.st_size > was.size:
            return "grew"
        if now.st_mtime_ns != was.changed_ns:
            return "was changed"
        if now.st_ino != was.number and stamp(file).ends != was.ends:
            return "was replaced by another"
    except FileNotFoundError:
        return "disappeared"
    except OSError as error:
        return f"can't be read any more ({error.strerror})"
    return ""
