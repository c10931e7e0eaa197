"""From a stream of labelled rows to Parquet parts: which negatives stay, and files whose bytes follow from the rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.replay.progress import Progress
from bidsim.statistics.units import mix
from bidsim.training.examples import Part, Sample, sha256_of

PART_ROWS = 1 << 20
GROUP_ROWS = 1 << 16
_STEP = np.uint64(0x9E3779B97F4A7C15)


def keep_some(batches: Iterator[pa.RecordBatch], keep: float) -> Iterator[pa.RecordBatch]:
    """All positives and a share of the negatives, by hash; rows that are alike in everything are drawn one by one."""
    last: int | None = None
    seen = 0
    limit = np.uint64(min(int(keep * 2.0**64), 2**64 - 1))
    for batch in batches:
        if keep < 1:
            hashes = np.asarray(batch.column("row_hash").to_numpy(zero_copy_only=False), dtype=np.uint64)
            label = np.asarray(batch.column("role_label").to_numpy(zero_copy_only=False), dtype=np.float64)
            place, seen = _repetitions(hashes, last, seen)
            last = int(hashes[-1])
            stays = (label > 0) | (mix(hashes + place * _STEP) < limit)
            weight = np.asarray(batch.column("role_weight").to_numpy(zero_copy_only=False), dtype=np.float64)
            at = batch.schema.get_field_index("role_weight")
            batch = batch.set_column(at, "role_weight", pa.array(np.where(label > 0, weight, weight / keep)))
            batch = batch.filter(pa.array(stays))
        yield batch.drop_columns(["row_hash"])


def _repetitions(hashes: NDArray[np.uint64], last: int | None, seen: int) -> tuple[NDArray[np.uint64], int]:
    """How many equal rows stand before each; equal rows are neighbours. seen: of the last batch's last row, with it."""
    rows = np.arange(len(hashes))
    new = np.concatenate([[last is None or int(hashes[0]) != last], hashes[1:] != hashes[:-1]])
    start = np.maximum.accumulate(np.where(new, rows, -1))
    place = np.where(start >= 0, rows - start, rows + seen)
    return place.astype(np.uint64), int(place[-1]) + 1


def write_parts(
    batches: Iterator[pa.RecordBatch], names: Sequence[str], aside: Path, folder: str, keep: float, progress: Progress
) -> Sample:
    """Parts of a million rows in groups of one size, whatever the size of the batches that come."""
    import pyarrow.parquet as pq

    (aside / folder).mkdir(parents=True)
    files: list[Part] = []
    rows = positives = 0
    weight = positive_weight = 0.0
    writer: Any = None
    path = aside
    written = 0

    def close() -> None:
        nonlocal writer
        if writer is not None:
            writer.close()
            name = str(path.relative_to(aside))
            files.append(Part(path=name, rows=written, bytes=path.stat().st_size, sha256=sha256_of(path)))
            writer = None

    try:
        for group in _groups(batches):
            table = pa.Table.from_arrays(group.columns, list(names))
            if writer is None:
                path, written = aside / folder / f"part-{len(files):05d}.parquet", 0
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=GROUP_ROWS)
            label = np.asarray(group.column("role_label"), dtype=np.float64)
            w = np.asarray(group.column("role_weight"), dtype=np.float64)
            rows, written, positives = rows + len(w), written + len(w), positives + int((label > 0).sum())
            weight, positive_weight = weight + float(w.sum()), positive_weight + float(w[label > 0].sum())
            progress.rows(rows)
            if written >= PART_ROWS:
                close()
    finally:
        if writer is not None:
            close()
    return Sample(
        rows=rows,
        positives=positives,
        weight=weight,
        positive_weight=positive_weight,
        negatives_kept=keep,
        files=tuple(files),
    )


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
            held += batch.num_rows
        while held >= GROUP_ROWS:
            table = pa.Table.from_batches(waiting).combine_chunks()
            yield table.slice(0, GROUP_ROWS).combine_chunks()
            rest = table.slice(GROUP_ROWS)
            waiting, held = [b for b in rest.to_batches() if b.num_rows], rest.num_rows
    if held:
        yield pa.Table.from_batches(waiting).combine_chunks()
