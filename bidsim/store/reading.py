"""A saved run read back: its result.json, checked against the schema, and what run.json tells of the run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bidsim.errors import BidsimError
from bidsim.result import SCHEMA, Result
from bidsim.statistics.numbers import with_confidence as requantified
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import OVERALL
from bidsim.store.finite import is_finite
from bidsim.store.sound import fault_of
from bidsim.store.statistics_reading import read_tables
from bidsim.versions import other_version

MOST_BYTES = 2**31
LEAST_CONFIDENCE = 0.5
WHAT = "give a run's folder or its result.json"


@dataclass(frozen=True)
class SavedRun:
    """file: of the result; directory: the run's folder, None for a result.json elsewhere; facts: run.json, if any."""

    result: Result
    file: Path
    directory: Path | None
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """What to call the run: its folder's name, or the file's."""
        return self.directory.resolve().name if self.directory else self.file.stem


def load_run(path: Path) -> SavedRun:
    """Read a run's folder or a result.json. Raises BidsimError with the file."""
    file = path / "result.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise BidsimError(f"this folder has no result.json; {WHAT}", file=str(path))
    result = _result(file)
    beside = file.parent / "run.json"
    is_run = file.name == "result.json" and beside.is_file()
    return SavedRun(result, file, file.parent if is_run else None, _facts(beside) if is_run else {})


def load_tables(saved: SavedRun) -> Tables:
    """The tables that the run's numbers came from. Raises BidsimError where they are missing, damaged or another run's."""
    folder = saved.directory or saved.file.parent
    tables = read_tables(folder / "statistics.parquet")
    policies = tuple(p.name for p in saved.result.policies)
    rows = tables.families[OVERALL].exact("rows")[0]
    if tables.outline.policies != policies or rows > saved.result.data.rows:
        raise BidsimError("the statistics are of another run than the result beside them", file=str(folder))
    return tables


def with_confidence(saved: SavedRun, confidence: float) -> SavedRun:
    """The run with the intervals of another confidence, such as 0.9; judge its gate again. Raises BidsimError."""
    if not LEAST_CONFIDENCE <= confidence < 1:
        raise BidsimError(f"--confidence {confidence:g}: write a number from {LEAST_CONFIDENCE:g} up to below 1")
    return replace(saved, result=requantified(saved.result, load_tables(saved), confidence))


def _result(file: Path) -> Result:
    try:
        if os.path.getsize(file) > MOST_BYTES:
            raise BidsimError("is larger than any result; " + WHAT, file=str(file))
        text = file.read_bytes()
    except FileNotFoundError:
        raise BidsimError(f"no such file or folder; {WHAT}", file=str(file)) from None
    except OSError as error:
        raise BidsimError(f"can't be read: {error.strerror}", file=str(file)) from None
    try:
        found = Result.model_validate_json(text)
    except ValidationError as error:
        raise BidsimError(_problem(text, error), file=str(file)) from None
    if not is_finite(text):
        raise BidsimError(f"has a number that is infinite or NaN, so it is damaged; {WHAT}", file=str(file))
    fault = fault_of(found)
    if fault:
        raise BidsimError(f"is not a valid result: {fault}; {WHAT}", file=str(file))
    return found


def _problem(text: bytes, error: ValidationError) -> str:
    """Why a text is no result, in the words of who gave it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as broken:
        return f"is not valid JSON ({str(broken)[:120]}), so it is damaged or no result; {WHAT}"
    if not isinstance(document, dict) or "schema" not in document:
        return f"is JSON, but no result of a replay; {WHAT}"
    if document["schema"] != SCHEMA:
        other = other_version(document["schema"], SCHEMA, "replay the log again")
        return other or f'has the schema "{str(document["schema"])[:60]}"; this version of bidsim reads {SCHEMA}'
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"is not a valid result: {where}: {first['msg']}"


def _facts(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
