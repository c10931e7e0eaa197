"""One log in every format gives the same numbers, and a type fits every value wherever it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from command import bidsim, log, write_log, write_model, write_scenario

from bidsim.result import Result

SMALL = log().slice(0, 400)


def parquet(folder: Path) -> str:
    write_log(folder / "log.parquet", SMALL, row_group_size=90)
    return "log.parquet"


def hive(folder: Path) -> str:
    """Partitions by day and campaign: the partitioned columns stand in the path alone."""
    days = pc.strftime(SMALL["ts"], format="%Y-%m-%d")
    for day in ("2026-11-01", "2026-11-02"):
        for campaign in (3, 7, 12):
            part = SMALL.filter(pc.and_(pc.equal(days, day), pc.equal(SMALL["ad_id"], campaign)))
            if part.num_rows:
                write_log(folder / f"dt={day}" / f"ad_id={campaign}" / "part.parquet", part.drop_columns(["ad_id"]))
    (folder / "_SUCCESS").touch()
    return "dt=*/*/*.parquet"


def text(ending: str, files: int = 1) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        for i in range(files):
            rows = -(-SMALL.num_rows // files)
            write_log(folder / "parts" / f"{i}{ending}", SMALL.slice(i * rows, rows))
        return "parts"

    return write


LAYOUTS = {
    "hive": hive,
    "csv": text(".csv"),
    "csv, three files": text(".csv", 3),
    "csv.gz": text(".csv.gz"),
    "ndjson": text(".ndjson"),
    "ndjson.gz, two files": text(".ndjson.gz", 2),
}
NUMBERS = ("metrics", "differences", "calibration", "frontier", "diagnostics", "fidelity", "findings")


def numbers(folder: Path, table: str, **changes: Any) -> dict[str, Any]:
    columns = {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
    scenario = {"columns": columns, "budget": {"amount": 0.2, "per": "day"}, "segments": ["spot_id"], **changes}
    write_scenario(folder / "s.yaml", scenario)
    model = write_model(folder / "m.bin")
    said = bidsim(
        "replay", "--scenario", folder / "s.yaml", "--model", model, "--table", f"ad={folder / table}",
        "--out", folder / "run", "-q", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    result = json.loads(said.out)
    return {"rows": result["data"]["rows"], **{part: result[part] for part in NUMBERS}}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parquet")
    found = numbers(folder, parquet(folder))
    assert found["rows"] == 400
    assert any(m["metric"] == "clicks" and m["value"] > 5 for m in found["metrics"])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_gives_the_same_numbers(tmp_path: Path, expected: dict[str, Any], layout: str) -> None:
    found = numbers(tmp_path, LAYOUTS[layout](tmp_path))
    for part in ("rows", *NUMBERS):
        assert found[part] == expected[part], part


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson.gz"])
def test_names_that_the_engine_takes_for_patterns_are_names(
    tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """log[1].csv beside log1.csv: each is read once, also where the work folder's own name looks like a pattern."""
    for i, name in enumerate(["a*/x", "aa/x", "b?" if ending == ".csv" else "b*", "b[1]", "b1"]):
        write_log(tmp_path / "log" / f"{name}{ending}", SMALL.slice(80 * i, 80))
    (tmp_path / "work[1]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work[1]"))
    found = numbers(tmp_path, "log")
    for part in ("rows", *NUMBERS):
        assert found[part] == expected[part], part


def small_result(folder: Path, table: str, **changes: Any) -> Result:
    scenario = {
        "columns": {"price": "paying_price"},
        "segments": [],
        "sample_type": "imp-click",
        "bid": {"formula": "1.4"},
        "candidates": {"v2": {"bid": {"multiplier": 1.0}}},
        **changes,
    }
    write_scenario(folder / "s.yaml", scenario)
    said = bidsim("replay", "--scenario", folder / "s.yaml", "--table", f"ad={folder / table}", "--out", folder / "run",
                  "-q", "--json")  # fmt: skip
    assert said.status == 0, said.err
    return Result.model_validate_json(said.out)


def value(result: Result, metric: str, policy: str = "baseline") -> float | None:
    (found,) = (m.value for m in result.metrics if m.metric == metric and m.policy == policy and not m.segment)
    return found


HEADER = "paying_price,won,click,pctr\n"
WHOLE, FRACTION = "1,1,0,0.5\n", "1.5,1,0,0.5\n"


def whole_files_first(folder: Path) -> str:
    (folder / "log").mkdir()
    for i in range(12):  # DuckDB looks at the first ten files only
        (folder / "log" / f"{i:02d}.csv").write_text(HEADER + (WHOLE if i < 11 else FRACTION))
    return "log"


def whole_rows_first(folder: Path) -> str:
    (folder / "log.csv").write_text(HEADER + WHOLE * 100_100 + FRACTION)  # and at the first hundred thousand rows
    return "log.csv"


def whole_objects_first(folder: Path) -> str:
    row = '{"paying_price": %s, "won": 1, "click": 0, "pctr": 0.5}\n'
    (folder / "log.ndjson").write_text(row % 1 * 100_100 + row % 1.5)
    return "log.ndjson"


def whole_parquet_first(folder: Path) -> str:
    for i, prices in enumerate([pa.array([1] * 11), pa.array([1.5])]):
        n = len(prices)
        columns = {"paying_price": prices, "won": [1] * n, "click": [0] * n, "pctr": [0.5] * n}
        write_log(folder / "log" / f"{i}.parquet", pa.table(columns))
    return "log"


@pytest.mark.parametrize(
    ("layout", "cheap"),
    [(whole_files_first, 11), (whole_rows_first, 100_100), (whole_objects_first, 100_100), (whole_parquet_first, 11)],
)
def test_a_fraction_after_many_whole_prices_is_not_rounded(
    tmp_path: Path, layout: Callable[[Path], str], cheap: int
) -> None:
    """A bid of 1.4 does not buy what costs 1.5; rounded to whole numbers 1.4 would, or lose against a price of 1."""
    result = small_result(
        tmp_path, layout(tmp_path), bid={"formula": "1.6"}, candidates={"v2": {"bid": {"formula": "1.4"}}}
    )
    assert value(result, "wins", "v2") == cheap
    assert value(result, "wins") == cheap + 1
    assert value(result, "spend") == pytest.approx((cheap + 1.5) / 1000, abs=1e-12)


@pytest.mark.parametrize(("delimiter", "newline"), [(",", "\r\n"), (";", "\n"), ("\t", "\r\n"), ("|", "\n")])
def test_csv_of_other_tools(tmp_path: Path, delimiter: str, newline: str) -> None:
    """Quotes, a delimiter and a line break in them, a byte order mark, missing values, columns nobody reads."""
    rows = ['"a ""b"", c; d|\te",' + WHOLE, '"two' + newline + 'lines",' + FRACTION, ",,1,0,0.5" + "\n"]
    text = "name," + HEADER + "".join(rows)
    quoted = text.split('"')
    for i in range(0, len(quoted), 2):
        quoted[i] = quoted[i].replace(",", delimiter).replace("\n", newline)
    (tmp_path / "log.csv").write_bytes("\ufeff".encode() + '"'.join(quoted).encode())
    result = small_result(tmp_path, "log.csv")
    assert result.data.rows == 3
    assert value(result, "wins") == 1
    assert value(result, "spend") == 0.001


def test_dates_in_another_order_are_not_guessed(tmp_path: Path) -> None:
    """05/11/2026 is in May or in November: the column stays text, and the message says how to read it."""
    (tmp_path / "log.csv").write_text("ts," + HEADER + "05/11/2026 10:00:00," + WHOLE + "06/11/2026 10:00:00," + WHOLE)
    write_scenario(tmp_path / "s.yaml", {"segments": [], "columns": {"time": "ts", "price": "paying_price"}})
    said = bidsim("replay", "--scenario", tmp_path / "s.yaml", "--table", f"ad={tmp_path / 'log.csv'}")
    assert said.status == 2
    assert 'column is VARCHAR, such as "05/11/2026 10:00:00", a time is needed' in said.err
    assert "strptime" in said.err
    window = {"last_hour": "2026-11-05T10:00:00", "duration_hour": 1}
    columns = {"time": "strptime(ts, '%d/%m/%Y %H:%M:%S')", "price": "paying_price"}
    assert small_result(tmp_path, "log.csv", columns=columns, logs_tables={"ad": window}).data.rows == 1


def test_parquet_files_may_differ_in_what_nobody_reads_and_in_the_order_of_columns(tmp_path: Path) -> None:
    base = SMALL.slice(0, 100)
    write_log(tmp_path / "log" / "0.parquet", base.append_column("x", pa.array([1.0] * 100)))
    write_log(tmp_path / "log" / "1.parquet", SMALL.slice(100, 100).select(SMALL.column_names[::-1]))
    narrow = SMALL.slice(200, 200)
    for name, kind in (("click", pa.bool_()), ("age", pa.int8()), ("pctr", pa.float32()), ("user_id", pa.int32())):
        narrow = narrow.set_column(narrow.column_names.index(name), name, narrow[name].cast(kind))
    write_log(tmp_path / "log" / "2.parquet", narrow)
    (tmp_path / "one").mkdir()
    write_log(tmp_path / "one" / "log.parquet", SMALL.slice(0, 400))
    found = [value(small_result(p, t, bid={"formula": "30"}), "spend") for p, t in
             ((tmp_path, "log"), (tmp_path / "one", "log.parquet"))]  # fmt: skip
    assert found[0] == found[1] != 0.0


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_end_of_another_kind_within_quotes_is_part_of_the_text(tmp_path: Path, newline: str) -> None:
    rows = ["ts,user_id,price,click,pctr,pcvr,target_cpa,note"]
    rows += [f'2026-11-01T00:00:{i:02d},{i},1.5,{i % 2},0.5,0.5,1,"a\rb\nc"' for i in range(20)]
    (tmp_path / "log.csv").write_bytes((newline.join(rows) + newline).encode())
    changes = {
        "sample_type": "imp-click",
        "columns": {},
        "bid": {"formula": "2 + pctr"},
        "segments": ["note"],
        "candidates": {"v2": {"bid": {"multiplier": 1.0}}},
    }
    result = small_result(tmp_path, "log.csv", **changes)
    found = {m.segment["note"] for m in result.metrics if "note" in m.segment}
    assert found == {"a\rb\nc"}


@pytest.mark.parametrize("zone", [" UTC", " +0000", "Z", "+00:00"])
def test_the_zone_that_a_csv_names_behind_its_times_is_theirs(tmp_path: Path, zone: str) -> None:
    """`2026-11-05 01:30:00 UTC`, as warehouses export it, is 10:30 in Tokyo; the zone was dropped, nine hours off.
    What the engine knows no instant of stays text, and is told."""
    (tmp_path / "log.csv").write_text(f"ts,{HEADER}2026-11-05 01:30:00{zone},{WHOLE}2026-11-05 10:30:00{zone},{WHOLE}")
    window = {"last_hour": "2026-11-05T10:00:00", "duration_hour": 1}
    changes = {"timezone": "Asia/Tokyo", "logs_tables": {"ad": window}}
    columns = {"time": "ts", "price": "paying_price"}
    if zone == " +0000":
        write_scenario(tmp_path / "s.yaml", {"segments": [], "columns": columns, **changes})
        said = bidsim("replay", "--scenario", tmp_path / "s.yaml", "--table", f"ad={tmp_path / 'log.csv'}")
        assert said.status == 2
        assert 'columns.time: the log\'s column is VARCHAR, such as "2026-11-05 01:30:00 +0000", a time' in said.err
        return
    result = small_result(tmp_path, "log.csv", columns=columns, **changes)
    assert result.data.rows == 1


def emptied(*names: str) -> pa.Table:
    table = SMALL
    for name in names:
        table = table.set_column(
            table.column_names.index(name), name, pa.nulls(table.num_rows, table.schema.field(name).type)
        )
    return table


@pytest.mark.parametrize("ending", [".csv", ".ndjson"])
def test_a_column_that_is_empty_in_every_line_is_one_of_missing_values(tmp_path: Path, ending: str) -> None:
    """Numbers, times, texts and what formulas make of them are those of the same log in Parquet, with its NULLs."""
    empty = emptied("paying_price", "pctr_v2", "ts", "spot_id", "age")
    changes = {
        "columns": {"time": "ts", "unit": "user_id", "price": "paying_price / 2", "click_time": "ts"},
        "segments": ["spot_id", "hour", {"shop": "lower(spot_id)"}],
        "conditions": ["age is null or age * 2 > 40"],
    }
    found = []
    for kind in (".parquet", ending):
        write_log(tmp_path / kind / "log" / f"0{kind}", empty.slice(0, 50))
        write_log(tmp_path / kind / "log" / f"1{kind}", empty.slice(50))
        found.append(numbers(tmp_path / kind, "log", **changes))
    assert found[0]["rows"] == 400
    assert {f["code"] for f in found[0]["findings"]} >= {"invalid_predictions", "undecidable"}
    for part in ("rows", *NUMBERS):
        assert found[0][part] == found[1][part], part


@pytest.mark.parametrize("files", [1, 2])
def test_a_csv_column_whose_only_value_comes_late_keeps_it(tmp_path: Path, files: int) -> None:
    (tmp_path / "log").mkdir()
    lines = [f",{WHOLE}"] * 1500 + [f"x,{WHOLE}"]
    for i, part in enumerate((lines[:-1], lines[-1:]) if files == 2 else (lines,)):
        (tmp_path / "log" / f"{i}.csv").write_text(f"shop,{HEADER}" + "".join(part))
    result = small_result(tmp_path, "log", segments=["shop"])
    assert {m.segment["shop"] for m in result.metrics if "shop" in m.segment} == {"null", "x"}


def test_a_csv_column_whose_name_stands_twice_is_not_the_first_of_the_two(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("pctr,PCTR,paying_price,won,click\n0.1,0.9,1,1,0\n")
    write_scenario(tmp_path / "s.yaml", {"segments": [], "columns": {"price": "paying_price"}})
    said = bidsim("replay", "--scenario", tmp_path / "s.yaml", "--table", f"ad={tmp_path / 'log.csv'}")
    assert said.status == 2
    assert 'log.csv: the column "pctr" stands twice in the header; rename one of the two' in said.err
