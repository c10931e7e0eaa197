"""Charts as Altair specs, and the SVG made of them.

No text of the data enters a spec: policies are p0, p1, ..., campaigns r0, r1, ..., and what their labels say is put
into the finished SVG as text. So no name can reach Vega's expressions, break a field path or move the layout, and the
same result draws the same picture whatever fonts are installed. Colours are CSS variables of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bidsim.report.segments import Shift, Shifts
from bidsim.result import CalibrationBin, CalibrationCurve, FrontierPoint

CANDIDATES = 4
SERIES = [f"p{n}" for n in range(CANDIDATES + 1)]
COLOURS = [f"var(--p{n})" for n in range(CANDIDATES + 1)]
SHAPES = ["square", "circle", "triangle-up", "diamond", "cross"]
DASHES = [[5, 3], [1, 0], [2, 2], [8, 2], [6, 2, 1, 2]]
TONES = ["better", "worse", "none"]
LABEL_COLUMNS = 26
RATIO_MOST = 2.5
CHANGE_MOST = 1.0

# Labels of large numbers (billions are B, not G) and of changes, where zero has no sign. Fixed texts: no data in them.
_LARGE = "replace(format(datum.value, '~s'), 'G', 'B')"
_CHANGE = "datum.value == 0 ? '0%' : format(datum.value, '+.0%')"

Rows = list[dict[str, Any]]
# Altair calls the same thing by several types, depending on what was layered.
Chart = Any


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high]: powers of ten where these are several, else finer steps, at most eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in (["1"], ["1", "2", "5"], ["1", "1.5", "2", "3", "4", "5", "7"], [str(n / 2) for n in range(2, 20)]):
        ticks = [t for t in (float(f"{step}e{power}") for power in powers for step in steps) if low <= t <= high]
        if len(ticks) >= 3:
            break
    return ticks if len(ticks) <= 8 else ticks[:: math.ceil(len(ticks) / 8)]


def drawable(b: CalibrationBin) -> bool:
    """Whether a bin has a place on logarithmic axes."""
    return b.predicted > 0 and b.observed > 0


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


@dataclass(frozen=True)
class Plot:
    """A chart and its rows."""

    chart: Chart
    data: Datasets


def _curve_rows(curves: Sequence[CalibrationCurve]) -> Rows:
    rows: Rows = []
    for series, curve in zip(SERIES, curves, strict=False):
        for b in curve.bins:
            if b.predicted <= 0:
                continue
            scaled = {"low": b.low, "high": b.high, "observed": b.observed}
            ratio = {f"{k}_ratio": None if v is None else min(v / b.predicted, RATIO_MOST) for k, v in scaled.items()}
            rows.append({"series": series, "predicted": b.predicted, **scaled, **ratio})
    return rows


def _predicted_axis(rows: Rows, title: str) -> alt.X:
    values = [r["predicted"] for r in rows]
    low, high = min(values) / 1.15, max(values) * 1.15
    axis = alt.Axis(values=log_ticks(low, high), format=".2~p", title=title, labelFlush=False)
    return alt.X("predicted:Q", axis=axis).scale(type="log", domain=[low, high], nice=False)


def reliability(curves: Sequence[CalibrationCurve]) -> Plot | None:
    """Observed against predicted on log axes, one line a policy; None where no bin has a positive label."""
    data = Datasets()
    rows = [r for r in _curve_rows(curves) if r["observed"] > 0]
    if not rows:
        return None
    spread = [v for r in rows for v in (r["predicted"], r["observed"], r["low"], r["high"]) if v]
    low, high = min(spread) / 1.15, max(spread) * 1.15
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
    return Plot(alt.layer(*layers).properties(width=400, height=300), data)


def ratio(curves: Sequence[CalibrationCurve], band: tuple[float, float] | None = None) -> Plot | None:
    """Observed / predicted over predicted: 1 is right, above it the policy predicts too little.

    band: what the gate allows overall, shaded; an infinite end is the chart's.
    """
    data = Datasets()
    rows = _curve_rows(curves)
    if not rows:
        return None
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
    return Plot(alt.layer(*layers).properties(width=400, height=300), data)


def _whiskers(data: Datasets, rows: Rows, low: str, high: str, x: alt.X) -> Iterable[alt.Chart]:
    """Intervals as thin vertical lines, where the result has them."""
    known = [r for r in rows if r[low] is not None and r[high] is not None and r[low] > 0]
    if not known:
        return []
    mark = alt.Chart(data.of(known)).mark_rule(strokeWidth=1, opacity=0.6)
    return [mark.encode(x=x, y=alt.Y(f"{low}:Q"), y2=alt.Y2(f"{high}:Q"), color=_colour())]


def frontier_rows(points: Sequence[FrontierPoint], policies: Sequence[str], results: str, fewest: float) -> Rows:
    """A row per policy and multiplier; cost is None below `fewest` results, where it is mostly luck."""
    rows: Rows = []
    for series, policy in zip(SERIES, policies, strict=False):
        for p in sorted((p for p in points if p.policy == policy), key=lambda p: p.multiplier):
            found = p.clicks if results == "clicks" else p.conversions
            if found is not None:
                cost = p.spend / found if found >= fewest else None
                at_one = abs(p.multiplier - 1) < 1e-9
                rows.append(
                    {
                        "series": series,
                        "order": p.multiplier,
                        "spend": p.spend,
                        "results": found,
                        "cost": cost,
                        "one": at_one,
                    }
                )
    return rows


def frontier(rows: Rows, spend: float | None, y_field: str, y_title: str, x_title: str) -> Plot | None:
    """Results, or the cost of one, over spend as all bids are multiplied; a vertical line at the baseline's spend."""
    data = Datasets()
    known = [r for r in rows if r[y_field] is not None]
    if not known or max(r["spend"] for r in known) <= 0:
        return None
    x = alt.X("spend:Q", title=x_title, axis=alt.Axis(labelExpr=_LARGE, tickCount=6))
    y = alt.Y(f"{y_field}:Q", title=y_title, axis=alt.Axis(labelExpr=_LARGE, tickCount=6))
    y = y.scale(zero=y_field == "results")
    lines = alt.Chart(data.of(known)).mark_line(strokeWidth=1.5)
    points = alt.Chart(data.of(known)).mark_point(filled=True, size=18, opacity=1)
    now = alt.Chart(data.of([r for r in known if r["one"]])).mark_point(filled=True, size=110, opacity=1)
    layers: list[alt.Chart] = []
    if spend:
        rule = alt.Chart(data.of([{"spend": spend}])).mark_rule(color="var(--ink-3)", strokeDash=[2, 3])
        layers.append(rule.encode(x=x))
    layers.append(lines.encode(x=x, y=y, color=_colour(), strokeDash=_dash(), order=alt.Order("order:Q")))
    layers += [p.encode(x=x, y=y, color=_colour(), shape=_shape()) for p in (points, now)]
    return Plot(alt.layer(*layers).properties(width=400, height=280), data)


def learning(rows: Rows, x_title: str) -> Plot | None:
    """Log loss while models learn, one line a policy; large marks are the models as they were kept.

    rows: dicts of series, at, logloss and kept.
    """
    if not rows:
        return None
    data = Datasets()
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
    return Plot(alt.layer(*layers).properties(width=400, height=240), data)


def campaigns(shifts: Shifts, spend_title: str, cost_title: str) -> Plot:
    """Relative change of spend and of the cost per result, one row a campaign."""
    data = Datasets()
    labels = [f"r{n}" for n in range(len(shifts.labels))]
    series = sorted({s.series for s in shifts.shifts})
    panels = [
        _campaign_panel(data, _campaign_rows(shifts, field), labels, series, title, first=at == 0)
        for at, (field, title) in enumerate((("spend", spend_title), ("cost", cost_title)))
    ]
    return Plot(alt.hconcat(*panels, spacing=24), data)


def _campaign_rows(shifts: Shifts, field: str) -> Rows:
    rows: Rows = []
    for s in shifts.shifts:
        value, low, high = s.spend if field == "spend" else s.cost
        if value is None:
            continue
        cut = [None if v is None else max(-CHANGE_MOST, min(CHANGE_MOST, v)) for v in (value, low, high)]
        kind = "beyond" if cut[0] != value else "few" if s.few and field == "cost" else "plain"
        row = {"row": f"r{s.row}", "series": f"p{s.series}", "value": cut[0], "low": cut[1], "high": cut[2]}
        tone = "none" if field == "spend" else shift_tone(s)
        rows.append(row | {"kind": kind, "up": value > 0, "tone": tone})
    return rows


def shift_tone(shift: Shift) -> str:
    """ "better" or "worse" where the change of cost is decided and excludes zero, else "none"."""
    low, high = shift.decided
    if high is not None and high < 0:
        return "better"
    return "worse" if low is not None and low > 0 else "none"


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
    y = y.scale(domain=labels, paddingInner=0.2, paddingOuter=0.1)
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
    return alt.layer(*layers).properties(width=330, height=height)


def spec(plot: Plot) -> dict[str, Any]:
    """The Vega-Lite document of a chart, with the look that all share."""
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
    looked = plot.chart.configure(background="transparent", font="DejaVu Sans", aria=False, padding=4)
    looked = looked.configure_axis(**axis).configure_view(stroke=None)
    return {**looked.to_dict(validate=False), "datasets": plot.data.rows}
