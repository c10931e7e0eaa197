"""From examples to a bundle: every head trained round by round, the best round packed, its calibration checked.

A bundle is written only where predicted over observed on the validation rows, by the packed model itself, is within a
stated factor of 1: a model that is off by ten looks like any other until it has spent the money.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bidsim.errors import BidsimError
from bidsim.models.bundle import Bundle
from bidsim.models.manifest import CurveRound, LearningCurve
from bidsim.models.native import NativeModel, pack_native
from bidsim.replay.pipeline import Settings
from bidsim.replay.progress import Progress as Telling
from bidsim.replay.progress import Silent
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.schema import HEADS, Head
from bidsim.scratch import scratch
from bidsim.training.checkpoint import Checkpoint, Standing
from bidsim.training.curve import Measures, Progress, round_of, thinned
from bidsim.training.examples import Extraction
from bidsim.training.extract import Selection, extract
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.measuring import Measuring
from bidsim.training.problem import Problem, check_kinds, make_problem
from bidsim.training.streaming import Diverged, Learned, Stop, Streaming

OnMetric = Callable[[str, float, int], None]
Abandon = Callable[[Head, CurveRound], bool]
CONFIDENCE = 0.95
LIBRARIES = {"hashed_logistic": ("numpy",), "factorization_machine": ("numpy",), "lightgbm": ("numpy", "lightgbm")}


class Abandoned(Exception):
    """`abandon` had enough of a training."""


class Miscalibrated(BidsimError):
    """The model predicts too much or too little; no bundle was written."""


class Stopped(BidsimError):
    """It was asked to stop and has; what is finished stays, and the same call goes on from there."""


class Training(Protocol):
    """One head on its way; see `streaming.Streaming`."""

    def round(self, number: int, stop: Stop, progress: Progress | None) -> Learned: ...

    def validate(self) -> Measures: ...

    def keep(self) -> None: ...

    def state(self) -> dict[str, NDArray[Any]]: ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None: ...


@dataclass(frozen=True)
class Trained:
    """A bundle and what its packed model showed on the validation rows, by head. stopped: it ended before it was done."""

    bundle: Bundle
    validation: Mapping[Head, Measures]
    stopped: bool


def train(
    extraction: Extraction,
    hyperparameters: Hyperparameters,
    out: Path,
    *,
    checkpoint: Path | None = None,
    stop: Stop = lambda: False,
    on_metric: OnMetric = lambda name, value, step: None,
    abandon: Abandon = lambda head, found: False,
    progress: Telling | None = None,
    threads: int | None = None,
) -> Trained:
    """Train every head that the extraction has examples for, and write the bundle `out`, whole or not at all.

    checkpoint: a folder; what it holds of this training is not done again. stop: asked at every step; once true,
    training ends with what it has, and the bundle says so. on_metric: told (name, value, round) after each round, such
    as ("ctr_logloss", 0.1, 3). abandon: asked after each round whether to give up, by raising Abandoned. threads: that
    grow trees, and score the validation rows with a library's model; default: as many as there are cores.

    The same extraction, hyperparameters and library versions give the same bytes, also after a kill and another call
    with the same checkpoint. Raises Miscalibrated, Diverged, BidsimError, Abandoned, Stopped where nothing was learned yet;
    nothing is written then but checkpoints.
    """
    telling = progress or Silent()
    saved = None if checkpoint is None else Checkpoint(checkpoint, training_key(extraction, hyperparameters))
    problems = {head: make_problem(extraction, head, hyperparameters) for head in extraction.heads}
    check_kinds(problems.values(), hyperparameters.file)
    make = _maker(list(problems.values()), hyperparameters, threads)
    curves: dict[Head, LearningCurve] = {}
    trainings: dict[Head, Training] = {}
    # The fewest rows first: who stops a training early still gets every head that takes seconds.
    for head in sorted(problems, key=lambda head: (problems[head].rows, HEADS.index(head))):
        telling.step(f"training {head}")
        training = make(problems[head])
        curve = _train_head(problems[head], training, saved, stop, on_metric, abandon, telling)
        if curve is not None:
            curves[head], trainings[head] = curve, training
    if not curves:
        raise Stopped("training was stopped before anything was learned; nothing was written")
    stopped = len(curves) < len(problems) or any(curve.stopped for curve in curves.values())
    telling.step("checking the calibration")
    with scratch() as work:
        bundle = _pack(extraction, hyperparameters, trainings, problems, Path(work) / "m.bin")
        ordered = {head: curves[head] for head in HEADS if head in curves}
        note = _note(extraction, [h for h in problems if h not in curves], stopped)
        bundle = bundle.with_manifest(learning_curve=ordered, note=note)
        validation = _validate(bundle, {head: problems[head] for head in ordered}, threads)
    for head, found in validation.items():
        check_calibration(head, found, problems[head].hyper.max_miscalibration)
    return Trained(bundle.write(out), validation, stopped)


@contextmanager
def extracted_for(
    loaded: LoadedScenario,
    hyperparameters: Hyperparameters,
    *,
    tables: Mapping[str, str] | None = None,
    train_tables: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    progress: Telling | None = None,
) -> Iterator[Extraction]:
    """The extraction that the hyperparameters ask for, in a folder that is gone afterwards. Raises BidsimError."""
    with scratch(settings.directory if settings else None) as work:
        yield extract(
            loaded,
            Path(work) / "examples",
            selection_of(hyperparameters),
            tables=tables,
            train_tables=train_tables,
            settings=settings,
            progress=progress,
        )


def selection_of(hyperparameters: Hyperparameters) -> Selection:
    """The rows that the hyperparameters ask for."""
    shared = hyperparameters.shared
    return Selection(shared.train_hours, shared.gap_hours, shared.keep_negatives)


def training_key(extraction: Extraction, hyperparameters: Hyperparameters) -> str:
    """sha256 over all that decides a training's outcome."""
    content = [extraction.sha256, hyperparameters.content(), versions_of(hyperparameters)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def versions_of(hyperparameters: Hyperparameters) -> dict[str, str]:
    """Of the libraries that a training of this model goes by."""
    from importlib.metadata import PackageNotFoundError, version

    from bidsim import __version__

    found = {"bidsim": __version__}
    for name in LIBRARIES[hyperparameters.shared.model]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_calibration(head: Head, found: Measures, factor: float) -> None:
    """Raises Miscalibrated where predicted / observed is beyond the factor, and chance alone does not explain it.

    Refused is what lies outside [1 / factor, factor] with its whole 95% interval, Poisson for the number of positives
    observed (Garwood 1936): with few of them a model is not refused for what a handful of results decided.
    """
    from scipy.special import gammaincinv

    ratio, positives = found.calibration, found.positives
    tail = (1 - CONFIDENCE) / 2
    high_count = float(gammaincinv(positives + 1, 1 - tail))
    low_count = float(gammaincinv(positives, tail)) if positives else 0.0
    if ratio is None:
        if found.expected <= factor * high_count:
            return
        raise Miscalibrated(
            f"head {head} predicts at least {found.expected:.3g} positive rows for validation, which has none; no bundle "
            "was written. Lower learning_rate, raise l2 or take more rounds; or validation differs from training in kind"
        )
    low, high = ratio * positives / high_count, ratio * positives / low_count if low_count else float("inf")
    if low <= factor and high >= 1 / factor:
        return
    raise Miscalibrated(
        f"head {head} predicts {ratio:.3g} times what was observed on the validation rows (95% interval {low:.3g} to "
        f"{high:.3g}, {positives:,} positive rows), beyond the factor {factor:g} of max_miscalibration; no bundle was "
        "written. Lower learning_rate, raise l2 or take more rounds; or validation differs from training in kind"
    )


def _maker(
    problems: list[Problem], hyperparameters: Hyperparameters, threads: int | None
) -> Callable[[Problem], Training]:
    seed = hyperparameters.shared.seed
    if hyperparameters.shared.model == "lightgbm":
        from bidsim.training.trees import Trees, category_tables

        tables = category_tables(problems)
        return lambda problem: Trees(problem, tables, seed, threads)
    if hyperparameters.shared.model == "factorization_machine":
        from bidsim.training.machines import machine

        return lambda problem: machine(problem, seed)
    from bidsim.training.logistic import logistic

    return logistic


def _train_head(
    problem: Problem,
    training: Training,
    saved: Checkpoint | None,
    stop: Stop,
    on_metric: OnMetric,
    abandon: Abandon,
    telling: Telling,
) -> LearningCurve | None:
    """Rounds until the last, or until validation gets no better; None where not a row was learned from."""
    head, hyper = problem.head, problem.hyper
    before = saved.load(head) if saved is not None else None
    standing = Standing(key=saved.key if saved is not None else "")
    if before is not None:
        standing, arrays = before
        training.restore(arrays)
        for found in standing.rounds:
            _tell(head, found, on_metric)
            if abandon(head, found):
                raise Abandoned
    stopped = False
    while not standing.done and not stopped and len(standing.rounds) < hyper.rounds:
        number = len(standing.rounds) + 1
        points = Progress(problem.learned) if number == 1 else None
        if points is not None and standing.progress is not None:
            points.restore(standing.progressive, standing.progress)
        learned = training.round(number, stop, points)
        stopped = not learned.whole
        if learned.rows == 0:
            break
        if stopped and saved is not None and isinstance(training, Streaming):
            # As it stands within the round, before what is saved as a model is called the best.
            saved.save(head, _within(standing, points), training.state())
        standing = _after(head, standing, number, learned, training, points)
        _tell(head, standing.rounds[-1], on_metric)
        telling.rows(standing.rows)
        if stopped:
            break
        done = standing.waited >= hyper.patience or number == hyper.rounds
        standing = standing.model_copy(update={"done": done})
        if saved is not None:
            saved.save(head, standing, training.state())
        if abandon(head, standing.rounds[-1]):
            raise Abandoned
    if not standing.rounds:
        return None
    return _curve(problem, standing, stopped)


def _within(standing: Standing, points: Progress | None) -> Standing:
    """Where a head stands in a round that was cut short."""
    if points is None:
        return standing
    return standing.model_copy(update={"progressive": points.points, "progress": points.state})


def _after(
    head: Head, standing: Standing, number: int, learned: Learned, training: Training, points: Progress | None
) -> Standing:
    measured = training.validate()
    if measured.logloss is None:
        raise BidsimError(
            f"head {head}: the {measured.rows:,} rows for validation, the last in time, all have weight 0; take another "
            "training window, or a larger validation_share"
        )
    if not math.isfinite(measured.logloss + (learned.logloss or 0.0)):
        raise Diverged(head)
    found = round_of(number, standing.rows + learned.rows, learned.logloss, measured.logloss, measured)
    best = min((r.logloss for r in standing.rounds), default=None)
    better = best is None or found.logloss < best
    if better:
        training.keep()
    if points is not None:
        points.close()
    return standing.model_copy(
        update={
            "rounds": (*standing.rounds, found),
            "progressive": standing.progressive if points is None else points.points,
            "progress": None,
            "chosen": number if better else standing.chosen,
            "waited": 0 if better else standing.waited + 1,
            "rows": found.rows,
        }
    )


def _curve(problem: Problem, standing: Standing, stopped: bool) -> LearningCurve:
    positives = sum(int((batch.label > 0).sum()) for batch in problem.validation())
    return LearningCurve(
        model=problem.hyper.model,
        training_rows=problem.learned,
        validation_rows=problem.rows - problem.learned,
        validation_positives=positives,
        progressive=standing.progressive,
        rounds=thinned(standing.rounds, standing.chosen),
        chosen=standing.chosen,
        stopped=stopped,
    )


def _tell(head: Head, found: CurveRound, on_metric: OnMetric) -> None:
    for name in ("training_logloss", "logloss", "normalized_entropy", "auc", "calibration"):
        value = getattr(found, name)
        if value is not None:
            on_metric(f"{head}_{name}", value, found.round)


def _pack(
    extraction: Extraction,
    hyperparameters: Hyperparameters,
    trainings: Mapping[Head, Training],
    problems: Mapping[Head, Problem],
    path: Path,
) -> Bundle:
    span = extraction.manifest.train.window
    window = None if span is None else (span.start, span.end)
    ordered = [head for head in HEADS if head in trainings]
    if hyperparameters.shared.model == "lightgbm":
        from bidsim.training.trees import pack_trees

        return pack_trees({h: trainings[h] for h in ordered}, window, path)  # type: ignore[misc]
    models: dict[str, NativeModel] = {}
    for head in ordered:
        training = trainings[head]
        assert isinstance(training, Streaming)
        models[head] = training.model()
    return pack_native(path, models, training_window=window, versions=versions_of(hyperparameters))


def _note(extraction: Extraction, missing: list[Head], stopped: bool) -> str:
    said = f"Trained by bidsim for the scenario {extraction.manifest.scenario}."
    if stopped:
        said += " Training was stopped before it was done."
    if missing:
        said += f" Heads that were not begun: {', '.join(missing)}."
    return said[:10_000]


def _validate(bundle: Bundle, problems: Mapping[Head, Problem], threads: int | None) -> dict[Head, Measures]:
    """What the packed model predicts for the validation rows, through the scorer that a replay uses."""
    scorer = bundle.scorer(threads=threads)
    found: dict[Head, Measures] = {}
    for head, problem in problems.items():
        unusable = 0
        with Measuring() as measuring:
            for batch in problem.validation():
                p = scorer.score(batch.columns)[head]
                usable = np.isfinite(p)
                unusable += int((~usable).sum())
                measuring.add(p[usable], batch.label[usable], batch.weight[usable])
            found[head] = measuring.measures()
        if unusable:
            raise Miscalibrated(
                f"head {head} has no prediction for {unusable:,} of {found[head].rows + unusable:,} validation rows; no "
                "bundle was written. Lower learning_rate, or look for infinite values in the log"
            )
    return found
