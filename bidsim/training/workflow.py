"""From one scenario to a judged model: extract, train, predict, evaluate, each step done once for the same inputs.

The key of a step is a hash of the content of its inputs: the keys of the scenario that matter to it, the log's files,
the hyperparameters, the versions, the keys of the steps before it. A step whose folder is there is kept; a killed run
goes on where it was, in the middle of a training too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal

from bidsim.errors import BidsimError
from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.logs.origins import silent
from bidsim.models.bundle import open_bundle
from bidsim.replay.binding import make_plan
from bidsim.replay.engine import Engine
from bidsim.replay.pipeline import Settings
from bidsim.replay.policies import resolve
from bidsim.replay.progress import Progress, Silent
from bidsim.run import replay_to_directory
from bidsim.scenario.loading import LoadedScenario, refuse_spark, refuse_unsupported
from bidsim.scenario.schema import Bid, Policy
from bidsim.scratch import scratch
from bidsim.training.examples import open_extraction
from bidsim.training.extract import content_sha256, extract
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.predict import predict
from bidsim.training.steps import Fingerprints, key_of, new_directory, plain_versions
from bidsim.training.streaming import Stop
from bidsim.training.train import OnMetric, Stopped, selection_of, train, versions_of
from bidsim.training.windows import plan_windows

StepName = Literal["extract", "train", "predict", "evaluate"]
STEPS: tuple[StepName, ...] = ("extract", "train", "predict", "evaluate")
MODEL = "trained.bin"
STOPPED_MODEL = "stopped.bin"
OnStep = Callable[[StepName, Path, bool], None]
Around = Callable[[StepName], AbstractContextManager[object]]


@dataclass(frozen=True)
class Workflow:
    """The steps of one scenario and one set of hyperparameters in one folder.

    work: steps/<step>-<key>, runs/<scenario>-<key> (a store for the leaderboard), checkpoints, fingerprints.json.
    as_of: the day on which the gate is judged. checkpoints: a folder of its own for these, which may outlive `work`.
    Keys are found without doing any step.
    """

    loaded: LoadedScenario
    hyperparameters: Hyperparameters
    work: Path
    as_of: date
    tables: Mapping[str, str] = field(default_factory=dict)
    train_tables: Mapping[str, str] = field(default_factory=dict)
    baseline: Path | None = None
    settings: Settings = field(default_factory=Settings)
    checkpoints: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished training stands, and its model so far where it was asked to stop."""
        return (self.checkpoints or self.work / "checkpoints") / self.keys["train"]

    def path(self, step: StepName) -> Path:
        """The folder that a step makes."""
        if step == "evaluate":
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.loaded.name).strip("._") or "run"
            return self.work / "runs" / f"{name[:60]}-{self.keys[step]}"
        return self.work / "steps" / f"{step}-{self.keys[step]}"

    def done(self, step: StepName) -> bool:
        """Whether a step's folder is there, which it is only as a whole."""
        return self.path(step).is_dir()

    @cached_property
    def keys(self) -> Mapping[StepName, str]:
        """The key of each step. Raises BidsimError where log, models or windows can't be used."""
        return self._keys()

    @cached_property
    def _fingerprints(self) -> Fingerprints:
        return Fingerprints(self.work / "fingerprints.json")

    def _keys(self) -> Mapping[StepName, str]:
        fingerprints = self._fingerprints
        judged = fingerprints.of_log(open_log(self.loaded, self.tables))
        log = [judged]
        if self.train_tables:
            log.append(fingerprints.of_table(open_log(self.loaded, self.train_tables).table))
        selection = selection_of(self.hyperparameters)
        plan_windows(
            self.loaded,
            train_hours=selection.train_hours,
            gap_hours=selection.gap_hours,
            tables=self.tables,
            train_tables=self.train_tables,
        )
        chosen = [selection.train_hours, selection.gap_hours, selection.keep_negatives]
        versions = plain_versions("duckdb", "pyarrow", "numpy")
        extracted = key_of("extract", content_sha256(self.loaded), self.loaded.name, log, chosen, versions)
        trained = key_of("train", extracted, self.hyperparameters.content(), versions_of(self.hyperparameters))
        models = fingerprints.of([str(path) for path in self._models()])
        evaluated = key_of("evaluate", trained, self.loaded.sha256, judged, models, self.as_of.isoformat(), versions)
        return {
            "extract": extracted,
            "train": trained,
            "predict": key_of("predict", trained, versions),
            "evaluate": evaluated,
        }

    def do(
        self,
        step: StepName,
        *,
        stop: Stop = lambda: False,
        on_metric: OnMetric = lambda name, value, step: None,
        progress: Progress | None = None,
    ) -> bool:
        """Do a step whose predecessors are done; False where it was done before.

        stop: asked in training only; see `train`. Raises BidsimError, Stopped.
        """
        if self.done(step):
            return False
        if self._keys() != self.keys:  # what it reads would not be what its name says
            raise BidsimError("the log or a model was changed since these steps began; run again")
        progress = progress or Silent()
        if step == "extract":
            self._extract(progress)
        elif step == "train":
            self._train(stop, on_metric, progress)
        elif step == "predict":
            progress.step("predicting")
            extraction = open_extraction(self.path("extract"))
            with new_directory(self.path("predict")) as aside:
                predict(extraction, open_bundle(self.path("train") / MODEL), aside, self.settings.threads)
        else:
            self._evaluate(progress)
        return True

    def check(self) -> None:
        """Whether the scenario can be replayed with a candidate at all, before an hour of training. Raises BidsimError."""
        refuse_unsupported(self.loaded)
        refuse_spark(self.loaded, "bidsim run")
        stand_in = {"(trained)": Policy(bid=Bid(multiplier=1.0))}
        candidates = {**self.loaded.scenario.candidates, **stand_in}
        loaded = replace(self.loaded, scenario=self.loaded.scenario.model_copy(update={"candidates": candidates}))
        policies = resolve(loaded, [], self.baseline)
        found = open_log(loaded, self.tables)
        with (
            scratch(self.settings.directory) as work,
            brought(found, Path(work).resolve(), silent) as log,
            Engine(
                log.files,
                Path(work).resolve(),
                threads=1,
                memory_bytes=1 << 29,
                folders=log.folders,
                zone=loaded.scenario.timezone,
            ) as engine,
        ):
            make_plan(loaded, engine, log, policies)

    def _extract(self, progress: Progress) -> None:
        extract(
            self.loaded,
            self.path("extract"),
            selection_of(self.hyperparameters),
            tables=self.tables,
            train_tables=self.train_tables,
            settings=self.settings,
            progress=progress,
        )

    def _train(self, stop: Stop, on_metric: OnMetric, progress: Progress) -> None:
        extraction = open_extraction(self.path("extract"))
        with new_directory(self.path("train")) as aside:
            trained = train(
                extraction,
                self.hyperparameters,
                aside / MODEL,
                checkpoint=self.checkpoint,
                stop=stop,
                on_metric=on_metric,
                progress=progress,
                threads=self.settings.threads,
            )
            if trained.stopped:
                # Beside the checkpoint, never as the step's outcome: what is judged is the whole training.
                model = trained.bundle.write(self.checkpoint / STOPPED_MODEL)
                raise Stopped(
                    f"training was stopped before it was done; the model so far is {model.path}. Run again to go on from "
                    "its checkpoint"
                )
            text = json.dumps(self.hyperparameters.content(), indent=1, sort_keys=True) + "\n"
            (aside / "hyperparameters.json").write_text(text, encoding="utf-8")
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def _evaluate(self, progress: Progress) -> None:
        try:
            replay_to_directory(
                self.loaded,
                [self.path("train") / MODEL],
                as_of=self.as_of,
                baseline=self.baseline,
                tables=self.tables,
                out=self.path("evaluate"),
                threads=self.settings.threads,
                memory_bytes=self.settings.memory_bytes,
                progress=progress,
                command=["bidsim", "run"],
            )
        except BidsimError:
            if not self.done("evaluate"):  # else another process at the same steps was faster, to the same run
                raise

    def _models(self) -> list[Path]:
        """Model files that the replay reads beside the trained one."""
        found = [self.baseline] if self.baseline is not None else []
        policies = [self.loaded.scenario.baseline, *self.loaded.scenario.candidates.values()]
        found += [self.loaded.resolve(p.model) for p in policies if p is not None and p.model]
        for path in found:
            if not os.path.isfile(path):
                raise BidsimError("no such model file", file=str(path))
        return found


def run_workflow(
    workflow: Workflow,
    on_step: OnStep = lambda step, path, kept: None,
    *,
    stop: Stop = lambda: False,
    on_metric: OnMetric = lambda name, value, step: None,
    around: Around = lambda step: nullcontext(),
    progress: Progress | None = None,
) -> Path:
    """Do what is missing of all steps; returns the run's folder.

    on_step: told each step, its folder, whether it was kept. stop: see `Workflow.do`; also asked before each step.
    around: entered for each step. Raises BidsimError, Stopped.
    """
    if not all(workflow.done(step) for step in STEPS):
        workflow.check()
    for step in STEPS:
        if stop():
            raise Stopped(f"stopped before the step {step}; run again to go on")
        with around(step):
            made = workflow.do(step, stop=stop, on_metric=on_metric, progress=progress)
        on_step(step, workflow.path(step), not made)
    return workflow.path("evaluate")
