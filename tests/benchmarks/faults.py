"""Faults, many times over: python tests/benchmarks/faults.py [kill] [signals] [disk] [memory] [log] [clock] [--tries N]

Prints a line of a table for each class of fault: how many were tried, how they ended, and what was wrong afterwards. The
small set of the same that every change must pass is tests/faults. Disk classes need root, for file systems of their own.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import machine
from world import Command, World, counts, moment, wait_for

SHARE = {"replay": 1.0, "train": 0.3, "run": 0.3, "tune": 0.3, "calibrate": 0.2, "report": 0.3, "outcome": 0.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*", help=", ".join(CLASSES))
    parser.add_argument("--tries", type=int, default=100, help="of replay; other commands a share of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one command")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        world = World(folder).make()
        for name in given.classes or CLASSES:
            CLASSES[name](world, given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(what: str, tried: int, ends: Sequence[str], problems: Sequence[str]) -> None:
    ended = ", ".join(f"{text} {n}" for text, n in sorted(counts(ends).items()))
    print(f"| {what} | {tried} | {ended} | {len(problems) or 'nothing'} wrong |", flush=True)
    for problem in problems[:20]:
        print(f"    {problem}", flush=True)


def disturbed(world: World, given: argparse.Namespace, what: str, sent: Sequence[signal.Signals]) -> None:
    """Signals at random moments of every command; every fifth time it is run again afterwards."""
    draw = random.Random(given.seed)
    for command in world.commands().values():
        if given.only and command.name != given.only:
            continue
        world.reference(command)
        ends: list[str] = []
        problems: list[str] = []
        tries = max(1, round(given.tries * SHARE[command.name]))
        for n in range(tries):
            place = world.place()
            command.before(place)
            process = world.start(command, place)
            wait_for(process, moment(draw, world.seconds[command.name]), place, n % 4 == 3, draw)
            number = sent[n % len(sent)]
            ran = process.poll() is None
            if ran:
                process.send_signal(number)
            _, err = process.communicate(timeout=120)
            ends.append(f"status {process.returncode}" if ran else "done before")
            wrong = world.problems(command, place)
            if ran and number != signal.SIGKILL:
                wrong += spoken(process.returncode, err, number)
                wrong += [f"left: {name}" for name in machine.left_of_ended(place)]
            if n % 5 == 0:
                wrong += world.again(command, place)
            problems += [f"{command.name} {n}: {w}" for w in wrong]
            if not wrong:
                shutil.rmtree(place, ignore_errors=True)
        tell(f"{what}, {command.name}", tries, ends, problems)


def spoken(status: int, err: str, number: signal.Signals) -> list[str]:
    """What is wrong with the words and the status of a command that was told to stop."""
    lines = [line for line in err.splitlines() if line.strip()]
    if status == 0:  # it was just done, or a training at its end
        return [f"said {err[-300:]}"] if any("asked to stop" not in line for line in lines) else []
    if status in (-number, 1) and "bidsim" not in err.replace("/bidsim", "").replace("-m bidsim", ""):
        return []  # before the first line of bidsim: the interpreter's own end
    told = "interrupted; nothing is half-written"
    # A library that was interrupted in the middle of an exec has the interpreter end by the signal: 130 in a shell.
    if (
        status not in (128 + number, -number)
        or not any(told in line or "stop" in line for line in lines)
        or len(lines) > 2
    ):
        return [f"status {status} after {number.name}, said {err[-600:]!r}"]
    return []


def kill(world: World, given: argparse.Namespace) -> None:
    disturbed(world, given, "killed (-9)", [signal.SIGKILL])


def signals(world: World, given: argparse.Namespace) -> None:
    disturbed(world, given, "interrupted or terminated", [signal.SIGINT, signal.SIGTERM])


def checked(world: World, what: str, cases: Sequence[tuple[Command, Path, machine.Fault]]) -> None:
    """Faults of the machine: each must end in one message, or not matter; the run after it must be whole."""
    ends: list[str] = []
    problems: list[str] = []
    for command, place, fault in cases:
        with fault.on(place) as options:
            done = world.run(command, place, **options)
        ends.append(f"status {done.status}")
        if done.status == 2:
            lines = [line for line in done.err.splitlines() if line.strip()]
            if len(lines) != 1 or "error: " not in lines[0]:
                problems.append(f"{command.name}, {fault.name}: said {done.err[-600:]!r}")
        elif done.status != 0:
            problems.append(f"{command.name}, {fault.name}: status {done.status}: {done.err[-600:]!r}")
        wrong = world.problems(command, place) + world.again(command, place)
        problems += [f"{command.name}, {fault.name}: {w}" for w in wrong]
        shutil.rmtree(place, ignore_errors=True)
    tell(what, len(cases), ends, problems)


def each(
    world: World, given: argparse.Namespace, faults: Sequence[machine.Fault]
) -> list[tuple[Command, Path, machine.Fault]]:
    cases = []
    for command in world.commands().values():
        if given.only and command.name != given.only:
            continue
        world.reference(command)
        for fault in faults:
            place = world.place()
            command.before(place)
            cases.append((command, place, fault))
    return cases


def disk(world: World, given: argparse.Namespace) -> None:
    sizes = [16, 64, 256, 1024, 4096]
    for where in ("out", "tmp"):
        checked(world, f"disk full: {where}", each(world, given, [machine.full(where, kib) for kib in sizes]))
    checked(
        world, "files may not grow (RLIMIT_FSIZE)", each(world, given, [machine.no_file_above(k << 10) for k in sizes])
    )
    checked(world, "read-only", each(world, given, [machine.read_only("out"), machine.read_only("tmp")]))


def memory(world: World, given: argparse.Namespace) -> None:
    limits = [machine.address_space(mib) for mib in (150, 300, 500, 1200, 3000, 5000, 100_000)]
    checked(world, "addresses limited (ulimit -v)", each(world, given, limits))
    if Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        groups = [machine.memory_group(mib) for mib in (500, 1000, 1500, 2500)]
        checked(world, "memory of the container limited", each(world, given, groups))


def log(world: World, given: argparse.Namespace) -> None:
    """The log changes at random moments of a replay. Status 2 with a message, or the numbers of one log."""
    import change

    for ending in ("parquet", "csv"):
        for name, function in change.CHANGES.items():
            change.try_it(world, ending, name, function, max(5, given.tries // 5), random.Random(given.seed), tell)


def clock(world: World, given: argparse.Namespace) -> None:
    times = ["@1970-01-02 00:00:00", "@2099-06-01 12:00:00", "@2026-03-29 00:59:58", "@2026-12-31 23:59:59"]
    faults = [machine.clock(t) for t in times] + [machine.clock_that_jumps(s) for s in (-86400, -3600, 86400)]
    checked(world, "clock wrong, or set while it runs", each(world, given, faults))


CLASSES: dict[str, Callable[[World, argparse.Namespace], None]] = {
    "kill": kill,
    "signals": signals,
    "disk": disk,
    "memory": memory,
    "log": log,
    "clock": clock,
}

if __name__ == "__main__":
    main()
