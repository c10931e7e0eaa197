"""A small world to disturb: commands on small logs, what they make when nothing disturbs them, and what must hold after.

After any fault: what a command's name stands for is there as a whole or not at all, no process of it lives on, and the
same command run again gives the same bytes and leaves nothing of the first one behind.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "training")]

from command import write_log, write_model, write_scenario
from small_market import hyperparameters, write_market

MARK = "BIDSIM_FAULT_TRY"
PATIENCE_SECONDS = 20.0
DAY = "2026-12-01"
# Facts of one run, not of what it found.
OWN_FACTS = ("run.json", "fingerprints.json")
GATE = [{"metric": "calibration", "head": "ctr", "between": [0.5, 2.0]}]


@dataclass(frozen=True)
class Command:
    """words: arguments, run in a folder of its own with `out` below it; before: what has to be there."""

    name: str
    words: Sequence[str]
    before: Callable[[Path], object] = lambda place: None
    unfinished: tuple[str, ...] = ()  # folders whose files are meant to be there when it is stopped


@dataclass
class Ended:
    status: int
    err: str
    seconds: float


@dataclass
class World:
    """inputs: logs, scenarios, models; places: where commands run; references: what each makes when nothing disturbs it."""

    folder: Path
    references: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tries: int = 0

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs"

    def make(self) -> World:
        self.inputs.mkdir(parents=True)
        write_log(self.inputs / "log.parquet")
        write_log(self.inputs / "log.csv")
        write_scenario(self.inputs / "s.yaml", {"gate": GATE})
        window = {"last_hour": "2026-11-02T23:00:00", "duration_hour": 24}
        write_scenario(self.inputs / "second_day.yaml", {"logs_tables": {"ad": window}})
        write_model(self.inputs / "m.bin")
        write_market(self.inputs / "market")
        hyperparameters(self.inputs, train_hours=96, bits=10, rounds=3, max_miscalibration=3.0)
        space = {"learning_rate": {"low": 0.05, "high": 0.5, "log": True}, "train_hours": 48, "bits": 8, "rounds": 2}
        (self.inputs / "space.yaml").write_text(json.dumps({**space, "max_miscalibration": 5.0}))
        (self.inputs / "ab.csv").write_text("metric,policy,change\nspend,v2,-8%\n")
        return self

    def commands(self) -> dict[str, Command]:
        i = self.inputs
        market = f"--scenario {i}/market/scenario.yaml"
        first_day = "--last-hour 2026-11-01T23:00:00 --duration-hour 24"
        replay = f"replay --scenario {i}/s.yaml --table ad={i}/log.parquet --as-of {DAY} -q"

        def with_run(place: Path) -> None:
            done = self.run(Command("", f"{replay} --out out/run".split()), place)
            assert done.status == 0, done.err

        h = f"--hyperparameters {i}/h.json"
        texts: dict[str, str] = {
            "replay": f"{replay} --model {i}/m.bin --out out/run --threads 2",
            "train": f"train {market} {h} -o out/t.bin --checkpoint out/c -q",
            "run": f"run {market} {h} --as-of {DAY} --work out -q",
            "tune": f"tune {market} --space {i}/space.yaml --trials 4 --jobs 2 --seed 1 --as-of {DAY} --work out -q",
            "calibrate": f"model calibrate {i}/m.bin --method isotonic --scenario {i}/second_day.yaml -o out/c.bin "
            f"--table ad={i}/log.parquet {first_day}",
            "report": "report out/run --out out/again.html",
            "outcome": f"outcome out/run --file {i}/ab.csv",
        }
        unfinished = {"train": ("c",), "run": ("checkpoints",)}
        before = {"report": with_run, "outcome": with_run}
        nothing: Callable[[Path], object] = lambda place: None  # noqa: E731
        return {
            name: Command(name, text.split(), before.get(name, nothing), unfinished.get(name, ()))
            for name, text in texts.items()
        }

    def place(self) -> Path:
        self.tries += 1
        place = self.folder / f"try-{self.tries}"
        (place / "tmp").mkdir(parents=True)
        (place / "out").mkdir()
        return place

    def start(self, command: Command, place: Path, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(place / "tmp"), MARK: str(place), **options.pop("env", {})}
        words = [sys.executable, "-m", "bidsim", *command.words]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        return subprocess.Popen(words, cwd=place, env=environment, **{**pipes, **options})

    def run(self, command: Command, place: Path, **options: Any) -> Ended:
        began = time.monotonic()
        process = self.start(command, place, **options)
        _, err = process.communicate(timeout=600)
        return Ended(process.returncode, err or "", time.monotonic() - began)

    def reference(self, command: Command) -> dict[str, bytes]:
        """What the command makes undisturbed."""
        if command.name not in self.references:
            place = self.place()
            command.before(place)
            done = self.run(command, place)
            assert done.status == 0, done.err
            self.seconds[command.name] = done.seconds
            self.references[command.name] = made(place, command)
            assert left(place) == [], left(place)
        return self.references[command.name]

    def problems(self, command: Command, place: Path) -> list[str]:
        """What is half-written or lives on after a fault."""
        reference = self.reference(command)
        found = []
        now = made(place, command)
        for name, content in now.items():
            if name not in reference:
                found.append(f"unknown file {name}")
            elif content != reference[name]:
                found.append(f"{name} is not what it should be")
        for folder in {os.path.dirname(n) for n in now if os.path.basename(n) == "result.json"}:
            missing = [n for n in reference if os.path.dirname(n) == folder and n not in now]
            found += [f"run without {n}" for n in missing]
        # A child that has just been started sees that its parent is gone once it has imported what it needs to.
        begun = time.monotonic()
        while (alive := processes(place)) and time.monotonic() < begun + PATIENCE_SECONDS:
            time.sleep(0.1)
        return found + [f"lives on: {a}" for a in alive]

    def again(self, command: Command, place: Path) -> list[str]:
        """The problems of the same command run again after a fault. What is done already is taken away before."""
        reference = self.reference(command)
        if made(place, command) != reference:
            done = self.run(command, place)
            if done.status != 0:
                return [f"run again: status {done.status}: {done.err[-300:]}"]
        else:  # it was done: any command clears what was left
            done = self.run(Command("", ["leaderboard", "out", "--json"]), place)
            return []
        differs = [n for n in {*reference, *made(place, command)} if reference.get(n) != made(place, command).get(n)]
        return [f"run again: {n} differs" for n in differs] + [f"left: {name}" for name in left(place)]


def made(place: Path, command: Command) -> dict[str, bytes]:
    """Visible files below `out` by path; of what is a fact of one run only that it is there."""
    found = {}
    for path in sorted((place / "out").rglob("*")):
        parts = path.relative_to(place / "out").parts
        if path.is_file() and not any(p.startswith(".") for p in parts) and parts[0] not in command.unfinished:
            content = path.read_bytes()
            if ".outcome-" in path.name:
                content = b"".join(line for line in content.splitlines(True) if b'"recorded"' not in line)
            found["/".join(parts)] = b"" if path.name in OWN_FACTS else content
    return found


def left(place: Path) -> list[str]:
    """What should be gone: work folders, and what was being written aside."""
    aside = (place / "out").rglob(".*")
    return sorted(str(p.relative_to(place)) for p in [*(place / "tmp").iterdir(), *aside])


def processes(place: Path) -> list[str]:
    """Processes that were started for a try, by what they carry in their environment."""
    found = []
    mark = f"{MARK}={place}\0".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes() + b"\0":
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120])
        except OSError:
            continue
    return found


def moment(draw: random.Random, seconds: float) -> float:
    """A moment of a run: half of them anywhere, half in its last fifth, where it writes."""
    return draw.uniform(0, seconds) if draw.random() < 0.5 else draw.uniform(0.8, 1.02) * seconds


def wait_for(process: subprocess.Popen[str], seconds: float, place: Path, sign: bool, draw: random.Random) -> None:
    """Wait for a moment, or with `sign` until something is written aside in `out`, and up to 40 ms more."""
    if not sign:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(min(0.02, max(0.0, end - time.monotonic())))
        return
    while process.poll() is None:
        if any(entry.name.startswith(".") for entry in os.scandir(place / "out")):
            time.sleep(draw.uniform(0, 0.04))
            return
        time.sleep(0.002)


def counts(texts: Sequence[str]) -> Mapping[str, int]:
    return {text: texts.count(text) for text in dict.fromkeys(texts)}
