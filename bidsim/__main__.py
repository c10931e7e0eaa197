"""``python -m bidsim`` and the ``bidsim`` command: runs a command and turns what it raises into an exit status.

0 done (the gate passed, warned or there is none); 1 the gate failed; 2 bad input; 130 interrupted; 70 a bug of ours.
Terminated or hung up, it cleans up too, and exits with 128 + the signal as a shell would say it.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from types import FrameType

EXIT_BAD_INPUT = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
# What the machine refuses, not a mistake in bidsim: whoever runs it can free space or give permissions.
MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE)
# A path that no machine could follow.
PATHS = (errno.ENAMETOOLONG, errno.ELOOP)


class Signals:
    """Turns signals into KeyboardInterrupt, so that every `with` and `finally` cleans up, and remembers the first.

    Libraries turn an interrupt into errors of their own, so what is raised in the end does not tell.
    """

    def __init__(self) -> None:
        self.caught: int | None = None

    def listen(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._catch)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = self.caught or number
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit. A traceback is always a bug."""
    signals = Signals()
    try:
        signals.listen()
        _fill_closed_streams()
        _keep_stdout()
        status = _run(signals)
    except KeyboardInterrupt:
        status = _interrupted(signals)
    gc.freeze()  # what is left goes with the process, without one last look through it
    sys.exit(status)


def _run(signals: Signals | None = None) -> int:
    from bidsim.errors import BidsimError
    from bidsim.machine import LEAST_ADDRESSES, check_addresses, few_left

    signals = signals or Signals()
    try:
        if not {"--help", "--version"} & set(sys.argv):
            check_addresses(LEAST_ADDRESSES, "bidsim")
        from bidsim.cli import run

        status = run()
        sys.stdout.flush()  # what can't be written is known here, and not when the interpreter ends
        # Typer makes a status of the interrupt before it gets here.
        return _interrupted(signals) if signals.caught and status == EXIT_INTERRUPTED else status
    except KeyboardInterrupt:
        return _interrupted(signals)
    except Exception as error:
        if signals.caught:
            return _interrupted(signals)
        if isinstance(error, BidsimError):
            _say(f"error: {error}")
            return EXIT_BAD_INPUT
        if isinstance(error, BrokenPipeError):
            # The reader of our output went away; let the interpreter's own flush at exit not fail again.
            _drop_stdout()
            return EXIT_BROKEN_PIPE
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            _say("error: this machine or container gives no more threads; lower --threads, or raise its limit")
            return EXIT_BAD_INPUT
        if few_left(error):
            _say("error: not enough memory or threads; lower --memory or --threads, or free some memory")
            return EXIT_BAD_INPUT
        if isinstance(error, OSError) and (error.errno in MACHINE or "temporary directory" in str(error)):
            _drop_stdout()
            place = f"{error.filename}: " if error.filename else ""
            _say(f"error: {place}{error.strerror}; free space or give permissions, there or where TMPDIR points")
            return EXIT_BAD_INPUT
        if isinstance(error, OSError) and error.errno in PATHS:
            _say(f"error: {error.filename or 'a path'}: {error.strerror}; give another path")
            return EXIT_BAD_INPUT
        return _bug()


def _interrupted(signals: Signals) -> int:
    # Under `python -m`, an interrupt inside a text that Python executes (dataclasses are made of such) ends the process by
    # the signal whatever status it gives, unless another text is executed after it.
    exec("")
    _say("interrupted; nothing is half-written")
    return 128 + signals.caught if signals.caught else EXIT_INTERRUPTED


def _fill_closed_streams() -> None:
    """Where a standard stream is closed, its descriptor goes to nobody: else the next file that is opened gets it, and what
    a library prints gets into that file. Messages may be lost there, as services and cron start commands; what was asked
    for may not: stdout is a pipe that nobody reads, and ends as every other one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    if sys.stdout is None:
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
        os.close(write)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _keep_stdout() -> None:
    """Leave file descriptor 1 to stderr: what a model's library prints by itself must not get into our output.

    `sys.stdout` goes on writing where stdout was, through a descriptor of its own.
    """
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper):  # closed, or replaced
        return
    try:
        own = os.dup(1)
    except OSError:
        return
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        os.close(own)
        return
    stream = open(own, "wb")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(
        stream,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def _drop_stdout() -> None:
    """What could not be written is not tried again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # no file: a test's
        os.dup2(null, 1)
    os.close(null)


def _bug() -> int:
    import platform
    import traceback

    from bidsim import __version__

    _say(
        "bidsim failed in a way that it should not. Please report this with the lines below and, if you can, the "
        "scenario, at the issue tracker of your bidsim distribution."
    )
    _say(f"bidsim {__version__}, Python {platform.python_version()}, {platform.platform()}")
    _say(traceback.format_exc())
    return EXIT_BUG


def _say(text: str) -> None:
    from bidsim.visible import visible

    print(f"bidsim: {visible(text)}", file=sys.stderr)


if __name__ == "__main__":
    main()
