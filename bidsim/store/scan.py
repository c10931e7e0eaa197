"""Which folders hold runs: each folder is a run as a whole, or is passed over and counted, never guessed at.

Runs may lie among other people's folders: what may not be read is passed over like what is no run (`os.path` answers
where `Path` raises).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bidsim.errors import BidsimError
from bidsim.store.finite import is_finite
from bidsim.store.record import SCHEMA, Record, RunFile
from bidsim.versions import UPGRADE, other_version, schema_of

MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StoredRun:
    """directory: the run's folder; started: ISO 8601, when it was made."""

    directory: Path
    started: str
    record: Record

    @property
    def name(self) -> str:
        return self.directory.name


@dataclass(frozen=True)
class Scan:
    """unfinished: folders of writers that are at work or were stopped; foreign: folders that hold no run; others: why a
    run of another version can't be read, for each."""

    runs: list[StoredRun] = field(default_factory=list)
    unfinished: int = 0
    foreign: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def passed_over(self) -> str:
        """'2 folders passed over: 1 unfinished, 1 without a run', or ''."""
        newer = sum(UPGRADE in why for why in self.others)
        parts = [
            (self.unfinished, "unfinished"),
            (self.foreign, "without a run"),
            (newer, UPGRADE),
            (len(self.others) - newer, "made by an older bidsim"),
        ]
        total = self.unfinished + self.foreign + len(self.others)
        said = ", ".join(f"{n} {word}" for n, word in parts if n)
        return f"{total} folder{'s' * (total != 1)} passed over: {said}" if total else ""


def scan(directories: Sequence[Path]) -> Scan:
    """All runs directly below the folders (or that the folders are). Raises BidsimError for what is no folder."""
    runs: dict[Path, StoredRun] = {}
    unfinished = foreign = 0
    others: list[str] = []
    for directory in directories:
        if not os.path.isdir(directory):
            raise BidsimError("no such folder; give the folder that holds your runs", file=str(directory))
        for path in [directory] if os.path.isfile(directory / "run.json") else _folders(directory):
            if path.name.startswith("."):
                # Only what looks like a run being written: other hidden folders are none of ours.
                unfinished += any(os.path.exists(path / name) for name in ("result.json", "run.json", "report.html"))
                continue
            found = read_run(path)
            if isinstance(found, str):
                others.append(found)
            elif found is None:
                foreign += 1
            else:
                runs[path.resolve()] = found
    return Scan([runs[key] for key in sorted(runs)], unfinished, foreign, others)


def _folders(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            yield from (Path(e.path) for e in sorted(entries, key=lambda e: e.name) if e.is_dir())
    except OSError as error:
        raise BidsimError(f"can't be read: {error.strerror}", file=str(directory)) from None


def read_run(directory: Path) -> StoredRun | str | None:
    """The run of a folder; None where there is none, or not a whole one; of one of another version why it can't be read."""
    file = directory / "run.json"
    try:
        if not os.path.isfile(directory / "result.json") or os.path.getsize(file) > MOST_BYTES:
            return None
        content = file.read_bytes()
    except OSError:
        return None
    try:
        found = RunFile.model_validate_json(content)
    except (ValidationError, RecursionError):
        return other_version(schema_of(content), SCHEMA, "replay the log again")
    return StoredRun(directory, found.started, found.record) if is_finite(content) else None
