"""Small logs for tests of whole replays: rows as dicts by role, written to Parquet, and numbers read from the result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, settings

import bidsim
from bidsim.result import Result

Row = dict[str, Any]

# A replay takes a good part of a second: few examples, several checks of each, and no search for a smaller one.
few = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

FLOATS = ("price", "bid", "weight", "floor", "target_cpa", "target_cpc", "limit", "conversion")
TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(FLOATS, pa.float64()),
    **dict.fromkeys(("request", "campaign"), pa.int64()),
    **dict.fromkeys(("won", "click"), pa.int8()),
    "exchange": pa.string(),
}


def replay(rows: Sequence[Row] | pa.Table, *, threads: int = 1, row_group_size: int = 1000, **scenario: Any) -> Result:
    """Replay rows under a scenario whose other keys have their defaults; without candidates one bids as the baseline.

    Predictions (columns whose name starts with p) are float32 unless the rows are a table already.
    """
    table = rows if isinstance(rows, pa.Table) else as_table(rows)
    with tempfile.TemporaryDirectory(prefix="bidsim-test-") as folder:
        path = Path(folder) / "log.parquet"
        pq.write_table(table, path, row_group_size=row_group_size)
        document = {
            "logs_tables": {"ad": {"path": str(path), **scenario.pop("window", {})}},
            "candidates": {"new": {"bid": {"multiplier": 1.0}}},
            **scenario,
        }
        return bidsim.replay(document, threads=threads)


def as_table(rows: Sequence[Row]) -> pa.Table:
    arrays = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "time":
            naive = values[0] is not None and values[0].tzinfo is None
            kind = pa.timestamp("us") if naive else pa.timestamp("us", "UTC")
        else:
            kind = TYPES.get(name, pa.float32() if name.startswith("p") else pa.int64())
        arrays[name] = pa.array(values, type=kind, from_pandas=False)
    return pa.table(arrays)


def numbers(result: Result, policy: str, segment: Mapping[str, str] | None = None) -> dict[Any, float | None]:
    """All metrics of a policy in one place, by name, or (name, head), or (name, beta) for expected utility."""
    wanted = dict(segment or {})
    return {
        m.metric if m.head is None and m.beta is None else (m.metric, m.head or m.beta): m.value
        for m in result.metrics
        if m.policy == policy and m.segment == wanted
    }


def by_segment(result: Result, policy: str, name: str, metrics: Iterable[str]) -> dict[str, dict[Any, float | None]]:
    """Metrics of each value of a segment."""
    values = dict.fromkeys(m.segment[name] for m in result.metrics if name in m.segment)
    wanted = set(metrics)
    return {
        v: {k: x for k, x in numbers(result, policy, {name: v}).items() if k in wanted or not wanted} for v in values
    }
