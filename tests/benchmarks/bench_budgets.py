"""What budgets cost: the same log without budgets, with daily budgets of 1,000 campaigns, with both ways of pacing.

    python tests/benchmarks/bench_budgets.py --rows 10e6

Whole processes in turn, as in bench_replay.py; the ratios to the replay without budgets are what counts. The budgets
are about a quarter of what the policies spend without.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_replay import HERE, Runs, run

BUDGETS = {
    "none": "",
    "asap": "budget: {amount: AMOUNT, per: day}\n",
    "asap, never": "budget: {amount: AMOUNT, per: day, overspend: never}\n",
    "even": "budget: {amount: AMOUNT, per: day, pacing: even}\n",
    "even, never": "budget: {amount: AMOUNT, per: day, pacing: even, overspend: never}\n",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=10_000_000, help="default 1e7")
    parser.add_argument("--only", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    log = Path(tempfile.gettempdir()) / f"bidsim-bench-{given.rows}"
    if not (log / "scenario.yaml").exists():
        subprocess.run([sys.executable, str(HERE / "make_log.py"), str(given.rows), str(log)], check=True)
    text = (log / "scenario.yaml").read_text().replace("path: log/", f"path: {log.resolve()}/log/")
    text = text.replace("campaign: ad_id", 'campaign: "ad_id * 5 + user_id % 5"')
    names = ["none", *(n for n in given.only if n != "none")]
    runs = {name: Runs() for name in names}
    with tempfile.TemporaryDirectory(prefix="bidsim-bench-") as work:
        folder = Path(work)
        for repetition in range(given.repeat):
            for i, name in enumerate(names):
                scenario = folder / f"s{i}.yaml"
                scenario.write_text(text + BUDGETS[name].replace("AMOUNT", f"{given.rows * 4e-6:g}"))
                command = [sys.executable, "-m", "bidsim", "replay", "--quiet", "--scenario", str(scenario)]
                command += ["--memory", given.memory, "--threads", str(given.threads)]
                figures = run([*command, "--out", str(folder / f"run-{repetition}-{i}")], folder)
                for kept, figure in zip((runs[name].wall, runs[name].cpu, runs[name].peak_mb), figures, strict=True):
                    kept.append(figure)
                print(f"{name}: {figures[0]:.1f} s, {figures[1]:.1f} s of CPU", file=sys.stderr)
    bare = runs["none"]
    print("| budget | wall s, least | median | CPU s, least | peak MB | wall to none | CPU to none |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, each in runs.items():
        numbers = [f"{min(each.wall):.1f}", f"{statistics.median(each.wall):.1f}", f"{min(each.cpu):.1f}"]
        ratios = [f"{min(each.wall) / min(bare.wall):.2f}", f"{min(each.cpu) / min(bare.cpu):.2f}"]
        print("| " + " | ".join([name, *numbers, f"{max(each.peak_mb):.0f}", *ratios]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
