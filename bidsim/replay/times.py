"""When the log's rows happened: how its times are to be read, and the window over them.

An instant (with a zone) is itself; a clock on the wall is read in the scenario's zone. What is neither is refused, and so
are expressions that turn instants into UTC's clock or drop the zone that a text names: rows would silently be hours off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bidsim.logs.columns import ZONE_AT_END
from bidsim.logs.origins import Span
from bidsim.logs.source import NO_VALUES
from bidsim.replay.columns import Names, a_value, check_binds
from bidsim.replay.engines import AnyEngine
from bidsim.scenario.loading import LoadedScenario

SOME_ROWS = 1_000


def time_kind_of(
    names: Names, engine: AnyEngine, relation: str, types: Mapping[str, str], roles: Mapping[str, str | None]
) -> str | None:
    """instant, wall, or None where the log has no times. Raises ScenarioError for what is no time."""
    for role in ("time", "click_time", "conversion_time"):
        if types.get(role, "").startswith("TIMESTAMP"):
            _check_zone(names, engine, relation, role)
    kind = types.get("time")
    if kind is None:
        return None
    if kind == "TIMESTAMP WITH TIME ZONE":
        return "instant"
    if _is_clock(kind):
        return "wall"
    text = names.loaded.scenario.columns.time or "time"
    value = a_value(names, engine, relation, str(roles["time"]))
    such = f', such as "{value}"' if value else ""
    otherwise = "" if names.loaded.scenario.columns.time else ", and cast(null as timestamp) where it is none"
    raise names.loaded.error(
        f"columns.time: the log's column is {kind}{such}, a time is needed; write to_timestamp({text}) of seconds, "
        f"to_timestamp({text} / 1000) of milliseconds, cast({text} as timestamptz) of text, or "
        f"strptime({text}, '%d/%m/%Y %H:%M:%S') of another order{otherwise}",
        "columns",
        "time",
    )


def _is_clock(kind: str) -> bool:
    """Whether a type is a time without a zone; a column without values is one that says nothing."""
    return kind.startswith("TIMESTAMP") or kind in ("DATE", NO_VALUES)


def _check_zone(names: Names, engine: AnyEngine, relation: str, role: str) -> None:
    """Refuse an expression that loses the zone of its times, where it is not the scenario's."""
    loaded, zone = names.loaded, names.loaded.scenario.timezone
    text = (getattr(loaded.scenario.columns, role) or "").strip()
    clock = re.fullmatch(r"(epoch_ms|make_timestamp)\s*\(([^,]*)\)", text, re.I)
    if clock and zone != "UTC":
        unit = 1000 if clock.group(1).lower() == "epoch_ms" else 1_000_000
        raise loaded.error(
            f"columns.{role}: {clock.group(1)} gives UTC's clock without its zone, which would be read as {zone}'s; write "
            f"to_timestamp(({clock.group(2).strip()}) / {unit})",
            "columns",
            role,
        )
    cast = re.fullmatch(r"(try_cast|cast)\s*\((.*)\s+as\s+(?:timestamp|datetime)\s*\)", text, re.I | re.S)
    if cast is None:
        return
    inner = names.compile(cast.group(2), "columns", role).sql
    if check_binds(loaded, engine, relation, inner, "columns", role) != "VARCHAR":
        return
    own = r":\d\d([.,]\d+)?\s*(Z|UTC|GMT|[+-]00(:?00)?)\s*$" if zone == "UTC" else "(?!)"
    for (value,) in engine.rows(f"select {inner} from {relation} limit {SOME_ROWS}"):
        if re.search(ZONE_AT_END, value or "") and not re.search(own, value, re.I):
            raise loaded.error(
                f'columns.{role}: the log\'s texts name their zone, such as "{value[:60]}", and a timestamp drops it; write '
                f"{cast.group(1)}({cast.group(2)} as timestamptz)",
                "columns",
                role,
            )


def event_seconds(
    loaded: LoadedScenario, types: Mapping[str, str], roles: Mapping[str, str | None], role: str
) -> str | None:
    """SQL of a time role as seconds since 1970; None where the log has no such time."""
    kind = types.get(role, "")
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch({roles[role]})"
    if _is_clock(kind):
        zone = loaded.scenario.timezone.replace("'", "''")
        moment = f"cast({roles[role]} as timestamp)"
        return f"epoch({moment})" if zone == "UTC" else f"epoch(timezone('{zone}', {moment}))"
    if not kind or getattr(loaded.scenario.columns, role) is None:
        return None  # a column that merely happens to have the role's name
    raise loaded.error(f"columns.{role}: the log's column is {kind}, a time is needed", "columns", role)


def window_conditions(loaded: LoadedScenario, time: str | None, kind: str | None) -> list[str]:
    window = loaded.window()
    if window is None:
        return []
    if time is None:
        table = next(iter(loaded.scenario.logs_tables))
        raise loaded.error(
            "last_hour and duration_hour need the time of each row; set columns.time", "logs_tables", table, "last_hour"
        )
    if kind == "instant":
        low, high = (f"timestamptz '{t:%Y-%m-%d %H:%M:%S}+00'" for t in window)
    else:
        low, high = (f"timestamp '{t:%Y-%m-%d %H:%M:%S}'" for t in loaded.wall_window() or ())
    return [f"({time} >= {low})", f"({time} < {high})"]


def window_span(loaded: LoadedScenario, time: str | None, kind: str | None) -> Span | None:
    """The times that `window_conditions` can hold for, where the time is a column as it stands."""
    window = loaded.window() if kind == "instant" else loaded.wall_window()
    column = re.fullmatch(r'cast\(\(*s\."((?:[^"]|"")+)"\)* as timestamp(?:tz)?\)', time or "")
    if window is None or column is None:
        return None
    return Span(column.group(1).replace('""', '"').lower(), *window)
