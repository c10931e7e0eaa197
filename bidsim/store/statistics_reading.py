"""The tables of a saved run, from its statistics.parquet (see `statistics`).

A file may come from anyone: it is read as data, and what does not fit together is refused.
"""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.arrays import values_of
from bidsim.errors import BidsimError
from bidsim.statistics.calibration import BINS, Bins
from bidsim.statistics.identified import FATES, SHARED, Range, SettledPair, Unknown, UnknownPair
from bidsim.statistics.identified import SUMS as FATE_SUMS
from bidsim.statistics.matched_range import MatchedRanges
from bidsim.statistics.prices import FATES as PRICE_FATES
from bidsim.statistics.prices import PRICE_BUCKETS, Prices
from bidsim.statistics.split import SUMS, Stage
from bidsim.statistics.tables import AtLevel, Matched, Outline, Ranked, ScoreGrid, Tables
from bidsim.statistics.tallies import LIMB, OVERALL, Family, Key
from bidsim.store.statistics import COLUMNS, ENDS, SCHEMA, Place
from bidsim.versions import other_version

MOST_BYTES = 2**30
MOST_CELLS = 4096  # of the grid of prices
Floats = npt.NDArray[np.float64]


def read_tables(file: Path) -> Tables:
    """The tables of a saved run. Raises BidsimError where the file is missing, of another version, or damaged."""
    name = str(file)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BidsimError("the statistics are larger than 1 GB; this is not a file that bidsim wrote", file=name)
        # On this thread: threads of pyarrow that read a file of Python's may outlive the interpreter, and abort it.
        with pq.ParquetFile(io.BytesIO(file.read_bytes()), page_checksum_verification=True) as opened:
            table = opened.read(use_threads=False)
        given = json.loads((table.schema.metadata or {}).get(b"bidsim", b"{}"))
    except FileNotFoundError:
        raise BidsimError(
            "the run has no statistics.parquet (it was made by an older bidsim); replay the log again", file=name
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BidsimError(f"the statistics can't be read ({str(error).splitlines()[0][:120]})", file=name) from error
    if not isinstance(given, dict) or given.get("schema") != SCHEMA:
        found = given.get("schema") if isinstance(given, dict) else None
        other = other_version(found, SCHEMA, "replay the log again")
        raise BidsimError(other or f"the statistics are of no known schema, not {SCHEMA}; replay again", file=name)
    try:
        return _Reader(table, given).tables()
    except (KeyError, IndexError, TypeError, ValueError, pa.ArrowException) as error:
        raise BidsimError(
            "the statistics are damaged: their parts don't fit together; replay the log again", file=name
        ) from error


class _Reader:
    """The long table, cut into blocks of one place each."""

    def __init__(self, table: pa.Table, given: dict[str, Any]) -> None:
        if table.schema.names != list(COLUMNS):
            raise ValueError("columns")
        if given["rows"] != len(table):
            raise ValueError("rows")
        self.given = given
        texts: list[list[str]] = []
        codes = []
        for name in ("table", "name", "head", "family"):
            column = table.column(name).combine_chunks().dictionary_encode()
            texts.append(column.dictionary.to_pylist())
            codes.append(values_of(column.indices).astype(np.int64))
        policy = values_of(table.column("policy").combine_chunks()).astype(np.int64)
        key = policy + 1
        for code, text in zip(codes, texts, strict=True):
            key = key * (len(text) + 1) + code
        edges = (
            np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1, [len(key)]]) if len(key) else np.zeros(1, int)
        )
        numbers = ("value", "bucket", "number", "high", "low")
        self.columns = {name: values_of(table.column(name).combine_chunks()) for name in numbers}
        self.places: dict[Place, slice] = {}
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            what, name, head, family = (text[code[begin]] for text, code in zip(texts, codes, strict=True))
            place = (what, name, int(policy[begin]), head, family)
            if place in self.places:
                raise ValueError("order")
            self.places[place] = slice(begin, end)

    def array(self, place: Place, shape: tuple[int, ...]) -> Floats:
        out = np.zeros(shape)
        if place not in self.places:
            return out
        rows = self.places[place]
        value, bucket = self.columns["value"][rows], self.columns["bucket"][rows]
        at = value if len(shape) == 1 else value.astype(np.int64) * shape[1] + bucket
        if (value < 0).any() or (bucket < 0).any() or (len(shape) == 2 and (bucket >= shape[1]).any()):
            raise ValueError("place")
        out.reshape(-1)[at] = self.columns["number"][rows]
        return out

    def width(self, place: Place) -> int:
        rows = self.places.get(place)
        return 0 if rows is None else int(self.columns["bucket"][rows].max()) + 1

    def has(self, place: Place) -> bool:
        return place in self.places

    def family(self, name: str) -> Family:
        about = self.given["families"][name]
        values, buckets = tuple(str(v) for v in about["values"]), int(about["buckets"])
        scales: dict[Key, int] = {_unkey(*k): int(scale) for *k, scale in self.given["scales"]}
        sums: dict[Key, npt.NDArray[np.object_]] = {}
        parts: dict[Key, Floats] = {}
        expected: dict[Key, Floats] = {}
        reruns: dict[Key, Floats] = {}
        for (table, what, policy, head, family), rows in self.places.items():
            if family != name or table not in ("total", "sum", "expected", "rerun"):
                continue
            key = _unkey(what, policy, head)
            if table == "total":
                high, low = (self.columns[c][rows].astype(object) for c in ("high", "low"))
                if len(high) != len(values):
                    raise ValueError("totals")
                sums[key] = high * (1 << LIMB) + low
            elif table == "rerun":
                place = (table, what, policy, head, family)
                groups = self.width(place)
                if buckets % groups:
                    raise ValueError("groups")
                reruns[key] = self.array(place, (len(values), groups))
            else:
                kept = parts if table == "sum" else expected
                kept[key] = self.array((table, what, policy, head, family), (len(values), buckets))
        return Family(name, values, sums, scales, parts, buckets, expected, reruns)

    def ranked(self, head: str, source: int, family: Family) -> Ranked:
        size, buckets = len(family.values), family.buckets

        def place(table: str, what: str) -> Place:
            return (table, what, source, head, family.name)

        width = self.width(place("bins", "weight"))
        columns = [self.array(place("bins", what), (size, width)) for what in ("weight", "predicted", "observed")]
        bins = []
        for row in zip(*columns, strict=True):
            used = ~np.isnan(row[0])
            bins.append(Bins(*(c[used] for c in row)))
        grid = None
        if self.has(place("grid", "score")):
            cells = self.places[place("grid", "score")]
            count = cells.stop - cells.start
            below, above = (self.array(place("grid", what), (buckets, count)) for what in ("negative", "positive"))
            grid = ScoreGrid(below, above, self.array(place("grid", "score"), (count,)))
        elif family.name == OVERALL:
            grid = ScoreGrid(np.zeros((buckets, 0)), np.zeros((buckets, 0)), np.zeros(0))
        return Ranked(
            self.array(place("rank", "auc"), (size,)),
            self.array(place("rank", "recalibrated"), (size,)),
            bins,
            self.array(place("rank", "won"), (size, buckets)),
            self.array(place("rank", "lost"), (size, buckets)),
            grid,
            self.array(wiggle, (size,)) if self.has(wiggle := place("rank", "wiggle")) else None,
            self.array(spans, (size, BINS)) if self.has(spans := place("rank", "spans")) else None,
        )

    def matched(self, policy: int, family: Family) -> Matched | None:
        size = len(family.values)
        if not self.has(("matched", "multiplier", policy, "", family.name)):
            return None
        level = None
        if self.has(("level", "clicks_slope", policy, "", family.name)):
            groups = self.width(("level", "spend", policy, "", family.name))
            level = AtLevel(
                *(
                    self.array(
                        ("level", f.name, policy, "", family.name),
                        (size,) if f.name.endswith("slope") else (size, groups),
                    )
                    for f in fields(AtLevel)
                )
            )
        multiplier, spend, clicks, conversions = (
            self.array(("matched", what, policy, "", family.name), (size,)) for what in ("multiplier", *SUMS)
        )
        return Matched(multiplier, spend, clicks, conversions, level)

    def worlds(self, policy: int, side: str, family: Family) -> dict[tuple[str, str], dict[str, Floats]]:
        """Older files lack the worlds between bids: there they add nothing."""
        out = {}
        for own, shared in itertools.product(FATES, SHARED):
            given = [("fate", w, policy, f"{side} {own} {shared}", family.name) for w in FATE_SUMS]
            older = [("fate", w, policy, f"{side} {own} {FATES[0]}", family.name) for w in FATE_SUMS]
            places = given if self.has(given[0]) else older
            out[(own, shared)] = {p[1]: self.array(p, (len(family.values),)) for p in places if self.has(p)}
        return out

    def unknown(self, policy: int, family: Family) -> UnknownPair | SettledPair:
        size = len(family.values)
        if self.has(("fate", "wins", policy, f"candidate {FATES[0]} {FATES[0]}", family.name)):
            sides = [self.worlds(policy, side, family) for side in ("candidate", "baseline")]
            return SettledPair(*sides)
        return UnknownPair(
            *(
                Unknown(
                    *(
                        self.array(("unknown", part.name, policy, side.name, family.name), (size,))
                        for part in fields(Unknown)
                    )
                )
                for side in fields(UnknownPair)
            )
        )

    def at_matched(self, policy: int, family: Family) -> MatchedRanges | None:
        """Older files have none."""
        found: dict[str, dict[str, dict[str, Floats]]] = {}
        for table, what, index, _, name in self.places:
            if (table, index, name) == ("range", policy, family.name):
                which, metric, end = what.split()
                numbers = self.array((table, what, index, "", name), (len(family.values),))
                found.setdefault(which, {}).setdefault(metric, {})[end] = numbers
        if not found:
            return None

        def spans(which: str) -> dict[str, Range]:
            return {metric: (ends[ENDS[0]], ends[ENDS[1]]) for metric, ends in found.get(which, {}).items()}

        return MatchedRanges(*(spans(part.name) for part in fields(MatchedRanges)))

    def stage(self, policy: int, name: str) -> Stage:
        found = [w for w in SUMS if self.has(("stage", w, policy, name, "total"))]
        return Stage(
            {w: float(self.array(("stage", w, policy, name, "total"), (1,))[0]) for w in found},
            {
                w: self.array(
                    ("stage", w, policy, name, "parts"), (1, self.width(("stage", w, policy, name, "parts")))
                )[0]
                for w in found
            },
        )

    def prices(self, policies: int) -> Prices | None:
        """Older files have none."""
        edge = ("prices", "edge", -1, "", OVERALL)
        if not self.has(edge):
            return None
        cells = self.places[edge].stop - self.places[edge].start
        if not 3 <= cells <= MOST_CELLS:
            raise ValueError("cells")
        edges = self.array(edge, (cells,))
        if edges[0] != 0 or not (np.diff(edges) > 0).all() or not np.isfinite(edges[-1]):
            raise ValueError("edges")
        fates = [
            [self.array(("prices", fate, p, "", OVERALL), (PRICE_BUCKETS, cells)) for fate in PRICE_FATES]
            for p in range(policies)
        ]
        bids = [self.array(("prices", "bids", p, "", OVERALL), (cells,)) for p in range(policies)]
        known = self.array(("prices", "known", -1, "", OVERALL), (2, 2))
        found = Prices(np.array(fates), np.array(bids), known, edges)
        if not all((np.isfinite(x) & (x >= 0)).all() for x in (found.fates, found.bids, known)):
            raise ValueError("prices")
        return found

    def tables(self) -> Tables:
        about = dict(self.given["outline"])
        about["sources"] = {(int(p), str(h)): int(s) for p, h, s in about["sources"]}
        for name in ("policies", "heads", "shown", "betas"):
            about[name] = tuple(about[name])
        outline = Outline(**about)
        families = {str(name): self.family(str(name)) for name in self.given["families"]}
        ranked = {
            (head, source, name): self.ranked(head, source, family)
            for head in outline.heads
            for source in dict.fromkeys(s for (_, h), s in outline.sources.items() if h == head)
            for name, family in families.items()
        }
        matched = {
            (policy, name): found
            for policy in range(1, len(outline.policies))
            for name, family in families.items()
            if (found := self.matched(policy, family)) is not None
        }
        stages = {
            policy: (self.stage(policy, "level"), self.stage(policy, "mix"))
            for policy in range(1, len(outline.policies))
            if self.has(("stage", "spend", policy, "level", "total"))
        }
        unknown = {
            (policy, name): self.unknown(policy, family)
            for name, family in families.items()
            for policy in range(1, len(outline.policies))
            if self.has(("unknown", "rows", policy, "candidate_alone", name))
            or self.has(("fate", "wins", policy, f"candidate {FATES[0]} {FATES[0]}", name))
        }
        at_matched = {
            (policy, name): ranges
            for policy in range(1, len(outline.policies))
            for name, family in families.items()
            if (ranges := self.at_matched(policy, family)) is not None
        }
        prices = self.prices(len(outline.policies))
        return Tables(outline, families, ranked, matched, stages, unknown, at_matched, prices)


def _unkey(name: str, policy: int, head: str) -> Key:
    return name, None if policy < 0 else policy, head or None
