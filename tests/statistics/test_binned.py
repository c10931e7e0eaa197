"""Calibration error and the CORP parts by segment value: every value has an honest interval, without its labels by score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import foldnorm
from small_logs import Row, replay

from bidsim.statistics.binned import Sums, _folded, _kept, isotonic, with_noise
from bidsim.statistics.calibration import (
    BINS,
    calibration_error,
    ece,
    ece_if_calibrated,
    equal_mass_bins,
    recalibrated,
    spans,
)
from bidsim.statistics.intervals import absolute_interval, interval, relative_interval
from bidsim.statistics.measured import Measured, ratio_of
from bidsim.statistics.ranking import Ladder
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import Ranked
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]
Curve = Callable[[Floats], Floats]
BUCKETS, VALUES, USERS, EACH = 64, 60, 500, 6
METRICS = ("ece", "calibration_error", "miscalibration", "discrimination", "ece_if_calibrated")


@dataclass(frozen=True)
class Markets:
    """60 segment values of 500 users with 6 labels each, whose clicks have the user in common."""

    scores: list[Floats]
    labels: list[Floats]
    buckets: list[npt.NDArray[np.int64]]

    @staticmethod
    def of(draw: Callable[[np.random.Generator, int], Floats], truth: Curve, seed: int = 1) -> Markets:
        rng = np.random.default_rng([20261126, seed])
        scores = [draw(rng, USERS * EACH) for _ in range(VALUES)]
        users = [np.repeat(rng.gamma(4.0, 0.25, USERS), EACH) for _ in range(VALUES)]
        labels = [(rng.random(USERS * EACH) < truth(s) * u) + 0.0 for s, u in zip(scores, users, strict=True)]
        return Markets(scores, labels, [np.repeat(rng.integers(0, BUCKETS, USERS), EACH) for _ in range(VALUES)])

    @property
    def sample(self) -> Sample:
        return Sample(0.95, np.array([np.bincount(b, minlength=BUCKETS) + 0.0 for b in self.buckets]), 10**6)

    def measured(self, seen_as: Curve = lambda score: score) -> dict[str, Measured]:
        """Of a model that predicts `seen_as` of the score."""
        bins, refits, shared, sums = [], [], [], np.zeros((4, VALUES, BUCKETS))
        for i, (score, y, bucket) in enumerate(zip(self.scores, self.labels, self.buckets, strict=True)):
            p = seen_as(score)
            for k, each in enumerate((np.ones(len(y)), y, p, (y - p) ** 2)):
                sums[k, i] = np.bincount(bucket, each, BUCKETS)
            distinct, at = np.unique(p, return_inverse=True)
            above, below = np.bincount(at, y), np.bincount(at, 1 - y)
            bins.append(equal_mass_bins(below, above, distinct))
            shared.append(spans(below + above))
            hit = above > 0
            less = (np.cumsum(below) - below)[hit].astype(np.int64)
            ladder = Ladder(distinct[hit], above[hit].astype(int), less, below[hit].astype(int), int(below.sum()))
            refits.append(recalibrated(ladder))
        rows, refit = sums[0].sum(axis=1), np.array([r.brier for r in refits])
        rate, brier = (ratio(sums[i].sum(axis=1), rows) for i in (1, 3))
        values = {
            "brier": ratio_of(brier, sums[3], sums[0]),
            "miscalibration": Measured(brier - refit),
            "discrimination": Measured(rate * (1 - rate) - refit),
            "ece": Measured(np.array([ece(b) for b in bins])),
            "ece_if_calibrated": Measured(np.array([ece_if_calibrated(b, float(len(self.labels[0]))) for b in bins])),
            "calibration_error": Measured(
                np.array([calibration_error(b, float(n)) for b, n in zip(bins, rows, strict=True)]), root=True
            ),
        }
        none = np.zeros((VALUES, BUCKETS))
        wiggle = np.array([r.wiggle for r in refits])
        ranked = Ranked(refit, refit, bins, none, none, None, wiggle, np.array(shared))
        return with_noise(values, ranked, Sums(*sums, weighted=False), 10**6)


def even(rng: np.random.Generator, count: int) -> Floats:
    return rng.uniform(0.01, 0.3, count)


GRID = np.linspace(0.01, 0.3, 20_001)


def truth_of(p: Floats, true: Floats) -> dict[str, float]:
    """In an endless market."""
    off = np.abs(p - true)
    return {
        "ece": off.mean(),
        "calibration_error": np.sqrt((off**2).mean()),
        "miscalibration": (off**2).mean(),
        "discrimination": true.var(),
    }


def held(bounds: tuple[Floats, Floats], true: float) -> float:
    known = ~np.isnan(bounds[0])
    assert known.mean() > 0.95
    return float(((bounds[0] <= true) & (true <= bounds[1]))[known].mean())


@pytest.mark.parametrize("times", [1.0, 1.05, 1.5], ids=["calibrated", "nearly", "far off"])
def test_the_truth_of_each_value_is_held(times: float) -> None:
    markets = Markets.of(even, lambda score: score)
    found = markets.measured(lambda score: score * times)
    for metric, true in truth_of(GRID * times, GRID).items():
        low, high = interval(found[metric], markets.sample)
        assert held((low, high), true) >= 0.9, metric
        assert (metric == "calibration_error") or (low >= 0).all()
        if times == 1.5 and metric in ("ece", "calibration_error"):
            # And they say something.
            assert (low > 0).mean() > 0.9
            assert np.median(high) < 2 * true


@pytest.mark.parametrize("ours", [1.0, 1.4])
def test_the_true_difference_at_each_value_is_held(ours: float) -> None:
    markets = Markets.of(even, lambda score: score, seed=2)
    base, candidate = markets.measured(lambda score: score * ours), markets.measured(lambda score: score * 1.05)
    before, after = truth_of(GRID * ours, GRID), truth_of(GRID * 1.05, GRID)
    for metric in before:
        bounds = absolute_interval(base[metric], candidate[metric], markets.sample)
        assert held(bounds, after[metric] - before[metric]) >= 0.9, metric
    low, _ = relative_interval(base["ece"], candidate["ece"], markets.sample)
    zero = interval(base["ece"], markets.sample)[0] <= 0
    assert np.isnan(low[zero]).all()
    assert (ours == 1.0) == (zero.mean() > 0.5)


def test_models_that_are_the_same_differ_by_nothing_at_each_value() -> None:
    markets = Markets.of(even, lambda score: score * 1.2)
    once, again = markets.measured(), markets.measured()
    for metric in METRICS:
        low, high = absolute_interval(once[metric], again[metric], markets.sample)
        assert not low.any()
        assert not high.any()


@pytest.mark.parametrize("scores", [1, 3, 11])
def test_bins_that_share_the_labels_of_few_scores_are_not_taken_for_twenty(scores: int) -> None:
    at = np.linspace(0.03, 0.17, scores) if scores > 1 else np.array([0.05])
    markets = Markets.of(lambda rng, count: rng.choice(at, count), lambda score: score * 1.4, seed=3)
    found = markets.measured()
    expected = truth_of(at, at * 1.4)
    for metric in ("ece", "calibration_error", "miscalibration"):
        assert held(interval(found[metric], markets.sample), expected[metric]) >= 0.9, metric


def test_few_positives_few_buckets_and_no_labels_have_no_interval() -> None:
    rare = Markets.of(even, lambda score: np.full(len(score), 0.001))
    narrow = Markets.of(even, lambda score: score)
    narrow = Markets(narrow.scores, narrow.labels, [b % 3 for b in narrow.buckets])
    empty = Markets([s[:0] for s in rare.scores], [y[:0] for y in rare.labels], [b[:0] for b in rare.buckets])
    for markets in (rare, narrow, empty):
        found = markets.measured()
        for metric in METRICS[:4]:
            assert np.isnan(interval(found[metric], markets.sample)[0]).all()


def test_the_fit_of_bins_is_isotonic_regression() -> None:
    rng = np.random.default_rng(20261126)
    observed = np.concatenate([rng.random((50, BINS)), np.sort(rng.random((5, BINS))), np.full((1, BINS), 0.5)])
    expected = [isotonic_regression(row).x for row in observed]
    np.testing.assert_allclose(isotonic(observed), expected, rtol=0, atol=1e-12)


def test_moments_are_those_of_the_folded_normal() -> None:
    middle, deviation = np.array([[0.0, 0.5, -2.0, 30.0]]), np.array([[1.0, 2.0, 0.5, 3.0]])
    mean, variance, follows = _folded(middle, deviation)
    expected = [foldnorm.stats(abs(m) / s, scale=s) for m, s in zip(middle[0], deviation[0], strict=True)]
    np.testing.assert_allclose(mean[0], [e[0] for e in expected], rtol=1e-9)
    np.testing.assert_allclose(variance[0], [e[1] for e in expected], rtol=1e-9)
    # How it goes with the noise is the mean of its slope.
    step = 1e-5
    slope = (_folded(middle + step, deviation)[0] - _folded(middle - step, deviation)[0]) / (2 * step)
    np.testing.assert_allclose(follows, slope, atol=1e-8)


def test_shrunk_deviations_and_noise_together_make_what_was_seen() -> None:
    rng = np.random.default_rng(20261126)
    deviation, variance = rng.normal(0, 1.5, (40, BINS)), rng.uniform(0.5, 1.0, (40, BINS))
    kept = _kept(deviation, variance)
    seen, noise = (deviation**2).sum(axis=1), variance.sum(axis=1)
    np.testing.assert_allclose((kept**2).sum(axis=1), np.maximum(seen - noise, 0), atol=1e-6)
    assert (np.abs(kept) <= np.abs(deviation)).all()
    assert (kept * deviation >= 0).all()


def test_a_span_is_over_how_many_bins_the_rows_of_a_bin_spread() -> None:
    assert spans(np.ones(20 * 50)) == pytest.approx(np.ones(20))
    assert spans(np.array([7.0])) == pytest.approx(np.full(20, 20.0))
    assert spans(np.array([3.0, 3.0])) == pytest.approx(np.full(20, 10.0))
    # By definition: the variance of each bin's rate, from groups that are split in proportion.
    rng = np.random.default_rng(20261126)
    for count in (2, 7, 30, 300):
        mass = rng.uniform(0.1, 2.0, count)
        edges = np.concatenate([[0.0], np.cumsum(mass)])
        at = np.linspace(0, edges[-1], BINS + 1)
        inside = np.minimum(edges[1:], at[1:, None]) - np.maximum(edges[:-1], at[:-1, None])
        share = np.clip(inside, 0, None) / (edges[-1] / BINS)
        assert spans(mass) == pytest.approx((BINS / edges[-1]) / (share**2 / mass).sum(axis=1))


def test_a_fit_owes_to_noise_what_its_blocks_vary_by_and_a_run_of_luck_at_each_end() -> None:
    """Labels 0 | 1 0 | 1 1 by score: a block of rate 1/2, one zero at the lower end, two ones at the upper."""
    positive, none = np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    ladder = Ladder(np.array([0.2, 0.4, 0.5]), positive, np.array([1, 2, 2]), none, 2)
    found = recalibrated(ladder)
    assert found.brier == pytest.approx(0.5 / 5)
    assert found.wiggle == pytest.approx(1 / 4 + 1 * (2 / 2) ** 2 + 2 * (2 / 3) ** 2)
    # The same in weights of 2^-10.
    scaled = Ladder(ladder.score, positive << 10, ladder.below << 10, none, 2 << 10)
    assert recalibrated(scaled, 2.0**-10).wiggle == pytest.approx(found.wiggle)


def test_a_rule_by_campaign_passes_and_fails_with_evidence() -> None:
    rng = np.random.default_rng(20261126)
    rows: list[Row] = []
    for i in range(9000):
        p = float(np.float32(rng.uniform(0.1, 0.5)))
        campaign = i % 3
        click = rng.random() < (p if campaign else min(1.0, p * 1.8))
        rows.append(
            {"request": i, "unit": i // 3, "campaign": campaign, "price": 1.0, "bid": 9.0, "won": 1}
            | {"click": int(click), "pctr": p, "target_cpc": 1.0}
        )
    result = replay(
        rows,
        performance_indicator_type="cpc",
        segments=["campaign"],
        gate=[{"metric": "calibration_error", "head": "ctr", "by": "campaign", "at_most": 0.09}],
    )
    assert result.gate is not None
    statuses = {o.segment["campaign"]: o.status for o in result.gate.rules if o.segment}
    assert statuses == {"0": "fail", "1": "pass", "2": "pass"}
    for record in (m for m in result.metrics if m.segment and m.metric in METRICS):
        assert record.low is not None
        assert record.high is not None
    for change in (d for d in result.differences if d.segment and d.metric in METRICS):
        # The candidate bids as the baseline: its predictions are the same.
        assert (change.absolute.low, change.absolute.high) == (0.0, 0.0)
