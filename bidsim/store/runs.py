"""A run is a folder that appears whole or not at all: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bidsim.errors import BidsimError
from bidsim.files import aside_of, clear_dead, sync, write_synced
from bidsim.interrupts import held


def check_free(directory: Path) -> None:
    """Raises BidsimError where a run can't be written to `directory`: it exists, or its parent is no folder."""
    if directory.exists() or directory.is_symlink():
        raise BidsimError("the output folder exists already; name another one, or remove it", file=str(directory))
    check_writable(directory)


def check_writable(directory: Path) -> None:
    """Raises BidsimError where nothing can be written to `directory`, which may be there or not."""
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise BidsimError("the output folder can't be made below a file; name another one", file=str(directory))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BidsimError(
            "the output folder can't be written; check permissions or name another one", file=str(directory)
        )


def write_run(directory: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files (name -> text, as UTF-8, or bytes) into a new folder, atomically. Raises BidsimError, leaving nothing behind."""
    check_free(directory)
    made: list[Path] = []
    aside = None
    parent = directory.parent
    try:
        with held():
            aside = _make_aside(directory, made)
        for name, content in files.items():
            write_synced(aside / name, content)
        os.chmod(aside, 0o777 & ~_umask())
        sync(aside)
        # rename would silently replace an empty folder made meanwhile; that is somebody else's.
        if directory.exists():
            raise BidsimError("the output folder appeared meanwhile; name another one", file=str(directory))
        os.rename(aside, directory)
        sync(parent)
    except BaseException as error:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise BidsimError(f"the run can't be written: {error.strerror}", file=str(directory)) from error
        raise


def _make_aside(directory: Path, made: list[Path]) -> Path:
    """A folder beside `directory`. Those above it that were missing are made, and added to `made`, inmost first."""
    parent = directory.parent
    try:
        missing = parent
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        parent.mkdir(parents=True, exist_ok=True)
        clear_dead(directory)
        return Path(tempfile.mkdtemp(prefix=f"{aside_of(directory).name}-", dir=parent))
    except OSError as error:
        raise BidsimError(f"the output folder can't be made: {error.strerror}", file=str(directory)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
