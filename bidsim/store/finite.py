"""Whether a JSON text holds finite numbers only, as every file of ours does.

Readers of JSON differ on the others: pydantic takes NaN and Infinity, and 1e999 for infinity; what is computed or
written from such a number fails far from the file that has it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE = (b"0e000", b"0e+000", b"0" * 300)
_NUMBER = re.compile(rb"[:\[,\s]-?[\d.]+$")
_LONGEST = 700  # characters of a number before its exponent that are looked at


def is_finite(text: bytes) -> bool:
    """Whether no number in a JSON text is infinite or NaN. Texts that are no JSON are not judged here."""
    # Nearly no text has what may be such a number, so nearly none is parsed for it.
    if b"NaN" not in text and b"Infinity" not in text and not _may_be_large(text):
        return True
    found: list[str] = []

    def number(written: str) -> Any:
        if not math.isfinite(float(written)):
            found.append(written)
        return 0

    try:
        json.loads(text, parse_constant=found.append, parse_float=number, parse_int=number)
    except (ValueError, RecursionError):
        return True
    return not found


def _may_be_large(text: bytes) -> bool:
    digits = text.translate(_DIGITS)
    for sign in _LARGE:
        at = digits.find(sign)
        while at >= 0:
            # Hashes look like this too, and stand in quotes.
            if _NUMBER.search(text[max(0, at - _LONGEST) : at + 1]):
                return True
            at = digits.find(sign, at + len(sign) - 3)
    return False
