"""The main charts as files, for a chat, a ticket or slides: SVG and PNG with title and legend, in plain colours.

The same drawings as the page's, of the run's statistics too where they are given; where the page has variables, these have
the colours of its light theme. PNG text is drawn with the fonts of this machine, so Japanese names need a Japanese font here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from bidsim.errors import BidsimError
from bidsim.report import charts, plots, svg
from bidsim.report import format as f
from bidsim.report.days import days
from bidsim.report.drawing import Drawing, Sketch
from bidsim.report.drawings import all_drawings
from bidsim.report.gains import gains
from bidsim.report.lookup import Lookup
from bidsim.report.prices import bids_and_prices
from bidsim.report.rule_plot import HEIGHT, WIDTH, rule_plot
from bidsim.report.view import GATE_ROWS, outcome_action
from bidsim.result import Result, RuleOutcome

if TYPE_CHECKING:
    from bidsim.statistics.tables import Tables

SCALE = 2.0
LATIN = "'DejaVu Sans'"
JAPANESE = "'Noto Sans CJK JP','Noto Sans JP','Hiragino Sans','Yu Gothic UI'"
FONT = f"{LATIN},{JAPANESE},sans-serif"
_VARIABLE = re.compile(r"var\(--([a-z0-9-]+)\)")
_MARKS = ("&#9632;", "&#9679;", "&#9650;", "&#9670;", "&#10010;")
LINE = 18
RULE_COLUMNS = 84


def render_pictures(result: Result, tables: Tables | None = None) -> Mapping[str, str | bytes]:
    """File name -> content: <chart>.svg and <chart>.png. tables: of the run; without them there are no gain charts, bids and
    prices. Raises BidsimError where nothing can be drawn."""
    lookup = Lookup(result)
    colours = _light_colours()
    found: dict[str, str | bytes] = {}
    pictures = [("rules", _rules(lookup))]
    pictures += [(d.name, _drawn(lookup, d)) for d in all_drawings(lookup)]
    pictures += [(s.name, _sketched(lookup, s)) for s in _sketches(lookup, tables)]
    for name, picture in pictures:
        if picture:
            text = _VARIABLE.sub(lambda m: colours.get(m.group(1), "#000"), picture)
            found[f"{name}.svg"] = text
            found[f"{name}.png"] = _png(text)
    if not found:
        raise BidsimError("the result has nothing to draw: no calibration, no frontier, no campaigns, no rules")
    return found


def _png(picture: str) -> bytes:
    import vl_convert

    if any(f.columns(c) > 1 for c in picture):
        # The renderer takes the first font for what it has, and any other, not the list's next, for what it lacks.
        picture = picture.replace(LATIN, f"{JAPANESE},{LATIN}")
    return bytes(vl_convert.svg_to_png(picture, scale=SCALE))


def _light_colours() -> dict[str, str]:
    """The variables of the style sheet's light theme, which stands first in it."""
    css = resources.files("bidsim.report").joinpath("style.css").read_text("utf-8")
    return dict(re.findall(r"--([a-z0-9-]+):(#[0-9a-f]{3,6})", css.partition("@media")[0]))


def _sketches(lookup: Lookup, tables: Tables | None) -> list[Sketch]:
    by_day, priced = days(lookup), bids_and_prices(lookup, tables)
    found = [g.figure for g in gains(lookup, tables)]
    return [*found, *(by_day.figures if by_day else []), *(priced.figures if priced else [])]


def _drawn(lookup: Lookup, drawing: Drawing) -> str:
    inner = svg.render_svg(charts.spec(drawing.plot), drawing.description, drawing.labels)
    if not inner:
        return ""
    return _standalone(lookup, inner, drawing.alone or drawing.title, drawing.description, drawing.policies)


def _sketched(lookup: Lookup, sketch: Sketch) -> str:
    description = ET.fromstring(sketch.svg).get("aria-label", "")
    return _standalone(lookup, sketch.svg, sketch.alone or sketch.title, description, sketch.policies)


def _standalone(lookup: Lookup, inner: str, title: str, description: str, first: int) -> str:
    """first: the first policy that is drawn."""
    root = ET.fromstring(inner)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    names = [p.name for p in lookup.result.policies][: plots.CANDIDATES + 1]
    legend = [
        f'<tspan fill="var(--p{at})">{_MARKS[at]}</tspan> {escape(f.clean_name(name, 40))}'
        for at, name in enumerate(names)
        if at >= first
    ]
    # Below each other: a scenario's name may be as long as the picture is wide.
    scenario = escape(f.clean_name(lookup.result.name, 60))
    head = [f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']
    head.append(f'<text x="12" y="42" font-size="12" fill="var(--ink-2)">{scenario}</text>')
    head += [f'<text x="12" y="{64 + LINE * at}" font-size="12">{text}</text>' for at, text in enumerate(legend)]
    top = 64 + LINE * len(legend)
    body = f'<g transform="translate(12,{top})">{inner[inner.index(">") + 1 : -len("</svg>")]}</g>'
    return _document(width + 24, height + top + 12, "".join(head) + body, description)


def _title(lookup: Lookup, text: str) -> str:
    return escape(f"{f.clean_name(lookup.result.name, 50)}: {text}")


def _document(width: float, height: float, body: str, description: str) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(description)} '
        f'font-family={quoteattr(FONT)} fill="var(--ink)"><rect width="100%" height="100%" fill="var(--bg)"/>{body}</svg>\n'
    )


def _rules(lookup: Lookup) -> str:
    """All rules below each other, most severe first."""
    order = {"fail": 0, "warn": 1, "waived": 2, "ignore": 3, "pass": 4}
    outcomes = sorted(lookup.result.gate.rules, key=lambda o: order[outcome_action(o)])
    if not outcomes:
        return ""
    shown = outcomes[:GATE_ROWS]
    words = lookup.result.gate.verdict.upper().replace("_", " ")
    parts = [f'<text x="12" y="24" font-size="15" font-weight="bold">{_title(lookup, words)}</text>']
    note = "shaded: allowed; line: interval; disc: passes, square: fails, ring: neither"
    parts.append(f'<text x="12" y="42" font-size="11" fill="var(--ink-2)">{note}</text>')
    for at, o in enumerate(shown):
        parts.append(_rule_row(lookup, o, 60 + at * 24))
    height = 60 + len(shown) * 24
    if len(outcomes) > len(shown):
        height += 20
        parts.append(
            f'<text x="12" y="{height - 6}" font-size="11">{len(outcomes) - len(shown)} more in result.json</text>'
        )
    return _document(900, height + 10, "".join(parts), "Outcome of each gate rule; the report has them as a table.")


def _rule_row(lookup: Lookup, outcome: RuleOutcome, y: int) -> str:
    action = outcome_action(outcome)
    where = f" on {lookup.label(outcome.segment)}" if outcome.segment else ""
    text = f.shorten(f"{f.clean_name(outcome.rule, 120)}{where}", RULE_COLUMNS)
    plot = rule_plot(outcome, action)
    moved = (
        f'<g transform="translate({900 - WIDTH - 12},{y})">{plot[plot.index(">") + 1 : -len("</svg>")]}</g>'
        if plot
        else ""
    )
    said = action if outcome.status in ("pass", "fail") else f"{action}: {outcome.status.replace('_', ' ')}"
    colour = {"fail": "var(--fail)", "warn": "var(--warn)", "pass": "var(--pass)"}.get(action, "var(--none)")
    base = y + HEIGHT - 5
    status = f'<text x="12" y="{base}" font-size="11" font-weight="bold" fill="{colour}">{escape(said)}</text>'
    return f'{status}<text x="190" y="{base}" font-size="11">{escape(text)}</text>{moved}'
