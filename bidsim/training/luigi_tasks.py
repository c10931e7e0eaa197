"""The steps of the workflow as Luigi tasks (extra: `luigi`), for teams whose scheduler that is.

    luigi --module bidsim.training.luigi_tasks BidsimRun --scenario s.yaml --hyperparameters h.json --work DIR \
        --as-of 2026-12-01

A target that exists counts as done whatever made it, so each output is called by a hash of the content of its inputs:
other rows, another scenario or other hyperparameters are another output. The folders are those of `bidsim run`, which
goes on from what Luigi did, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.replay.pipeline import Settings
from bidsim.scenario.loading import load_scenario
from bidsim.training.hyperparameters import load_hyperparameters
from bidsim.training.workflow import StepName, Workflow

try:
    import luigi
except ImportError as error:
    raise BidsimError("these tasks need Luigi: pip install 'bidsim[luigi]'") from error


class BidsimStep(luigi.Task):  # type: ignore[misc]
    """What all steps have. tables, train_tables: where logs lie, by table name; as_of: the day the gate is judged on."""

    scenario: Any = luigi.Parameter(description="the scenario, a YAML file")
    hyperparameters: Any = luigi.Parameter(default="", description="JSON file; default: as they come")
    work: Any = luigi.Parameter(default="bidsim-work", description="folder of steps, checkpoints and runs")
    as_of: Any = luigi.DateParameter(description="the day on which the gate is judged")
    tables: Any = luigi.DictParameter(default={})
    train_tables: Any = luigi.DictParameter(default={})
    baseline: Any = luigi.Parameter(default="", description="bundle of the baseline, instead of the scenario's")
    threads: Any = luigi.IntParameter(default=0, significant=False, description="0: all cores")
    memory_bytes: Any = luigi.IntParameter(default=4 * 2**30, significant=False)

    step: StepName

    @cached_property
    def workflow(self) -> Workflow:
        """The workflow that the parameters describe. Raises BidsimError."""
        return Workflow(
            load_scenario(Path(self.scenario)),
            load_hyperparameters(Path(self.hyperparameters) if self.hyperparameters else None),
            Path(self.work),
            self.as_of,
            tables=dict(self.tables),
            train_tables=dict(self.train_tables),
            baseline=Path(self.baseline) if self.baseline else None,
            settings=Settings(threads=self.threads or None, memory_bytes=self.memory_bytes),
        )

    def output(self) -> Any:
        return luigi.LocalTarget(str(self.workflow.path(self.step)))

    def run(self) -> None:
        if self.step == "extract":
            self.workflow.check()
        self.workflow.do(self.step)

    @property
    def shared(self) -> Mapping[str, Any]:
        """The parameters, for the tasks before this one."""
        given: Mapping[str, Any] = self.param_kwargs
        return given


class BidsimExtract(BidsimStep):
    step: StepName = "extract"


class BidsimTrain(BidsimStep):
    step: StepName = "train"

    def requires(self) -> BidsimStep:
        return BidsimExtract(**self.shared)


class BidsimPredict(BidsimStep):
    step: StepName = "predict"

    def requires(self) -> BidsimStep:
        return BidsimTrain(**self.shared)


class BidsimEvaluate(BidsimStep):
    step: StepName = "evaluate"

    def requires(self) -> BidsimStep:
        return BidsimTrain(**self.shared)


class BidsimRun(BidsimStep):
    """Everything: predictions and the judged run."""

    step: StepName = "evaluate"

    def requires(self) -> list[BidsimStep]:
        return [BidsimPredict(**self.shared), BidsimEvaluate(**self.shared)]

    def complete(self) -> bool:
        return all(task.complete() for task in self.requires())

    def run(self) -> None:
        """Nothing is left to do once the required tasks are done."""
