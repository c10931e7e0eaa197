"""Scenarios that are no scenarios: bytes of YAML changed, and values of the schema's keys that nobody would write."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hostile.trial import QUIETLY, Trial

WHOLE = """\
name: small
sample_type: [imp-click, click-conversion]
logs_tables:
  ad: {path: log.parquet, last_hour: "2026-11-01T10:00:00", duration_hour: 12}
conditions:
  - billing_type in (1, 2)
  - age >= 18
features: [spot_id, age]
columns: {time: ts, unit: user_id, campaign: ad_id, price: paying_price, weight: sample_weight}
performance_indicator_type: cpa
currency: JPY
timezone: Asia/Tokyo
candidates:
  v2: {columns: {pctr: pctr_v2}}
  v3: {bid: {multiplier: 0.9}}
bid: {formula: "1000 * target_cpa * pctr * pcvr", multiplier: 1.0, min: 0, max: 5000, round: none}
auction: {type: second_price, ties: win}
budget: {amount: 100, per: day, pacing: asap, overspend: last_win}
segments: [campaign, spot_id, {old: "age > 40"}]
expected_utility: {betas: [1, 10]}
intervals: {confidence: 0.95}
gate:
  - {metric: calibration, head: ctr, between: [0.5, 2], waive: {until: "2026-12-31", reason: a, owner: b}}
  - {metric: cpa, max_increase: 5%, by: campaign, min_rows: 5}
fidelity: warn
"""
SNIPPETS = [
    b"&a ", b"*a", b"<<: *a\n", b"!!python/object/apply:os.system ['id'] ", b"!!binary aGk= ", b"!x ", b"%YAML 1.1\n---\n", b"---\n", b"...\n",
    b"? ", b": ", b"- ", b"|\n", b">\n", b"'", b'"', b"{", b"}", b"[", b"]", b",", b"#", b"\t", b"\x00", b"\x1b[31m", b"\x7f", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\r", b"\r\n", b"1e999", b".inf", b"-.inf", b".nan", b"-0",
    b"0x" + b"f" * 200, b"0o777", b"1_000", b"9" * 400, b"1:30:00", b"2026-99-99", b"2026-11-01T25:61:61Z", b"0001-01-01", b"9999-12-31T23:59:59.999999Z",
    b"~", b"null", b"yes", b"NO", b"true", b"=", b"\\x1b", b'"\\ud800"', b'"\\0"', b"a" * 70_000, b"[" * 60, b"{a: " * 60, b"- " * 60, b"\n" * 2000, b" " * 5000,
]  # fmt: skip


def changed_bytes(draw: random.Random, folder: Path) -> Trial:
    """YAML with bits flipped, cut off, doubled, or with something of another world in it."""
    data = bytearray(WHOLE.encode())
    done = []
    for _ in range(draw.choice([1, 1, 2, 4])):
        kind = draw.choice(
            ["flip", "flip", "byte", "cut", "delete", "double", "swap", "insert", "insert", "insert", "line", "line"]
        )
        at = draw.randrange(len(data) + 1)
        done.append(f"{kind}@{at}")
        if kind == "flip" and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == "byte" and data:
            data[at % len(data)] = draw.randrange(256)
        elif kind == "cut":
            del data[at:]
        elif kind == "delete":
            del data[at : at + draw.choice([1, 5, 50])]
        elif kind == "double":
            data[at:at] = data[at : at + draw.choice([1, 30, 300])]
        elif kind == "swap":
            lines = bytes(data).split(b"\n")
            draw.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        elif kind == "insert":
            data[at:at] = draw.choice(SNIPPETS)
        elif kind == "line":
            lines = bytes(data).split(b"\n")
            lines.insert(
                draw.randrange(len(lines) + 1),
                draw.choice(SNIPPETS) + draw.choice([b"", b": 1", draw.choice(SNIPPETS)]),
            )
            data = bytearray(b"\n".join(lines))
    (folder / "s.yaml").write_bytes(bytes(data))
    return Trial(QUIETLY, about=("s.yaml", "log.parquet", "the expression", "an expression"), note=" ".join(done))


def bombs(draw: random.Random, folder: Path) -> Trial:
    """YAML that grows as it is read, is nested without end, or is simply huge."""
    n = draw.choice([10, 100, 3000, 50_000])
    text: bytes = draw.choice(
        [
            lambda: b"a: &a [x, x]\n" + b"".join(b"b%d: &b%d [*a, *a, *a]\n" % (i, i) for i in range(min(n, 500))),
            lambda: b"a: &a [*a]\n",
            lambda: WHOLE.encode() + b"spark: {config: " + b"{a: " * n + b"1" + b"}" * n + b"}\n",
            lambda: b"[" * n,
            lambda: b"- " * n,
            lambda: b"".join(b" " * i + b"a:\n" for i in range(min(n, 1400))),
            lambda: b"".join(b"k%d: 1\n" % i for i in range(n)),
            lambda: WHOLE.encode() + b"".join(b"name: a%d\n" % i for i in range(min(n, 3000))),
            lambda: b"name: " + b"x" * (n * 20) + b"\n" + WHOLE.encode().split(b"\n", 1)[1],
            lambda: b"k" * (n * 20) + b": 1\n" + WHOLE.encode(),
            lambda: WHOLE.encode().replace(b"18", b"1" * n),
            lambda: WHOLE.encode().replace(b"max: 5000", b"max: " + b"9" * n),
            lambda: WHOLE.encode() + b"#" + b"c" * (n * 20) + b"\n",
            lambda: WHOLE.encode().replace(b"features: [", b"features: [" + b"age, " * n),
            lambda: WHOLE.encode().replace(b"conditions:\n", b"conditions:\n" + b"  - age > 1\n" * min(n, 3000)),
            lambda: WHOLE.encode().replace(
                b"segments: [",
                b"segments: [" + b", ".join(b"{s%d: age %% %d}" % (i, i + 2) for i in range(min(n, 40))) + b", ",
            ),
            lambda: WHOLE.encode().replace(b"gate:\n", b"gate:\n" + b"  - {metric: cpa, at_most: 1}\n" * min(n, 3000)),
            lambda: WHOLE.encode().replace(b"betas: [", b"betas: [" + b"1, " * n),
            lambda: b"x" * (1_048_577 + n),
            lambda: b"\x00" * n,
            lambda: ("name: é" + "é" * n + "\n" + WHOLE).encode("utf-16"),
            lambda: b'"' + b"\\u0041" * n + b'": 1\n',
            lambda: b"? " * min(n, 3000) + b"a\n",
            lambda: b"a: |\n" + b"  x\n" * n,
            lambda: b"!!omap " * min(n, 3000),
            lambda: b"name: !!timestamp 2026-11-01\n" + WHOLE.encode(),
            lambda: b"%TAG ! tag:x,2000:\n---\n" + WHOLE.encode(),
        ]
    )()
    (folder / "s.yaml").write_bytes(text)
    return Trial(QUIETLY, about=("s.yaml", "log.parquet"), note=repr(text[:60]))


EXTREMES: list[Any] = [
    None, True, False, 0, -0.0, -1, 1, 2, 1e308, -1e308, 5e-324, 1e-300, 2**31, 2**63, -(2**63), 2**64, 10**299, 0.1, "", " ", "x", "-", "0", "1%", "-1%", "1e999%", "nan%",
    "null", "true", "1e308", "inf", "nan", "[]", "a.b", "pctr", "ts", "click", "price", "spot_id", "ad_id", "1", "1.5", "'x'", "1/0", "0/0", "null::double", "true",
    "2026-11-01", "2026-11-01T10:00:00", "2026-11-01T10:00:00+14:00", "0001-01-01T00:00:00", "9999-12-31T23:00:00", "9999-12-31T23:00:00-12:00", "10000-01-01T00:00:00",
    "2026-11-01T24:00:00", "2026-W45-1", "20261101T100000", "UTC", "Asia/Tokyo", "Mars/Olympus", "../../etc/passwd", "America/Argentina/ComodRivadavia", "Etc/GMT+12", "posixrules",
    "log.parquet", "canary.csv", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "s3://bucket/x", "http://127.0.0.1:9/x", "file:///etc/passwd", "log.parquet\n", "~", "..", ".", "*", "**", "m.bin", "\\\\host\\x",
    "é", "\u202e", "\u0000", "\x1b[31m", "x" * 300, "x" * 9_999, "<script>alert(1)</script>", "${HOME}", "{{7*7}}", "%s%n", "'; drop table s; --", '"', "a\nb", "JPY", "USD", "XXX", "ZZZ",
    [], {}, [[]], [None], [1, 2], [2, 1], ["x", "x"], {"x": 1}, {"": ""}, {"path": "canary.csv"}, [{}], [[1]], {"a": {"b": {"c": {}}}}, ["campaign"] * 40, [1e308, 1e308], ["day", "hour", "weekday"],
    "second_price", "first_price", "win", "lose", "none", "down", "day", "hour", "total", "asap", "even", "last_win", "never", "drop", "weight", "observed", "predicted", "fail", "warn", "ignore", "duckdb", "parquet",
    "csv", "ndjson", "delta", "iceberg", "imp-click", "ctr", "cvr", "cpa", "cpc", "spend", "calibration", "gauc", "cpa_at_matched_spend", "expected_utility", "baseline", "v2", "row",
]  # fmt: skip


def wrong_values(draw: random.Random, folder: Path) -> Trial:
    """A scenario that is whole but for some keys of the schema, whose values are of another type or size."""
    from bidsim.scenario.loading import json_schema

    schema = json_schema()
    document: dict[str, Any] = _whole()
    paths = []
    for _ in range(draw.choice([1, 1, 1, 2, 3, 6])):
        place = _place(draw, schema)
        value = draw.choice(EXTREMES) if draw.random() < 0.85 else _valid(draw, schema)
        _set(document, place, value, draw)
        paths.append(f"{'.'.join(map(str, place))}={str(value)[:40]!r}")
    if draw.random() < 0.05:
        document[draw.choice(["", "Name", "gates", "bid ", "é", "x" * 5000, "1", "<<", "constructor"])] = draw.choice(
            EXTREMES
        )
    (folder / "s.yaml").write_text(
        json.dumps(document, ensure_ascii=draw.random() < 0.5), encoding="utf-8", errors="surrogatepass"
    )
    about = ("s.yaml", "log.parquet", "an expression", "canary.csv", "m.bin", *map(str, EXTREMES[60:90]))
    return Trial(QUIETLY, about=about, note="; ".join(paths))


def _whole() -> dict[str, Any]:
    from bidsim.scenario.reading import read_yaml

    return read_yaml(WHOLE, "s.yaml")[0]


def _place(draw: random.Random, schema: dict[str, Any]) -> list[str | int]:
    """A key of the schema, as deep as the draw goes."""
    place: list[str | int] = []
    node = schema
    while True:
        node = _resolve(draw, node, schema)
        if node.get("properties"):
            key = draw.choice(list(node["properties"]))
            place.append(key)
            node = node["properties"][key]
        elif isinstance(node.get("additionalProperties"), dict):
            place.append(
                draw.choice(["ad", "v2", "v3", "new", "baseline", "é", "a b", "x" * 300, "<b>", "\u202ev2", "\x1b[1mv"])
            )
            node = node["additionalProperties"]
        elif isinstance(node.get("items"), dict):
            place.append(draw.choice([0, 0, 1, 2]))
            node = node["items"]
        else:
            return place
        if draw.random() < 0.25:
            return place


def _resolve(draw: random.Random, node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node or "anyOf" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else draw.choice(node["anyOf"])
    return node


def _valid(draw: random.Random, schema: dict[str, Any]) -> Any:
    return draw.choice(
        [
            1,
            0.5,
            "campaign",
            "1000 * pctr",
            {"metric": "cpa", "at_most": 1},
            {"model": "m.bin"},
            {"columns": {"pctr": "pctr_v2"}},
        ]
    )


def _set(document: Any, place: list[str | int], value: Any, draw: random.Random) -> None:
    node = document
    for key, following in zip(place, [*place[1:], None], strict=True):
        if isinstance(node, list):
            index = min(int(key), len(node)) if isinstance(key, int) else len(node)
            if index == len(node):
                node.append(None)
            key = index
        elif not isinstance(node, dict):
            return
        if following is None:
            node[key] = value
            return
        below = node.get(key) if isinstance(node, dict) else node[int(key)]
        if not isinstance(below, (dict, list)):
            below = [] if isinstance(following, int) else {}
            node[key] = below
        node = below


CLASSES = {"scenario: changed bytes": changed_bytes, "scenario: bombs": bombs, "scenario: wrong values": wrong_values}
