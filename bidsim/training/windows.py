"""Which rows train, which tune and which are judged: windows of a scenario's log that never overlap.

The scenario's own window is the one that is judged. The training window ends a gap before it, so that a conversion
that is attributed to a training row has come before the first judged row: the gap is the attribution window
(`maturity.conversion_window_hours`) where the scenario has one. Where the training rows are a log of their own, they
need no window; then the two logs must not share a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bidsim.errors import BidsimError
from bidsim.scenario.loading import LoadedScenario, scenario_from_dict

Window = tuple[datetime, datetime]
# Share of a training window that may be without rows at its beginning: a few quiet hours are no short log.
QUIET = 0.05


@dataclass(frozen=True)
class Rows:
    """A part of a log. window: [start, end) in UTC, None for all of it; tables: where it lies, by table name."""

    window: Window | None
    tables: Mapping[str, str]


@dataclass(frozen=True)
class Windows:
    """gap_hours: between the end of training and the first judged row."""

    training: Rows
    evaluation: Rows
    gap_hours: float


def plan_windows(
    loaded: LoadedScenario,
    *,
    train_hours: int | None,
    gap_hours: float | None = None,
    tables: Mapping[str, str] | None = None,
    train_tables: Mapping[str, str] | None = None,
) -> Windows:
    """The rows to train on and those to judge.

    train_hours: length of the training window; None only where train_tables says which rows train. gap_hours: instead
    of the attribution window. Raises ScenarioError where the scenario has no window to count back from.
    """
    tables = dict(tables or {})
    own_log = bool(train_tables)
    judged = loaded.window()
    name = next(iter(loaded.scenario.logs_tables))
    if gap_hours is None:
        gap_hours = loaded.scenario.maturity.conversion_window_hours if loaded.scenario.maturity else 0.0
    if not (math.isfinite(gap_hours) and gap_hours >= 0):
        raise BidsimError(f"the gap before the evaluation window must be 0 hours or more, got {gap_hours:g}")
    evaluation = Rows(judged, tables)
    if judged is None:
        if own_log:
            return Windows(Rows(None, dict(train_tables or {})), evaluation, gap_hours)
        raise loaded.error(
            f"the scenario judges the whole log, so no rows are left to train on; give table {name} last_hour and "
            "duration_hour (and columns.time), or train on another log with --train-table",
            "logs_tables",
            name,
        )
    if train_hours is None:
        if not own_log:
            raise BidsimError("how long is the training window? give --train-hours, such as 168 for a week")
        # Another log, which may hold anything: only what lies before the judged rows trains.
        start = datetime(1900, 1, 1, tzinfo=UTC)
    elif train_hours < 1:
        raise BidsimError(f"--train-hours {train_hours}: write at least 1")
    try:
        # Windows begin and end with hours: the scenario's last_hour is one.
        end = judged[0] - timedelta(hours=math.ceil(gap_hours))
        if train_hours is not None:
            start = end - timedelta(hours=train_hours)
    except OverflowError:
        raise BidsimError(f"{train_hours} training hours reach beyond the year 1") from None
    return Windows(Rows((start, end), dict(train_tables or tables)), evaluation, gap_hours)


def too_long(window: Window, first: datetime | None) -> str | None:
    """What to say of a training window that begins long before the log's first row in it; None where nothing."""
    start, end = window
    if first is None or first - start < max(timedelta(hours=1), QUIET * (end - start)):
        return None
    asked, found = ((end - begin) / timedelta(hours=1) for begin in (start, first))
    return (
        f"the training window is {asked:,.0f} hours long, and of those the log has only the last {found:,.1f} "
        f"(its first row is of {first:%Y-%m-%d %H:%M} UTC)"
    )


def in_rows(loaded: LoadedScenario, rows: Rows) -> LoadedScenario:
    """The scenario with its log's window replaced; names, lines for messages and relative paths stay."""
    if rows.window == loaded.window():
        return loaded
    name, table = next(iter(loaded.document["logs_tables"].items()))
    table = dict(table or {})
    table.pop("last_hour", None)
    table.pop("duration_hour", None)
    if rows.window is not None:
        start, end = rows.window
        table["last_hour"] = (end - timedelta(hours=1)).isoformat()
        table["duration_hour"] = int((end - start) / timedelta(hours=1))
    return changed(loaded, logs_tables={**loaded.document["logs_tables"], name: table})


def changed(loaded: LoadedScenario, **keys: Any) -> LoadedScenario:
    """The scenario with some keys of its document replaced, or left out where the value is None."""
    document = {**loaded.document, **keys}
    document = {key: value for key, value in document.items() if value is not None or key not in keys}
    document.setdefault("name", loaded.name)
    made = scenario_from_dict(document, directory=loaded.directory, file=loaded.file)
    return replace(made, lines=loaded.lines)
