"""What a model's library prints by itself gets into no output, so that --json on stdout stays JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq

from tests.command import process, write_log, write_scenario

NOISY = '''
"""The library as it is, but for a line that it prints past Python whenever it predicts."""
import importlib, os, sys

sys.path.remove(os.path.dirname(__file__))
del sys.modules["lightgbm"]
real = importlib.import_module("lightgbm")
predict = real.Booster.predict


def noisy(*given, **named):
    open(os.environ["NOISE"], "a").close()
    for number in (1, 2):
        os.write(number, b"[LightGBM] [Warning] printed from a native thread\\n")
    return predict(*given, **named)


real.Booster.predict = noisy
'''


def test_a_library_that_prints_does_not_spoil_the_json(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet")
    rows = pq.read_table(log)
    data = lightgbm.Dataset(
        np.asarray(rows["age"], dtype=float)[:, None], np.asarray(rows["click"]), feature_name=["age"]
    )
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 3).save_model(tmp_path / "ctr.txt")
    scenario = write_scenario(tmp_path / "s.yaml", without=("candidates",))
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "lightgbm.py").write_text(NOISY, encoding="utf-8")
    words = [
        "replay",
        "--scenario",
        scenario,
        "--table",
        f"ad={log}",
        "--model",
        tmp_path / "ctr.txt",
        "--json",
        "--quiet",
    ]

    path = os.pathsep.join([str(tmp_path / "noisy"), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = process(*words, cwd=tmp_path, env={"PYTHONPATH": path, "NOISE": str(tmp_path / "noise")})
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert (tmp_path / "noise").exists()
    assert "printed" not in err
    assert json.loads(out)["metrics"]
