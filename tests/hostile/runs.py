"""Files beside the scenario that a command reads: a run's folder, rules, outcomes, hyperparameters, spaces, features files."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from command import bidsim, write_log, write_scenario

from hostile.bundles import TEXTS, _changed
from hostile.scenarios import SNIPPETS
from hostile.trial import Trial, shared_folder


@cache
def _run() -> Path:
    """A run's folder, made once."""
    from command import log

    folder = shared_folder("run")
    write_log(folder / "log.parquet", log().slice(0, 200))
    rules = [
        {"metric": "cpa", "at_most": 1},
        {"metric": "calibration", "head": "ctr", "between": [0.5, 2], "by": "campaign"},
    ]
    write_scenario(folder / "s.yaml", {"gate": rules, "fidelity": "warn"})
    said = bidsim(
        "replay",
        "--scenario",
        "s.yaml",
        "--table",
        "ad=log.parquet",
        "--out",
        "run",
        "--as-of",
        "2026-11-03",
        "--quiet",
        cwd=folder,
    )
    assert said.status in (0, 1), said.err
    return folder / "run"


READING: list[tuple[str, ...]] = [
    ("gate", "run"), ("gate", "run", "--confidence", "0.9"), ("gate", "run", "--as-of", "2027-01-01", "--json"), ("report", "run", "--out", "out.html"), ("report", "run", "--out", "out.html", "--confidence", "0.8"), ("leaderboard", "."), ("leaderboard", ".", "--json"),
    ("leaderboard", ".", "--html", "out.html"), ("compare", "run", "other"), ("compare", "other", "run", "--json"), ("plan", "run"), ("plan", "run", "--json"), ("outcome", "run", "--file", "ab.csv"),
]  # fmt: skip


def folders(draw: random.Random, folder: Path) -> Trial:
    """A run's folder in which one file is damaged, forged or gone."""
    shutil.copytree(_run(), folder / "run")
    shutil.copytree(_run(), folder / "other")
    (folder / "ab.csv").write_text("metric,change\ncpa,-3%\n")
    name = draw.choice(
        [
            "result.json",
            "result.json",
            "result.json",
            "run.json",
            "run.json",
            "statistics.parquet",
            "statistics.parquet",
            "scenario.yaml",
        ]
    )
    path = folder / "run" / name
    note = name
    kind = draw.choice(["value", "value", "value", "bytes", "text", "gone", "folder", "link", "recursive"])
    if kind == "value" and name.endswith(".json"):
        document = json.loads(path.read_text())
        note += " " + "; ".join(_changed(draw, document) for _ in range(draw.choice([1, 1, 3])))
        path.write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")
    elif kind in ("value", "bytes"):
        data = bytearray(path.read_bytes())
        for _ in range(draw.choice([1, 3, 20])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        path.write_bytes(bytes(data))
    elif kind == "text":
        path.write_bytes(draw.choice(TEXTS))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(draw.choice(["../canary.csv", "/dev/zero", "/proc/self/environ", "no", name]))
        elif kind == "recursive":
            (folder / "run" / "run").symlink_to(folder)
    words = draw.choice(READING)
    about = ("run", "ab.csv", "no runs")
    return Trial(words, about, f"{words[0]} {kind} {note}", writes=("out", "run.outcome"))


RULES = b"""- {metric: cpa, max_increase: 1%}
- {metric: calibration, head: ctr, between: [0.9, 1.1], by: campaign, min_rows: 10}
- {metric: expected_utility, beta: 0.1, min_improvement: 0%, evidence: point}
"""
OUTCOMES = b"metric,head,policy,change,low,high,start,end,note\ncpa,,v2,-3.1%,-5%,-1%,2026-11-10,2026-11-20,fine\nspend,,,0.01,,,,,\n"
SPACE = b"learning_rate: {low: 0.01, high: 1, log: true}\ncvr.l2: {low: 1, high: 300, log: true}\nbits: {low: 4, high: 6}\ncrosses: {choices: [[], [[ad_id, spot_id]]]}\nrounds: 1\n"
HYPER = b'{"learning_rate": 0.1, "bits": 6, "rounds": 1, "algorithm": "hashed_logistic", "numeric": ["age"]}'
FEATURES = b'features:\n  spot_id: categorical\n  os: {type: categorical, column: spot_id, categories: [top, side]}\n  x: {cross: [spot_id, os]}\ntraining_window: {start: "2026-11-01T00:00:00+09:00", end: "2026-11-05T00:00:00+09:00"}\nctr:\n  recalibration: [{type: downsampling, rate: 0.1}]\n'


def side_files(draw: random.Random, folder: Path) -> Trial:
    """Rules, outcomes, hyperparameters, a space or a features file with bytes changed."""
    shutil.copytree(_run(), folder / "run")
    write_scenario(folder / "s.yaml", {"features": ["spot_id", "age", "ad_id"], "fidelity": "warn"})
    training = ("--scenario", "s.yaml", "--train-hours", "1", "--work", "out")
    files: dict[str, tuple[bytes, tuple[str, ...]]] = {
        "gate.yaml": (RULES, ("gate", "run", "--rules", "gate.yaml")),
        "ab.csv": (OUTCOMES, ("outcome", "run", "--file", "ab.csv")),
        "h.json": (HYPER, ("run", *training, "--hyperparameters", "h.json")),
        "space.yaml": (SPACE, ("tune", *training, "--space", "space.yaml", "--trials", "1")),
        "features.yaml": (
            FEATURES,
            ("model", "pack", "--ctr", "no.txt", "--features", "features.yaml", "-o", "out.bin"),
        ),
        "outcome": (OUTCOMES, ("outcome", "run", "--file", "ab.csv")),
    }
    name = draw.choice(list(files))
    data, words = files[name]
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(changed) + 1)
        bit: Any = draw.choice(SNIPPETS) if draw.random() < 0.6 else bytes([draw.randrange(256)])
        if draw.random() < 0.4:
            del changed[at : at + draw.choice([1, 4, 60])]
        changed[at:at] = bit
    if draw.random() < 0.1:
        changed = bytearray(draw.choice(TEXTS))
    (folder / (name if "." in name else "ab.csv")).write_bytes(bytes(changed))
    return Trial(words, (name, "ab.csv", "s.yaml", "no.txt", "run", "table ad"), name, writes=("out", "run.outcome"))


CLASSES = {"run folders": folders, "rules, outcomes, hyperparameters": side_files}
