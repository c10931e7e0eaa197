"""Models as bidsim sees them: bundles on disk, scorers in memory.

Importing this package imports neither scikit-learn nor skops, pandas or scipy; those who need them do so themselves.
"""

from __future__ import annotations

from typing import Any

from bidsim.models.bundle import Bundle, open_bundle, write_bundle
from bidsim.models.factorization import FactorizationMachine
from bidsim.models.hashed import HashedLogisticRegression, hash_matrix
from bidsim.models.manifest import FactorizationSpec, Feature, HashedSpec, Manifest
from bidsim.models.native import pack_factorization, pack_hashed, pack_native
from bidsim.models.opening import Opened, open_scorer
from bidsim.models.packing import open_model
from bidsim.models.scorer import Scorer

__all__ = [
    "Bundle",
    "FactorizationMachine",
    "FactorizationSpec",
    "Feature",
    "HashedLogisticRegression",
    "HashedSpec",
    "Manifest",
    "Scorer",
    "hash_matrix",
    "open_bundle",
    "open_model",
    "open_scorer",
    "Opened",
    "pack_factorization",
    "pack_hashed",
    "pack_native",
    "pack_sklearn",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name == "pack_sklearn":
        from bidsim.models.sklearn_packing import pack_sklearn

        return pack_sklearn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
