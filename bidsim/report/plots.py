"""What the charts show, as plain data: the kind of each and its arguments, for whoever draws it (`charts`, here or in
another process). A chart that would have nothing to show is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bidsim.report.segments import Shift, Shifts
from bidsim.result import CalibrationBin, CalibrationCurve, FrontierPoint

CANDIDATES = 4
SERIES = [f"p{n}" for n in range(CANDIDATES + 1)]
TONES = ["better", "worse", "none"]
LABEL_COLUMNS = 26
RATIO_MOST = 2.5
CHANGE_MOST = 1.0

Rows = list[dict[str, Any]]
Kind = Literal["reliability", "ratio", "frontier", "learning", "campaigns"]


@dataclass(frozen=True)
class Plot:
    """A chart before it is drawn. arguments: those of the function of `charts` for its kind, all of them JSON."""

    kind: Kind
    arguments: Mapping[str, Any]


def drawable(b: CalibrationBin) -> bool:
    """Whether a bin has a place on logarithmic axes."""
    return b.predicted > 0 and b.observed > 0


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


def reliability(curves: Sequence[CalibrationCurve]) -> Plot | None:
    """Observed against predicted; None where no bin has a positive label."""
    rows = [r for r in _curve_rows(curves) if r["observed"] > 0]
    return Plot("reliability", {"rows": rows}) if rows else None


def ratio(curves: Sequence[CalibrationCurve], band: tuple[float, float] | None = None) -> Plot | None:
    """Observed / predicted over predicted. band: what the gate allows overall."""
    rows = _curve_rows(curves)
    return Plot("ratio", {"rows": rows, "band": band}) if rows else None


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
    """Results, or the cost of one, over spend. rows: `frontier_rows`; spend: the baseline's."""
    known = [r for r in rows if r[y_field] is not None]
    if not known or max(r["spend"] for r in known) <= 0:
        return None
    return Plot("frontier", {"rows": known, "spend": spend, "y_field": y_field, "y_title": y_title, "x_title": x_title})


def learning(rows: Rows, x_title: str) -> Plot | None:
    """Log loss while models learn. rows: dicts of series, at, logloss and kept."""
    return Plot("learning", {"rows": rows, "x_title": x_title}) if rows else None


def campaigns(shifts: Shifts, spend_title: str, cost_title: str) -> Plot:
    """Relative change of spend and of the cost per result, one row a campaign."""
    panels = [
        {"title": title, "rows": _campaign_rows(shifts, field)}
        for field, title in (("spend", spend_title), ("cost", cost_title))
    ]
    series = sorted({s.series for s in shifts.shifts})
    return Plot("campaigns", {"panels": panels, "labels": len(shifts.labels), "series": series})


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
