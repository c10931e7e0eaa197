"""Recalibration undoes what it claims to undo, travels in the bundle, and is fitted on rows that are not judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from bidsim.calibrate import Window, calibrate
from bidsim.cli import run
from bidsim.errors import BidsimError, ModelError
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, open_bundle, pack_hashed
from bidsim.models.columns import hash_term
from bidsim.models.manifest import Downsampling, Isotonic, Platt, TrainingWindow
from bidsim.models.recalibration import fit_isotonic, fit_platt, recalibrate
from bidsim.scenario.loading import load_scenario

DRAW = np.random.default_rng(3)
P = DRAW.beta(1, 20, 20_000)
Y = (DRAW.random(len(P)) < expit(0.7 * logit(P) - 0.4)).astype(float)
W = DRAW.integers(1, 4, len(P)).astype(float)


def test_downsampling_gives_back_the_odds_before_it() -> None:
    true, rate = np.array([0.001, 0.02, 0.5, 0.0, 1.0]), 0.05
    trained = true / (true + (1 - true) * rate)  # what a model learns where a twentieth of the negatives is kept
    np.testing.assert_allclose(recalibrate(trained, [Downsampling(rate=rate)]), true, rtol=1e-12)


def test_platt_is_the_logistic_regression_on_the_logit() -> None:
    reference = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(logit(P)[:, None], Y, sample_weight=W)
    step = fit_platt(P, Y, W)
    assert step.slope == pytest.approx(float(reference.coef_[0, 0]), rel=1e-4)
    assert step.intercept == pytest.approx(float(reference.intercept_[0]), rel=1e-3)
    assert W @ recalibrate(P, [step]) == pytest.approx(W @ Y, rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_platt_is_that_too_where_predictions_are_0_and_1() -> None:
    p = np.repeat([0.0, 1.0, 0.5], [200, 200, 100])
    y = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], [190, 10, 190, 10, 50, 50])
    found = fit_platt(p, y, np.ones(500))
    x = logit(np.clip(p, 1e-12, 1 - 1e-12))[:, None] / 10
    reference = LogisticRegression(C=1e12, max_iter=10_000, tol=1e-12).fit(x, y)
    assert found.slope == pytest.approx(reference.coef_[0, 0] / 10, rel=1e-5)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=1e-5)
    sure = np.linspace(0.01, 0.99, 500)
    assert fit_platt(sure, (sure > 0.5).astype(float), np.ones(500)).slope > 1  # without an end: no warning either


def test_isotonic_is_pool_adjacent_violators_and_keeps_the_total() -> None:
    curve = fit_isotonic(P, Y, W)
    np.testing.assert_allclose(
        recalibrate(P, [curve]), IsotonicRegression(out_of_bounds="clip").fit(P, Y, W).predict(P), atol=1e-12
    )
    assert W @ recalibrate(P, [curve]) == pytest.approx(W @ Y, rel=1e-9)


def test_what_is_no_probability_stays_undefined() -> None:
    for step in (Downsampling(rate=0.1), Platt(slope=1, intercept=0), Isotonic(predicted=(0.0,), calibrated=(0.5,))):
        assert np.isnan(recalibrate(np.array([np.nan, -0.1, 1.1]), [step])).all()


def test_nothing_is_fitted_to_one_label_or_to_a_model_that_ranks_backwards() -> None:
    with pytest.raises(ModelError, match="one of the two labels"):
        fit_isotonic(P, np.zeros(len(P)), W)
    with pytest.raises(ModelError, match="backwards"):
        fit_platt(P, (DRAW.random(len(P)) < 0.05 * (P < 0.02) + 0.001).astype(float), W)


@pytest.mark.parametrize("points", [((0.1, 0.1), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.1)), ((0.1,), (0.1, 0.2))])
def test_a_curve_that_does_not_rise_is_refused(points: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"must rise|differ in length"):
        Isotonic(predicted=points[0], calibrated=points[1])


def world(folder: Path) -> tuple[Path, Path]:
    """A scenario that judges the second of two days, and a model that predicts twice the odds."""
    n = 8000
    x = DRAW.normal(size=n)
    click = DRAW.random(n) < expit(x - 2)
    hours = np.arange(n) * 48 // n
    start = np.datetime64("2026-11-01T00:00:00")
    table = pa.table(
        {
            "ts": pa.array(start + hours.astype("timedelta64[h]")),
            "x": x,
            "click": click.astype(np.int8),
            "price": DRAW.gamma(2, 50, n),
            "target_cpc": np.full(n, 1.0),
            "pctr": expit(x - 2),
        }
    )
    pq.write_table(table, folder / "log.parquet")
    (folder / "s.yaml").write_text(
        "logs_tables: {ad: {path: log.parquet, last_hour: 2026-11-02T23:00:00, duration_hour: 24}}\n"
        "columns: {time: ts}\nperformance_indicator_type: cpc\n"
    )
    feature = (Feature(name="x", type="numeric"),)
    weights = np.zeros(32, dtype=np.float32)
    weights[hash_term(["x"]) % 32] = 1.0
    model = HashedLogisticRegression(HashedSpec(bits=5, features=("x",)), feature, weights, -2.0 + np.log(2))
    pack_hashed(folder / "m.bin", {"ctr": model})
    return folder / "s.yaml", folder / "m.bin"


def test_calibrate_fits_on_another_window_and_writes_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, model = world(tmp_path)
    out = tmp_path / "c.bin"
    earlier = ["--last-hour", "2026-11-01T23:00:00", "--duration-hour", "24"]
    command = ["model", "calibrate", str(model), "--scenario", str(scenario), "-o", str(out)]
    assert run([*command, *earlier]) == 0
    assert "ctr: 4000 rows" in capsys.readouterr().err
    (step,) = open_bundle(out).manifest.recalibration["ctr"]
    assert isinstance(step, Platt)
    assert step.slope == pytest.approx(1, abs=0.15)
    assert step.intercept == pytest.approx(-np.log(2), abs=0.25)
    batch = pa.RecordBatch.from_pydict({"x": [0.0]})
    assert open_bundle(out).scorer().score(batch)["ctr"][0] == pytest.approx(float(expit(-2)), rel=0.1)
    (window,) = open_bundle(out).manifest.calibration_windows
    assert (window.start, window.end) == ("2026-11-01T00:00:00+00:00", "2026-11-02T00:00:00+00:00")
    first = out.read_bytes()
    assert run([*command, *earlier, "--threads", "1", "--memory", "1GB"]) == 0
    assert out.read_bytes() == first
    assert run([*command, *earlier, "--method", "isotonic"]) == 0
    assert open_bundle(out).manifest.recalibration["ctr"][0].type == "isotonic"


def test_calibrate_refuses_the_judged_rows(tmp_path: Path) -> None:
    scenario, model = world(tmp_path)
    command = ["model", "calibrate", str(model), "--scenario", str(scenario), "-o", str(tmp_path / "c.bin")]
    for more, said in (
        ([], "these are the rows that will be judged"),
        (["--last-hour", "2026-11-02T05:00:00", "--duration-hour", "24"], "overlaps the judged rows"),
        (["--last-hour", "2026-11-01T00:00:00"], "belong together"),
        (["--last-hour", "2026-11-01T23:00:00", "--duration-hour", "24", "--head", "cvr"], "the model has no head cvr"),
        (["--last-hour", "2026-11-01T00:00:00", "--duration-hour", "1"], "are too few to fit a curve"),
    ):
        with pytest.raises(BidsimError, match=said):
            run([*command, *more])
    assert not (tmp_path / "c.bin").exists()


def test_calibrate_takes_another_log_but_not_the_judged_one_under_another_name(tmp_path: Path) -> None:
    scenario, model = world(tmp_path)
    out = tmp_path / "c.bin"
    command = ["model", "calibrate", str(model), "--scenario", str(scenario), "-o", str(out)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.parquet").hardlink_to(tmp_path / "log.parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "log.parquet")
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(tmp_path / "log.parquet").slice(0, 7000), other)
    pq.write_table(pq.read_table(tmp_path / "log.parquet").slice(0, 100), folder / "b.parquet")
    judged = ["--last-hour", "2026-11-02T05:00:00", "--duration-hour", "24"]
    for path in (tmp_path / "log.parquet", tmp_path / "link.parquet", folder):
        with pytest.raises(BidsimError, match="these are the rows that will be judged"):
            run([*command, "--table", f"ad={path}"])
        with pytest.raises(BidsimError, match="overlaps the judged rows"):
            run([*command, "--table", f"ad={path}", *judged])
    assert not out.exists()
    assert run([*command, "--table", f"ad={other}", *judged]) == 0
    assert run([*command, "--table", f"ad={other}"]) == 0
    (window,) = open_bundle(out).manifest.calibration_windows
    assert (window.start, window.end) == ("2026-11-02T00:00:00+00:00", "2026-11-03T00:00:00+00:00")
    earlier = ["--last-hour", "2026-11-01T23:00:00", "--duration-hour", "24"]
    assert run([*command, "--table", f"ad={folder / 'a.parquet'}", *earlier]) == 0
    # Without a path of its own, the scenario's log is whatever --table names, in a replay too.
    scenario.write_text(scenario.read_text().replace("path: log.parquet, ", ""))
    with pytest.raises(BidsimError, match="these are the rows that will be judged"):
        run([*command, "--table", f"ad={other}"])


def test_a_calibrated_bundle_says_which_rows_it_was_fitted_on(tmp_path: Path) -> None:
    """Also without a window: the times of the rows, wall clock in the scenario's zone."""
    scenario, model = world(tmp_path)
    scenario.write_text(
        scenario.read_text().replace(", last_hour: 2026-11-02T23:00:00, duration_hour: 24", "")
        + "timezone: Asia/Tokyo\n"
    )
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(tmp_path / "log.parquet").slice(0, 7000), other)
    out = tmp_path / "c.bin"
    command = ["model", "calibrate", str(model), "--scenario", str(scenario), "-o", str(out), "--table", f"ad={other}"]
    assert run(command) == 0
    (window,) = open_bundle(out).manifest.calibration_windows
    assert window.start == "2026-11-01T00:00:00+09:00"
    assert window.end.startswith("2026-11-02T17:00:00.000001+09:00")
    again = tmp_path / "again.bin"
    assert run([*command[:2], str(out), *command[3:5], "-o", str(again), *command[7:]]) == 0
    assert open_bundle(again).manifest.calibration_windows == (window, window)


def test_calibrate_warns_of_rows_that_the_model_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, model = world(tmp_path)
    earlier = ["--last-hour", "2026-11-01T23:00:00", "--duration-hour", "24"]
    for end, warned in (("2026-11-01T06:00:00", True), ("2026-11-01T00:00:00", False)):  # exclusive
        window = TrainingWindow(start="2026-10-31T00:00:00", end=end)
        open_bundle(model).with_manifest(training_window=window).write(tmp_path / "t.bin")
        command = ["model", "calibrate", str(tmp_path / "t.bin"), "--scenario", str(scenario), "-o", str(model)]
        assert run([*command, *earlier]) == 0
        assert ("trained on 6 hours of these rows" in capsys.readouterr().err) is warned


def test_calibrate_needs_no_head_that_only_the_bid_formula_asks_for(tmp_path: Path) -> None:
    scenario, model = world(tmp_path)
    scenario.write_text(scenario.read_text() + 'bid: {formula: "1000 * target_cpc * pctr * pcvr"}\n')
    earlier = ["--last-hour", "2026-11-01T23:00:00", "--duration-hour", "24", "-o", str(tmp_path / "c.bin")]
    assert run(["model", "calibrate", str(model), "--scenario", str(scenario), *earlier]) == 0


def test_calibrate_leaves_out_the_campaigns_that_a_replay_leaves_out(tmp_path: Path) -> None:
    scenario, model = world(tmp_path)
    log = pq.read_table(tmp_path / "log.parquet")
    campaign = np.arange(len(log)) % 4
    odd = campaign == 3  # counts more conversions than clicks
    log = log.append_column("ad_id", pa.array(campaign)).append_column("cv", pa.array(odd.astype(np.int8)))
    clicks = np.where(odd & (np.arange(len(log)) % 8 < 4), 0, log["click"].to_numpy())
    log = log.set_column(log.column_names.index("click"), "click", pa.array(clicks))
    pq.write_table(log, tmp_path / "log.parquet")
    said = scenario.read_text().replace("{time: ts}", "{time: ts, campaign: ad_id, conversion: cv}")
    scenario.write_text(said + "remove_anomaly_cvr_cpns: true\n")
    _, fits = calibrate(load_scenario(scenario), model, method="platt", window=Window("2026-11-01T23:00:00", 24))
    assert [(fit.head, fit.rows) for fit in fits] == [("ctr", 3000)]
