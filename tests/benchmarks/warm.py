"""Children that are forked from a process in which a library is imported already, for those who start thousands.

`warm_children` puts `Popen` of `bidsim.models.sandbox` aside: what it returns behaves as a process that `sandbox` has
started, with the same pipes, descriptors, session and limits, but begins in `bidsim.models.child.main` at once. Where
strace is there, every file that a child opens and every process, connection or signal that it tries is written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bidsim.models import child, sandbox

ROOT = Path(__file__).parents[2]
HIGH = 600  # descriptors below may be wanted
READY = "/nowhere/ready"
NAME = f"bidsim-{os.getpid()}"  # of children
# What is traced; opening files to read is common, so those that are harmless are known by their path.
CALLS = (
    "open,openat,openat2,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,rmdir,link,linkat,symlink,"
    "symlinkat,truncate,chmod,fchmodat,chown,fchownat,execve,execveat,fork,vfork,socket,connect,bind,kill,ptrace"
)
READ = re.compile(r'open(at2?)?\(.*"([^"]*)", [^)]*O_RDONLY')


class Zygote:
    """The process from which children are forked. formats: of the models that they will load."""

    def __init__(self, formats: Sequence[str], audit: Path | None) -> None:
        self._socket, theirs = socket.socketpair()
        self._audit = audit
        code = f"import sys; sys.path[:0] = {[str(ROOT)]!r}; from tests.benchmarks.warm import breed; breed()"
        trace = [] if audit is None else ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(audit), "-e", CALLS]
        words = [*trace, sys.executable, "-P", "-c", code, str(theirs.fileno()), NAME, *formats]
        env = {**os.environ, **sandbox._ONE_THREAD}
        self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], env=env, start_new_session=True)
        theirs.close()
        if self._socket.recv(1) != b"r":
            raise RuntimeError("the process to fork from did not start")

    def child(self, pipes: Sequence[int], kept: Sequence[int]) -> tuple[int, socket.socket]:
        """(process id, what tells its end) of a child with pipes as stdin and stdout, and descriptors that it keeps."""
        ours, theirs = socket.socketpair()
        with theirs:
            given = [*pipes, theirs.fileno(), *kept]
            socket.send_fds(self._socket, [json.dumps(list(kept)).encode().ljust(4096)], given)
            return int(ours.recv(32)), ours

    def end(self) -> list[str]:
        """End it; what its children touched, each thing once."""
        self._socket.close()
        self._process.wait(60)
        return [] if self._audit is None else touched(self._audit.read_text(errors="replace"))


def left_behind(*, cold: bool, patience: float = 5.0) -> list[str]:
    """Processes of children that are there and should not be; those that are ending are waited for."""
    deadline = time.monotonic() + patience
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                state, parent = rest.split()[:2]
                if state != "Z" and (name == NAME or (cold and int(parent) == os.getpid())):
                    found.append(folder.name)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def touched(trace: str) -> list[str]:
    """What children did beyond reading the system's and Python's own files."""
    ours = (f'"{os.devnull}", O_RDWR', '"/proc/self/comm", O_WRONLY')  # of `_become`
    harmless = ("/proc/self/", "/sys/", "/etc/", "/usr/", "/lib", "/dev/null", sys.prefix, sys.base_prefix, str(ROOT))
    found = []
    for line in trace.partition(READY)[2].splitlines()[1:]:
        call = line.split(" ", 1)[-1].strip()
        read = READ.match(call)
        if (
            any(each in call for each in ours)
            or "(" not in call
            or call.startswith(("---", "+++", "<..."))
            or "resumed>" in call
        ):
            continue
        if read and ("ENOENT" in call or read[2].startswith(harmless)):
            continue
        found.append(re.sub(r"0x[0-9a-f]+|\d+", "N", call))
    return sorted(set(found))


def breed() -> None:
    """The process itself: imports what children will need, and forks one for each request."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    child._spare(set(sys.argv[3:]))
    import bidsim.models.bundle  # noqa: F401

    for name in sys.argv[3:]:
        if name == "sklearn.skops/1":
            import sklearn.compose
            import sklearn.ensemble
            import sklearn.linear_model
            import sklearn.pipeline
            import sklearn.preprocessing  # noqa: F401
        else:
            __import__(f"bidsim.models.libraries.{name.partition('/')[0]}_models")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.close(os.open(READY, os.O_RDONLY))
    requests.send(b"r")
    while True:
        said, descriptors, _, _ = socket.recv_fds(requests, 4096, 64)
        if not said:
            return
        if os.fork() == 0:
            try:
                _keep(descriptors, json.loads(said))
            finally:
                os._exit(1)
        for number in descriptors:
            os.close(number)


def _keep(descriptors: list[int], kept: list[int]) -> None:
    """Between the two: starts the child, and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = descriptors[2]
    pid = os.fork()
    if pid == 0:
        try:
            _become(descriptors, kept)
        finally:
            os._exit(1)
    for number in (*descriptors[:2], *descriptors[3:]):
        os.close(number)
    os.write(status, str(pid).encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


def _become(descriptors: list[int], kept: list[int]) -> None:
    import fcntl

    os.setsid()
    Path("/proc/self/comm").write_text(sys.argv[2])
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, HIGH) for number in descriptors]
    os.closerange(3, HIGH)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(high[0], 0)
    os.dup2(high[1], 1)
    os.dup2(null, 2)
    os.close(null)
    for number, target in zip(high[3:], kept, strict=True):
        os.dup2(number, target)
    os.closerange(HIGH, HIGH + 200)
    child.main()


class WarmProcess:
    """What `sandbox` needs of `subprocess.Popen`."""

    zygote: Zygote

    def __init__(self, command: Sequence[str], *, pass_fds: Sequence[int] = (), **options: Any) -> None:
        self.returncode: int | None = None
        read, write = os.pipe()
        back, answer = os.pipe()
        self.pid, self._status = self.zygote.child([read, answer], pass_fds)
        os.close(read)
        os.close(answer)
        self.stdin, self.stdout = os.fdopen(write, "wb"), os.fdopen(back, "rb")

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("child", timeout or 0.0)
            self.returncode = int(self._status.recv(32) or -9)
            self._status.close()
        return self.returncode


@contextlib.contextmanager
def warm_children(formats: Sequence[str]) -> Iterator[list[str]]:
    """In here children are forked. Yields a list that in the end holds what they touched."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        zygote = Zygote(formats, Path(folder) / "trace" if shutil.which("strace") else None)
        kind = type("Warm", (WarmProcess,), {"zygote": zygote})
        names = {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL", "TimeoutExpired")}
        before, sandbox.subprocess = sandbox.subprocess, SimpleNamespace(Popen=kind, **names)  # type: ignore[assignment]
        try:
            yield found
        finally:
            sandbox.subprocess = before
            found += zygote.end()
