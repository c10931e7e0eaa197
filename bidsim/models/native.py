"""Bundles of bidsim's own formats: hashed logistic regressions and factorization machines, one kind or both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from bidsim.errors import ModelError
from bidsim.models.bundle import Bundle, write_bundle
from bidsim.models.factorization import FactorizationMachine
from bidsim.models.hashed import HashedLogisticRegression
from bidsim.models.manifest import FactorizationHead, Feature, HashedHead, Manifest, TrainingWindow


class NativeModel(Protocol):
    """A model that knows how it lies in a bundle."""

    @property
    def features(self) -> tuple[Feature, ...]: ...

    def packed(self, head: str) -> tuple[HashedHead | FactorizationHead, dict[str, bytes]]:
        """The head's entry in the manifest, and its payloads by name."""
        ...


def pack_native(
    path: str | os.PathLike[str],
    models: Mapping[str, NativeModel],
    *,
    training_window: tuple[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Bundle:
    """Write a bundle of native models by head (ctr, cvr, ctcvr), of one class or of both. Returns the Bundle.

    training_window: ISO 8601, start inclusive and end exclusive. versions: of the libraries that trained the models.
    Equal input gives equal bytes. Raises ModelError where the heads disagree on a feature, and writes nothing then.
    """
    features: dict[str, Feature] = {}
    heads: dict[Any, Any] = {}
    payloads: dict[str, bytes] = {}
    for head, model in models.items():
        for feature in model.features:
            if features.setdefault(feature.name, feature) != feature:
                raise ModelError(f'the heads disagree about feature "{feature.name}"', file=str(path))
        heads[head], parts = model.packed(head)
        payloads |= parts
    manifest = Manifest(
        heads=heads,
        features=tuple(features.values()),
        training_window=None
        if training_window is None
        else TrainingWindow(start=training_window[0], end=training_window[1]),
        versions=dict(versions or {}),
        note=note,
    )
    return write_bundle(path, manifest, payloads)


def pack_hashed(
    path: str | os.PathLike[str],
    models: Mapping[str, HashedLogisticRegression],
    *,
    training_window: tuple[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Bundle:
    """As `pack_native`, of hashed logistic regressions."""
    return pack_native(path, models, training_window=training_window, versions=versions, note=note)


def pack_factorization(
    path: str | os.PathLike[str],
    models: Mapping[str, FactorizationMachine],
    *,
    training_window: tuple[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Bundle:
    """As `pack_native`, of factorization machines."""
    return pack_native(path, models, training_window=training_window, versions=versions, note=note)
