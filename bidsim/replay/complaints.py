"""The engine's words about a log that it can't read, as ours: which file, which line, what to do.

DuckDB's advice (union_by_name, strict_mode) is for people who write its SQL; bidsim's users can mend the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bidsim.errors import ExpressionError, LogError
from bidsim.logs.columns import broken_json_line

COPY = "copy or write the file again"


def complaint(text: str, files: Sequence[str], readable: Callable[[str], bool]) -> LogError:
    """One error for what the engine said. files: those that it was reading; readable: whether it can read one whole."""
    flat = re.sub(r"\s+", " ", text.split("\nLINE ")[0]).strip()
    flat = re.sub(r"^(\w+ )+Error: ", "", flat)
    return (
        _csv(flat, files)
        or _json(flat)
        or _expression(flat)
        or _gzip(flat)
        or _parquet(flat, files, readable)
        or _value(text.strip(), flat)
        or LogError(f"the log can't be read: {flat[:300]}")
    )


def _csv(text: str, files: Sequence[str]) -> LogError | None:
    place = re.search(r"CSV Error on Line: (\d+)", text)
    named = re.search(r"(?: file = |sniffing file \")(.+?)(?:\"| delimiter = )", text)
    file = named.group(1) if named else files[0] if len(files) == 1 else None
    if place is None and "CSV Parser state machine" in text:
        return LogError(
            f"not a CSV file that can be read: a quote is lost, or its lines end in several ways; {COPY}", file=file
        )
    if place is None:
        if "sniffing file" not in text:
            return None
        return LogError(f"not a CSV file that can be read; {COPY}", file=file)
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    value = re.search(r'Error when converting column "(.+?)"\. Could not convert string "(.*?)" to \'(.+?)\'', text)
    if fields:
        what = f"{fields.group(2)} fields, the header has {fields.group(1)}; mend the row"
    elif "unterminated quote" in text:
        what = "a quote is opened and not closed; mend the row"
    elif "unicode" in text.lower():
        what = f"not UTF-8 text; {COPY} in UTF-8"
    elif value:
        what = f'column "{value.group(1)}" holds "{value.group(2)[:80]}", which is no {value.group(3)}; mend the row'
    else:
        what = "the row can't be read; mend it"
    return LogError(what, file=file, line=int(place.group(1)))


def _json(text: str) -> LogError | None:
    place = re.search(
        r'Malformed JSON in file "(.+?)", at byte (\d+) in line (\d+): (.+?)\.?(?: Try | Consider |$)', text
    )
    if place is None:
        return None
    file, _, line, what = place.groups()
    # The engine counts from wherever its buffer began; the line itself is looked for around there.
    found = broken_json_line(file, int(line) - 2, int(line) + 2) or broken_json_line(file, 1, 10_000_000)
    return LogError(f"not valid JSON: {what}; mend the line", file=file, line=found or int(line))


def _expression(text: str) -> LogError | None:
    """Values that an expression of the scenario can't take: the file is whole."""
    cast = re.search(r"Could not convert string '(.*?)' to (\w+)(?: when casting from source column (.+))?", text)
    if cast and "Error while reading file" not in text:
        column = cast.group(3)
        of = f' of column "{column}"' if column and not column.startswith("carried ") else ""
        return ExpressionError(
            f"needs a number or time where the log holds the text '{cast.group(1)[:80]}'{of} "
            f"(wanted {cast.group(2)}); write try_cast(... as double) to take such values as missing"
        )
    if re.match(r"Overflow in ", text):
        return ExpressionError(f"leaves the range of whole numbers ({text[:120]}); cast to double")
    return None


def _value(text: str, flat: str) -> LogError | None:
    """What else an expression can't do with a row, where every file can be read."""
    if "reading file" in flat or not re.match(r"(Conversion|Out of Range|Invalid Input|Not implemented) Error", text):
        return None
    why = re.split(r" when casting from source column |! Candidate|, expected format| \^ Error:", flat)[0]
    why = why if len(why) <= 160 else f"{why[:157]}..."
    return ExpressionError(
        f"can't be computed for a row of the log: {why}; mend it, or leave such rows out by case when"
    )


def _gzip(text: str) -> LogError | None:
    place = re.search(r"(Unexpected end of GZIP stream|Input is not a GZIP stream): (.+)$", text)
    if place is None:
        return None
    what = "is cut off" if "end" in place.group(1) else "is not compressed with gzip, though its name says so"
    return LogError(f"the file {what}; {COPY}", file=place.group(2))


def _parquet(text: str, files: Sequence[str], readable: Callable[[str], bool]) -> LogError | None:
    """A damaged file often goes unnamed: the one that can't be read alone is it."""
    parquets = [f for f in files if f.lower().endswith((".parquet", ".pq"))]
    named = [f for f in parquets if f in text]
    broken = named[:1] or [f for f in parquets if not readable(f)][:1]
    if not broken:
        return None
    return LogError(f"the Parquet file is damaged ({text[:200]}); {COPY}", file=broken[0])
