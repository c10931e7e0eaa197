"""One run from files to a folder: replay, render every output, write the folder whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.logs.bringing import Log
from bidsim.machine import CHART_ADDRESSES, check_addresses
from bidsim.replay.pipeline import Settings, run_replay
from bidsim.replay.progress import Progress, Silent
from bidsim.report.renderer import Draw, draw_here
from bidsim.result import Result
from bidsim.scenario.loading import LoadedScenario, load_scenario
from bidsim.statistics.tables import Tables
from bidsim.store.record import SCHEMA, Judged, Record, count_judged, make_record
from bidsim.store.runs import check_free, check_writable, write_run
from bidsim.store.scan import scan
from bidsim.store.statistics import tables_to_parquet

LIBRARIES = ("duckdb", "numpy", "pyarrow", "scipy", "sqlglot", "pydantic", "altair", "vl-convert-python")
RUNS = Path("runs")


def replay_to_directory(
    scenario: Path | LoadedScenario,
    models: Sequence[Path],
    *,
    as_of: date | None = None,
    baseline: Path | None = None,
    tables: Mapping[str, str] | None = None,
    log: Log | None = None,
    out: Path | None = None,
    charts: Path | None = None,
    interactive: bool = False,
    threads: int | None = None,
    memory_bytes: int = 4 * 2**30,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    engine: str | None = None,
    spark: Mapping[str, str] | None = None,
    draw: Draw = draw_here,
    page: bool = True,
) -> tuple[Result, Path]:
    """Replay and write the run's folder; returns the result and the folder.

    as_of: the day on which the gate is judged, by default today in the scenario's time zone. out: a folder that does
    not exist yet; by default runs/<scenario>-<model>-<hash>, the hash over everything that decides the result's
    content. log: what tables mean, already opened. charts: a new folder for the main charts as PNG and SVG.
    interactive: a report with tooltips and zoom. engine, spark: see `Settings`.
    draw: who draws the charts; page: whether report.html is made now, which `bidsim report` can do later. Raises BidsimError,
    with nothing written.
    """
    progress = progress or Silent()
    started = datetime.now(UTC)
    clock = time.monotonic()
    check_addresses(CHART_ADDRESSES, "the report's charts")
    for folder in (out, charts):
        if folder is not None:
            check_free(folder)
    if out is not None and charts is not None and out.absolute() == charts.absolute():
        raise BidsimError("--charts needs a folder of its own, such as one below the run's", file=str(charts))
    if out is None:
        check_writable(RUNS)
    loaded = scenario if isinstance(scenario, LoadedScenario) else load_scenario(scenario)
    replayed = run_replay(
        loaded,
        models,
        as_of=as_of or started.astimezone(loaded.zone).date(),
        baseline=baseline,
        tables=tables,
        log=log,
        settings=Settings(threads=threads, memory_bytes=memory_bytes, engine=engine, spark=spark or {}),
        progress=progress,
    )
    result = replayed.result
    seconds = time.monotonic() - clock
    directory = out or default_directory(loaded, result, models)
    if out is None and directory.exists():
        raise BidsimError(
            "this run is there already, of the same scenario, models, data and day: bidsim report renders it again; "
            "give --out a new folder, or remove this one",
            file=str(directory),
        )
    progress.step("writing the report")
    from bidsim import __version__ as bidsim_version
    from bidsim.report import render_junit, render_report, render_summary
    from bidsim.report.html import draw_pictures

    drawn = draw_pictures(result, draw, replayed.tables) if page else None

    files: dict[str, str | bytes] = {
        "result.json": result.to_json(),
        "statistics.parquet": tables_to_parquet(replayed.tables),
    }
    if loaded.text is not None:
        files["scenario.yaml"] = loaded.text
    record = make_record(result, loaded.sha256, files)
    judged = _judged(record, directory.parent)
    pictures = _pictures(result, replayed.tables) if charts is not None else {}
    versions = {"bidsim": bidsim_version, "python": platform.python_version(), **_versions()}
    lookup = drawn.lookup if drawn is not None else None
    files |= {
        "summary.md": render_summary(result, judged=judged.candidates, lookup=lookup),
        "junit.xml": render_junit(result, lookup=lookup),
    }
    if page:  # last, since its charts may still be being drawn beside
        files["report.html"] = render_report(
            result, judged=judged.candidates, versions=versions, interactive=interactive, pictures=drawn
        )
    facts = _run_facts(started, seconds, time.monotonic() - clock, command, threads, memory_bytes, versions)
    elsewhere = replayed.log.describe()
    if elsewhere:
        facts["log"] = elsewhere
    facts |= {"judged": judged.model_dump(), "record": record.model_dump()}
    files["run.json"] = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    write_run(directory, files)
    if charts is not None:
        write_run(charts, pictures)
    return result, directory


def _judged(record: Record, store: Path) -> Judged:
    """How many candidates the store has judged on this data; runs being written meanwhile are not seen."""
    try:
        others = [r.record for r in scan([store]).runs] if store.is_dir() else []
    except BidsimError:
        others = []
    return count_judged(record, others)


def _pictures(result: Result, tables: Tables) -> Mapping[str, str | bytes]:
    from bidsim.report.pictures import render_pictures

    return render_pictures(result, tables)


def default_directory(loaded: LoadedScenario, result: Result, models: Sequence[Path]) -> Path:
    """runs/<scenario>-<model>-<hash>: the same run always has the same place."""
    content = json.dumps([loaded.sha256, [p.sha256 for p in result.policies], result.data.fingerprint, result.as_of])
    digest = hashlib.sha256(content.encode()).hexdigest()[:10]
    names = [m.stem for m in models] or result.candidates[:1]
    parts = [re.sub(r"[^\w.-]+", "_", part).strip("._") or "x" for part in (loaded.name, "+".join(names[:3]))]
    # Names have at most 255 bytes, with what is added while it is written; characters beyond ASCII take up to four.
    scenario, model = (part[:60].encode()[:66].decode(errors="ignore") for part in parts)
    return RUNS / f"{scenario}-{model}-{digest}"


def _run_facts(
    started: datetime,
    replayed: float,
    total: float,
    command: Sequence[str],
    threads: int | None,
    memory_bytes: int,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Of run.json: what is true of this run alone."""
    return {
        "schema": SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "seconds": {"replay": round(replayed, 3), "total": round(total, 3)},
        "peak_memory_bytes": _peak_memory(),
        "command": list(command),
        "threads": threads or os.cpu_count(),
        "memory_bytes": memory_bytes,
        "versions": dict(versions),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
