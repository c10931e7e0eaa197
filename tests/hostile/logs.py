"""Logs that an enemy, or a broken pipeline, could write: values, types, column names, damaged bytes, places."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from command import SCENARIO, write_scenario

from hostile.trial import Trial

OPTIONS = ("--quiet", "--threads", "1", "--memory", "1GB")
NUMBERS = [
    "paying_price",
    "pctr",
    "pcvr",
    "pctr_v2",
    "target_cpa",
    "sample_weight",
    "click",
    "conversion",
    "won",
    "age",
]
EVIL_NAMES = ["a'b", 'a"b', "a\nb", "", " ", "a;drop table s", "select", "from", "rowid", "ORDER", "pctr ", "\ufeffts", "Click", "CLICK", "a.b", "s", "c", "a\x00b", "\x1b[31mred", "\u202eevil", "é", "x" * 3000, "filename", "file_row_number", "log_file",
              "log_row", "w", "wi", "price_logged", "prediction_0_ctr", "p_0_ctr", "carried 0", "segment_0", "ordinal", "unit", "<script>", "__null__", "*", "columns", "1", "-1", "true", "null", "dt", "ts.x", "::error::x", "%s", "{{x}}"]  # fmt: skip
EVIL_TEXTS = [
    "", " ", "null", "NULL", "nan", "<script>alert(1)</script>", "</style>", "'; drop table s;--", '"', "\n", "a\rb", "\x1b]0;title\x07", "\x1b[2J",
    "\u202e", "\u2066", "\ud7ff", "\ufffe", "\U0010ffff", "a" * 20_000, "=cmd()", "|a|b|", "`", "{{7*7}}", "${jndi:x}", "../../x", "%2e%2e%2f",
    "\x00", "::error::x", "##[add-mask]x", "A\u0301" * 50, "𝕏", "日本語", "\u3000", "0", "1e5", "true",
]  # fmt: skip
FLOATS = [float("inf"), float("-inf"), float("nan"), -0.0, 1e308, -1e308, 5e-324, -1.0, 1e20, 2.0**63, 0.1, 1e-300]


def _table(rows: int = 200) -> pa.Table:
    from command import log

    return log().slice(0, rows)


def _trial(draw: random.Random, folder: Path, note: str, path: str = "log", **changes: Any) -> Trial:
    write_scenario(folder / "s.yaml", {"fidelity": "warn", **changes})
    about = ("s.yaml", path.rstrip("*"), "log", "the memory given", "m.bin")
    where = ("--scenario", "s.yaml", "--table", f"ad={path}")
    kind = draw.random()
    if kind < 0.7:
        return Trial(("replay", *where, "--out", "out", "--as-of", "2026-11-03", *OPTIONS), about, note)
    if kind < 0.8:
        return Trial(
            ("replay", *where, "--model", "m.bin", "--out", "out", "--as-of", "2026-11-03", *OPTIONS), about, note
        )
    if kind < 0.9:
        return Trial(("check", *where, *OPTIONS), about, note)
    words = (
        "extract",
        *where,
        "--out",
        "out",
        "--train-table",
        f"ad={path}",
        "--quiet",
        "--threads",
        "1",
        "--memory",
        "1GB",
    )
    return Trial(words, about, note)


def values(draw: random.Random, folder: Path) -> Trial:
    """Whole files with values that no market has."""
    table, done = _table(), []
    for _ in range(draw.choice([1, 1, 2, 4])):
        name = draw.choice(table.column_names)
        change = draw.choice(
            [_numbers, _numbers, _numbers, _texts, _times, _times, _decimals, _wholes, _nested, _nothing]
        )
        at = table.column_names.index(name)
        array = change(draw, table.num_rows)
        partly = pa.types.is_floating(array.type) and pa.types.is_primitive(table[name].type)
        if (
            draw.random() < 0.5 and partly and not pa.types.is_temporal(table[name].type) and name in NUMBERS
        ):  # only some rows
            mask = [draw.random() < 0.1 for _ in range(table.num_rows)]
            old = table[name].cast(pa.float64()).to_pylist()
            array = pa.array(
                [n if m else o for n, o, m in zip(array.to_pylist(), old, mask, strict=True)],
                array.type,
                from_pandas=False,
            )
        table = table.set_column(at, name, array)
        done.append(f"{name}={change.__name__[1:]}:{array.type}")
    pq.write_table(
        table,
        folder / "log-1.parquet",
        compression=draw.choice(["none", "snappy", "zstd", "gzip", "lz4", "brotli"]),
        row_group_size=draw.choice([1, 7, 1000]),
    )
    return _trial(draw, folder, " ".join(done), "log-1.parquet")


def _numbers(draw: random.Random, rows: int) -> pa.Array:
    kind = draw.choice([pa.float64(), pa.float64(), pa.float32(), pa.float16()])
    pool = draw.sample(FLOATS, draw.choice([1, 3, 12]))
    import numpy as np

    with np.errstate(over="ignore"):
        return pa.array(np.array([draw.choice(pool) for _ in range(rows)]).astype(kind.to_pandas_dtype()), kind)


def _texts(draw: random.Random, rows: int) -> pa.Array:
    pool = draw.sample(EVIL_TEXTS, draw.choice([1, 5, 30]))
    kind = draw.choice(
        [pa.string(), pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
    )
    texts = [draw.choice(pool) if draw.random() < 0.9 else None for _ in range(rows)]
    return pa.array([t if t is None or kind != pa.binary() else t.encode() + b"\xff\xfe" for t in texts], kind)


def _times(draw: random.Random, rows: int) -> pa.Array:
    unit, zone = draw.choice(["s", "ms", "us", "ns"]), draw.choice([None, "UTC", "Asia/Tokyo", "+14:00", "-12:00"])
    pool = [0, -1, -62135596800, 253402300799, 1793491200, 1793491201, 2**40, -(2**40), 9_223_372_036, -9_223_372_036]
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if unit == "ns":
        pool = [p for p in pool if abs(p) <= 9_223_372_036]
    if draw.random() < 0.1:
        return pa.array(
            [draw.choice([-719162, 2932896, 0, 20758, 2**31 - 1, -(2**31)]) for _ in range(rows)], pa.date32()
        )
    if draw.random() < 0.1:
        pool, scale = [2**63 - 1, -(2**63), -(2**63) + 1, 2**62], 1
    return pa.array(
        [draw.choice(pool) * scale if draw.random() < 0.95 else None for _ in range(rows)], pa.timestamp(unit, zone)
    )


def _decimals(draw: random.Random, rows: int) -> pa.Array:
    width, scale = draw.choice([(38, 0), (38, 38), (38, 10), (1, 0), (18, 18), (76, 0), (76, 40)])
    kind = pa.decimal128(width, scale) if width <= 38 else pa.decimal256(width, scale)
    digits = [0, 1, 5, 10**width - 1, -(10**width - 1), 10 ** (width // 2)]
    return pa.array([Decimal(draw.choice(digits)).scaleb(-scale, _context(width)) for _ in range(rows)], kind)


def _context(width: int) -> Any:
    from decimal import Context

    return Context(prec=width + 5)


def _wholes(draw: random.Random, rows: int) -> pa.Array:
    kind, low, high = draw.choice(
        [
            (pa.int8(), -128, 127),
            (pa.int64(), -(2**63), 2**63 - 1),
            (pa.uint64(), 0, 2**64 - 1),
            (pa.int32(), -(2**31), 2**31 - 1),
            (pa.uint8(), 0, 255),
            (pa.bool_(), 0, 1),
        ]
    )
    pool: list[Any] = [low, high, 0, 1] if kind != pa.bool_() else [True, False]
    return pa.array([draw.choice(pool) if draw.random() < 0.9 else None for _ in range(rows)], kind)


def _nested(draw: random.Random, rows: int) -> pa.Array:
    item = draw.choice([[1, 2], [], None])
    return draw.choice(
        [
            lambda: pa.array([item] * rows, pa.list_(pa.int64())),
            lambda: pa.array([{"a": 1, "b": {"c": "x"}}] * rows),
            lambda: pa.array([[[1]]] * rows),
            lambda: pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
            lambda: pa.array([b"0123456789abcdef"] * rows, pa.binary(16)),
            lambda: pa.array([1] * rows, pa.duration("us")),
            lambda: pa.array([1] * rows, pa.time64("us")),
        ]
    )()


def _nothing(draw: random.Random, rows: int) -> pa.Array:
    return pa.nulls(rows, draw.choice([pa.null(), pa.float64(), pa.string(), pa.timestamp("us", "UTC")]))


def files(draw: random.Random, folder: Path) -> Trial:
    """Files of one table that don't fit together, or where there is nothing."""
    (folder / "logs").mkdir()
    note = []
    for i in range(draw.choice([2, 3, 5])):
        table = _table(100)
        for _ in range(draw.choice([0, 1, 2])):
            name = draw.choice(table.column_names)
            kind = draw.choice(["drop", "text", "whole", "rename", "case", "double", "order", "empty", "time"])
            note.append(f"{i}:{kind} {name}")
            at = table.column_names.index(name)
            if kind == "drop" and table.num_columns > 1:
                table = table.drop_columns([name])
            elif kind == "text":
                table = table.set_column(at, name, _texts(draw, table.num_rows))
            elif kind == "whole":
                table = table.set_column(at, name, _wholes(draw, table.num_rows))
            elif kind == "time":
                table = table.set_column(at, name, _times(draw, table.num_rows))
            elif kind in ("rename", "case"):
                new = draw.choice(EVIL_NAMES) if kind == "rename" else name.upper()
                table = table.rename_columns([new if n == name else n for n in table.column_names])
            elif kind == "double":
                table = table.append_column(draw.choice([name, name.upper()]), table[name])
            elif kind == "order":
                table = table.select(draw.sample(range(table.num_columns), table.num_columns))
            elif kind == "empty":
                table = table.slice(0, 0)
        try:
            pq.write_table(table, folder / "logs" / f"{i}.parquet", compression=draw.choice(["none", "zstd", "gzip"]))
        except (ValueError, pa.ArrowException):
            pq.write_table(_table(10), folder / "logs" / f"{i}.parquet")
    return _trial(draw, folder, " ".join(note), draw.choice(["logs", "logs/*.parquet"]))


def columns(draw: random.Random, folder: Path) -> Trial:
    """Hostile names of columns, used or not, and very many of them."""
    table = _table()
    rows = table.num_rows
    kind = draw.choice(["some", "some", "some", "used", "many", "double"])
    changes: dict[str, Any] = {}
    names = draw.sample(EVIL_NAMES, draw.choice([1, 3, 12]))
    if kind == "many":
        table = pa.table(
            {
                **{n: table[n] for n in table.column_names},
                **{f"c{i}": pa.nulls(rows, pa.int8()) for i in range(draw.choice([1000, 10_000]))},
            }
        )
        names = []
    for name in names:
        table = table.append_column(name, pa.array(range(rows)))
    if kind == "used" and names:
        quoted = '"' + names[0].replace('"', '""') + '"'
        changes = draw.choice(
            [
                {"segments": [quoted]},
                {"conditions": [f"{quoted} >= 0"]},
                {"segments": [{"x": quoted}, names[0]]},
                {"features": [names[0]]},
                {"columns": {**SCENARIO["columns"], "campaign": quoted}},
            ]
        )
    if kind == "double":
        for name in draw.sample(table.column_names, 2):
            table = table.append_column(draw.choice([name, name.upper()]), table[name])
    form = draw.choice(["parquet", "parquet", "csv", "ndjson"]) if kind != "many" or rows < 300 else "parquet"
    path = folder / f"log-1.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        _as_text(table, path)
    return _trial(draw, folder, f"{kind} {form} {[n[:20] for n in names]}", path.name, **changes)


def _as_text(table: pa.Table, path: Path) -> None:
    cells = [[_cell(v) for v in column.to_pylist()] for column in table.columns]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as stream:
            csv.writer(stream).writerows([table.column_names, *zip(*cells, strict=True)])
        return
    lines = (json.dumps(dict(zip(table.column_names, row, strict=True))) for row in zip(*cells, strict=True))
    path.write_text("\n".join(lines) + "\n")


def _cell(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


TEXT_BITS = [b'"', b'""', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\n\n\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[2J", b"\\", b"\\N", b"#", b"{", b"}", b"[", b"]", b"null", b"NaN", b"Infinity", b"1e999", b"-1",
             b"0001-01-01", b"9999-12-31", b"'; drop table s", b",,,,,,,,", b"x" * 70_000, b'"' + b"y" * 3_000_000, b"9" * 500, b"{" * 3000, b"[" * 3000, b'{"a":' * 3000, b"\xe2\x80\xa8", b"\x1a"]  # fmt: skip


def text_files(draw: random.Random, folder: Path) -> Trial:
    """CSV and NDJSON with bytes changed: ragged rows, lost quotes, other encodings, no header, cut compression."""
    form = draw.choice(["csv", "csv", "ndjson"])
    _as_text(_table(150), folder / f"log-1.{form}")
    data = bytearray((folder / f"log-1.{form}").read_bytes())
    note = [form]
    kind = draw.choice(["bits", "bits", "bits", "header", "nothing", "encoding", "rows", "gzip"])
    note.append(kind)
    if kind == "bits":
        for _ in range(draw.choice([1, 1, 3])):
            at = draw.choice([0, draw.randrange(300), draw.randrange(len(data)), len(data)])
            bit = draw.choice(TEXT_BITS)
            note.append(f"{bit[:8]!r}@{at}")
            if draw.random() < 0.3:
                del data[at : at + draw.choice([1, 40, 5000])]
            data[at:at] = bit
    elif kind == "header":
        data = (
            data[data.index(b"\n") + 1 :]
            if draw.random() < 0.5
            else draw.choice([b"\n", b"ts,ts,ts\n", b",,,\n", b"\xff\xfe\n"]) + data
        )
    elif kind == "nothing":
        data = bytearray(
            draw.choice(
                [
                    b"",
                    b"\n",
                    b"\n\n\n",
                    b" ",
                    b"\x00",
                    b"ts",
                    b"{}",
                    b"{}\n{}\n",
                    b"null\n",
                    b"1\n2\n",
                    b'"a"\n',
                    b"\xef\xbb\xbf",
                    b"\xff\xfe",
                ]
            )
        )
    elif kind == "encoding":
        data = bytearray(
            bytes(data)
            .decode()
            .encode(draw.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "utf-7"]), "replace")
        )
    elif kind == "rows":
        lines = bytes(data).split(b"\n")
        for _ in range(draw.choice([1, 5])):
            at = draw.randrange(len(lines))
            lines[at] = draw.choice(
                [
                    lines[at] * 3,
                    lines[at][: len(lines[at]) // 2],
                    b"",
                    lines[at] + b"," * 1000,
                    b"," * 20_000,
                    lines[0],
                    lines[at][::-1],
                ]
            )
        data = bytearray(b"\n".join(lines))
    name = f"log-1.{form}"
    if kind == "gzip":
        name += ".gz"
        packed = gzip.compress(bytes(data), mtime=0)
        data = bytearray(
            draw.choice(
                [
                    packed[: len(packed) // 2],
                    packed[:10],
                    packed + b"x",
                    packed + packed,
                    packed[:-4],
                    b"\x1f\x8b",
                    bytes(data),
                ]
            )
        )
    (folder / f"log-1.{form}").unlink()
    (folder / name).write_bytes(bytes(data))
    return _trial(draw, folder, " ".join(note), name)


def parquet_bytes(draw: random.Random, folder: Path) -> Trial:
    """Parquet with flipped bits in pages or footer, other lengths, cut off, or text that is no UTF-8."""
    stream = io.BytesIO()
    pq.write_table(
        _table(),
        stream,
        row_group_size=draw.choice([50, 1000]),
        compression=draw.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=draw.random() < 0.5,
        write_page_checksum=draw.random() < 0.3,
    )
    data = bytearray(stream.getvalue())
    footer = int.from_bytes(data[-8:-4], "little")
    kind = draw.choice(["page", "footer", "footer", "footer", "length", "cut", "utf8", "zeros", "swap", "double"])
    if kind == "page":
        for _ in range(draw.choice([1, 5, 50])):
            data[draw.randrange(4, len(data) - footer - 8)] ^= 1 << draw.randrange(8)
    elif kind == "footer":
        for _ in range(draw.choice([1, 1, 3, 10])):
            data[draw.randrange(len(data) - footer - 8, len(data) - 8)] = draw.randrange(256)
    elif kind == "length":
        data[-8:-4] = draw.choice([0, 1, footer - 1, footer + 1, 2**31 - 1, 2**32 - 1, len(data)]).to_bytes(4, "little")
    elif kind == "cut":
        del data[draw.randrange(8, len(data) - 10) : len(data) - draw.choice([0, 8, 9])]
    elif kind == "zeros":
        at = draw.randrange(len(data))
        data[at : at + 300] = bytes(min(300, len(data) - at))
    elif kind == "swap":
        at, to = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
        data[at : at + 64], data[to : to + 64] = data[to : to + 64], data[at : at + 64]
    elif kind == "double":
        data = data * 2
    elif kind == "utf8":
        table = _table()
        name = draw.choice(["spot_id", "request_id", "evil"])
        bad = pa.array([b"\xff\xfe\xed\xa0\x80"] * table.num_rows, pa.binary())
        text = pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())
        table = (
            table.append_column(name, text)
            if name == "evil"
            else table.set_column(table.column_names.index(name), name, text)
        )
        pq.write_table(table, folder / "log-1.parquet", store_schema=False)
        return _trial(
            draw, folder, f"utf8 {name}", "log-1.parquet", **({"segments": [name]} if draw.random() < 0.7 else {})
        )
    (folder / "log-1.parquet").write_bytes(bytes(data))
    return _trial(draw, folder, kind, "log-1.parquet")


CLASSES = {
    "log: values": values,
    "log: files that differ": files,
    "log: column names": columns,
    "log: text formats": text_files,
    "log: Parquet bytes": parquet_bytes,
}
