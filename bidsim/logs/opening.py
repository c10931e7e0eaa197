"""The files of a scenario's tables, found and bound: paths in the scenario or ``--table`` on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bidsim.errors import ScenarioError
from bidsim.logs.source import Source, open_source
from bidsim.scenario.loading import LoadedScenario


def open_log(loaded: LoadedScenario, tables: Mapping[str, str]) -> Source:
    """The log of the scenario; tables: bindings of the command line, by table name. Raises ScenarioError, LogError."""
    name, table = next(iter(loaded.scenario.logs_tables.items()))
    unknown = [t for t in tables if t not in loaded.scenario.logs_tables]
    if unknown:
        raise ScenarioError(
            f'--table {unknown[0]}=...: the scenario has no table "{unknown[0]}"; it has {name}', file=loaded.file
        )
    if name in tables:
        return open_source(name, Path(tables[name]), table.format)
    if table.table is not None:
        if table.path is not None:
            raise loaded.error(f"table {name}: give a path or a table, not both", "logs_tables", name, "table")
        return Source(name, (table.table,), "parquet", catalog=table.table)
    if table.path is None:
        raise loaded.error(
            f"table {name} has no path; give one, or bind it with --table {name}=PATH", "logs_tables", name
        )
    return open_source(name, loaded.resolve(table.path), table.format)


def extra_files(loaded: LoadedScenario) -> Sequence[str]:
    """Files beside the log that the engine may read: the campaign table."""
    if loaded.scenario.campaigns is None:
        return []
    return open_campaigns(loaded, loaded.scenario.campaigns).files


def open_campaigns(loaded: LoadedScenario, path: str) -> Source:
    """The campaign table of the scenario. Raises LogError."""
    return open_source("campaigns", loaded.resolve(path), None, "check campaigns in the scenario")
