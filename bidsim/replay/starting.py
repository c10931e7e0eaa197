"""Which engine replays a scenario, and how it is opened: DuckDB in this process, or a Spark session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bidsim.errors import BidsimError
from bidsim.replay.engine import Engine
from bidsim.replay.engines import AnyEngine
from bidsim.scenario.loading import LoadedScenario


def open_engine(
    loaded: LoadedScenario,
    files: Sequence[str],
    work: Path,
    *,
    engine: str | None,
    spark: Mapping[str, str],
    threads: int,
    memory_bytes: int,
    folders: Sequence[Path] = (),
) -> AbstractContextManager[AnyEngine]:
    """engine, spark: as the command line says, before what the scenario says; folders: where rows may still be brought to.
    Raises BidsimError."""
    zone = loaded.scenario.timezone
    if (engine or loaded.scenario.engine) == "duckdb":
        if spark:
            raise BidsimError(f"--spark {next(iter(spark))}: this replay runs on DuckDB; give --engine spark too")
        return Engine(files, work, threads=threads, memory_bytes=memory_bytes, folders=folders, zone=zone)
    from bidsim.replay.spark.engine import SparkEngine
    from bidsim.replay.spark.session import open_session, refused_settings

    own = loaded.scenario.spark
    config = {name: _text(value) for name, value in (own.config if own else {}).items()}
    for name in refused_settings(config):
        raise loaded.error(
            f"spark.config: a scenario may not set {name}, which can do more than change speed; give it with "
            f"--spark {name}=VALUE, or in Spark's own configuration",
            "spark",
            "config",
        )
    given = dict(spark)
    remote, master = given.pop("remote", None), given.pop("master", own.master if own else None)
    session, owned = open_session(
        remote=remote, master=master, config={**config, **given}, threads=threads, memory_bytes=memory_bytes
    )
    return SparkEngine(session, files, work, owned=owned, zone=zone)


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
