"""Recalibrate a bundle on labelled rows of a log: `bidsim model calibrate`.

The rows, labels and weights are those that a replay of the scenario would judge, in another window or another log,
because a curve fitted on the judged rows would make every model look calibrated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from bidsim.errors import BidsimError, ModelError
from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.logs.origins import silent
from bidsim.models.bundle import Bundle
from bidsim.models.manifest import Isotonic, Platt, TrainingWindow
from bidsim.models.packing import open_model
from bidsim.models.pooling import Pool, Pooled
from bidsim.models.recalibration import fit_isotonic, fit_platt, recalibrate
from bidsim.replay.binding import planned
from bidsim.replay.engine import Engine
from bidsim.replay.pipeline import Settings
from bidsim.replay.plan import Plan
from bidsim.replay.policies import resolve
from bidsim.replay.stages import Stages, facts_text
from bidsim.scenario.loading import LoadedScenario, refuse_spark
from bidsim.scenario.schema import HEADS, Bid, Head, Policy
from bidsim.scratch import scratch

Floats = NDArray[np.float64]
LEAST_POSITIVES = 50


@dataclass(frozen=True)
class Fit:
    """What was fitted for one head. before, after: predicted over observed on the rows of the fit, after being 1 by design."""

    head: Head
    step: Platt | Isotonic
    rows: int
    positives: float
    before: float
    after: float


@dataclass(frozen=True)
class Window:
    """The last hour and the number of hours of the rows to fit on, as a scenario's `logs_tables` has them."""

    last_hour: str
    duration_hour: int


def calibrate(
    loaded: LoadedScenario,
    model: Path,
    *,
    method: Literal["platt", "isotonic"],
    heads: tuple[Head, ...] = (),
    window: Window | None = None,
    tables: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> tuple[Bundle, list[Fit]]:
    """The model with one more recalibration step for each head (default: all that the log has labels for).

    window: instead of the scenario's; it must not overlap it, unless `tables` names a log that shares no file with
    the scenario's own. Raises BidsimError; nothing is written.
    """
    refuse_spark(loaded, "bidsim model calibrate")
    fitting = _in_window(loaded, window, other_log=_is_another_log(loaded, tables or {}))
    bundle = open_model(model)
    settings = settings or Settings()
    policies = resolve(fitting, [], model, settings.threads)
    found = open_log(fitting, tables or {})
    fits = []
    with (
        scratch() as work,
        brought(found, Path(work).resolve(), silent) as log,
        Engine(
            log.files,
            Path(work).resolve(),
            threads=settings.threads,
            memory_bytes=settings.engine_bytes,
            folders=log.folders,
            zone=loaded.scenario.timezone,
        ) as engine,
        planned(fitting, engine, log, policies) as plan,
    ):
        labelled = {"ctr": plan.has("click"), "cvr": plan.has("click") and plan.has("conversion")}
        labelled["ctcvr"] = plan.has("conversion")
        wanted = heads or tuple(h for h in HEADS if h in bundle.manifest.heads and labelled[h])
        for head in wanted:
            if head not in bundle.manifest.heads:
                raise ModelError(f"the model has no head {head}", file=str(model))
            if not labelled[head]:
                raise loaded.error(
                    f"the log has no labels for head {head}; set click and conversion in columns", "columns"
                )
        stages = Stages(engine, plan, ties_lose=False, never=False)
        stages.read(lambda rows: None)
        if fitting.scenario.remove_anomaly_cvr_cpns:
            stages.remove_anomalies()
        facts = facts_text(plan, stages.rows)
        for head in wanted:
            rows = _rows(engine, facts, str(plan.valid(0, head)), head)
            fits.append(_fit(head, method, rows, str(model)))
        span = fitting.window() or _span(engine, facts, plan)
    return _with(bundle, fits, span), fits


def hours_trained_on(bundle: Bundle, zone: ZoneInfo) -> float:
    """Hours of the last rows that a bundle was calibrated on that lie in its training window.

    Of rows that it learned from a curve sees how well a model remembers: it corrects too little. zone: of times without an
    offset. 0 where the bundle does not say when it was trained.
    """
    trained, fitted = bundle.manifest.training_window, bundle.manifest.calibration_windows
    if trained is None or not fitted:
        return 0.0
    try:
        spans = [[datetime.fromisoformat(text) for text in (w.start, w.end)] for w in (trained, fitted[-1])]
    except ValueError:  # no times
        return 0.0
    (start, end), (first, last) = ([t if t.tzinfo else t.replace(tzinfo=zone) for t in span] for span in spans)
    return max(0.0, (min(end, last) - max(start, first)).total_seconds() / 3600)


def _is_another_log(loaded: LoadedScenario, tables: Mapping[str, str]) -> bool:
    """Whether the tables of the command line are surely not the log that will be judged.

    A file is the same under any name or link. A scenario without a path leaves open what will be judged, so that the
    log of the command line counts as the judged one.
    """
    name, table = next(iter(loaded.scenario.logs_tables.items()))
    if name not in tables or table.path is None:
        return False
    given = open_log(loaded, tables).table
    try:
        own = open_log(loaded, {}).table
    except BidsimError:  # the scenario's log is not here, so the given one is not it
        return True
    return not {_identity(file) for file in given.files} & {_identity(file) for file in own.files}


def _identity(file: str) -> object:
    try:
        state = os.stat(file)
    except OSError:
        return os.path.realpath(file)
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(file)


def _in_window(loaded: LoadedScenario, window: Window | None, *, other_log: bool) -> LoadedScenario:
    """The scenario with one policy, the model, in the rows of the fit."""
    scenario = loaded.scenario
    judged = loaded.window()
    ((name, table),) = list(scenario.logs_tables.items())[:1]
    if window is None and not other_log:
        raise loaded.error(
            "these are the rows that will be judged: give --last-hour and --duration-hour of an earlier window, or "
            "another log with --table (one that shares no file with the scenario's own path)",
            "logs_tables",
            name,
        )
    if window is not None:
        table = table.model_copy(update={"last_hour": window.last_hour, "duration_hour": window.duration_hour})
    only = Policy(bid=Bid(multiplier=1.0))
    changed = scenario.model_copy(
        update={
            "logs_tables": {**scenario.logs_tables, name: table},
            "candidates": {"calibrated": only},
            "baseline": None,
            # Nothing is bid here, and the scenario's formula may need heads that this model lacks.
            "bid": Bid(formula="1"),
            "sample_type": None,
            "budget": None,
        }
    )
    fitting = replace(loaded, scenario=changed)
    mine = fitting.window()
    if not other_log and mine is not None and (judged is None or (mine[0] < judged[1] and judged[0] < mine[1])):
        span = "" if judged is None else " to ".join(f"{t:%Y-%m-%d %H:%M}" for t in judged) + " UTC"
        raise loaded.error(
            f"the window to fit on overlaps the judged rows ({span or 'the whole log'}); choose an earlier one",
            "logs_tables",
            name,
        )
    return fitting


def _rows(engine: Engine, facts: str, prediction: str, head: str) -> Pooled:
    sql = f"select {prediction} as p, y_{head} as y, w from ({facts}) where {prediction} is not null and y_{head} is not null"
    pool = Pool()
    for batch in engine.stream(sql):
        pool.add(*(np.asarray(batch.column(name), dtype=np.float64) for name in ("p", "y", "w")))
    return pool.pooled()


def _fit(head: Head, method: str, rows: Pooled, file: str) -> Fit:
    if rows.positives < LEAST_POSITIVES:
        raise ModelError(
            f"head {head}: {rows.positives} positive rows of {rows.rows} are too few to fit a curve; take a window with at "
            f"least {LEAST_POSITIVES}",
            file=file,
        )
    p, y, w = rows.score, rows.label, rows.weight
    try:
        step = fit_platt(p, y, w) if method == "platt" else fit_isotonic(p, y, w)
    except ModelError as error:
        raise ModelError(f"head {head}: {error.message}", file=file) from error
    observed = float(w @ y)
    after = float(w @ recalibrate(p, [step]))
    return Fit(head, step, rows.rows, float(rows.positives), float(w @ p) / observed, after / observed)


def _span(engine: Engine, facts: str, plan: Plan) -> tuple[datetime, datetime] | None:
    """The times of all rows, where no window says them."""
    if not plan.time_kind:
        return None
    low, high = engine.rows(f"select epoch_us(min(ts)), epoch_us(max(ts)) + 1 from ({facts})")[0]
    if low is None:
        return None
    start, end = (datetime.fromtimestamp(micros / 1e6, UTC) for micros in (low, high))
    if plan.time_kind == "instant":
        return start, end
    zone = ZoneInfo(plan.zone.replace("''", "'"))  # wall clock
    return start.replace(tzinfo=zone), end.replace(tzinfo=zone)


def _with(bundle: Bundle, fits: list[Fit], span: tuple[datetime, datetime] | None) -> Bundle:
    """The examples' predictions go through the new steps too; a replay of rows of that span will say that it was."""
    manifest = bundle.manifest
    windows = manifest.calibration_windows
    if span is not None:
        windows = (*windows, TrainingWindow(start=span[0].isoformat(), end=span[1].isoformat()))
    steps = dict(manifest.recalibration)
    examples = manifest.examples
    predictions = {} if examples is None else dict(examples.predictions)
    for fit in fits:
        steps[fit.head] = (*steps.get(fit.head, ()), fit.step)
        if fit.head in predictions:
            values = recalibrate(np.array(predictions[fit.head], dtype=np.float64), [fit.step])
            predictions[fit.head] = tuple(values.tolist())
    if examples is not None:
        examples = examples.model_copy(update={"predictions": predictions})
    return bundle.with_manifest(recalibration=steps, examples=examples, calibration_windows=windows)
