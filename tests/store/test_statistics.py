"""statistics.parquet: from it alone come the same numbers, or those of another confidence; what is damaged is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_logs import Row, as_table

from bidsim.errors import BidsimError
from bidsim.replay.pipeline import Replayed, run_replay
from bidsim.scenario.loading import scenario_from_dict
from bidsim.statistics.numbers import numbers_of, with_confidence
from bidsim.statistics.possible import limits_of
from bidsim.store.statistics import SCHEMA, tables_to_parquet
from bidsim.store.statistics_reading import read_tables


def make_log(seed: int = 1, n: int = 1500) -> list[Row]:
    rng = np.random.default_rng([20261126, seed])
    return [
        {
            "request": i,
            "unit": int(rng.integers(0, 200)),
            "campaign": [1, 2, None][rng.choice(3, p=[0.5, 0.4, 0.1])],
            "price": float(np.round(rng.exponential(6.0), 3)),
            "bid": 100.0,
            "won": int(rng.random() < 0.9),
            "click": int(rng.random() < 0.3),
            "conversion": float(rng.random() < 0.1),
            "weight": float(rng.choice([1.0, 2.5])),
            "target_cpa": 0.5,
            "pctr": float(np.float32(rng.uniform(0.05, 0.5))),
            "pcvr": float(np.float32(rng.uniform(0.05, 0.5))),
            "pother": float(np.float32(rng.uniform(0.05, 0.5))),
            "limit": 0.6,
        }
        for i in range(n)
    ]


def run(directory: Path, rows: list[Row], **keys: Any) -> Replayed:
    pq.write_table(as_table(rows), directory / "log.parquet")
    document = {
        "logs_tables": {"ad": {"path": str(directory / "log.parquet")}},
        "bid": {"formula": "100 * target_cpa * pctr"},
        "candidates": {"new": {"columns": {"pctr": "pother"}}, "same": {"bid": {"multiplier": 1.2}}},
        "segments": ["campaign"],
        "performance_indicator_type": "cpa",
        "fidelity": "warn",
        **keys,
    }
    return run_replay(scenario_from_dict(document, directory=directory), [], as_of=date(2026, 11, 24))


CASES: list[dict[str, Any]] = [
    {},
    {"auction": {"type": "first_price"}},
    {"budget": {"amount": "limit", "per": "total"}, "segments": []},
    {"segments": ["campaign", "unit"]},
    {"outcomes": "predicted"},
]


@pytest.mark.parametrize("keys", CASES, ids=["plain", "first price", "budget", "many values", "predicted"])
def test_the_saved_tables_give_the_same_numbers_and_the_same_bytes(tmp_path: Path, keys: dict[str, Any]) -> None:
    done = run(tmp_path, make_log(), **keys)
    content = tables_to_parquet(done.tables)
    assert content == tables_to_parquet(done.tables)
    file = tmp_path / "statistics.parquet"
    file.write_bytes(content)
    again = read_tables(file)
    assert (
        with_confidence(done.result, again, 0.95).model_copy(update={"scenario": done.result.scenario}).to_json()
        == done.result.to_json()
    )
    assert tables_to_parquet(again) == content


def test_a_log_without_labels_or_wins_is_saved_too(tmp_path: Path) -> None:
    rows = [{**r, "click": None, "conversion": None, "won": 0, "price": None} for r in make_log(2, 50)]
    done = run(tmp_path, rows)
    file = tmp_path / "statistics.parquet"
    file.write_bytes(tables_to_parquet(done.tables))
    assert numbers_of(read_tables(file), 0.95).metrics == done.result.metrics


def test_more_confidence_widens_every_interval_and_moves_no_value(tmp_path: Path) -> None:
    done = run(tmp_path, make_log(3))
    wide = with_confidence(done.result, done.tables, 0.99)
    assert wide.scenario["intervals"]["confidence"] == 0.99
    checked = 0
    for a, b in zip(done.result.metrics, wide.metrics, strict=True):
        assert (a.value, a.metric, a.segment) == (b.value, b.metric, b.segment)
        if a.low is None or a.low == a.high:
            continue
        assert a.high is not None
        assert b.low is not None
        assert b.high is not None
        # A distance ends at zero, a share at one.
        low, high = limits_of(a.metric)
        assert b.low < a.low or (b.low == a.low and a.low in (low, 0))
        assert b.high > a.high or b.high == a.high == high
        checked += 1
    assert checked > 100


def test_what_is_not_such_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "statistics.parquet"
    with pytest.raises(BidsimError, match="older bidsim"):
        read_tables(file)
    file.write_bytes(b"no parquet")
    with pytest.raises(BidsimError, match="can't be read"):
        read_tables(file)
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(BidsimError, match=f"of no known schema, not {SCHEMA}; replay again"):
        read_tables(file)
    content = tables_to_parquet(run(tmp_path, make_log(4, 200)).tables)
    table = pq.read_table(pa.BufferReader(content))
    meta = table.schema.metadata[b"bidsim"]
    for broken in (
        table.slice(0, len(table) // 2),
        table.drop_columns(["low"]),
        table.set_column(5, "value", pa.array(np.full(len(table), -1), pa.int32())),
        table.replace_schema_metadata({"bidsim": meta.replace(b'"families"', b'"famines"')}),
    ):
        pq.write_table(broken, file)
        with pytest.raises(BidsimError, match="damaged"):
            read_tables(file)


def test_random_damage_is_refused_or_read_but_never_a_crash(tmp_path: Path) -> None:
    content = bytearray(tables_to_parquet(run(tmp_path, make_log(5, 200)).tables))
    file = tmp_path / "statistics.parquet"
    rng = np.random.default_rng(20261127)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 3).tolist():
            damaged[place] = int(rng.integers(0, 256))
        file.write_bytes(damaged)
        try:
            read_tables(file)
        except BidsimError:
            refused += 1
    assert refused > 40


def test_files_of_versions_without_intervals_by_segment_still_open(tmp_path: Path) -> None:
    """What their intervals need is not in such files: they have none rather than wrong ones."""
    done = run(tmp_path, make_log())
    older = {place: replace(ranked, wiggle=None, spans=None) for place, ranked in done.tables.ranked.items()}
    file = tmp_path / "statistics.parquet"
    file.write_bytes(tables_to_parquet(replace(done.tables, ranked=older)))
    read = numbers_of(read_tables(file), 0.95).metrics
    known = 0
    for before, after in zip(done.result.metrics, read, strict=True):
        assert before.value == after.value
        if after.segment and after.metric in ("ece", "calibration_error", "miscalibration", "discrimination"):
            assert (after.low, after.high) == (None, None)
            known += before.low is not None
        else:
            assert before == after or after.metric == "ece_if_calibrated"
    assert known > 20


def test_bids_and_prices_are_saved_and_files_without_them_still_open(tmp_path: Path) -> None:
    done = run(tmp_path, make_log(6, 400))
    assert done.tables.prices is not None
    file = tmp_path / "statistics.parquet"
    file.write_bytes(tables_to_parquet(done.tables))
    again = read_tables(file).prices
    assert again is not None
    for part in fields(done.tables.prices):
        assert np.array_equal(getattr(again, part.name), getattr(done.tables.prices, part.name))
    file.write_bytes(tables_to_parquet(replace(done.tables, prices=None)))
    older = read_tables(file)
    assert older.prices is None
    assert numbers_of(older, 0.95).metrics == done.result.metrics


@pytest.mark.parametrize(
    ("part", "at", "value"),
    [("edges", 3, 0.0), ("edges", -1, np.inf), ("bids", (0, 5), np.nan), ("known", (0, 0), -1.0)],
)
def test_bids_and_prices_that_can_not_be_are_refused(tmp_path: Path, part: str, at: Any, value: float) -> None:
    done = run(tmp_path, make_log(6, 100))
    assert done.tables.prices is not None
    broken = getattr(done.tables.prices, part).copy()
    broken[at] = value
    file = tmp_path / "statistics.parquet"
    file.write_bytes(tables_to_parquet(replace(done.tables, prices=replace(done.tables.prices, **{part: broken}))))
    with pytest.raises(BidsimError, match="damaged"):
        read_tables(file)
