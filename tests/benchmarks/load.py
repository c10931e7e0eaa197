"""Load: many campaigns, candidates, segments, columns, rules and runs: python tests/benchmarks/load.py [case ...] [--rows N]

Prints a line of a table for each: CPU seconds, peak memory, and the sizes of what was written. CPU seconds are of the
command and its children; they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = np.datetime64("2026-11-02T00:00:00", "us")
SCENARIO: dict[str, Any] = {
    "name": "load",
    "sample_type": ["imp-click", "click-conversion"],
    "logs_tables": {"ad": {}},
    "columns": {"time": "ts", "unit": "user", "campaign": "ad", "price": "price", "bid": "bid", "won": "won"},
    "currency": "JPY",
    "performance_indicator_type": "cpa",
    "bid": {"formula": "1000 * target_cpa * pctr * pcvr"},
    "candidates": {"v1": {"columns": {"pctr": "p1"}}},
    "segments": ["campaign"],
    "gate": [{"metric": "cpa", "max_increase": "5%"}],
}


def write_log(
    file: Path, rows: int, campaigns: int = 200, candidates: int = 1, more: dict[str, int] | None = None
) -> Path:
    """more: columns of so many values each."""
    draw = np.random.default_rng(20261126)
    ad = np.minimum(draw.geometric(8 / campaigns, rows) - 1, campaigns - 1) if campaigns > 1 else np.zeros(rows, int)
    pctr = np.clip(draw.lognormal(-4.2, 0.7, rows), 1e-4, 0.5)
    click = (draw.random(rows) < pctr).astype(np.int8)
    pcvr = np.clip(draw.lognormal(-2.5, 0.4, rows), 1e-3, 0.6)
    price = np.round(draw.lognormal(5.3, 0.8, rows), 2)
    bid = np.round(1000 * 700 * pctr * pcvr * draw.uniform(0.8, 2.5, rows), 2)
    won = (bid >= price).astype(np.int8)
    label = pa.array(won == 0)
    columns = {
        "ts": pa.array(START + np.sort(draw.integers(0, 7 * 86400 * 10**6, rows)).astype("timedelta64[us]")),
        "user": pa.array(draw.integers(0, max(10, rows // 8), rows)),
        "ad": pa.array(ad),
        "price": pa.array(price),
        "bid": pa.array(bid),
        "won": pa.array(won),
        "click": pa.array(click, mask=np.asarray(label)),
        "conversion": pa.array(click * (draw.random(rows) < pcvr).astype(np.int8), mask=np.asarray(label)),
        "pctr": pa.array(pctr.astype(np.float32)),
        "pcvr": pa.array(pcvr.astype(np.float32)),
        "target_cpa": pa.array(np.full(rows, 700.0)),
    }
    for i in range(1, candidates + 1):
        columns[f"p{i}"] = pa.array((pctr * draw.lognormal(0, 0.1, rows)).clip(0, 1).astype(np.float32))
    for name, values in (more or {}).items():
        columns[name] = pa.array(draw.integers(0, values, rows).astype(np.int32))
    pq.write_table(pa.table(columns), file, row_group_size=1 << 17)
    return file


def measured(words: list[str], cwd: Path) -> tuple[int, float, float, str]:
    """Status, CPU seconds, peak memory in MB and the last line of stderr."""
    with open(cwd / "stderr", "w+b") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "bidsim", *words], cwd=cwd, stdout=subprocess.DEVNULL, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        said = err.read().decode(errors="replace").strip().splitlines()
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said[-1][:200] if said else ""


def replayed(folder: Path, what: str, log: Path, **changes: Any) -> None:
    scenario = {**SCENARIO, **changes}
    (folder / "s.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in scenario.items()))
    out = folder / "out"
    words = ["replay", "--scenario", "s.yaml", "--table", f"ad={log}", "--out", "out", "--as-of", "2026-12-01", "-q"]
    status, seconds, peak, said = measured(words, folder)
    sizes = {name: (out / name).stat().st_size / 2**20 for name in ("result.json", "report.html", "statistics.parquet")
             if (out / name).exists()}  # fmt: skip
    shown = ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()) or said
    print(f"| {what} | {status} | {seconds:.1f} s | {peak:,.0f} MB | {shown} |", flush=True)
    shutil.rmtree(out, ignore_errors=True)


def several(count: int) -> dict[str, Any]:
    return {f"v{i}": {"columns": {"pctr": f"p{i}"}} for i in range(1, count + 1)}


def base(folder: Path, rows: int) -> None:
    replayed(folder, f"{rows:,} rows, 200 campaigns, one candidate", write_log(folder / "log.parquet", rows))


def campaigns(folder: Path, rows: int) -> None:
    log = write_log(folder / "log.parquet", rows, campaigns=2000)
    replayed(folder, f"{rows:,} rows, 2,000 campaigns", log)
    replayed(folder, f"{rows:,} rows, 2,000 campaigns, budgets", log, budget={"amount": "20.0", "per": "day"})


def candidates(folder: Path, rows: int) -> None:
    log = write_log(folder / "log.parquet", rows, candidates=10)
    replayed(folder, f"{rows:,} rows, 10 candidates", log, candidates=several(10))
    log = write_log(folder / "log.parquet", rows, candidates=10, campaigns=2000)
    replayed(folder, f"{rows:,} rows, 10 candidates, 2,000 campaigns", log, candidates=several(10))


def segments(folder: Path, rows: int) -> None:
    log = write_log(folder / "log.parquet", rows, more={"a500": 500, "a5000": 5000, "a6000": 6000})
    replayed(folder, f"{rows:,} rows, a segment of 500 values", log, segments=["a500"])
    replayed(folder, f"{rows:,} rows, a segment of 5,000 values", log, segments=["a5000"])
    replayed(folder, f"{rows:,} rows, a segment of 6,000 values", log, segments=["a6000"])
    for count in (10, 50, 500):
        names = [f"d{i}" for i in range(count)]
        some = min(rows, 200_000) if count == 500 else rows
        log = write_log(folder / "log.parquet", some, more=dict.fromkeys(names, 10))
        replayed(folder, f"{some:,} rows, {count} segments of 10 values", log, segments=names)


def columns(folder: Path, rows: int) -> None:
    for count in (1000, 5000):
        some = min(rows, 200_000_000 // count // 4)
        log = write_log(folder / "log.parquet", some, more={f"x{i}": 1000 for i in range(count)})
        replayed(folder, f"{some:,} rows, {count:,} more columns", log)


def scenario(folder: Path, rows: int) -> None:
    log = write_log(folder / "log.parquet", min(rows, 200_000), more={"a500": 500})
    many = [f"price > {i / 10000}" for i in range(1000)]
    replayed(folder, "1,000 conditions", log, conditions=many)
    rules = [{"metric": "cpa", "by": "campaign", "max_increase": f"{i + 1}%"} for i in range(300)]
    replayed(folder, "300 rules over 200 campaigns", log, gate=rules)
    long = " + ".join(f"{i} * pctr * pcvr" for i in range(1000))
    replayed(folder, "a formula of 1,000 terms", log, bid={"formula": long})


def store(folder: Path, rows: int) -> None:
    """A thousand runs: one that was made, copied under other names, models and numbers."""
    log = write_log(folder / "log.parquet", 20_000)
    scenario = "".join(f"{k}: {json.dumps(v)}\n" for k, v in SCENARIO.items())
    (folder / "s.yaml").write_text(scenario)
    words = ["replay", "--scenario", "s.yaml", "--table", f"ad={log}", "--as-of", "2026-12-01", "-q", "--out"]
    assert measured([*words, "runs/run-0"], folder)[0] == 0
    first = folder / "runs" / "run-0"
    facts = json.loads((first / "run.json").read_text())
    for n in range(1, 1000):
        run = shutil.copytree(first, folder / "runs" / f"run-{n}")
        changed = json.loads(json.dumps(facts))
        changed["record"]["candidates"][0] |= {"name": f"v{n}", "identity": f"{n:064x}"}
        for forecast in changed["record"]["forecasts"]:
            forecast["policy"] = f"v{n}"
            if forecast["candidate"] is not None:
                forecast["candidate"] *= 1 + n / 10000
        (run / "run.json").write_text(json.dumps(changed))
    (folder / "ab.csv").write_text("metric,policy,change\nspend,v5,-8%\n")
    for what, command in (
        ("leaderboard", ["leaderboard", "runs"]),
        ("leaderboard as a page", ["leaderboard", "runs", "--html", "board.html"]),
        ("compare", ["compare", "runs/run-1", "runs/run-2"]),
        ("outcome", ["outcome", "runs/run-5", "--file", "ab.csv"]),
        ("one run more", [*words, "runs/more"]),
        ("one run more, elsewhere", [*words, "other/more"]),
    ):
        status, seconds, peak, said = measured(command, folder)
        page = folder / "board.html"
        size = f"page {page.stat().st_size / 2**20:.1f} MB" if "page" in what else said
        print(f"| 1,000 runs: {what} | {status} | {seconds:.1f} s | {peak:,.0f} MB | {size} |", flush=True)


CASES: dict[str, Callable[[Path, int], None]] = {
    f.__name__: f for f in (base, campaigns, candidates, segments, columns, scenario, store)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--rows", type=float, default=1e6)
    given = parser.parse_args()
    for name in given.cases or CASES:
        folder = Path(tempfile.mkdtemp(prefix="load-"))
        try:
            CASES[name](folder, int(given.rows))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
