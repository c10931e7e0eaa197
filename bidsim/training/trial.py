"""One trial of a tuning: train with its hyperparameters, replay the tuning window, read the objective.

A trial is a function of its task alone, so it does not matter which process does it, or when. Its outcome is one file,
written last and whole: a trial that has it is never done again, and one that was killed is done from the start, or from
the model or run that it had finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.gate.bounds import HIGHER_IS_BETTER, LOWER_IS_BETTER
from bidsim.logs.bringing import Log
from bidsim.models.bundle import Bundle, open_bundle
from bidsim.models.manifest import CurveRound
from bidsim.result import Result
from bidsim.run import replay_to_directory
from bidsim.scenario.explaining import nearest
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.schema import HEADS, Head
from bidsim.store.reading import load_run
from bidsim.training.examples import open_extraction
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.streaming import Diverged
from bidsim.training.train import Abandoned, Miscalibrated, train

NEAR_ONE = frozenset(["calibration"])
State = Literal["complete", "pruned", "refused"]


@dataclass(frozen=True)
class Objective:
    """A metric of spec section 4, overall. head: of the metric, None for money and counts."""

    metric: str
    head: Head | None

    def value(self, result: Result, policy: str) -> float | None:
        """What the policy scored. Raises BidsimError where the replay has no such metric."""
        known = [m for m in result.metrics if m.policy == policy and not m.segment]
        found = [m for m in known if m.metric == self.metric and m.head == self.head]
        if not found:
            names = sorted({f"{m.metric} ({m.head})" if m.head else m.metric for m in known})
            raise BidsimError(f"--metric: the replay has no {self}; it has {', '.join(names)}")
        return found[0].value

    def loss(self, value: float) -> float:
        """Less is better."""
        if self.metric in NEAR_ONE:
            return abs(value - 1)
        return -value if self.metric in HIGHER_IS_BETTER else value

    def __str__(self) -> str:
        return f"{self.metric} ({self.head})" if self.head else self.metric


PER_HEAD = frozenset(
    [
        *("logloss", "normalized_entropy", "auc", "gauc", "brier", "miscalibration", "discrimination"),
        *("calibration", "ece", "calibration_error"),
    ]
)


def make_objective(metric: str, head: str | None, heads: tuple[Head, ...]) -> Objective:
    """heads: those that are trained; the first is the default. Raises BidsimError for what has no better direction."""
    known = LOWER_IS_BETTER | HIGHER_IS_BETTER | NEAR_ONE
    if metric not in known:
        hint = nearest(metric, known) or f"; known are {', '.join(sorted(known))}"
        raise BidsimError(f'--metric: no metric "{metric[:80]}" of which more or less is better{hint}')
    if metric not in PER_HEAD:
        if head is not None:
            raise BidsimError(f"--head: {metric} has no heads; leave it out")
        return Objective(metric, None)
    if head is not None and head not in heads:
        raise BidsimError(f"--head: write one of {', '.join(heads)}, the heads that are trained")
    return Objective(metric, next(h for h in HEADS if h == head) if head else heads[0])


class Outcome(BaseModel):
    """What became of a trial. values: its place in the space; curve: (round, validation log loss) of the watched head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    values: dict[str, Any]
    state: State
    value: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Task:
    """thresholds: by round, the log loss above which a trial is given up; loaded: the scenario of the tuning window."""

    number: int
    values: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    loaded: LoadedScenario
    examples: Path
    directory: Path
    objective: Objective
    watched: Head
    thresholds: Mapping[int, float]
    as_of: date
    log: Log
    baseline: Path | None
    threads: int
    memory_bytes: int

    @property
    def name(self) -> str:
        return f"trial-{self.number:04d}"

    @property
    def model(self) -> Path:
        return self.directory / "models" / f"{self.name}.bin"

    @property
    def run(self) -> Path:
        return self.directory / "runs" / self.name

    @property
    def journal(self) -> Path:
        return journal_file(self.directory, self.number)


def journal_file(directory: Path, number: int) -> Path:
    """Where a trial's outcome lies."""
    return directory / "trials" / f"{number:04d}.json"


def read_outcome(directory: Path, number: int) -> Outcome | None:
    """The outcome of a finished trial, None where it is not finished. Raises BidsimError for a damaged one."""
    file = journal_file(directory, number)
    try:
        return Outcome.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BidsimError("is no outcome of a trial; remove it to do the trial again", file=str(file)) from error


def run_trial(task: Task) -> Outcome:
    """Do a trial and write its outcome. Raises BidsimError where no trial of this tuning can succeed."""
    curve: list[tuple[int, float]] = []

    def abandon(head: Head, found: CurveRound) -> bool:
        if head != task.watched:
            return False
        curve.append((found.round, found.logloss))
        return min(loss for _, loss in curve) > task.thresholds.get(found.round, float("inf"))

    def outcome(state: State, value: float | None = None, reason: str = "") -> Outcome:
        return Outcome(
            number=task.number, values=dict(task.values), state=state, value=value, curve=tuple(curve), reason=reason
        )

    try:
        bundle = _model(task, abandon)
        curve[:] = [(r.round, r.logloss) for r in bundle.manifest.learning_curve[task.watched].rounds]
        value = task.objective.value(_replayed(task), task.name)
        made = outcome("complete", value) if value is not None else outcome("refused", reason="undefined")
    except Abandoned:
        made = outcome("pruned")
    except (Miscalibrated, Diverged) as error:
        made = outcome("refused", reason=error.message)
    write_file(task.journal, json.dumps(made.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    return made


def _model(task: Task, abandon: Any) -> Bundle:
    if task.model.exists():
        return open_bundle(task.model)
    task.model.parent.mkdir(parents=True, exist_ok=True)
    hyperparameters = Hyperparameters(task.hyperparameters, task.name)
    return train(open_extraction(task.examples), hyperparameters, task.model, abandon=abandon).bundle


def _replayed(task: Task) -> Result:
    if not task.run.is_dir():
        try:
            result, _ = replay_to_directory(
                task.loaded,
                [task.model],
                as_of=task.as_of,
                baseline=task.baseline,
                log=task.log,
                out=task.run,
                threads=task.threads,
                memory_bytes=task.memory_bytes,
                command=["bidsim", "tune", task.name],
                page=False,  # of dozens of trials a few are looked at
            )
            return result
        except BidsimError:
            if not task.run.is_dir():  # else a worker that outlived its parent was faster
                raise
    return load_run(task.run).result
