# ruff: noqa: E501
"""Every construct of a user's expression means the same on both engines, or is refused on Spark in one sentence."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidsim.errors import BidsimError, ScenarioError
from bidsim.logs.source import open_source
from bidsim.replay.engine import Engine
from bidsim.replay.spark.engine import SparkEngine
from bidsim.replay.spark.functions import unused
from bidsim.scenario.expressions import compile_expression
from bidsim.scenario.grammar import FUNCTIONS

NAN, INF = float("nan"), float("inf")
D = [0.0, -0.0, 1.0, 2.5, -2.5, 0.5, 1.5, 3.49999, NAN, INF, -INF, None, 1e-7, 123456789.25, 1e17, -0.3]
N = len(D)
I = [0, 1, -1, 5, -5, 7, 2, 3, None, 10, 100, -100, 12, 13, 14, 15]  # noqa: E741
S = ["", "a", "abc", "ABC", " a b ", None, "1", "2.5", "nan", "x,y,z", "été", "2026-03-08", "true", "1e3", "b%c", "12d"]
T = [None if i == 3 else datetime(2026, 1 + i % 12, 1 + i, i, 3 * i, 2 * i, 1000 * i) for i in range(N)]

COLUMNS = {
    "d": pa.array(D, pa.float64(), from_pandas=False),
    "e": pa.array(D[::-1], pa.float64(), from_pandas=False),
    "f": pa.array(np.arange(N) / 3, pa.float32()),
    "i": pa.array(I, pa.int64()),
    "j": pa.array([3] * N, pa.int32()),
    "k": pa.array(range(N), pa.int8()),
    "m": pa.array([Decimal(n) / 4 for n in range(N)], pa.decimal128(10, 2)),
    "b": pa.array([None if n % 5 == 4 else n % 2 == 0 for n in range(N)]),
    "s": pa.array(S),
    "t": pa.array(T, pa.timestamp("us")),
    "z": pa.array(T, pa.timestamp("us", "UTC")),
    "n": pa.array([None if v is None else v.date() for v in T]),
    "l": pa.array([None if n == 2 else [n % 3, n % 5] for n in range(N)], pa.list_(pa.int64())),
    "row": pa.array(range(N)),
}

# What means the same on both.
SAME = """
abs(d);abs(i);ceil(d);ceiling(d);floor(d);floor(i);floor(m);round(d);round(i);trunc(d);sign(d);sign(i);sqrt(abs(d));sqrt(d)
greatest(d, 1.5);greatest(d, e);least(d, e);least(d, i);greatest(d);least(i, 3, null)
isnan(d);isinf(d);isfinite(d);isfinite(i);isfinite(f)
coalesce(d, 7);coalesce(i, 0);ifnull(d, 1.5);nullif(i, 1);nullif(d, 2.5);if(d > 1, d, 0);if(b, 1, 2)
d + e;d - e;d * e;d / e;i / j;i / 0;1 / d;d / 2;i / 2 * 3;d / (e / d);i + j;i - j;i * j;i * 1000;- d;- i;i % 3;i % j;mod(i, 4);i % 0
i // 3;i // j;j // 2;d % 2.5;f * 2;f + d;f / 3;f * f;m * 2;m + 1;m / 4;m * d;k + k
d = e;d <> e;d < e;d <= e;d > e;d >= e;i = 1;s = 'a';s < 'b';d is null;d is not null;b is true;b is not true
i between 1 and 7;i in (1, 2, 3);i not in (1, 2);s in ('a', 'abc');s like 'a%';s like '%b%';s ilike 'ABC';not b;b and d > 1;b or d > 1
case when d > 1 then 1 when d < 0 then 2 else 3 end;case i when 1 then 'x' when 5 then 'y' end;case when s = 'a' then d end
lower(s);upper(s);trim(s);ltrim(s);rtrim(s);length(s);len(s);strlen(s);substr(s, 2);substr(s, 1, 2);substring(s, 2, 1);left(s, 2);right(s, 2)
replace(s, 'a', 'x');replace(s, 'b', '');split_part(s, ',', 2);split_part(s, ',', 5);starts_with(s, 'a');prefix(s, 'a');suffix(s, 'c')
ends_with(s, 'c');contains(s, 'b');strpos(s, 'b');instr(s, 'b');concat(s, 'x');concat(s, i);s || 'x';list_contains(l, 2);list_contains(l, i)
date_trunc('hour', t);date_trunc('day', t);date_trunc('week', t);date_trunc('month', t);date_trunc('day', z);date_trunc('month', n)
date_part('hour', t);date_part('dow', t);date_part('isodow', t);date_part('doy', n);date_part('epoch', t);datepart('week', t);extract('year' from t)
extract('minute' from z);extract('second' from t);extract('isodow' from t);date_diff('day', n, t);datediff('day', t, z)
year(t);quarter(t);month(t);week(t);day(t);dayofmonth(t);dayofyear(t);dayofweek(t);weekday(t);isodow(t);isoyear(t);hour(t);minute(t);second(t);hour(z);year(n)
epoch(t);epoch(z);epoch(n);epoch_ms(t);epoch_us(t);epoch_us(z);epoch_ms(i);to_timestamp(i);to_timestamp(i / 4);make_timestamp(i)
make_timestamp(2026, 1, 2, 3, 4, 5.5);make_date(2026, 1, 2);timezone('Asia/Tokyo', z);timezone('America/New_York', z);timezone('America/New_York', t)
strptime('05/11/2026 10:20:30', '%d/%m/%Y %H:%M:%S');t + interval '1 hour';t - interval 2 days;n - make_date(2026, 1, 1);t > z;t >= cast('2026-03-01' as timestamp)
cast(d as double);cast(i as double);cast(f as double);cast(m as double);cast(b as integer);cast(k as bigint);cast(j as tinyint);cast(i as varchar);cast(m as varchar)
cast(b as varchar);cast(n as varchar);cast(t as date);cast(t as varchar);cast(z as timestamp);cast(t as timestamptz);cast(n as timestamp);cast(t as timestamp)
cast(if(isfinite(d) and abs(d) < 1e9, d, 0) as bigint);cast(m as integer);cast(if(isfinite(d), d, 0) as float);cast(row as utinyint);cast(i as decimal(10, 2));cast(row as hugeint)
cast(if(abs(d) < 1e15 and abs(d) > 0.01 and d <> 123456789.25, d, 0) as varchar);cast(if(isfinite(d), 0, d) as varchar);try_cast(s as double);try_cast(s as date);cast(i as boolean);cast('2026-03-01 10:00:00' as timestamp);cast('2026-03-01 10:00:00+02' as timestamptz)
cast(null as double);null;true;1;1.5;'x';'''';3000000000;1e-3
""".strip().replace("\n", ";").split(";")  # fmt: skip

# The same to the last digits: the libraries of Java and C round such functions differently.
NEARLY = [
    "ln(abs(d))",
    "ln(d)",
    "log(i)",
    "log10(abs(d))",
    "log2(abs(d))",
    "exp(d)",
    "pow(abs(d), 0.7)",
    "power(d, 2)",
    "pow(d, e)",
]

REFUSED = {
    "regexp_matches(s, 'a')": "regexp_matches is not available",
    "regexp_full_match(s, 'a')": "regexp_full_match is not available",
    "try_strptime(s, '%Y')": "try_strptime is not available",
    "log(2, d)": "log with a base",
    "trunc(d, 2)": "trunc with digits",
    "round(d, 2)": "round with digits",
    "trim(s, 'a')": "trim with characters",
    "ltrim(s, 'a')": "ltrim with characters",
    "substr(s, i)": "must be written out",
    "substr(s, 0)": "at least 1",
    "left(s, -1)": "at least 0",
    "split_part(s, ',', -1)": "at least 1",
    "length(l)": "of text only",
    "contains(l, 1)": "of text only",
    "concat(s, d)": "text and whole numbers",
    "s || i": "joins text only",
    "s like 'a\\%'": "backslash",
    "d // 2.5": "write floor",
    "date_diff('hour', t, z)": "counts days only",
    "date_part('millisecond', t)": "the part millisecond",
    "strptime(s, '%b')": "time format",
    "try_cast(s as integer)": "try_cast(... as double)",
    "cast(s as time)": "cast to time",
    "t + interval (i) hours": "interval of a column's length",
    "epoch_us(i)": "epoch_us of a number",
}


def compiled(text: str) -> str:
    names = {name: f's."{name}"' for name in COLUMNS}
    return compile_expression(text, names, where=lambda message: BidsimError(message)).sql


@pytest.fixture(scope="module")
def engine(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("functions")
    pq.write_table(pa.table(COLUMNS), folder / "log.parquet")
    source = open_source("ad", folder / "log.parquet", None)
    work = folder / "work"
    work.mkdir()
    with SparkEngine(spark, source.files, work, owned=False) as engine:
        engine.open(source)
        yield engine


@pytest.fixture(scope="module")
def answers(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], list[Any]]]:
    """By expression, the values on DuckDB and on Spark; all in two queries."""
    texts = [*SAME, *NEARLY]
    items = ", ".join(f"{compiled(text)} as x{n}" for n, text in enumerate(texts))
    query = f"select {items} from source_0 as s order by row"
    (file,) = engine.files
    with Engine([file], tmp_path_factory.mktemp("duckdb"), threads=1, memory_bytes=2**29) as duck:
        duck.run(f"create view source_0 as select * from read_parquet('{file}')")
        ours = pa.Table.from_batches(list(duck.stream(query)))
    theirs = engine._collect(query, engine.spark_sql(query))
    return {text: (ours.column(n).to_pylist(), theirs.column(n).to_pylist()) for n, text in enumerate(texts)}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


@pytest.mark.parametrize("text", SAME)
def test_both_engines_give_the_same_value(text: str, answers: dict[str, tuple[list[Any], list[Any]]]) -> None:
    ours, theirs = answers[text]
    different = [(n, a, b) for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not equal(a, b)]
    assert different == []


@pytest.mark.parametrize("text", NEARLY)
def test_transcendental_functions_agree_to_the_last_digits(
    text: str, answers: dict[str, tuple[list[Any], list[Any]]]
) -> None:
    for a, b in zip(*answers[text], strict=True):
        assert equal(a, b) or b == pytest.approx(a, rel=4e-15, abs=0)


@pytest.mark.parametrize("text", REFUSED)
def test_what_would_differ_is_refused(text: str, engine: Any) -> None:
    with pytest.raises(ScenarioError, match="engine spark: ") as caught:
        engine.spark_sql(f"select {compiled(text)} as x from source_0 as s")
    assert REFUSED[text] in caught.value.message


def test_every_function_that_users_may_write_is_checked_here() -> None:
    covered = " ".join([*SAME, *NEARLY, *REFUSED])
    assert [name for name in FUNCTIONS if f"{name}(" not in covered] == []
    assert set(unused(list(FUNCTIONS))) == {"regexp_matches", "regexp_full_match", "try_strptime"}


def test_dates_are_dates(answers: dict[str, tuple[list[Any], list[Any]]]) -> None:
    assert answers["cast(t as date)"][1][0] == date(2026, 1, 1)


# What depends on the zone in which DuckDB's session is, the scenario's.
IN_ZONE = [
    "hour(z)",
    "isodow(z) >= 6",
    "extract('day' from z)",
    "date_part('hour', coalesce(z, z))",
    "cast(z as date)",
    "cast(z as timestamp)",
    "epoch(date_trunc('day', z))",
    "epoch(date_trunc('hour', z)) - epoch(z)",
    "z >= '2026-03-01'",
    "z < '2026-03-01T10:30:00+00:00'",
    "z >= timestamp '2026-03-01 05:00:00'",
    "z between '2026-01-01' and '2026-10-01 12:00:00'",
    "z in ('2026-03-01 10:00:00', '2026-03-01 05:00:00')",
    "z = t",
    "epoch(cast(t as timestamptz))",
    "epoch(cast(cast(z as timestamp) as timestamptz))",
    "epoch(timestamptz '2026-03-01 10:00:00')",
    "epoch(try_cast(cast(t as varchar) as timestamptz))",
    "epoch(cast(cast(coalesce(t, make_timestamp(2026, 1, 1, 0, 0, 0)) as varchar) || '+03:00' as timestamptz))",
    "hour(t)",
    "cast(z as varchar)",
    "cast(date_trunc('day', z) as varchar) || 'x'",
    "t >= '2026-03-01'",
    "epoch(timezone('Asia/Tokyo', t)) + hour(timezone('Asia/Tokyo', z))",
]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_hours_days_and_times_without_an_offset_are_in_the_scenarios_zone_on_both_engines(
    spark: Any, tmp_path: Path, zone: str
) -> None:
    pq.write_table(pa.table(COLUMNS), tmp_path / "log.parquet")
    source = open_source("ad", tmp_path / "log.parquet", None)
    (tmp_path / "spark").mkdir()
    query = ", ".join(f"{compiled(text)} as x{n}" for n, text in enumerate(IN_ZONE))
    query = f"select {query} from source_0 as s order by row"
    with Engine(source.files, tmp_path / "duckdb", threads=1, memory_bytes=2**29, zone=zone) as duck:
        duck.run(f"create view source_0 as select * from read_parquet('{source.files[0]}')")
        ours = pa.Table.from_batches(list(duck.stream(query)))
    with SparkEngine(spark, source.files, tmp_path / "spark", owned=False, zone=zone) as engine:
        engine.open(source)
        theirs = engine._collect(query, engine.spark_sql(query))
    for n, text in enumerate(IN_ZONE):
        pairs = zip(ours.column(n).to_pylist(), theirs.column(n).to_pylist(), strict=True)
        assert [(text, a, b) for a, b in pairs if not equal(a, b)] == []
