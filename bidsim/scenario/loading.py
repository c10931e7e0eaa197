"""A scenario file read into data: YAML with line numbers, one clear message for whatever is wrong in it.

`reading` turns YAML into plain data with line numbers, `schema` says what the data may be, `explaining` puts what is
wrong in words. Here they come together, with the checks that need more than one key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import ValidationError

from bidsim.errors import NotSupportedYetError, ScenarioError
from bidsim.scenario.explaining import explain, nearest
from bidsim.scenario.reading import MOST_BYTES, Place, line_of, plain, read_yaml
from bidsim.scenario.schema import Scenario

__all__ = [
    "LoadedScenario",
    "json_schema",
    "load_scenario",
    "nearest",
    "parse_scenario",
    "refuse_spark",
    "refuse_unsupported",
    "scenario_from_dict",
]

HISTORIC_ANOMALY = "remove_anormaly_cvr_cpns"
ANOMALY = "remove_anomaly_cvr_cpns"


@dataclass(frozen=True)
class Shift:
    """Another world than the log's, for stress tests. prices: factor of what every other bidder and floor asks;
    candidates: factor of the candidates' bids, as predictions off by it would make them."""

    prices: float = 1.0
    candidates: float = 1.0


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario with where it came from.

    file: as the user named it; directory: what relative paths start from; name: the scenario's, or the file's stem;
    sha256: of its content (comments and layout apart); document: the content as plain data; text: of the file, None
    for a scenario given as data. shift: of a stress test, no part of the scenario.
    """

    scenario: Scenario
    file: str
    directory: Path
    name: str
    sha256: str
    document: dict[str, Any]
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)
    text: str | None = field(default=None, repr=False)
    shift: Shift = Shift()

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.scenario.timezone)

    def resolve(self, path: str) -> Path:
        """A path of the scenario, relative to the scenario file."""
        return self.directory / path

    def line_of(self, *path: str | int) -> int | None:
        """The line of a key, or of the nearest key above it that the file has."""
        return line_of(self.lines, path)

    def error(self, message: str, *path: str | int) -> ScenarioError:
        """An error at a key of the file."""
        return ScenarioError(message, file=self.file, line=self.line_of(*path))

    def observed_until(self) -> datetime | None:
        """When the last conversions were collected, in UTC; None without maturity."""
        if self.scenario.maturity is None:
            return None
        text = self.scenario.maturity.observed_until
        moment = _instant(text, self.zone)
        if moment is None:
            raise self.error(
                f'maturity.observed_until: "{text}" is not a time; write it like 2017-11-15T12:00:00',
                "maturity",
                "observed_until",
            )
        return moment.astimezone(UTC)

    def window(self) -> tuple[datetime, datetime] | None:
        """[start, end) of the rows to read, in UTC: last_hour + 1h - duration_hour <= time < last_hour + 1h."""
        table_name, table = next(iter(self.scenario.logs_tables.items()))
        if table.last_hour is None or table.duration_hour is None:
            return None
        last = _instant(table.last_hour, self.zone)
        if last is None:
            raise self.error(
                f'last_hour: "{table.last_hour}" is not a time; write it like 2017-10-15T12:00:00',
                "logs_tables",
                table_name,
                "last_hour",
            )
        if last.minute or last.second or last.microsecond:
            raise self.error(
                f"last_hour: {table.last_hour} is not a whole hour; minutes and seconds must be 0",
                "logs_tables",
                table_name,
                "last_hour",
            )
        try:
            end = last.astimezone(UTC) + timedelta(hours=1)
            return end - timedelta(hours=table.duration_hour), end
        except OverflowError:
            raise self.error(
                "the window reaches beyond the years 1 to 9999", "logs_tables", table_name, "duration_hour"
            ) from None

    def wall_window(self) -> tuple[datetime, datetime] | None:
        """The same by the clock on the wall in `timezone`, without an offset: for logs whose times have none.

        Where clocks change it is not `window` on that clock: the last hour's name is read whole, once or twice as it is.
        """
        window = self.window()
        if window is None:
            return None
        start, end = window
        last = (end - timedelta(hours=1)).astimezone(self.zone).replace(tzinfo=None)
        return last + timedelta(hours=1) - (end - start), last + timedelta(hours=1)


def load_scenario(path: str | Path) -> LoadedScenario:
    """Read a scenario file. Raises ScenarioError with file and line."""
    text = read_text(path, "scenario")
    return parse_scenario(text, file=str(path), directory=Path(path).resolve().parent)


def read_text(path: str | Path, what: str) -> str:
    """The text of a YAML file that the user named with ``--<what>``. Raises ScenarioError."""
    name = str(path)
    try:
        if os.path.isdir(path):
            raise ScenarioError(f"is a folder; give the YAML file of the {what}", file=name)
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise ScenarioError(f"a {what} file has at most {MOST_BYTES} bytes, this one has {size}", file=name)
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise ScenarioError(f"no such file; check --{what}", file=name) from None
    except OSError as error:
        raise ScenarioError(f"the file can't be read: {error.strerror}", file=name) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ScenarioError(f"not UTF-8 text; give the YAML file of the {what}", file=name, line=line) from None
    return text


def parse_scenario(text: str, *, file: str, directory: Path) -> LoadedScenario:
    """Parse the text of a scenario. file: for messages; directory: what relative paths start from."""
    document, lines = read_yaml(text, file)
    return replace(_build(document, file, directory, lines), text=text)


def scenario_from_dict(document: dict[str, Any], *, directory: Path, file: str = "scenario") -> LoadedScenario:
    """The same from data, for the Python API. Raises ScenarioError without lines."""
    return _build(plain(document, file, {}), file, directory, {})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario."""
    document = Scenario.model_json_schema(by_alias=False)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["$id"] = "bidsim.scenario/1"
    document["title"] = "bidsim scenario"
    properties = document["properties"]
    properties[HISTORIC_ANOMALY] = {**properties[ANOMALY], "description": f"historic spelling of {ANOMALY}"}
    columns = document["$defs"]["Columns"]["properties"]
    columns["win"] = {**columns["won"], "description": "another name of won", "title": "Win"}
    # What YAML shows as `ad:` with nothing below it.
    properties["logs_tables"]["additionalProperties"] = {
        "anyOf": [properties["logs_tables"]["additionalProperties"], {"type": "null"}]
    }
    return document


def _build(document: dict[str, Any], file: str, directory: Path, lines: Mapping[Place, int]) -> LoadedScenario:
    if ANOMALY in document and HISTORIC_ANOMALY in document:
        raise ScenarioError(
            f"{ANOMALY} stands twice, in both spellings; keep one", file=file, line=line_of(lines, (HISTORIC_ANOMALY,))
        )
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        found = [
            ScenarioError(message, file=file, line=line_of(lines, path) or (1 if lines else None))
            for path, message in explain(error, document, Scenario)
        ]
        # One error to raise; the others follow in its message, each on a line with its own place.
        text = "\n".join([found[0].message, *(str(other) for other in found[1:])])
        raise ScenarioError(text, file=file, line=found[0].line) from None
    content = json.dumps(document, sort_keys=True, ensure_ascii=True)
    loaded = LoadedScenario(
        scenario=scenario,
        file=file,
        directory=directory,
        name=scenario.name or Path(file).stem,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        document=document,
        lines=lines,
    )
    _check(loaded)
    return loaded


def _instant(text: str, zone: ZoneInfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _check(loaded: LoadedScenario) -> None:
    """What needs more than one key, or the world's time zones."""
    scenario = loaded.scenario
    # A list of hundreds of files, for the one that nearly all have.
    # "localtime" is whatever the machine has, and no engine knows it.
    if scenario.timezone != "UTC" and scenario.timezone not in (zones := available_timezones() - {"localtime"}):
        # Of abbreviations the most alike is another place's: JST is not MST.
        known = nearest(scenario.timezone, (z for z in zones if "/" in z))
        raise loaded.error(
            f'timezone: there is no time zone "{scenario.timezone}"{known or "; write one of IANA, such as Asia/Tokyo"}',
            "timezone",
        )
    if len(scenario.logs_tables) > 1:
        second = list(scenario.logs_tables)[1]
        raise _not_yet(loaded, f'logs_tables: a second table ("{second}")', "logs_tables", second)
    loaded.window()
    loaded.observed_until()


def _not_yet(loaded: LoadedScenario, what: str, *path: str | int, instead: str = "") -> NotSupportedYetError:
    message = f"{what} is not supported yet{instead}"
    return NotSupportedYetError(message, file=loaded.file, line=loaded.line_of(*path))


def refuse_spark(loaded: LoadedScenario, what: str) -> None:
    """Commands that only DuckDB runs. Raises ScenarioError."""
    if loaded.scenario.engine == "spark":
        raise loaded.error(f"{what} runs on DuckDB only; leave engine out, or set engine: duckdb", "engine")


def refuse_unsupported(loaded: LoadedScenario) -> None:
    """Keys whose behaviour comes with a later version are refused, never ignored. Raises NotSupportedYetError."""
    s = loaded.scenario
    checks: list[tuple[bool, str, Place, str]] = [
        (
            s.outcomes == "predicted" and s.budget is not None,
            "outcomes: predicted under a budget",
            ("outcomes",),
            "; use outcomes: observed",
        ),
    ]
    for refused, what, where, instead in checks:
        if refused:
            raise _not_yet(loaded, what, *where, instead=instead)
