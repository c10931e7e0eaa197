"""What the reduction sums: one whole number a row for each measure, so that no order of summation changes a digit.

`scale` turns a sum back (value = sum / scale). Counts keep their weight exactly where weights are whole (scale 1
without a weight column, 2^32 with one, weights <= 2^20); money is in 1e-9 currency per 1000 impressions; probabilities
and losses are fixed-point fractions of a power of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim import kernels
from bidsim.errors import LogError
from bidsim.replay.batches import COUNTED, DECIDED, ENTERED, ROW_PRICED, ROW_UNDECIDABLE, ROW_WON, UNKNOWN, Batch, Pick
from bidsim.replay.plan import Plan
from bidsim.statistics.tallies import MOST, Key, Tally, add_to_all

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MONEY_SCALE = 10**12
MOST_PAID = 9e9  # CPM times weight, as in sql/bids.sql
VALUE_SCALE = 10**9
BID_SCALE = 2**30
MOST_BID = 2.0**23
COUNT_BITS = 32
AMOUNT_BITS = 32
# Fixed-point digits of probabilities and losses: all that a double holds where a log is small enough to pay for it;
# above, roundings of 2^-41 a row average out.
FINE_BITS, COARSE_BITS = (52, 47), (40, 38)
FINE_ROWS = 1 << 21
CLIP = 1e-15
NO_LABEL = 2


def whole_money(cpm: Floats, weight: Floats) -> Ints:
    """What a row pays, in 1e-9 CPM times the weight, as sql/auctions.sql rounds it: shape (rows,). Nothing where cpm is NaN,
    and of what can't be paid the most that can."""
    return np.floor(np.clip(np.nan_to_num(cpm * weight), 0.0, MOST_PAID) * 1e9 + 0.5).astype(np.int64)


class Writer:
    """SQL of a row's value as a whole number, for the sums that the engine makes; knows whether the log is weighted."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted
        self.count_scale = 2**COUNT_BITS if weighted else 1

    def count(self, condition: str) -> tuple[str, int]:
        return f"case when {condition} then wi else 0 end", self.count_scale

    def amount(self, value: str, condition: str) -> tuple[str, int]:
        """A non-negative amount that may have a fraction (conversions of an attribution model)."""
        w = " * w" if self.weighted else ""
        fixed = f"cast(floor(({value}){w} * {2**AMOUNT_BITS}e0 + 0.5e0) as bigint)"
        return f"case when {condition} then {fixed} else 0 end", 2**AMOUNT_BITS


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


def log_loss(label: Floats, prediction: Floats) -> Floats:
    """-(y ln p + (1-y) ln(1-p)) for y in {0, 1}, p clipped to [1e-15, 1-1e-15] as scikit-learn does. shape (rows,)."""
    clipped = np.clip(prediction, CLIP, 1.0 - CLIP)
    return -np.log(np.where(label == 1, clipped, 1.0 - clipped))


class Adder:
    """Adds what the rows of a pick come to, in every family. tallies: one for each family of the batch."""

    def __init__(self, plan: Plan, tallies: list[Tally]) -> None:
        self.plan = plan
        self.tallies = tallies

    def whole(self, key: Key, pick: Pick, values: Ints | Floats | None) -> None:
        """values: whole numbers, shape (pick.count,); None: ones."""
        if pick.count == 0:
            return
        add_to_all(self.tallies, key, pick.rows, pick.batch.groups, pick.count, values)

    def count(self, key: Key, pick: Pick) -> None:
        """The rows' weights."""
        self.whole(key, pick, pick.take(pick.batch["wi"]) if self.plan.weighted else None)

    def fixed(self, key: Key, pick: Pick, values: Floats, scale: float) -> None:
        """values: in their own unit, shape (pick.count,), times the rows' weights as fixed-point numbers."""
        if pick.count == 0:
            return
        weights = pick.batch["w"] if self.plan.weighted else None
        sums = [tally.of(key) for tally in self.tallies]
        if kernels.sum_fixed(pick.count, pick.rows, values, weights, scale, MOST, pick.batch.groups, sums):
            raise LogError(
                f"a row's {key[0].replace('_', ' ')} is too large to be summed exactly; check the units of targets, "
                "conversions and weights",
                file=self.plan.source.files[0],
            )


def scales(plan: Plan) -> dict[Key, int]:
    """The scale of every sum that a plan asks for; a sum that no row adds to is zero."""
    count = 2**COUNT_BITS if plan.weighted else 1
    out: dict[Key, int] = {("rows", None, None): 1}
    for name in ("weight", "undecidable", "log_wins", "priced"):
        out[(name, None, None)] = count
    out[("log_price", None, None)] = MONEY_SCALE
    if plan.has("bid"):  # numbers of rows, whatever they weigh, as fidelity counts them
        out |= dict.fromkeys([("bids_compared", 0, None), ("bids_drifted", 0, None)], 1)
    if plan.has("click"):
        out[("log_clicks", None, None)] = count
    if plan.has("conversion"):
        out[("log_conversions", None, None)] = 2**AMOUNT_BITS
    for head in plan.heads:
        out[("labelled_rows", None, head)] = 1
    for policy in plan.policies:
        out |= {(name, policy.index, None): scale for name, scale in _policy_scales(plan, policy.index, count)}
        for head in plan.heads:
            names = {"n": count, "y": count, "clipped_predictions": count}
            names |= {"p": 2**plan.fraction_bits, "squared": 2**plan.fraction_bits, "loss": 2**plan.loss_bits}
            if policy.index > 0:
                names |= {"moved": 2**plan.fraction_bits, "moved_from": 2**plan.fraction_bits}
            out |= {(name, policy.index, head): scale for name, scale in names.items()}
        for head in plan.unjudged:
            out |= {("y", policy.index, head): count, ("p", policy.index, head): 2**plan.fraction_bits}
    return out


def _policy_scales(plan: Plan, policy: int, count: int) -> Iterator[tuple[str, int]]:
    for name in ("bids", "wins", "unknown_outcomes", "unknown_wins", "invalid_predictions"):
        yield name, count
    yield "spend", MONEY_SCALE
    yield "unobserved_spend", MONEY_SCALE
    if plan.has("click"):
        yield "clicks", count
    if plan.has("conversion"):
        yield "conversions", 2**AMOUNT_BITS
    if result_value(plan) is not None:
        yield "value", VALUE_SCALE
    if plan.prediction(policy, "ctr") is not None and plan.has("click"):
        yield "predicted_clicks", 2**plan.fraction_bits
    if plan.prediction(policy, "ctcvr") is not None and plan.has("conversion"):
        yield "predicted_conversions", 2**plan.fraction_bits
    if policy > 0:
        yield "bid_level", BID_SCALE
        yield "bid_level_from", BID_SCALE
        for side in ("gained", "lost"):
            yield f"wins_{side}", count
            yield f"spend_{side}", MONEY_SCALE
            if plan.has("click"):
                yield f"clicks_{side}", count
            if plan.has("conversion"):
                yield f"conversions_{side}", 2**AMOUNT_BITS


def add_log(add: Adder, batch: Batch) -> None:
    """What the log itself holds."""
    plan, row = add.plan, batch["row"]
    add.whole(("rows", None, None), batch.all, None)
    add.count(("weight", None, None), batch.all)
    add.count(("undecidable", None, None), batch.pick((row & ROW_UNDECIDABLE) != 0))
    won = batch.pick((row & ROW_WON) != 0)
    add.count(("log_wins", None, None), won)
    priced = batch.pick((row & ROW_PRICED) != 0)
    add.count(("priced", None, None), priced)
    add.whole(("log_price", None, None), priced, priced.take(batch["money"]))
    if plan.has("click"):
        add.count(("log_clicks", None, None), won.pick(won.take(batch["click"]) == 1))
    if plan.has("conversion"):
        converted = won.pick(won.take(batch["conversion"]) > 0)
        add.fixed(("log_conversions", None, None), converted, converted.take(batch["conversion"]), 2.0**AMOUNT_BITS)
    for head in plan.heads:
        add.whole(("labelled_rows", None, head), batch.pick(batch[f"y_{head}"] != NO_LABEL), None)


def add_policy(add: Adder, batch: Batch, i: int) -> None:
    """What a policy's bids come to."""
    plan, state = add.plan, batch[f"policy_{i}"]
    add.count(("bids", i, None), batch.pick((state & ENTERED) != 0))
    counted = batch.pick((state & COUNTED) != 0)
    _add_wins(add, counted, batch.cost(i), i, "")
    if i > 0:
        _add_disagreement(add, batch, i)
        _add_level(add, batch, i)
    decided = batch.pick((state & DECIDED) != 0)
    cost = batch.cost(i)
    unseen = decided.pick(decided.take(state) & COUNTED == 0)
    add.count(("unknown_outcomes", i, None), unseen)
    add.whole(("unobserved_spend", i, None), unseen, unseen.take(cost))
    add.count(("unknown_wins", i, None), batch.pick((state & UNKNOWN) != 0))
    if "value" in batch.columns:
        worth = counted.pick(counted.take(batch["value"]) != 0)
        add.fixed(("value", i, None), worth, worth.take(batch["value"]), VALUE_SCALE)
    used = [batch[f"score_{plan.sources.index(p.valid)}"] for p in plan.used(i)]
    add.count(("invalid_predictions", i, None), batch.pick(np.isnan(sum(used[1:], start=used[0]))))
    for name, head, role in (("predicted_clicks", "ctr", "click"), ("predicted_conversions", "ctcvr", "conversion")):
        sql = plan.prediction(i, head)
        if sql is not None and plan.has(role):
            predicted = np.nan_to_num(counted.take(batch[f"score_{plan.sources.index(sql)}"]), nan=0.0)
            add.fixed((name, i, None), counted, predicted, 2.0**add.plan.fraction_bits)


def _add_wins(add: Adder, won: Pick, cost: Ints, i: int, side: str) -> None:
    """Wins of a policy with their money and results. cost: of the batch's rows."""
    plan, batch = add.plan, won.batch
    add.count((f"wins{side}", i, None), won)
    add.whole((f"spend{side}", i, None), won, won.take(cost))
    if plan.has("click"):
        add.count((f"clicks{side}", i, None), won.pick(won.take(batch["click"]) == 1))
    if plan.has("conversion"):
        converted = won.pick(won.take(batch["conversion"]) > 0)
        amounts = converted.take(batch["conversion"])
        add.fixed((f"conversions{side}", i, None), converted, amounts, 2.0**AMOUNT_BITS)


def _add_disagreement(add: Adder, batch: Batch, i: int) -> None:
    """Where a candidate and the baseline decide differently: wins that only one of them has, at its own cost."""
    ours, theirs = (batch[f"policy_{k}"] & COUNTED for k in (0, i))
    _add_wins(add, batch.pick(theirs > ours), batch.cost(i), i, "_gained")
    _add_wins(add, batch.pick(theirs < ours), batch.cost(0), i, "_lost")


def _add_level(add: Adder, batch: Batch, i: int) -> None:
    """Both bids where both policies bid: their ratio is how far the candidate's level has moved.

    Bids that no price can reach say nothing of a level.
    """
    ours, theirs = batch["bid_0"], batch[f"bid_{i}"]
    both = batch.pick((ours < MOST_BID) & (theirs < MOST_BID))
    add.fixed(("bid_level", i, None), both, both.take(theirs), BID_SCALE)
    add.fixed(("bid_level_from", i, None), both, both.take(ours), BID_SCALE)


def add_calibration(add: Adder, batch: Batch, i: int, head: str) -> tuple[Pick, npt.NDArray[Any], Floats]:
    """What a policy's head predicts for the labelled rows and what came: (the rows, labels, predictions)."""
    score = batch[f"score_{add.plan.source_of(i, head)}"]
    label = batch[f"y_{head}"]
    usable = batch.pick((label != NO_LABEL) & ~np.isnan(score))
    y, p = usable.take(label), usable.take(score)
    add.count(("y", i, head), usable.pick(y == 1))
    add.fixed(("p", i, head), usable, p, 2.0**add.plan.fraction_bits)
    return usable, y, p


def add_head(add: Adder, batch: Batch, i: int, head: str) -> None:
    """How well a policy's head predicts the labelled rows."""
    usable, y, p = add_calibration(add, batch, i, head)
    add.count(("n", i, head), usable)
    add.fixed(("loss", i, head), usable, log_loss(y, p), 2.0**add.plan.loss_bits)
    add.fixed(("squared", i, head), usable, (p - y) ** 2, 2.0**add.plan.fraction_bits)
    add.count(("clipped_predictions", i, head), usable.pick((p < CLIP) | (p > 1.0 - CLIP)))
    if i > 0:
        base = usable.take(batch[f"score_{add.plan.source_of(0, head)}"])
        paired = usable.pick(~np.isnan(base))
        before = paired.take(batch[f"score_{add.plan.source_of(0, head)}"])
        moved = np.abs(paired.take(batch[f"score_{add.plan.source_of(i, head)}"]) - before)
        add.fixed(("moved", i, head), paired, moved, 2.0**add.plan.fraction_bits)
        add.fixed(("moved_from", i, head), paired, before, 2.0**add.plan.fraction_bits)
