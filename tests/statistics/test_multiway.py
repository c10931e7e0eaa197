"""What campaigns would show that were not in the log: simulated markets with effects of users and of campaigns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bidsim.statistics.intervals import relative_interval
from bidsim.statistics.measured import total_of
from bidsim.statistics.multiway import if_campaigns_were_new
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import Outline, Tables
from bidsim.statistics.tallies import OVERALL, Family

Floats = npt.NDArray[np.float64]
CAMPAIGNS, BUCKETS = 40, 64


def tables(spend: tuple[Floats, Floats]) -> Tables:
    parts = {("spend", policy, None): np.round(sums * 1000) for policy, sums in enumerate(spend)}
    parts[("rows", None, None)] = np.full((len(spend[0]), BUCKETS), 100.0)
    whole = {
        key: np.array([int(v) for v in each.sum(axis=1)], dtype=object) if len(each) else np.zeros(0, dtype=object)
        for key, each in parts.items()
    }
    scales = {key: 1 if key[0] == "rows" else 1000 for key in parts}
    names = tuple(str(i) for i in range(len(spend[0])))
    family = Family("campaign", names, whole, scales, parts, BUCKETS)
    outline = Outline(("old", "new"), (), {}, (OVERALL, "campaign"), "campaign", False, False, False, (), 10_000)
    return Tables(outline, {"campaign": family}, {}, {}, {}, {})


def market(rng: np.random.Generator, by_campaign: float, by_user: float) -> tuple[Floats, Floats]:
    """Both policies' spend by campaign and bucket; the candidate's differs by campaign and by user, on average by none."""
    size = rng.lognormal(0, 0.5, (CAMPAIGNS, 1)) * rng.lognormal(0, 0.2, (1, BUCKETS))
    effect = by_campaign * rng.standard_normal((CAMPAIGNS, 1)) + by_user * rng.standard_normal((1, BUCKETS))
    old = size * rng.lognormal(0, 0.1, (CAMPAIGNS, BUCKETS))
    return old, old * (1 + effect + 0.05 * rng.standard_normal((CAMPAIGNS, BUCKETS)))


@pytest.mark.parametrize(("by_campaign", "by_user"), [(0.1, 0.1), (0.2, 0.02), (0.02, 0.2), (0.0, 0.0)])
def test_intervals_hold_what_new_users_and_new_campaigns_would_show(by_campaign: float, by_user: float) -> None:
    rng = np.random.default_rng(5)
    held = users_alone = 0
    for _ in range(200):
        spend = market(rng, by_campaign, by_user)
        low, high = if_campaigns_were_new(tables(spend), 0.95)["new"]["spend"]
        held += low <= 0 <= high
        by_bucket = [total_of(s.sum(axis=0, keepdims=True), np.array([s.sum()])) for s in spend]
        first, last = relative_interval(*by_bucket, Sample(0.95, np.full((1, BUCKETS), 100.0), 10_000))
        users_alone += bool(first[0] <= 0 <= last[0])
        # What campaigns add is never less than nothing.
        assert high - low > 0.9 * (last[0] - first[0])
    # Where effects are of neither, both dimensions count the same noise, and the interval is a little wide.
    assert 183 <= held <= 200
    if by_campaign > by_user:
        assert users_alone < 120


def test_few_campaigns_and_logs_without_any_say_nothing() -> None:
    rng = np.random.default_rng(1)
    few = tuple(s[:4] for s in market(rng, 0.1, 0.1))
    assert if_campaigns_were_new(tables((few[0], few[1])), 0.95) == {"new": {}}
