"""Files of another version of bidsim: each names its schema and number, and what to do follows from the number."""

from __future__ import annotations

import json
import re

UPGRADE = "made by a newer bidsim: upgrade bidsim to read it"


def other_version(found: object, ours: str, old: str) -> str | None:
    """What to say of a file whose schema is `found`, where bidsim reads `ours`; None where it is no schema of that kind.

    old: what to do with a file that is too old, such as "replay again".
    """
    kind, _, number = ours.rpartition("/")
    if not isinstance(found, str) or not re.fullmatch(rf"{re.escape(kind)}/[1-9][0-9]{{0,8}}", found) or found == ours:
        return None
    if int(found.rpartition("/")[2]) > int(number):
        return f'was {UPGRADE} (its schema is "{found}", this version knows {ours})'
    return f'was made by an older bidsim, whose schema "{found}" this version no longer reads; {old}'


def schema_of(content: bytes) -> object:
    """The schema that a JSON file names; None for anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document.get("schema") if isinstance(document, dict) else None
