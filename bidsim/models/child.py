"""The child's side of `sandbox`: `main` in a new interpreter answers the one question that its stdin puts.

The first line of stdin is the question as JSON, the rest the file it is about; the answer is the last line of stdout.
A child that was asked to serve goes on scoring batches until its parent is gone: each of its threads reads requests
from a socket of its own, finds the rows in memory shared with the parent, and leaves the scores there.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bidsim.errors import BidsimError
from bidsim.models.wire import ANSWER, MARK, REQUEST

if TYPE_CHECKING:
    from bidsim.models.bundle import BundleScorer

_LINE = 64 << 20


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.buffer.readline(_LINE))
    _live_no_longer_than(question["life"])
    _limit(question["memory"], question["seconds"], question["writes"], serves=question["do"] == "serve")

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line).encode() + b"\n")
        answers.flush()

    try:
        found, then = _answer(
            question, sys.stdin.buffer.read(), lambda payload: say({"doing": f"on loading {payload}"})
        )
        said: dict[str, Any] = {"ok": found}
    except BidsimError as error:
        said, then = {"error": error.message}, None
    except MemoryError:
        said, then = {"error": _too_big(question)}, None
    except Exception as error:  # of a library that fails in an unusual way
        said, then = {"error": f"the model can't be loaded ({_named(error)})"}, None
    say(said)
    answers.close()
    if then is not None:
        then()
    os._exit(0)  # the libraries' own ends are not of interest


def _answer(
    question: dict[str, Any], data: bytes, begin: Callable[[str], None]
) -> tuple[Any, Callable[[], None] | None]:
    """The answer, and what is to be done after it is given."""
    from bidsim.models.bundle import bundle_from_bytes
    from bidsim.models.libraries import describe_payload
    from bidsim.models.tables import example_batch

    if question["do"] == "describe":
        _spare({question["format"]})
        return describe_payload(question["format"], data, file=question["file"]).to_json(), None
    bundle = bundle_from_bytes(question["file"], data)
    _spare({entry.format for entry in bundle.manifest.heads.values()})
    if question["do"] == "categories":
        from bidsim.models.sklearn_pipeline import seen_categories

        return seen_categories(bundle), None
    scorer = bundle.load(begin)
    if question["do"] == "serve":
        return None, lambda: _serve(scorer, question)
    batch = example_batch(question["columns"], question["file"])
    return {head: values.tolist() for head, values in scorer.score_alone(batch).items()}, None


def _serve(scorer: BundleScorer, question: dict[str, Any]) -> None:
    """Until the parent closes the sockets. More threads than turns: one has its rows ready when another is done."""
    turns = threading.Semaphore(question["turns"])
    threads = [
        threading.Thread(target=_serve_one, args=(scorer, turns, *channel), daemon=True)
        for channel in question["channels"]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve_one(scorer: BundleScorer, turns: threading.Semaphore, number: int, memory: int) -> None:
    shared: mmap.mmap | None = None
    with socket.socket(fileno=number) as channel:
        while True:
            request = channel.recv(REQUEST.size, socket.MSG_WAITALL)
            if len(request) < REQUEST.size:
                return
            capacity, size, at, rows = REQUEST.unpack(request)
            if shared is None or len(shared) != capacity:
                shared = mmap.mmap(memory, capacity)
            with turns:
                said = _score(scorer, shared, size, at, rows).encode()[: 1 << 16]
            channel.sendall(ANSWER.pack(not said, len(said)) + said)


def _score(scorer: BundleScorer, shared: mmap.mmap, size: int, at: int, rows: int) -> str:
    """Score the rows in shared memory and leave the scores there. Returns what went wrong, "" for nothing."""
    import numpy as np
    import pyarrow as pa

    view = memoryview(shared)

    def begin(place: int) -> None:
        view[at] = place

    try:
        batch = pa.ipc.open_stream(pa.py_buffer(view[:size])).read_next_batch()
        scores = scorer.score(batch, begin)
        for place, head in enumerate(scorer.heads):
            begins = at + MARK + 8 * rows * place
            np.frombuffer(view[begins : begins + 8 * rows], dtype=np.float64)[:] = scores[head]
    except BidsimError as error:
        return error.message
    except MemoryError:
        return "the model needs more memory for a batch than it is given; it is damaged or hostile"
    except BaseException as error:  # whatever it is, the parent waits
        return f"the model failed ({_named(error)})"
    return ""


def _too_big(question: dict[str, Any]) -> str:
    return f"the model needs more than {question['memory'] >> 20} MB to load; it is damaged or hostile"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _spare(formats: set[str]) -> None:
    """LightGBM and XGBoost import pandas and scikit-learn where they can, over a second for nothing."""
    if not formats & {"sklearn.skops/1", "catboost/1"}:
        sys.meta_path.insert(0, _Absent())


class _Absent:
    """An import hook under which pandas and scikit-learn are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("pandas", "sklearn"):
            raise ImportError(f"{name} is not needed here")


def _live_no_longer_than(life: int) -> None:
    """End when the other end of a pipe, which only the parent holds, is closed.

    The kernel sends SIGIO then, which ends a process that does not catch it, even one that hangs in a library's code;
    where it doesn't, a thread sees it.
    """
    if life < 0:
        return

    def watch() -> None:
        os.read(life, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    except (ImportError, OSError, AttributeError):
        pass


def _limit(memory: int, seconds: float, writes: int, *, serves: bool) -> None:
    try:
        import resource
    except ImportError:  # Windows has the time limit only
        return
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, writes)]
    if not serves:
        limits.append((resource.RLIMIT_CPU, int(4 * seconds) + 1))
    if sys.platform == "linux":
        limits.append((resource.RLIMIT_AS, memory))
    for which, value in limits:
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):  # the system allows less already
            continue
