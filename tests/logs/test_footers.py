"""A smaller Parquet file holds exactly the rows and columns of the original that were kept."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidsim.logs.footers import MAGIC, alone, footer_bytes, shrink

ROWS, GROUP = 1000, 180
TABLE = pa.table(
    {
        "n": list(range(ROWS)),
        "text": [f"é{i % 7}" for i in range(ROWS)],
        "list": [[i, None] if i % 3 else None for i in range(ROWS)],
        "nested": [{"a": i, "b": {"c": [str(i)]}} for i in range(ROWS)],
        "at": pa.array(
            [datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(ROWS)], pa.timestamp("us", "UTC")
        ),
        "money": pa.array(list(range(ROWS)), pa.decimal128(12, 3)),
        "flag": [i % 5 == 0 for i in range(ROWS)],
        "small": pa.array([i % 100 for i in range(ROWS)], pa.uint8()),
    }
)
WRITERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "int96": {"use_deprecated_int96_timestamps": True},
    "indexes": {"write_page_index": True, "use_dictionary": False, "sorting_columns": [pq.SortingColumn(0)]},
    "second pages": {"data_page_version": "2.0", "compression": "zstd"},
    "bloom filters": {"bloom_filter_options": {"n": True}},
}


def written(options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=GROUP, **options)
    return out.getvalue()


def footer_of(content: bytes) -> bytes:
    length = footer_bytes(content[-8:])
    assert length is not None
    return content[-length:]


@pytest.mark.parametrize("writer", WRITERS)
def test_rows_and_types_are_those_of_the_original(tmp_path: Path, writer: str) -> None:
    content = written(WRITERS[writer])
    (tmp_path / "whole.parquet").write_bytes(content)
    for wanted in (
        ("n", "at"),
        ("list", "text"),
        ("nested",),
        ("small", "money", "flag"),
        (),
        tuple(TABLE.column_names),
    ):
        footer, ranges = shrink(
            footer_of(content), lambda name, number, wanted=wanted: name in wanted, lambda group: group in (1, 4)
        )
        small = MAGIC
        for r in ranges:
            assert len(small) == r.to
            small += content[r.start : r.start + r.length]
        (tmp_path / "small.parquet").write_bytes(small + footer)
        columns = ", ".join(f'"{c}"' for c in TABLE.column_names if c in wanted) or "n"
        kept = f"file_row_number // {GROUP} in (1, 4)"
        query = (
            f"select {columns} from read_parquet('{tmp_path / 'whole.parquet'}', file_row_number = true) where {kept}"
        )
        found = duckdb.sql(f"from '{tmp_path / 'small.parquet'}'")
        assert found.types == duckdb.sql(query).types
        assert found.fetchall() == duckdb.sql(query).fetchall()
        assert pq.read_table(tmp_path / "small.parquet").num_rows == 2 * GROUP
        if "n" in wanted:
            one = f"select count(*) from '{tmp_path / 'small.parquet'}' where n = {GROUP + 5}"
            assert duckdb.sql(one).fetchall() == [(1,)]


def test_a_footer_alone_tells_columns_and_types(tmp_path: Path) -> None:
    content = written({})
    (tmp_path / "whole.parquet").write_bytes(content)
    (tmp_path / "footer.parquet").write_bytes(alone(footer_of(content)))
    told = [duckdb.sql(f"describe from '{tmp_path / name}.parquet'").fetchall() for name in ("whole", "footer")]
    assert told[0] == told[1]


def test_of_columns_that_differ_in_case_only_all_are_kept() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1], "A": [2], "b": [3]}), out)
    footer, ranges = shrink(footer_of(out.getvalue()), lambda name, number: name == "a", lambda group: True)
    assert len(ranges) == 3
    assert pq.read_metadata(io.BytesIO(alone(footer))).num_columns == 3


def test_a_damaged_footer_is_told_and_nothing_else_happens() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    footer = footer_of(written({}))
    outcomes = set()
    for _ in range(400):
        broken = bytearray(footer[:-8])
        for _ in range(draw.choice([1, 1, 3, 20])):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        if draw.random() < 0.3:
            del broken[draw.randrange(len(broken)) :]
        try:
            shrink(bytes(broken) + footer[-8:], lambda name, number: True, lambda group: True)
            outcomes.add("read")
        except ValueError:
            outcomes.add("told")
    assert "told" in outcomes
