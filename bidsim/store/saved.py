"""A saved run, read again: result.json and the tables beside it. Files may come from anyone and are read as data."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bidsim.errors import BidsimError
from bidsim.result import SCHEMA, Result
from bidsim.statistics.tables import Tables
from bidsim.store.statistics import read_tables

MOST_BYTES = 2**31


def read_result(run: Path) -> Result:
    """The result of a run. run: its folder, or its result.json. Raises BidsimError where it can't be read."""
    file = run / "result.json" if run.is_dir() else run
    name = str(file)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BidsimError("the result is larger than 2 GB; this is not a file that bidsim wrote", file=name)
        content = file.read_bytes()
    except OSError as error:
        raise BidsimError(
            f"no result can be read here ({error.strerror}); give a run's folder or its result.json", file=name
        ) from error
    try:
        return Result.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise BidsimError(
            f"not a result of this bidsim ({SCHEMA}): {place}: {first['msg']}; replay the log again", file=name
        ) from error


def read_run_tables(run: Path) -> Tables:
    """The tables beside a run's result. Raises BidsimError where they are missing or damaged."""
    return read_tables((run if run.is_dir() else run.parent) / "statistics.parquet")
