"""What bidsim asks of a store: which objects lie under a prefix, and ranges of their bytes.

Credentials and endpoints are those of the usual environment; nothing here takes, keeps or prints one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bidsim.errors import LogError

CHANGED = "the object changed while it was read; run again when nothing writes to the log"
GONE = "the object is gone since the log was listed; run again when nothing writes to the log"


@dataclass(frozen=True)
class StoredObject:
    """One object as the listing told of it. version: its ETag, or its time of change where the store has none."""

    url: str
    key: str
    size: int
    version: str


class Store(Protocol):
    """All methods try again what is transient and raise LogError, naming the object, for what is not."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with the prefix, in any order; markers of folders are none."""

    def find(self, key: str) -> StoredObject | None:
        """The object of exactly this key."""

    def read(self, thing: StoredObject, start: int, length: int) -> bytes:
        """Exactly these bytes, of exactly this version."""


def denied(what: str, url: str, where: str) -> LogError:
    return LogError(f"{what} is denied; {where}", file=url)
