"""What training costs as the rows grow: peak memory and time of extraction and of each model, as processes of their own.

    python tests/benchmarks/bench_training.py --rows 2e6 10e6 --models hashed_logistic lightgbm

Rows are those that a model learns from or is validated on (impressions with a click label), about; the table has the
true number. One round each, the ctr head alone. Logs of make_log.py are kept in the temporary folder and used again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_replay import HERE, run

DAYS, TRAIN_HOURS = 7, 144
LABELLED = 0.45  # share of a log's rows that were won
VALUES = {
    "hashed_logistic": {"rounds": 1, "bits": 18},
    "factorization_machine": {"model": "factorization_machine", "rounds": 1, "bits": 18},
    "lightgbm": {"model": "lightgbm", "rounds": 1, "trees_per_round": 10},
}
SCENARIO = """\
name: training
sample_type: imp-click
logs_tables: {ad: {path: LOG/log/*.parquet, last_hour: "2026-11-08T23:00:00", duration_hour: 24}}
columns: {time: ts, unit: user_id, campaign: ad_id, price: price, won: is_win, click: is_click}
features: [ad_id, user_id, spot_id, hour, bid_price, target_cpa]
conditions: [is_win = 1]
baseline: {columns: {pctr: pctr_prod}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), nargs="+", default=[2_000_000, 10_000_000])
    parser.add_argument("--models", nargs="+", choices=list(VALUES), default=["hashed_logistic"])
    parser.add_argument("--memory", default="2GB", help="of the extraction, default 2GB")
    given = parser.parse_args()
    lines = ["| training rows | step | wall s | CPU s | peak MB |", "|--:|---|--:|--:|--:|"]
    for rows in given.rows:
        log_rows = round(rows / LABELLED * DAYS * 24 / TRAIN_HOURS)
        log = Path(tempfile.gettempdir()) / f"bidsim-bench-{log_rows}"
        if not (log / "scenario.yaml").exists():
            subprocess.run([sys.executable, str(HERE / "make_log.py"), str(log_rows), str(log)], check=True)
        with tempfile.TemporaryDirectory(prefix="bidsim-bench-") as work:
            folder = Path(work)
            scenario = folder / "s.yaml"
            scenario.write_text(SCENARIO.replace("LOG", str(log.resolve())))
            bidsim = [sys.executable, "-m", "bidsim"]
            extract = [*bidsim, "extract", "--scenario", str(scenario), "--train-hours", str(TRAIN_HOURS), "--quiet"]
            steps = {"extract": [*extract, "--memory", given.memory, "--out", str(folder / "data")]}
            for model in given.models:
                h = folder / f"{model}.json"
                h.write_text(json.dumps({**VALUES[model], "max_miscalibration": 100}))
                train = [*bidsim, "train", "--scenario", str(scenario), "--hyperparameters", str(h), "--quiet"]
                steps[model] = [*train, "--data", str(folder / "data"), "-o", str(folder / f"{model}.bin")]
            for name, command in steps.items():
                wall, cpu, peak = run(command, folder)
                manifest = json.loads((folder / "data" / "manifest.json").read_bytes())
                n = manifest["train"]["samples"]["imp-click"]["rows"]
                lines.append(f"| {n:,} | {name} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |")
                print(lines[-1], file=sys.stderr)
            shutil.rmtree(folder / "data")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
