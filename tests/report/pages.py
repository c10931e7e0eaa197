"""Reading a page back: its tags, its texts, its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from bidsim.report import render_report
from bidsim.report.html import draw_pictures
from bidsim.report.renderer import Picture
from bidsim.result import Result

VOID = frozenset(["meta", "link", "br", "hr", "img", "input"])


@dataclass
class Page(HTMLParser):
    """Parses strictly: every tag must be closed by its own name, in order."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.errors.append(f"an attribute twice in <{tag}>")
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.errors.append(f"</{tag}> closes {self._open[-3:]} at {self.getpos()}")
        else:
            self._open.pop()
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self.texts.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def unclosed(self) -> list[str]:
        return self._open

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def row(self, heading: str) -> list[str]:
        """The first table row that begins with this heading."""
        return next(r for r in self.rows if r and r[0] == heading)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def undrawn(result: Result, tables: Any = None) -> str:
    """The page without the charts that a library draws, which take most of its time."""
    return render_report(result, pictures=draw_pictures(result, lambda *drawing: Picture(lambda: ""), tables))
