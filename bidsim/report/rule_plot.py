"""A rule's outcome as a small picture: the allowed region shaded, the interval a line, the value a mark on it.

Together, one below the other in the gate's table, they are the forest plot of all rules. Rules bound different things,
so each picture has its own scale. Marks differ by shape as well as by colour; the numbers stand beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bidsim.result import RuleOutcome

WIDTH, HEIGHT = 120, 18
MIDDLE = HEIGHT / 2
PAD = 0.07
_COLOUR = {"fail": "var(--fail)", "warn": "var(--warn)", "pass": "var(--pass)"}


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(min(max(share, -0.02), 1.02) * WIDTH, 1)


def rule_plot(outcome: RuleOutcome, action: str) -> str:
    """Inline SVG, "" where there is nothing to place. action: as the gate's table says it."""
    value, allowed = outcome.quantity, outcome.allowed
    if value is None or allowed is None:
        return ""
    known = [v for v in (value, outcome.low, outcome.high, allowed.low, allowed.high) if v is not None]
    if outcome.judged != "value":
        known.append(0.0)
    spread = max(known) - min(known)
    if not math.isfinite(spread):
        return ""
    pad = spread * PAD or max(abs(value) * PAD, 1e-9)
    scale = _Scale(min(known) - pad, max(known) + pad)
    left = 0.0 if allowed.low is None else scale.at(allowed.low)
    right = float(WIDTH) if allowed.high is None else scale.at(allowed.high)
    colour = _COLOUR.get(action, "var(--none)")
    parts = [
        f'<rect x="{left:g}" y="1" width="{max(right - left, 0.8):g}" height="{HEIGHT - 2}" fill="var(--allowed)"/>'
    ]
    for edge, x in ((allowed.low, left), (allowed.high, right)):
        if edge is not None:
            parts.append(_line(x, x, 1, HEIGHT - 1, "var(--ink-3)", 1))
    if outcome.judged != "value":
        zero = scale.at(0.0)
        parts.append(_line(zero, zero, 3, HEIGHT - 3, "var(--ink-3)", 1, "1.5 1.5"))
    span = outcome.identified
    if span is not None:
        ends = (0.0 if span.low is None else scale.at(span.low), WIDTH if span.high is None else scale.at(span.high))
        parts.append(_line(ends[0], ends[1], MIDDLE, MIDDLE, colour, 1, "2 2"))
    if outcome.low is not None and outcome.high is not None:
        parts.append(_line(scale.at(outcome.low), scale.at(outcome.high), MIDDLE, MIDDLE, colour, 2))
    parts.append(_mark(scale.at(value), outcome.status, colour))
    body = "".join(parts)
    return f'<svg class="rule" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">{body}</svg>'


def _line(x1: float, x2: float, y1: float, y2: float, colour: str, width: float, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:g}" x2="{x2:g}" y1="{y1:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def _mark(x: float, status: str, colour: str) -> str:
    """A disc passes, a square fails, anything between is a ring."""
    if status == "fail":
        return f'<rect x="{x - 4:g}" y="{MIDDLE - 4:g}" width="8" height="8" fill="{colour}"/>'
    if status == "pass":
        return f'<circle cx="{x:g}" cy="{MIDDLE:g}" r="4" fill="{colour}"/>'
    return f'<circle cx="{x:g}" cy="{MIDDLE:g}" r="3.5" fill="var(--bg)" stroke="{colour}" stroke-width="1.5"/>'
