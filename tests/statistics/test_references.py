"""The numbers of spec section 4 against libraries that we did not write, through a whole replay of one log.

The log has what makes such numbers go wrong: float32 predictions with many ties, weights (among them 0), predictions
that can't be used, campaigns with one label only, an empty label here and there.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import gammainc
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from small_logs import by_segment, numbers, replay

from bidsim.result import Result

ROWS = 4000
POLICIES = ("baseline", "new")


def make_log(weighted: bool) -> pa.Table:
    rng = np.random.default_rng([20261124, weighted])
    truth = rng.beta(0.8, 6.0, ROWS)

    def predictions(noise: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        p = np.clip(truth * np.exp(rng.normal(0.2, noise, ROWS)), 0.0, 1.0)
        p = np.where(rng.random(ROWS) < 0.5, np.round(p, 2), p)  # half of the rows tie with others, some at 0
        p[rng.random(ROWS) < 0.005] = 1.0
        p[rng.random(ROWS) < 0.01] = np.nan
        p[rng.random(ROWS) < 0.01] = 1.25
        return p.astype(np.float32)

    click = (rng.random(ROWS) < truth).astype(float)
    campaign = rng.integers(0, 6, ROWS)
    click[campaign == 5] = 0.0
    conversion = click * (rng.random(ROWS) < 0.4)
    columns: dict[str, Any] = {
        "campaign": pa.array(campaign, mask=rng.random(ROWS) < 0.02),
        "price": np.where(rng.random(ROWS) < 0.02, 0.0, np.round(rng.gamma(2.0, 3.0, ROWS), 3)),
        "won": (rng.random(ROWS) < 0.9).astype(np.int8),
        "click": pa.array(click, mask=rng.random(ROWS) < 0.01),
        "conversion": conversion,
        "target_cpa": rng.choice([0.15, 0.4, 0.9], ROWS),
        "pctr": predictions(0.3),
        "pcvr": rng.choice(np.array([0.1, 0.3, 0.5], np.float32), ROWS),
        "pother": predictions(0.6),
    }
    if weighted:
        columns["weight"] = rng.choice([0.0, 0.5, 1.0, 2.0, 3.25, 10.0], ROWS)
    return pa.table(columns)


class Case:
    """The log as numpy arrays beside its replay."""

    def __init__(self, weighted: bool, auction: str) -> None:
        table = make_log(weighted)
        self.weighted, self.auction = weighted, auction
        self.result: Result = replay(
            table,
            candidates={"new": {"columns": {"pctr": "pother"}}},
            segments=["campaign"],
            auction={"type": auction},
            expected_utility={"betas": [50.0, 400.0, 12345.0]},
        )
        self.columns = {c: np.asarray(table.column(c).to_numpy(), dtype=float) for c in table.column_names}
        self.w = self.columns.get("weight", np.ones(ROWS))
        self.pctr = {"baseline": self.columns["pctr"], "new": self.columns["pother"]}

    def head(self, policy: str, head: str) -> tuple[np.ndarray[Any, Any], ...]:
        """(label, prediction, weight, campaign) of the labelled rows with a valid prediction."""
        c, p = self.columns, self.pctr[policy]
        if head == "ctr":
            keep, y = (c["won"] == 1) & ~np.isnan(c["click"]), c["click"]
        else:
            keep, y, p = (c["won"] == 1) & (c["click"] == 1), c["conversion"], c["pcvr"]
        with np.errstate(invalid="ignore"):
            keep = keep & (p >= 0) & (p <= 1)
        return y[keep], p[keep], self.w[keep], c["campaign"][keep]


@pytest.fixture(
    scope="module", params=[(False, "second_price"), (True, "second_price"), (True, "first_price")], ids=str
)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.fixture(params=[(p, h) for p in POLICIES for h in ("ctr", "cvr")], ids="-".join)
def head(request: pytest.FixtureRequest, case: Case) -> tuple[dict[str, Any], tuple[np.ndarray[Any, Any], ...]]:
    policy, name = request.param
    found = {k[0]: v for k, v in numbers(case.result, policy).items() if isinstance(k, tuple) and k[1] == name}
    return found, case.head(policy, name)


Head = tuple[dict[str, Any], tuple[np.ndarray[Any, Any], ...]]


def test_logloss_brier_and_calibration_are_scikit_learns(head: Head, case: Case) -> None:
    found, (y, p, w, _) = head
    # A weighted sum keeps 2^-36 of a row, an unweighted one 2^-56.
    close = 1e-10 if case.weighted else 1e-13
    clipped = np.clip(p.astype(float), 1e-15, 1 - 1e-15)
    assert found["logloss"] == pytest.approx(log_loss(y, clipped, sample_weight=w), rel=close)
    assert found["brier"] == pytest.approx(brier_score_loss(y, p, sample_weight=w), rel=close)
    assert found["calibration"] == pytest.approx(math.fsum(w * p) / math.fsum(w * y), rel=close)
    rate = math.fsum(w * y) / math.fsum(w)
    entropy = log_loss(y, np.full(len(y), rate), sample_weight=w)
    assert found["normalized_entropy"] == pytest.approx(log_loss(y, clipped, sample_weight=w) / entropy, rel=close)
    extreme = (p < 1e-15) | (p > 1 - 1e-15)
    assert found["clipped_predictions"] == w[extreme].sum()


def test_auc_is_scikit_learns_to_the_last_digits(head: Head) -> None:
    found, (y, p, w, _) = head
    assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), rel=1e-12)


def test_gauc_is_the_mean_of_campaign_aucs_weighted_by_rows(head: Head) -> None:
    found, (y, p, w, campaign) = head
    aucs, masses = [], []
    for value in [*np.unique(campaign[~np.isnan(campaign)]), np.nan]:
        mine = (campaign == value) if not np.isnan(value) else np.isnan(campaign)
        mine &= w > 0
        if len(set(y[mine])) == 2:
            aucs.append(roc_auc_score(y[mine], p[mine], sample_weight=w[mine]))
            masses.append(w[mine].sum())
    assert 2 < len(aucs) < 7  # campaign 5 has no positives
    assert found["gauc"] == pytest.approx(np.average(aucs, weights=masses), rel=1e-12)


def test_corp_parts_are_isotonic_recalibration(head: Head) -> None:
    found, (y, p, w, _) = head
    positive = w > 0
    fit = IsotonicRegression(out_of_bounds="clip").fit(p, y, sample_weight=w)
    recalibrated = brier_score_loss(y[positive], fit.predict(p)[positive], sample_weight=w[positive])
    rate = np.average(y, weights=w)
    uncertainty = np.average((y - rate) ** 2, weights=w)
    score = brier_score_loss(y, p, sample_weight=w)
    assert found["miscalibration"] == pytest.approx(score - recalibrated, abs=1e-9)
    assert found["discrimination"] == pytest.approx(uncertainty - recalibrated, abs=1e-9)
    assert found["uncertainty"] == pytest.approx(uncertainty, abs=1e-12)


def test_corp_parts_are_model_diagnostics(head: Head) -> None:
    scoring = pytest.importorskip("model_diagnostics.scoring")
    found, (y, p, w, _) = head
    keep = w > 0
    parts = scoring.decompose(
        y_obs=y[keep], y_pred=p[keep].astype(float), weights=w[keep], scoring_function=scoring.SquaredError()
    )
    for name in ("miscalibration", "discrimination", "uncertainty"):
        assert found[name] == pytest.approx(parts[name][0], abs=1e-9), name


def naive_bins(y: np.ndarray[Any, Any], p: np.ndarray[Any, Any], w: np.ndarray[Any, Any]) -> list[tuple[float, ...]]:
    """Twenty bins of equal mass, row group by row group in exact fractions: (mass, mean p, mean y) of each."""
    groups: dict[float, list[Fraction]] = {}
    for label, score, weight in zip(y, p, w, strict=True):
        group = groups.setdefault(float(score), [Fraction(0), Fraction(0)])
        group[0] += Fraction(float(weight))
        group[1] += Fraction(float(weight)) * int(label)
    size = sum(g[0] for g in groups.values()) / 20
    bins, room, sums = [], size, [Fraction(0), Fraction(0)]
    for score, (mass, hits) in sorted(groups.items()):
        left = mass
        while left > 0:
            part = min(left, room)
            sums[0] += part * Fraction(score)
            sums[1] += hits * part / mass
            left, room = left - part, room - part
            if room == 0:
                bins.append((float(size), float(sums[0] / size), float(sums[1] / size)))
                room, sums = size, [Fraction(0), Fraction(0)]
    assert len(bins) == 20
    return bins


def test_ece_and_calibration_error_are_naive_loops_over_equal_mass_bins(head: Head) -> None:
    found, (y, p, w, _) = head
    bins = naive_bins(y, p, w)
    n = w.sum() / 20
    ece = sum(abs(q - o) for _, q, o in bins) / 20
    alone = sum(math.sqrt(2 / math.pi * q * (1 - q) / n) for _, q, _ in bins) / 20
    debiased = sum((q - o) ** 2 - o * (1 - o) / (n - 1) for _, q, o in bins) / 20
    assert found["ece"] == pytest.approx(ece, rel=1e-9)
    assert found["ece_if_calibrated"] == pytest.approx(alone, rel=1e-9)
    assert found["calibration_error"] == pytest.approx(math.copysign(math.sqrt(abs(debiased)), debiased), rel=1e-7)


def test_the_calibration_curve_is_the_same_bins(case: Case) -> None:
    for policy in POLICIES:
        y, p, w, _ = case.head(policy, "ctr")
        curve = next(c for c in case.result.calibration if c.policy == policy and c.head == "ctr" and c.segment == {})
        bins = naive_bins(y, p, w)
        assert [b.predicted for b in curve.bins] == pytest.approx([q for _, q, _ in bins], rel=1e-9)
        assert [b.observed for b in curve.bins] == pytest.approx([o for _, _, o in bins], rel=1e-9, abs=1e-12)
        shares = [b.weight / sum(x.weight for x in curve.bins) for b in curve.bins]
        assert shares == pytest.approx([0.05] * 20)


def test_churn_is_how_far_predictions_moved_on_average(case: Case) -> None:
    c, a, b = case.columns, case.pctr["baseline"], case.pctr["new"]
    with np.errstate(invalid="ignore"):
        keep = (c["won"] == 1) & ~np.isnan(c["click"]) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
    expected = math.fsum((case.w * np.abs(a - b))[keep]) / math.fsum((case.w * a)[keep])
    assert numbers(case.result, "new")[("churn", "ctr")] == pytest.approx(expected, rel=1e-9)


def test_campaigns_have_the_auc_of_their_own_rows(case: Case) -> None:
    for policy in POLICIES:
        y, p, w, campaign = case.head(policy, "ctr")
        found = by_segment(case.result, policy, "campaign", [("auc", "ctr"), ("logloss", "ctr")])
        assert set(found) == {"0", "1", "2", "3", "4", "5", "null"}
        assert found["5"][("auc", "ctr")] is None
        for value in range(5):
            mine = campaign == value
            expected = roc_auc_score(y[mine], p[mine], sample_weight=w[mine])
            assert found[str(value)][("auc", "ctr")] == pytest.approx(expected, rel=1e-12)


def test_expected_utility_is_the_sum_of_chapelles_formula_row_by_row(case: Case) -> None:
    c = case.columns
    for policy in POLICIES:
        total = dict.fromkeys((50.0, 400.0, 12345.0), 0.0)
        p = case.pctr[policy]
        for i in range(ROWS):
            # The label of a conversion is known where the row was won; a row without a usable prediction is not bid on.
            if c["won"][i] != 1 or not 0 <= p[i] <= 1:
                continue
            b = 1000 * c["target_cpa"][i] * float(p[i]) * float(np.float32(c["pcvr"][i])) / 1000
            z, vy = c["price"][i] / 1000, c["target_cpa"][i] * c["conversion"][i]
            if b <= 0:
                continue
            for beta in total:
                a = beta * z + 1
                won = gammainc(a, beta * b)
                if case.auction == "first_price":
                    total[beta] += case.w[i] * (vy - b) * won
                else:
                    total[beta] += case.w[i] * (vy * won - a / beta * gammainc(a + 1, beta * b))
        found = numbers(case.result, policy)
        for beta, expected in total.items():
            assert found[("expected_utility", beta)] == pytest.approx(expected, rel=1e-9, abs=1e-9), (policy, beta)


def test_the_reliability_curve_holds_all_labels_by_weight(case: Case) -> None:
    """The bins' masses are the labelled rows, their sums the predictions and the clicks, overall and by campaign."""
    for curve in case.result.calibration:
        y, p, w, campaign = case.head(curve.policy, curve.head)
        keep = np.ones(len(y), dtype=bool)
        if curve.segment:
            name = curve.segment["campaign"]
            keep = np.isnan(campaign) if name == "null" else campaign == int(name)
        mass = np.array([b.weight for b in curve.bins])
        assert mass.sum() == pytest.approx(w[keep].sum(), rel=1e-9)
        assert mass @ [b.predicted for b in curve.bins] == pytest.approx((w * p)[keep].sum(), rel=1e-7)
        assert mass @ [b.observed for b in curve.bins] == pytest.approx((w * y)[keep].sum(), rel=1e-7)


def test_the_interval_of_auc_is_delongs_where_rows_are_units(case: Case) -> None:
    """Rows without a unit are units of their own; DeLong's variance over the rows themselves says the same."""
    found = next(m for m in case.result.metrics if (m.policy, m.metric, m.segment) == ("baseline", "auc", {}))
    if case.weighted:
        return  # DeLong's variance knows no weights
    y, p, _, _ = case.head("baseline", "ctr")
    above = (p[y == 1][:, None] > p[y == 0][None, :]) + 0.5 * (p[y == 1][:, None] == p[y == 0][None, :])
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / (y == 1).sum() + above.mean(axis=0).var(ddof=1) / (y == 0).sum())
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(error, rel=0.25)
