"""The Luigi tasks are the workflow's steps: same folders, done once, again where an input has other content."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import luigi
from small_market import hyperparameters, write_market

from bidsim.scenario.loading import load_scenario
from bidsim.training.hyperparameters import load_hyperparameters
from bidsim.training.luigi_tasks import BidsimRun, BidsimStep
from bidsim.training.workflow import STEPS, Workflow, run_workflow

VALUES: dict[str, Any] = {"train_hours": 96, "bits": 10, "rounds": 1, "max_miscalibration": 3.0}


def build(scenario: Path, h: Path, work: Path) -> list[str]:
    """The steps that Luigi ran, in order."""
    ran: list[str] = []

    @luigi.Task.event_handler(luigi.Event.SUCCESS)
    def note(task: Any) -> None:
        if isinstance(task, BidsimStep) and not isinstance(task, BidsimRun):
            ran.append(task.step)

    given = {"scenario": str(scenario), "hyperparameters": str(h), "work": str(work), "as_of": date(2026, 12, 1)}
    try:
        assert luigi.build([BidsimRun(**given)], local_scheduler=True, log_level="ERROR")
    finally:
        luigi.Task._event_callbacks.clear()
        luigi.task_register.Register.clear_instance_cache()  # tasks of equal parameters are one object within a process
    return ran


def test_luigi_does_the_steps_once_and_again_for_other_content(tmp_path: Path) -> None:
    scenario, work = write_market(tmp_path), tmp_path / "work"
    h = hyperparameters(tmp_path, **VALUES)
    ran = build(scenario, h, work)
    assert ran[:2] == ["extract", "train"]
    assert sorted(ran) == sorted(STEPS)
    assert build(scenario, h, work) == []
    kept: list[bool] = []
    of = Workflow(load_scenario(scenario), load_hyperparameters(h), work, date(2026, 12, 1))
    run_workflow(of, lambda step, path, there: kept.append(there))
    assert kept == [True] * 4
    # The same file name with other hyperparameters in it is another training.
    hyperparameters(tmp_path, **{**VALUES, "l2": "7"})
    assert sorted(build(scenario, h, work)) == ["evaluate", "predict", "train"]
