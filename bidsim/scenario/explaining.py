"""What pydantic found wrong in a scenario, as a person would say it: key path, what is needed, what was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bidsim.scenario.reading import Place

WRONG_TYPE = {
    "string_type": "text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
}
MOST_SHOWN = 10


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the known word most like this one, or ''."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f' (did you mean "{by_lower[close[0]]}"?)' if close else ""


def explain(error: ValidationError, document: Mapping[str, Any], model: type[BaseModel]) -> list[tuple[Place, str]]:
    """(key path, message) of each thing wrong, unknown keys first: a misspelt key is often a missing one too."""
    unknown: list[tuple[Place, str]] = []
    wrong_type: dict[Place, list[str]] = {}
    given: dict[Place, Any] = {}
    others: list[tuple[Place, str]] = []
    for problem in error.errors(include_url=False):
        kind, value = problem["type"], problem.get("input")
        path = _path(problem["loc"], document, kind)
        if kind == "extra_forbidden":
            unknown.append((path, _unknown_key(path, model)))
        elif kind == "missing":
            others.append((path, f"{_dotted(path)} is missing"))
        elif kind in WRONG_TYPE:
            wrong_type.setdefault(path, []).append(WRONG_TYPE[kind])
            given[path] = value
        elif kind == "literal_error" and isinstance(value, dict | list):
            wrong_type.setdefault(path, []).append(str(problem["ctx"]["expected"]))
            given[path] = value
        else:
            others.append((path, _sentence(path, kind, problem)))
    # A value that may be of several types fails once for each: the types matter only where nothing better was said.
    said = [path for path, _ in [*unknown, *others]]
    said += list(wrong_type)
    for path, types in wrong_type.items():
        deeper = any(len(p) > len(path) and p[: len(path)] == path for p in said)
        if not deeper and path not in [p for p, _ in others]:
            needed = " or ".join(dict.fromkeys(types))
            others.append((path, _prefixed(path, f"must be {needed}, {_got(given[path])}")))
    return list(dict.fromkeys([*unknown, *others]))[:MOST_SHOWN]


def _path(loc: tuple[int | str, ...], document: Any, kind: str) -> Place:
    """pydantic's location without the members of unions that it puts between ('float', 'list[...]')."""
    path: list[str | int] = []
    node: Any = document
    for i, part in enumerate(loc):
        inside = isinstance(node, Mapping) and part in node
        inside = inside or (isinstance(node, list) and isinstance(part, int) and part < len(node))
        if inside:
            node = node[part]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _unknown_key(path: Place, model: type[BaseModel]) -> str:
    known = _known_keys(path[:-1], model)
    hint = nearest(str(path[-1]), known) or (f"; known here are {', '.join(known)}" if known else "")
    return f'unknown key "{path[-1]}"{hint}'


def _sentence(path: Place, kind: str, problem: Any) -> str:
    value, limits = problem.get("input"), problem.get("ctx", {})
    if kind == "value_error":
        return _prefixed(path, problem["msg"].removeprefix("Value error, "))
    if kind in ("too_short", "too_long"):
        least = kind == "too_short"
        count = limits["min_length" if least else "max_length"]
        entries = "entry" if count == 1 else "entries"
        return _prefixed(path, f"must have at {'least' if least else 'most'} {count} {entries}")
    if kind == "string_too_short":
        return _prefixed(path, "must not be empty")
    if kind == "string_too_long":
        return _prefixed(path, f"must have at most {limits['max_length']} characters")
    if kind == "string_pattern_mismatch" and path[-1:] == ("currency",):
        return _prefixed(path, f"must be three capital letters such as JPY, {_got(value)}")
    words = {
        "greater_than": "greater than {gt}",
        "greater_than_equal": "at least {ge}",
        "less_than": "less than {lt}",
        "less_than_equal": "at most {le}",
        "finite_number": "a finite number",
        "literal_error": "{expected}",
    }
    if kind in words:
        shown = {k: f"{v:g}" if isinstance(v, float) else v for k, v in limits.items()}
        return _prefixed(path, f"must be {words[kind].format(**shown)}, {_got(value)}")
    message = problem["msg"]
    return _prefixed(path, f"{message[:1].lower()}{message[1:]}, {_got(value)}")


def _got(value: Any) -> str:
    if value is None:
        return "but it is empty"
    if isinstance(value, dict):
        return "got a block of keys"
    if isinstance(value, list):
        return "got a list"
    if isinstance(value, bool):
        return f"got {str(value).lower()}"
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _prefixed(path: Place, message: str) -> str:
    return f"{_dotted(path)}: {message}" if path else message


def _dotted(path: Place) -> str:
    return ".".join(str(part) for part in path)


def _known_keys(path: Place, model: type[BaseModel]) -> list[str]:
    """The keys that the block at a path may have, by walking the schema along it."""
    blocks = [model]
    for part in path:
        found = [
            b for block in blocks if part in block.model_fields for b in _blocks(block.model_fields[part].annotation)
        ]
        blocks = found or blocks  # a free name (a candidate's) or a list's number leads to what its block holds
    return list(dict.fromkeys(name for block in blocks for name in block.model_fields))


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for argument in getattr(annotation, "__args__", ()) for block in _blocks(argument)]
