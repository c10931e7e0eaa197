"""Fitted scikit-learn classifiers and pipelines as a bundle, with rows of the training set and what they predict for them.

Needs the extra `sklearn`. What is packed is loaded again before anything is written, so that a bundle that scoring would
refuse or that predicts otherwise than the fitted object is never made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bidsim.errors import ModelError
from bidsim.models.bundle import Bundle, write_bundle
from bidsim.models.columns import Columns, HashCache
from bidsim.models.manifest import Examples, Feature, Manifest, SkopsHead, TrainingWindow
from bidsim.models.sklearn_pipeline import SkopsPipeline, library, load_pipeline, model_input, versions
from bidsim.models.tables import example_batch
from bidsim.scenario.schema import Head

EXAMPLES = 20


def pack_sklearn(
    path: str | os.PathLike[str],
    *,
    ctr: Any = None,
    cvr: Any = None,
    ctcvr: Any = None,
    features: Sequence[str | Feature],
    example: Any = None,
    input: Literal["dataframe", "array", "dicts"] = "dataframe",
    training_window: tuple[str, str] | None = None,
    note: str | None = None,
) -> Bundle:
    """Write fitted scikit-learn classifiers (or pipelines) as a bundle. Returns the opened Bundle.

    ctr, cvr, ctcvr: the fitted object of each head; at least one. features: the inputs in the order of fitting; a
    plain name takes its type from `example`. example: pandas DataFrame of some training rows; up to 20 of them are
    kept with their predictions and checked whenever the bundle is loaded, so give it.
    input: what the object's predict_proba takes. Raises ModelError where the result could not be loaded again.
    """
    file = str(path)
    skops_io = library("skops.io", file)
    given: tuple[tuple[Head, Any], ...] = (("ctr", ctr), ("cvr", cvr), ("ctcvr", ctcvr))
    fitted = {head: model for head, model in given if model is not None}
    if not fitted:
        raise ModelError("nothing to pack: give at least one of ctr, cvr and ctcvr", file=file)
    declared = tuple(f if isinstance(f, Feature) else _declare(f, example, file) for f in features)
    names = tuple(feature.name for feature in declared)
    entries = {head: SkopsHead(payloads=(f"{head}/pipeline.skops",), features=names, input=input) for head in fitted}
    payloads = {f"{head}/pipeline.skops": bytes(skops_io.dumps(model)) for head, model in fitted.items()}
    loaded = {
        head: load_pipeline(entries[head], declared, payloads[f"{head}/pipeline.skops"], head=head, file=file)
        for head in fitted
    }
    manifest = Manifest(
        heads=dict(entries),
        features=declared,
        training_window=None
        if training_window is None
        else TrainingWindow(start=training_window[0], end=training_window[1]),
        versions=versions(),
        examples=None if example is None else _examples(example, declared, entries, fitted, loaded, file),
        note=note,
    )
    return write_bundle(Path(path), manifest, payloads)


def _declare(name: str, example: Any, file: str) -> Feature:
    """A feature whose type is read off the example's column."""
    if example is None or name not in example.columns:
        raise ModelError(
            f'the type of feature "{name}" is not known: give an example with that column, or a Feature', file=file
        )
    kind = example[name].dtype.kind
    if kind == "f":
        return Feature(name=name, type="numeric")
    if kind in "iu":
        return Feature(name=name, type="categorical", dtype="int64")
    return Feature(name=name, type="categorical", dtype="bool" if kind == "b" else "string")


def _examples(
    example: Any,
    features: tuple[Feature, ...],
    entries: dict[Head, SkopsHead],
    fitted: dict[Head, Any],
    loaded: dict[Head, SkopsPipeline],
    file: str,
) -> Examples:
    """The first rows of the example as log columns, with what the fitted objects predict for them.

    The prediction is of the object itself on the frame as given, so a difference between what it was fitted on and
    what bidsim will hand it comes out here.
    """
    rows = example.head(EXAMPLES)
    sources = {feature.source: rows[feature.name] for feature in features}
    columns = {source: tuple(_scalar(value) for value in series.tolist()) for source, series in sources.items()}
    batch = example_batch(columns, file)
    predictions: dict[Head, tuple[float, ...]] = {}
    for head, model in loaded.items():
        given = Columns(batch, features, cache=HashCache(), file=file)
        mine = model.predict(given)
        names = list(entries[head].features)
        frame = rows[names]
        own: Any = frame if entries[head].input == "dataframe" else frame.to_numpy()
        if entries[head].input == "dicts":
            own = model_input(entries[head], given)
        theirs = np.asarray(fitted[head].predict_proba(own), dtype=np.float64)[:, -1]
        if not np.allclose(mine, theirs, rtol=1e-9, atol=1e-12):
            raise ModelError(
                f"head {head} predicts otherwise from the log's columns than from the example "
                f"(row {int(np.argmax(np.abs(mine - theirs)))}); declare each feature's type and dtype with Feature",
                file=file,
            )
        predictions[head] = tuple(float(value) for value in mine)
    return Examples(columns=columns, predictions=predictions)


def _scalar(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value else value
