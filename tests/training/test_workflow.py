"""The steps from log to judged model are done once for the same inputs, and again only where an input changed."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import bidsim, process
from small_market import SCENARIO, hyperparameters, market, write_market

from bidsim.errors import BidsimError
from bidsim.run import replay_to_directory
from bidsim.scenario.loading import load_scenario
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.steps import Fingerprints, new_directory
from bidsim.training.workflow import STEPS, Workflow, run_workflow

DAY = date(2026, 12, 1)
VALUES = {"train_hours": 96, "bits": 10, "rounds": 2, "max_miscalibration": 3.0}
GATE = [{"metric": "normalized_entropy", "head": "ctr", "max_increase": 0}]


def workflow(scenario: Path, work: str = "work", as_of: date = DAY, **values: Any) -> Workflow:
    found = Hyperparameters({**VALUES, **values})
    return Workflow(load_scenario(scenario), found, scenario.parent / work, as_of)


def steps_done(of: Workflow) -> list[str]:
    """The steps that a run did, not those that it kept."""
    done: list[str] = []
    run_workflow(of, lambda step, path, kept: None if kept else done.append(step))
    return done


def test_a_log_that_changes_between_two_steps_is_told(tmp_path: Path) -> None:
    """Otherwise a step would be kept under the name of a log that it never saw."""
    of = workflow(write_market(tmp_path))
    assert of.do("extract")
    assert of.do("train")
    pq.write_table(market().slice(0, 5900), tmp_path / "log.parquet")
    with pytest.raises(BidsimError, match="changed since these steps began; run again"):
        of.do("evaluate")
    assert not of.done("evaluate")


def test_a_rerun_does_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    assert steps_done(workflow(scenario)) == list(STEPS)
    assert steps_done(workflow(scenario)) == []
    assert steps_done(workflow(scenario, l2=2.0)) == ["train", "predict", "evaluate"]
    assert steps_done(workflow(scenario, as_of=date(2026, 12, 2))) == ["evaluate"]
    assert steps_done(workflow(scenario, keep_negatives=0.5)) == list(STEPS)
    write_market(tmp_path, gate=GATE)
    assert steps_done(workflow(scenario)) == ["evaluate"]
    write_market(tmp_path, conditions=["spot <> 's1'"])
    assert steps_done(workflow(scenario)) == list(STEPS)
    write_market(tmp_path)
    assert steps_done(workflow(scenario)) == []
    # Other rows in the same file.
    pq.write_table(market().slice(0, 5900), tmp_path / "log.parquet")
    assert steps_done(workflow(scenario)) == list(STEPS)
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "log.parquet", tmp_path / "elsewhere" / "log.parquet")
    write_market(tmp_path, logs_tables={"log": {**SCENARIO["logs_tables"]["log"], "path": "elsewhere/log.parquet"}})
    # Where the log lies is part of the scenario that is judged, not of what is learned.
    assert steps_done(workflow(scenario)) == ["evaluate"]


def test_of_two_processes_at_the_same_steps_both_end_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one to write finds the folder there: what it would have written."""
    of = workflow(write_market(tmp_path))

    def twice(*arguments: Any, **options: Any) -> None:
        replay_to_directory(*arguments, **options)  # the other process
        replay_to_directory(*arguments, **options)

    monkeypatch.setattr("bidsim.training.workflow.replay_to_directory", twice)
    assert (run_workflow(of) / "result.json").is_file()


def test_the_run_judges_the_trained_model_and_predictions_lie_beside_labels(tmp_path: Path) -> None:
    of = workflow(write_market(tmp_path, gate=GATE))
    directory = run_workflow(of)
    result = json.loads((directory / "result.json").read_bytes())
    assert [p["name"] for p in result["policies"]] == ["baseline", "trained"]
    assert result["gate"]["verdict"] in ("pass", "warn")
    assert "How the models were trained" in (directory / "report.html").read_text("utf-8")
    made = pq.read_table(of.path("predict") / "imp-click.parquet")
    assert made.column_names == ["label", "weight", "time", "campaign", "unit", "pctr"]
    p, y, w = (made[name].to_numpy() for name in ("pctr", "label", "weight"))
    logloss = float(-(w * np.where(y > 0, np.log(p), np.log1p(-p))).sum() / w.sum())
    (reported,) = [
        m["value"]
        for m in result["metrics"]
        if (m["policy"], m["metric"], m["head"], m["segment"]) == ("trained", "logloss", "ctr", {})
    ]
    assert logloss == pytest.approx(reported, rel=1e-9)


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """kill -9 in extraction or training: no finished step is repeated, no finished round either."""
    scenario = write_market(tmp_path)
    h = hyperparameters(tmp_path, **{**VALUES, "rounds": 60, "patience": 60, "batch_rows": 8})
    options = ("run", "--scenario", scenario, "--hyperparameters", h, "--as-of", "2026-12-01", "--work")
    assert bidsim(*options, tmp_path / "whole", "-q").status == 0
    work = tmp_path / "work"
    seen: set[int] = set()
    for wanted in (1, 20):
        victim = process(*options, work, cwd=tmp_path)
        deadline = time.monotonic() + 60
        while victim.poll() is None and time.monotonic() < deadline:
            rounds = _rounds(work)
            if rounds >= wanted:
                victim.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL
        seen.add(_rounds(work))
    assert max(seen) < 60
    said = bidsim(*options, work)
    assert said.status == 0, said.err
    assert "extract: kept" in said.err
    assert "train: done" in said.err
    for name in ("result.json", "statistics.parquet", "scenario.yaml"):
        (ours,), (theirs,) = ([*(tmp_path / f / "runs").glob(f"*/{name}")] for f in ("whole", "work"))
        assert ours.read_bytes() == theirs.read_bytes()
    (ours,), (theirs,) = ([*(tmp_path / f / "steps").glob("train-*/trained.bin")] for f in ("whole", "work"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(p.name for p in (work / "steps").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole" / "steps").iterdir()
    )


def _rounds(work: Path) -> int:
    """Rounds of the ctr head that a checkpoint holds."""
    for path in work.glob("checkpoints/*/checkpoint-ctr.npz"):
        with np.load(path) as file:
            return len(json.loads(file["meta"].tobytes())["rounds"])
    return 0


def test_a_scenario_that_cannot_be_judged_is_refused_before_training(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, baseline=None)
    with pytest.raises(BidsimError, match="the baseline has no predictions"):
        run_workflow(workflow(scenario))
    assert not (tmp_path / "work").exists()


def test_a_failed_gate_ends_with_status_1(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, gate=[{"metric": "logloss", "head": "ctr", "at_most": 0.01}])
    h = hyperparameters(tmp_path, **VALUES)
    said = bidsim(
        "run", "--scenario", scenario, "--hyperparameters", h, "--work", tmp_path / "w", "--as-of", "2026-12-01"
    )
    assert said.status == 1, said.err
    assert said.out.startswith("FAIL: ")


def test_a_training_that_was_stopped_leaves_its_checkpoint_and_no_step(tmp_path: Path) -> None:
    of = workflow(write_market(tmp_path), rounds=50, patience=50)
    count = iter(range(10**9))
    with pytest.raises(BidsimError, match="stopped before it was done"):
        run_workflow(of, stop=lambda: next(count) > 120)
    assert of.done("extract")
    assert not of.done("train")
    assert steps_done(of) == ["train", "predict", "evaluate"]
    assert list((tmp_path / "work" / "checkpoints").iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all_and_the_dead_are_cleared_away(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def fail() -> None:
        with new_directory(target) as aside:
            (aside / "half").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with new_directory(target) as aside:
        (aside / "whole").write_text("x")
        left = aside.with_name(aside.name.rpartition(".")[0] + ".999999999")
        left.mkdir()
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole"]
    with new_directory(target) as aside:
        (aside / "other").write_text("y")
    assert [p.name for p in target.iterdir()] == ["whole"]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_file_that_changed_has_another_fingerprint(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one")
    known = Fingerprints(tmp_path / "f.json")
    first = known.of([str(log)])
    assert Fingerprints(tmp_path / "f.json").of([str(log)]) == first
    log.write_text("two")
    os.utime(log, ns=(1, 1))
    assert Fingerprints(tmp_path / "f.json").of([str(log)]) != first
    (tmp_path / "f.json").write_text("{")
    assert Fingerprints(tmp_path / "f.json").of([str(log)]) != first
