"""Files and folders that appear whole or not at all: written aside, synced, renamed.

What is written aside is called by machine and process, so that the next one for the same place can clear away what a
killed one had begun, and leaves alone what another is writing at this moment.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import re
import shutil
from pathlib import Path

from bidsim.errors import BidsimError

BUNDLE_BEGINS = b"PK\x03\x04"  # as a zip does
NO_FILE = "it is no regular file"


def aside_of(target: Path) -> Path:
    """Where this process writes what will take its place as `target`: hidden beside it, and called by machine and process."""
    return target.parent / f".{target.name}.{_node()}.{os.getpid()}"


def clear_dead(target: Path) -> None:
    """Remove what processes of this machine that were killed had begun to write aside for `target`."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.{_node()}.*"):
        pid = path.name.rpartition(".")[2].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def _node() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def check_place(path: Path, *, begins: bytes) -> None:
    """Raises BidsimError where no file can be written to `path`: asked before hours of work for it.

    begins: with what a file that is there must begin to be replaced; another is the user's log or scenario, by a slip.
    """
    parent = path.parent
    if path.is_dir():
        why = "it is a folder"
    elif _special(path):
        why = NO_FILE
    elif not parent.is_dir():
        why = f"there is no folder {parent}"
    elif not os.access(parent, os.W_OK | os.X_OK):
        why = f"the folder {parent} can't be written"
    elif not _begins(path, begins):
        why = "a file of another kind is there"
    else:
        return
    raise BidsimError(f"can't be written: {why}; name another file with -o", file=str(path))


def _begins(path: Path, content: bytes) -> bool:
    """Whether a file begins so; one that is not there, or empty, or can't be read does."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(content))
    except OSError:
        return True
    return start in (b"", content)


def write_file(path: Path, content: str | bytes) -> None:
    """Write one file whole or not at all, in place of what it was. Raises BidsimError, leaving nothing behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise BidsimError(f"can't be written: {error.strerror}", file=str(path)) from error


def replace_file(path: Path, content: str | bytes) -> None:
    """The same in a folder that is there. Raises OSError."""
    if _special(path):
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    aside = aside_of(path)
    try:
        clear_dead(path)
        write_synced(aside, content)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _special(path: Path) -> bool:
    """Whether a device, a pipe or the like would be replaced (root may, and the machine would lose its /dev/null)."""
    if path.is_symlink() and os.readlink(path).startswith("/proc/"):  # /dev/stdout
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def write_synced(path: Path, content: str | bytes) -> None:
    """Write a file and have the system write it to the disk. Raises OSError."""
    with open(path, "wb") as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


def sync(directory: Path) -> None:
    """Have the system write a folder or a file to the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
