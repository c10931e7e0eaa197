"""The public API: replay a scenario from Python, and write what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bidsim.errors import BidsimError

if TYPE_CHECKING:
    from bidsim.replay.progress import Progress
    from bidsim.result import Result
    from bidsim.scenario.loading import LoadedScenario
    from bidsim.scenario.schema import Scenario


def replay(
    scenario: str | Path | Mapping[str, Any] | Scenario | LoadedScenario,
    models: str | Path | Sequence[str | Path] = (),
    *,
    baseline: str | Path | None = None,
    tables: Mapping[str, str | Path] | None = None,
    threads: int | None = None,
    memory_bytes: int = 4 * 2**30,
    as_of: date | str | None = None,
    progress: Progress | None = None,
    engine: Literal["duckdb", "spark"] | None = None,
    spark: Mapping[str, str] | None = None,
) -> Result:
    """Replay a log through the candidates and the baseline.

    scenario: a YAML file, or its content as a `Scenario` or a mapping (relative paths are then relative to the current
    folder). models: bundle files of candidates, called by their stems; baseline: bundle of the baseline, instead of the
    scenario's. tables: paths of log tables by name. threads: all cores by default. memory_bytes: bound for the
    process. as_of: the day on which the gate is judged (as text: YYYY-MM-DD), by default today in the scenario's time
    zone. engine: before the scenario's; spark: remote, master and settings for a new session, where none is active in
    this process.

    Returns the `Result`; nothing is written. Raises BidsimError (ScenarioError, LogError, ModelError) for input that
    can't be used.
    """
    from bidsim.replay.pipeline import Settings, run_replay
    from bidsim.scenario.loading import LoadedScenario, load_scenario, scenario_from_dict
    from bidsim.scenario.schema import Scenario

    if isinstance(scenario, Scenario):
        scenario = scenario.model_dump(mode="json", exclude_unset=True)
    if isinstance(scenario, LoadedScenario):
        loaded = scenario
    elif isinstance(scenario, Mapping):
        loaded = scenario_from_dict(dict(scenario), directory=Path.cwd())
    else:
        loaded = load_scenario(scenario)
    return run_replay(
        loaded,
        [Path(m) for m in ([models] if isinstance(models, str | Path) else models)],
        baseline=Path(baseline) if baseline is not None else None,
        tables={name: str(path) for name, path in (tables or {}).items()},
        as_of=_day(as_of) or datetime.now(loaded.zone).date(),
        settings=Settings(threads=threads, memory_bytes=memory_bytes, engine=engine, spark=spark or {}),
        progress=progress,
    ).result


def _day(given: date | str | None) -> date | None:
    """The day of a date, a moment or a text. Raises BidsimError."""
    if isinstance(given, datetime):
        return given.date()
    if not isinstance(given, str):
        return given
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise BidsimError(f"as_of {given}: not a day; write YYYY-MM-DD") from None
