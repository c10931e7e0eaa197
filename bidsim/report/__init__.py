"""What a replay found, for people and for CI: an HTML report, a pull-request summary and JUnit XML.

Each is a pure function of a `Result`, so a saved result.json can be rendered again. The functions are loaded when they
are first asked for: importing this package costs neither Altair nor Jinja.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidsim.report.html import render_report
    from bidsim.report.junit import render_junit
    from bidsim.report.summary import render_summary

__all__ = ["render_junit", "render_report", "render_summary"]

_HOME = {"render_report": "html", "render_summary": "summary", "render_junit": "junit"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
