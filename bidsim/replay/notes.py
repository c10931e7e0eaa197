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
        groups = stages.exhausted(bidders, outcomes)
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
            for name, (requests, bids, shown) in zip(names, stages.other_campaigns(bidders, outcomes), strict=True)
        }
    return notes


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
