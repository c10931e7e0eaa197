"""One hostile input, the command that is given it, and what is wrong with the way it ended."""

from __future__ import annotations

import atexit
import random
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from command import Said, bidsim, log, write_log, write_model

CANARY = "canary-5b1e9"
LONGEST_MESSAGE = 6_000
# What replays the trial's scenario, on a fixed day and with little.
REPLAY = (
    "replay",
    "--scenario",
    "s.yaml",
    "--out",
    "out",
    "--as-of",
    "2026-11-03",
    "--threads",
    "1",
    "--memory",
    "1GB",
)
QUIETLY = (*REPLAY, "--quiet")


@dataclass(frozen=True)
class Trial:
    """words: of the command, run in the trial's folder; about: the message must name one of these; note: what was done;
    wanted: the exit statuses that may be, writes: what may appear in the folder."""

    words: tuple[str, ...]
    about: tuple[str, ...] = ()
    note: str = ""
    wanted: tuple[int, ...] = (0, 1, 2)
    writes: tuple[str, ...] = ("out",)


Make = Callable[[random.Random, Path], Trial]


@dataclass(frozen=True)
class End:
    """status: exit status; problems: what must not happen and did; said: the first line of the message; seconds: of the processor."""

    status: int
    said: str
    seconds: float
    problems: list[str] = field(default_factory=list)
    note: str = ""


def attempt(make: Make, seed: int | str) -> End:
    """Make the input of a seed in a folder of its own, run the command, and judge how it ended."""
    with tempfile.TemporaryDirectory(prefix="bidsim-hostile-") as name:
        folder = Path(name) / "work"
        lay_out(folder)
        try:
            trial = make(random.Random(seed), folder)
        except Exception as error:  # the input's maker is at fault
            return End(-2, "", 0.0, [f"could not be made: {type(error).__name__}: {error}"])
        before = listing(folder)
        started = time.process_time()
        with_temporary = tempfile.tempdir
        tempfile.tempdir = str(Path(name) / "temporary")
        Path(tempfile.tempdir).mkdir()
        try:
            said = bidsim(*trial.words, cwd=folder, drawn=True)
            left = sorted(p.name for p in Path(tempfile.tempdir).iterdir())
        finally:
            tempfile.tempdir = with_temporary
        seconds = time.process_time() - started
        problems = judge(trial, said, folder, before)
        problems += [f"left {name} in the temporary folder" for name in left]
        first = said.err.strip().splitlines()[0] if said.err.strip() else ""
        return End(said.status, first.replace(str(folder), ""), seconds, problems, trial.note)


def lay_out(folder: Path) -> None:
    """A log, a model, and a file that nobody may read or write."""
    folder.mkdir(parents=True)
    shutil.copy(_log(), folder / "log.parquet")
    shutil.copy(_model(), folder / "m.bin")
    (folder / "canary.csv").write_text(f"secret\n{CANARY}\n")


def shared_folder(name: str) -> Path:
    """A folder that all trials of this process may read, gone at its end."""
    folder = tempfile.mkdtemp(prefix=f"hostile-{name}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _log() -> Path:
    return write_log(shared_folder("base") / "log.parquet", log().slice(0, 200))


@cache
def _model() -> Path:
    return write_model(_log().parent / "m.bin")


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.stat().st_size < 1 << 20 else None
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def judge(trial: Trial, said: Said, folder: Path, before: dict[str, bytes | None]) -> list[str]:
    """What is wrong with the way a command ended."""
    problems = []
    if said.status not in trial.wanted:
        problems.append(f"status {said.status}: {said.err[-1500:]}")
    if "Traceback" in said.err + said.out:
        problems.append(f"a traceback: {said.err[-1500:]}")
    if said.status == 2:
        problems += message_problems(trial, said)
    after = listing(folder)
    allowed = trial.writes if said.status != 2 else ()
    problems += [f"{n} was changed or is gone" for n in before if n not in after or after[n] != before[n]]
    problems += [f"{n} was written" for n in after if n not in before and not n.startswith(allowed or ("\0",))]
    leaked = [n for n, data in after.items() if n not in before and data is not None and CANARY.encode() in data]
    if CANARY in said.out + said.err:
        leaked.append("the terminal")
    problems += [f"{n} shows what the canary holds" for n in leaked]
    if said.status in (0, 1):
        from hostile.names import page_problems

        problems += page_problems(folder)
    problems += [f"the terminal gets {c!r}" for c in sorted(terminal_dangers(said.out + said.err))]
    return problems


def message_problems(trial: Trial, said: Said) -> list[str]:
    problems = []
    lines = said.err.strip().split("\n")
    message = next((line for line in lines if line.startswith("bidsim: error: ")), None)
    if message is None:
        return [f"no message: {said.err[-300:]!r}"] if "Usage" not in said.err and "Error" not in said.err else []
    if said.err.count("bidsim: error: ") != 1:
        problems.append(f"several messages: {said.err[:300]!r}")
    if said.out:
        problems.append(f"refused, but stdout has {said.out[:100]!r}")
    named = re.search(r"error: \S*(/|\.(yaml|json|parquet|csv|bin|html))\S*: ", said.err)
    if trial.about and not named and not any(name in said.err for name in trial.about):
        problems.append(f"names no file: {said.err[:300]!r}")
    if len(said.err) > LONGEST_MESSAGE:
        problems.append(f"the message has {len(said.err)} characters: {said.err[:200]!r}")
    if re.search(r"\b(duckdb|pyarrow|pydantic|sqlglot)\.\w|object at 0x", said.err):
        problems.append(f"words of a library: {said.err[:300]!r}")
    return problems


def terminal_dangers(text: str) -> set[str]:
    """Characters that move the cursor, set the title or turn text around."""
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "­‌‍"}
