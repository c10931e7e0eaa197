"""What a bundle predicts for the evaluation examples, as Parquet beside their labels: for analyses of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from bidsim.models.bundle import Bundle
from bidsim.scenario.schema import PREDICTION_COLUMN
from bidsim.training.examples import HEAD_SAMPLE, Extraction


def predict(extraction: Extraction, bundle: Bundle, directory: Path, threads: int | None = None) -> list[Path]:
    """Write one file a head into an existing folder: its role columns and pctr, pcvr or pctcvr. Rows in order of time.

    threads: of the model's library; default: as many as there are cores. Raises BidsimError where examples or model can't
    be used.
    """
    import pyarrow.parquet as pq

    scorer = bundle.scorer(threads=threads)
    written = []
    for head in scorer.heads:
        if HEAD_SAMPLE[head] not in extraction.manifest.evaluation.samples:
            continue
        examples = extraction.examples(head, "evaluation")
        path = directory / f"{HEAD_SAMPLE[head]}.parquet"
        writer: Any = None
        try:
            for batch in examples.batches():
                roles: dict[str, Any] = {role: batch.column(name) for role, name in examples.columns.items()}
                table = pa.table({**roles, PREDICTION_COLUMN[head]: scorer.score(batch)[head]})
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
                written.append(path)
    return written
