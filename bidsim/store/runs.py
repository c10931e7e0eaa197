"""A run is a folder that appears whole or not at all: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bidsim.errors import BidsimError


def check_free(directory: Path) -> None:
    """Raises BidsimError where a run can't be written to `directory`: it exists, or its parent is no folder."""
    if directory.exists() or directory.is_symlink():
        raise BidsimError("the output folder exists already; give another --out, or remove it", file=str(directory))
    parent = directory.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise BidsimError("the output folder can't be made below a file; give another --out", file=str(directory))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BidsimError(
            "the output folder can't be written; check permissions or give another --out", file=str(directory)
        )


def write_run(directory: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files (name -> text, as UTF-8, or bytes) into a new folder, atomically. Raises BidsimError, leaving nothing behind."""
    check_free(directory)
    made: list[Path] = []
    parent = directory.parent
    try:
        missing = parent
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        parent.mkdir(parents=True, exist_ok=True)
        clear_dead(directory)
        aside = Path(tempfile.mkdtemp(prefix=f"{aside_of(directory).name}-", dir=parent))
    except OSError as error:
        raise BidsimError(f"the output folder can't be made: {error.strerror}", file=str(directory)) from error
    try:
        for name, content in files.items():
            _write(aside / name, content)
        os.chmod(aside, 0o777 & ~_umask())
        sync(aside)
        # rename would silently replace an empty folder made meanwhile; that is somebody else's.
        if directory.exists():
            raise BidsimError("the output folder appeared meanwhile; give another --out", file=str(directory))
        os.rename(aside, directory)
        sync(parent)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise BidsimError(f"the run can't be written: {error.strerror}", file=str(directory)) from error
        raise


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


def write_file(path: Path, content: str | bytes) -> None:
    """Write one file whole or not at all, in place of what it was. Raises BidsimError, leaving nothing behind."""
    aside = aside_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(path)
        _write(aside, content)
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        raise BidsimError(f"can't be written: {error.strerror}", file=str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _write(path: Path, content: str | bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(directory: Path) -> None:
    """Have the system write a folder or a file to the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
