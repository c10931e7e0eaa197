"""The stream between the engine and the statistics: what is read of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bidsim.replay.measures import result_value
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.sql import render

STREAM_ROWS = 65_536


def stream_sql(
    plan: Plan,
    bidders: Sequence[Bidder],
    outcomes: str,
    starts: Sequence[Any] = (),
    where: str = "",
    sources: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    ties_lose: bool = False,
    fates: bool = False,
    dearer: bool = False,
) -> str:
    """The text of the stream: see sql/stream.sql. bidders: those whose outcomes are needed, and with them the log's own
    facts. sources, labels: indices of the predictions and heads of the labels that are needed, None for all.
    fates: whether rows of unknown fate are looked at, dearer: whether some of them may be wins of unknown cost."""
    wanted = range(len(plan.sources)) if sources is None else sources
    return render(
        "stream",
        outcomes=outcomes,
        weighted=plan.weighted,
        has_click=plan.has("click"),
        has_conversion=plan.has("conversion"),
        has_bid=plan.has("bid"),
        has_win=plan.has("won"),
        ties_lose=ties_lose,
        value=result_value(plan),
        any_first_price=plan.any_first_price,
        labels=plan.labels if labels is None else labels,
        bidders=bidders,
        starts=starts,
        fates=bidders if fates else (),
        dearer=dearer,
        targets=[t for t in ("target_cpc", "target_cpa") if fates and plan.has(t)],
        sources=[(i, plan.sources[i]) for i in wanted],
        segments=plan.segments,
        unit="unit",
        where=where,
    )
