"""Intervals against textbook formulas and the bootstrap, and what must be null."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bidsim.statistics import metrics
from bidsim.statistics.auc import auc_of
from bidsim.statistics.halves import by_stratum
from bidsim.statistics.intervals import absolute_interval, interval, lone, relative_interval
from bidsim.statistics.measured import Measured, is_unseen, ratio_of, total_of
from bidsim.statistics.metrics import Values, differences, economic_values
from bidsim.statistics.spread import Sample
from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]

BUCKETS = 256


def sample(rows: np.ndarray | None = None, units: int = 10**9) -> Sample:
    return Sample(0.95, np.ones((1, BUCKETS)) if rows is None else rows, units)


def test_a_mean_of_equal_buckets_has_the_textbook_interval() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(10, 1, (1, BUCKETS))
    low, high = interval(ratio_of(x.mean(axis=1), x, np.ones_like(x), log=False), sample())
    half = stats.sem(x[0]) * stats.t.ppf(0.975, BUCKETS - 1)
    assert low[0] == pytest.approx(x.mean() - half, abs=2e-3)
    assert high[0] == pytest.approx(x.mean() + half, abs=2e-3)


def test_a_ratio_and_its_paired_change_are_the_bootstraps() -> None:
    rng = np.random.default_rng(7)
    size = rng.lognormal(0, 0.5, (1, BUCKETS))
    spend = [size * rng.normal(m, 0.2, (1, BUCKETS)) for m in (5, 5.5)]
    clicks = [rng.poisson(20 * size) + 0.0, rng.poisson(20 * size) + 0.0]
    policies = [ratio_of(s.sum(axis=1) / c.sum(axis=1), s, c) for s, c in zip(spend, clicks, strict=True)]
    weights = rng.multinomial(BUCKETS, np.full(BUCKETS, 1 / BUCKETS), 4000)
    drawn = [(weights @ s[0]) / (weights @ c[0]) for s, c in zip(spend, clicks, strict=True)]
    low, high = relative_interval(*policies, sample())
    expected = np.quantile(drawn[1] / drawn[0] - 1, [0.025, 0.975])
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=0.006)
    low, high = absolute_interval(*policies, sample())
    expected = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=0.002)


def test_nothing_is_said_relative_to_a_surplus_that_may_be_zero_or_half_of_what_it_seems() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0, 1.0, (5, BUCKETS))
    # In standard errors: a third of one, three either way (clear of zero, by luck where many are looked at), eighty.
    ours = noise - noise.mean(axis=1, keepdims=True) + [[0.02], [0.19], [-0.19], [5.0], [-5.0]]
    theirs = ours + rng.normal(0.1, 0.1, (5, BUCKETS))
    surplus = [total_of(x, x.sum(axis=1), signed=True) for x in (ours, theirs)]
    rows = sample(np.ones((5, BUCKETS)))
    low, high = interval(surplus[0], rows)
    assert ((low > 0) | (high < 0)).tolist() == [False, True, True, True, True]
    assert np.isnan(relative_interval(*surplus, rows)).tolist() == [[True, True, True, False, False]] * 2
    assert not np.isnan(absolute_interval(*surplus, rows)).any()
    assert relative_interval(surplus[0], surplus[0], rows)[1][0] == 0.0


def test_equal_policies_differ_by_exactly_nothing() -> None:
    rng = np.random.default_rng(7)
    x = rng.poisson(9, (3, BUCKETS)) + 0.0
    many = Sample(0.95, np.ones((3, BUCKETS)), 1000)
    measured = total_of(x, x.sum(axis=1))
    for bounds in (absolute_interval(measured, measured, many), relative_interval(measured, measured, many)):
        assert [b.tolist() for b in bounds] == [[0.0] * 3, [0.0] * 3]


def test_auc_of_independent_rows_has_delongs_variance() -> None:
    rng = np.random.default_rng(7)
    labels = rng.random(4000) < 0.2
    scores = rng.normal(0, 1, 4000) + labels
    bucket = np.arange(4000) % BUCKETS
    won, lost, positives, rows = (np.zeros((1, BUCKETS)) for _ in range(4))
    above = scores[labels][:, None] > scores[~labels][None, :]
    np.add.at(won[0], bucket[labels], above.mean(axis=1))
    np.add.at(lost[0], bucket[~labels], 1 - above.mean(axis=0))
    # `lost` is the share of positives that score below a negative.
    np.add.at(positives[0], bucket[labels], 1.0)
    np.add.at(rows[0], bucket, 1.0)
    area = np.array([above.mean()])
    measured = auc_of(area, won, lost, positives, rows)
    delong = above.mean(axis=1).var(ddof=1) / labels.sum() + above.mean(axis=0).var(ddof=1) / (~labels).sum()
    low, high = interval(measured, sample(rows))
    assert measured.parts is not None
    assert measured.parts.sum() == pytest.approx(0, abs=1e-9)
    assert (high[0] - low[0]) / 2 / 1.96 == pytest.approx(np.sqrt(delong), rel=0.12)


@pytest.mark.parametrize("filled", [0, 1, 4], ids=["no bucket", "one bucket", "four buckets"])
def test_too_few_units_have_no_interval(filled: int) -> None:
    x = np.zeros((1, BUCKETS))
    x[0, :filled] = 5.0 + np.arange(filled)
    low, high = interval(total_of(x, x.sum(axis=1)), sample(x, units=filled))
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_one_conversion_has_no_interval_and_thirty_have_one() -> None:
    spend = np.ones((2, BUCKETS))
    conversions = np.zeros((2, BUCKETS))
    conversions[0, 3] = 1.0
    conversions[1, :30] = 1.0
    many = Sample(0.95, np.ones((2, BUCKETS)), 10**6)
    low, high = interval(ratio_of(spend.sum(axis=1) / conversions.sum(axis=1), spend, conversions), many)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < BUCKETS / 30 < high[1]


@pytest.mark.parametrize(("buckets", "known"), [(1, False), (4, False), (5, True)])
def test_what_a_few_wins_cost_alike_says_nothing_of_the_next_one(buckets: int, known: bool) -> None:
    wins, spend = np.zeros((1, BUCKETS)), np.zeros((1, BUCKETS))
    wins[0, :buckets], spend[0, :buckets] = 3.0, 3.0 * 7.3
    few = ratio_of(np.array([7.3]), spend, wins)
    many = ratio_of(np.array([6.0]), np.full((1, BUCKETS), 6.0), np.ones((1, BUCKETS)))
    assert lone(few, sample()).tolist() == [not known]
    for bounds in (absolute_interval(many, few, sample()), relative_interval(many, few, sample())):
        assert np.isfinite(bounds).all() == known
    for bounds in (absolute_interval(few, few, sample()), relative_interval(few, few, sample())):
        assert [b.tolist() for b in bounds] == [[0.0], [0.0]]


def test_a_unit_that_is_nearly_the_whole_log_has_no_interval() -> None:
    rows = np.ones((1, BUCKETS))
    rows[0, 0] = 10_000.0
    clicks = np.random.default_rng(2).poisson(0.3 * rows) + 0.0
    low, high = interval(ratio_of(clicks.sum(axis=1) / rows.sum(), clicks, rows), sample(rows))
    assert np.isnan([low[0], high[0]]).all()


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 1.5), filled=st.integers(5, 256))
def test_an_interval_holds_its_value_whatever_the_buckets(seed: int, spread: float, filled: int) -> None:
    rng = np.random.default_rng(seed)
    weight = np.zeros((1, BUCKETS))
    weight[:, :filled] = rng.lognormal(0, spread, (1, filled))
    base, other = (rng.poisson(5 * weight) + 0.0 for _ in range(2))
    many = sample(weight, units=filled)
    pairs = [(total_of(p, p.sum(axis=1)), ratio_of(p.sum(axis=1) / weight.sum(), p, weight)) for p in (base, other)]
    for ours, theirs in zip(*pairs, strict=True):
        change = theirs.value - ours.value
        for value, (low, high) in (
            (ours.value, interval(ours, many)),
            (change, absolute_interval(ours, theirs, many)),
            (change / ours.value, relative_interval(ours, theirs, many)),
        ):
            assert np.isnan(low[0]) or low[0] <= value[0] + 1e-12
            assert np.isnan(high[0]) or value[0] - 1e-12 <= high[0]
            # Many buckets that weigh alike are enough for one.
            assert np.isfinite([low[0], high[0]]).all() or filled < 40 or spread > 0.5


def test_a_change_of_results_that_nobody_saw_has_no_interval() -> None:
    rows = np.full((3, BUCKETS), 100.0)
    wins, conversions = np.full((3, BUCKETS), 10.0), np.zeros((3, BUCKETS))
    conversions[:, :60] = 1.0
    gained, lost = np.zeros((3, BUCKETS)), np.zeros((3, BUCKETS))
    # 128 wins more and 128 others less, of which about 6 should have converted; 5 more; none.
    gained[0, :128], lost[0, 128:], gained[1, :5] = 1.0, 1.0, 1.0

    def values(more: Floats) -> Values:
        won = wins + more
        return {
            ("wins", None, None): total_of(won, won.sum(axis=1)),
            ("conversions", None, None): total_of(conversions, conversions.sum(axis=1)),
            ("cvr", None, None): ratio_of(conversions.sum(axis=1) / won.sum(axis=1), conversions, won),
        }

    none = np.zeros(3)
    seen = {
        (f"{name}_{side}", None, None): Measured(won.sum(axis=1) if name == "wins" else none)
        for name in ("wins", "conversions")
        for side, won in (("gained", gained), ("lost", lost))
    }
    found = dict(differences(values(0 * gained), values(gained - lost) | seen, Sample(0.95, rows, 10**6)))
    change = found[("conversions", None, None)]
    assert np.isnan(change.relative_bounds[0]).tolist() == [True, False, False]
    assert np.isnan(found[("cvr", None, None)].absolute_bounds[1]).tolist() == [True, False, False]
    assert not np.isnan(found[("wins", None, None)].absolute_bounds[0]).any()


def test_a_count_of_few_is_above_zero_for_sure_and_a_sum_with_a_sign_is_not() -> None:
    three = np.zeros((1, BUCKETS))
    three[0, [5, 90, 200]] = 1.0
    low, high = interval(total_of(three, np.full(1, 3.0)), sample())
    assert 0 < low[0] < 1 < 8 < high[0] < 30
    low, high = interval(total_of(three, np.full(1, 3.0), signed=True), sample())
    assert low[0] < 0 < 6 < high[0] < 8


def test_disagreement_varies_by_what_either_policy_wins_alone() -> None:
    """A tenth of 100 wins a bucket, as many gained as lost: the share is a mean of buckets, with the textbook interval."""
    alone = np.random.default_rng(31).poisson(5.0, (1, BUCKETS)).astype(float)
    parts = {"wins": np.full((1, BUCKETS), 100.0) - alone, "wins_gained": alone, "wins_lost": alone}
    keys = {(name, int(name != "wins"), None): x for name, x in parts.items()}
    sums = {key: x.sum(axis=1).astype(int).astype(object) for key, x in keys.items()}
    log = Family("os", ("a",), sums, dict.fromkeys(keys, 1), keys, BUCKETS)
    found = metrics._disagreement(log, 1)[("disagreement", None, None)]
    share = 2 * alone[0] / 100
    assert found.value[0] == pytest.approx(share.mean())
    half = stats.sem(share) * stats.t.ppf(0.975, BUCKETS - 1)
    low, high = interval(found, sample())
    assert (high[0] - low[0]) / 2 == pytest.approx(half, rel=0.02)


def test_what_half_samples_leave_out_has_no_interval_but_what_a_budget_fixes_has() -> None:
    wins = np.zeros((3, BUCKETS))
    wins[:, 3] = 1.0  # in the stratum whose halves no half-sample tells apart
    wins[1:, 100:120] = 1.0
    key = ("wins", 0, None)
    sums = wins.sum(axis=1).astype(int).astype(object)
    log = Family("os", ("a", "b", "c"), {key: sums}, {key: 1}, {key: wins}, BUCKETS)
    budgets = log.rerun({key: np.zeros((3, 16))})
    under = Sample(0.95, np.ones((3, BUCKETS)), 10**6, given=False)
    found = economic_values(budgets, 0, has_click=False, has_conversion=False)[("wins", None, None)]
    low, high = interval(found, under)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False, False]
    hidden = np.array([1.0, 1.0, 0.0])
    more = replace(found, value=found.value + hidden, parts=by_stratum(wins) + hidden[:, None] / 16)
    for bounds in (absolute_interval(found, more, under), relative_interval(found, more, under)):
        assert np.isnan(bounds[0]).tolist() == [True, True, False]
        assert bounds[1][2] == 0.0
    # All of a budget is spent, whoever the units are: that has no spread.
    spent = total_of(np.full((3, 16), 4.0), np.full(3, 64.0))
    assert [end.tolist() for end in interval(spent, under)] == [[64.0] * 3] * 2


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
def test_results_that_should_have_come_are_counted_in_rows(weight: float) -> None:
    rate, money = np.array([0.01]), np.full((1, BUCKETS), 1.0)  # 2.56 results expected
    assert is_unseen(np.zeros((1, BUCKETS)), money, rate * weight, np.array([weight])).tolist() == [True]
    seen = np.zeros((1, BUCKETS))
    seen[0, 0] = weight
    assert is_unseen(seen, money, rate * weight, np.array([weight])).tolist() == [False]
