"""Rows that the scan sets aside say what the log says: with them, and with the log read again, results are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bidsim
from bidsim.replay import aside
from bidsim.replay.engine import Engine


def write_log(folder: Path, seed: int, rows: int, *, units: bool = True, priced: bool = False) -> Path:
    """Rows of every kind: prices that nobody saw, missing labels, predictions that are none, weights. priced: all prices
    are known, and most rows won."""
    draw = np.random.default_rng(seed)

    def some(values: Any, missing: float) -> Any:
        return [None if m else v for v, m in zip(values, draw.random(rows) < missing, strict=True)]

    won = draw.random(rows) < (0.9 if priced else 0.5)
    columns = {
        "price": some(draw.integers(0, 9, rows).astype(float).tolist(), 0.0 if priced else 0.3),
        "bid": some(draw.integers(1, 9, rows).astype(float).tolist(), 0.1),
        "won": won.astype(int).tolist(),
        "click": [int(c) if w else None for c, w in zip(draw.random(rows) < 0.4, won, strict=True)],
        "conversion": some([float(c) for c in draw.integers(0, 3, rows)], 0.2),
        "floor": some(draw.integers(0, 4, rows).astype(float).tolist(), 0.5),
        "loss_reason": some(draw.choice([102, 203], rows).tolist(), 0.5),
        "weight": draw.choice([0.5, 1.0, 4.0], rows).tolist(),
        "pctr": some((draw.integers(1, 9, rows) / 10).tolist(), 0.05),
        "pcvr": (draw.integers(1, 9, rows) / 10).tolist(),
        "v2": some((draw.integers(1, 12, rows) / 10).tolist(), 0.05),
        "campaign": draw.choice(["a", "b", "c"], rows).tolist(),
        "target_cpa": some(draw.integers(1, 40, rows).astype(float).tolist(), 0.1),
    }
    if units:
        columns["user"] = some(draw.integers(0, 40, rows).tolist(), 0.1)
    file = folder / f"log-{seed}.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def result_of(log: Path, *, kind: str = "second_price", units: bool = True, more: dict[str, Any] | None = None) -> str:
    scenario = {
        "logs_tables": {"ad": {"path": str(log)}},
        "sample_type": ["imp-click", "click-conversion"],
        "columns": {"unit": "user"} if units else {},
        "bid": {"formula": "target_cpa * pctr * pcvr"},
        "auction": {"type": kind},
        "candidates": {
            "v2": {"columns": {"pctr": "v2"}},
            "more": {"columns": {"pctr": "v2"}, "bid": {"multiplier": 2.0}},
        },
        "segments": ["campaign"],
        **(more or {}),
    }
    return bidsim.replay(scenario).model_dump_json()


def read_again(patch: pytest.MonkeyPatch) -> None:
    """Nothing is set aside, as where the scan runs in other processes."""
    patch.setattr(Engine, "local", False)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 300),
    kind=st.sampled_from(["second_price", "first_price", "case when loss_reason = 102 then 1 else 2 end"]),
    units=st.booleans(),
    priced=st.booleans(),
    more=st.sampled_from(
        [{}, {"auction": {"ties": "lose"}}, {"bid": {"formula": "20 * pctr", "round": "down", "min": 2}}]
    ),
)
def test_rows_that_are_set_aside_say_what_the_log_says(
    tmp_path: Path, seed: int, rows: int, kind: str, units: bool, priced: bool, more: dict[str, Any]
) -> None:
    log = write_log(tmp_path, seed, rows, units=units, priced=priced)
    kept = result_of(log, kind=kind, units=units, more=more)
    with pytest.MonkeyPatch.context() as patch:
        read_again(patch)
        assert kept == result_of(log, kind=kind, units=units, more=more)


def test_rows_are_set_aside_and_gone_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above compares nothing where nothing is set aside."""
    found: list[tuple[str, int, list[Path]]] = []
    reduce = aside.Aside.reduce

    def spy(self: aside.Aside, kind: aside.Kind, *rest: Any) -> Any:
        rows = sum(batch.num_rows for batch in self._batches(kind))
        found.append((kind, rows, list(self._files[kind])))
        return reduce(self, kind, *rest)

    monkeypatch.setattr(aside.Aside, "reduce", spy)
    result_of(write_log(tmp_path, 1, 2000, priced=True))
    assert [(kind, rows > 100) for kind, rows, _ in found] == [("starts", True), ("fates", True), ("raised", True)]
    assert not any(file.exists() for _, _, files in found for file in files)


def test_a_disk_without_room_for_rows_set_aside_has_the_log_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path, 2, 2000)
    kept = result_of(log)
    wanted: list[str] = []

    class Full:
        def __init__(self, *_: Any) -> None: ...

        def write_batch(self, batch: pa.RecordBatch) -> None:
            wanted.append("write")
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    monkeypatch.setattr(aside.pa.ipc, "new_file", Full)
    again = result_of(log)
    assert wanted
    assert json.loads(again) == json.loads(kept)
