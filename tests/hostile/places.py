"""Where a log may lie: partitions, links, folders called like files, names with quotes and codes, very many files."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from hostile.logs import _table, _trial
from hostile.trial import Trial


def places(draw: random.Random, folder: Path) -> Trial:
    """A table's path."""
    make: Callable[[random.Random, Path], str] = draw.choice(
        [_partitions, _partitions, _links, _folders, _evil_files, _evil_files, _many, _special, _words]
    )
    path = make(draw, folder)
    changes = (
        {"segments": [draw.choice(["dt", "spot_id", "campaign"])]}
        if make is _partitions and draw.random() < 0.7
        else {}
    )
    return _trial(draw, folder, f"{make.__name__[1:]} {path[:60]!r}", path, **changes)


def _partitions(draw: random.Random, folder: Path) -> str:
    for i in range(3):
        value = draw.choice(
            [
                "2026-11-01",
                "..",
                "%2F",
                "%2e%2e%2f",
                "a'b",
                'a"b',
                "",
                "__HIVE_DEFAULT_PARTITION__",
                "\x1b[31m",
                "1",
                "1.5",
                "x" * 200,
                "a=b",
                "é",
                "<b>",
                " ",
                "null",
                "%00",
                "%",
                "NaN",
                "\n",
            ]
        )
        key = draw.choice(["dt", "dt", "dt", "spot_id", "click", "", "DT", "a'b", "filename"])
        place = folder / "logs" / f"{key}={value}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(60).slice(i * 20, 20), place / f"{i}.parquet")
    return draw.choice(["logs", "logs/*/*.parquet", "logs/**/*.parquet"])


def _links(draw: random.Random, folder: Path) -> str:
    (folder / "logs").mkdir()
    os.symlink(folder / "log.parquet", folder / "logs" / "a.parquet")
    other = draw.choice(["loop", "up", "none", "secret", "proc", "same"])
    target = {
        "loop": "b.parquet",
        "up": "..",
        "none": "no",
        "secret": "../canary.csv",
        "proc": "/proc/self/mem",
        "same": "a.parquet",
    }[other]
    os.symlink(target, folder / "logs" / "b.parquet")
    return draw.choice(["logs", "logs/*.parquet", "logs/b.parquet"])


def _folders(draw: random.Random, folder: Path) -> str:
    (folder / "logs" / "x.parquet").mkdir(parents=True)
    pq.write_table(
        _table(50), folder / "logs" / draw.choice(["a.parquet", "x.parquet/a.parquet", "x.parquet/_hidden.parquet"])
    )
    (folder / "logs" / "_SUCCESS").write_text("")
    (folder / "logs" / ".a.parquet.crc").write_text("x")
    return draw.choice(["logs", "logs/*", "logs/*.parquet", "logs/x.parquet", "logs/**"])


def _evil_files(draw: random.Random, folder: Path) -> str:
    (folder / "logs").mkdir()
    name = draw.choice(
        [
            "a'b",
            'a"b',
            "a\nb",
            "a;b",
            "\x1b[31mred",
            "\u202elog",
            "[a]",
            "a*b",
            "a?b",
            "{a,b}",
            "::error::x",
            " ",
            "-rf",
            "$(id)",
            "`id`",
            "%s",
            "a\\b",
            "é",
            "x" * 200,
            "a$b",
            "~",
            "a,b",
            "\udcff",
        ]
    )
    file = folder / "logs" / f"{name}.parquet"
    if draw.random() < 0.3:
        file.write_bytes(b"not a log" * draw.choice([0, 1, 100]))
    else:
        stream = io.BytesIO()
        pq.write_table(_table(50), stream)
        file.write_bytes(stream.getvalue())
    return draw.choice(["logs", "logs/*", f"logs/{name}.parquet"])


def _many(draw: random.Random, folder: Path) -> str:
    (folder / "logs").mkdir()
    stream = io.BytesIO()
    pq.write_table(_table(3), stream, compression="none")
    for i in range(draw.choice([300, 1500])):
        (folder / "logs" / f"{i}.parquet").write_bytes(stream.getvalue())
    return "logs"


def _special(draw: random.Random, folder: Path) -> str:
    kind = draw.choice(["fifo", "zero", "null", "fd", "dir", "self"])
    if kind == "fifo":
        os.mkfifo(folder / "log-1.parquet")
    return {
        "fifo": "log-1.parquet",
        "zero": "/dev/zero",
        "null": "/dev/null",
        "fd": "/dev/fd/99",
        "dir": ".",
        "self": "/proc/self/environ",
    }[kind]


def _words(draw: random.Random, folder: Path) -> str:
    return draw.choice(
        [
            "",
            " ",
            "=",
            "log.parquet=",
            "no\x1b[31m.parquet",
            "[",
            "**",
            "***",
            "*" * 500,
            "x" * 5000,
            "s3://",
            "s3:///",
            "s3://a b/c",
            "s3://b/" + "*" * 300,
            "gs://",
            "hdfs://",
            "http://127.0.0.1:9/x",
            "https://127.0.0.1:9/x.parquet",
            "file://log.parquet",
            "ftp://x/y",
            "s3://user:pw@b/k",
            "s3://b/k?x=1",
            "postgres://x",
            "log.parquet,log.parquet",
            "log.parquet'",
            "/",
            "//",
            "\\\\x\\y",
            "~root/x",
            "$HOME/x",
            "{log,canary}.*",
            "log.parquet\x00",
        ]
    )


CLASSES = {"log: places": places}
