"""statistics.parquet: the tables of one run in one long table, so that it can be judged and reported again.

One row a number: what it is (`table`, `name`, `policy`, `head`), where (`family`, `value`, `bucket`), and the number.
Totals of sums are whole numbers, high * 2^32 + low, in units of 1 / scale; sums by bucket are the same as doubles, so
tables of parts of a log add up. What the codes mean is JSON in the file's metadata. Zeros of sums are left out.
See `statistics_reading` for the way back.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.arrays import array_of, array_of_texts
from bidsim.statistics.identified import SettledPair, Unknown, UnknownPair
from bidsim.statistics.matched_range import MatchedRanges
from bidsim.statistics.prices import FATES
from bidsim.statistics.split import SUMS
from bidsim.statistics.tables import AtLevel, Tables
from bidsim.statistics.tallies import LIMB, OVERALL, Key

SCHEMA = "bidsim.statistics/1"
ENDS = ("low", "high")
COLUMNS = {
    "table": pa.dictionary(pa.int8(), pa.string()),
    "name": pa.dictionary(pa.int16(), pa.string()),
    "policy": pa.int16(),
    "head": pa.dictionary(pa.int8(), pa.string()),
    "family": pa.dictionary(pa.int16(), pa.string()),
    "value": pa.int32(),
    "bucket": pa.int32(),
    "number": pa.float64(),
    "high": pa.int64(),
    "low": pa.int64(),
}
Floats = npt.NDArray[np.float64]
Place = tuple[str, str, int, str, str]  # table, name, policy, head, family


def tables_to_parquet(tables: Tables) -> bytes:
    """The file's content: the same tables give the same bytes."""
    blocks = list(_blocks(tables))
    sizes = [len(block[1]) for block in blocks]
    columns: list[pa.Array] = []
    for i, name in enumerate(("table", "name", "policy", "head", "family")):
        each = [block[0][i] for block in blocks]
        if name == "policy":
            columns.append(array_of(np.repeat(np.array(each, dtype=np.int16), sizes)))
            continue
        distinct = list(dict.fromkeys(each))
        place = {text: k for k, text in enumerate(distinct)}
        kind = COLUMNS[name]
        codes = np.repeat(np.array([place[text] for text in each], dtype=kind.index_type.to_pandas_dtype()), sizes)
        columns.append(
            pa.DictionaryArray.from_arrays(array_of(codes), array_of_texts([str(text) for text in distinct]))
        )
    for i in range(1, 6):
        parts = [block[i] for block in blocks]
        columns.append(array_of(np.concatenate(parts)))
    schema = pa.schema(
        list(COLUMNS.items()),
        metadata={"bidsim": json.dumps(_outline(tables) | {"rows": sum(sizes)}, ensure_ascii=True)},
    )
    table = pa.Table.from_arrays(columns, schema=schema)
    sink = io.BytesIO()
    # A dictionary of numbers that hardly repeat takes time and room; their bytes side by side compress better.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=["table", "name", "head", "family"],
        column_encoding={"number": "BYTE_STREAM_SPLIT"},
    )
    return sink.getvalue()


Block = tuple[Place, Any, Any, Any, Any, Any]


def _block(place: Place, numbers: Floats, *, drop_zeros: bool = False) -> Block:
    """Rows of an array of shape (values,) or (values, buckets)."""
    flat = np.asarray(numbers, dtype=np.float64)
    buckets = flat.shape[1] if flat.ndim == 2 else 1
    flat = flat.reshape(-1)
    kept = np.flatnonzero(flat) if drop_zeros else np.arange(len(flat))
    zero = np.zeros(len(kept), dtype=np.int64)
    return (
        place,
        (kept // buckets).astype(np.int32),
        (kept % buckets).astype(np.int32),
        flat[kept],
        zero,
        zero,
    )


def _totals(place: Place, whole: npt.NDArray[np.object_]) -> Block:
    count = len(whole)
    high = np.array([int(v) >> LIMB for v in whole], dtype=np.int64)
    low = np.array([int(v) & (2**LIMB - 1) for v in whole], dtype=np.int64)
    values = np.arange(count, dtype=np.int32)
    return place, values, np.zeros(count, dtype=np.int32), np.zeros(count), high, low


def _blocks(tables: Tables) -> Iterator[Block]:
    for name, family in tables.families.items():
        for key, sums in sorted(family.sums.items(), key=lambda item: str(item[0])):
            yield _totals(("total", *_key(key), name), sums)
        for key, parts in sorted(family.parts.items(), key=lambda item: str(item[0])):
            yield _block(("sum", *_key(key), name), parts, drop_zeros=True)
        for key, parts in sorted(family.expected.items(), key=lambda item: str(item[0])):
            yield _block(("expected", *_key(key), name), parts)
        for key, parts in sorted(family.reruns.items(), key=lambda item: str(item[0])):
            yield _block(("rerun", *_key(key), name), parts)
    for (head, source, name), ranked in tables.ranked.items():
        for what in ("auc", "recalibrated", "won", "lost", "wiggle", "spans"):
            if (numbers := getattr(ranked, what)) is not None:
                yield _block(("rank", what, source, head, name), numbers, drop_zeros=what in ("won", "lost"))
        width = max((len(b.weight) for b in ranked.bins), default=0)
        for what in ("weight", "predicted", "observed"):
            rows = [np.append(getattr(b, what), np.full(width - len(b.weight), np.nan)) for b in ranked.bins]
            yield _block(("bins", what, source, head, name), np.array(rows).reshape(len(rows), width))
        if ranked.grid is not None:
            yield _block(("grid", "negative", source, head, name), ranked.grid.negative, drop_zeros=True)
            yield _block(("grid", "positive", source, head, name), ranked.grid.positive, drop_zeros=True)
            yield _block(("grid", "score", source, head, name), ranked.grid.score)
    for (policy, name), matched in tables.matched.items():
        for what in ("multiplier", *SUMS):
            yield _block(("matched", what, policy, "", name), getattr(matched, what))
        if matched.level is not None:
            for part in fields(AtLevel):
                yield _block(("level", part.name, policy, "", name), getattr(matched.level, part.name))
    for (policy, name), unknown in tables.unknown.items():
        if isinstance(unknown, SettledPair):
            for which, worlds in (("candidate", unknown.candidate), ("baseline", unknown.baseline)):
                for (own, shared), world in worlds.items():
                    for what, numbers in world.items():
                        yield _block(("fate", what, policy, f"{which} {own} {shared}", name), numbers)
            continue
        for side in fields(UnknownPair):
            for part in fields(Unknown):
                numbers = getattr(getattr(unknown, side.name), part.name)
                yield _block(("unknown", part.name, policy, side.name, name), numbers)
    for (policy, name), ranges in tables.at_matched.items():
        for quantity in fields(MatchedRanges):
            for metric, span in getattr(ranges, quantity.name).items():
                for end, numbers in zip(ENDS, span, strict=True):
                    yield _block(("range", f"{quantity.name} {metric} {end}", policy, "", name), numbers)
    if tables.prices is not None:
        prices = tables.prices
        yield _block(("prices", "edge", -1, "", OVERALL), prices.edges)
        yield _block(("prices", "known", -1, "", OVERALL), prices.known)
        for policy, (fates, bids) in enumerate(zip(prices.fates, prices.bids, strict=True)):
            for fate, numbers in zip(FATES, fates, strict=True):
                yield _block(("prices", fate, policy, "", OVERALL), numbers, drop_zeros=True)
            yield _block(("prices", "bids", policy, "", OVERALL), bids, drop_zeros=True)
    for policy, pair in tables.stages.items():
        for stage, name in zip(pair, ("level", "mix"), strict=True):
            for what, total in stage.totals.items():
                yield _block(("stage", what, policy, name, "total"), np.array([total]))
                yield _block(("stage", what, policy, name, "parts"), stage.parts[what][None, :])


def _key(key: Key) -> tuple[str, int, str]:
    return key[0], -1 if key[1] is None else key[1], key[2] or ""


def _outline(tables: Tables) -> dict[str, Any]:
    outline = asdict(tables.outline)
    outline["sources"] = [[policy, head, source] for (policy, head), source in tables.outline.sources.items()]
    scales = tables.families[OVERALL].scales
    return {
        "schema": SCHEMA,
        "outline": outline,
        "families": {name: {"values": f.values, "buckets": f.buckets} for name, f in tables.families.items()},
        "scales": [[*_key(key), scale] for key, scale in scales.items()],
    }
