"""A result as a notebook shows it: verdict, findings, tables and charts of the report as one piece of HTML, no script.

It stands among other outputs, so its style sheet is the report's with every rule bound to its own element, and it is
always light: a notebook's theme is not what the browser prefers.
"""

from __future__ import annotations

import re
from functools import cache

from markupsafe import Markup

from bidsim.report.html import content, style_sheet, template
from bidsim.result import Result

SCOPE = "div.bidsim"
_MEDIA = re.compile(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


def render_notebook(result: Result) -> str:
    """The HTML of a result, to be shown in a notebook's output. The same result gives the same text."""
    page: str = template("notebook.html.j2").render(css=Markup(scoped_style()), **content(result))
    return page.strip() + "\n"


@cache
def scoped_style() -> str:
    """The report's style sheet, for what lies in our own element only."""
    rules = [f"{SCOPE}{{padding:2px 10px 10px}}"]
    for selectors, body in _RULE.findall(_MEDIA.sub("", style_sheet())):
        bound = [_bound(s.strip()) for s in selectors.split(",")]
        rules.append(f"{','.join(dict.fromkeys(bound))}{{{body.replace('light dark', 'light')}}}")
    return "\n".join(rules)


def _bound(selector: str) -> str:
    return SCOPE if selector in (":root", "html", "body") else f"{SCOPE} {selector}"
