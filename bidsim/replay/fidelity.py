"""Does the replay reproduce the log? The logged bids go through the same auction and must give what the log says.

Exactly: wins, spend, clicks and conversions, without a budget (the log's own pacing already decided which bids were
made). Beside it, how far the baseline's recomputed bids are from the logged ones (spec section 5).
"""

from __future__ import annotations

from typing import Any

from bidsim.replay.batches import ROW_WON
from bidsim.replay.findings import won_without_bid
from bidsim.replay.logged import BLOCKED, COMPARABLE, DRIFTED, HAS_BID, REPLAYED, Logged
from bidsim.replay.measures import AMOUNT_BITS, COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.result import Fidelity


def check_fidelity(plan: Plan, logged: Logged) -> Fidelity:
    """logged: what the scan counted. Not checked where the log has no bids of its own; a finding of the plan where some
    wins have none."""
    if not plan.has("bid"):
        return Fidelity(checked=False, passed=None)
    count_scale = 2**COUNT_BITS if plan.weighted else 1
    scales = {"wins": count_scale, "spend": MONEY_SCALE, "clicks": count_scale, "conversions": 2**AMOUNT_BITS}
    sums = {"wins": "weight", "spend": "paid", "clicks": "clicks", "conversions": "conversions"}
    present = {"wins": True, "spend": True, "clicks": plan.has("click"), "conversions": plan.has("conversion")}

    def comparable(rule: Any) -> Any:
        return lambda row, bits, _: ((bits & COMPARABLE) != 0) & rule((row & ROW_WON) != 0, bits)

    def wins(won: Any, bits: Any) -> Any:
        return ((bits & REPLAYED) != 0) & ((bits & BLOCKED) == 0)

    def both(won: Any, bits: Any) -> Any:
        return ((bits & REPLAYED) != 0) & won

    log = {n: logged.total(sums[n], comparable(lambda won, bits: won)) for n in scales}
    # Outcomes are known of the rows that the log won, so that is where results are compared.
    rules = {"wins": wins, "spend": wins, "clicks": both, "conversions": both}
    replayed = {n: logged.total(sums[n], comparable(rule)) for n, rule in rules.items()}
    mismatched = logged.total(
        "rows",
        comparable(lambda won, bits: (((bits & REPLAYED) != 0) != won) & (((bits & BLOCKED) == 0) | won)),
    )
    lacking = logged.total("rows", comparable(lambda won, bits: won & ((bits & HAS_BID) == 0)))
    if lacking:
        plan.findings.append(won_without_bid(lacking))
    bids = logged.total("rows", comparable(lambda won, bits: (bits & HAS_BID) != 0))
    if not bids and not lacking:
        return Fidelity(checked=False, passed=None)  # a column of bids that holds none
    drifted = logged.total("rows", comparable(lambda won, bits: (bits & DRIFTED) != 0))
    return Fidelity(
        checked=True,
        passed=log == replayed and mismatched == 0,
        log={n: log[n] / scale if present[n] else None for n, scale in scales.items()},
        replayed={n: replayed[n] / scale if present[n] else None for n, scale in scales.items()},
        mismatched_rows=mismatched,
        formula_drift=drifted / bids if bids else None,
    )
