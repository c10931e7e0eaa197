"""Charts as Altair specs, and the SVG made of them.

No text of the data enters a spec: policies are p0, p1, ..., campaigns r0, r1, ..., and what their labels say is put
into the finished SVG as text. So no name can reach Vega's expressions, break a field path or move the layout, and the
same result draws the same picture whatever fonts are installed. Colours are CSS variables of the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from bidsim.report.plots import CANDIDATES, RATIO_MOST, SERIES, TONES, Plot, Rows

COLOURS = [f"var(--p{n})" for n in range(CANDIDATES + 1)]
SHAPES = ["square", "circle", "triangle-up", "diamond", "cross"]
DASHES = [[5, 3], [1, 0], [2, 2], [8, 2], [6, 2, 1, 2]]

# Labels of large numbers (billions are B, not G) and of changes, where zero has no sign. Fixed texts: no data in them.
_LARGE = "replace(format(datum.value, '~s'), 'G', 'B')"
_CHANGE = "datum.value == 0 ? '0%' : format(datum.value, '+.0%')"

# A picture, or a part of one, as Vega-Lite's document has it.
Chart = dict[str, Any]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high]: powers of ten where these are several, else finer steps, at most eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in (["1"], ["1", "2", "5"], ["1", "1.5", "2", "3", "4", "5", "7"], [str(n / 2) for n in range(2, 20)]):
        ticks = [t for t in (float(f"{step}e{power}") for power in powers for step in steps) if low <= t <= high]
        if len(ticks) >= 3:
            break
    return ticks if len(ticks) <= 8 else ticks[:: math.ceil(len(ticks) / 8)]


def _shape() -> alt.Shape:
    return alt.Shape("series:N", legend=None).scale(domain=SERIES, range=SHAPES)


def _colour() -> alt.Color:
    return alt.Color("series:N", legend=None).scale(domain=SERIES, range=COLOURS)


def _dash() -> alt.StrokeDash:
    return alt.StrokeDash("series:N", legend=None).scale(domain=SERIES, range=DASHES)


class Datasets:
    """The rows of a chart by name. Altair would check and copy each of them with every step of a chart's making."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = {}

    def of(self, rows: Rows) -> alt.NamedData:
        name = next((n for n, known in self.rows.items() if known == rows), f"d{len(self.rows)}")
        self.rows[name] = rows
        return alt.NamedData(name=name)


def _layered(layers: Iterable[alt.Chart], width: int, height: int) -> Chart:
    """Marks above each other. Put together here: Altair would copy and compare all of them with each step of it."""
    inside: dict[str, Any] = {"top_level": False}
    drawn = [layer.to_dict(validate=False, context=inside) for layer in layers]
    return {"layer": drawn, "width": width, "height": height}


def _predicted_axis(rows: Rows, title: str) -> alt.X:
    values = [r["predicted"] for r in rows]
    low, high = min(values) / 1.15, max(values) * 1.15
    axis = alt.Axis(values=log_ticks(low, high), format=".2~p", title=title, labelFlush=False)
    return alt.X("predicted:Q", axis=axis).scale(type="log", domain=[low, high], nice=False)


def _reliability(data: Datasets, rows: Rows) -> Chart:
    """Observed against predicted on log axes, one line a policy."""
    spread = [v for r in rows for v in (r["predicted"], r["observed"], r["low"], r["high"]) if v]
    # An interval that reaches down to almost nothing is cut, or it would press the points into a corner.
    least = min(v for r in rows for v in (r["predicted"], r["observed"])) / 3
    low, high = max(min(spread), least) / 1.15, max(spread) * 1.15
    rows = [{**r, "low": r["low"] and max(r["low"], low)} for r in rows]
    ticks = alt.Axis(values=log_ticks(low, high), format=".2~p")
    x = alt.X("predicted:Q", axis=ticks, title="mean predicted (log)").scale(type="log", domain=[low, high], nice=False)
    y = alt.Y("observed:Q", axis=ticks, title="observed (log)").scale(type="log", domain=[low, high], nice=False)
    diagonal = (
        alt.Chart(data.of([{"predicted": low, "observed": low}, {"predicted": high, "observed": high}]))
        .mark_line(color="var(--ink-3)", strokeWidth=1)
        .encode(x=x, y=y)
    )
    lines = alt.Chart(data.of(rows)).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=_colour(), strokeDash=_dash())
    points = alt.Chart(data.of(rows)).mark_point(filled=True, size=34, opacity=1)
    layers = [
        diagonal,
        *_whiskers(data, rows, "low", "high", x),
        lines,
        points.encode(x=x, y=y, color=_colour(), shape=_shape()),
    ]
    return _layered(layers, 400, 300)


def _ratio(data: Datasets, rows: Rows, band: tuple[float, float] | None) -> Chart:
    """Observed / predicted over predicted: 1 is right, above it the policy predicts too little.

    band: what the gate allows overall, shaded; an infinite end is the chart's.
    """
    x = _predicted_axis(rows, "mean predicted (log)")
    values = [v for r in rows for v in (r["observed_ratio"], r["low_ratio"], r["high_ratio"]) if v is not None]
    domain = [max(0.0, min(0.8, *values) - 0.05), max(1.2, *values) + 0.05]
    y = alt.Y("observed_ratio:Q", title="observed / predicted").scale(domain=domain, nice=False, zero=False)
    shaded: list[alt.Chart] = []
    if band is not None:
        domain = [min(domain[0], band[0] - 0.05), max(domain[1], min(band[1], RATIO_MOST) + 0.05)]
        y = y.scale(domain=domain, nice=False, zero=False)
        ends = {"observed_ratio": max(band[0], domain[0]), "top": min(band[1], domain[1])}
        mark = alt.Chart(data.of([ends])).mark_rect(color="var(--allowed)", opacity=1)
        shaded.append(mark.encode(y=y, y2=alt.Y2("top:Q")))
    one = alt.Chart(data.of([{"observed_ratio": 1.0}])).mark_rule(color="var(--ink-3)", strokeWidth=1).encode(y=y)
    lines = alt.Chart(data.of(rows)).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=_colour(), strokeDash=_dash())
    points = alt.Chart(data.of(rows)).mark_point(filled=True, size=34, opacity=1)
    layers = [*shaded, one, *_whiskers(data, rows, "low_ratio", "high_ratio", x), lines]
    layers.append(points.encode(x=x, y=y, color=_colour(), shape=_shape()))
    return _layered(layers, 400, 300)


def _whiskers(data: Datasets, rows: Rows, low: str, high: str, x: alt.X) -> Iterable[alt.Chart]:
    """Intervals as thin vertical lines, where the result has them."""
    known = [r for r in rows if r[low] is not None and r[high] is not None and r[low] > 0]
    if not known:
        return []
    mark = alt.Chart(data.of(known)).mark_rule(strokeWidth=1, opacity=0.6)
    return [mark.encode(x=x, y=alt.Y(f"{low}:Q"), y2=alt.Y2(f"{high}:Q"), color=_colour())]


def _frontier(data: Datasets, rows: Rows, spend: float | None, y_field: str, y_title: str, x_title: str) -> Chart:
    """Results, or the cost of one, over spend as all bids are multiplied; a vertical line at the baseline's spend."""
    x = alt.X("spend:Q", title=x_title, axis=alt.Axis(labelExpr=_LARGE, tickCount=6))
    y = alt.Y(f"{y_field}:Q", title=y_title, axis=alt.Axis(labelExpr=_LARGE, tickCount=6))
    y = y.scale(zero=y_field == "results")
    lines = alt.Chart(data.of(rows)).mark_line(strokeWidth=1.5)
    points = alt.Chart(data.of(rows)).mark_point(filled=True, size=18, opacity=1)
    now = alt.Chart(data.of([r for r in rows if r["one"]])).mark_point(filled=True, size=110, opacity=1)
    layers: list[alt.Chart] = []
    if spend:
        rule = alt.Chart(data.of([{"spend": spend}])).mark_rule(color="var(--ink-3)", strokeDash=[2, 3])
        layers.append(rule.encode(x=x))
    layers.append(lines.encode(x=x, y=y, color=_colour(), strokeDash=_dash(), order=alt.Order("order:Q")))
    layers += [p.encode(x=x, y=y, color=_colour(), shape=_shape()) for p in (points, now)]
    return _layered(layers, 400, 280)


def _learning(data: Datasets, rows: Rows, x_title: str) -> Chart:
    """Log loss while models learn, one line a policy; large marks are the models as they were kept."""
    x = alt.X("at:Q", title=x_title, axis=alt.Axis(labelExpr=_LARGE, tickMinStep=1, tickCount=6)).scale(zero=False)
    y = alt.Y("logloss:Q", title="log loss", axis=alt.Axis(format=".4~g")).scale(zero=False)
    lines = alt.Chart(data.of(rows)).mark_line(strokeWidth=1.5)
    points = alt.Chart(data.of(rows)).mark_point(filled=True, size=18, opacity=1)
    layers: list[alt.Chart] = [lines.encode(x=x, y=y, color=_colour(), strokeDash=_dash(), order=alt.Order("at:Q"))]
    layers.append(points.encode(x=x, y=y, color=_colour(), shape=_shape()))
    kept = [r for r in rows if r["kept"]]
    if kept:
        large = alt.Chart(data.of(kept)).mark_point(filled=True, size=110, opacity=1)
        layers.append(large.encode(x=x, y=y, color=_colour(), shape=_shape()))
    return _layered(layers, 400, 240)


def _campaigns(data: Datasets, panels: Sequence[Mapping[str, Any]], labels: int, series: list[int]) -> Chart:
    """Relative changes, one row a campaign: r0, r1, ..."""
    names = [f"r{n}" for n in range(labels)]
    drawn = [_campaign_panel(data, p["rows"], names, series, p["title"], first=n == 0) for n, p in enumerate(panels)]
    return {"hconcat": drawn, "spacing": 24}


def _tone_shape() -> alt.Shape:
    return alt.Shape("tone:N", legend=None).scale(domain=TONES, range=["diamond", "square", "circle"])


def _tone_colour(series: list[int]) -> alt.Color:
    """With one candidate colour says better or worse, with several who it is."""
    if len(series) > 1:
        return _colour()
    plain = f"var(--p{series[0]})" if series else "var(--p1)"
    return alt.Color("tone:N", legend=None).scale(domain=TONES, range=["var(--pass)", "var(--fail)", plain])


def _campaign_panel(
    data: Datasets, rows: Rows, labels: list[str], series: list[int], title: str, *, first: bool
) -> Chart:
    spread = [v for r in rows for v in (r["value"], r["low"], r["high"]) if v is not None]
    low, high = min(-0.02, *spread, 0.0), max(0.02, *spread, 0.0)
    pad = (high - low) * 0.06
    x = alt.X("value:Q", title=title, axis=alt.Axis(labelExpr=_CHANGE, tickCount=5))
    x = x.scale(domain=[low - pad, high + pad], nice=False)
    # A fixed extent: the labels are put in later, and their width must not move the layout.
    left = alt.Axis(labelLimit=0, minExtent=190, maxExtent=190, title=None, ticks=False, labelPadding=8, grid=True)
    y = alt.Y("row:N", axis=left if first else alt.Axis(labels=False, ticks=False, title=None, grid=True))
    # One series stands on points, which have no inner padding: a browser's console would say so.
    y = y.scale(domain=labels, paddingInner=0.2 if len(series) > 1 else alt.Undefined, paddingOuter=0.1)
    height = len(labels) * (20 if len(series) == 1 else 10 + 8 * len(series))

    def layer(mark: alt.Chart, **more: Any) -> alt.Chart:
        encoded = mark.encode(x=x, y=y, color=_tone_colour(series), **more)
        if len(series) > 1:
            names = [f"p{n}" for n in series]
            encoded = encoded.encode(yOffset=alt.YOffset("series:N").scale(domain=names))
        return encoded

    zero = alt.Chart(data.of([{"value": 0}])).mark_rule(color="var(--ink-3)", strokeWidth=1).encode(x=x)
    layers = [zero, layer(alt.Chart(data.of(rows)).mark_point(size=0, opacity=0))]
    known = [r for r in rows if r["low"] is not None and r["high"] is not None]
    if known:
        rule = alt.Chart(data.of(known)).mark_rule(strokeWidth=1.5)
        layers.append(layer(rule).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q")))
    kinds: Mapping[str, dict[str, Any]] = {
        "plain": {"filled": True, "size": 60},
        "few": {"filled": False, "size": 45, "strokeWidth": 1.5},
    }
    for kind, look in kinds.items():
        some = [r for r in rows if r["kind"] == kind]
        if some:
            layers.append(layer(alt.Chart(data.of(some)).mark_point(opacity=1, **look), shape=_tone_shape()))
    for up, shape in ((True, "triangle-right"), (False, "triangle-left")):
        some = [r for r in rows if r["kind"] == "beyond" and r["up"] == up]
        if some:
            layers.append(layer(alt.Chart(data.of(some)).mark_point(shape=shape, filled=True, size=80, opacity=1)))
    return _layered(layers, 330, height)


_DRAWN: Mapping[str, Callable[..., Chart]] = {
    "reliability": _reliability,
    "ratio": _ratio,
    "frontier": _frontier,
    "learning": _learning,
    "campaigns": _campaigns,
}


def spec(plot: Plot) -> dict[str, Any]:
    """The Vega-Lite document of a plot, with the look that all share."""
    data = Datasets()
    chart = _DRAWN[plot.kind](data, **plot.arguments)
    axis = {
        "labelColor": "var(--ink-2)",
        "titleColor": "var(--ink-2)",
        "gridColor": "var(--line)",
        "domainColor": "var(--ink-3)",
        "tickColor": "var(--ink-3)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    }
    look = {
        "axis": axis,
        "view": {"stroke": None},
        "background": "transparent",
        "font": "DejaVu Sans",
        "aria": False,
        "padding": 4,
    }
    return {"$schema": alt.SCHEMA_URL, "config": look, **chart, "datasets": data.rows}
