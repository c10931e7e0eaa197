"""The A/B ledger: what the online test of a run's candidate showed, written beside the run and never into it.

A ledger file is CSV with one row a metric:

- `metric`: a metric of the run (cpa, spend, conversions, ...); `head` where it has one;
- `policy`: the candidate, where the run has several;
- `change`: what changed online against the control, relative (`0.031` or `3.1%`), or instead `control` and
  `treatment`, the two values;
- `low`, `high`: the online test's interval of that change, optional;
- `budget_split`: `yes` where each arm spent a share of every budget of its own, `no` where both spent from the same:
  then the arm that bids more takes the other's money, and the test shows another change than the one forecast
  (Liu, Mao, Kang 2021, "Trustworthy and Powerful Online Marketplace Experimentation with Budget-split Design"); optional;
- `start`, `end`: its first and last day (ISO 8601), and `note`, all optional.

Each recording is one JSON file named by its content, so recording twice is once, and writers never meet.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.store.finite import is_finite
from bidsim.store.record import ForecastRecord, Record
from bidsim.versions import other_version, schema_of

SCHEMA: Literal["bidsim.outcome/1"] = "bidsim.outcome/1"
COLUMNS = (
    "metric",
    "head",
    "policy",
    "change",
    "control",
    "treatment",
    "low",
    "high",
    "budget_split",
    "start",
    "end",
    "note",
)
MOST_BYTES = 1_000_000
NAME = re.compile(r"^(?P<run>.+)\.outcome-[0-9a-f]{12}\.json$")
_ANSWERS = {"yes": True, "true": True, "no": False, "false": False}
_NUMBER = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)$")


class OnlineChange(BaseModel):
    """One metric's change in an online test, relative to the control; low and high: its interval."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    policy: str
    metric: str
    head: str | None
    change: float
    low: float | None = None
    high: float | None = None
    budget_split: bool | None = None
    start: str | None = None
    end: str | None = None
    note: str | None = None


class Outcome(BaseModel):
    """A recording: what one file said of one run."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    schema_: Literal["bidsim.outcome/1"] = Field(default=SCHEMA, alias="schema")
    run: str
    recorded: str = Field(description="ISO 8601; of two recordings of one metric the later counts")
    source_sha256: str
    changes: list[OnlineChange]


@dataclass(frozen=True)
class Line:
    """A row of a ledger file with its line number."""

    file: str
    number: int
    cells: dict[str, str]

    def error(self, message: str) -> BidsimError:
        return BidsimError(message, file=self.file, line=self.number)

    def text(self, column: str) -> str | None:
        return self.cells.get(column) or None

    def number_of(self, column: str, *, relative: bool) -> float | None:
        """A number, where `relative` also a percentage. Raises BidsimError."""
        text = self.text(column)
        if text is None:
            return None
        match = _NUMBER.match(text.replace("\u2212", "-"))  # the minus sign of bidsim's own reports
        if match is None or (match.group(2) and not relative) or not math.isfinite(float(match.group(1))):
            like = "a number such as 0.031 or 3.1%" if relative else "a number"
            raise self.error(f'{column}: "{text[:60]}" is not {like}')
        return float(match.group(1)) / (100 if match.group(2) else 1)

    def yes_or_no(self, column: str) -> bool | None:
        text = self.text(column)
        if text is None:
            return None
        if text.lower() not in _ANSWERS:
            raise self.error(f'{column}: "{text[:60]}" is neither yes nor no')
        return _ANSWERS[text.lower()]

    def day(self, column: str) -> str | None:
        text = self.text(column)
        try:
            return date.fromisoformat(text).isoformat() if text else None
        except ValueError:
            raise self.error(f'{column}: "{str(text)[:60]}" is not a day; write it like 2026-12-31') from None


def record_outcome(directory: Path, record: Record, file: Path, recorded: str) -> tuple[Path, Outcome]:
    """Write what a ledger file says of a run beside the run's folder; returns the file and what it holds.

    Raises BidsimError naming file and line for whatever can't be used, with nothing written.
    """
    raw = _read(file)
    changes = list(_changes(_lines(raw, str(file)), record))
    if not changes:
        raise BidsimError("has no row below its header", file=str(file))
    directory = directory.resolve()
    # The same file recorded twice in a row is one recording: its name tells.
    digest = hashlib.sha256(b"\n".join([directory.name.encode(), record.comparison.encode(), raw])).hexdigest()
    target = directory.parent / f"{directory.name}.outcome-{digest[:12]}.json"
    source = hashlib.sha256(raw).hexdigest()
    before = read_outcomes(directory)
    if before and before[-1].source_sha256 == source and target.exists():
        return target, before[-1]
    if before:
        recorded = _after(before[-1].recorded, recorded)
    outcome = Outcome(run=directory.name, recorded=recorded, source_sha256=source, changes=changes)
    write_file(target, outcome.model_dump_json(by_alias=True, indent=1) + "\n")
    return target, outcome


def _after(last: str, now: str) -> str:
    """A time of recording that comes after the last one, also within a second and where the clock was set back."""
    try:
        if now > last:
            return now
        return (datetime.fromisoformat(last) + timedelta(microseconds=1)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):  # no time of ours
        return now


def read_outcomes(directory: Path, others: list[str] | None = None) -> list[Outcome]:
    """All recordings beside a run's folder, oldest first; what can't be read is passed over.

    others: is told why those of another version of bidsim can't be read.
    """
    directory = directory.resolve()
    found = []
    for path in directory.parent.glob(f"{glob_escaped(directory.name)}.outcome-*.json"):
        match = NAME.match(path.name)
        try:
            if not match or match["run"] != directory.name or path.stat().st_size > 8 * MOST_BYTES:
                continue
            content = path.read_bytes()
        except OSError:
            continue
        try:
            outcome = Outcome.model_validate_json(content)
            found += [outcome] if is_finite(content) else []
        except ValidationError:
            other = other_version(schema_of(content), SCHEMA, "record it again")
            if other and others is not None:
                others.append(other)
    return sorted(found, key=lambda o: (o.recorded, o.source_sha256))


def latest(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str | None], OnlineChange]:
    """By policy, metric and head what was recorded last."""
    return {(c.policy, c.metric, c.head): c for o in outcomes for c in o.changes}


def glob_escaped(name: str) -> str:
    """A path as a pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _read(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise BidsimError("is a folder; give the CSV file of the A/B test", file=str(file))
        raw = file.read_bytes()
    except FileNotFoundError:
        raise BidsimError("no such file; check --file", file=str(file)) from None
    except OSError as error:
        raise BidsimError(f"can't be read: {error.strerror}", file=str(file)) from None
    if len(raw) > MOST_BYTES:
        raise BidsimError(f"has {len(raw)} bytes; an A/B ledger has one row a metric", file=str(file))
    return raw


def _lines(raw: bytes, file: str) -> Iterator[Line]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BidsimError("not UTF-8 text; save it as CSV in UTF-8", file=file) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [c.strip().lower() for c in next(reader, [])]
        _check_header(header, file)
        for cells in reader:
            if not any(c.strip() for c in cells):
                continue
            if len(cells) != len(header):
                message = f"has {len(cells)} cells where the header has {len(header)}"
                raise BidsimError(message, file=file, line=reader.line_num)
            yield Line(file, reader.line_num, {h: c.strip() for h, c in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise BidsimError(f"not valid CSV: {error}", file=file, line=reader.line_num) from None


def _check_header(header: Sequence[str], file: str) -> None:
    from bidsim.scenario.explaining import nearest

    for name in header:
        if name not in COLUMNS:
            known = nearest(name, COLUMNS) or f"; known are {', '.join(COLUMNS)}"
            raise BidsimError(f'unknown column "{name[:60]}"{known}', file=file, line=1)
    if len(set(header)) != len(header):
        raise BidsimError("a column stands twice", file=file, line=1)
    if "metric" not in header or not ("change" in header or {"control", "treatment"} <= set(header)):
        needed = "an A/B ledger needs the columns metric and change, or metric, control and treatment"
        raise BidsimError(needed, file=file, line=1)


def _changes(lines: Iterable[Line], record: Record) -> Iterator[OnlineChange]:
    seen: dict[tuple[str, str, str | None], int] = {}
    for line in lines:
        found = _change(line, record)
        key = (found.policy, found.metric, found.head)
        if key in seen:
            raise line.error(f"{found.metric} of {found.policy} stands in line {seen[key]} already")
        seen[key] = line.number
        yield found


def _change(line: Line, record: Record) -> OnlineChange:
    forecast = _forecast(line, record)
    change = line.number_of("change", relative=True)
    control, treatment = (line.number_of(c, relative=False) for c in ("control", "treatment"))
    if change is None:
        if control is None or treatment is None:
            raise line.error("give change, or both control and treatment")
        if control == 0:
            raise line.error("control is 0, so there is no relative change")
        change = (treatment - control) / abs(control)
        if not math.isfinite(change):
            raise line.error("control and treatment are too far apart for a relative change")
    elif control is not None or treatment is not None:
        raise line.error("give either change, or control and treatment")
    low, high = (line.number_of(c, relative=True) for c in ("low", "high"))
    if (low is None) != (high is None):
        raise line.error("give both low and high, or neither")
    if low is not None and high is not None and not low <= change <= high:
        raise line.error(f"the change {change:g} is outside its interval [{low:g}, {high:g}]")
    for column in ("change", "low", "high"):
        given = line.number_of(column, relative=True)
        if given is not None and abs(given) > 1 and "%" not in str(line.text(column)):
            raise line.error(f"{column}: {given:g} would be {given:+.0%}; write {given:g}% or {given:.0%}")
    start, end = line.day("start"), line.day("end")
    if start and end and start > end:
        raise line.error(f"it starts on {start}, after its end on {end}")
    return OnlineChange(
        policy=forecast.policy,
        metric=forecast.metric,
        head=forecast.head,
        change=change,
        low=low,
        high=high,
        budget_split=line.yes_or_no("budget_split"),
        start=start,
        end=end,
        note=line.text("note"),
    )


def _forecast(line: Line, record: Record) -> ForecastRecord:
    """The run's number that a row is about."""
    from bidsim.scenario.explaining import nearest

    names = [c.name for c in record.candidates]
    policy = line.text("policy")
    if policy is None:
        if len(names) != 1:
            raise line.error(f"the run has several candidates; name one in policy ({', '.join(names)[:200]})")
        policy = names[0]
    if policy not in names:
        raise line.error(f'policy: the run has no candidate "{policy[:80]}"; it has {", ".join(names)[:200]}')
    metric, head = line.text("metric") or "", line.text("head")
    mine = [f for f in record.forecasts if f.policy == policy]
    named = [f for f in mine if f.metric == metric]
    if not named:
        raise line.error(f'metric: the run has no "{metric[:80]}"{nearest(metric, [f.metric for f in mine])}')
    fitting = [f for f in named if f.head == head]
    if not fitting:
        heads = ", ".join(str(f.head) for f in named if f.head)
        raise line.error(
            f"head: {metric} is given for {heads}" if heads else f"head: {metric} has none; leave it empty"
        )
    return fitting[0]
