"""The bundle `m.bin`: one file with a model's heads, what they read, and a checksum of every part.

A zip of stored entries: `manifest.json` first, then the payloads by name, with fixed dates, modes and order, so equal
input gives equal bytes. `open_bundle` checks everything before any payload is parsed; see `archive` for the zip and
`manifest` for the JSON.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.archive import (
    MAX_BYTES,
    MAX_MEMBERS,
    archive_bytes,
    name_problem,
    parse_archive,
    read_model_file,
    write_archive,
)
from bidsim.models.columns import Columns, HashCache
from bidsim.models.factorization import FactorizationMachine
from bidsim.models.hashed import HashedLogisticRegression
from bidsim.models.head import HeadModel
from bidsim.models.libraries import load_library_head
from bidsim.models.manifest import (
    MANIFEST_BYTES,
    FactorizationHead,
    HashedHead,
    LibraryHead,
    Manifest,
    PayloadEntry,
    columns_read,
    head_features,
    parse_manifest,
)
from bidsim.models.recalibration import recalibrate
from bidsim.models.sandbox import Limits
from bidsim.models.scorer import Scorer
from bidsim.models.serving import ServedScorer
from bidsim.models.sklearn_pipeline import load_pipeline
from bidsim.models.tables import example_batch
from bidsim.scenario.schema import Head

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """An opened, checked model file.

    sha256: of the whole file, hex. The content is held in memory: a file that changes later changes nothing here.
    """

    path: Path
    manifest: Manifest
    sha256: str
    _data: bytes = field(repr=False)
    _members: Mapping[str, tuple[int, int]] = field(repr=False)

    def payload(self, name: str) -> bytes:
        """The bytes of one payload. Raises ModelError where the bundle has none of that name."""
        if name == MANIFEST or name not in self._members:
            raise ModelError(f"the bundle has no payload {name}", file=str(self.path))
        offset, size = self._members[name]
        return self._data[offset : offset + size]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the log columns that the model reads, each once."""
        used = {name for entry in self.manifest.heads.values() for name in head_features(entry)}
        return columns_read(self.manifest.features, used)

    def scorer(self, limits: Limits | None = None, threads: int | None = None) -> Scorer:
        """Load every head. Raises ModelError where a payload can't be loaded or its examples come out differently.

        Where a head belongs to a library that may crash, all is loaded and scored in child processes, within `limits`,
        `threads` batches at once (default: as many as there are cores).
        """
        native = all(isinstance(entry, HashedHead | FactorizationHead) for entry in self.manifest.heads.values())
        if native or os.name != "posix":
            return self.load()
        return ServedScorer(self, limits, threads)

    def load(self, begin: Callable[[str], None] = lambda payload: None) -> BundleScorer:
        """As `scorer`, at once in this process. begin: told the name of each payload before it is loaded."""
        models: dict[Head, HeadModel] = {}
        for head in self.manifest.order:
            begin(self.manifest.heads[head].payloads[0])
            models[head] = self._load_head(head)
        scorer = BundleScorer(self.manifest, models, self.features, str(self.path))
        scorer.check_examples()
        return scorer

    def write(self, path: str | os.PathLike[str]) -> Bundle:
        """Write the bundle, whole or not at all, and open it again to be sure."""
        write_archive(
            Path(path), {name: self._data[start : start + size] for name, (start, size) in self._members.items()}
        )
        return open_bundle(path)

    @property
    def data(self) -> bytes:
        """The whole file."""
        return self._data

    def of_file(self, data: bytes) -> Bundle:
        """The same model under the sha256 of the file that it was made from."""
        return replace(self, sha256=hashlib.sha256(data).hexdigest())

    def with_manifest(self, **changes: Any) -> Bundle:
        """The same payloads under a changed manifest; nothing is written."""
        payloads = {name: self.payload(name) for name in self._members if name != MANIFEST}
        return build_bundle(self.path, self.manifest.model_copy(update=changes), payloads)

    def _load_head(self, head: Head) -> HeadModel:
        file = str(self.path)
        entry = self.manifest.heads[head]
        features = self.manifest.features
        payloads = [self.payload(name) for name in entry.payloads]
        if isinstance(entry, HashedHead):
            return HashedLogisticRegression.load(entry, features, payloads[0], head=head, file=file)
        if isinstance(entry, FactorizationHead):
            return FactorizationMachine.load(entry, features, *payloads, head=head, file=file)
        if isinstance(entry, LibraryHead):
            categories = payloads[1] if len(payloads) > 1 else None
            return load_library_head(entry, payloads[0], categories, head=head, file=file)
        return load_pipeline(entry, features, payloads[0], head=head, file=file)


class BundleScorer:
    """All heads of one bundle; a column is encoded once per batch however many heads read it."""

    def __init__(
        self, manifest: Manifest, models: Mapping[Head, HeadModel], features: tuple[str, ...], file: str
    ) -> None:
        self.heads: tuple[Head, ...] = manifest.order
        self.features = features
        self._manifest = manifest
        self._models = dict(models)
        self._file = file
        self._cache = HashCache()

    def score(
        self, batch: pa.RecordBatch, begin: Callable[[int], None] = lambda place: None
    ) -> dict[str, NDArray[np.float64]]:
        """See `Scorer.score`. begin: told the number of each head before it is scored."""
        columns = Columns(batch, self._manifest.features, cache=self._cache, file=self._file)
        scores: dict[str, NDArray[np.float64]] = {}
        for place, head in enumerate(self.heads):
            begin(place)
            steps = self._manifest.recalibration.get(head, ())
            scores[head] = recalibrate(self._models[head].predict(columns), steps)
        return scores

    def check_examples(self) -> None:
        """Score the rows kept in the manifest: another library version may load well and predict otherwise."""
        examples = self._manifest.examples
        if examples is None:
            return
        batch = example_batch(examples.columns, self._file)
        missing = sorted(set(self.features) - set(examples.columns))
        if missing:
            raise ModelError(f"the manifest's examples lack column {missing[0]}; pack it again", file=self._file)
        scores = self.score_alone(batch)
        for head, expected in examples.predictions.items():
            got = scores.get(head)
            if got is None or not np.allclose(got, expected, rtol=self._tolerance(head), atol=1e-12):
                packed = ", ".join(f"{name} {version}" for name, version in sorted(self._manifest.versions.items()))
                raise ModelError(
                    f"head {head} predicts otherwise than when it was packed (with {packed or 'unknown versions'}); "
                    "install these versions or pack the model again",
                    file=self._file,
                )

    def score_alone(self, batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
        """As `score`, of a few rows. Raises ModelError where a row's prediction depends on the rows around it."""
        scores = self.score(batch)
        half = batch.num_rows // 2
        parts = [self.score(part) for part in (batch.slice(0, half), batch.slice(half))] if half else []
        for head in self.heads if parts else ():
            alone = np.concatenate([part[head] for part in parts])
            if not np.allclose(alone, scores[head], rtol=self._tolerance(head), atol=1e-12, equal_nan=True):
                raise ModelError(
                    f"head {head} predicts otherwise for the same row when other rows are around it, as a model does that "
                    "draws at random or takes means over its input; export it as it is used to score one request",
                    file=self._file,
                )
        return scores

    def _tolerance(self, head: Head) -> float:
        """The libraries sum in float32, in an order that depends on the processor."""
        return 1e-5 if isinstance(self._manifest.heads[head], LibraryHead) else 1e-6


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open and check a model file.

    Raises ModelError, naming the file and what to do, for anything that is not a whole, unchanged bundle.
    """
    return bundle_from_bytes(path, read_model_file(Path(path)))


def bundle_from_bytes(path: str | os.PathLike[str], data: bytes) -> Bundle:
    """As `open_bundle`, of a file that was read already; path: for messages."""
    where = Path(path)
    file = str(path)
    members = parse_archive(data, file)
    if members[MANIFEST][1] > MANIFEST_BYTES:
        raise ModelError(f"manifest.json has more than {MANIFEST_BYTES} bytes; pack the model again", file=file)
    offset, size = members[MANIFEST]
    manifest = parse_manifest(data[offset : offset + size], file)
    _check_payloads(manifest, data, members, file)
    return Bundle(where, manifest, hashlib.sha256(data).hexdigest(), data, members)


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, payloads: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, whole or not at all, and open it again to be sure.

    manifest: its `payloads` are replaced by the sizes and hashes of the given ones.
    payloads: exactly those that the heads name, such as {"ctr/weights.f32": ...}.
    Raises ModelError where names don't fit, or the file can't be written.
    """
    return build_bundle(path, manifest, payloads).write(path)


def build_bundle(path: str | os.PathLike[str], manifest: Manifest, payloads: Mapping[str, bytes]) -> Bundle:
    """As `write_bundle`, in memory; path: for messages."""
    file = str(path)
    entries = {
        name: PayloadEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in sorted(payloads.items())
    }
    whole = manifest.model_copy(update={"payloads": entries})
    text = whole.to_json()
    problem = _write_problem(whole, payloads, text)
    if problem:
        raise ModelError(problem, file=file)
    parse_manifest(text, file)
    return bundle_from_bytes(path, archive_bytes({MANIFEST: text, **{n: payloads[n] for n in sorted(payloads)}}))


def _write_problem(manifest: Manifest, payloads: Mapping[str, bytes], text: bytes) -> str | None:
    named = {name for entry in manifest.heads.values() for name in entry.payloads}
    if named != set(payloads):
        return f"the heads name payloads {sorted(named)}, given are {sorted(payloads)}"
    if len(payloads) >= MAX_MEMBERS or sum(map(len, payloads.values())) + len(text) > MAX_BYTES:
        return f"a bundle holds at most {MAX_MEMBERS} members and {MAX_BYTES} bytes"
    return next(filter(None, map(name_problem, payloads)), None)


def _check_payloads(manifest: Manifest, data: bytes, members: Mapping[str, tuple[int, int]], file: str) -> None:
    def bad(what: str) -> ModelError:
        return ModelError(f"{what}; the file was changed or damaged: copy it again or pack the model again", file=file)

    named = {name for entry in manifest.heads.values() for name in entry.payloads}
    present = set(members) - {MANIFEST}
    for names, others, what in (
        (present, manifest.payloads.keys(), "member {} is not in the manifest"),
        (manifest.payloads.keys(), present, "the manifest lists {}, which the bundle lacks"),
        (named, present, "a head needs {}, which the bundle lacks"),
        (present, named, "member {} belongs to no head"),
    ):
        stray = sorted(set(names) - set(others))
        if stray:
            raise bad(what.format(stray[0]))
    view = memoryview(data)
    for name, entry in manifest.payloads.items():
        offset, size = members[name]
        if size != entry.size:
            raise bad(f"{name} has {size} bytes, the manifest says {entry.size}")
        if hashlib.sha256(view[offset : offset + size]).hexdigest() != entry.sha256:
            raise bad(f"{name} is not what was packed (its sha256 differs)")
