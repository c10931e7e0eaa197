"""A plot with all that a page, a file or a browser needs to show it; or a picture that was drawn by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from bidsim.report.plots import Plot


@dataclass(frozen=True)
class Drawing:
    """name: for files and ids; title: on the page; alone: where no heading stands above it; labels: token in the picture ->
    (label, full text).

    tips: fields of a point's data for its tooltip, with their titles and formats. policies: the first that it draws, 0 for
    the baseline.
    """

    name: str
    title: str
    description: str
    plot: Plot
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tips: tuple[tuple[str, str, str], ...] = ()
    policies: int = 0
    alone: str = ""


@dataclass(frozen=True)
class Sketch:
    """A picture by hand (see `frame`). name: for files; title: on the page; alone: where no heading stands above it;
    policies: the first that it draws, 0 for the baseline."""

    name: str
    title: str
    svg: Markup
    alone: str = ""
    policies: int = 0
