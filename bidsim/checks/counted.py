"""Counts of the whole log that the quick checks go by: asked of the engine, or left by the scan of a replay, which saw
every row anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bidsim.replay.batches import ROW_WON
from bidsim.replay.engines import AnyEngine
from bidsim.replay.logged import OWN_PRICE, REPLAYED, SHOWN, Logged
from bidsim.replay.plan import Plan


@dataclass(frozen=True)
class Counted:
    """Numbers of rows, whatever they weigh. won: by the log; no_click: of these without a click label; clicks: of these,
    no_conversion: of those without a conversion label; conversions: rows with some; pairs: won second-price rows that show
    a price and the log's own bid, above: of these with a price above the bid, equal: with a price that is the bid. spend:
    of the log's wins by campaign, in any unit; empty without campaigns. units: how many distinct ones, None without a unit."""

    won: int
    no_click: int
    clicks: int
    no_conversion: int
    conversions: int
    pairs: int
    above: int
    equal: int
    spend: Mapping[str, float]
    units: int | None


def count_rows(engine: AnyEngine, plan: Plan, formulas: str, *, exact: bool = True) -> Counted:
    """Asked of the engine. formulas: the view of the rows; exact: whether these are few enough to count units one by one."""
    click, conversion, bid = plan.has("click"), plan.has("conversion"), plan.has("bid")
    pairs = "won and not first_price and price is not null and bid_log is not null"
    sums = [
        "count_if(won)",
        "count_if(won and click is null)" if click else "0",
        "count_if(won and click = 1e0)" if click else "0",
        "count_if(won and click = 1e0 and conversion is null)" if click and conversion else "0",
        "count_if(conversion > 0e0)" if conversion else "0",
        f"count_if({pairs})" if bid else "0",
        f"count_if({pairs} and price > bid_log)" if bid else "0",
        f"count_if({pairs} and price = bid_log)" if bid else "0",
    ]
    if plan.unit != "row":
        sums.append("count(distinct unit)" if exact else "approx_count_distinct(unit)")
    spend: dict[str, float] = {}
    if plan.has("campaign"):
        by_campaign = engine.rows(
            "select coalesce(cast(campaign as varchar), 'null'), coalesce(sum(case when won then price * w end), 0e0) "
            f"from {formulas} group by 1"
        )
        spend = {str(name): float(total) for name, total in by_campaign}
    (row,) = engine.rows(f"select {', '.join(sums)} from {formulas}")
    won, no_click, clicks, no_conversion, conversions, pairs_seen, above, equal, *units = (int(n or 0) for n in row)
    return Counted(
        won, no_click, clicks, no_conversion, conversions, pairs_seen, above, equal, spend, units[0] if units else None
    )


def counted_by(plan: Plan, logged: Logged, campaigns: Sequence[str], units: int) -> Counted:
    """Left by the scan. campaigns: labels of the campaigns, as the scan codes them; empty without. units: as `UnitCount`
    knows them, each row without one for itself."""

    def second_price(rule: int, unless: int = 0) -> int:
        return logged.total("rows", lambda row, bits, first: ((bits & rule) == rule) & ((bits & unless) == 0) & ~first)

    seen = logged.labels
    return Counted(
        won=logged.total("rows", lambda row, bits, first: (row & ROW_WON) != 0),
        no_click=seen["no_click"],
        clicks=seen["clicks"],
        no_conversion=seen["no_conversion"],
        conversions=seen["conversions"],
        pairs=second_price(SHOWN),
        above=second_price(SHOWN, REPLAYED | OWN_PRICE),
        equal=second_price(SHOWN | OWN_PRICE),
        spend=dict(zip(campaigns, logged.spend(), strict=True)) if campaigns else {},
        units=None if plan.unit == "row" else units,
    )
