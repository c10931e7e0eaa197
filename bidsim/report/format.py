"""Numbers, money and names as a reader sees them.

Undefined is an en dash, minus is a minus sign, thousands have separators. Names come from files that others wrote:
`clean_name` is the one way by which they reach a report, and escaping them is still the renderer's duty.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from datetime import datetime

from bidsim.visible import JOINERS

DASH = "–"
MINUS = "−"
NAME_LENGTH = 80
TEXT_LENGTH = 600

SYMBOLS = {"JPY": "¥", "USD": "$", "EUR": "€", "GBP": "£", "KRW": "₩", "INR": "₹"}
# ISO 4217: currencies without a minor unit.
WHOLE = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF"}
    | {"XOF", "XPF"}
)

_MARKS_IN_A_ROW = 4


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


def clean_name(text: object, length: int = NAME_LENGTH) -> str:
    """A name fit to be shown on one line: no control, bidirectional or unassigned characters, at most `length`.

    Piled-up combining marks are cut, white space becomes single spaces; a name of which nothing is left is "(empty)".
    """
    kept: list[str] = []
    marks = 0
    # Four characters read for each shown are enough: nobody can make this slow with a name of megabytes.
    for c in str(text)[: 4 * length + 64]:
        category = unicodedata.category(c)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if c.isspace():
            kept.append(" ")
        elif (category[0] != "C" or c in JOINERS) and marks <= _MARKS_IN_A_ROW:
            kept.append(c)
    name = " ".join("".join(kept).split()).strip(JOINERS)
    if not name:
        return "(empty)"
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def clean_text(text: object) -> str:
    """A sentence, which may hold names: cleaned as they are, with room for more."""
    return clean_name(text, TEXT_LENGTH)


def clean_lines(text: str) -> str:
    """A document of several lines: whatever `clean_name` would drop is shown as its code point instead."""
    return "".join(
        c if c in "\n" or unicodedata.category(c)[0] != "C" or c in JOINERS else f"\\u{ord(c):04x}" for c in text
    )


def columns(text: str) -> int:
    """Width in columns of a fixed pitch: wide East Asian characters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def shorten(text: str, width: int) -> str:
    """The text, cut with an ellipsis so that it takes at most `width` columns."""
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for c in text:
        used += columns(c)
        if used > width - 1:
            break
        kept.append(c)
    return "".join(kept).rstrip() + "…"


def count(value: float | None) -> str:
    """A weighted count; a fraction is shown only while it could matter, and what is not nothing never as 0."""
    if value is None or not math.isfinite(value):
        return DASH
    if 0 < abs(value) < 0.05:
        return significant(value, 1)
    whole = abs(value) >= 1000 or float(value).is_integer()
    return _minus(f"{value:,.0f}" if whole else f"{value:,.1f}")


def significant(value: float | None, digits: int = 4) -> str:
    """That many significant digits with thousands separators, never in scientific notation above 1e-6."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -6:
        return _minus(f"{value:.{digits - 1}e}")
    return _minus(f"{value:,.{max(0, digits - 1 - exponent)}f}")


def fixed(value: float | None, decimals: int) -> str:
    """A fixed number of decimals."""
    if value is None or not math.isfinite(value):
        return DASH
    return _minus(f"{value + 0.0:,.{decimals}f}")


def share(value: float | None) -> str:
    """A share in percent; what is not all is never rounded to 100%, nor to 0% what is not nothing."""
    if value is None or not math.isfinite(value):
        return DASH
    percent = 100 * value
    if value < 1 and percent > 99.95:
        return f"{math.floor(percent * 1000) / 1000:.3f}%"
    if 0 < abs(percent) < 0.00005:
        return "under 0.0001%"
    decimals = 1 if abs(percent) >= 1 or percent == 0 else 2 if abs(percent) >= 0.1 else 4
    return _minus(f"{percent:,.{decimals}f}%")


def rate(value: float | None) -> str:
    """A probability in percent, to four significant digits however small."""
    return DASH if value is None or not math.isfinite(value) else f"{significant(100 * value)}%"


def change(value: float | None) -> str:
    """A relative change in percent with its sign."""
    if value is None or not math.isfinite(value):
        return DASH
    percent = 100 * value
    size = abs(percent)
    if size < 5e-7:  # what rounding leaves of no change
        return "0.0%"
    decimals = 0 if size >= 1000 else 1 if size >= 1 else 2 if size >= 0.1 else 3
    if size < 0.0005:  # never "+0.000%"
        decimals = math.ceil(-math.log10(size))
    return _minus(f"{percent:+,.{decimals}f}%")


def delta(value: float | None, decimals: int = 4) -> str:
    """An absolute change with its sign."""
    if value is None or not math.isfinite(value):
        return DASH
    return _minus(f"{value:+,.{decimals}f}") if value else "0"


def signed(value: float | None, digits: int = 2) -> str:
    """An absolute change with its sign, to that many significant digits."""
    if value is None or not math.isfinite(value):
        return DASH
    return ("+" if value > 0 else "") + significant(value, digits)


def interval(low: float | None, high: float | None, write: object) -> str:
    """[low, high] written by one of the functions above, empty where there is none."""
    if low is None or high is None or not callable(write):
        return ""
    ends = write(low), write(high)
    return f"[{ends[0]}, {ends[1]}]" if all(ends) else ""


class Money:
    """Amounts in the scenario's currency; without one they are plain numbers with two decimals."""

    def __init__(self, currency: object) -> None:
        self.code = currency if isinstance(currency, str) and currency.isalpha() and len(currency) == 3 else None
        self.decimals = 0 if self.code in WHOLE else 2
        self._prefix = SYMBOLS.get(self.code, f"{self.code} ") if self.code else ""

    def amount(self, value: float | None) -> str:
        """A sum of money: spend, surplus, a budget."""
        if value is None or not math.isfinite(value):
            return DASH
        return self._signed(value, f"{abs(value):,.{self.decimals}f}")

    def price(self, value: float | None) -> str:
        """Money for one thing (CPM, CPC, CPA): four significant digits, and never fewer decimals than the currency.

        Currencies without a minor unit get decimals only below 100, where whole units would hide a change of a percent.
        """
        if value is None or not math.isfinite(value):
            return DASH
        size = abs(value)
        exponent = math.floor(math.log10(size)) if size > 0 else 3
        whole = self.decimals == 0 and size >= 100
        decimals = 0 if whole else min(8, max(self.decimals, 3 - exponent))
        return self._signed(value, f"{size:,.{decimals}f}")

    def _signed(self, value: float, text: str) -> str:
        negative = value < 0 and any(c in "123456789" for c in text)
        return f"{MINUS if negative else ''}{self._prefix}{text}"


def moment(text: str) -> str:
    """An ISO 8601 time to the minute, the zone left out; what is no time is shown cleaned."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return clean_name(text, 40)


def short_hash(text: str | None) -> str:
    """The first twelve digits of a sha256."""
    return clean_name(text, 65)[:12] if text else DASH


def place(segment: dict[str, str]) -> str:
    """A segment in words, "all" where it is the whole log."""
    return ", ".join(f"{clean_name(name, 40)}: {clean_name(value)}" for name, value in segment.items()) or "all"


def plural(number: int, one: str, many: str | None = None) -> str:
    """ "1 rule", "2 rules"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: Iterable[str]) -> str:
    """ "a, b and c"."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
