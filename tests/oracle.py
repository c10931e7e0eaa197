"""A naive replay: one row after the other, plain Python, written from the specification and from nothing else.

It shares no code with bidsim. Money is `Fraction`, so its sums are exact; times are datetimes; a log is a list of dicts
with the role names as keys and None for NULL.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]


@dataclass
class Policy:
    """pctr, pcvr: names of the row's prediction fields; formula: CPM bid from (row, pctr, pcvr)."""

    pctr: str
    pcvr: str | None
    formula: Callable[[Row, float | None, float | None], float | None]
    multiplier: float = 1.0
    min: float = 0.0
    max: float = math.inf
    round_down: bool = False


@dataclass
class Rules:
    first_price: bool = False
    ties_lose: bool = False
    zone: str = "UTC"
    budget: str | float | None = None  # a field of the row, or an amount in currency
    per: str = "day"
    never: bool = False
    even: bool = False
    window: tuple[datetime, datetime] | None = None  # of the log, for even pacing over all of it
    internal: bool = False
    has_win: bool = True


@dataclass
class Sums:
    bids: Fraction = Fraction(0)
    wins: Fraction = Fraction(0)
    spend: Fraction = Fraction(0)
    decided_spend: Fraction = Fraction(0)
    clicks: Fraction = Fraction(0)
    conversions: Fraction = Fraction(0)
    value: Fraction = Fraction(0)
    unknown_wins: Fraction = Fraction(0)
    unknown_outcomes: Fraction = Fraction(0)
    undecidable: Fraction = Fraction(0)
    invalid: Fraction = Fraction(0)
    predicted_clicks: float = 0.0


@dataclass
class Heads:
    """Labels, predictions and weights of the labelled rows with a valid prediction."""

    y: list[float] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    w: list[float] = field(default_factory=list)
    campaign: list[Any] = field(default_factory=list)


def valid(p: Any) -> float | None:
    if p is None or math.isnan(p) or p < 0 or p > 1:
        return None
    return float(p)


def local(row: Row, rules: Rules) -> datetime:
    """Wall clock of the row's time in the scenario's zone; a time without an offset is wall clock already."""
    ts: datetime = row["time"]
    return ts if ts.tzinfo is None else ts.astimezone(ZoneInfo(rules.zone))


def bid_of(policy: Policy, row: Row) -> float | None:
    pctr = valid(row[policy.pctr])
    pcvr = valid(row[policy.pcvr]) if policy.pcvr else None
    raw = policy.formula(row, pctr, pcvr)
    if raw is None:
        return None
    raw = raw * policy.multiplier
    if math.isnan(raw) or math.isinf(raw) or raw <= 0 or raw < policy.min:
        return None
    bid = min(raw, policy.max)
    return float(math.floor(bid)) if policy.round_down else bid


def replay(rows: list[Row], policy: Policy, rules: Rules, segment: str | None = None) -> dict[Any, Sums]:
    """Sums by segment value (key None: the whole log)."""
    sums: dict[Any, Sums] = defaultdict(Sums)
    spent: dict[Any, Fraction] = defaultdict(Fraction)
    order = list(range(len(rows)))
    kept = internal_winners(rows, policy, rules) if rules.internal else None
    if rules.budget is not None:
        late = datetime.max.replace(tzinfo=rows[0]["time"].tzinfo) if rows and rows[0].get("time") else None
        order.sort(key=lambda i: (rows[i].get("time") or late, rows[i].get("request") or 0, i) if late else (i,))
    for i in order:
        row = rows[i]
        weight = row.get("weight", 1.0)
        if weight is None or math.isnan(weight) or weight < 0:
            continue
        w = Fraction(weight)
        targets = [sums[None]] + ([sums[row[segment]]] if segment else [])
        price = row["price"]
        if price is not None and (math.isnan(price) or math.isinf(price) or price < 0):
            price = None
        if price is not None and row.get("floor") is not None:
            price = max(price, row["floor"])
        win = row.get("won") if rules.has_win else 1
        won, lost = win == 1, win == 0
        logged_bid = row.get("bid")
        undecidable = price is None and not lost and not (won and rules.first_price)
        click, conversion = row.get("click"), row.get("conversion")
        if "conversion" in row and conversion is None and click == 0:
            conversion = 0
        observed = won and click is not None and ("conversion" not in row or conversion is not None)
        for s in targets:
            s.undecidable += w if undecidable else 0
            invalid = valid(row[policy.pctr]) is None or (policy.pcvr is not None and valid(row[policy.pcvr]) is None)
            s.invalid += w if invalid else 0
        bid = bid_of(policy, row)
        if bid is None or undecidable or (kept is not None and i not in kept):
            continue
        cap = None
        if rules.budget is not None:
            limit = row[rules.budget] if isinstance(rules.budget, str) else rules.budget
            if limit is None:
                continue
            key = (row.get("campaign"), period(row, rules))
            left = Fraction(repr(float(limit))) - spent[key]
            released = Fraction(repr(float(limit))) * (elapsed(row, rules) if rules.even else 1)
            if spent[key] >= released:
                continue
            cap = left * 1000 / w if rules.never and w > 0 else None
        entered_bid = Fraction(bid) if cap is None else min(Fraction(bid), cap)
        for s in targets:
            s.bids += w
        beats = (lambda a, b: a > b) if rules.ties_lose else (lambda a, b: a >= b)
        wins = unknown = False
        if price is not None:
            wins = beats(entered_bid, Fraction(price))
        elif won:
            if logged_bid is not None and entered_bid >= Fraction(logged_bid):
                wins = True
            else:
                unknown = True
        else:
            unknown = entered_bid > Fraction(logged_bid if logged_bid is not None else 0)
        reason = row.get("loss_reason")
        if lost and reason is not None and reason not in (100, 101, 102):
            wins = unknown = False
        for s in targets:
            s.unknown_wins += w if unknown else 0
        if not wins:
            continue
        pays = (entered_bid if rules.first_price else Fraction(price)) / 1000 * w
        if rules.budget is not None:
            spent[key] += pays
        for s in targets:
            s.decided_spend += pays
            if not observed:
                s.unknown_outcomes += w
                continue
            s.wins += w
            s.spend += pays
            s.clicks += w * (click == 1)
            s.conversions += w * Fraction(conversion or 0)
            if row.get("target_cpa") is not None:
                s.value += w * Fraction(row["target_cpa"]) * Fraction(conversion or 0)
            s.predicted_clicks += float(w) * (valid(row[policy.pctr]) or 0.0)
    return sums


def period(row: Row, rules: Rules) -> Any:
    if rules.per == "total":
        return None
    if rules.per == "day":
        return local(row, rules).date()
    if rules.per == "hour":
        start = local(row, rules).replace(minute=0, second=0, microsecond=0)
        # Clocks that go back show an hour twice; as instants its two passes differ.
        return start if start.tzinfo is None else start.astimezone(UTC)
    return row[rules.per]


def elapsed(row: Row, rules: Rules) -> Fraction:
    """Share of the row's day, hour or window that has passed at the end of its minute."""
    if row.get("time") is None:
        return Fraction(1)
    ts, here = row["time"], local(row, rules)
    minute = ts.replace(second=0, microsecond=0) + timedelta(minutes=1)
    if rules.per == "total":
        assert rules.window is not None
        start, end = rules.window
    elif rules.per == "hour":
        return Fraction(here.minute + 1, 60)
    else:
        start = here.replace(hour=0, minute=0, second=0, microsecond=0)
        end = start + timedelta(days=1)
        if start.tzinfo is not None:  # instants: a day has 23 or 25 hours where clocks change
            start, end, minute = (t.astimezone(UTC) for t in (start, end, minute))
    return Fraction((minute - start) // timedelta(minutes=1), (end - start) // timedelta(minutes=1))


def internal_winners(rows: list[Row], policy: Policy, rules: Rules) -> set[int]:
    """Rows whose bid is the highest of its request; ties go to the smallest campaign, no campaign being the largest."""
    best: dict[Any, tuple[Any, ...]] = {}
    alone = set()
    for i, row in enumerate(rows):
        bid = bid_of(policy, row)
        if bid is None or not usable(row, rules):
            continue
        if row["request"] is None:
            alone.add(i)
            continue
        campaign = row["campaign"]
        rank = (-bid, campaign is None, campaign if campaign is not None else 0, i)
        best[row["request"]] = min(best.get(row["request"], rank), rank)
    return alone | {rank[-1] for rank in best.values()}


def usable(row: Row, rules: Rules) -> bool:
    """Whether a row counts at all: a weight, and a price or a logged result."""
    weight, price = row.get("weight", 1.0), row["price"]
    if weight is None or math.isnan(weight) or weight < 0:
        return False
    win = row.get("won") if rules.has_win else 1
    known = price is not None and math.isfinite(price) and price >= 0
    return known or win == 0 or (win == 1 and rules.first_price)


def heads(rows: list[Row], field_name: str, head: str, rules: Rules) -> Heads:
    """The labelled rows of a head with a valid prediction."""
    out = Heads()
    for row in rows:
        weight = row.get("weight", 1.0)
        if weight is None or math.isnan(weight) or weight < 0:
            continue
        won = (row.get("won") if rules.has_win else 1) == 1
        click, conversion = row.get("click"), row.get("conversion")
        y = None
        if head == "ctr" and won:
            y = click
        elif head == "cvr" and won and click == 1 and conversion is not None:
            y = float(conversion > 0)
        p = valid(row[field_name])
        if y is None or p is None:
            continue
        out.y.append(float(y))
        out.p.append(p)
        out.w.append(weight)
        out.campaign.append(row.get("campaign"))
    return out
