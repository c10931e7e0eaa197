"""What can be known of each exchange (spec 3.6), and what one more log column would settle.

Exchanges differ in what they tell losers: one sends the price that won, another a loss reason, a third nothing. Only
asked where the log leaves something open. Shares are of the rows' weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bidsim.replay.batches import (
    COUNTED,
    DECIDED,
    ENTERED,
    ROW_PRICED,
    ROW_UNDECIDABLE,
    ROW_WON,
    UNKNOWN,
)
from bidsim.replay.logged import OWN_PRICE, ROW_LOST, SHOWN, Logged
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.stages import Stages
from bidsim.statistics.tallies import OVERALL, Family

MOST_EXCHANGES = 50
CLASSES = ("exact", "exact_loss", "unknown_win", "unknown_outcome", "undecidable")
# Of the wins that show bid and price, at least this share pays its own bid: a first-price auction.
LOOKS_FIRST_PRICE = 0.95
LEAST_WINS = 100


def exchanges(
    stages: Stages, bidders: Sequence[Bidder], outcomes: str, families: dict[str, Family], logged: Logged
) -> dict[str, Any]:
    """Diagnostics `exchanges`, the one with the most rows first, at most 50; nothing where every fate is known.

    Of each: rows, auction (as the scenario says), looks_like (as its wins look, null with fewer than 100), policies: the
    share of rows in each class; would_settle: log columns and the share of rows that some policy's fate hangs on.
    """
    plan, overall = stages.plan, families[OVERALL]
    open_ = any(overall.get(n, b.policy)[0] for b in bidders for n in ("unknown_wins", "unknown_outcomes"))
    if not (open_ or overall.get("undecidable")[0]):
        return {}
    asked = plan.has("exchange")
    found = []
    for name, rows, weight, first, shown, equal, undecidable, losses, wins, *classes in (
        _by_name(stages, bidders, outcomes) if asked else [_of_all(plan, bidders, logged)]
    ):

        def share(part: Any, whole: int = int(weight)) -> float:
            return int(part) / whole if whole else 0.0

        policies = {}
        for i, b in enumerate(bidders):
            mine = [*classes[4 * i : 4 * i + 4], undecidable]
            policies[plan.policies[b.policy].name] = dict(zip(CLASSES, map(share, mine), strict=True))
        looks = None
        if shown >= LEAST_WINS:
            looks = "first_price" if equal >= LOOKS_FIRST_PRICE * shown else "second_price"
        found.append(
            {
                "exchange": name,
                "rows": int(rows),
                "auction": "first_price" if first == rows else "second_price" if first == 0 else "mixed",
                "looks_like": looks,
                "policies": policies,
                "would_settle": _would_settle(plan, share(losses), share(wins), share(undecidable)),
            }
        )
    return {"exchanges": found}


def _by_name(stages: Stages, bidders: Sequence[Bidder], outcomes: str) -> list[tuple[Any, ...]]:
    """One more scan, grouped by exchange: of few columns, and only for logs that name their exchanges."""
    parts = []
    for b in bidders:
        k = b.key
        unknown, unseen = f"u_{k}", f"(d_{k} and not o_{k})"
        loss = f"(e_{k} and price is null and lost and not u_{k})"
        rules = (f"not {unknown} and not {unseen} and not {loss}", loss, unknown, unseen)
        parts += [f"sum(case when not undecidable and {rule} then wi else 0 end)" for rule in rules]
    some = " or ".join(f"u_{b.key}" for b in bidders)
    return stages.engine.rows(
        "select cast(exchange as varchar) as name, count(*), sum(wi), count_if(first_price), "
        "count_if(won and price is not null and bid_log is not null), count_if(won and price = bid_log), "
        f"sum(case when undecidable then wi else 0 end), sum(case when lost and ({some}) then wi else 0 end), "
        f"sum(case when won and ({some}) then wi else 0 end), {', '.join(parts)} "
        f"from {outcomes} group by name order by sum(wi) desc, name limit {MOST_EXCHANGES}"
    )


def _decidable(row: Any) -> Any:
    return (row & ROW_UNDECIDABLE) == 0


def _unknown(row: Any, state: Any) -> Any:
    return _decidable(row) & ((state & UNKNOWN) != 0)


def _unseen(row: Any, state: Any) -> Any:
    return _decidable(row) & ((state & DECIDED) != 0) & ((state & COUNTED) == 0)


def _loss(row: Any, state: Any) -> Any:
    lost = ((row & ROW_PRICED) == 0) & ((row & ROW_LOST) != 0)
    return _decidable(row) & ((state & ENTERED) != 0) & lost & ((state & UNKNOWN) == 0)


def _exact(row: Any, state: Any) -> Any:
    return _decidable(row) & ~(_unknown(row, state) | _unseen(row, state) | _loss(row, state))


def _of_all(plan: Plan, bidders: Sequence[Bidder], logged: Logged) -> tuple[Any, ...]:
    """The same of all rows, as the scan counted them."""
    classes = [logged.of_policy(i, rule) for i in range(len(bidders)) for rule in (_exact, _loss, _unknown, _unseen)]
    return (
        None,
        logged.total("rows"),
        logged.total("weight"),
        logged.total("rows", lambda row, bits, first: first) if plan.any_first_price else 0,
        logged.total("rows", lambda row, bits, first: (bits & SHOWN) != 0),
        logged.total("rows", lambda row, bits, first: (bits & OWN_PRICE) != 0),
        logged.total("weight", lambda row, bits, first: (row & ROW_UNDECIDABLE) != 0),
        logged.open_rows(lambda row: (row & ROW_LOST) != 0),
        logged.open_rows(lambda row: (row & ROW_WON) != 0),
        *classes,
    )


def _would_settle(plan: Plan, losses: float, wins: float, undecidable: float) -> list[dict[str, Any]]:
    """losses, wins: shares of rows that the log lost, or won, and that some policy may win or not."""
    out: list[dict[str, Any]] = []
    if losses + wins:
        out.append({"column": "price", "what": "the minimum bid to win, of lost auctions too", "rows": losses + wins})
    if losses and not plan.has("loss_reason"):
        out.append({"column": "loss_reason", "what": "which losses no price could have won", "rows": losses})
    if undecidable:
        out.append({"column": "won", "what": "whether the log won, or the price", "rows": undecidable})
    return out
