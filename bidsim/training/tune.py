"""Search for hyperparameters with Optuna (extra: `optuna`), the same search for a seed whatever the number of workers.

Trials are asked for in batches of a fixed size and told in the order in which they were asked, and each batch has a
sampler of its own, seeded by the search's seed and the batch's number. So what a trial is follows from the trials of
the batches before it, and a search that was killed is simply gone through again: what is finished is told from its
file, the rest is done.

The objective is measured on a tuning window: the last part of the training window, in which no trial trains. The best
hyperparameters are then trained on the whole training window and judged on the scenario's own, which tuning never saw:
the best of many trials is better on its own tuning window than it is.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import date, timedelta
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Any

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.replay.pipeline import Settings
from bidsim.replay.progress import Progress, Silent
from bidsim.scenario.loading import LoadedScenario
from bidsim.scratch import scratch
from bidsim.training.examples import Extraction, open_extraction
from bidsim.training.extract import Selection, extract
from bidsim.training.hyperparameters import Common, Hyperparameters
from bidsim.training.problem import features_of
from bidsim.training.space import Space
from bidsim.training.steps import Fingerprints, key_of, plain_versions
from bidsim.training.train import versions_of
from bidsim.training.trial import Objective, Outcome, Task, make_objective, read_outcome, run_trial
from bidsim.training.windows import Rows, changed, in_rows, plan_windows

BATCH = 4
LEAST_CURVES = 5  # finished trials that a median is taken over
WARM_UP = 1  # rounds in which nothing is given up
OnTrial = Callable[[Outcome, bool], None]


@dataclass(frozen=True)
class Tuning:
    """A search as it is asked for. tables, train_tables, tune_tables: where judged, training and tuning logs lie.

    tune_hours: length of the tuning window, by default a fifth of the training window. as_of: of the first start.
    """

    loaded: LoadedScenario
    space: Space
    work: Path
    as_of: date
    trials: int = 50
    seed: int = 0
    metric: str = "normalized_entropy"
    head: str | None = None
    tune_hours: int | None = None
    tables: Mapping[str, str] = field(default_factory=dict)
    train_tables: Mapping[str, str] = field(default_factory=dict)
    tune_tables: Mapping[str, str] = field(default_factory=dict)
    baseline: Path | None = None
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Tuned:
    """directory: of the search, its runs in runs/; best: the trial, and the hyperparameters to train with."""

    directory: Path
    objective: Objective
    outcomes: list[Outcome]
    best: Outcome
    hyperparameters: Hyperparameters
    tuning_window: str


def tune(
    tuning: Tuning,
    *,
    jobs: int = 1,
    on_trial: OnTrial = lambda outcome, kept: None,
    progress: Progress | None = None,
) -> Tuned:
    """Do what is missing of a search. on_trial: told each outcome in order, and whether it was there already.

    The same tuning gives the same outcomes for any `jobs`, and after any number of kills. Raises BidsimError.
    """
    try:
        import optuna
    except ImportError as error:
        raise BidsimError("tuning needs Optuna: pip install 'bidsim[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    progress = progress or Silent()
    window, selection, tables = _windows(tuning)
    judged = changed(window, gate=None, candidates=None, segments=None, name=f"{tuning.loaded.name[:190]} tuning")
    fingerprints = Fingerprints(tuning.work / "fingerprints.json")
    key = _key(tuning, judged, selection, tables, fingerprints)
    directory = tuning.work / f"tune-{key}"
    as_of = _begin(directory, tuning)
    examples = directory / "examples"
    if not examples.is_dir():
        extract(
            judged,
            examples,
            selection,
            tables=tables,
            train_tables=tuning.train_tables,
            settings=tuning.settings,
            progress=progress,
        )
    extraction = open_extraction(examples)
    heads = extraction.heads
    objective = make_objective(tuning.metric, tuning.head, heads)
    _check_choices(tuning.space, extraction)
    threads = max(1, (tuning.settings.threads or os.cpu_count() or 1) // jobs)
    distributions = tuning.space.distributions()
    start = tuning.space.start()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=tuning.seed))
    if start is not None:
        study.enqueue_trial(start)
    outcomes: list[Outcome] = []
    progress.step(f"tuning: {tuning.trials} trials")
    with (
        scratch(tuning.settings.directory) as work,
        brought(open_log(judged, tables), Path(work).resolve(), progress.step) as log,  # once for all trials
        _Workers(jobs, threads) as workers,
    ):
        # What trials read would not be what the search's name says.
        if _key(tuning, judged, selection, tables, fingerprints) != key:
            raise BidsimError("the log or a model was changed since the search began; run again")
        for first in range(0, tuning.trials, BATCH):
            study.sampler = optuna.samplers.TPESampler(seed=_seed(tuning.seed, first // BATCH), constant_liar=True)
            thresholds = _thresholds(outcomes)
            asked = [study.ask(distributions) for _ in range(BATCH)]
            tasks = [
                Task(
                    number=first + i,
                    values=trial.params,
                    hyperparameters=tuning.space.hyperparameters(trial.params).document,
                    loaded=judged,
                    examples=examples,
                    directory=directory,
                    objective=objective,
                    watched=objective.head or heads[0],
                    thresholds=thresholds,
                    as_of=as_of,
                    log=log,
                    baseline=tuning.baseline,
                    threads=threads,
                    memory_bytes=max(1 << 30, tuning.settings.memory_bytes // jobs),
                )
                for i, trial in enumerate(asked)
            ]
            for trial, (outcome, kept) in zip(asked, workers.do(tasks[: tuning.trials - first]), strict=False):
                _tell(study, trial, outcome, objective)
                outcomes.append(outcome)
                on_trial(outcome, kept)
    complete = [o for o in outcomes if o.state == "complete" and o.value is not None]
    if not complete:
        reasons = "; ".join(dict.fromkeys(o.reason for o in outcomes if o.reason)) or "all were given up"
        raise BidsimError(f"no trial of {len(outcomes)} succeeded: {reasons[:500]}")
    best = min(complete, key=lambda o: (objective.loss(o.value or 0.0), o.number))
    found = tuning.space.hyperparameters(best.values)
    write_file(directory / "best.json", json.dumps(found.document, indent=1, sort_keys=True) + "\n")
    return Tuned(directory, objective, outcomes, best, found, _window_words(judged))


def _windows(tuning: Tuning) -> tuple[LoadedScenario, Selection, Mapping[str, str]]:
    """The scenario of the tuning window, what is extracted to train trials, and where the tuning log lies."""
    shared = tuning.space.base.shared
    if tuning.loaded.window() is not None:
        return tuning_window(
            tuning.loaded,
            shared,
            tune_hours=tuning.tune_hours,
            tables=tuning.tables,
            train_tables=tuning.train_tables,
            tune_tables=tuning.tune_tables,
        )
    plan_windows(
        tuning.loaded, train_hours=shared.train_hours, gap_hours=shared.gap_hours, train_tables=tuning.train_tables
    )
    if not tuning.tune_tables:
        raise BidsimError("without a window in the scenario, tuning needs a log of its own: --tune-table NAME=PATH")
    _apart(tuning)
    return tuning.loaded, Selection(None, shared.gap_hours, shared.keep_negatives), dict(tuning.tune_tables)


def tuning_window(
    loaded: LoadedScenario,
    shared: Common,
    *,
    tune_hours: int | None,
    tables: Mapping[str, str] | None = None,
    train_tables: Mapping[str, str] | None = None,
    tune_tables: Mapping[str, str] | None = None,
) -> tuple[LoadedScenario, Selection, Mapping[str, str]]:
    """For a scenario with a window: the scenario of the tuning window, what to extract, and where the tuning log lies.

    Raises BidsimError where no rows are left to train trials on.
    """
    windows = plan_windows(
        loaded,
        train_hours=shared.train_hours,
        gap_hours=shared.gap_hours,
        tables=tables,
        train_tables=train_tables,
    )
    span = windows.training.window
    if span is None or shared.train_hours is None:
        raise BidsimError("how long is the training window? give --train-hours, such as 168 for a week")
    hours = tune_hours if tune_hours is not None else max(1, shared.train_hours // 5)
    rest = shared.train_hours - hours - math.ceil(windows.gap_hours)
    if rest < 1:
        raise BidsimError(
            f"of {shared.train_hours} training hours none are left to train trials on: {hours} are for tuning "
            f"(--tune-hours) and {windows.gap_hours:g} for conversions to come; give more --train-hours"
        )
    there = dict(tune_tables or windows.training.tables)
    judged = in_rows(loaded, Rows((span[1] - timedelta(hours=hours), span[1]), there))
    return judged, Selection(rest, shared.gap_hours, shared.keep_negatives), there


def _check_choices(space: Space, extraction: Extraction) -> None:
    """Features that the examples lack would end the search at the first trial that draws them. Raises BidsimError."""
    for key, axis in space.axes.items():
        for choice in axis.choices or ():
            drawn = space.base.with_values(**{key: choice})
            for head in extraction.heads:
                features_of(extraction, drawn.head(head), space.file)


def _apart(tuning: Tuning) -> None:
    """Logs without windows are told apart by their files; extraction sees to training and tuning."""
    judged = set(open_log(tuning.loaded, tuning.tables).table.identities)
    shared = sorted(judged & set(open_log(tuning.loaded, tuning.tune_tables).table.identities))
    if shared:
        raise BidsimError("belongs to the tuning log and to the judged one; keep them apart", file=shared[0])


def _key(
    tuning: Tuning,
    judged: LoadedScenario,
    selection: Selection,
    tables: Mapping[str, str],
    fingerprints: Fingerprints,
) -> str:
    """Of everything that decides the outcomes of trials; how many there are is no part of it."""
    files = [fingerprints.of_log(open_log(judged, tables))]
    if tuning.train_tables:
        files.append(fingerprints.of_table(open_log(judged, tuning.train_tables).table))
    models = [tuning.baseline] if tuning.baseline is not None else []
    policy = tuning.loaded.scenario.baseline
    if policy is not None and policy.model:
        models.append(tuning.loaded.resolve(policy.model))
    versions = [plain_versions("duckdb", "pyarrow", "numpy", "optuna"), versions_of(tuning.space.base)]
    asked = [tuning.space.content(), tuning.seed, tuning.metric, tuning.head, BATCH]
    selected = [selection.train_hours, selection.gap_hours, selection.keep_negatives]
    return key_of("tune", judged.sha256, selected, files, fingerprints.of([str(m) for m in models]), asked, versions)


def _begin(directory: Path, tuning: Tuning) -> date:
    """The day of the search: that of its first start, so that going on with it on another day changes nothing."""
    file = directory / "search.json"
    try:
        return date.fromisoformat(json.loads(file.read_bytes())["as_of"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BidsimError("is no record of a search; remove its folder to start again", file=str(file)) from error
    content = {"as_of": tuning.as_of.isoformat(), "seed": tuning.seed, "space": tuning.space.content()}
    write_file(file, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return tuning.as_of


def _seed(seed: int, batch: int) -> int:
    return int(key_of("sampler", seed, batch)[:8], 16)


def _thresholds(outcomes: Sequence[Outcome]) -> dict[int, float]:
    """By round, the median over finished trials of their best validation log loss up to it (Optuna's median rule)."""
    curves = [o.curve for o in outcomes if o.state == "complete" and o.curve]
    found: dict[int, float] = {}
    for number in sorted({number for curve in curves for number, _ in curve}):
        reached = [min(loss for n, loss in curve if n <= number) for curve in curves if curve[-1][0] >= number]
        if number > WARM_UP and len(reached) >= LEAST_CURVES:
            found[number] = median(reached)
    return found


def _tell(study: Any, trial: Any, outcome: Outcome, objective: Objective) -> None:
    from optuna.trial import TrialState

    if dict(outcome.values) != dict(trial.params):
        raise BidsimError(
            f"trial {outcome.number} has other values than this search gives it; remove the search's folder to start again"
        )
    for number, loss in outcome.curve:
        trial.report(loss, number)
    if outcome.state == "complete" and outcome.value is not None:
        study.tell(trial, objective.loss(outcome.value))
    else:
        study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)


def _window_words(judged: LoadedScenario) -> str:
    window = judged.window()
    return "the tuning log" if window is None else f"{window[0]:%Y-%m-%d %H:%M} to {window[1]:%Y-%m-%d %H:%M} UTC"


class _Workers:
    """Processes that do trials; with one job they are done here."""

    def __init__(self, jobs: int, threads: int) -> None:
        self._jobs = jobs
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._pool is not None:
            if raised[0] is not None:
                for child in multiprocessing.active_children():
                    child.terminate()
            self._pool.shutdown(cancel_futures=True)

    def do(self, tasks: Sequence[Task]) -> list[tuple[Outcome, bool]]:
        """Outcomes in the order of the tasks, and whether each was there already."""
        known = [read_outcome(task.directory, task.number) for task in tasks]
        missing = [task for task, outcome in zip(tasks, known, strict=True) if outcome is None]
        if self._jobs == 1 or len(missing) < 2:
            made = iter([run_trial(task) for task in missing])
        else:
            made = iter(self._apart(missing))
        return [(next(made), False) if outcome is None else (outcome, True) for outcome in known]

    def _apart(self, tasks: Sequence[Task]) -> list[Outcome]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._jobs, mp_context=context, initializer=_prepare, initargs=(self._threads,)
            )
        try:
            return list(self._pool.map(run_trial, tasks))
        except BrokenProcessPool as error:
            raise BidsimError(
                "a worker was ended from outside, for want of memory perhaps; run again with fewer --jobs to go on"
            ) from error


def _prepare(threads: int) -> None:
    """Of a worker, before any library is loaded there: it ends with its parent, which may be killed without a word."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
