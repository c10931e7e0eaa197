"""Hostile input: how each piece ends when the command is given it. Prints a table; the status is 1 where one ended badly.

    python tests/benchmarks/fuzz_input.py --each 500 --jobs 2
    python tests/benchmarks/fuzz_input.py --kind "log: values" --seed 17        # one again, with all it said

`tests/hostile` makes the input by seed and says what must not happen: a traceback, another status than 0, 1 or 2, no
message or one that names no file, something written beside the output or left in the temporary folder, the canary read
or changed, terminal codes. Added here: the death of the process, more time or memory than the limits.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hostile import bundles, expressions, logs, names, places, runs, scenarios  # noqa: E402
from hostile.trial import End, Make, attempt  # noqa: E402

KINDS: dict[str, Make] = {
    **scenarios.CLASSES,
    **expressions.CLASSES,
    **bundles.CLASSES,
    **logs.CLASSES,
    **places.CLASSES,
    **names.CLASSES,
    **runs.CLASSES,
}
TRIALS_A_WORKER = 200


def work(pipe: multiprocessing.connection.Connection, gigabytes: float) -> None:
    """Run the trials that come through the pipe, one by one."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30), resource.RLIM_INFINITY))
    while True:
        kind, seed = pipe.recv()
        Path("/proc/self/clear_refs").write_text("5")
        pipe.send((attempt(KINDS[kind], f"{kind} {seed}"), peak_megabytes()))


def peak_megabytes() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@dataclass
class Worker:
    gigabytes: float
    done: int = 0
    job: tuple[str, int] | None = None
    began: float = 0.0
    process: Any = None
    pipe: Any = None

    def start(self, job: tuple[str, int]) -> None:
        if self.process is None or self.done >= TRIALS_A_WORKER:
            self.end()
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=work, args=(other, self.gigabytes), daemon=True)
            self.process.start()
            other.close()
            self.done = 0
        self.job, self.began = job, time.monotonic()
        self.done += 1
        self.pipe.send(job)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


@dataclass
class Row:
    ends: collections.Counter[int] = field(default_factory=collections.Counter)
    bad: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=200, help="pieces of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone, in this process")
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=180, help="limit of one trial, the first import included")
    parser.add_argument("--gigabytes", type=float, default=8, help="limit of a worker's own memory")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    kinds = args.kind or list(KINDS)
    if args.seed is not None:
        for kind in kinds:
            show(kind, args.seed, attempt(KINDS[kind], f"{kind} {args.seed}"))
        return 0
    jobs = [(kind, seed) for seed in range(args.first, args.first + args.each) for kind in kinds]
    rows = {kind: Row() for kind in kinds}
    with contextlib.suppress(KeyboardInterrupt):  # what was done so far is told
        run_all(jobs, rows, args)
    print("\n| input | tried | refused (2) | replayed (0 or 1) | ended badly | most processor time | most memory |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, row in rows.items():
        tried, whole = sum(row.ends.values()), row.ends[0] + row.ends[1]
        print(
            f"| {kind} | {tried} | {row.ends[2]} | {whole} | {len(row.bad)} | {row.seconds:.1f} s | {row.megabytes:.0f} MB |"
        )
    return 1 if any(row.bad for row in rows.values()) else 0


def run_all(jobs: list[tuple[str, int]], rows: dict[str, Row], args: Any) -> None:
    waiting = list(reversed(jobs))
    workers = [Worker(args.gigabytes) for _ in range(args.jobs)]
    while waiting or any(w.job for w in workers):
        for worker in workers:
            if worker.job is None and waiting:
                worker.start(waiting.pop())
        busy = [w for w in workers if w.job]
        multiprocessing.connection.wait([w.pipe for w in busy], timeout=0.5)
        for worker in busy:
            kind, seed = worker.job
            row = rows[kind]
            try:
                if worker.pipe.poll():
                    end, megabytes = worker.pipe.recv()
                    row.ends[end.status] += 1
                    row.seconds, row.megabytes = max(row.seconds, end.seconds), max(row.megabytes, megabytes)
                    if end.problems or args.verbose:
                        show(kind, seed, end)
                    if end.problems:
                        row.bad.append(end.problems[0])
                elif time.monotonic() - worker.began > args.seconds:
                    fail(kind, seed, row, f"still running after {args.seconds:.0f} s")
                    worker.end()
                else:
                    continue
            except (EOFError, ConnectionResetError):
                worker.process.join(5)
                fail(kind, seed, row, f"the process died with {worker.process.exitcode}")
                worker.end()
            worker.job = None
    for worker in workers:
        worker.end()


def fail(kind: str, seed: int, row: Row, what: str) -> None:
    print(f"{kind} {seed}: {what}", flush=True)
    row.ends[-1] += 1
    row.bad.append(what)


def show(kind: str, seed: int, end: End) -> None:
    print(
        f'--kind "{kind}" --seed {seed}: status {end.status} in {end.seconds:.1f} s [{end.note[:200]}] {end.said[:400]}'
    )
    for problem in end.problems:
        print(f"    {problem[:2000]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
