"""Folders for what a command writes on its way: gone at its end, and where it was killed, gone when the next one starts.

Each holds a file that its process keeps locked; the system opens the lock when the process is gone, however it went.
(Without file locks, on Windows, what a killed command left stays where it is.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bidsim.interrupts import held

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = "bidsim-"
LOCK = ".bidsim-lock"


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[str]:
    """A new folder below `parent` (by default where TMPDIR says) for as long as the block lasts.

    What killed processes left there before is removed first.
    """
    folder = None
    try:
        with held():  # `tempfile` too: where it may write it learns by writing a file there
            clear_left(Path(tempfile.gettempdir() if parent is None else parent))
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            lock(Path(folder))
        yield folder
    finally:
        if folder is not None:
            try:
                _remove(Path(folder))
            except BaseException:  # interrupted once more: the second time it is quick
                _remove(Path(folder))
                raise


def clear_left(place: Path) -> None:
    """Remove the folders here that nobody holds a lock on any more."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for folder in [Path(e.path) for e in os.scandir(place) if e.name.startswith(PREFIX)]:
            with contextlib.suppress(OSError):  # another's, or gone meanwhile
                # Others may write to the same place: a link, or a folder that is not ours, leads nowhere.
                state = os.lstat(folder)
                if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
                    continue
                handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)
                finally:
                    os.close(handle)


def lock(folder: Path) -> None:
    """Lock a new folder as long as this process lives. Its file has the name that others look for only once it is."""
    if fcntl is None:
        return
    new = folder / f"{LOCK}-new"
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(new, folder / LOCK)
        _held[folder] = handle
    except OSError:  # a file system without locks
        os.close(handle)


_held: dict[Path, int] = {}


def _remove(folder: Path) -> None:
    """The lock goes last: what is killed while it removes leaves a folder that can be known as left."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    handle = _held.pop(folder, None)
    if handle is not None:
        os.close(handle)
