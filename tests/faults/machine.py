"""What a machine does to a command: full and read-only disks, limits, clocks. Each fault lasts as long as its block."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@dataclass(frozen=True)
class Fault:
    """on: gives the options with which the command is started in its place."""

    name: str
    on: Callable[[Path], AbstractContextManager[dict[str, Any]]]


def can_mount() -> bool:
    """Whether this process may mount file systems of its own."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        return False
    here = Path(f"/tmp/bidsim-mount-{os.getpid()}")
    here.mkdir()
    try:
        return _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(here)) and _umount(here)
    finally:
        here.rmdir()


def full(where: str, kib: int) -> Fault:
    """A disk with so much room left under the folder `where` of the place."""

    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        folder, kept = place / where, place / f"{where}-kept"
        used = sum(p.stat().st_size + 8192 for p in folder.rglob("*")) + 8192
        folder.rename(kept)
        folder.mkdir()
        assert _mount("-t", "tmpfs", "-o", f"size={used // 1024 + kib}k", "tmpfs", str(folder))
        try:
            shutil.copytree(kept, folder, dirs_exist_ok=True, symlinks=True)
            free = os.statvfs(folder)
            spare = free.f_bavail * free.f_frsize - kib * 1024
            if spare > 0:
                (folder / ".ballast").write_bytes(b"x" * spare)
            yield {}
        finally:
            (folder / ".ballast").unlink(missing_ok=True)
            shutil.rmtree(kept)
            shutil.copytree(folder, kept, symlinks=True)
            _umount(folder)
            folder.rmdir()
            kept.rename(folder)

    return Fault(f"{kib} KiB left in {where}", on)


def read_only(where: str) -> Fault:
    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        folder = str(place / where)
        assert _mount("--bind", folder, folder)
        assert _mount("-o", "remount,ro,bind", folder)
        try:
            yield {}
        finally:
            _umount(place / where)

    return Fault(f"{where} read-only", on)


def no_file_above(size: int) -> Fault:
    """The system lets no file grow beyond a size; what is written after it fails as on a full disk."""
    return _limited(f"files up to {size >> 10} KiB", resource.RLIMIT_FSIZE, size)


def address_space(mib: int) -> Fault:
    return _limited(f"address space of {mib} MiB", resource.RLIMIT_AS, mib << 20)


def memory_group(mib: int) -> Fault:
    """A bound of the kernel for all processes of the command together, as containers have (control groups, version 1)."""

    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        group = Path(f"/sys/fs/cgroup/memory/bidsim-{os.getpid()}")
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(mib << 20))
        try:
            yield {"preexec_fn": lambda: (group / "tasks").write_text(str(os.getpid()))}
        finally:
            time.sleep(0.5)
            group.rmdir()

    return Fault(f"memory of {mib} MiB", on)


def _limited(name: str, what: int, limit: int) -> Fault:
    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        yield {"preexec_fn": lambda: resource.setrlimit(what, (limit, limit))}

    return Fault(name, on)


def clock(moment: str) -> Fault:
    """The clock shows another time. moment: as faketime has it, "@1970-01-01 00:00:00"."""

    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        yield {"env": {**_FAKE, "FAKETIME": moment}}

    return Fault(f"clock {moment}", on)


def clock_that_jumps(seconds: int, after: float = 1.5) -> Fault:
    """The clock is set while the command runs."""

    @contextmanager
    def on(place: Path) -> Iterator[dict[str, Any]]:
        file = place / "clock"
        file.write_text("+0s")
        end = threading.Event()

        def jump() -> None:
            if not end.wait(after):
                file.write_text(f"{seconds:+d}s")

        thread = threading.Thread(target=jump)
        thread.start()
        try:
            yield {"env": {**_FAKE, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}}
        finally:
            end.set()
            thread.join()

    return Fault(f"clock set by {seconds:+d} s after {after} s", on)


_FAKE = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def left_of_ended(place: Path) -> list[str]:
    """Work folders that a command left which was not killed: it ends with its processes, a moment later perhaps."""
    for _ in range(20):
        found = [p.name for p in (place / "tmp").iterdir()]
        if not found:
            return []
        time.sleep(0.1)
    return found


def _mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


def _umount(folder: Path) -> bool:
    return subprocess.run(["umount", "-l", str(folder)], capture_output=True).returncode == 0
