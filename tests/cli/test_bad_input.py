"""What can't be used is refused: status 2, one message that names file, line or column, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command import SCENARIO, bidsim, log, write_log, write_model, write_scenario

from bidsim.models import Feature

SMALL = log().slice(0, 300)
Make = Callable[[Path], Sequence[str | Path] | None]
AD = "logs_tables: {ad: {}}\n"


def refused(folder: Path, make: Make, *, table: bool = True) -> str:
    """Run in a folder that holds log.parquet and s.yaml, changed by `make`, and see that it is refused and unchanged.

    make: returns more words of the command. Returns what stderr says after "bidsim: error: ".
    """
    write_log(folder / "log.parquet", SMALL)
    write_scenario(folder / "s.yaml")
    more = list(make(folder) or [])
    words = ["replay", "--scenario", "s.yaml", "--quiet", *more]
    if table and not any(str(w).startswith("ad=") for w in more):
        words += ["--table", "ad=log.parquet"]
    if "--out" not in more:
        words += ["--out", "runs/new"]
    temporary = folder / "temporary"
    temporary.mkdir()
    before = everything(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        said = bidsim(*words, cwd=folder)
    assert (said.status, said.out) == (2, ""), said.err
    assert everything(folder) == before
    assert "Traceback" not in said.err
    assert len(said.err) < 700
    message = said.err.removeprefix("bidsim: error: ").removesuffix("\n")
    for word in ("union_by_name", "strict_mode", "duckdb", "Exception", "carried"):  # the engine's words, not ours
        assert word not in message.replace("TProtocolException", "")
    return message.replace(str(folder.resolve()) + "/", "").replace(str(folder) + "/", "")


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() and os.access(p, os.R_OK) else None
        for p in sorted(folder.rglob("*"))
    }


def scenario(**changes: Any) -> Make:
    return lambda folder: write_scenario(folder / "s.yaml", changes) and None


def yaml(text: str | bytes) -> Make:
    content = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "s.yaml").write_bytes(content) and None


COLUMNS = SCENARIO["columns"]
WINDOW = {"ad": {"last_hour": "2026-11-02T23:00:00", "duration_hour": 48}}


def with_columns(folder: Path, columns: Any = None, **made: Callable[[int], Any]) -> None:
    """The small log with some columns made anew, under a window."""
    table = SMALL
    for name, make in made.items():
        values = pa.array([make(i) for i in range(table.num_rows)])
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    write_log(folder / "log.parquet", table)
    default = {k: v for k, v in COLUMNS.items() if k not in made}
    write_scenario(folder / "s.yaml", {"logs_tables": WINDOW, "columns": columns or default})


def with_times(make: Callable[[int], datetime]) -> Make:
    times = pa.array([make(i) for i in range(SMALL.num_rows)])
    return lambda folder: write_log(folder / "log.parquet", SMALL.set_column(0, "ts", times)) and None


LONG_AGO = {"ad": {"last_hour": "2020-01-01T00:00:00", "duration_hour": 3}}
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + AD

SCENARIOS: dict[str, tuple[Make, str]] = {
    "unknown key": (scenario(conditon=["a"]), r's.yaml:8: unknown key "conditon" \(did you mean "conditions"\?\)$'),
    "unknown key of a rule": (scenario(gate=[{"metric": "cpa", "at_mots": 1}]), r's.yaml:8: unknown key "at_mots" .*"at_m'),
    "wrong type": (scenario(bid={"max": "x"}), r"s.yaml:8: bid.max: must be a number, got 'x'$"),
    "empty": (yaml(""), r"s.yaml: the scenario is empty; the least it needs is logs_tables$"),
    "only a comment": (yaml("# later\n"), r"s.yaml: the scenario is empty"),
    "duplicate keys": (yaml(AD + "name: a\nname: b\n"), r's.yaml:3: the key "name" stands twice$'),
    "anchors": (yaml(BOMB), r"s.yaml:1: anchors and aliases .* are not allowed"),
    "tabs": (yaml(AD + "bid:\n\tmax: 3\n"), r"s.yaml:3:1: not valid YAML: .*; indent with spaces, not tabs$"),
    "not UTF-8": (yaml(AD.encode() + b"name: \xe9\n"), r"s.yaml:2: not UTF-8 text; give the YAML file of the scenario$"),
    "not closed": (yaml(AD + "bid: {max: 1\n"), r"s.yaml:3:1: not valid YAML"),
    "missing": (lambda folder: (folder / "s.yaml").unlink(), r"s.yaml: no such file; check --scenario$"),
    "a folder": (lambda folder: ["--scenario", "."], r"\.: (this )?is a folder"),
    "a day that is none": (yaml(AD + "gate:\n- metric: cpa\n  waive: {until: 2026-02-31}\n"),
                           r"s.yaml:4: 2026-02-31 is no day: day is out"),
    "a text as condition": (scenario(conditions=["spot_id"]),
                            r's.yaml:8: conditions.0: "spot_id" gives a VARCHAR, where true or false is needed$'),
    "unknown column": (scenario(columns={**COLUMNS, "price": "prize"}),
                       r's.yaml:4: columns.price: .*unknown column "prize"; known are ad_id'),
    "unknown prediction": (scenario(candidates={"v2": {"columns": {"pctr": "pctr_v9"}}}),
                           r's.yaml:6: candidates.v2.columns.pctr: .*"pctr_v9" \(did you mean "pctr_v2"'),
    "unknown feature": (scenario(features=["spott_id"]), r's.yaml:8: features: .*"spott_id" \(did you mean "spot_id"\?\)'),
    "unknown segment": (scenario(segments=["campain"]), r's.yaml:7: segments.0: .* role "campain" \(did you mean "campaign"\?\)$'),
    "unknown part of the time": (scenario(segments=["weekdy"]), r's.yaml:7: segments.0: .*"weekdy" \(did you mean "weekday"\?\)$'),
    "segment that is nothing like any": (scenario(segments=["qqqqqq"]), r's.yaml:7: segments.0: "qqqqqq": unknown column "qqqqqq"'),
    "unfinished SQL": (scenario(conditions=["billing_type = "]), r"s.yaml:8: conditions.0: .*something is missing"),
    "subquery": (scenario(conditions=["ad_id in (select 1)"]), r"s.yaml:8: conditions.0: .*a query \(select\) is not allowed"),
    "table function": (scenario(conditions=["read_text('/etc/passwd') = ''"]),
                       r"s.yaml:8: conditions.0: .*read_text is not allowed: it reads files"),
    "second statement": (scenario(conditions=["true; drop table x"]), r's.yaml:8: conditions.0: .*";" is not allowed'),
    "formula with a typing error": (scenario(bid={"formula": "1000 * pctrr"}),
                                    r's.yaml:8: bid.formula: .*unknown column "pctrr" \(did you mean "pctr"'),
    "a text as price": (scenario(columns={**COLUMNS, "price": "spot_id"}),
                        r's.yaml:4: columns.price: the log.s column is VARCHAR, such as "\w+", a number is needed'),
    "a text as prediction": (scenario(candidates={"v2": {"columns": {"pctr": "spot_id"}}}),
                             r's.yaml:6: candidates.v2.columns.pctr: .*VARCHAR.*try_cast\(spot_id as double\)'),
    "a number as time": (scenario(columns={**COLUMNS, "time": "age"}), r"s.yaml:4: columns.time: .*a time is needed; write"),
    "a number as the default time": (lambda f: with_columns(f, time=lambda i: 1_800_000_000 + i),
                                     r"s.yaml:4: columns.time: the log's column is BIGINT, such as .*to_timestamp\(time\) of"),
    "a text as the default time under a window": (lambda f: with_columns(f, time=lambda i: f"0{1 + i % 9}/11/2026"),
                                                  r"s.yaml:4: columns.time: .* VARCHAR, such as \"0./11/2026\", a time is needed"),
    "milliseconds as UTC's clock": (scenario(timezone="Asia/Tokyo", columns={**COLUMNS, "time": "epoch_ms(user_id)"}),
                                    r"s.yaml:4: columns.time: epoch_ms gives UTC's clock .* to_timestamp\(\(user_id\) / 1000\)$"),
    "a zone that a cast drops": (lambda f: with_columns(f, t=lambda i: f"2026-11-01T0{i % 9}:00:00+09:00",
                                                        columns={**COLUMNS, "time": "cast(t as timestamp)"}),
                                 r"s.yaml:4: columns.time: .* such as \"2026-.*09:00\", .* write cast\(t as timestamptz\)$"),
    "words as won": (lambda f: with_columns(f, won=lambda i: "true"),
                     r"s.yaml:4: columns.won: .*\"true\".*write cast\(won as boolean\)$"),
    "letters as won": (lambda f: with_columns(f, won=lambda i: "Y"), r"s.yaml:4: .*write lower\(won\) in \('y', 'yes'\)$"),
    "prices with commas": (lambda f: with_columns(f, paying_price=lambda i: "1,204.50"),
                           r"s.yaml:4: .*\"1,204.50\".* write cast\(replace\(paying_price, ',', ''\) as double\)$"),
    "predictions with signs": (lambda f: with_columns(f, pctr=lambda i: "1.2%"),
                               r"s.yaml:4: .*write cast\(replace\(pctr, '%', ''\) as double\) / 100$"),
    "an abbreviated time zone": (scenario(timezone="JST"), r's.yaml:8: .*time zone "JST"; write one of IANA, such as Asia/Tokyo$'),
    "a cast that fails": (scenario(conditions=["cast(spot_id as integer) = 1"]),
                          r"s.yaml:8: conditions.0: needs a number .*'top' of column \"spot_id\".*write try_cast"),
    "a text as bid": (scenario(bid={"formula": "concat('x', spot_id)"}), r"s.yaml:8: bid.formula: needs a number .*write try_cast"),
    "a time as bid": (scenario(bid={"formula": "ts"}), r"s.yaml:8: bid.formula: gives a TIMESTAMP WITH TIME ZONE, .*money"),
    "a formula of wrong types": (scenario(candidates={"v2": {"bid": {"formula": "spot_id % 2"}}}),
                                 r"s.yaml:6: candidates.v2.bid.formula: the expression does not fit the log: No function"),
    "an auction type of wrong types": (scenario(auction={"type": "upper(age)"}), r"s.yaml:8: auction.type: .*does not fit"),
    "a budget of wrong types": (scenario(budget={"amount": "list_contains(spot_id, 'a')"}), r"s.yaml:8: budget.amount: .*not fit"),
    "a pattern too large": (scenario(conditions=["age > 1", "regexp_matches(spot_id, '(a{1000}){1000}')"]),
                            r"s.yaml:8: conditions.1: can't be computed for a row of the log: invalid repetition size"),
    "a value out of range": (scenario(columns={**COLUMNS, "weight": "ts + interval 999999999 year"}), r"s.yaml:4: columns.weight"),
    "an overflow": (scenario(segments=[{"x": "abs(cast(-128 as tinyint))"}]), r"s.yaml:7: segments.0: .*Overflow on abs"),
    "a long unknown name": (scenario(conditions=["c" * 5000 + " > 1"]), r"s.yaml:8: conditions.0: .{30,200}unknown column .{,90};"),
    "an empty log": (lambda f: write_log(f / "log.parquet", SMALL.slice(0, 0)) and None,
                     r"log.parquet: no row .*; it has none; check"),
    "empty window": (scenario(conditions=["ad_id = 99"]), r"log.parquet: no row .* check last_hour, .* and conditions$"),
    "window outside the log": (scenario(logs_tables=LONG_AGO),
                              r"log.parquet: no row of the log lies in the window.*; its times run from 2026-.* to 2026-.*; check"),
    "a time of no end": (with_times(lambda i: datetime(9999, 12, 31) if i == 7 else datetime(2026, 11, 2)),
                         r"log.parquet: columns.time: 1 row has a time before 1900 or after 2199 \(9999-12-31 00:"),
    "times before the first": (with_times(lambda i: datetime(1, 1, 1 + i % 2)),
                               r"log.parquet: columns.time: 300 rows have times before 1900"),
    "no candidate": (scenario(candidates={}), r"s.yaml: no candidate: give --model FILE, or candidates in the scenario$"),
    "candidate called baseline": (scenario(candidates={"baseline": {"bid": {"multiplier": 2}}}),
                                  r's.yaml:6: two policies are called "baseline"'),
    "no campaign table": (scenario(campaigns="c.csv"), r"c.csv: table campaigns: no such file .*check campaigns in the s"),
}  # fmt: skip


@pytest.mark.parametrize("case", SCENARIOS)
def test_a_scenario_that_can_not_be_used(case: str, tmp_path: Path) -> None:
    make, message = SCENARIOS[case]
    said = refused(tmp_path, make)
    assert re.match(message, said), said


def command(*words: str) -> Make:
    return lambda folder: words


def two_models(folder: Path) -> Sequence[str]:
    (folder / "a").mkdir()
    write_model(folder / "a" / "m.bin")
    write_model(folder / "m.bin", seed=1)
    return ["--model", "m.bin", "--model", "a/m.bin"]


def existing(folder: Path) -> Sequence[str]:
    (folder / "there").mkdir()
    return ["--out", "there"]


def dangling(folder: Path) -> Sequence[str]:
    (folder / "link").symlink_to("nowhere")
    return ["--out", "link"]


OPTIONS: dict[str, tuple[Make, str]] = {
    "threads 0": (command("--threads", "0"), r"(?s)Usage: .*Invalid value for '--threads'"),
    "threads x": (command("--threads", "x"), r"(?s)Usage: .*Invalid value for '--threads'"),
    "memory lots": (command("--memory", "lots"), r"--memory lots: not a size; write something like 4GB or 1500MB$"),
    "memory 1MB": (command("--memory", "1MB"), r"--memory 1MB: bidsim needs at least 1GB$"),
    "memory without end": (command("--memory", "9" * 400 + "GB"), r"--memory 9+: no machine has that much"),
    "as of soon": (command("--as-of", "soon"), r"--as-of soon: not a day; write YYYY-MM-DD$"),
    "table without =": (command("--table", "log.parquet"), r"--table log.parquet: write NAME=PATH, such as ad="),
    "table without a path": (command("--table", "ad="), r"--table ad=: write NAME=PATH"),
    "unknown table": (command("--table", "adx=log.parquet"), r's.yaml: --table adx=...: .* no table "adx"; it has ad$'),
    "table twice": (command("--table", "ad=a", "--table", "ad=b"), r'--table: "ad" is given twice'),
    "unknown option": (command("--modle", "x"), r"(?s)Usage: .*No such option: --modle"),
    "two models of one name": (two_models, r's.yaml:6: two policies are called "m"; rename the file or the candidate$'),
    "existing folder": (existing, r"there: the output folder exists already; name another one, or remove it$"),
    "dangling link": (dangling, r"link: the output folder exists already"),
    "charts in the run's own folder": (command("--charts", "runs/new"), r"runs/new: --charts needs a folder of its own"),
    "settings of Spark without it": (command("--spark", "master=yarn"), r"--spark master: this replay runs on DuckDB; give"),
    "below a file": (command("--out", "log.parquet/x/y"), r"log.parquet/x/y: the output folder can't be made below a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_can_not_be_used(case: str, tmp_path: Path) -> None:
    make, message = OPTIONS[case]
    said = refused(tmp_path, make)
    assert re.match(message, said), said


def test_a_table_without_a_path_must_be_bound(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda folder: None, table=False)
    assert said == "s.yaml:3: table ad has no path; give one, or bind it with --table ad=PATH"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_permissions_forbid(tmp_path: Path) -> None:
    def unreadable(folder: Path) -> None:
        (folder / "log.parquet").chmod(0)

    def unwritable(folder: Path) -> Sequence[str]:
        (folder / "locked").mkdir(mode=0o555)
        return ["--out", "locked/run"]

    for name, make, message in (
        ("a", unreadable, r"log.parquet: table ad: the file can't be read; check its permissions"),
        ("b", unwritable, r"locked/run: the output folder can't be written; check permissions"),
    ):
        (tmp_path / name).mkdir()
        assert re.match(message, refused(tmp_path / name, make))


def test_an_unwritable_parent_is_told_before_the_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any user sees it, root included: access is asked before an hour of work."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    said = refused(tmp_path, lambda folder: None)
    assert said == "runs/new: the output folder can't be written; check permissions or name another one"


def test_an_unwritable_default_folder_is_told_before_the_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log.parquet", SMALL)
    write_scenario(tmp_path / "s.yaml")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    said = bidsim("replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", cwd=tmp_path)
    message = "runs: the output folder can't be written; check permissions or name another one"
    assert (said.status, said.err) == (2, f"bidsim: error: {message}\n")


@pytest.mark.parametrize("command", [("train",), ("model", "calibrate", "m.bin")], ids=lambda c: c[0])
def test_a_bundle_that_can_not_be_written_is_told_before_the_work_for_it(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and real(path, mode))
    for out, why in (
        ("folder", "it is a folder"),
        ("nowhere/new.bin", "there is no folder nowhere"),
        ("locked/new.bin", "the folder locked can't be written"),
    ):
        # Nothing else of the command is looked at before.
        said = bidsim(*command, "--scenario", "s.yaml", "-o", out, cwd=tmp_path)
        message = f"bidsim: error: {out}: can't be written: {why}; name another file with -o\n"
        assert (said.status, said.err) == (2, message)


@pytest.mark.parametrize(
    "words", [["gate"], ["plan"], ["report"], ["leaderboard", "--html"], ["demo"]], ids=lambda words: str(words[0])
)
def test_a_path_that_no_machine_can_follow_is_one_message(tmp_path: Path, words: list[str]) -> None:
    said = bidsim(*words, "x" * 300, cwd=tmp_path)
    assert (said.status, said.out) == (2, "")
    assert re.fullmatch(r"bidsim: error: \S*x{300}\S*: File name too long; give another path\n", said.err), said.err


def test_the_default_folder_of_long_names_in_any_script_can_be_made(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", SMALL)
    write_scenario(tmp_path / "s.yaml", {"name": "春のセール" * 20})
    model = tmp_path / f"{'候補モデル' * 16}.bin"
    write_model(model)
    said = bidsim("replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", "--model", model, "-q", cwd=tmp_path)
    assert said.status != 2, said.err
    assert said.status != 70, said.err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("春のセール")


def test_a_run_that_is_there_already_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", SMALL)
    write_scenario(tmp_path / "s.yaml")
    words = ["replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", "--as-of", "2026-11-26", "--quiet"]
    assert bidsim(*words, cwd=tmp_path).status != 2
    (run,) = (tmp_path / "runs").iterdir()
    before = everything(tmp_path)
    said = bidsim(*words, cwd=tmp_path)
    assert said.status == 2
    assert said.err == (
        f"bidsim: error: runs/{run.name}: this run is there already, of the same scenario, models, data and day: "
        "bidsim report renders it again; give --out a new folder, or remove this one\n"
    )
    assert everything(tmp_path) == before


def model(damage: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Sequence[str]:
        damage(write_model(folder / "m.bin"))
        return ["--model", "m.bin"]

    return make


def cut(share: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def flip(place: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 1
        path.write_bytes(bytes(content))

    return damage


def foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", b"1")


def needs(name: str, kind: str, column: str | None = None) -> Make:
    def make(folder: Path) -> Sequence[str]:
        write_model(folder / "m.bin", features=(Feature(name=name, type=kind, column=column),))  # type: ignore[arg-type]
        return ["--model", "m.bin"]

    return make


MODELS: dict[str, tuple[Make, str]] = {
    "missing": (command("--model", "no.bin"), r"no.bin: no such file; check the path of the model$"),
    "folder": (command("--model", "."), r"\.: this is a directory; pass the bundle file"),
    "pickle": (model(lambda p: p.write_bytes(pickle.dumps({"a": 1}))), r"m.bin: this is a Python pickle .*never loads one"),
    "zip": (model(foreign_zip), r"m.bin: this is a zip file without manifest.json, not a bundle"),
    "random bytes": (model(lambda p: p.write_bytes(random.Random(1).randbytes(999))), r"m.bin: this is no bundle"),
    "empty": (model(lambda p: p.write_bytes(b"")), r"m.bin: this is an empty file"),
    "truncated": (model(cut(0.6)), r"m.bin: this is a zip file that is cut short or damaged; copy it again"),
    "truncated by a byte": (model(lambda p: p.write_bytes(p.read_bytes()[:-1])), r"m.bin: .*(cut short|after its end)"),
    "byte flipped in the weights": (model(flip(0.75)), r"m.bin: "),
    "byte flipped in the manifest": (model(flip(0.3)), r"m.bin: "),
    "predictions under a strange name": (model(lambda p: p.write_text("request_id;pctr\nr00001;0.1\n")),
                                         r"m.bin: this is a text file whose first line names no prediction; .*CSV with commas"),
    "percentages": (model(lambda p: p.write_text("request_id,pctr\nr00001,12.5\nr00002,7\nr00003,0.5\n")),
                    r'm.bin: 2 of 3 values of column "pctr" lie outside 0 to 1, such as 12.5; predictions are probabilities'),
    "predictions by an unknown key": (model(lambda p: p.write_text("rid,pctr\nr00001,0.1\n")),
                                      r'm.bin: its key is "rid", and the log has no such column'),
    "feature missing": (needs("spott_id", "categorical"), r'm.bin: .*"spott_id", .*no such column \(did you mean "spot_id"'),
    "feature of another type": (needs("spot", "numeric", "spot_id"), r'm.bin: feature "spot" is numeric .* "spot_id" is string'),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_models_that_can_not_be_used(case: str, tmp_path: Path) -> None:
    make, message = MODELS[case]
    said = refused(tmp_path, make)
    assert re.match(message, said), said


def content(name: str, text: str | bytes) -> Make:
    def make(folder: Path) -> Sequence[str]:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["--table", f"ad={name}"]

    return make


def as_text(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return write_log(Path(folder) / name, SMALL).read_text(encoding="utf-8")


CSV, NDJSON = as_text("a.csv"), as_text("a.ndjson")


def line(text: str, number: int, change: Callable[[str], str]) -> str:
    """A text with one line changed (1-based)."""
    lines = text.splitlines()
    lines[number - 1] = change(lines[number - 1])
    return "\n".join(lines) + "\n"


def field(row: str, number: int, value: str) -> str:
    values = row.split(",")
    values[number] = value
    return ",".join(values)


def four(change: Callable[[Path], object]) -> Make:
    """The log as four Parquet files, one of them spoilt."""

    def make(folder: Path) -> Sequence[str]:
        for i in range(4):
            write_log(folder / "logs" / f"{i}.parquet", SMALL.slice(i * 75, 75))
        change(folder / "logs")
        return ["--table", "ad=logs/*.parquet"]

    return make


def hole(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:2000] + data[3000:])


def text_prices(path: Path) -> None:
    part = SMALL.slice(150, 75)
    write_log(path, part.set_column(6, "paying_price", pa.array(["free"] * 75)))


def zoneless(path: Path) -> None:
    part = SMALL.slice(150, 75)
    write_log(path, part.set_column(0, "ts", part["ts"].cast(pa.timestamp("us"))))


def without(path: Path, *names: str) -> None:
    write_log(path, SMALL.slice(0, 75).drop_columns(list(names)))


PRICE = 6  # the column's place in the CSV
LOGS: dict[str, tuple[Make, str]] = {
    "missing": (command("--table", "ad=no.parquet"), r"no.parquet: table ad: no such file .*check the path or --table ad="),
    "empty folder": (lambda f: (f / "e").mkdir() or ["--table", "ad=e"], r"e: table ad: no files match"),
    "glob matching nothing": (command("--table", "ad=q*.parquet"), r"q\*.parquet: table ad: no files match"),
    "unknown ending": (content("log.txt", CSV), r"log.txt: table ad: the format can't be told .* give format: parquet, csv"),
    "empty file": (content("x.csv", ""), r"x.csv: table ad: the file is empty$"),
    "only a header": (content("x.csv", CSV.splitlines()[0] + "\n"), r"x.csv: table ad: there is a header and no row$"),
    "no Parquet": (content("x.parquet", b"hello, this is no Parquet"), r"x.parquet: table ad: not a Parquet file$"),
    "truncated Parquet": (lambda f: cut(0.6)(f / "log.parquet"), r"log.parquet: table ad: the Parquet file is cut off"),
    "a later file truncated": (four(lambda f: cut(0.6)(f / "2.parquet")), r"logs/2.parquet: .*is cut off .*; copy it again$"),
    "a later file with a hole": (four(lambda f: hole(f / "2.parquet")), r"logs/2.parquet: the Parquet file is damaged"),
    "a later file of nothing": (four(lambda f: (f / "3.parquet").write_bytes(b"")), r"logs/3.parquet: .*the file is empty"),
    "types differ": (four(lambda f: text_prices(f / "2.parquet")),
                     r"s.yaml:4: columns.price: .*DOUBLE in logs/0.parquet and VARCHAR in logs/2.parquet, a number is needed"),
    "a later file lacks a prediction": (four(lambda f: without(f / "2.parquet", "pctr_v2")),
                                        r'logs/2.parquet: the column "pctr_v2" is not in this file, and in other files'),
    "the first file lacks a prediction": (four(lambda f: without(f / "0.parquet", "pctr_v2")),
                                          r'logs/0.parquet: the column "pctr_v2" is not in this file'),
    "a file lacks a role's default column": (four(lambda f: without(f / "1.parquet", "click")),
                                             r'logs/1.parquet: the column "click" is not in this file'),
    "a time zone in some files": (four(lambda f: zoneless(f / "2.parquet")),
                                  r'logs/[013].parquet: the column "ts" has a time zone in this file and none in other'),
    "two formats": (lambda f: [(f / "two").mkdir(), write_log(f / "two" / "a.csv", SMALL),
                               write_log(f / "two" / "b.parquet", SMALL)][:0] or ["--table", "ad=two"],
                    r"two: table ad: files of several formats \(csv, parquet\); give one$"),
    "CSV row too short": (content("x.csv", line(CSV, 200, lambda r: r.rsplit(",", 3)[0])),
                          r"x.csv:200: .*14 fields, the header has 17; mend the row$"),
    "CSV row too long": (content("x.csv", line(CSV, 200, lambda r: r + ",5")), r"x.csv:200: .*18 fields, the header has 17"),
    "CSV quote not closed": (content("x.csv", line(CSV, 200, lambda r: field(r, 4, '"top'))),
                             r"x.csv:200: .*a quote is opened and not closed; mend the row$"),
    "CSV text as price": (content("x.csv", line(CSV, 200, lambda r: field(r, PRICE, "abc"))),
                          r's.yaml:4: columns.price: .*such as "abc", a number is needed; mend the log, or write try_cast'),
    "CSV not UTF-8": (content("x.csv", line(CSV, 200, lambda r: field(r, 4, "\xe9")).encode("latin-1", "replace")),
                      r"x.csv:200: not UTF-8 text; .* in UTF-8$"),
    "CSV in UTF-16": (content("x.csv", CSV.encode("utf-16")), r"x.csv:1: not UTF-8 text"),
    "CSV without a header": (content("x.csv", CSV.split("\n", 1)[1]), r's.yaml:4: columns.\w+: .*unknown column "\w+"; known are'),
    "CSV cut gzip": (content("x.csv.gz", gzip.compress(CSV.encode())[:5000]), r"x.csv.gz: the file is cut off; copy or write"),
    "CSV no gzip": (content("x.csv.gz", CSV), r"x.csv.gz: the file is not compressed with gzip, though its name says so"),
    "NDJSON broken line": (content("x.ndjson", line(NDJSON, 200, lambda r: r[:20])), r"x.ndjson:200: not valid JSON: .*mend"),
    "NDJSON other value": (content("x.ndjson", line(NDJSON, 200, lambda r: "[1, 2]")),
                           r"x.ndjson:200: .*not one JSON object; mend the line$"),
    "NDJSON text as price": (content("x.ndjson", line(NDJSON, 200, lambda r: json.dumps({**json.loads(r), "paying_price": "abc"}))),
                             r's.yaml:4: columns.price: .*such as "abc", a number is needed'),
    "NDJSON cut gzip": (content("x.ndjson.gz", gzip.compress(NDJSON.encode())[:5000]), r"x.ndjson.gz: the file is cut off"),
    "a JSON array": (content("x.json", f"[{','.join(NDJSON.splitlines())}]"), r"x.json:1: table ad: this is a JSON array; NDJSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGS)
def test_logs_that_can_not_be_used(case: str, tmp_path: Path) -> None:
    make, message = LOGS[case]
    said = refused(tmp_path, make)
    assert re.match(message, said), said


def test_csv_files_of_one_table_need_one_header(tmp_path: Path) -> None:
    """Read by place, columns in another order would silently change their meaning."""

    def make(folder: Path) -> Sequence[str]:
        write_log(folder / "logs" / "a.csv", SMALL)
        write_log(folder / "logs" / "b.csv", SMALL.select(SMALL.column_names[::-1]))
        return ["--table", "ad=logs"]

    said = refused(tmp_path, make)
    assert re.match(
        r"logs/b.csv:1: .*differs from that of logs/a.csv; CSV files of one table need the same header", said
    )


def test_more_segment_values_than_memory_holds_numbers_of_are_told(tmp_path: Path) -> None:
    """Before the work of hours is done, not by the kernel after it."""
    write_log(tmp_path / "log.parquet")
    write_scenario(tmp_path / "s.yaml", {"segments": ["request_id"]})
    words = [
        "--scenario",
        tmp_path / "s.yaml",
        "--table",
        f"ad={tmp_path}/log.parquet",
        "--out",
        tmp_path / "out",
        "-q",
    ]
    said = bidsim("replay", *words, "--memory", "1.2GB")
    assert said.status == 2
    assert "the numbers of 1203 segment values for 2 policies need about 0.8GB beside what the log takes" in said.err
    assert "--memory leaves 0.6GB; raise it, or take fewer candidates at once or coarser segments" in said.err
    assert not (tmp_path / "out").exists()
