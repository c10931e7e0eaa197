"""The report for reviewers: one HTML file that opens offline, complete without JavaScript.

The template escapes everything by itself; only the SVG written by `svg` and the style sheet are markup. A strict
Content-Security-Policy allows that style sheet (by its hash) and nothing else; an interactive page allows its two
scripts too (see `interactive`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bidsim.gate.judging import DETECTABLE
from bidsim.report import format as f
from bidsim.report import knowledge, plots, reasons, view
from bidsim.report.calibrated import calibration_tables
from bidsim.report.days import days
from bidsim.report.drawing import Drawing
from bidsim.report.drawings import FEWEST, gate_band, of_campaigns, of_frontier, of_head
from bidsim.report.extremes import extremes
from bidsim.report.gains import gains
from bidsim.report.interactive import make_script
from bidsim.report.lookup import Lookup
from bidsim.report.prices import bids_and_prices
from bidsim.report.renderer import Draw, Picture, draw_here
from bidsim.report.segments import FEW_RESULTS, segment_tables
from bidsim.report.training import of_training, training_table
from bidsim.report.words import HEAD_WORDS, WORDS, label
from bidsim.result import Finding, Result

if TYPE_CHECKING:
    from bidsim.statistics.tables import Tables

SCENARIO_LENGTH = 40_000
FINDINGS_SHOWN = 5
# With fewer positive labels than this in a bin, chance alone moves its point by more than a tenth.
FEW_LABELS = 100
VERDICTS = {"pass": "PASS", "warn": "WARN", "fail": "FAIL", "no_gate": "NO GATE"}
TONE_WORDS = ("better (diamond)", "worse (square)", "no clear change (disc)")
_SEVERITY = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Pictures:
    """sections: names and values of the template, of the result that lookup is of."""

    lookup: Lookup
    sections: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A picture with its title; svg is empty where it could not be drawn, and the page then says so."""

    name: str
    title: str
    svg: Picture


@dataclass(frozen=True)
class HeadSection:
    """Calibration of one head: its pictures and the numbers behind them."""

    title: str
    figures: list[Figure]
    band: bool
    hidden: int
    beyond: int
    fewest: float | None
    bins: list[tuple[str, list[list[str]]]]


def render_report(
    result: Result,
    *,
    judged: int | None = None,
    versions: Mapping[str, str] | None = None,
    interactive: bool = False,
    pictures: Pictures | None = None,
    tables: Tables | None = None,
) -> str:
    """report.html: the whole page as text. The same arguments give the same bytes.

    judged: how many candidates have been judged on this data, where the store knows. versions: of bidsim, Python and
    the libraries that made the result. interactive: with tooltips and zoom, by a script that the page carries. pictures:
    those of `draw_pictures` of this result, where they were asked for before. tables: that the result came from, for what
    it does not tell itself.
    """
    css = style_sheet()
    pictures = pictures or draw_pictures(result, tables=tables)
    script = make_script(pictures.lookup) if interactive else None
    hashes = [style_digest(text) for text in (script.runtime, script.page)] if script else []
    page: str = template("template.html.j2").render(
        css=Markup(css),
        style_hash=style_digest(css),
        script=script,
        script_hashes=hashes,
        versions=sorted((versions or {}).items()),
        **content(result, judged, pictures, browsed=interactive),
    )
    return page.strip() + "\n"


@cache
def template(name: str) -> Any:
    """A template of this package. All of it is escaped but what the code calls markup."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda file: resources.files("bidsim.report").joinpath(file).read_text("utf-8")),
    )
    environment.globals |= {"plural": f.plural, "ratio_most": plots.RATIO_MOST}
    environment.filters |= {"name": f.clean_name, "sentence": f.clean_text, "count": f.count, "short": f.short_hash}
    return environment.get_template(name)


def style_sheet() -> str:
    """The style sheet of every page."""
    return resources.files("bidsim.report").joinpath("style.css").read_text("utf-8")


def style_digest(css: str) -> str:
    """What a Content-Security-Policy calls a style sheet or script by."""
    return base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()


def draw_pictures(result: Result, draw: Draw = draw_here, tables: Tables | None = None) -> Pictures:
    """The page's sections with charts. draw: who draws them, perhaps beside what follows; tables: as for `render_report`."""
    lookup = Lookup(result)
    sections = {
        "heads": [_head(lookup, head, draw) for head in lookup.heads if lookup.curves(head)],
        "frontier": _frontier(lookup, draw),
        "campaigns": _campaigns(lookup, draw),
        "training_figures": [_draw(d, draw) for d in of_training(lookup)],
        "gains": gains(lookup, tables),
        "days": days(lookup),
        "priced": bids_and_prices(lookup, tables),
    }
    return Pictures(lookup, sections)


def content(
    result: Result, judged: int | None = None, pictures: Pictures | None = None, *, browsed: bool = False
) -> dict[str, Any]:
    """What the templates show of a result. browsed: by a script, with more rows of segments."""
    pictures = pictures or draw_pictures(result)
    lookup = pictures.lookup
    sentence, sides = knowledge.fidelity(lookup)
    return {
        **pictures.sections,
        "result": result,
        "verdict": VERDICTS[result.gate.verdict],
        "candidates": lookup.candidates,
        "baseline": lookup.baseline,
        "identity": _identity(lookup, judged),
        "many_judged": knowledge.many_judged(judged),
        "findings": sorted(result.findings, key=_severity),
        "findings_shown": FINDINGS_SHOWN,
        "cards": view.cards(lookup) if len(lookup.candidates) <= 3 else [],
        "economics": view.economics(lookup),
        "predictions": view.predictions(lookup),
        "brier_parts": view.brier_parts(lookup),
        "has_intervals": lookup.has_intervals,
        "predicted": lookup.predicted,
        "confidence": view.confidence(lookup),
        "gate": view.gate_table(lookup),
        "has_dotted": any(o.identified for o in result.gate.rules),
        "legend": [p.name for p in result.policies][: plots.CANDIDATES + 1],
        "undrawn": max(0, len(lookup.candidates) - plots.CANDIDATES),
        "few": FEW_RESULTS,
        "cost": label(lookup.indicator),
        "results": lookup.results,
        "extremes": extremes(lookup),
        "ask_for_days": pictures.sections["days"] is None and _spans_days(lookup),
        "segments": segment_tables(lookup, browsed=browsed),
        "calibrated": calibration_tables(lookup),
        "training": training_table(lookup),
        "splits": reasons.splits(lookup),
        "leaves_open": any(lookup.leaves_open(c.name) for c in lookup.candidates),
        "alone": reasons.alone(lookup),
        "new_campaigns": reasons.new_campaigns(lookup),
        "exhaustion": reasons.exhaustion(lookup),
        "unknowns": knowledge.unknowns(lookup),
        "reactions": knowledge.reactions(lookup),
        "log_rows": knowledge.log_rows(lookup),
        "exact": knowledge.exact(lookup),
        "exchanges": knowledge.exchanges(lookup),
        "would_settle": knowledge.would_settle(lookup),
        "curse": knowledge.curse(lookup),
        "fidelity": sentence,
        "fidelity_sides": sides,
        "definitions": [(w.label, w.definition) for m, w in WORDS.items() if _shown(lookup, m)],
        "scenario": _scenario(result.scenario),
    }


def _spans_days(lookup: Lookup) -> bool:
    """Whether the log may be of more than one day."""
    window = lookup.result.data.window
    try:
        span = datetime.fromisoformat(window.end) - datetime.fromisoformat(window.start) if window else None
    except ValueError:
        return False
    return bool(lookup.candidates) and bool(lookup.result.data.rows) and (span is None or span > timedelta(days=1))


def _severity(finding: Finding) -> int:
    return _SEVERITY[finding.severity]


def _shown(lookup: Lookup, metric: str) -> bool:
    return any(lookup.has(metric, head) for head in (None, *lookup.heads)) or (
        metric == "expected_utility" and bool(lookup.betas)
    )


def _identity(lookup: Lookup, judged: int | None) -> list[tuple[str, str]]:
    """The facts that tell which evaluation this is."""
    result, data = lookup.result, lookup.result.data
    zone = f.clean_name(result.scenario.get("timezone") or "UTC", 40)
    window = "the whole log"
    if data.window:
        window = f"{f.moment(data.window.start)} to {f.moment(data.window.end)}"
    facts = [("Window", f"{window} ({zone})"), ("Rows", f.count(data.rows))]
    facts += [(f"Labelled ({h})", f.count(n)) for h, n in data.labelled.items()]
    if data.units is not None:
        facts.append(("Units", f.count(data.units)))
    if data.clicks is not None:
        facts.append(("Clicks in the log", f.count(data.clicks)))
    if data.conversions is not None:
        facts.append(("Conversions in the log", f.count(data.conversions)))
    if data.campaigns is not None:
        facts.append(("Campaigns", f.count(data.campaigns)))
    covered = [lookup.value(p.name, "coverage") for p in lookup.candidates]
    known = sorted(c for c in covered if c is not None)
    ends = dict.fromkeys(f.share(c) for c in (known[0], known[-1])) if len(covered) > 3 and known else {}
    facts.append(("Coverage", " to ".join(ends) or ", ".join(map(f.share, covered)) or f.DASH))
    undecidable = lookup.result.diagnostics.get("undecidable")
    if isinstance(undecidable, int | float) and undecidable:
        facts.append(("Undecidable rows", f.count(undecidable)))
    facts += _shown_at_least(lookup)
    if lookup.money.code:
        facts.append(("Currency", lookup.money.code))
    if judged is not None:
        facts.append(("Candidates judged on this data", f.count(judged)))
    return [
        *facts,
        ("Data fingerprint", f.short_hash(data.fingerprint)),
        ("Judged as of", f.clean_name(result.as_of, 40)),
    ]


def _shown_at_least(lookup: Lookup) -> list[tuple[str, str]]:
    """The smallest change of the cost per result that this log could have shown."""
    name = lookup.indicator
    sizes = []
    for policy in lookup.candidates:
        found = lookup.difference(policy.name, name)
        if found is not None and found.relative.low is not None and found.relative.high is not None:
            errors = 2 * NormalDist().inv_cdf(0.5 + lookup.confidence / 2)
            sizes.append(DETECTABLE * (found.relative.high - found.relative.low) / errors)
    ends = dict.fromkeys(f.change(size).lstrip("+") for size in ([min(sizes), max(sizes)] if sizes else []))
    return [(f"Would show a {label(name)} change of", " to ".join(ends))] if ends else []


def _draw(drawing: Drawing, draw: Draw) -> Figure:
    picture = draw(drawing.plot, drawing.description, drawing.labels)
    return Figure(drawing.name, drawing.title, picture)


def _head(lookup: Lookup, head: str, draw: Draw) -> HeadSection:
    words = HEAD_WORDS.get(head, f.clean_name(head))
    curves = lookup.curves(head)
    drawn = curves[: plots.CANDIDATES + 1]
    figures = [_draw(d, draw) for d in of_head(lookup, head, words)]
    bins = [
        (
            c.policy,
            [
                [
                    f.rate(b.predicted),
                    f"{f.rate(b.observed)} {f.interval(b.low, b.high, f.rate)}".rstrip(),
                    f.fixed(b.observed / b.predicted if b.predicted else None, 3),
                    f.count(b.weight),
                    f.count(round(b.observed * b.weight, 1)),
                ]
                for b in c.bins
            ],
        )
        for c in curves
    ]
    hidden = sum(not plots.drawable(b) for c in drawn for b in c.bins)
    fewest = min((b.observed * b.weight for c in drawn for b in c.bins if b.observed > 0), default=None)
    return HeadSection(
        words,
        figures,
        gate_band(lookup, head) is not None,
        hidden,
        sum(b.observed > plots.RATIO_MOST * b.predicted for c in drawn for b in c.bins if b.predicted > 0),
        fewest if fewest is not None and fewest < FEW_LABELS else None,
        bins,
    )


def _frontier(lookup: Lookup, draw: Draw) -> dict[str, Any] | None:
    result = lookup.result
    policies = [p.name for p in result.policies]
    rows = plots.frontier_rows(result.frontier, policies, lookup.results, FEWEST)
    if not rows:
        return None
    figures = [_draw(d, draw) for d in of_frontier(lookup)]
    money = lookup.money
    table = [
        (
            policy,
            [
                [
                    f.significant(p.multiplier, 4),
                    money.amount(p.spend),
                    f.count(p.clicks),
                    f.count(p.conversions),
                    money.price(_cost(p.spend, p.clicks if lookup.results == "clicks" else p.conversions)),
                ]
                for p in sorted((p for p in result.frontier if p.policy == policy), key=lambda p: p.multiplier)
            ],
        )
        for policy in policies
    ]
    few = any(0 < row["results"] < FEWEST for row in rows)
    return {"figures": figures, "table": [(p, rows) for p, rows in table if rows], "few": few, "fewest": FEWEST}


def _cost(spend: float, results: float | None) -> float | None:
    return spend / results if results else None


def _campaigns(lookup: Lookup, draw: Draw) -> dict[str, Any] | None:
    drawn = of_campaigns(lookup)
    if drawn is None:
        return None
    drawing, found = drawn
    beyond = any(v[0] is not None and abs(v[0]) > plots.CHANGE_MOST for s in found.shifts for v in (s.spend, s.cost))
    few = any(s.few and s.cost[0] is not None for s in found.shifts)
    tones = [plots.shift_tone(s) for s in found.shifts if s.cost[0] is not None]
    said = ", ".join(f"{tones.count(t)} {word}" for t, word in zip(plots.TONES, TONE_WORDS, strict=True))
    return {
        "figure": _draw(drawing, draw),
        "said": said if lookup.has_intervals else "",
        "shown": len(found.labels),
        "total": found.total,
        "beyond": beyond,
        "cut": any(e is not None and abs(e) > plots.CHANGE_MOST for s in found.shifts for e in (*s.spend, *s.cost)),
        "few": few,
    }


def _scenario(scenario: Mapping[str, Any]) -> tuple[str, int]:
    """The scenario as JSON, and how many characters of it were left out."""
    text = f.clean_lines(json.dumps(scenario, indent=2, ensure_ascii=False, default=str))
    return text[:SCENARIO_LENGTH], max(0, len(text) - SCENARIO_LENGTH)
