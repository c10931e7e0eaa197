"""Intervals of what measures a distance from perfect calibration: noise adds to it, and an interval has to know that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from bidsim.statistics.calibration import calibration_error, ece, ece_if_calibrated, equal_mass_bins, stacked
from bidsim.statistics.intervals import absolute_interval, interval, relative_interval
from bidsim.statistics.measured import Measured
from bidsim.statistics.resampling import Draws, bucket_weights, resampled
from bidsim.statistics.spread import Sample
from bidsim.statistics.tables import ScoreGrid

Floats = npt.NDArray[np.float64]
BUCKETS, CELLS = 256, 60
SCORE = np.linspace(0.01, 0.4, CELLS)
WEIGHTS = bucket_weights(BUCKETS)


@dataclass(frozen=True)
class Market:
    grid: ScoreGrid
    rows: Floats

    @property
    def sample(self) -> Sample:
        return Sample(0.95, self.rows[None, :], 10**6)

    def measured(self, metric: str, draws: Draws) -> Measured:
        bins = equal_mass_bins(self.grid.negative.sum(axis=0), self.grid.positive.sum(axis=0), self.grid.score)
        value = {"ece": ece(bins), "calibration_error": calibration_error(bins, float(self.rows.sum()))}
        seen = value.get(metric, draws.seen)
        return Measured(
            np.array([seen]),
            draws=draws.values,
            about=draws.about,
            calibrated=draws.calibrated,
            root=metric == "calibration_error",
        )


def market(seed: int, truth: Floats) -> Market:
    """256 buckets of about 40 labels each, clicked at the true rate of their cell."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(40 / CELLS, (BUCKETS, CELLS))
    clicks = rng.binomial(counts, truth)
    return Market(ScoreGrid(counts - clicks + 0.0, clicks + 0.0, SCORE), counts.sum(axis=1) + 0.0)


def test_a_calibrated_model_is_not_said_to_be_miscalibrated() -> None:
    held = dict.fromkeys(("ece", "calibration_error", "miscalibration"), 0)
    for seed in range(20):
        found = market(seed, SCORE)
        draws = resampled(found.grid, found.rows, WEIGHTS)
        for metric in held:
            measured = found.measured(metric, draws[metric])
            low, high = interval(measured, found.sample)
            assert low[0] <= measured.value[0] <= high[0]
            assert metric == "calibration_error" or low[0] >= 0
            held[metric] += bool(low[0] <= 0 <= high[0])
    assert min(held.values()) >= 18, held


@pytest.mark.parametrize("off", [0.7, 1.4])
def test_the_true_distance_of_a_miscalibrated_model_is_held(off: float) -> None:
    truth = SCORE * off
    distance = np.abs(truth - SCORE)
    expected = {
        "ece": distance.mean(),
        "calibration_error": np.sqrt((distance**2).mean()),
        "miscalibration": (distance**2).mean(),
    }
    held = dict.fromkeys(expected, 0)
    for seed in range(20):
        found = market(seed, truth)
        for metric, draws in resampled(found.grid, found.rows, WEIGHTS).items():
            if metric in expected:
                low, high = interval(found.measured(metric, draws), found.sample)
                held[metric] += bool(low[0] <= expected[metric] <= high[0])
                # Miscalibrated beyond doubt.
                assert low[0] > 0
    assert min(held.values()) >= 17, held


def test_equal_models_differ_by_nothing_and_a_calibrated_baseline_has_no_relative_change() -> None:
    found = market(1, SCORE)
    draws = resampled(found.grid, found.rows, WEIGHTS)
    for metric in ("ece", "calibration_error", "miscalibration"):
        measured = found.measured(metric, draws[metric])
        low, high = absolute_interval(measured, measured, found.sample)
        assert (low[0], high[0]) == (0.0, 0.0)
        if metric == "calibration_error":
            low, high = relative_interval(measured, measured, found.sample)
            assert np.isnan([low[0], high[0]]).all()


def test_the_true_difference_between_a_calibrated_and_a_nearly_calibrated_model_is_held() -> None:
    """Noise makes both look alike, and pairing would take it for knowledge: then the interval is around zero."""
    near = SCORE * 1.05
    distance = np.abs(near - SCORE)
    expected = {"ece": distance.mean(), "miscalibration": (distance**2).mean()}
    held = dict.fromkeys(expected, 0)
    for seed in range(20):
        ours = market(seed, SCORE)
        theirs = Market(replace(ours.grid, score=near), ours.rows)
        draws = [resampled(each.grid, each.rows, WEIGHTS) for each in (ours, theirs)]
        for metric, true in expected.items():
            base, candidate = (m.measured(metric, d[metric]) for m, d in zip((ours, theirs), draws, strict=True))
            low, high = absolute_interval(base, candidate, ours.sample)
            held[metric] += bool(low[0] <= true <= high[0])
            # Zero is among what the baseline may be: a relative change says nothing.
            if interval(base, ours.sample)[0][0] == 0:
                assert np.isnan(relative_interval(base, candidate, ours.sample)[0][0])
    assert min(held.values()) >= 18, held


def test_without_labels_nothing_is_said() -> None:
    empty = ScoreGrid(np.zeros((BUCKETS, 0)), np.zeros((BUCKETS, 0)), np.zeros(0))
    for draws in resampled(empty, np.zeros(BUCKETS), WEIGHTS).values():
        assert np.isnan(draws.values).all()


def test_bins_of_several_populations_are_those_of_each() -> None:
    draw = np.random.default_rng(5)
    below, above = draw.poisson(3.0, (6, 40)).astype(float), draw.poisson(0.4, (6, 40)).astype(float)
    below[0, 10:30] = above[0, 10:30] = 0.0  # groups without mass
    below[1, :] = above[1, :] = 0.0
    below[1, 7] = 5.0  # one group is all
    score, rows = np.sort(draw.random(40)), np.array([9.0, 5.0, 200.0, 1e5, 30.0, 21.0])
    together = equal_mass_bins(below, above, score)
    each = [equal_mass_bins(n, p, score) for n, p in zip(below, above, strict=True)]
    for name in ("weight", "predicted", "observed"):
        np.testing.assert_array_equal(getattr(together, name), [getattr(b, name) for b in each])
    np.testing.assert_allclose(ece(together), [ece(b) for b in each], rtol=1e-14)
    np.testing.assert_allclose(
        calibration_error(together, rows),
        [calibration_error(b, n) for b, n in zip(each, rows, strict=True)],
        rtol=1e-14,
    )
    assert np.isnan(calibration_error(together, rows)).tolist() == [True, True, False, False, False, False]


def test_stacked_bins_are_nan_where_a_population_is_empty() -> None:
    nothing = equal_mass_bins(np.zeros(3), np.zeros(3), np.array([0.1, 0.2, 0.3]))
    some = equal_mass_bins(np.ones(3) * 50, np.ones(3), np.array([0.1, 0.2, 0.3]))
    both = stacked([nothing, some])
    assert np.isnan(ece(nothing))
    np.testing.assert_allclose(ece(both), [np.nan, float(ece(some))], rtol=1e-14)
    np.testing.assert_allclose(ece_if_calibrated(both, np.array([0.0, 153.0]))[1], ece_if_calibrated(some, 153.0))
    assert np.isnan(ece_if_calibrated(both, np.array([0.0, 153.0]))[0])
