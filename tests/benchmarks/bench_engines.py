"""DuckDB and local Spark on the same logs: seconds and memory of whole processes as the log grows, and Spark's shuffle.

    python tests/benchmarks/bench_engines.py --rows 1e6 5e6 20e6

Each log is replayed once by each engine in a process of its own, without a budget and with daily ones; memory is the
largest sum of what the process and its children (the JVM, Python workers) held at one time. What Spark wrote to shuffle
is read from its event log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUDGET = "budget: {amount: 2000, per: day}\n"


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def resident(pid: int) -> int:
    """Bytes that a process holds; pages shared with others count by their share."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def used(pid: int) -> float:
    """CPU seconds that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak MB) of a process and its descendants, looked at twice a second."""
    peak = 0
    cpu: dict[int, float] = {}
    with (folder / "output").open("wb") as output:
        begun = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.5):
                family = tree(child.pid)
                peak = max(peak, sum(resident(p) for p in family))
                for p in family:
                    cpu[p] = max(cpu.get(p, 0.0), used(p))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status = os.waitpid(child.pid, 0)
        wall = time.perf_counter() - begun
        done.set()
        watcher.join()
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{(folder / 'output').read_text()[-4000:]}")
    return wall, sum(cpu.values()), peak / 1e6


def shuffled(folder: Path) -> tuple[int, int]:
    """(bytes written to shuffle, bytes of results that came home) by all tasks of the event logs in a folder."""
    written = home = 0
    for file in folder.rglob("*"):
        if not file.is_file() or file.name.startswith("."):
            continue
        for line in file.open():
            event = json.loads(line)
            if event.get("Event") == "SparkListenerTaskEnd" and event.get("Task Metrics"):
                metrics = event["Task Metrics"]
                written += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
                home += metrics["Result Size"]
    return written, home


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--budgets", nargs="+", choices=("none", "daily"), default=["none", "daily"])
    parser.add_argument("--memory", default="4GB")
    given = parser.parse_args()
    print(
        "| rows | budget | engine | wall s | CPU s | CPU us a row | peak MB | shuffle bytes a row | results home MB |"
    )
    print("|--:|---|---|--:|--:|--:|--:|--:|--:|")
    for rows in given.rows:
        with tempfile.TemporaryDirectory(prefix="bidsim-engines-") as name:
            folder = Path(name)
            log = folder / "log"
            subprocess.run([sys.executable, str(HERE / "make_log.py"), str(rows), str(log)], check=True, stdout=2)
            text = (log / "scenario.yaml").read_text().replace("path: log/", f"path: {log}/log/")
            for budget in ("" if b == "none" else BUDGET for b in given.budgets):
                scenario = folder / "scenario.yaml"
                scenario.write_text(text + budget)
                results = {}
                for engine in ("duckdb", "spark"):
                    events = folder / f"events-{bool(budget)}-{engine}"
                    events.mkdir()
                    out = folder / f"out-{bool(budget)}-{engine}"
                    command = [sys.executable, "-m", "bidsim", "replay", "--scenario", str(scenario), "--out", str(out)]
                    command += ["--quiet", "--memory", given.memory, "--engine", engine]
                    if engine == "spark":
                        for setting in (
                            "enabled=true",
                            f"dir={events.as_uri()}",
                            "compress=false",
                            "rolling.enabled=false",
                        ):
                            command += ["--spark", f"spark.eventLog.{setting}"]
                    wall, cpu, peak = run(command, folder)
                    written, home = shuffled(events)
                    results[engine] = json.loads((out / "result.json").read_text())
                    shown = [f"{written / rows:.1f}", f"{home / 1e6:.1f}"] if engine == "spark" else ["", ""]
                    cells = [f"{rows:,}", "daily" if budget else "none", engine, f"{wall:.1f}", f"{cpu:.1f}"]
                    cells += [f"{1e6 * cpu / rows:.2f}", f"{peak:.0f}", *shown]
                    print(f"| {' | '.join(cells)} |", flush=True)
                same = results["duckdb"] == results["spark"]
                print(
                    f"{rows} rows, {'daily budgets' if budget else 'no budget'}: equal results: {same}", file=sys.stderr
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
