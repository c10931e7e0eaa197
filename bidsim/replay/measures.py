"""What the scan sums: one whole number a row for each measure, so that no order of summation changes a digit.

A measure is a row's SQL value scaled to a whole number; `scale` turns the sum back (value = sum / scale). Counts keep
their weight exactly where weights are whole (scale 1 without a weight column, 2^32 with one, weights <= 2^20); money
is in 1e-9 currency per 1000 impressions; probabilities and losses are fixed-point fractions of a power of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.scenario.schema import Head
from bidsim.statistics.tallies import Key

MONEY_SCALE = 10**12
VALUE_SCALE = 10**9
COUNT_BITS = 32


@dataclass(frozen=True)
class Measure:
    """One sum of the scan. key: (name, policy index or None, head or None)."""

    key: Key
    sql: str
    scale: int


class Writer:
    """Turns SQL values of a row into whole numbers; knows whether the log is weighted."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted
        self.count_scale = 2**COUNT_BITS if weighted else 1

    def count(self, condition: str) -> tuple[str, int]:
        return f"case when {condition} then wi else 0 end", self.count_scale

    def amount(self, value: str, condition: str) -> tuple[str, int]:
        """A non-negative amount that may have a fraction (conversions of an attribution model)."""
        w = " * w" if self.weighted else ""
        fixed = f"cast(floor(({value}){w} * {2**COUNT_BITS}e0 + 0.5e0) as bigint)"
        return f"case when {condition} then {fixed} else 0 end", 2**COUNT_BITS

    def fraction(self, value: str, condition: str, *, most: float = 1.0) -> tuple[str, int]:
        """A value in [0, most], NULL counting as nothing. Leaves room for weights up to 2^20 in 63 bits."""
        bits = (61 if not self.weighted else 41) - (6 if most > 1 else 0)
        w = " * w" if self.weighted else ""
        fixed = f"cast(floor(({value}){w} * {2**bits}e0 + 0.5e0) as bigint)"
        return f"case when {condition} then {fixed} else 0 end", 2**bits

    def value(self, value: str, condition: str) -> tuple[str, int]:
        """Money in currency."""
        w = " * w" if self.weighted else ""
        fixed = f"cast(floor(({value}){w} * {VALUE_SCALE}e0 + 0.5e0) as bigint)"
        return f"case when {condition} then {fixed} else 0 end", VALUE_SCALE


def result_value(plan: Plan) -> str | None:
    """SQL of a row's value in currency: target x result by the performance indicator; the other target fills gaps."""
    terms = {
        "cpa": "target_cpa * conversion" if plan.has("target_cpa") and plan.has("conversion") else None,
        "cpc": "target_cpc * click" if plan.has("target_cpc") and plan.has("click") else None,
    }
    order = [plan.indicator, "cpc" if plan.indicator == "cpa" else "cpa"]
    usable = [t for t in (terms[k] for k in order) if t]
    if not usable:
        return None
    return f"coalesce({', '.join(usable)})" if len(usable) > 1 else usable[0]


def log_loss(label: str, prediction: str) -> str:
    """SQL of -(y ln p + (1-y) ln(1-p)) for y in {0, 1}, p clipped to [1e-15, 1-1e-15] as scikit-learn does."""
    clipped = f"least(greatest({prediction}, 1e-15), 1e0 - 1e-15)"
    return f"-ln(case when {label} = 1e0 then {clipped} else 1e0 - {clipped} end)"


def scan_measures(plan: Plan, bidders: list[Bidder]) -> list[Measure]:
    """All sums of the main scan, for the log and for each policy (bidders[i] is policy i)."""
    write = Writer(plan.weighted)
    measures = [Measure(key, sql, scale) for key, (sql, scale) in _log_sums(plan, write)]
    for bidder in bidders:
        measures += [Measure(key, sql, scale) for key, (sql, scale) in _policy_sums(plan, write, bidder)]
        for head in plan.heads:
            measures += [Measure(key, sql, scale) for key, (sql, scale) in _head_sums(plan, write, bidder.policy, head)]
    return measures


Sums = Iterator[tuple[Key, tuple[str, int]]]


def _log_sums(plan: Plan, write: Writer) -> Sums:
    yield ("rows", None, None), ("1", 1)
    yield ("weight", None, None), ("wi", write.count_scale)
    yield ("undecidable", None, None), write.count("undecidable")
    yield ("log_wins", None, None), write.count("won")
    yield (
        ("log_price", None, None),
        (
            "case when price is not null then cast(floor(price * w * 1e9 + 0.5e0) as bigint) else 0 end",
            MONEY_SCALE,
        ),
    )
    yield ("priced", None, None), write.count("price is not null")
    if plan.has("click"):
        yield ("log_clicks", None, None), write.count("won and click = 1e0")
    if plan.has("conversion"):
        yield ("log_conversions", None, None), write.amount("conversion", "won and conversion is not null")
    for head in plan.heads:
        yield ("labelled_rows", None, head), (f"case when y_{head} is not null then 1 else 0 end", 1)


def _policy_sums(plan: Plan, write: Writer, bidder: Bidder) -> Sums:
    i, k = bidder.policy, bidder.key
    yield ("bids", i, None), write.count(f"e_{k}")
    yield ("wins", i, None), write.count(f"o_{k}")
    yield ("unknown_outcomes", i, None), write.count(f"d_{k} and not o_{k}")
    yield ("unknown_wins", i, None), write.count(f"u_{k}")
    yield ("spend", i, None), (f"case when o_{k} then cost_{k} else 0 end", MONEY_SCALE)
    yield ("decided_spend", i, None), (f"cost_{k}", MONEY_SCALE)
    if plan.has("click"):
        yield ("clicks", i, None), write.count(f"o_{k} and click = 1e0")
    if plan.has("conversion"):
        yield ("conversions", i, None), write.amount("conversion", f"o_{k}")
    value = result_value(plan)
    if value is not None:
        yield ("value", i, None), write.value(f"coalesce({value}, 0e0)", f"o_{k}")
    own = [p for p in plan.predictions if p.policy == i]
    invalid = " or ".join(f"{p.valid} is null" for p in own) or "false"
    yield ("invalid_predictions", i, None), write.count(f"({invalid})")
    ctr, both = plan.prediction(i, "ctr"), plan.prediction(i, "ctcvr")
    if ctr is not None and plan.has("click"):
        yield ("predicted_clicks", i, None), write.fraction(f"coalesce({ctr}, 0e0)", f"o_{k}")
    if both is not None and plan.has("conversion"):
        yield ("predicted_conversions", i, None), write.fraction(f"coalesce({both}, 0e0)", f"o_{k}")


def _head_sums(plan: Plan, write: Writer, policy: int, head: Head) -> Sums:
    p, base = plan.prediction(policy, head), plan.prediction(0, head)
    y = f"y_{head}"
    usable = f"{y} is not null and {p} is not null"
    yield ("n", policy, head), write.count(usable)
    yield ("y", policy, head), write.count(f"{usable} and {y} = 1e0")
    yield ("p", policy, head), write.fraction(str(p), usable)
    yield ("loss", policy, head), write.fraction(log_loss(y, str(p)), usable, most=35.0)
    yield ("squared", policy, head), write.fraction(f"({p} - {y}) * ({p} - {y})", usable)
    yield ("clipped_predictions", policy, head), write.count(f"{usable} and ({p} < 1e-15 or {p} > 1e0 - 1e-15)")
    if policy > 0:
        paired = f"{usable} and {base} is not null"
        yield ("moved", policy, head), write.fraction(f"abs({p} - {base})", paired)
        yield ("moved_from", policy, head), write.fraction(str(base), paired)
