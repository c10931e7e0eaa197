"""A log on S3 is the same log: same numbers, same errors, nothing read twice or in vain, no secret told."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pytest
from bucket import SECRET, Bucket, Proxy
from command import bidsim, log, write_log, write_model, write_scenario
from test_formats import LAYOUTS, parquet

import bidsim as bidsim_api
from bidsim.errors import LogError
from bidsim.logs.addresses import parse_address
from bidsim.logs.fetching import in_threads
from bidsim.logs.objects import _match, find_objects
from bidsim.logs.source import open_source
from bidsim.logs.stores_s3 import S3Store
from bidsim.result import Result
from bidsim.scenario.loading import load_scenario

SMALL = log().slice(0, 400)
COLUMNS = {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"}
SCENARIO = {"columns": COLUMNS, "budget": {"amount": 0.2, "per": "day"}, "segments": ["spot_id"]}
PLAIN = {"columns": {"price": "paying_price"}, "segments": [], "sample_type": "imp-click"}


def same_results(folder: Path, scenario: dict[str, Any], here: str | Path, there: str) -> Result:
    """The result of a replay of the log here and there, which must be the same bytes."""
    loaded = load_scenario(write_scenario(folder / "s.yaml", scenario))
    local, remote = (
        bidsim_api.replay(loaded, tables={"ad": str(where)}, as_of=date(2026, 12, 1), threads=2)
        for where in (here, there)
    )
    assert remote.to_json() == local.to_json()
    return remote


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(key, bytes) of everything read from S3."""
    found: list[tuple[str, int]] = []
    read = S3Store.read

    def recorded(self: S3Store, thing: Any, start: int, length: int) -> bytes:
        found.append((thing.key, length))
        return read(self, thing, start, length)

    monkeypatch.setattr(S3Store, "read", recorded)
    return found


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("layout", ["parquet", "hive", "csv, three files", "ndjson.gz, two files"])
def test_every_format_on_s3_gives_the_bytes_of_the_local_log(tmp_path: Path, bucket: Bucket, layout: str) -> None:
    table = {"parquet": parquet, **LAYOUTS}[layout](tmp_path / "log")
    place = bucket.put_folder(tmp_path / "log", "logs/dsp")
    same_results(tmp_path, SCENARIO, tmp_path / "log" / table, f"{place}/{table}")


@pytest.mark.usefixtures("in_parts")
def test_rows_at_the_same_time_come_in_the_order_of_keys(tmp_path: Path, bucket: Bucket) -> None:
    """Under a budget ties go by file; ten objects whose names and sizes tell nothing of their rows."""
    tied = SMALL.set_column(0, "ts", pa.array([datetime(2026, 11, 1, i // 100) for i in range(400)], SMALL["ts"].type))
    for i, name in enumerate(["b/2", "a", "b-1", "b/10", "C", "é", "a.b", "z z", "0", "b/1"]):
        write_log(tmp_path / "log" / f"{name}.parquet", tied.slice(40 * i, 40))
    place = bucket.put_folder(tmp_path / "log", "l")
    same_results(tmp_path, SCENARIO, tmp_path / "log", place)


@pytest.mark.usefixtures("in_parts")
def test_the_campaign_table_may_lie_there_too(tmp_path: Path, bucket: Bucket) -> None:
    write_log(tmp_path / "log.parquet", SMALL)
    table = pa.table({"ad_id": [3, 7, 12], "name": ["three", "seven", "twelve"], "kind": ["a", "b", "a"]})
    there = bucket.put("dimensions/campaigns.parquet", write_log(tmp_path / "campaigns.parquet", table))
    found = []
    for path in ("campaigns.parquet", there):
        write_scenario(tmp_path / "s.yaml", {"campaigns": path, "segments": ["kind", "campaign"]})
        found.append(bidsim_api.replay(tmp_path / "s.yaml", tables={"ad": str(tmp_path / "log.parquet")}))
    assert any(m.segment == {"kind": "b"} for m in found[1].metrics)
    for part in ("data", "metrics", "differences"):
        assert getattr(found[0], part) == getattr(found[1], part)


@pytest.mark.usefixtures("in_parts")
def test_only_columns_in_use_and_row_groups_of_the_window_are_fetched(
    tmp_path: Path, bucket: Bucket, ranges: list[tuple[str, int]]
) -> None:
    noise = [f"{random.getrandbits(4000):x}" for _ in range(1200)]
    wide = log().append_column("never_read", pa.array(noise))
    write_log(tmp_path / "log" / "all.parquet", wide, row_group_size=100)
    table = {"last_hour": "2026-11-01T07:00:00", "duration_hour": 4}
    place = bucket.put_folder(tmp_path / "log", "wide")
    same_results(tmp_path, {**SCENARIO, "logs_tables": {"ad": table}}, tmp_path / "log", place)
    size = (tmp_path / "log" / "all.parquet").stat().st_size
    in_window = sum(length for _, length in ranges)
    assert 0 < in_window < size / 10
    ranges.clear()
    bidsim_api.replay(write_scenario(tmp_path / "s.yaml", SCENARIO), tables={"ad": place})
    footer = next(length for _, length in ranges if length > 3000)
    assert in_window - footer < (sum(length for _, length in ranges) - footer) / 4


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_window_on_wall_clocks_is_whole(tmp_path: Path, bucket: Bucket, zone: str) -> None:
    wall = log().set_column(0, "ts", log()["ts"].cast(pa.timestamp("us")))
    write_log(tmp_path / "log" / "all.parquet", wall, row_group_size=10)
    table = {"last_hour": "2026-11-01T07:00:00", "duration_hour": 4}
    changes = {**SCENARIO, "timezone": zone, "logs_tables": {"ad": table}}
    same_results(tmp_path, changes, tmp_path / "log", bucket.put_folder(tmp_path / "log", "wall"))


@pytest.mark.usefixtures("in_parts")
def test_partitions_that_conditions_exclude_are_not_fetched(
    tmp_path: Path, bucket: Bucket, ranges: list[tuple[str, int]]
) -> None:
    table = LAYOUTS["hive"](tmp_path / "log")
    place = bucket.put_folder(tmp_path / "log", "h")
    conditions = ["ad_id in (3, 7) and dt = '2026-11-01'", "dt < date '2027-01-01'", "age > 20"]
    changes = {**SCENARIO, "conditions": conditions}
    same_results(tmp_path, changes, tmp_path / "log" / table, f"{place}/{table}")
    fetched = {key for key, length in ranges if length > 64 and "part.parquet" in key}
    whole = {key for key, _ in ranges}
    assert any("ad_id=12" in key for key in whole), "its footer is read"
    rows = {key: sum(n for k, n in ranges if k == key) for key in fetched}
    sizes = {f"h/{p.relative_to(tmp_path / 'log')}": p.stat().st_size for p in (tmp_path / "log").rglob("*.parquet")}
    assert {key for key in rows if rows[key] > sizes[key] * 0.6} == {k for k in sizes if "ad_id=12" not in k}


def test_a_listing_goes_on_after_a_thousand_keys(bucket: Bucket) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: bucket.put(f"many/{i:04d}.csv", b"a\n1\n"), range(1003)))
    bucket.put("many-more/0.csv", b"a\n1\n")
    found = find_objects("ad", f"s3://{bucket.name}/many", None, "")
    assert list(found.files) == [f"s3://{bucket.name}/many/{i:04d}.csv" for i in range(1003)]
    assert len(find_objects("ad", f"s3://{bucket.name}/many/*[05].csv", None, "").files) == 201


def test_objects_are_chosen_as_files_are(tmp_path: Path, bucket: Bucket) -> None:
    names = [
        "a.csv",
        "b/c.csv",
        "b/.hidden.csv",
        "b/_SUCCESS",
        "b/d/e.csv",
        ".x/f.csv",
        "b/notes.txt",
        "b[1].csv",
        "bb.csv",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"a\n1\n")
    place = bucket.put_folder(tmp_path, "t")
    store = S3Store(bucket.name)
    for path in ["", "/a.csv", "/b", "/*.csv", "/**/*.csv", "/b/*", "/**", "/b/**/e.csv", "/?.csv", "/b[1].csv", "/*/*/*",
                 "/[ab].csv", "/.x/*.csv", "/b/[!d]*"]:  # fmt: skip
        here = [f.removeprefix(str(tmp_path)) for f in open_source("ad", Path(f"{tmp_path}{path}"), "csv").files]
        found = sorted(t.url for t in _match(store, parse_address(place + path, "ad")))
        assert [f.removeprefix(place) for f in found if Path(f).name[0] not in "._"] == here, path
    with pytest.raises(LogError, match="no such file or directory; check"):
        find_objects("ad", f"{place}/none", None, "check the path")


def test_what_is_transient_is_tried_again(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, pauses: list[float], in_parts: None
) -> None:
    """Server errors, throttling and connections that break in the middle of an answer: the same bytes in the end."""
    write_log(tmp_path / "log" / "a.parquet", SMALL)
    place = bucket.put_folder(tmp_path / "log", "flaky")
    faults: dict[str, list[Any]] = {
        "list-type=2": [(500, "InternalError"), (503, "SlowDown")],
        "a.parquet": [(503, "ServiceUnavailable"), "cut", (429, "TooManyRequests"), "cut", (400, "RequestTimeout")],
    }

    def rule(method: str, path: str) -> Any:
        for part, left in faults.items():
            if part in path and left:
                return left.pop(0)
        return None

    proxy.rule = rule
    same_results(tmp_path, SCENARIO, tmp_path / "log", place)
    assert not any(faults.values())
    assert len(pauses) == 7
    assert all(0 < p <= 16 for p in pauses)


def refused(folder: Path, table: str, **changes: Any) -> str:
    """What a replay that can't be says; nothing is left behind, no secret is told."""
    write_scenario(folder / "s.yaml", {**PLAIN, **changes})
    said = bidsim("replay", "--scenario", folder / "s.yaml", "--table", f"ad={table}", "--out", folder / "run")
    assert said.status == 2, said.err
    assert not (folder / "run").exists()
    assert SECRET not in said.out + said.err
    return [line for line in said.err.splitlines() if line][-1]


def test_what_is_lasting_fails_at_once(tmp_path: Path, bucket: Bucket, proxy: Proxy, pauses: list[float]) -> None:
    there = bucket.put("d/a.csv", b"x\n1\n")
    proxy.rule = lambda method, path: (403, "AccessDenied")
    said = refused(tmp_path, there)
    assert (
        f"{there}: listing (AccessDenied) is denied; credentials come from the usual environment: AWS_PROFILE" in said
    )
    proxy.rule = lambda method, path: (403, "AccessDenied") if "list-type" not in path else None
    assert f"{there}: reading (AccessDenied) is denied" in refused(tmp_path, there)
    proxy.rule = lambda method, path: (404, "NoSuchBucket")
    assert f'there is no bucket "{bucket.name}"; check the address and AWS_ENDPOINT_URL' in refused(tmp_path, there)
    for status, code, message in (
        (
            400,
            "ExpiredToken",
            "the credentials for S3 are not valid or have run out (ExpiredToken); credentials come from",
        ),
        (403, "InvalidObjectState", "the object is archived (Glacier); restore it first"),
        (
            400,
            "AuthorizationHeaderMalformed",
            "the bucket is in another region (AuthorizationHeaderMalformed); set AWS_",
        ),
    ):
        proxy.rule = lambda method, path, fault=(status, code): fault if "list-type" not in path else None  # type: ignore[misc]
        assert f"{there}: {message}" in refused(tmp_path, there)
    assert pauses == []
    assert len(proxy.requests) == 4 + 6
    proxy.rule = lambda method, path: (503, "SlowDown")
    assert f"{there}: listing failed again and again (SlowDown); try later" in refused(tmp_path, there)
    assert len(pauses) == 7


def test_a_store_that_does_not_answer_is_told(
    tmp_path: Path, bucket: Bucket, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    said = refused(tmp_path, f"s3://{bucket.name}/a.csv")
    assert "listing failed again and again (EndpointConnectionError); check the network and AWS_ENDPOINT_URL" in said
    assert len(pauses) == 7


def test_a_store_that_went_silent_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or an interrupt ends a command, although other answers are still to come."""
    monkeypatch.setattr("bidsim.logs.fetching.ENDING_SECONDS", 0.01)
    answers, ended = Event(), Event()

    def read(number: int) -> None:
        if number == 3:
            raise LogError("denied")
        answers.wait()

    def bring() -> None:
        numbers = iter(in_threads(read, [3, *range(100)]))
        with pytest.raises(LogError, match="denied"):
            next(numbers)
        ended.set()

    Thread(target=bring, daemon=True).start()
    try:
        assert ended.wait(30)
    finally:
        answers.set()


def test_a_configuration_that_is_wrong_is_told(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert '"Bad Name" is not the name of a bucket' in refused(tmp_path, "s3://Bad Name/a.csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert "the endpoint is no address; write AWS_ENDPOINT_URL like http://host:9000" in refused(
        tmp_path, "s3://b-b/a.csv"
    )
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "AWS_PROFILE names a profile that does not exist" in refused(tmp_path, "s3://b-b/a.csv")


def test_without_credentials_the_message_says_where_they_come_from(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    said = refused(tmp_path, f"s3://{bucket.name}/a.csv")
    assert "no credentials for S3 were found; credentials come from the usual environment: AWS_PROFILE" in said


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, key: b.delete(key), "the object is gone since the log was listed"),
        (lambda b, key: b.put(key, b"x" * 5), "the object changed while it was read"),
        (
            lambda b, key: b.put(key, b.client.get_object(Bucket=b.name, Key=key)["Body"].read()[::-1]),
            "the object changed",
        ),
    ],
)
def test_an_object_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, change: Callable[[Bucket, str], Any], message: str
) -> None:
    there = bucket.put("d/a.parquet", write_log(tmp_path / "a.parquet", SMALL))
    read = S3Store.read
    reads = 0

    def changed_after_two(self: S3Store, thing: Any, start: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 3:
            change(bucket, thing.key)
        return read(self, thing, start, length)

    monkeypatch.setattr(S3Store, "read", changed_after_two)
    assert f"{there}: {message}" in refused(tmp_path, there)


HEADER = b"paying_price,won,click,pctr\n"
ROW = b"1.5,1,0,0.5\n"
OBJECT = b'{"paying_price": 1.5, "won": 1, "click": 0, "pctr": 0.5}\n'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": HEADER + ROW, "b.csv": HEADER + ROW * 3 + b"1,2\n"}, "/b.csv:5: table ad: 2 fields, the header has 4"),
        ({"a.csv": HEADER + ROW, "b.csv": b"x" + HEADER}, "/b.csv:1: table ad: its first line differs from that of "),
        ({"a.ndjson": OBJECT * 7 + b'{"x": \n' + OBJECT}, "/a.ndjson:8: "),
        ({"a.csv": b""}, "/a.csv: table ad: the file is empty"),
        ({"a.csv": HEADER}, "/a.csv: table ad: there is a header and no row"),
        ({"a.csv.gz": HEADER}, "/a.csv.gz: the file is not compressed with gzip, though its name says so"),
        ({"a.csv": HEADER + ROW, "b.ndjson": OBJECT}, ": table ad: files of several formats (csv, ndjson); give one"),
        ({"a.parquet": b"x" * 300}, "/a.parquet: table ad: not a Parquet file"),
        ({"a.parquet": b"PAR1" + b"x" * 300}, "/a.parquet: table ad: the Parquet file is cut off"),
        ({"a.parquet": b"PAR1" + b"x" * 300 + b"PAR1"}, "/a.parquet: the Parquet file is damaged ("),
    ],
)  # fmt: skip
def test_errors_name_object_and_line(tmp_path: Path, bucket: Bucket, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        bucket.put(f"bad/{name}", content)
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / name).write_bytes(content)
    place = f"s3://{bucket.name}/bad"
    said = refused(tmp_path, place)
    assert message in said
    here = refused(tmp_path, str(tmp_path / "bad")).replace(str(tmp_path / "bad"), place)
    assert said.partition(" (")[0] == here.partition(" (")[0]


@pytest.mark.usefixtures("in_parts")
def test_a_value_that_is_no_number_is_shown_as_for_a_local_log(tmp_path: Path, bucket: Bucket) -> None:
    prices = pa.array([*["1.5"] * 399, "cheap"])
    at = SMALL.column_names.index("paying_price")
    there = bucket.put("a.parquet", write_log(tmp_path / "a.parquet", SMALL.set_column(at, "paying_price", prices)))
    said = refused(tmp_path, there)
    assert 'columns.price: the log\'s column is VARCHAR, such as "cheap", a number is needed' in said
    assert said == refused(tmp_path, str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            f"s3://key:{SECRET}@bucket/a.csv",
            "s3://bucket/...: table ad: the address holds a user or password; leave it out",
        ),
        (f"s3://bucket/a.csv?X-Amz-Signature={SECRET}", "s3://bucket/...: table ad: the address holds a query string"),
        (f"https://host/a.csv?sig={SECRET}", "https://host/...: table ad: addresses that begin with https:// are not"),
        (
            f"s3://key:se/{SECRET}@bucket/a.csv",
            "s3://...: table ad: the address holds a user or password; leave it out",
        ),
        (
            f"https://key:se/{SECRET}@h/a.csv",
            "https://...: table ad: the address holds a user or password; leave it out",
        ),
        (
            f"s3://bucket/a.csv?AWSAccessKeyId=k&Signature=a/{SECRET}&Expires=1",
            "s3://bucket/...: table ad: the address holds a query string",
        ),
        ("s3://localhost:9000/b/a.csv", "the address holds a port; write s3://bucket/prefix, endpoints come from"),
        ("s3:///a.csv", "the address names no bucket; write s3://bucket/prefix"),
        ("file:///a.csv", "give the path without file://"),
    ],
)
def test_addresses_carry_no_secret(tmp_path: Path, table: str, message: str) -> None:
    assert message in refused(tmp_path, table)


def test_a_run_keeps_where_the_log_lay_and_no_secret(tmp_path: Path, bucket: Bucket) -> None:
    there = bucket.put("a.parquet", write_log(tmp_path / "a.parquet", SMALL))
    write_scenario(tmp_path / "s.yaml", {**PLAIN, "logs_tables": {"ad": {"path": there}}})
    said = bidsim("replay", "--scenario", tmp_path / "s.yaml", "--out", tmp_path / "run")
    assert said.status == 0, said.err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["log"]["ad"]
    assert (facts["path"], facts["objects"]) == (there, 1)
    for file in (tmp_path / "run").iterdir():
        assert SECRET.encode() not in file.read_bytes()
    assert SECRET not in said.out + said.err


def test_loading_a_scenario_reaches_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stranger's scenario names is read by a replay, never by looking at it."""

    def no(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was reached")

    monkeypatch.setattr(socket, "socket", no)
    monkeypatch.setattr(socket, "create_connection", no)
    from bidsim.scenario.loading import refuse_unsupported

    write_scenario(
        tmp_path / "s.yaml", {"logs_tables": {"ad": {"path": "s3://somebody/else.csv"}}, "campaigns": "gs://x/y"}
    )
    refuse_unsupported(load_scenario(tmp_path / "s.yaml"))
    write_scenario(
        tmp_path / "bad.yaml", {"logs_tables": {"ad": {"path": "s3://somebody/else.csv", "endpoint": "http://x"}}}
    )
    said = bidsim("replay", "--scenario", tmp_path / "bad.yaml")
    assert said.status == 2
    assert 'unknown key "endpoint"' in said.err


@pytest.mark.usefixtures("in_parts")
def test_stress_fetches_the_log_once(tmp_path: Path, bucket: Bucket, ranges: list[tuple[str, int]]) -> None:
    file = write_log(tmp_path / "log" / "a.parquet", SMALL)
    there = bucket.put("a.parquet", file)
    write_scenario(tmp_path / "s.yaml", SCENARIO)
    out = []
    for where in (file, there):
        said = bidsim("stress", "--scenario", tmp_path / "s.yaml", "--table", f"ad={where}", "--prices", "20",
                      "--calibration", "10", "--json")  # fmt: skip
        assert said.status in (0, 1), said.err
        out.append(said.out)
    assert out[0] == out[1]
    assert sum(length for _, length in ranges) <= file.stat().st_size


def test_checks_read_it_too(tmp_path: Path, bucket: Bucket, in_parts: None) -> None:
    file = write_log(tmp_path / "log" / "a.parquet", SMALL)
    there = bucket.put("a.parquet", file)
    write_scenario(tmp_path / "s.yaml", SCENARIO)
    model = write_model(tmp_path / "m.bin")
    said = [bidsim("check", "--scenario", tmp_path / "s.yaml", "--model", model, "--table", f"ad={where}", "--json")
            for where in (file, there)]  # fmt: skip
    assert said[0].out == said[1].out != ""
    assert said[0].status == said[1].status


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[str, int]]
) -> None:
    there = bucket.put("a.csv", HEADER + ROW * 1000)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    said = refused(tmp_path, there)
    assert (
        f"{there} takes 12.0 kB of disk for the run and 1.0 kB are free; set TMPDIR to a folder on a larger disk"
        in said
    )
    assert ranges == []


def test_the_work_folder_adds_no_column(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of Hive partitions are columns: not so those above the work folder."""
    file = write_log(tmp_path / "log" / "a.parquet", SMALL)
    loaded = load_scenario(write_scenario(tmp_path / "s.yaml", SCENARIO))
    found = []
    for place in ("plain", "price=1"):
        (tmp_path / place).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / place))
        found.append(bidsim_api.replay(loaded, tables={"ad": str(file)}, as_of=date(2026, 12, 1)).to_json())
    assert found[0] == found[1]
    said = refused(tmp_path, bucket.put("a.parquet", file))
    assert f"{tmp_path}/price=1: table ad: it is brought to a folder below one with = in its name" in said
    assert "set TMPDIR" in said


@pytest.mark.parametrize("lacking", [["boto3"], ["boto3", "botocore"]], ids=len)
def test_without_boto3_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: list[str]
) -> None:
    """Where boto3 is not installed, botocore is not either."""
    for name in lacking:
        monkeypatch.setitem(sys.modules, name, None)
    assert "logs on S3 need boto3: pip install 'bidsim[s3]'" in refused(tmp_path, "s3://bucket/a.csv")


def test_steps_are_done_again_when_an_object_has_changed(tmp_path: Path, bucket: Bucket) -> None:
    from bidsim.logs.opening import open_log
    from bidsim.training.steps import Fingerprints

    there = bucket.put("a.csv", HEADER + ROW)
    loaded = load_scenario(write_scenario(tmp_path / "s.yaml", PLAIN))
    prints = Fingerprints(tmp_path / "fingerprints.json")
    first = prints.of_log(open_log(loaded, {"ad": there}))
    assert prints.of_log(open_log(loaded, {"ad": there})) == first
    bucket.put("a.csv", HEADER + ROW.replace(b"1.5", b"1.6"))
    assert prints.of_log(open_log(loaded, {"ad": there})) != first
