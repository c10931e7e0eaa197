"""YAML text to plain data, and the line of every key.

YAML 1.2 by ruamel.yaml: duplicate keys are errors, `NO` is text. Anchors, aliases, merges, tags and directives are
refused: a scenario is data that reads as it stands. The events are checked before anything is built of them, so
depth and size are bounded too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bidsim.errors import ScenarioError

MOST_BYTES = 1_048_576
MOST_DEPTH = 20
MOST_SCALARS = 30_000  # keys and values; reading takes a tenth of a millisecond each
MOST_DIGITS = 300  # Python itself refuses to read whole numbers of over 4,300
DAY = re.compile(r"(\d{4})-(\d\d?)-(\d\d?)(?=$|(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d)", re.ASCII)
NUMBER_TOO_LONG = re.compile(rf"[-+0-9_.]{{{MOST_DIGITS},}}")

Place = tuple[str | int, ...]
Lines = dict[Place, int]


def read_yaml(
    text: str, file: str, *, list_as: str | None = None, most_scalars: int = MOST_SCALARS
) -> tuple[dict[str, Any], Lines]:
    """The one mapping that a text holds, as plain data, and the 1-based line of each key and list entry.

    list_as: a text that is a list is read as the mapping of this key to it. most_scalars: keys and values.
    Raises ScenarioError with file and line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if any((ord(c) < 32 and c not in "\t\r") or ord(c) == 127 for c in line):
            raise ScenarioError("has control characters; a scenario is a YAML text file", file=file, line=number)
    try:
        _check_events(text, file, most_scalars)
        yaml = YAML(typ="rt", pure=True)
        yaml.allow_duplicate_keys = False
        document = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not valid YAML").split("\n")[0]
        if type(error).__name__ == "DuplicateKeyError":
            key = problem.split('"')[1] if problem.count('"') > 1 else problem
            raise ScenarioError(
                f'the key "{key}" stands twice', file=file, line=mark.line + 1 if mark else None
            ) from None
        hint = "; indent with spaces, not tabs" if "'\\t'" in problem else ""
        place = {"line": mark.line + 1, "column": mark.column + 1} if mark else {}
        raise ScenarioError(f"not valid YAML: {problem}{hint}", file=file, **place) from None
    except (YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError, LookupError) as error:
        # ruamel meets odd scalars (a date such as 2017-99-99) with whatever Python raises.
        raise ScenarioError(f"not valid YAML: {str(error).split(chr(10))[0]}", file=file) from None
    if document is None:
        empty = "the scenario is empty; the least it needs is logs_tables"
        raise ScenarioError(f"the file is empty; it needs {list_as}" if list_as else empty, file=file)
    lines: Lines = {}
    if list_as is not None and isinstance(document, list):
        return {list_as: plain(document, file, lines, (list_as,))}, lines
    if not isinstance(document, Mapping):
        other = f"is neither a list nor a mapping with {list_as}"
        mapping = "a scenario is a mapping of keys, such as logs_tables: ..."
        raise ScenarioError(other if list_as else mapping, file=file, line=1)
    return plain(document, file, lines), lines


def _check_events(text: str, file: str, most_scalars: int) -> None:
    depth = documents = scalars = 0
    for event in YAML(typ="rt", pure=True).parse(text):
        kind = type(event).__name__
        line = event.start_mark.line + 1 if event.start_mark else None
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            raise ScenarioError("anchors and aliases (& and *) are not allowed in a scenario", file=file, line=line)
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) not in ("!", "None"):
            name = str(tag).replace("tag:yaml.org,2002:", "!!")
            raise ScenarioError(f"the tag {name} is not allowed in a scenario", file=file, line=line)
        if kind == "ScalarEvent" and event.style is None and event.value == "<<":
            raise ScenarioError("merging with << is not allowed in a scenario", file=file, line=line)
        if kind == "ScalarEvent" and event.style is None and NUMBER_TOO_LONG.fullmatch(event.value):
            raise ScenarioError(f"a number has at most {MOST_DIGITS} digits", file=file, line=line)
        if kind == "ScalarEvent" and event.style is None and (day := DAY.match(event.value)):
            try:
                date(*map(int, day.groups()))
            except ValueError as error:
                raise ScenarioError(f"{day.group()} is no day: {error}", file=file, line=line) from None
        if kind == "DocumentStartEvent":
            documents += 1
            if event.version or event.tags:
                raise ScenarioError("directives (% lines) are not allowed in a scenario", file=file, line=1)
            if documents > 1:
                raise ScenarioError("a second YAML document begins; a scenario is one", file=file, line=line)
        scalars += kind == "ScalarEvent"
        if scalars > most_scalars:
            raise ScenarioError(
                f"more than {most_scalars} keys and values; a scenario is smaller", file=file, line=line
            )
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > MOST_DEPTH + 2:
            raise ScenarioError(f"nested more than {MOST_DEPTH} deep", file=file, line=line)


def plain(value: Any, file: str, lines: Lines, path: Place = ()) -> Any:
    """Plain data (dict, list, str, int, float, bool, None) of what YAML or a caller gave; fills in `lines`.

    Times and dates become ISO text. Raises ScenarioError for keys that are not text and values that are not data.
    """
    if len(path) > MOST_DEPTH:
        raise ScenarioError(f"nested more than {MOST_DEPTH} deep", file=file, line=line_of(lines, path))
    places = getattr(getattr(value, "lc", None), "data", None) or {}
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, item in value.items():
            where = (*path, str(key))
            if key in places:
                lines[where] = places[key][0] + 1
            if not isinstance(key, str):
                raise ScenarioError(
                    f"the key {key!r} is not text; put it in quotes", file=file, line=line_of(lines, where)
                )
            out[_text(key, file, lines, where)] = plain(item, file, lines, where)
        return out
    if isinstance(value, list | tuple):
        items = []
        for i, item in enumerate(value):
            if i in places:
                lines[*path, i] = places[i][0] + 1
            items.append(plain(item, file, lines, (*path, i)))
        return items
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return _text(value, file, lines, path)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, datetime):
        # ruamel moves a time with an offset to UTC and keeps the offset aside; as text it is unambiguous again.
        stamp = getattr(value, "_yaml", None)
        return value.isoformat() + ("+00:00" if value.tzinfo is None and stamp and stamp.get("tz") else "")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ScenarioError(f"{type(value).__name__} is not a value of a scenario", file=file, line=line_of(lines, path))


def _text(value: str, file: str, lines: Lines, path: Place) -> str:
    """Text that UTF-8 can write: half of a surrogate pair (an escape such as "\\ud800") would break every output."""
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ScenarioError(
            "holds half of a surrogate pair; write the character itself", file=file, line=line_of(lines, path)
        )
    return str(value)


def line_of(lines: Mapping[Place, int], path: Place) -> int | None:
    """The line of a key, or of the nearest key above it that has one."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
