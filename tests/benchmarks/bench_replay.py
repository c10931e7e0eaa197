"""Time and memory of whole processes, in turn: the replay, the replay without intervals (plain), the natural script and a
bare scan of the same log.

    python tests/benchmarks/bench_replay.py --rows 5e6

Runs alternate, so that a machine whose speed drifts is as unkind to each; the table gives the least and the median of
wall time, CPU time and the kernel's account of peak memory. `--check` compares the numbers of the two as well.
Needs only the standard library: a child's peak memory is never below what its parent held when it was started.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("replay", "plain", "natural", "bare")
MORE_CANDIDATES = (
    "  v42_low: {columns: {pctr: pctr_v42 * 0.9, pcvr: pcvr_v42}}\n",
    "  v42_mixed: {columns: {pctr: (pctr_v42 + pctr_prod) / 2, pcvr: pcvr_v42}}\n",
    "  v42_cvr: {columns: {pctr: pctr_prod, pcvr: (pcvr_v42 + pcvr_prod) / 2}}\n",
)


@dataclass
class Runs:
    """What the finished runs of one command took."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)


def run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak MB) of one process; its output is kept for a failure only."""
    with (folder / "output").open("wb") as output:
        begun = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    # 1 is a gate that failed, as valid a result as any.
    if child.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{(folder / 'output').read_text()[-4000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def scenario_with(text: str, directory: Path, candidates: int, segments: bool, auction: str) -> str:
    """The log's scenario with so many candidates, with or without segments, and an auction of another type."""
    text = text.replace("type: second_price", f"type: {auction}")
    text = text.replace("path: log/", f"path: {directory.resolve()}/log/")
    last = next(line for line in text.splitlines(keepends=True) if line.startswith("  v42:"))
    text = text.replace(last, last + "".join(MORE_CANDIDATES[: candidates - 1]))
    return text if segments else text.replace("segments: [campaign]\n", "")


def table(runs: dict[str, Runs]) -> str:
    head = "| | wall s, least | wall s, median | CPU s, least | peak MB | wall of the replay to it | memory of the replay to it |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|"]
    ours = runs.get("replay")
    for name, each in runs.items():
        ratios = ["", ""]
        if ours and each is not ours:
            ratios = [f"{min(ours.wall) / min(each.wall):.2f}", f"{max(ours.peak_mb) / max(each.peak_mb):.2f}"]
        numbers = [f"{min(each.wall):.2f}", f"{statistics.median(each.wall):.2f}", f"{min(each.cpu):.2f}"]
        lines.append("| " + " | ".join([name, *numbers, f"{max(each.peak_mb):.0f}", *ratios]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=2_000_000, help="default 2e6")
    parser.add_argument("--log", type=Path, help="a folder of make_log.py; made for --rows where it is not there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--candidates", type=int, choices=range(1, 5), default=1)
    parser.add_argument("--no-segments", action="store_true")
    parser.add_argument(
        "--auction", choices=("second_price", "first_price"), default="second_price", help="of replay, plain"
    )
    parser.add_argument("--memory", default="2GB", help="of the replay, default 2GB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-utility", action="store_true", help="natural leaves out its slowest number")
    parser.add_argument("--check", action="store_true", help="also compare the numbers of natural and replay")
    given = parser.parse_args()
    log = given.log or Path(tempfile.gettempdir()) / f"bidsim-bench-{given.rows}"
    if not (log / "scenario.yaml").exists():
        subprocess.run([sys.executable, str(HERE / "make_log.py"), str(given.rows), str(log)], check=True)
    with tempfile.TemporaryDirectory(prefix="bidsim-bench-") as work:
        folder = Path(work)
        scenario = folder / "scenario.yaml"
        text = (log / "scenario.yaml").read_text()
        scenario.write_text(scenario_with(text, log, given.candidates, not given.no_segments, given.auction))
        replay = [sys.executable, "-m", "bidsim", "replay", "--quiet", "--scenario", str(scenario)]
        replay += ["--memory", given.memory, "--threads", str(given.threads)]
        plain = [sys.executable, str(HERE / "without_intervals.py"), *replay[3:]]
        plain[plain.index(str(scenario))] = str(folder / "plain.yaml")
        (folder / "plain.yaml").write_text(scenario.read_text().replace("unit: user_id, ", ""))
        natural = [sys.executable, str(HERE / "natural.py"), str(log)]
        commands = {
            "replay": replay,
            "plain": plain,
            "natural": [*natural, "--without-utility"] if given.without_utility else natural,
            "bare": [sys.executable, str(HERE / "bare_scan.py"), str(log), "--threads", str(given.threads)],
        }
        runs = {name: Runs() for name in PARTS if name in given.only}
        for repetition in range(given.repeat):
            for name, each in runs.items():
                out = ["--out", str(folder / f"{name}-{repetition}")] if name in ("replay", "plain") else []
                figures = run([*commands[name], *out], folder)
                for kept, figure in zip((each.wall, each.cpu, each.peak_mb), figures, strict=True):
                    kept.append(figure)
                print(f"{name}: {figures[0]:.2f} s, {figures[2]:.0f} MB", file=sys.stderr)
        print(
            f"{log}, candidates: {given.candidates}, segments: {'none' if given.no_segments else 'campaign'}, "
            f"auction: {given.auction}, threads: {given.threads}, memory: {given.memory}, runs: {given.repeat}\n"
        )
        print(table(runs))
        if given.check:
            if "replay" not in runs:
                run([*replay, "--out", str(folder / "replay-0")], folder)
            result = folder / "replay-0" / "result.json"
            return subprocess.run([*natural, "--compare", str(result)], check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
