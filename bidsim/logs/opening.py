"""The files of a scenario's tables, found and bound: paths in the scenario or ``--table`` on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bidsim.errors import ScenarioError
from bidsim.logs.addresses import is_address
from bidsim.logs.bringing import Log
from bidsim.logs.source import Source, open_source
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.schema import LogTable


def open_log(loaded: LoadedScenario, tables: Mapping[str, str]) -> Log:
    """The log of the scenario, found and not read; tables: bindings of the command line, by table name.

    Raises ScenarioError, LogError.
    """
    name, table = next(iter(loaded.scenario.logs_tables.items()))
    unknown = [t for t in tables if t not in loaded.scenario.logs_tables]
    if unknown:
        raise ScenarioError(
            f'--table {unknown[0]}=...: the scenario has no table "{unknown[0]}"; it has {name}', file=loaded.file
        )
    if name not in tables and table.table is not None:
        if table.path is not None:
            raise loaded.error(f"table {name}: give a path or a table, not both", "logs_tables", name, "table")
        return Log(Source(name, (table.table,), "parquet", catalog=table.table), _campaigns(loaded))
    path = tables.get(name, table.path)
    if path is None:
        raise loaded.error(
            f"table {name} has no path; give one, or bind it with --table {name}=PATH", "logs_tables", name
        )
    hint = f"check the path or --table {name}=PATH"
    own = name not in tables
    return Log(_find(loaded, name, path, table, hint, own=own), _campaigns(loaded))


def _campaigns(loaded: LoadedScenario) -> Source | None:
    path = loaded.scenario.campaigns
    if path is None:
        return None
    return _find(loaded, "campaigns", path, LogTable(), "check campaigns in the scenario", own=True)


def _find(loaded: LoadedScenario, name: str, path: str, table: LogTable, hint: str, *, own: bool) -> Source:
    """own: whether the scenario names the path, which is then relative to its file."""
    place = path if is_address(path) else os.path.abspath(loaded.resolve(path) if own else path)
    if table.format == "delta":
        from bidsim.logs.delta import find_delta

        return find_delta(name, place, table.version, hint)
    if table.format == "iceberg":
        from bidsim.logs.iceberg import find_iceberg

        return find_iceberg(name, place, path, table.snapshot, hint)
    if is_address(path):
        from bidsim.logs.objects import find_objects

        return find_objects(name, path, table.format, hint)
    return open_source(name, loaded.resolve(path) if own else Path(path), table.format, hint)
