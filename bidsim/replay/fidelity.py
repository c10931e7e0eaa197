"""Does the replay reproduce the log? The logged bids go through the same auction and must give what the log says.

Exactly: wins, spend, clicks and conversions, without a budget (the log's own pacing already decided which bids were
made). Beside it, how far the baseline's recomputed bids are from the logged ones (spec section 5).
"""

from __future__ import annotations

from bidsim.replay.engines import AnyEngine
from bidsim.replay.measures import MONEY_SCALE, Writer
from bidsim.replay.plan import Plan
from bidsim.replay.sql import render
from bidsim.result import Fidelity


def check_fidelity(engine: AnyEngine, plan: Plan, bids: str, *, ties_lose: bool) -> Fidelity:
    """bids: relation with the baseline's recomputed bid as bid_0. Not checked where the log has no bids of its own."""
    if not plan.has("bid"):
        return Fidelity(checked=False, passed=None)
    write = Writer(plan.weighted)
    paid = "cast(floor(least(coalesce(case when first_price then bid_log else price end, 0e0) * w, 9e9) * 1e9 + 0.5e0) as bigint)"
    conversions, conversion_scale = write.amount("conversion", "conversion is not null")
    sql = render(
        "fidelity",
        outcomes=bids,
        ties_lose=ties_lose,
        has_win=plan.has("won"),
        paid=paid,
        clicks="(case when click = 1e0 then wi else 0 end)",
        conversions=f"({conversions})",
    )
    names = [name for name, _ in engine.names(sql)]
    row = dict(zip(names, (int(v or 0) for v in engine.rows(sql)[0]), strict=True))
    scales = {
        "wins": write.count_scale,
        "spend": MONEY_SCALE,
        "clicks": write.count_scale,
        "conversions": conversion_scale,
    }
    present = {"wins": True, "spend": True, "clicks": plan.has("click"), "conversions": plan.has("conversion")}
    log, replayed = (
        {name: row[f"{side}_{name}"] / scale if present[name] else None for name, scale in scales.items()}
        for side in ("log", "replayed")
    )
    same = all(row[f"log_{name}"] == row[f"replayed_{name}"] for name in scales)
    return Fidelity(
        checked=True,
        passed=same and row["mismatched"] == 0,
        log=log,
        replayed=replayed,
        mismatched_rows=row["mismatched"],
        formula_drift=row["drifted"] / row["bid_rows"] if row["bid_rows"] else None,
    )
