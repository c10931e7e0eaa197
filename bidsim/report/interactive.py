"""What `--interactive` adds to the page: one Vega runtime, the charts' specifications as data, and two short scripts, one of
which sorts and filters the tables by segment.

The page stays complete without it: the script puts a live chart in the place of each picture, and where it can't, the
picture stays. Names are data of the specifications, never part of an expression: Vega reads them through a parameter,
its expressions are interpreted (`ast`), and a strict Content-Security-Policy lets only these two scripts run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bidsim.report import format as f
from bidsim.report.drawing import Drawing
from bidsim.report.drawings import all_drawings
from bidsim.report.lookup import Lookup

# More than a tooltip shows or a screen can place; they are most of a specification's size.
DIGITS = 6
RUNTIME = "window.vegaEmbed = vegaEmbed;"
PAGE = ("interactive.js", "tables.js")
# Axis labels that are tokens in the picture; the script's charts look them up.
LABELS = "labels[datum.value]"


@dataclass(frozen=True)
class Script:
    """runtime, page: the two scripts; specs: name of a drawing -> its Vega-Lite document."""

    runtime: str
    page: str
    specs: dict[str, dict[str, Any]]


def make_script(lookup: Lookup) -> Script:
    """Everything that the interactive page carries."""
    import vl_convert

    names = {f"p{at}": f.clean_name(p.name) for at, p in enumerate(lookup.result.policies)}
    specs = {d.name: live_spec(d, names) for d in all_drawings(lookup)}
    page = "".join(resources.files("bidsim.report").joinpath(name).read_text("utf-8") for name in PAGE)
    return Script(vl_convert.javascript_bundle(RUNTIME), page, specs)


def live_spec(drawing: Drawing, names: Mapping[str, str]) -> dict[str, Any]:
    """The drawing's document with tooltips, zoom (shift and wheel) and labels in place of tokens."""
    from bidsim.report.charts import spec  # Altair is loaded for those who ask for this

    document: dict[str, Any] = copy.deepcopy(spec(drawing.plot))
    labels = {token: f.clean_name(short) for token, (short, _) in drawing.labels.items()}
    document["params"] = [{"name": "labels", "value": labels}]
    full = {token: f.clean_name(name) for token, (_, name) in drawing.labels.items()}
    for rows in document["datasets"].values():
        for row in rows:
            row.update({k: float(f"{v:.{DIGITS}g}") for k, v in row.items() if isinstance(v, float)})
            if row.get("series") in names:
                row["policy"] = names[row["series"]]
            if row.get("row") in full:
                row["campaign"] = full[row["row"]]
    for at, panel in enumerate(document.get("hconcat", [document])):
        _enliven(panel, at, document["datasets"], drawing.tips, named=bool(full))
    return document


def _enliven(
    panel: dict[str, Any],
    at: int,
    datasets: Mapping[str, Sequence[Mapping[str, Any]]],
    tips: tuple[tuple[str, str, str], ...],
    *,
    named: bool,
) -> None:
    """named: the vertical axis is of names, so only the other zooms."""
    layers = panel["layer"]
    axes = ["x"] if named else ["x", "y"]
    # The plain wheel scrolls the page.
    select = {"type": "interval", "encodings": axes, "zoom": "wheel![event.shiftKey]"}
    # On a layer that has the fields to zoom by: a rule at one value has none.
    whole = next(x for x in layers if all("field" in (x["encoding"].get(axis) or {}) for axis in axes))
    whole["params"] = [{"name": f"zoom{at}", "select": select, "bind": "scales"}]
    for layer in layers:
        rows = datasets[layer["data"]["name"]]
        if layer["mark"]["type"] in ("point", "rule") and rows and "policy" in rows[0]:
            fields = [("campaign", "campaign", ""), ("policy", "policy", ""), *tips]
            layer["encoding"]["tooltip"] = [_tip(*tip) for tip in fields if tip[0] in rows[0]]
        axis = (layer["encoding"].get("y") or {}).get("axis")
        if named and isinstance(axis, dict) and axis.get("labels") is not False:
            axis["labelExpr"] = LABELS


def _tip(name: str, title: str, written: str) -> dict[str, str]:
    tip = {"field": name, "title": title, "type": "quantitative" if written else "nominal"}
    return tip | ({"format": written} if written else {})
