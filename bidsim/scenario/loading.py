"""A scenario file read into data: YAML with line numbers, one clear message for whatever is wrong in it.

YAML 1.2 by ruamel.yaml (duplicate keys are errors, every key knows its line). Anchors, aliases and tags are refused:
a scenario is data, and one that expands or names Python objects is an attack or a mistake.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bidsim.errors import NotSupportedYetError, ScenarioError
from bidsim.scenario.schema import Scenario

MOST_BYTES = 1_048_576
MOST_DEPTH = 20
HISTORIC_ANOMALY = "remove_anormaly_cvr_cpns"
ANOMALY = "remove_anomaly_cvr_cpns"
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario with where it came from.

    file: as the user named it; directory: what relative paths start from; name: the scenario's, or the file's stem;
    sha256: of its content (comments and layout apart); document: the content as plain data.
    """

    scenario: Scenario
    file: str
    directory: Path
    name: str
    sha256: str
    document: dict[str, Any]
    lines: Mapping[Path_, int] = field(default_factory=dict, repr=False)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.scenario.timezone)

    def resolve(self, path: str) -> Path:
        """A path of the scenario, relative to the scenario file."""
        return self.directory / path

    def line_of(self, *path: str | int) -> int | None:
        """The line of a key, or of the nearest key above it that the file has."""
        return _line(self.lines, path)

    def error(self, message: str, *path: str | int) -> ScenarioError:
        """An error at a key of the file."""
        return ScenarioError(message, file=self.file, line=self.line_of(*path))

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
                f"last_hour: {table.last_hour} is not a whole hour", "logs_tables", table_name, "last_hour"
            )
        try:
            end = last.astimezone(UTC) + timedelta(hours=1)
            return end - timedelta(hours=table.duration_hour), end
        except OverflowError:
            raise self.error("the window reaches before year 1", "logs_tables", table_name, "duration_hour") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the known word most like this one, or ''."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def load_scenario(path: str | Path) -> LoadedScenario:
    """Read a scenario file. Raises ScenarioError with file and line."""
    name = str(path)
    try:
        if os.path.isdir(path):
            raise ScenarioError("is a folder; give the scenario's YAML file", file=name)
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise ScenarioError(f"a scenario has at most {MOST_BYTES} bytes, this file has {size}", file=name)
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise ScenarioError("no such file; check --scenario", file=name) from None
    except OSError as error:
        raise ScenarioError(f"the file can't be read: {error.strerror}", file=name) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ScenarioError("not UTF-8 text; a scenario is a YAML file", file=name, line=line) from None
    return parse_scenario(text, file=name, directory=Path(path).resolve().parent)


def parse_scenario(text: str, *, file: str, directory: Path) -> LoadedScenario:
    """Parse the text of a scenario. file: for messages; directory: what relative paths start from."""
    lines: dict[Path_, int] = {}
    document = _read_yaml(text, file, lines)
    return _build(document, file, directory, lines)


def scenario_from_dict(document: dict[str, Any], *, directory: Path, file: str = "scenario") -> LoadedScenario:
    """The same from data, for the Python API. Raises ScenarioError without lines."""
    return _build(_plain(document, (), {}, file), file, directory, {})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario."""
    document = Scenario.model_json_schema(by_alias=False)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["$id"] = "bidsim.scenario/1"
    document["properties"][HISTORIC_ANOMALY] = {
        "description": f"historic spelling of {ANOMALY}",
        "type": "boolean",
    }
    return document


def _read_yaml(text: str, file: str, lines: dict[Path_, int]) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if any(ord(c) < 32 and c not in "\t\r\n" for c in line):
            raise ScenarioError("has control characters; a scenario is a YAML text file", file=file, line=number)
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        for event in YAML(typ="rt", pure=True).parse(text):
            _refuse_event(event, file)
        documents = list(yaml.load_all(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not valid YAML").split("\n")[0]
        if type(error).__name__ == "DuplicateKeyError":
            problem = problem.split(" with value")[0].replace("found duplicate key", "this key stands twice:")
        place = {"line": mark.line + 1, "column": mark.column + 1} if mark else {}
        raise ScenarioError(f"not valid YAML: {problem}", file=file, **place) from None
    except (YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError, KeyError) as error:
        raise ScenarioError(
            f"not valid YAML: {str(error).splitlines()[0] if str(error) else error!r}", file=file
        ) from None
    documents = [d for d in documents if d is not None]
    if not documents:
        raise ScenarioError("the scenario is empty; see the README for the shortest one", file=file)
    if len(documents) > 1:
        raise ScenarioError("holds several YAML documents; a scenario is one", file=file)
    if not isinstance(documents[0], Mapping):
        raise ScenarioError("a scenario is a mapping of keys, such as logs_tables: ...", file=file, line=1)
    plain = _plain(documents[0], (), lines, file)
    assert isinstance(plain, dict)
    return plain


def _refuse_event(event: Any, file: str) -> None:
    line = event.start_mark.line + 1 if event.start_mark else None
    if type(event).__name__ == "AliasEvent" or getattr(event, "anchor", None):
        raise ScenarioError("anchors and aliases (& and *) are not allowed in a scenario", file=file, line=line)
    tag = getattr(event, "tag", None)
    if tag is not None and str(tag) not in ("!", "None"):
        raise ScenarioError(f"the tag {tag} is not allowed in a scenario", file=file, line=line)


def _plain(value: Any, path: Path_, lines: dict[Path_, int], file: str) -> Any:
    """Plain Python data of what YAML (or a caller) gave; notes the line of every key."""
    if len(path) > MOST_DEPTH:
        raise ScenarioError(f"nested more than {MOST_DEPTH} deep", file=file, line=_line(lines, path))
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, item in value.items():
            places = getattr(value, "lc", None)
            where = (*path, str(key))
            if places is not None and places.data and key in places.data:
                lines[where] = places.data[key][0] + 1
            if not isinstance(key, str):
                raise ScenarioError(
                    f"the key {key!r} is not text; put it in quotes", file=file, line=_line(lines, where)
                )
            out[str(key)] = _plain(item, where, lines, file)
        return out
    if isinstance(value, (list, tuple)):
        items = []
        for i, item in enumerate(value):
            where = (*path, i)
            places = getattr(value, "lc", None)
            if places is not None and places.data and i in places.data:
                lines[where] = places.data[i][0] + 1
            items.append(_plain(item, where, lines, file))
        return items
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, datetime):
        # ruamel moves a time with an offset to UTC and keeps the offset aside; as text it is unambiguous again.
        offset = getattr(value, "tzinfo", None)
        text = value.isoformat()
        stamp = getattr(value, "_yaml", None)
        if offset is None and stamp and stamp.get("tz"):
            text += "+00:00"
        return text
    if isinstance(value, date):
        return value.isoformat()
    raise ScenarioError(f"{type(value).__name__} is not a value of a scenario", file=file, line=_line(lines, path))


def _line(lines: Mapping[Path_, int], path: Path_) -> int | None:
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _build(document: dict[str, Any], file: str, directory: Path, lines: Mapping[Path_, int]) -> LoadedScenario:
    if ANOMALY in document and HISTORIC_ANOMALY in document:
        raise ScenarioError(
            f"{ANOMALY} stands twice, in both spellings; keep one", file=file, line=_line(lines, (HISTORIC_ANOMALY,))
        )
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        messages = list(dict.fromkeys(_explain(error, document)))
        first_path, _ = messages[0]
        text = "\n".join(
            m if i == 0 else f"{ScenarioError(m, file=file, line=_line(lines, p))}"
            for i, (p, m) in enumerate(messages[:10])
        )
        raise ScenarioError(text, file=file, line=_line(lines, first_path)) from None
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


def _explain(error: ValidationError, document: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    for problem in error.errors():
        path = tuple(p for p in problem["loc"] if not _is_union_tag(p, document, problem["loc"]))
        shown = ".".join(str(p) for p in path)
        kind, given = problem["type"], problem.get("input")
        if kind == "extra_forbidden":
            known = _known_keys(path[:-1])
            yield path, f'unknown key "{path[-1]}"{nearest(str(path[-1]), known)}'
        elif kind == "missing":
            yield path[:-1] or path, f"{shown} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:] if message else message
            message = message.replace("input should be", "must be")
            said = "" if isinstance(given, (dict, list)) or kind == "value_error" else f", got {given!r}"
            yield path, f"{shown}: {message}{said}" if shown else f"{message}{said}"


def _is_union_tag(part: str | int, document: Mapping[str, Any], loc: tuple[str | int, ...]) -> bool:
    """pydantic adds the member of a union to the path ('float', 'list[...]'); no key of ours looks like that."""
    if not isinstance(part, str):
        return False
    node: Any = document
    for p in loc:
        if p is part:
            return (
                not (isinstance(node, Mapping) and p in node)
                and p not in Scenario.model_fields
                and ("[" in part or part in ("float", "str", "constrained-str", "constrained-float", "int", "bool"))
            )
        if isinstance(node, (Mapping, list)):
            try:
                node = node[p]  # type: ignore[call-overload,index]
            except (KeyError, IndexError, TypeError):
                pass
    return False


def _known_keys(path: Path_) -> list[str]:
    """The keys a block may have, by walking the schema along the path."""
    models: list[Any] = [Scenario]
    for part in path:
        following: list[Any] = []
        for model in models:
            if isinstance(model, type) and issubclass(model, BaseModel):
                info = model.model_fields.get(str(part))
                if info is not None:
                    following += _models_in(info.annotation)
            else:
                following.append(model)
        if following:
            models = following
    return [name for m in models if isinstance(m, type) and issubclass(m, BaseModel) for name in m.model_fields]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[Any] = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found


def _instant(text: str, zone: ZoneInfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _check(loaded: LoadedScenario) -> None:
    """What needs more than one key, or the world's time zones."""
    scenario = loaded.scenario
    if scenario.timezone not in available_timezones():
        known = nearest(scenario.timezone, available_timezones())
        raise loaded.error(f'timezone: there is no time zone "{scenario.timezone}"{known}', "timezone")
    if len(scenario.logs_tables) > 1:
        second = list(scenario.logs_tables)[1]
        raise _not_yet(loaded, f'logs_tables: a second table ("{second}")', "logs_tables", second)
    loaded.window()


def _not_yet(loaded: LoadedScenario, what: str, *path: str | int, instead: str = "") -> NotSupportedYetError:
    message = f"{what} is not supported yet{instead}"
    return NotSupportedYetError(message, file=loaded.file, line=loaded.line_of(*path))


def refuse_unsupported(loaded: LoadedScenario) -> None:
    """Keys whose behaviour comes with a later version are refused, never ignored. Raises NotSupportedYetError."""
    s = loaded.scenario
    checks: list[tuple[bool, str, Path_, str]] = [
        (s.budget is not None and s.budget.pacing == "even", "budget.pacing: even", ("budget", "pacing"), ""),
        (s.auction.internal, "auction.internal", ("auction", "internal"), ""),
        (s.outcomes == "predicted", "outcomes: predicted", ("outcomes",), ""),
        (s.maturity is not None, "maturity", ("maturity",), ""),
        (s.intervals is not None, "intervals", ("intervals",), ""),
        (s.engine == "spark", "engine: spark", ("engine",), ""),
    ]
    for name, table in s.logs_tables.items():
        path: Path_ = ("logs_tables", name, "format")
        checks.append((table.format in ("iceberg", "delta"), f"format: {table.format}", path, ""))
    for i, rule in enumerate(s.gate):
        for key in ("waive", "max_width", "suspicious"):
            checks.append((getattr(rule, key) is not None, f"gate: {key}", ("gate", i, key), ""))
        instead = "; write evidence: point, which judges the value alone"
        checks.append((rule.evidence == "interval", "gate: evidence: interval, the default,", ("gate", i), instead))
    for refused, what, where, instead in checks:
        if refused:
            raise _not_yet(loaded, what, *where, instead=instead)
