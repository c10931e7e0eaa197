"""Steps that are done once: each writes a folder that appears whole or not at all, called by a key of its inputs.

What another process left half-written on this machine is cleared away by the next one that makes the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.files import aside_of, clear_dead, sync, write_file
from bidsim.logs.bringing import Log
from bidsim.logs.source import Source
from bidsim.training.examples import sha256_of

KEY_DIGITS = 16


def key_of(*content: Any) -> str:
    """A key of plain data: equal content, equal key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:KEY_DIGITS]


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A folder to write into that takes its place as `directory` when the block ends well, and is gone otherwise.

    Where another process has made `directory` meanwhile, that one stays. Raises BidsimError for what can't be written.
    """
    aside = aside_of(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(directory)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    except OSError as error:
        raise BidsimError(f"can't be made: {error.strerror}", file=str(directory)) from error
    try:
        yield aside
        for path in aside.rglob("*"):
            sync(path)
        sync(aside)
        if not directory.exists():
            os.rename(aside, directory)
            sync(directory.parent)
    except OSError as error:
        if not directory.is_dir():
            raise BidsimError(f"can't be written: {error.strerror}", file=str(directory)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class Fingerprints:
    """sha256 of files' contents; a file is read again only where its size or time of change is another.

    file: where they are kept between runs, as soon as its folder is there: whoever only asked leaves nothing behind.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._unsaved = False
        self._known: dict[str, list[Any]] = {}
        try:
            found = json.loads(file.read_bytes())
            self._known = found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            pass

    def of(self, files: Sequence[str]) -> list[str]:
        """The contents of the files, in their order. Raises BidsimError for one that can't be read."""
        found = []
        for name in files:
            path = os.path.realpath(name)
            try:
                state = os.stat(path)
                facts = [state.st_size, state.st_mtime_ns]
                known = self._known.get(path)
                if not isinstance(known, list) or known[:2] != facts or len(known) != 3:
                    self._known[path] = [*facts, sha256_of(Path(path))]
                    self._unsaved = True
            except OSError as error:
                raise BidsimError(f"can't be read: {error.strerror}", file=name) from error
            found.append(str(self._known[path][2]))
        if self._unsaved and self._file.parent.is_dir():
            write_file(self._file, json.dumps(self._known, indent=1, sort_keys=True) + "\n")
            self._unsaved = False
        return found

    def of_table(self, source: Source) -> list[str]:
        """The contents of a table: of local files their hashes, of others what their store or table says of them."""
        return self.of(source.files) if source.origin is None else list(source.origin.tokens)

    def of_log(self, log: Log) -> list[str]:
        """The contents of all that a scenario reads."""
        return [content for source in log.sources for content in self.of_table(source)]


def plain_versions(*names: str) -> Mapping[str, str]:
    """Installed versions of bidsim and some libraries."""
    from importlib.metadata import version

    from bidsim import __version__

    return {"bidsim": __version__, **{name: version(name) for name in names}}
