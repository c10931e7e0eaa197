"""From a scenario's log to labelled examples: `bidsim extract`.

The rows are those that a replay judges (same conditions, labels, weights, removed campaigns), in two windows that do
not overlap: the scenario's own, and one before it to train on. Rows are written in the order of time, ties by a hash of
their content, so neither threads nor the way that the log lies in files can change a byte.

Impressions with label 0 may be down-sampled in the training set (clicks are few, all of them stay): which ones stay
follows from the same hash, and the weight of those that stay is divided by the share kept, so predictions need no
correction (weights instead of He 2014's recalibration).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import BidsimError, LogError
from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.replay.binding import planned
from bidsim.replay.engine import Engine
from bidsim.replay.pipeline import Settings
from bidsim.replay.plan import Plan
from bidsim.replay.policies import resolve
from bidsim.replay.progress import Progress, Silent
from bidsim.replay.stages import Stages, facts_text
from bidsim.scenario.loading import LoadedScenario, refuse_spark, refuse_unsupported
from bidsim.scenario.schema import Bid, Head, Policy, PolicyColumns
from bidsim.scratch import scratch
from bidsim.store.runs import check_free
from bidsim.training.examples import (
    HEAD_SAMPLE,
    MANIFEST,
    MOST_CHARACTERS,
    MOST_FEATURES,
    ExampleSet,
    Extraction,
    ExtractionManifest,
    FeatureColumn,
    Removed,
    Role,
    SetName,
    Span,
    open_extraction,
)
from bidsim.training.parts import keep_some, write_parts
from bidsim.training.steps import new_directory
from bidsim.training.windows import Rows, in_rows, plan_windows, too_long

DECIDING = (
    *("sample_type", "logs_tables", "conditions", "features", "columns", "campaigns", "timezone", "intervals"),
    *("remove_anomaly_cvr_cpns", "remove_anormaly_cvr_cpns", "maturity"),
)

# Roles that no bidder knows when it has to bid.
OUTCOMES = ("price", "won", "loss_reason", "click", "conversion", "click_time", "conversion_time")


@dataclass(frozen=True)
class Selection:
    """Which rows, and the share of impressions with label 0 to keep; see `plan_windows`."""

    train_hours: int | None = None
    gap_hours: float | None = None
    keep_negatives: float = 1.0


@dataclass(frozen=True)
class _Reader:
    """Stands where a model would: it names the columns to read and predicts nothing."""

    features: tuple[str, ...]
    heads: tuple[Head, ...] = ()

    def score(self, batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
        return {}


def extract(
    loaded: LoadedScenario,
    out: Path,
    selection: Selection,
    *,
    tables: Mapping[str, str] | None = None,
    train_tables: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Write the training and the evaluation examples into the new folder `out`, whole or not at all.

    tables, train_tables: where the judged log and the training log lie, by table name; without the second both are one.
    Raises BidsimError for a scenario or log that can't be used.
    """
    settings, progress = settings or Settings(), progress or Silent()
    refuse_unsupported(loaded)
    refuse_spark(loaded, "bidsim extract")
    check_free(out)
    if not 0 < selection.keep_negatives <= 1:
        raise BidsimError(
            f"the share of negatives kept must be above 0 and at most 1, got {selection.keep_negatives:g}"
        )
    if not loaded.scenario.features:
        raise loaded.error("names no features: list the log columns that a model may learn from", "features")
    _check_features(loaded)
    windows = plan_windows(
        loaded,
        train_hours=selection.train_hours,
        gap_hours=selection.gap_hours,
        tables=tables,
        train_tables=train_tables,
    )
    if windows.training.window is None:
        _check_apart(loaded, windows.training, windows.evaluation)
    until = windows.evaluation.window[0].timestamp() if windows.evaluation.window else None
    train = _Set("train", selection.keep_negatives, until)
    evaluation = _Set("evaluation", 1.0, None)
    with new_directory(out) as aside:
        made = {}
        for part, rows in ((train, windows.training), (evaluation, windows.evaluation)):
            progress.step(f"extracting {'training' if part is train else 'evaluation'} examples")
            made[part.name] = _extract_set(in_rows(loaded, rows), rows, part, aside, settings, progress)
            if part is train and rows.window is not None and selection.train_hours is not None:
                short = too_long(rows.window, made["train"].first)
                if short is not None:
                    progress.warn(short)
        for ours, theirs in zip(made["train"].features, made["evaluation"].features, strict=True):
            if ours.kind != theirs.kind:
                raise LogError(
                    f'feature "{ours.name}" is {ours.type} in the training log and {theirs.type} in the judged one; '
                    "mend one of them"
                )
        manifest = ExtractionManifest(
            scenario=loaded.name,
            content_sha256=content_sha256(loaded),
            gap_hours=windows.gap_hours,
            features=made["train"].features,
            columns=made["train"].columns,
            train=made["train"].examples,
            evaluation=made["evaluation"].examples,
            versions=_versions(),
        )
        (aside / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return open_extraction(out)


def content_sha256(loaded: LoadedScenario) -> str:
    """sha256 over the keys of a scenario that decide which examples it gives; where its log lies is none of them."""
    kept = {key: value for key, value in loaded.document.items() if key in DECIDING}
    elsewhere = ("path", "format", "version", "snapshot")
    kept["logs_tables"] = {
        name: {k: v for k, v in (table or {}).items() if k not in elsewhere}
        for name, table in loaded.document["logs_tables"].items()
    }
    kept["campaigns"] = "campaigns" in loaded.document
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class _Set:
    """until: training conversions count only where their window had passed by then (seconds since 1970)."""

    name: SetName
    keep: float
    until: float | None


@dataclass(frozen=True)
class _Extracted:
    """first: the time of the log's first row in the window; None where rows have none."""

    examples: ExampleSet
    features: tuple[FeatureColumn, ...]
    columns: dict[Role, str]
    first: datetime | None


def _extract_set(
    loaded: LoadedScenario, rows: Rows, part: _Set, aside: Path, settings: Settings, progress: Progress
) -> _Extracted:
    threads = settings.threads or os.cpu_count() or 1
    found = open_log(loaded, rows.tables)
    reading = _only_rows(loaded)
    policies = resolve(reading, [], None)
    names = tuple(dict.fromkeys(loaded.scenario.features))
    policies[1].scorer = _Reader(names)  # makes the plan bind the features
    with (
        scratch(settings.directory) as work,
        brought(found, Path(work).resolve(), progress.step) as log,
        Engine(
            log.files,
            Path(work).resolve(),
            folders=log.folders,
            threads=threads,
            memory_bytes=settings.engine_bytes,
            zone=loaded.scenario.timezone,
        ) as engine,
        planned(reading, engine, log, policies) as plan,
    ):
        policies[1].scorer = None
        mature = _mature(plan, part)
        if part.name == "train":
            plan.ripening = None
        for i, sql in enumerate(plan.features.values()):
            plan.carry(f"x_{i}", sql)
        stages = Stages(engine, plan, ties_lose=False, never=False)
        stages.read(progress.rows)
        first = _first_time(stages, engine)
        removed = _remove(stages, engine) if loaded.scenario.remove_anomaly_cvr_cpns else ()
        engine.run(f"create view examples as {facts_text(plan, stages.rows)}")
        columns = _role_columns(plan, names)
        samples = {}
        for head in _heads(loaded, plan):
            label = f"y_{head}" if head == "ctr" or mature is None else f"case when {mature} then y_{head} end"
            shape = _Shape(plan, names, columns, label)
            keep = 1.0 if head == "cvr" else part.keep
            batches = keep_some(engine.stream(shape.sql), keep)
            samples[HEAD_SAMPLE[head]] = write_parts(
                batches, shape.names, aside, f"{part.name}/{HEAD_SAMPLE[head]}", keep, progress
            )
        types = engine.names(f"select {', '.join(f'x_{i}' for i in range(len(names)))} from examples")
    if not any(s.rows for s in samples.values()):
        where = f"in the {'training' if part.name == 'train' else 'evaluation'} window"
        raise LogError(
            f"no labelled row {where if rows.window else 'in the log'}; check windows and conditions", file=loaded.file
        )
    span = None if rows.window is None else Span(start=rows.window[0].isoformat(), end=rows.window[1].isoformat())
    features = tuple(
        FeatureColumn(name=name, type=kind, kind=_kind(kind))  # type: ignore[arg-type]
        for name, (_, kind) in zip(names, types, strict=True)
    )
    return _Extracted(ExampleSet(window=span, removed_campaigns=removed, samples=samples), features, columns, first)


def _first_time(stages: Stages, engine: Engine) -> datetime | None:
    if not stages.plan.time_kind:
        return None
    moment = "ts" if stages.plan.time_kind == "instant" else f"timezone('{stages.plan.zone}', ts)"
    ((seconds,),) = engine.rows(f"select epoch(min({moment})) from {stages.rows}")
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _only_rows(loaded: LoadedScenario) -> LoadedScenario:
    """The scenario without what bids: its rows and labels are asked for, and no model is there yet."""
    scenario = loaded.scenario.model_copy(
        update={
            "baseline": Policy(columns=PolicyColumns(pctr="0.5")),
            "candidates": {"examples": Policy(bid=Bid(multiplier=1.0))},
            "bid": Bid(formula="1"),
            "sample_type": None,
            "segments": [],
            "budget": None,
            "auction": loaded.scenario.auction.model_copy(update={"internal": False}),
        }
    )
    return replace(loaded, scenario=scenario)


def _check_features(loaded: LoadedScenario) -> None:
    """Raises ScenarioError for what no model can learn from.

    A feature that tells how the auction ended makes the best model of all, until it has to bid.
    """
    names = dict.fromkeys(loaded.scenario.features)
    if len(names) > MOST_FEATURES or max(map(len, names)) > MOST_CHARACTERS:
        raise loaded.error(
            f"a model has at most {MOST_FEATURES} features, their names at most {MOST_CHARACTERS} characters",
            "features",
        )
    said = loaded.scenario.columns
    column = {(getattr(said, role) or role).strip('"').lower(): role for role in OUTCOMES}
    for name in names:
        role = column.get(name.lower())
        if role is not None:
            raise loaded.error(
                f'features: "{name}" is the column of {role}, which is known only after the bid, so no model may learn from '
                "it; leave it out",
                "features",
            )


def _heads(loaded: LoadedScenario, plan: Plan) -> tuple[Head, ...]:
    """The heads of the scenario's sample types; by default clicks and conversions given a click, as far as labelled."""
    label = {"ctr": plan.has("click"), "cvr": plan.has("click") and plan.has("conversion")}
    label["ctcvr"] = plan.has("conversion")
    asked = loaded.scenario.heads
    if asked is None:
        found = tuple(h for h in ("ctr", "cvr") if label[h])
        return found or ("ctcvr",)  # type: ignore[return-value]
    for head in asked:
        if not label[head]:
            need = {"ctr": "click", "cvr": "click and conversion", "ctcvr": "conversion"}[head]
            raise loaded.error(
                f"sample_type asks for {HEAD_SAMPLE[head]}, which needs a {need} column; set it in columns",
                "sample_type",
            )
    return asked


def _mature(plan: Plan, part: _Set) -> str | None:
    """SQL of whether a training row's conversions had all come when the judged rows began; None where not asked."""
    how = plan.ripening
    if part.name != "train" or how is None:
        return None
    until = how.observed_until if part.until is None else min(how.observed_until, part.until)
    return f"(seen_at + {how.window!r}::double <= {until!r}::double)"


def _remove(stages: Stages, engine: Engine) -> tuple[Removed, ...]:
    stages.remove_anomalies()
    if stages.rows != "kept_rows":
        return ()
    found = engine.rows(
        "select coalesce(cast(campaign as varchar), 'null'), clicks, conversions, impossible, day from anomalies "
        "order by campaign"
    )
    return tuple(
        Removed(campaign=str(c), clicks=int(n), conversions=int(v), jump=None if bad else str(day))
        for c, n, v, bad, day in found
    )


def _role_columns(plan: Plan, features: tuple[str, ...]) -> dict[Role, str]:
    """The name of each role's column; a feature that has it already keeps it, and the role's gets a leading _."""
    has: dict[Role, bool] = {
        "label": True,
        "weight": True,
        "time": plan.time_kind is not None,
        "campaign": plan.has("campaign"),
        "unit": plan.has("unit"),
    }
    found: dict[Role, str] = {}
    for role, there in has.items():
        name: str = role
        while name.lower() in {f.lower() for f in features}:
            name = f"_{name}"
        if there:
            found[role] = name
    return found


class _Shape:
    """The query of one head's examples, and the names that its columns get in the files."""

    def __init__(self, plan: Plan, features: tuple[str, ...], columns: Mapping[Role, str], label: str) -> None:
        sql = {"label": label, "weight": "w", "time": "ts", "campaign": "campaign", "unit": "unit"}
        inside = {f"x_{i}": name for i, name in enumerate(features)}
        inside |= {f"role_{role}": name for role, name in columns.items()}
        self.names = tuple(inside.values())
        picked = [f"x_{i}" for i in range(len(features))]
        picked += [f"{sql[role]} as role_{role}" for role in columns]
        if plan.has("request"):
            picked.append("request as role_request")
        content = ", ".join(name.rpartition(" as ")[2] for name in picked)
        order = "role_time, row_hash" if "time" in columns else "row_hash"
        self.sql = (
            f"with labelled as (select {', '.join(picked)} from examples where ({label}) is not null) "
            f"select {', '.join(inside)}, hash({content}) as row_hash from labelled order by {order}"
        )


def _kind(kind: str) -> str:
    """What a model takes a column for: numbers with fractions are numeric, the rest are categories, as ids are."""
    if kind.endswith("]"):
        return "list"
    if kind.startswith("DECIMAL") and kind.endswith(",0)"):  # whole numbers, as some warehouses write all of them
        return "categorical"
    return "numeric" if kind.startswith(("FLOAT", "DOUBLE", "DECIMAL")) else "categorical"


def _check_apart(loaded: LoadedScenario, training: Rows, evaluation: Rows) -> None:
    """Without windows only the files tell the two logs apart."""
    files = [set(open_log(loaded, rows.tables).table.identities) for rows in (training, evaluation)]
    shared = sorted(files[0] & files[1])
    if shared:
        raise BidsimError("belongs to the training log and to the judged one; keep them apart", file=shared[0])


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from bidsim import __version__

    return {"bidsim": __version__, **{name: version(name) for name in ("duckdb", "pyarrow")}}
