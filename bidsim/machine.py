"""What this machine gives a process: memory, and addresses for it. Asked before work that would die without a word."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from bidsim.errors import BidsimError

CGROUPS = Path("/sys/fs/cgroup")
GIB = 2**30
# Measured: libraries crash at import below the first; the engine that draws charts reserves more than 40 GiB of
# addresses (not of memory) and aborts the process without them.
LEAST_ADDRESSES = 4 * GIB
CHART_ADDRESSES = 80 * GIB


def memory_limit(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that a container or a service manager lets this process have at most; None where there is no bound."""
    limits = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, place = line.split(":", 2)
        root, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        if controllers not in ("", "memory"):
            continue
        # A bound of any group above counts too. In a container its own group may be shown as the root.
        folder = root / place.lstrip("/")
        for above in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # no such file; "max"
                limits.append(int((above / name).read_text()))
            if above == root:
                break
    found = min(limits, default=None)
    return found if found is not None and found < 2**60 else None


def check_addresses(need: int, what: str) -> None:
    """Raises BidsimError where `ulimit -v` leaves the process fewer addresses than it needs."""
    if sys.platform == "win32":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY and soft < need:
        raise BidsimError(
            f"ulimit -v lets this process have {soft / GIB:.1f} GiB of addresses, and {what} needs {need / GIB:.0f} "
            "(addresses, not memory: --memory bounds that); raise it, or say ulimit -v unlimited"
        )


def few_left(error: BaseException) -> bool:
    """Whether an error of a library means that there was no memory, or that no thread could be started."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and "can't start new thread" in text)
        or (isinstance(error, ImportError | OSError) and ("failed to map" in text or os.strerror(12) in text))
    )
