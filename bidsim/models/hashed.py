"""Hashed logistic regression, bidsim's own model format: a vector of float32 weights and nothing to install.

p = 1 / (1 + exp(-z)) with z = bias + the sum of the weights of the row's terms, all in float64. The weight of a term
stands at index `hash mod 2**bits` (`columns` defines terms and hashes); terms that collide share a weight.
A numeric feature adds weight x (value - mean) / scale, and nothing where it is missing; an infinite value leaves the
prediction undefined (NaN). A category never seen in training simply hashes: it gets the weight of what it collides
with, which is 0 in a sparse vector.

Training and scoring use the same code to find indices: `hash_matrix` gives the design matrix whose coefficients are
the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.columns import Columns, Term, hash_term, table_columns
from bidsim.models.manifest import Feature, HashedHead, HashedSpec, Scale

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class HashedLogisticRegression:
    """A trained model. weights: shape (2**spec.bits,), finite; features: at least those that the spec names."""

    spec: HashedSpec
    features: tuple[Feature, ...]
    weights: Weights
    bias: float

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """Probabilities, shape (rows,)."""
        # Overflow and underflow mean 0, 1 or an undefined prediction, which is the right answer each time.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            z = np.full(columns.rows, self.bias, dtype=np.float64)
            for name in self.spec.features:
                if columns.feature(name).type == "numeric":
                    weight = float(self.weights[index_of(hash_term([name]), self.spec.bits)])
                    z += weight * scaled(columns.numeric(name), self.spec.scaling.get(name))
                else:
                    self._weigh(columns, (name,), z)
            for cross in self.spec.crosses:
                self._weigh(columns, cross, z)
            return np.asarray(1.0 / (1.0 + np.exp(-z)), dtype=np.float64)

    def predict_table(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.float64]:
        """Probabilities for a whole table, shape (rows,)."""
        return self.predict(table_columns(table, self.features))

    def payload(self) -> bytes:
        """The weights as the bundle keeps them: little-endian float32."""
        return np.ascontiguousarray(self.weights, dtype="<f4").tobytes()

    def packed(self, head: str) -> tuple[HashedHead, dict[str, bytes]]:
        """See `native.NativeModel`."""
        name = f"{head}/weights.f32"
        return HashedHead(payloads=(name,), spec=self.spec, bias=float(self.bias)), {name: self.payload()}

    @classmethod
    def load(
        cls, entry: HashedHead, features: tuple[Feature, ...], payload: bytes, *, head: str, file: str
    ) -> HashedLogisticRegression:
        """From a bundle's entry and payload; raises ModelError where they don't fit."""
        expected = 4 << entry.spec.bits
        if len(payload) != expected:
            raise ModelError(
                f"head {head} has {len(payload)} bytes of weights, not the {expected} of 2**{entry.spec.bits} weights; "
                "pack the model again",
                file=file,
            )
        weights = np.frombuffer(payload, dtype="<f4")
        if not np.isfinite(weights).all():
            raise ModelError(f"head {head} has weights that are NaN or infinite; train it again", file=file)
        return cls(entry.spec, features, weights, entry.bias)

    def _weigh(self, columns: Columns, names: tuple[str, ...], z: NDArray[np.float64]) -> None:
        """Add the term's part of z for each row: summed once per distinct value, then looked up."""
        if columns.add(names, self.weights, self._look_up, z):
            return
        term = columns.term(names)
        each = self._look_up(term.hashes)
        if term.starts is not None:  # lists: several weights to a value
            each = np.add.reduceat(each, term.starts[:-1])
        z += each if term.codes is None else each.take(term.codes)

    def _look_up(self, hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
        return np.asarray(self.weights.take(index_of(hashes, self.spec.bits)), dtype=np.float64)


def hash_matrix(table: pa.Table | pa.RecordBatch, spec: HashedSpec, features: tuple[Feature, ...]) -> Any:
    """The design matrix for training: a scipy.sparse.csr_matrix of float64, shape (rows, 2**bits).

    `bias + matrix @ weights` is the z that scoring computes; colliding terms of a row are summed. NULL or NaN numeric
    features are 0. Raises ModelError as scoring does, and for an infinite value.
    """
    from scipy.sparse import csr_matrix

    row, column, value = hash_cells(table_columns(table, features), spec)
    return csr_matrix((value, (row, column)), shape=(table.num_rows, 1 << spec.bits))


def hash_cells(columns: Columns, spec: HashedSpec) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row, index of the weight, and value of each term of each row, feature by feature; colliding terms stay apart.

    As `hash_matrix`, which sums them. Shape (terms,) each. Raises ModelError as it does.
    """
    rows = np.arange(columns.rows, dtype=np.int64)
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for name in spec.features:
        if columns.feature(name).type != "numeric":
            parts.append(_cells(columns.term((name,)), rows, spec.bits))
            continue
        values = scaled(columns.numeric(name), spec.scaling.get(name))
        if not np.isfinite(values).all():
            raise ModelError(f'feature "{name}" is infinite in some row; mend the log before training')
        parts.append((rows, np.full(len(rows), index_of(hash_term([name]), spec.bits), dtype=np.int64), values))
    parts += [_cells(columns.term(cross), rows, spec.bits) for cross in spec.crosses]
    row, column, value = (np.concatenate([part[i] for part in parts]) if parts else rows[:0] for i in range(3))
    return row, column, value.astype(np.float64)


def index_of(hashes: Any, bits: int) -> Any:
    if isinstance(hashes, int):
        return hashes & ((1 << bits) - 1)
    return (hashes & np.uint64((1 << bits) - 1)).view(np.int64)


def scaled(values: NDArray[np.float64], scale: Scale | None) -> NDArray[np.float64]:
    """NaN (missing) becomes 0; infinity becomes NaN, for there is no sensible prediction."""
    if scale is not None:
        values = (values - scale.mean) / scale.scale
    return np.where(np.isnan(values), 0.0, np.where(np.isinf(values), np.nan, values))


def _cells(term: Term, rows: NDArray[np.int64], bits: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Row, column and value of the matrix cells that a term fills."""
    codes = rows if term.codes is None else term.codes
    if term.starts is None:
        return rows, index_of(term.hashes, bits)[codes], np.ones(len(rows))
    counts = np.diff(term.starts)[codes]
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    places = np.repeat(term.starts[codes], counts) + within
    return np.repeat(rows, counts), index_of(term.hashes, bits)[places], np.ones(len(places))
