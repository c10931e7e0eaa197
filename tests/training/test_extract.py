"""Examples are the rows that a replay judges, from windows that never overlap, the same bytes however they are read."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command import bidsim
from small_market import FEATURES, START, contents, market, write_market

from bidsim.errors import BidsimError
from bidsim.replay.pipeline import Settings
from bidsim.scenario.loading import load_scenario
from bidsim.training.examples import Extraction, open_extraction
from bidsim.training.extract import Selection, extract

JUDGED = START + timedelta(days=4)


def extracted(scenario: Path, out: str = "data", threads: int = 1, **selection: Any) -> Extraction:
    chosen = Selection(**{"train_hours": 96, **selection})
    return extract(load_scenario(scenario), scenario.parent / out, chosen, settings=Settings(threads=threads))


def rows_of(made: Extraction, head: Any, name: Any = "train") -> list[dict[str, Any]]:
    return [row for batch in made.examples(head, name).batches() for row in batch.to_pylist()]


def test_examples_are_the_labelled_rows_of_their_window_in_the_order_of_time(tmp_path: Path) -> None:
    made = extracted(write_market(tmp_path, conditions=["spot <> 's3'"]))
    naive = [row for row in market().to_pylist() if row["spot"] != "s3"]
    for name, expected in (
        ("train", [r for r in naive if r["ts"] < JUDGED]),
        ("evaluation", [r for r in naive if r["ts"] >= JUDGED]),
    ):
        for head, label in (("ctr", "click"), ("cvr", "conversion")):
            wanted = [r for r in expected if head == "ctr" or r["click"]]
            found = rows_of(made, head, name)
            assert [tuple(r[f] for f in FEATURES) for r in found] == [tuple(r[f] for f in FEATURES) for r in wanted]
            assert [r["label"] for r in found] == [float(r[label]) for r in wanted]
            assert [(r["weight"], r["time"], r["campaign"], r["unit"]) for r in found] == [
                (r["w"], r["ts"], r["ad"], r["user"]) for r in wanted
            ]
            sample = made.examples(head, name).sample
            assert (sample.rows, sample.positives) == (len(wanted), sum(r[label] for r in wanted))
            assert sample.weight == sum(r["w"] for r in wanted)
    assert [(f.name, f.kind) for f in made.manifest.features] == [
        ("ad", "categorical"),
        ("spot", "categorical"),
        ("os", "categorical"),
        ("age", "numeric"),
    ]


def test_neither_threads_nor_files_change_a_byte(tmp_path: Path) -> None:
    first = extracted(write_market(tmp_path / "a"), keep_negatives=0.4)
    write_market(tmp_path / "b", logs_tables={"log": {**json_window(), "path": "logs/*.parquet"}})
    (tmp_path / "b" / "logs").mkdir()
    shuffled = list(range(6000))
    random.Random(3).shuffle(shuffled)
    for i in range(3):
        part = market().take(pa.array(shuffled[i * 2000 : (i + 1) * 2000]))
        pq.write_table(part, tmp_path / "b" / "logs" / f"{i}.parquet", row_group_size=700)
    second = extracted(tmp_path / "b" / "scenario.yaml", threads=4, keep_negatives=0.4)
    ours, theirs = contents(first.directory), contents(second.directory)
    assert {n: b for n, b in ours.items() if n.endswith(".parquet")} == {
        n: b for n, b in theirs.items() if n.endswith(".parquet")
    }
    again = extracted(tmp_path / "a" / "scenario.yaml", "again", threads=3, keep_negatives=0.4)
    assert contents(again.directory) == ours


def json_window() -> dict[str, Any]:
    return {"last_hour": "2026-11-05T23:00:00", "duration_hour": 24}


def test_kept_negatives_stand_for_those_left_out_and_positives_all_stay(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    whole = extracted(scenario)
    some = extracted(scenario, "some", keep_negatives=0.25)
    ours, theirs = rows_of(some, "ctr"), rows_of(whole, "ctr")
    positives = [r for r in theirs if r["label"] == 1]
    assert [r for r in ours if r["label"] == 1] == positives
    negatives = {json.dumps(r, default=str): r for r in theirs if r["label"] == 0}
    kept = [r for r in ours if r["label"] == 0]
    assert all(json.dumps({**r, "weight": r["weight"] / 4}, default=str) in negatives for r in kept)
    assert 0.2 < len(kept) / len(negatives) < 0.3
    total = sum(r["weight"] for r in negatives.values())
    assert abs(sum(r["weight"] for r in kept) / total - 1) < 0.1
    # Clicked rows are few, and the judged rows are as they are.
    assert rows_of(some, "cvr") == rows_of(whole, "cvr")
    assert rows_of(some, "ctr", "evaluation") == rows_of(whole, "ctr", "evaluation")


def test_rows_that_are_alike_are_drawn_one_by_one(tmp_path: Path) -> None:
    row = market().slice(10, 1).to_pylist()[0] | {"click": 0, "conversion": 0}
    table = pa.Table.from_pylist([row] * 3000, schema=market().schema)
    write_market(tmp_path)
    pq.write_table(pa.concat_tables([table, market().filter(pc.field("ts") >= JUDGED)]), tmp_path / "log.parquet")
    made = extracted(tmp_path / "scenario.yaml", keep_negatives=0.3, threads=2)
    assert 800 < made.examples("ctr").sample.rows < 1000


def test_the_training_window_leaves_room_for_the_attribution_window(tmp_path: Path) -> None:
    maturity = {"conversion_window_hours": 12.5, "observed_until": "2026-11-20T00:00:00"}
    scenario = write_market(tmp_path, maturity=maturity)
    made = extracted(scenario, train_hours=24)
    window = made.manifest.train.window
    assert window is not None
    end = datetime.fromisoformat(window.end)
    assert (end, datetime.fromisoformat(window.start)) == (JUDGED - timedelta(hours=13), end - timedelta(hours=24))
    assert max(r["time"] for r in rows_of(made, "ctr")) < end
    assert made.manifest.gap_hours == 12.5
    # With less room clicks still train, and conversions only where they had come before the first judged row.
    close = extracted(scenario, "close", train_hours=24, gap_hours=0)
    assert max(r["time"] for r in rows_of(close, "ctr")) > JUDGED - timedelta(hours=1)
    assert max(r["time"] for r in rows_of(close, "cvr")) <= JUDGED - timedelta(hours=12.5)


def test_anomalous_campaigns_go_by_the_counts_of_each_window_and_are_listed(tmp_path: Path) -> None:
    rows = market().to_pylist()
    for row in rows:
        if row["ad"] == 2 and row["ts"] < JUDGED:
            row["conversion"] = 1
    scenario = write_market(tmp_path, remove_anomaly_cvr_cpns=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=market().schema), tmp_path / "log.parquet")
    made = extracted(scenario)
    (removed,) = made.manifest.train.removed_campaigns
    assert (removed.campaign, removed.jump) == ("2", None)
    assert removed.conversions > removed.clicks
    assert made.manifest.evaluation.removed_campaigns == ()
    assert 2 not in {r["ad"] for r in rows_of(made, "ctr")}
    assert 2 in {r["ad"] for r in rows_of(made, "ctr", "evaluation")}


def test_a_feature_keeps_its_name_beside_a_role_of_the_same_name(tmp_path: Path) -> None:
    table = market().rename_columns([{"spot": "weight", "os": "label"}.get(n, n) for n in market().column_names])
    scenario = write_market(tmp_path, features=["weight", "label", "ad", "hour"])
    pq.write_table(table, tmp_path / "log.parquet")
    made = extracted(scenario)
    row = rows_of(made, "ctr")[0]
    assert (row["weight"], row["_weight"], row["_label"]) == (table["weight"][0].as_py(), table["w"][0].as_py(), 0.0)
    assert row["hour"] == row["time"].hour


def test_a_log_of_its_own_trains_where_there_are_no_times(tmp_path: Path) -> None:
    scenario = write_market(
        tmp_path, logs_tables={"log": {"path": "log.parquet"}}, columns={"campaign": "ad", "unit": "user"}
    )
    pq.write_table(market(2000, 2).drop_columns(["ts"]), tmp_path / "other.parquet")
    loaded = load_scenario(scenario)
    tables = {"log": str(tmp_path / "other.parquet")}
    made = extract(loaded, tmp_path / "data", Selection(), train_tables=tables)
    assert made.manifest.train.window is None
    assert (made.examples("ctr").sample.rows, made.examples("ctr", "evaluation").sample.rows) == (2000, 6000)
    with pytest.raises(BidsimError, match="keep them apart"):
        extract(loaded, tmp_path / "same", Selection(), train_tables={"log": str(tmp_path / "log.parquet")})
    with pytest.raises(BidsimError, match="--train-table"):
        extract(loaded, tmp_path / "same", Selection(train_hours=24))
    assert not (tmp_path / "same").exists()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"features": None}, [], "names no features"),
        (
            {"features": ["ad", "spto"]},
            [],
            'scenario.yaml:5: features: the log has no column "spto" (did you mean "spot"?)',
        ),
        (
            {"features": ["ad", "Click"]},
            [],
            'scenario.yaml:5: features: "Click" is the column of click, which is known',
        ),
        ({"features": ["ad", "x" * 201]}, [], "a model has at most 1000 features, their names at most 200 characters"),
        ({"features": ["ad", "price"]}, [], '"price" is the column of price, which is known only after the bid'),
        ({"columns": {"campaign": "ad", "price": "price"}}, [], "need the time of each row; set columns.time"),
        ({}, ["--keep-negatives", "0"], "above 0 and at most 1"),
        ({}, ["--gap-hours", "-1"], "0 hours or more"),
        ({"conditions": ["ts >= '2026-11-05'"]}, [], "no labelled row in the training window"),
        ({"logs_tables": {"log": {"path": "log.parquet"}}}, [], "scenario.yaml:3: the scenario judges the whole log"),
    ],
)
def test_what_cannot_be_extracted_is_told_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], arguments: list[str], message: str
) -> None:
    scenario = write_market(tmp_path, **changes)
    said = bidsim(
        "extract", "--scenario", scenario, "--train-hours", "48", "--out", tmp_path / "data", "-q", *arguments
    )
    assert said.status == 2
    assert message in said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.parquet", "scenario.yaml"]


def test_an_extraction_that_was_changed_is_refused(tmp_path: Path) -> None:
    made = extracted(write_market(tmp_path))
    part = made.directory / "train" / "imp-click" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(BidsimError, match=r"part-00000\.parquet: is not what was extracted"):
        open_extraction(made.directory)
    with pytest.raises(BidsimError, match="is no extraction"):
        open_extraction(tmp_path)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("columns", "label"), None, "its rows have no label"),
        (("columns", "weight"), None, "its rows have no weight"),
        (("columns", "label"), "spot", "its label is "),
        (("columns", "label"), "lable", 'it lacks column "lable"'),
        (("features", 0, "name"), "add", 'it lacks column "add"'),
        (("features", 0, "name"), "a" * 201, "at most 200 characters"),
        (("train", "samples"), {}, "at least 1 item"),
        (("train", "samples", "imp-click", "rows"), 10**9, "rows, not 1000000000"),
        (("train", "samples", "imp-click", "rows"), -1, "greater than or equal to 0"),
        (("train", "samples", "imp-klick"), {}, "train.samples.imp-klick"),
        (("train", "samples", "imp-click", "files", 0, "path"), "train/\0", "a file outside of itself"),
    ],
)
def test_a_manifest_that_was_forged_is_refused(
    tmp_path: Path, where: tuple[Any, ...], value: Any, message: str
) -> None:
    made = extracted(write_market(tmp_path, sample_type="imp-click"))
    file = made.directory / "manifest.json"
    document = json.loads(file.read_bytes())
    *path, last = where
    part = document
    for key in path:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    file.write_text(json.dumps(document))
    with pytest.raises(BidsimError) as raised:
        open_extraction(made.directory)
    assert message in str(raised.value)


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    said = bidsim("extract", "--scenario", scenario, "--train-hours", "96", "--out", tmp_path / "data")
    assert said.status == 0, said.err
    assert "train imp-click: " in said.err
    assert said.out.strip() == str(tmp_path / "data" / "manifest.json")


@pytest.mark.parametrize("clock", ["ts", "cast(timezone('Asia/Tokyo', ts) as timestamp)"])
@pytest.mark.parametrize(("hours", "said_so"), [(96, None), (100, None), (102, "102"), (1000, "1,000")])
def test_a_training_window_that_begins_long_before_the_log_is_told(
    tmp_path: Path, clock: str, hours: int, said_so: str | None
) -> None:
    """The log has 96 hours before the judged ones, whatever is asked; of a few quiet hours nothing is said."""
    columns = {"time": clock, "unit": "user", "campaign": "ad", "price": "price", "weight": "w"}
    window = {"last_hour": "2026-11-06T08:00:00", "duration_hour": 24}  # in Tokyo
    scenario = write_market(
        tmp_path,
        columns=columns,
        timezone="Asia/Tokyo",
        logs_tables={"log": {"path": "log.parquet", **window}},
    )
    said = bidsim("extract", "--scenario", scenario, "--train-hours", str(hours), "--out", tmp_path / "data")
    assert said.status == 0, said.err
    told = [line for line in said.err.splitlines() if "warning" in line]
    if said_so is None:
        assert not told
        return
    (line,) = told
    assert line == (
        f"bidsim: warning: the training window is {said_so} hours long, and of those the log has only the last 96.0 "
        "(its first row is of 2026-11-01 00:01 UTC)"
    )


def test_whole_numbers_are_categories_however_a_warehouse_writes_them(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, sample_type="imp-click")
    ids = [Decimal(2**100 + ad) for ad in market().column("ad").to_pylist()]
    columns = {"ad": pa.array(ids, pa.decimal128(38, 0)), "age": market().column("age").cast(pa.decimal128(9, 2))}
    table = market()
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, tmp_path / "log.parquet")
    kinds = {feature.name: feature.kind for feature in extracted(scenario).manifest.features}
    assert kinds == {"ad": "categorical", "spot": "categorical", "os": "categorical", "age": "numeric"}
