"""A bundle's first load happens in a child process, because the libraries abort or hang on damaged files.

The child gets the file through a pipe, loads it, scores the example rows and answers with JSON. It has a time limit, a
memory limit and leaves no core file; its stdout is moved away, so that what a library prints can't pass for an
answer. Only a file that came through is loaded in the process of the replay. This protects from crashes and hangs,
not from a file crafted to take over the library: such a file has to be kept out by those who deliver models.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bidsim.errors import BidsimError, ModelError

if TYPE_CHECKING:
    from bidsim.models.libraries import Description
    from bidsim.models.manifest import LibraryFormat
    from bidsim.scenario.schema import Head

_LINE = 64 << 20
_MANIFEST = 1 << 21  # bytes of a bundle that hold its manifest


@dataclass(frozen=True)
class Limits:
    """seconds: wall clock of one trial; memory: bytes of address space beyond the file's own size times ten."""

    seconds: float = 120.0
    memory: int = 8 << 30


def try_bundle(data: bytes, file: str, limits: Limits | None = None) -> None:
    """Load the bundle in a child and score its examples. Raises ModelError for what the child met or how it died."""
    _ask({"do": "bundle"}, data, file, limits or Limits())


def predict_in_child(
    data: bytes, columns: Mapping[str, Sequence[Any]], file: str, limits: Limits | None = None
) -> dict[Head, tuple[float, ...]]:
    """Predictions of a bundle for some rows (values by log column), scored in a child. Raises ModelError."""
    found = _ask({"do": "predict", "columns": {k: list(v) for k, v in columns.items()}}, data, file, limits or Limits())
    return {head: tuple(values) for head, values in found.items()}


def describe_in_child(format: LibraryFormat, data: bytes, file: str, limits: Limits | None = None) -> Description:
    """Ask a library in a child what inputs a model file has. Raises ModelError."""
    from bidsim.models.libraries import Description

    return Description.from_json(_ask({"do": "describe", "format": format}, data, file, limits or Limits()))


def _ask(question: dict[str, Any], data: bytes, file: str, limits: Limits) -> Any:
    memory = limits.memory + 10 * len(data)
    seconds = limits.seconds + len(data) / 5e6  # a file of a GB takes its time
    # Vowpal Wabbit reads files only: the child may make one in memory.
    writes = len(data) if "vw/1" in str(question.get("format", data[:_MANIFEST])) else 0
    limits_said = {"memory": memory, "seconds": seconds, "writes": writes}
    header = json.dumps({**question, "file": file, **limits_said}).encode() + b"\n"
    # -P: a file in the working directory must not pass for a module.
    command = [sys.executable, "-P", "-m", "bidsim.models.sandbox"]
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise ModelError(f"no process could be started to try the model ({error.strerror})", file=file) from error
    try:
        answer, _ = child.communicate(header + data, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"loading and scoring the model took more than {seconds:.0f} s and was stopped; the file is damaged or "
            "made to hang",
            file=file,
        ) from None
    finally:
        _kill(child)
    if child.returncode != 0:
        raise ModelError(
            f"{_death(child.returncode)} on loading or scoring it; the file is damaged or hostile: fetch "
            "it again or save it again where it was trained",
            file=file,
        )
    try:
        found = json.loads(answer)
        kind: Literal["ok", "error"] = "ok" if "ok" in found else "error"
        said = found[kind]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("the process that tried the model gave no answer", file=file) from error
    if kind == "error":
        raise ModelError(str(said), file=file)
    return said


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and whatever it may have started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _death(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"the model's library crashed ({signal.Signals(-status).name})"
    return f"the process that tried the model ended with status {status}"


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.buffer.readline(_LINE))
    _limit(question["memory"], question["seconds"], question["writes"])
    # Read at import by the libraries' thread pools; a trial needs no more.
    os.environ["OMP_NUM_THREADS"] = "2"
    data = sys.stdin.buffer.read()
    try:
        found: dict[str, Any] = {"ok": _answer(question, data)}
    except BidsimError as error:
        found = {"error": error.message}
    except MemoryError:
        found = {"error": f"the model needs more than {question['memory'] >> 20} MB to load; it is damaged or hostile"}
    except Exception as error:  # of a library that fails in an unusual way
        found = {"error": f"the model can't be loaded ({type(error).__name__}: {' '.join(str(error).split())[:300]})"}
    answers.write(json.dumps(found).encode())
    answers.flush()
    os._exit(0)  # the libraries' own ends are not of interest


def _answer(question: dict[str, Any], data: bytes) -> Any:
    import pyarrow as pa

    from bidsim.models.bundle import bundle_from_bytes
    from bidsim.models.libraries import describe_payload

    if question["do"] == "describe":
        _spare({question["format"]})
        return describe_payload(question["format"], data, file=question["file"]).to_json()
    bundle = bundle_from_bytes(question["file"], data)
    _spare({entry.format for entry in bundle.manifest.heads.values()})
    scorer = bundle.load()
    if question["do"] == "bundle":
        return None
    batch = pa.RecordBatch.from_pydict(question["columns"])
    return {head: values.tolist() for head, values in scorer.score(batch).items()}


def _spare(formats: set[str]) -> None:
    """LightGBM and XGBoost import pandas and scikit-learn where they can, over a second for nothing."""
    if not formats & {"sklearn.skops/1", "catboost/1"}:
        sys.meta_path.insert(0, _Absent())


class _Absent:
    """An import hook under which pandas and scikit-learn are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("pandas", "sklearn"):
            raise ImportError(f"{name} is not needed here")


def _limit(memory: int, seconds: float, writes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has the time limit only
        return
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, int(4 * seconds) + 1), (resource.RLIMIT_FSIZE, writes)]
    if sys.platform == "linux":
        limits.append((resource.RLIMIT_AS, memory))
    for which, value in limits:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (value, value))


if __name__ == "__main__":
    _main()
