"""A training job in a container: read what the service laid out, train, judge, and leave model, result and report.

The steps are those of `bidsim run`; the model folder is a run's folder with the bundle in it, so that what a job left
behind can be put beside other runs as it is. A gate that fails is a result, not a failure of the job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bidsim.errors import BidsimError
from bidsim.replay.pipeline import Settings
from bidsim.replay.progress import Progress
from bidsim.result import Result
from bidsim.scenario.loading import LoadedScenario
from bidsim.scratch import scratch
from bidsim.store.reading import load_run
from bidsim.training.contract import Layout, read_job
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.metric_lines import curve_name, judged_lines, metric_line
from bidsim.training.streaming import Stop
from bidsim.training.train import Stopped
from bidsim.training.workflow import MODEL, STOPPED_MODEL, Workflow

BUNDLE = "model.bin"
POLICY = Path(MODEL).stem
HYPERPARAMETERS = "hyperparameters.json"
# All that a job leaves in the model's folder.
LEFT = frozenset(
    [
        *(BUNDLE, HYPERPARAMETERS, "result.json", "statistics.parquet", "run.json", "scenario.yaml"),
        *("report.html", "summary.md", "junit.xml"),
    ]
)
Day = Callable[[LoadedScenario], date]


@dataclass(frozen=True)
class Finished:
    """result: of the judged rows; None where the job was stopped with a model saved, of all rows or of some."""

    model: Path
    result: Result | None


def do_job(
    layout: Layout,
    *,
    day: Day,
    say: Callable[[str], None],
    settings: Settings | None = None,
    stop: Stop = lambda: False,
    gently: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Progress | None = None,
) -> Finished:
    """Do the training job that a layout asks for.

    day: on which the gate is judged; say: takes each line of metrics. stop: asked in training, during which `gently`
    is entered. Raises BidsimError, with nothing in the model's folder; Stopped where nothing was learned yet.
    """
    job = read_job(layout)
    hyperparameters = Hyperparameters(job.hyperparameters, str(layout.config("hyperparameters.json")))
    name = next(iter(job.loaded.scenario.logs_tables))
    settings = settings or Settings()

    def on_metric(told: str, value: float, number: int) -> None:
        line = metric_line(curve_name(told), value, number)
        if line is not None:
            say(line)

    with scratch(settings.directory) as work:
        workflow = Workflow(
            job.loaded,
            hyperparameters,
            Path(work),
            day(job.loaded),
            tables={name: job.test or job.train},
            train_tables={name: job.train} if job.test else {},
            baseline=job.baseline,
            settings=settings,
            checkpoints=layout.checkpoints if layout.checkpoints.is_dir() else None,
        )
        workflow.check()
        workflow.do("extract", progress=progress)
        try:
            with gently():
                workflow.do("train", stop=stop, on_metric=on_metric, progress=progress)
        except Stopped:
            if not (workflow.checkpoint / STOPPED_MODEL).is_file():
                raise
            return Finished(_keep(layout, {BUNDLE: workflow.checkpoint / STOPPED_MODEL}), None)
        trained = {BUNDLE: workflow.path("train") / MODEL}
        if stop():
            return Finished(_keep(layout, trained), None)
        try:
            workflow.do("evaluate", progress=progress)
        except (KeyboardInterrupt, Exception):
            # The service kills two minutes after it asked; the model is what must not be lost. Libraries make errors of
            # their own of an interrupt, so whether it was one is asked.
            if not stop():
                raise
            return Finished(_keep(layout, trained), None)
        run = workflow.path("evaluate")
        kept = {path.name: path for path in sorted(run.iterdir())}
        _keep(layout, {**trained, **kept, HYPERPARAMETERS: workflow.path("train") / HYPERPARAMETERS})
        result = load_run(run).result
    for line in judged_lines(result, POLICY):
        say(line)
    return Finished(layout.model / BUNDLE, result)


def _keep(layout: Layout, files: dict[str, Path]) -> Path:
    """Copy files into the model's folder; returns the bundle. Raises BidsimError.

    What an earlier job in the same place left there of another model goes first, its bundle first of all: a run's folder
    is of one model.
    """
    try:
        layout.model.mkdir(parents=True, exist_ok=True)
        for name in (BUNDLE, *sorted(LEFT - {BUNDLE})):
            (layout.model / name).unlink(missing_ok=True)
        for name, path in files.items():
            shutil.copyfile(path, layout.model / name)
    except OSError as error:
        raise BidsimError(f"can't be written: {error.strerror}", file=str(layout.model)) from error
    return layout.model / BUNDLE
