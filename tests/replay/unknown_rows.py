"""The world of the tests of unknown rows: a log, and what each of its rows may have done, written out row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from small_logs import Row, replay

from bidsim.result import Range, Result

FORMULA = "100 * pctr"
CANDIDATE = {"new": {"columns": {"pctr": "pother"}}}
FATES = ("lost", "dear", "cheap")
# Of the rows unknown to both policies, also: where one bids more than the other, the price lies between their bids.
SHARED = (*FATES, *((field, fate) for field in ("pother", "pctr") for fate in ("dear", "cheap")))
SUMS = ("wins", "spend", "clicks", "conversions", "value")


def make_log(seed: int, n: int = 120, *, first_price: bool = False) -> list[Row]:
    """Second price: won rows show what they paid, some lost ones the price; the others only the bid that lost."""
    rng = np.random.default_rng([20261201, seed])
    rows: list[Row] = []
    for _ in range(n):
        market, bid = float(np.round(rng.exponential(8.0), 2)), float(np.round(rng.exponential(10.0), 2))
        won = bid >= market
        shown = (not first_price and won) or rng.random() < 0.2
        rows.append(
            {
                "campaign": int(rng.integers(1, 4)),
                "price": market if shown else None,
                "bid": bid,
                "won": int(won),
                "click": int(rng.random() < 0.3) if won else None,
                "conversion": float(rng.random() < 0.2) if won else None,
                "target_cpa": float(rng.choice([0.05, 0.1])),
                "weight": float(rng.choice([1.0, 2.0])),
                "pctr": float(np.float32(rng.uniform(0.01, 0.3))),
                "pother": float(np.float32(rng.uniform(0.01, 0.3))),
                "pcvr": float(np.float32(rng.uniform(0.1, 0.6))),
            }
        )
    return rows


def run(rows: list[Row], **keys: Any) -> Result:
    return replay(
        rows,
        bid={"formula": FORMULA},
        candidates=CANDIDATE,
        segments=["campaign"],
        performance_indicator_type="cpa",
        fidelity="warn",
        sample_type=["imp-click", "click-conversion"],
        **keys,
    )


def factors(rows: list[Row]) -> dict[str, float]:
    """Observed over predicted clicks of each prediction, and conversions per predicted conversion of the clicked rows."""
    shown = [r for r in rows if r["won"] and r["click"] is not None]
    out = {
        p: sum(r["weight"] * r["click"] for r in shown) / sum(r["weight"] * r[p] for r in shown)
        for p in ("pctr", "pother")
    }
    clicked = [r for r in shown if r["click"] == 1]
    hits = sum(r["weight"] * (r["conversion"] > 0) for r in clicked)
    out["pcvr"] = hits / sum(r["weight"] * r["pcvr"] for r in clicked)
    return out


def fate_of(row: Row, field: str, k: dict[str, float], first_price: bool) -> dict[str, dict[str, float]] | None:
    """What a row adds under each fate; None where nothing about it is unknown."""
    bid = 100 * row[field]
    price, won = row["price"], bool(row["won"])
    if price is not None:
        if bid < price or won:
            return None
        dear = cheap = bid if first_price else price  # won for sure, but nobody saw what came of it
    elif won:
        if not first_price or bid >= row["bid"]:
            return None
        dear = cheap = bid
    else:
        if bid <= row["bid"]:
            return None
        dear, cheap = bid, (bid if first_price else row["bid"])
    click = row["click"] if won else max(min(1.0, row[p] * k[p]) for p in ("pctr", "pother"))
    if won:
        conversion = row["conversion"]
    else:
        conversion = max(min(1.0, row[p] * row["pcvr"] * k[p] * k["pcvr"]) for p in ("pctr", "pother"))
    w = row["weight"]
    best = {"clicks": click, "conversions": conversion, "value": row["target_cpa"] * conversion}
    return {
        "lost": dict.fromkeys(SUMS, 0.0),
        "dear": {"wins": w, "spend": w * dear / 1000, "clicks": 0.0, "conversions": 0.0, "value": 0.0},
        "cheap": {"wins": w, "spend": w * cheap / 1000, **{name: w * v for name, v in best.items()}},
    }


def between(row: Row, field: str, k: dict[str, float], first_price: bool) -> dict[str, dict[str, float]]:
    """The fates of a row whose price only this policy's bid reaches: at its own bid, or just above the other's."""
    other = "pother" if field == "pctr" else "pctr"
    if row["price"] is not None or row[field] <= row[other]:
        return {fate: dict.fromkeys(SUMS, 0.0) for fate in FATES}
    fates = fate_of(row, field, k, first_price)
    assert fates is not None
    least = 100 * row[field if first_price else other]
    return {**fates, "cheap": {**fates["cheap"], "spend": row["weight"] * least / 1000}}


def counted(rows: list[Row], field: str, first_price: bool) -> dict[str, float]:
    out = dict.fromkeys((*SUMS, "bids"), 0.0)
    for r in rows:
        bid, w = 100 * r[field], r["weight"]
        if r["price"] is None and r["won"] and not first_price:
            continue
        out["bids"] += w
        if not r["won"]:
            continue
        if bid >= r["price"] if r["price"] is not None else bid >= r["bid"]:
            out["wins"] += w
            out["spend"] += w * (bid if first_price else r["price"]) / 1000
            out["clicks"] += w * r["click"]
            out["conversions"] += w * r["conversion"]
            out["value"] += w * r["target_cpa"] * r["conversion"]
    return out


def metrics(s: dict[str, float]) -> dict[str, float]:
    def over(a: float, b: float) -> float:
        return a / b if b else (math.inf if a > 0 else math.nan)

    return {
        **{name: s[name] for name in SUMS},
        "win_rate": over(s["wins"], s["bids"]),
        "cpm": over(1000 * s["spend"], s["wins"]),
        "ctr": over(s["clicks"], s["wins"]),
        "cvr": over(s["conversions"], s["clicks"]),
        "cpc": over(s["spend"], s["clicks"]),
        "cpa": over(s["spend"], s["conversions"]),
        "surplus": s["value"] - s["spend"],
        "roi": over(s["value"] - s["spend"], s["spend"]),
    }


def plus(base: dict[str, float], *more: dict[str, float]) -> dict[str, float]:
    return {name: v + sum(m.get(name, 0.0) for m in more) for name, v in base.items()}


def total(fates: list[dict[str, dict[str, float]]], fate: str) -> dict[str, float]:
    return {name: sum(f[fate][name] for f in fates) for name in SUMS}


def span(values: list[float]) -> tuple[float, float]:
    known = [v for v in values if not math.isnan(v)]
    return (min(known), max(known)) if known else (math.nan, math.nan)


def ends(found: Range | None) -> tuple[float, float]:
    """An end without a bound is null in the result."""
    if found is None:
        return math.nan, math.nan
    return -math.inf if found.low is None else found.low, math.inf if found.high is None else found.high
