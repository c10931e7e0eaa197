"""Text fit for a terminal or a CI log, whatever names stand in it: they come from files that others wrote."""

from __future__ import annotations

import json
import re
import unicodedata

JOINERS = "\u200c\u200d"  # format characters that scripts need and that draw nothing by themselves


def visible(text: str) -> str:
    """A text of one or more lines, with characters that act shown as their code points.

    They move the cursor, set a title or turn text around. No line can be taken for a command of the CI either (GitHub's
    `::add-mask::x` and `##[add-mask]x`).
    """
    shown = "".join(f"\\u{ord(c):04x}" if _acts(c) else c for c in text)
    return re.sub(r"^(\s*)::", r"\1: :", shown, flags=re.MULTILINE).replace("##[", "# #[")


def visible_json(text: str) -> str:
    """The same JSON, in which characters that act are escaped."""
    return "".join(json.dumps(c)[1:-1] if _acts(c) else c for c in text)


def _acts(character: str) -> bool:
    if character.isascii():
        return not character.isprintable() and character not in "\n\t"
    category = unicodedata.category(character)
    return category in ("Zl", "Zp") or (category[0] == "C" and character not in JOINERS)
