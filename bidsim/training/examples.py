"""Labelled examples on disk: what an extraction holds, checked when it is opened, and streams of its batches.

An extraction is a folder with `manifest.json` and one folder of Parquet parts for each set and sample type
(`train/imp-click/part-00000.parquet`). Rows lie in the order of time, so that a model meets them as it would have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidsim.errors import BidsimError
from bidsim.scenario.schema import SAMPLE_HEAD, Head
from bidsim.versions import other_version, schema_of

SCHEMA: Literal["bidsim.extraction/1"] = "bidsim.extraction/1"
MANIFEST = "manifest.json"
BATCH_ROWS = 65_536
MOST_FEATURES, MOST_CHARACTERS = 1000, 200  # and in the name of one, as a bundle has them
HEAD_SAMPLE = {head: sample for sample, head in SAMPLE_HEAD.items()}

SetName = Literal["train", "evaluation"]
Role = Literal["label", "weight", "time", "campaign", "unit"]
Kind = Literal["numeric", "categorical", "list"]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Part(Entry):
    """One Parquet file; path: relative to the extraction's folder."""

    path: str
    rows: Annotated[int, Field(ge=0)]
    bytes: int
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Sample(Entry):
    """The examples of one sample type in one set. weight, positive_weight: sums of the weight column."""

    rows: Annotated[int, Field(ge=0)]
    positives: int
    weight: float
    positive_weight: float
    negatives_kept: float = Field(description="share of the negatives; theirs is the weight of those left out")
    files: tuple[Part, ...]

    @model_validator(mode="after")
    def _all_in_files(self) -> Sample:
        held = sum(part.rows for part in self.files)
        if held != self.rows:
            raise ValueError(f"its files have {held} rows, not {self.rows}")
        return self


class Removed(Entry):
    """A campaign left out as anomalous, and by what: more conversions than clicks, or a jump on a day."""

    campaign: str
    clicks: int
    conversions: int
    jump: str | None = None


class Span(Entry):
    """ISO 8601 in UTC, start inclusive, end exclusive."""

    start: str
    end: str


class ExampleSet(Entry):
    window: Span | None = Field(description="null: all rows of a log of its own")
    removed_campaigns: tuple[Removed, ...]
    samples: Annotated[dict[str, Sample], Field(min_length=1)]


class FeatureColumn(Entry):
    """type: as the engine read it from the training log; kind: what a model takes it for unless told otherwise."""

    name: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
    type: str
    kind: Kind


class ExtractionManifest(Entry):
    schema_: Literal["bidsim.extraction/1"] = Field(default=SCHEMA, alias="schema")
    scenario: str = Field(description="name of the scenario")
    content_sha256: str = Field(description="over the keys of the scenario that decide which examples it gives")
    gap_hours: float
    features: Annotated[tuple[FeatureColumn, ...], Field(max_length=MOST_FEATURES)]
    columns: dict[Role, str] = Field(description="column of each role that the log has")
    train: ExampleSet
    evaluation: ExampleSet
    versions: dict[str, str]

    @model_validator(mode="after")
    def _rows_are_examples(self) -> ExtractionManifest:
        lacking = next((role for role in ("label", "weight") if role not in self.columns), None)
        if lacking is not None:
            raise ValueError(f"its rows have no {lacking}")
        stray = {*self.train.samples, *self.evaluation.samples} - SAMPLE_HEAD.keys()
        if stray:
            raise ValueError(f"there is no sample type {min(stray)}")
        return self

    def misfit(self, schema: pa.Schema) -> str | None:
        """What a part with these columns lacks, None where it has all."""
        names = {*self.columns.values(), *(feature.name for feature in self.features)}
        missing = sorted(names - set(schema.names))
        if missing:
            return f'it lacks column "{missing[0]}"'
        for role in ("label", "weight"):
            kind = schema.field(self.columns[role]).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                return f"its {role} is {kind}, not a number"
        return None

    def to_json(self) -> str:
        """The bytes of manifest.json."""
        return json.dumps(self.model_dump(by_alias=True, mode="json"), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Examples:
    """The examples of one head in one set."""

    directory: Path
    head: Head
    sample: Sample
    columns: dict[Role, str]

    def batches(self, start: int = 0, stop: int | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Rows [start, stop) in their order, at most `rows` at a time; each part is read only where it is needed.

        Raises BidsimError where a part can't be read.
        """
        import pyarrow.parquet as pq

        stop = self.sample.rows if stop is None else stop
        first = 0
        for part in self.sample.files:
            last = first + part.rows
            if first < stop and last > start:
                path = self.directory / part.path
                at = first
                try:
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches(rows, use_threads=False):
                            begin, end = max(start - at, 0), min(stop - at, batch.num_rows)
                            at += batch.num_rows
                            if end > begin:
                                yield batch.slice(begin, end - begin)
                except (OSError, pa.ArrowException) as error:
                    raise BidsimError(f"can't be read: {_brief(error)}; extract again", file=str(path)) from error
            first = last


@dataclass(frozen=True)
class Extraction:
    """An opened extraction. sha256: of its manifest, which holds those of all its files."""

    directory: Path
    manifest: ExtractionManifest
    sha256: str

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads that it has training examples for, in bidsim's order."""
        return tuple(head for sample, head in SAMPLE_HEAD.items() if sample in self.manifest.train.samples)

    def examples(self, head: Head, name: SetName = "train") -> Examples:
        """The examples of a head. Raises BidsimError where there are none of its sample type."""
        chosen = self.manifest.train if name == "train" else self.manifest.evaluation
        sample = chosen.samples.get(HEAD_SAMPLE[head])
        if sample is None:
            raise BidsimError(
                f"has no {HEAD_SAMPLE[head]} examples, which head {head} needs; name the sample type in the scenario "
                "and extract again",
                file=str(self.directory),
            )
        return Examples(self.directory, head, sample, self.manifest.columns)

    def check_asked(self, asked: Mapping[str, Any], file: str) -> None:
        """Whether hyperparameters that say which rows to extract say those that are here.

        asked: as given, without defaults; file: theirs. Raises BidsimError.
        """
        train = self.manifest.train
        span = train.window
        hours = None
        if span is not None:
            hours = (datetime.fromisoformat(span.end) - datetime.fromisoformat(span.start)) / timedelta(hours=1)
        kept = [s.negatives_kept for name, s in train.samples.items() if name != "click-conversion"]
        here = {"train_hours": hours, "gap_hours": self.manifest.gap_hours, "keep_negatives": min(kept, default=None)}
        for key, value in here.items():
            if value is not None and asked.get(key) is not None and asked[key] != value:
                raise BidsimError(
                    f"{key} is {asked[key]:g}, and the examples in {self.directory} were extracted with {value:g}; extract "
                    "again, or leave it out",
                    file=file,
                )


def open_extraction(directory: Path) -> Extraction:
    """Open an extraction and check every file against the manifest. Raises BidsimError."""
    file = directory / MANIFEST
    try:
        data = file.read_bytes()
        manifest = ExtractionManifest.model_validate_json(data)
    except OSError as error:
        raise BidsimError(
            f"is no extraction ({MANIFEST}: {error.strerror}); make one with bidsim extract", file=str(directory)
        ) from error
    except ValidationError as error:
        other = other_version(schema_of(data), SCHEMA, "extract again")
        if other:
            raise BidsimError(other, file=str(file)) from error
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(p) for p in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise BidsimError(f"{f'{place}: ' if place else ''}{said}; extract again", file=str(file)) from error
    for chosen in (manifest.train, manifest.evaluation):
        for sample in chosen.samples.values():
            for part in sample.files:
                _check(directory, part, manifest)
    return Extraction(directory, manifest, hashlib.sha256(data).hexdigest())


def _check(directory: Path, part: Part, manifest: ExtractionManifest) -> None:
    import pyarrow.parquet as pq

    path = directory / part.path
    if Path(part.path).is_absolute() or ".." in Path(part.path).parts or "\0" in part.path:
        raise BidsimError(f"names a file outside of itself: {part.path}; extract again", file=str(directory))
    try:
        digest = sha256_of(path)
        if digest != part.sha256:
            raise BidsimError("is not what was extracted (its sha256 differs); extract again", file=str(path))
        with pq.ParquetFile(path) as file:
            found = manifest.misfit(file.schema_arrow)
            rows = file.metadata.num_rows
    except OSError as error:
        raise BidsimError(f"can't be read: {error.strerror or _brief(error)}; extract again", file=str(path)) from error
    except pa.ArrowException as error:
        raise BidsimError(f"can't be read: {_brief(error)}; extract again", file=str(path)) from error
    if found is None and rows != part.rows:
        found = f"it has {rows} rows, not {part.rows}"
    if found is not None:
        raise BidsimError(f"is not what the manifest says: {found}; extract again", file=str(path))


def sha256_of(path: Path) -> str:
    """Of a file's content, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
