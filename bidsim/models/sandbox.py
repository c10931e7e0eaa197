"""Child processes in which other libraries load models and score, because they abort or hang on damaged files.

The child (`child` is its side) gets the file through a pipe, loads it, scores the example rows and answers in lines of
JSON. It has a time limit, a memory limit and leaves no core file; its stdout is moved away, so that what a library
prints can't pass for an answer. It ends with this process, however that ends. All this protects from crashes and hangs,
not from a file crafted to take over the library: such a file has to be kept out by those who deliver models.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bidsim.errors import ModelError
from bidsim.interpreter import command_of
from bidsim.models.libraries import Description

if TYPE_CHECKING:
    from bidsim.models.manifest import LibraryFormat
    from bidsim.scenario.schema import Head

_ANSWER = 64 << 20
_MANIFEST = 1 << 21  # bytes of a bundle that hold its manifest
# Read at import by the libraries' thread pools: bidsim scores several batches at once instead.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_ADVICE = "the file is damaged or made to do this: fetch it again or save it again where it was trained"


@dataclass(frozen=True)
class Limits:
    """Of a child. seconds: wall clock of one load; memory: bytes of address space beyond ten times the file.

    batch_seconds: wall clock of scoring the rows that are handed over at once.
    """

    seconds: float = 120.0
    memory: int = 8 << 30
    batch_seconds: float = 120.0


def predict_in_child(
    data: bytes, columns: Mapping[str, Sequence[Any]], file: str, limits: Limits | None = None
) -> dict[Head, tuple[float, ...]]:
    """Predictions of a bundle for some rows (values by log column), scored in a child. Raises ModelError."""
    question = {"do": "predict", "columns": {k: list(v) for k, v in columns.items()}}
    with Child(question, data, file, limits or Limits()) as child:
        return {head: tuple(values) for head, values in child.answer().items()}


def describe_in_child(format: LibraryFormat, data: bytes, file: str, limits: Limits | None = None) -> Description:
    """Ask a library in a child what inputs a model file has. Raises ModelError."""
    with Child({"do": "describe", "format": format}, data, file, limits or Limits()) as child:
        return Description.from_json(child.answer())


def categories_in_child(data: bytes, file: str, limits: Limits | None = None) -> list[tuple[str, list[str]]]:
    """(feature, texts of the categories) that the encoders of a bundle's first head saw in training. Raises ModelError."""
    with Child({"do": "categories"}, data, file, limits or Limits()) as child:
        return [(str(name), [str(value) for value in values]) for name, values in child.answer()]


class Child:
    """One process with one question. Used as a context manager, it is gone at the end of the block.

    descriptors: open files that the child keeps under the same numbers (not on Windows); data: what it asks about.
    """

    def __init__(
        self,
        question: Mapping[str, Any],
        data: bytes,
        file: str,
        limits: Limits,
        *,
        descriptors: Sequence[int] = (),
        memory: int = 0,
    ) -> None:
        self.file = file
        self._seconds = limits.seconds + len(data) / 5e6  # a file of a GB takes its time
        self._batch_seconds = limits.batch_seconds
        self._doing = ""
        self._late = False
        self._ending = threading.Lock()
        # Vowpal Wabbit reads files only: the child may make one in memory.
        writes = len(data) if "vw/1" in str(question.get("format", data[:_MANIFEST])) else 0
        said = {"memory": limits.memory + 10 * len(data) + memory, "seconds": self._seconds, "writes": writes}
        self._data = data
        command = command_of("bidsim.models.child")
        posix = os.name == "posix"
        life, self._life = os.pipe() if posix else (-1, -1)
        self._header = json.dumps({**question, **said, "file": file, "life": life}).encode() + b"\n"
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(life, *descriptors) if posix else (),
            )
        except OSError as error:
            if posix:
                os.close(self._life)
            raise ModelError(f"no process could be started for the model ({error.strerror})", file=file) from error
        finally:
            if posix:
                os.close(life)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def answer(self) -> Any:
        """Put the question and wait. Raises ModelError for what the child met, or how it died."""
        timer = threading.Timer(self._seconds, self.too_late)
        timer.daemon = True
        timer.start()
        found: dict[str, Any] = {}
        try:
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None
            assert stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it has died: the status says how
                stdin.write(self._header)
                stdin.write(self._data)
                stdin.close()
            self._data = b""
            while line := stdout.readline(_ANSWER):
                found = json.loads(line)
                if "doing" not in found:
                    break
                self._doing = f" {found['doing']}"
        except (ValueError, TypeError) as error:
            raise ModelError("the process that tried the model gave no answer", file=self.file) from error
        finally:
            timer.cancel()
        if "error" in found:
            raise ModelError(str(found["error"]), file=self.file)
        if "ok" not in found:
            raise self.death()
        return found["ok"]

    def death(self, scoring: str = "") -> ModelError:
        """The error for a child that has stopped answering. scoring: the payloads with which it did, once loaded."""
        doing = f" on scoring rows of the log with {scoring}" if scoring else self._doing
        advice = (
            "see whether the library predicts these rows by itself, and update it or train again"
            if scoring
            else _ADVICE
        )
        if self._late:
            seconds = self._batch_seconds if scoring else self._seconds
            what = f"the model took more than {seconds:.0f} s{doing} and was stopped"
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.end()
            what = f"{_death(self._process.returncode)}{doing or ' on loading it'}"
        return ModelError(f"{what}; {advice}", file=self.file)

    def end(self) -> None:
        """Kill the child and whatever it may have started."""
        with self._ending:
            self._kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            if self._life >= 0:
                os.close(self._life)
                self._life = -1

    def too_late(self) -> None:
        """Kill a child that takes too long; `death` then says so."""
        self._late = True
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is not None:  # gone, and its number may be another's
            return
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def _death(status: int | None) -> str:
    if status == -9:
        return "the process that held the model was killed, perhaps for want of memory,"
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"the model's library crashed ({signal.Signals(-status).name})"
    return f"the process that held the model ended with status {status}"
