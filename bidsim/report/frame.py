"""Charts written by hand as inline SVG: axes, grid, lines, and marks with intervals, in the look of all others.

For charts that are simple enough not to need a library, which costs more than they do. Nothing of the data is written but
numbers; labels are the caller's, and escaped here. Series differ by colour, dash and shape alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

COLOURS = tuple(f"var(--p{n})" for n in range(5))
DASHES = ("5 3", "", "2 2", "8 2", "6 2 1 2")
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 42
TICK = 'font-size="11" fill="var(--ink-2)"'


@dataclass(frozen=True)
class Axis:
    """low, high: the values at its ends; ticks: where, and what is written there."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str


@dataclass
class Frame:
    """width, height: of the whole picture, in pixels."""

    x: Axis
    y: Axis
    width: int = 474
    height: int = 300
    parts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for at, text in self.x.ticks:
            x = self.across(at)
            self.rule(x, x, TOP, bottom, "var(--line)")
            self._text(x, bottom + 16, text, "middle")
        for at, text in self.y.ticks:
            y = self.up(at)
            self.rule(LEFT, right, y, y, "var(--line)")
            self._text(LEFT - 7, y + 4, text, "end")
        self.rule(LEFT, right, bottom, bottom, "var(--ink-3)")
        self.rule(LEFT, LEFT, TOP, bottom, "var(--ink-3)")
        self._text((LEFT + right) / 2, self.height - 6, self.x.title, "middle")
        turned = f' transform="translate(13,{(TOP + bottom) / 2:g}) rotate(-90)"'
        self.parts.append(f'<text{turned} text-anchor="middle" {TICK}>{escape(self.y.title)}</text>')

    def across(self, value: float) -> float:
        """Where a value lies from left to right."""
        return self._place(value, self.x, LEFT, self.width - RIGHT)

    def up(self, value: float) -> float:
        """Where a value lies from bottom to top."""
        return self._place(value, self.y, self.height - BOTTOM, TOP)

    @staticmethod
    def _place(value: float, axis: Axis, start: float, end: float) -> float:
        share = (value - axis.low) / (axis.high - axis.low)
        return round(start + min(max(share, 0.0), 1.0) * (end - start), 1)

    def _text(self, x: float, y: float, text: str, anchor: str) -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {TICK}>{escape(text)}</text>')

    def rule(self, x1: float, x2: float, y1: float, y2: float, colour: str, dash: str = "", width: float = 1) -> None:
        """A straight line, in pixels."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        wide = f' stroke-width="{width:g}"' if width != 1 else ""
        ends = f'x1="{x1:g}" x2="{x2:g}" y1="{y1:g}" y2="{y2:g}"'
        self.parts.append(f'<line {ends} stroke="{colour}"{wide}{dashed}/>')

    def line(self, points: Sequence[tuple[float, float]], series: int) -> None:
        """Through points given as values."""
        path = "L".join(f"{self.across(x):g} {self.up(y):g}" for x, y in points)
        dash = f' stroke-dasharray="{DASHES[series]}"' if DASHES[series] else ""
        look = f'fill="none" stroke="{COLOURS[series]}" stroke-width="1.5"{dash}'
        self.parts.append(f'<path d="M{path}" {look}/>')

    def area(self, points: Sequence[tuple[float, float]]) -> None:
        """Shaded from points given as values down to the axis."""
        bottom = self.height - BOTTOM
        path = "L".join(f"{self.across(x):g} {self.up(y):g}" for x, y in points)
        first, last = self.across(points[0][0]), self.across(points[-1][0])
        look = 'fill="var(--allowed)" stroke="var(--ink-3)" stroke-width="1"'
        self.parts.append(f'<path d="M{first:g} {bottom}L{path}L{last:g} {bottom}z" {look}/>')

    def interval(self, x: float, low: float, high: float, series: int) -> None:
        """Upright, at a place in pixels, between two values."""
        self.rule(x, x, self.up(low), self.up(high), COLOURS[series], width=1.5)

    def mark(self, x: float, y: float, series: int, *, hollow: bool = False) -> None:
        """At a place in pixels, by the shape of its series."""
        look = f'fill="var(--panel)" stroke="{COLOURS[series]}" stroke-width="1.5"' if hollow else ""
        look = look or f'fill="{COLOURS[series]}"'
        self.parts.append(shape(x, y, series, look))

    def svg(self, description: str) -> str:
        """The picture. description: for those who can't see it."""
        box = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return f'<svg {box} role="img" aria-label={quoteattr(description)}>{"".join(self.parts)}</svg>'


def shape(x: float, y: float, series: int, look: str) -> str:
    """The mark of a series: square, disc, triangle, diamond, cross. look: its attributes."""
    if series == 1:
        return f'<circle cx="{x:g}" cy="{y:g}" r="3.5" {look}/>'
    way = {
        0: f"M{x - 3:g} {y - 3:g}h6v6h-6z",
        2: f"M{x:g} {y - 4:g}l4 7h-8z",
        3: f"M{x:g} {y - 4.5:g}l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
        4: f"M{x - 1.2:g} {y - 3.6:g}h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
    }[series]
    return f'<path d="{way}" {look}/>'


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in [low, high], at most about `most`, evenly apart."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    size = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / size - 1e-9)
    return [round(n * size, 12) for n in range(first, math.floor(high / size + 1e-9) + 1)]
