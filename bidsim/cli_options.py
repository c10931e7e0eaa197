"""What options mean that several commands share, and the summary that several print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bidsim.errors import BidsimError

if TYPE_CHECKING:
    from bidsim.result import Result


def parse_memory(text: str) -> int:
    """Bytes of a size such as 4GB, 1500MB, 1.5GiB, or what a container has, where that is less. Raises BidsimError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise BidsimError(f"--memory {text}: not a size; write something like 4GB or 1500MB")
    base = 1024 if match.group(3) else 1000
    size = float(match.group(1)) * base ** " kmgt".index(match.group(2).lower() or " ")
    if size < 10**9:
        raise BidsimError(f"--memory {text}: bidsim needs at least 1GB")
    if size > 10**18:
        raise BidsimError(f"--memory {text[:40]}: no machine has that much; write something like 4GB")
    from bidsim.machine import memory_limit

    bound = memory_limit()
    if bound is None:
        return int(size)
    if bound < 10**9:
        raise BidsimError(f"bidsim needs at least 1GB of memory; this container or service has {bound / 1e9:.2f}GB")
    # A tenth is left for what else counts there, such as pages of files being written.
    return max(10**9, min(int(size), bound * 9 // 10))


def parse_engine(text: str | None) -> str | None:
    """Raises BidsimError."""
    if text not in (None, "duckdb", "spark"):
        raise BidsimError(f"--engine {text}: there are duckdb and spark")
    return text


def parse_spark(entries: list[str]) -> dict[str, str]:
    """Settings of Spark by name. Raises BidsimError."""
    found: dict[str, str] = {}
    for entry in entries:
        name, sign, value = entry.partition("=")
        if not sign or not value or not (name in ("remote", "master") or name.startswith("spark.")):
            raise BidsimError(
                f"--spark {entry}: write remote=sc://HOST, master=URL or a setting such as spark.executor.memory=4g"
            )
        found[name] = value
    return found


def parse_tables(entries: list[str]) -> dict[str, str]:
    """Paths by table name. Raises BidsimError."""
    tables: dict[str, str] = {}
    for entry in entries:
        name, sign, path = entry.partition("=")
        if not sign or not name or not path:
            raise BidsimError(f"--table {entry}: write NAME=PATH, such as ad=logs/2026-11-01.parquet")
        if name in tables:
            raise BidsimError(f'--table: "{name}" is given twice; quote a glob or give a folder')
        tables[name] = path
    return tables


def print_summary(result: Result, directory: Path) -> None:
    """The verdict and where the report is, on stdout."""
    from bidsim.report.format import clean_name

    typer.echo(f"{result.gate.verdict.upper().replace('_', ' ')}: {clean_name(result.gate.reason, 2000)}")
    typer.echo(f"report: {directory / 'report.html'}")
