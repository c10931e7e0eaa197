"""A log that changes at a random moment while a replay reads it: told, or the numbers are those of the log as it was."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from command import log, write_log
from world import DAY, Command, World, wait_for

Tell = Callable[[str, int, list[str], list[str]], None]


def _other(file: Path) -> Path:
    """Another log's part beside it, hidden."""
    rows = log().slice(600, 400)
    return write_log(file.with_name(f".other{file.suffix}"), rows)


def _replaced(file: Path) -> None:
    os.replace(_other(file), file)


def _written(file: Path) -> None:
    """In place, piece by piece, as a copy does."""
    content = _other(file).read_bytes()
    with open(file, "r+b") as stream:
        for start in range(0, len(content), 4096):
            stream.write(content[start : start + 4096])
            stream.flush()
        stream.truncate()


def _grown(file: Path) -> None:
    with open(file, "ab") as stream:
        stream.write(file.read_bytes()[-500:])


CHANGES: dict[str, Callable[[Path], object]] = {
    "is cut": lambda f: os.truncate(f, f.stat().st_size * 2 // 3),
    "disappears": lambda f: f.unlink(),
    "is replaced": _replaced,
    "is written over": _written,
    "grows": _grown,
    "gets a file more": lambda f: shutil.copy(f, f.with_name(f"z{f.suffix}")),
}


def parts(folder: Path, ending: str) -> Path:
    """The log in three files."""
    rows = log()
    for n in range(3):
        file = write_log(folder / f"{n}.{ending}", rows.slice(n * 400, 400))
        if ending == "parquet":
            pq.write_table(rows.slice(n * 400, 400), file, row_group_size=100)
    return folder


def try_it(
    world: World, ending: str, name: str, change: Callable[[Path], object], tries: int, draw: random.Random, tell: Tell
) -> None:
    ends: list[str] = []
    problems: list[str] = []
    command = Command(
        "replay",
        [
            "replay",
            "--scenario",
            f"{world.inputs}/s.yaml",
            "--table",
            "ad=log",
            "--as-of",
            DAY,
            "-q",
            "--out",
            "out/run",
        ],
    )
    quiet = world.place()
    parts(quiet / "log", ending)
    done = world.run(command, quiet)
    assert done.status == 0, done.err
    whole = (quiet / "out" / "run" / "result.json").read_bytes()
    for n in range(tries):
        place = world.place()
        parts(place / "log", ending)
        process = world.start(command, place)
        wait_for(process, draw.uniform(0, done.seconds), place, False, draw)
        ran = process.poll() is None
        change(place / "log" / f"1.{ending}")
        _, err = process.communicate(timeout=120)
        result = place / "out" / "run" / "result.json"
        if process.returncode == 0:
            same = result.read_bytes() == whole
            ends.append("as it was" if same else "as it became")
            if not same:
                now = place / "out" / "now"
                after = world.run(Command("replay", [*command.words[:-1], "out/now"]), place)
                if after.status != 0 or (now / "result.json").read_bytes() != result.read_bytes():
                    problems.append(f"{ending} {name} {n}: numbers of neither log")
        else:
            ends.append(f"status {process.returncode}")
            lines = [line for line in err.splitlines() if line.strip()]
            if process.returncode != 2 or len(lines) != 1 or result.exists():
                problems.append(f"{ending} {name} {n} (ran: {ran}): status {process.returncode}: {err[-500:]}")
        shutil.rmtree(place, ignore_errors=True)
    tell(f"log {name} while it is read, {ending}", tries, ends, problems)
