"""Diagnostics of the result: what only settled rows can tell (when budgets ran out, whose ad would be shown), and what
the models say of their own training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder, PolicyPlan
from bidsim.replay.stages import Stages

MOST_GROUPS = 1_000


def observe(plan: Plan, stages: Stages, bidders: Sequence[Bidder], outcomes: str) -> dict[str, Any]:
    """Diagnostics by name.

    budget: of each campaign and period in which some policy lost an auction for want of money, when each first did
    (local time; null: never), the first 1,000 of them, and how many there are for each policy.
    internal: by policy, over the requests whose ad the log shows and in which the policy bids: how many there are, the
    share where another campaign's bid is its highest, and the share where that bid wins for certain.
    """
    names = [plan.policies[b.policy].name for b in bidders]
    notes: dict[str, Any] = {}
    if plan.budgeted:
        groups = _exhausted(stages, bidders, outcomes)
        notes["budget"] = {
            "exhausted": {name: sum(g[2 + i] is not None for g in groups) for i, name in enumerate(names)},
            "exhausted_at": [
                {"campaign": g[0], "period": g[1], "at": dict(zip(names, g[2:], strict=True))}
                for g in groups[:MOST_GROUPS]
            ],
        }
    if plan.internal:
        notes["internal"] = {
            name: {
                "requests": requests,
                "other_campaign_bids": bids / requests if requests else None,
                "other_campaign_shown": shown / requests if requests else None,
            }
            for name, (requests, bids, shown) in zip(names, _other_campaigns(stages, bidders, outcomes), strict=True)
        }
    return notes


def _exhausted(stages: Stages, bidders: Sequence[Bidder], name: str) -> list[tuple[Any, ...]]:
    """(campaign, period, first time at which each bidder's money had run out) of every group that ran short."""
    if not stages.plan.budgeted or not stages.plan.time_kind:
        return []
    first = ", ".join(
        f"strftime(min(case when short_{b.key} then local_ts end), '%Y-%m-%dT%H:%M') as t_{b.key}" for b in bidders
    )
    some = " or ".join(f"short_{b.key}" for b in bidders)
    return stages.engine.rows(
        f"select cast(campaign as varchar), cast(period as varchar), {first} from {name}_settled where {some} "
        "group by campaign, period order by campaign, period"
    )


def _other_campaigns(stages: Stages, bidders: Sequence[Bidder], name: str) -> list[tuple[int, int, int]]:
    """For each bidder, of the requests whose winner the log shows and in which it bids: how many there are, in how
    many another campaign's bid is its highest, and in how many that bid wins for certain."""
    parts = ", ".join(
        f"bool_or(bid_{b.key} is not null) as any_{b.key}, "
        f"bool_or(won and bid_{b.key} is not null) as same_{b.key}, "
        f"bool_or(d_{b.key} and not won) as other_{b.key}"
        for b in bidders
    )
    sums = ", ".join(
        f"count_if(any_{b.key}), count_if(any_{b.key} and not same_{b.key}), count_if(other_{b.key} and not same_{b.key})"
        for b in bidders
    )
    (row,) = stages.engine.rows(
        f"select {sums} from (select request, bool_or(won) as shown, {parts} from {name} "
        "where request is not null group by request) where shown"
    )
    return [(row[i], row[i + 1], row[i + 2]) for i in range(0, len(row), 3)]


def training(policies: Sequence[PolicyPlan]) -> dict[str, Any]:
    """Learning curves by policy and head, where a bundle has them; nothing at all where none has."""
    found = {
        policy.name: {
            head: curve.model_dump(mode="json", exclude_none=True)
            for head, curve in policy.bundle.manifest.learning_curve.items()
        }
        for policy in policies
        if policy.bundle is not None and policy.bundle.manifest.learning_curve
    }
    return {"training": found} if found else {}
