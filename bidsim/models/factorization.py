"""Factorization machines (Rendle 2010) over hashed terms, bidsim's own layout, with nothing to install.

z = bias + sum_i w_i x_i + 1/2 sum_f [(sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2], p = 1 / (1 + exp(-z)), in float64.
Terms, hashes, scaling and missing values are those of `hashed`: a category has x = 1, a numeric feature its scaled
value, and nothing where it is missing. Two terms that collide share weight and factors, each as a term of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.columns import Columns, Term, hash_term, table_columns
from bidsim.models.hashed import index_of, scaled
from bidsim.models.manifest import FactorizationHead, FactorizationSpec, Feature

Floats = NDArray[np.float64]
# For the rows of a slice: the sum of the term's weights, of its factors, and of their squares.
_Parts = Callable[[slice], tuple[Floats, Floats, Floats]]
CHUNK = 8192  # rows at a time: sums over factors of a whole batch would not fit the processor's cache


@dataclass(frozen=True)
class FactorizationMachine:
    """A trained model. features: at least those that the spec names.

    weights: shape (2**bits,); factors: shape (2**bits, spec.factors); float32, finite.
    """

    spec: FactorizationSpec
    features: tuple[Feature, ...]
    weights: NDArray[np.float32]
    factors: NDArray[np.float32]
    bias: float

    def predict(self, columns: Columns) -> Floats:
        """Probabilities, shape (rows,)."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            terms = [self._term(columns, names) for names in self._terms(columns)]
            numbers = [
                (self._at(hash_term([name])), scaled(columns.numeric(name), self.spec.scaling.get(name)))
                for name in self.spec.features
                if columns.feature(name).type == "numeric"
            ]
            z = np.full(columns.rows, self.bias, dtype=np.float64)
            for start in range(0, columns.rows, CHUNK):
                part = slice(start, start + CHUNK)
                sums = np.zeros((len(z[part]), self.spec.factors))
                squares = np.zeros(len(sums))
                for look_up in terms:
                    linear, vectors, square = look_up(part)
                    z[part] += linear
                    sums += vectors
                    squares += square
                for (weight, vector), values in numbers:
                    z[part] += weight * values[part]
                    sums += values[part, None] * vector
                    squares += values[part] ** 2 * (vector @ vector)
                z[part] += 0.5 * (np.einsum("rf,rf->r", sums, sums) - squares)
            return np.asarray(1.0 / (1.0 + np.exp(-z)), dtype=np.float64)

    def predict_table(self, table: pa.Table | pa.RecordBatch) -> Floats:
        """Probabilities for a whole table, shape (rows,)."""
        return self.predict(table_columns(table, self.features))

    def payloads(self) -> tuple[bytes, bytes]:
        """Weights and factors as the bundle keeps them: little-endian float32, factors term by term."""
        weights = np.ascontiguousarray(self.weights, dtype="<f4").tobytes()
        return weights, np.ascontiguousarray(self.factors, dtype="<f4").tobytes()

    def packed(self, head: str) -> tuple[FactorizationHead, dict[str, bytes]]:
        """See `native.NativeModel`."""
        names = (f"{head}/weights.f32", f"{head}/factors.f32")
        entry = FactorizationHead(payloads=names, spec=self.spec, bias=float(self.bias))
        return entry, dict(zip(names, self.payloads(), strict=True))

    @classmethod
    def load(
        cls,
        entry: FactorizationHead,
        features: tuple[Feature, ...],
        weights: bytes,
        factors: bytes,
        *,
        head: str,
        file: str,
    ) -> FactorizationMachine:
        """From a bundle's entry and payloads; raises ModelError where they don't fit."""
        spec = entry.spec
        for what, data, each in (("weights", weights, 1), ("factors", factors, spec.factors)):
            expected = (4 << spec.bits) * each
            if len(data) != expected:
                raise ModelError(
                    f"head {head} has {len(data)} bytes of {what}, not the {expected} of 2**{spec.bits} terms; "
                    "pack the model again",
                    file=file,
                )
            if not np.isfinite(np.frombuffer(data, dtype="<f4")).all():
                raise ModelError(f"head {head} has {what} that are NaN or infinite; train it again", file=file)
        vectors = np.frombuffer(factors, dtype="<f4").reshape(1 << spec.bits, spec.factors)
        return cls(spec, features, np.frombuffer(weights, dtype="<f4"), vectors, entry.bias)

    def _terms(self, columns: Columns) -> list[tuple[str, ...]]:
        single = [(name,) for name in self.spec.features if columns.feature(name).type != "numeric"]
        return [*single, *self.spec.crosses]

    def _term(self, columns: Columns, names: tuple[str, ...]) -> _Parts:
        term: Term = columns.term(names)
        places = index_of(term.hashes, self.spec.bits)
        if term.codes is None:
            return lambda part: self._look_up(places[part])
        linear, vectors, square = self._look_up(places)
        if term.starts is not None:  # lists: several terms to a value
            starts = term.starts[:-1]
            linear, square = np.add.reduceat(linear, starts), np.add.reduceat(square, starts)
            vectors = np.add.reduceat(vectors, starts, axis=0)
        codes = term.codes
        return lambda part: (linear.take(codes[part]), vectors.take(codes[part], axis=0), square.take(codes[part]))

    def _look_up(self, places: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """For each place its weight, its factors, and the sum of their squares."""
        vectors = self.factors.take(places, axis=0).astype(np.float64)
        return self.weights.take(places).astype(np.float64), vectors, np.einsum("if,if->i", vectors, vectors)

    def _at(self, hashed: int) -> tuple[float, Floats]:
        place = index_of(hashed, self.spec.bits)
        return float(self.weights[place]), self.factors[place].astype(np.float64)
