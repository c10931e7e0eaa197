"""What a replay's scan leaves for the quick checks is what the engine counts when it is asked."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.checks.counted import Counted, count_rows

pipeline = importlib.import_module("bidsim.replay.pipeline")


def write_log(file: Path, seed: int, rows: int = 3000) -> None:
    draw = np.random.default_rng(seed)

    def some(values: Any, missing: float) -> list[Any]:
        return [None if m else v for v, m in zip(values, draw.random(rows) < missing, strict=True)]

    won = draw.random(rows) < 0.6
    table = {
        "price": some(draw.integers(0, 9, rows).astype(float), 0.2),
        "bid": some(draw.integers(0, 9, rows).astype(float), 0.1),
        "floor": some(draw.integers(0, 5, rows).astype(float), 0.5),
        "won": some(won.astype(int), 0.05),
        "click": some((draw.random(rows) < 0.4).astype(int), 0.2),
        "conversion": some(draw.integers(0, 3, rows).astype(float), 0.3),
        "weight": draw.choice([0.25, 1.0, 3.0], rows),
        "pctr": draw.integers(1, 9, rows) / 10,
        "v2": draw.integers(1, 9, rows) / 10,
        "campaign": some(draw.choice(["a", "b", "it's"], rows), 0.1),
    }
    pq.write_table(pa.table(table), file)


@pytest.mark.parametrize("ties", ["win", "lose"])
@pytest.mark.parametrize("kind", ["second_price", "first_price", "case when campaign = 'a' then 1 else 2 end"])
@pytest.mark.parametrize("budget", [{}, {"budget": {"amount": 1, "per": "total"}}])
def test_the_scan_leaves_what_the_engine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ties: str, kind: str, budget: dict[str, Any]
) -> None:
    write_log(tmp_path / "log.parquet", seed=len(kind) + len(ties))
    seen: list[tuple[Counted, Counted]] = []

    def both(engine: Any, plan: Any, rows: int, counted: Counted) -> list[Any]:
        seen.append((counted, count_rows(engine, plan, "formulas")))
        return []

    monkeypatch.setattr(pipeline, "quick_checks", both)
    bidsim.replay(
        {
            "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
            "sample_type": "imp-click",
            "bid": {"formula": "10 * pctr"},
            "auction": {"ties": ties, "type": kind},
            "candidates": {"v2": {"columns": {"pctr": "v2"}}},
            **budget,
        }
    )
    ((left, asked),) = seen
    assert left.won > left.pairs > 0 or kind == "first_price"
    assert min(left.no_click, left.clicks, left.no_conversion, left.conversions) > 0
    assert {**vars(left), "spend": None} == {**vars(asked), "spend": None}
    scale = sum(left.spend.values()) / sum(asked.spend.values())
    assert {k: v / scale for k, v in left.spend.items()} == pytest.approx(dict(asked.spend), rel=1e-9)
