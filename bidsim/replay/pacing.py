"""Even pacing in SQL: how much of its period each row has seen, in minutes, and how long the period is (spec 3.7)."""

from __future__ import annotations

from bidsim.replay.plan import Plan
from bidsim.scenario.loading import LoadedScenario


def pace_of(plan: Plan, loaded: LoadedScenario, per: str) -> tuple[str, str]:
    """SQL of the minutes of the period up to the end of the row's minute, and of all its minutes (spec 3.7).

    A day is as long as it is: 23 or 25 hours where clocks change. Without time zones in the log, clocks never do.
    """
    local, time = plan.local_time, plan.roles["time"]
    window = loaded.window() if plan.time_kind == "instant" else loaded.wall_window()
    if per == "total" and window is not None and local is not None:
        minutes = int((window[1] - window[0]).total_seconds()) // 60
        stamp = "timestamptz" if plan.time_kind == "instant" else "timestamp"
        zone = "+00" if plan.time_kind == "instant" else ""
        begin = f"{stamp} '{window[0]:%Y-%m-%d %H:%M:%S}{zone}'"
        return f"least({_minutes(begin, str(time))}, {minutes})", f"{minutes}"
    if per == "total":
        raise loaded.error(
            "budget.pacing: even over the whole log needs to know how long it is; give the table last_hour and "
            "duration_hour, and columns.time",
            "budget",
            "pacing",
        )
    if per == "hour":
        return f"extract('minute' from {local}) + 1", "60"
    if per != "day":
        raise loaded.error(
            f'budget.pacing: even needs a period whose length is known: day, hour or total, and "{per}" may be anything; '
            "use pacing: asap with it",
            "budget",
            "pacing",
        )
    if plan.time_kind != "instant":
        return f"extract('hour' from {local}) * 60 + extract('minute' from {local}) + 1", "1440"
    zone = loaded.scenario.timezone.replace("'", "''")
    if zone == "UTC":
        return f"extract('hour' from {local}) * 60 + extract('minute' from {local}) + 1", "1440"
    midnight = f"date_trunc('day', {local})"
    begin, end = _midnight(zone, midnight), _midnight(zone, f"({midnight} + interval 1 day)")
    return _minutes(begin, str(time)), f"(epoch({end}) - epoch({begin})) / 60e0"


def _midnight(zone: str, local: str) -> str:
    """The instant of a local midnight, the first where clocks that go back let it come twice (Havana, the Azores)."""
    instant = f"timezone('{zone}', {local})"
    before = f"({instant} - interval 1 hour)"
    return f"case when timezone('{zone}', {before}) >= {local} then {before} else {instant} end"


def _minutes(begin: str, time: str) -> str:
    """Whole minutes from one time to the end of the minute of another."""
    return f"floor((epoch_us({time}) - epoch_us({begin})) / 60000000.0) + 1"
