"""A plot with all that a page, a file or a browser needs to show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bidsim.report.plots import Plot


@dataclass(frozen=True)
class Drawing:
    """name: for files and ids; labels: token in the picture -> (label, full text).

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
