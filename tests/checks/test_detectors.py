"""Each check fires on a log made for it and stays silent on a clean one (issue 4, part 5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from check_logs import SPOTS, START, check, clean, codes, map_rows, model, outcome

import bidsim
from bidsim.checks.catalogue import CHECKS, QUICK
from bidsim.models import open_bundle
from bidsim.models.manifest import TrainingWindow

Row = dict[str, Any]
BEFORE = ("2026-10-01T00:00:00+00:00", "2026-11-01T00:00:00+00:00")


def test_a_row_of_1970_makes_a_gap_that_is_told_and_not_listed(tmp_path: Path) -> None:
    rows = clean()
    rows["ts"] = [datetime(1970, 1, 1, tzinfo=rows["ts"][0].tzinfo), *rows["ts"][1:]]
    found = outcome(check(tmp_path, rows), "C01")
    assert found.severity == "error"
    assert found.facts["missing"][0] == "1970-01-01 01:00"
    assert len(found.facts["missing"]) == 200


def test_a_clean_log_has_no_findings_and_every_check_was_made(tmp_path: Path) -> None:
    report = check(tmp_path, clean(), baseline=model(tmp_path / "prod.bin", window=BEFORE))
    assert codes(report) == []
    assert {o.code for o in report.outcomes if o.status == "ok"} == set(CHECKS)
    assert not report.failed


def spoilt(**changes: Any) -> Callable[[Row], Row]:
    return lambda row: {**row, **{k: f(row) if callable(f) else f for k, f in changes.items()}}


def times(name: str, factor: float) -> Callable[[Row], Row]:
    return spoilt(**{name: lambda r: None if r[name] is None else r[name] * factor})


def first(rows: int, change: Callable[[Row], Row]) -> Callable[[Row], Row]:
    return lambda row: change(row) if row["request_id"] < rows else row


def hour(row: Row) -> int:
    return int((row["ts"] - START) / timedelta(hours=1))


# (code, severity, change of each row, what the evidence says)
ROW_BY_ROW: list[tuple[str, str, Callable[[Row], Row | None], str]] = [
    ("C01", "warning", lambda r: None if hour(r) in (30, 31) else r, "2 of 72 hours have no row"),
    ("C01", "error", lambda r: None if hour(r) % 5 == 2 else r, "2026-11-01 02:00, 2026-11-01 07:00"),
    ("C04", "error", spoilt(click_time=lambda r: r["click_time"] and r["ts"] - timedelta(hours=9)), "before their impress"),
    ("C04", "error", first(400, spoilt(conversion_time=lambda r: r["conversion_time"] and START)), "before their click"),
    ("C04", "error", spoilt(conversion=lambda r: 1 if r["click"] == 0 and r["request_id"] % 9 == 0 else r["conversion"]),
     "without a click"),
    ("C05", "warning", first(200, spoilt(price=lambda r: r["price"] and r["bid"] * 1.5)), "above the logged bid"),
    ("C05", "error", spoilt(price=lambda r: r["price"] and r["bid"]), "have the logged bid as their price, as in a first-price"),
    ("C05", "error", spoilt(price=lambda r: r["price"] and r["bid"] * 1.5), "(100.00%)"),
    ("C06", "error", times("price", 1e6), "about a factor of 10^6"),
    ("C06", "error", times("price", 1e-3), "about a factor of 10^-3"),
    ("C06", "error", times("target_cpa", 1e3), "recomputed baseline bid to logged bid"),
    ("C07", "warning", lambda r: None if r["click"] == 0 and r["request_id"] % 4 else r, "times the clicks"),
    ("C11", "warning", spoilt(campaign=lambda r: 1 if r["request_id"] % 5 else r["campaign"]), "Campaign 1 has 8"),
    ("C12", "warning", spoilt(user_id=lambda r: r["user_id"] % 9), "9 units"),
    ("C12", "warning", spoilt(conversion=lambda r: r["conversion"] if r["request_id"] < 300 else 0,
                              conversion_time=lambda r: r["conversion_time"] if r["request_id"] < 300 else None),
     "conversions; intervals"),
    ("C13", "warning", spoilt(click=lambda r: None if r["request_id"] % 10 == 0 else r["click"]), "have no click label"),
    ("C13", "error", spoilt(conversion=lambda r: r["conversion"] or None), "no conversion label"),
    ("C14", "warning", lambda r: None if r["campaign"] == 2 and r["ts"].hour >= 10 else r,
     "3 of 12 campaign days end early"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "severity", "change", "said"), ROW_BY_ROW)
def test_each_check_fires_on_a_log_made_for_it(
    code: str, severity: str, change: Callable[[Row], Row | None], said: str, tmp_path: Path
) -> None:
    report = check(tmp_path, map_rows(clean(), change))
    found = outcome(report, code)
    assert (found.status, found.severity) == ("found", severity), codes(report)
    assert said in found.evidence, found.evidence
    assert found.fix.endswith(".")
    assert report.failed == any(o.severity == "error" for o in report.outcomes)


def test_rows_that_stand_twice_are_counted_with_what_they_cost(tmp_path: Path) -> None:
    rows = clean()
    twice = {name: [*values, *values[:50]] for name, values in rows.items()}
    found = outcome(check(tmp_path, twice), "C02")
    assert (found.severity, found.facts["rows"]) == ("error", 50)
    assert found.facts["spend"] == pytest.approx(sum(p or 0 for p in rows["price"][:50]) / 1000)
    # What a lost auction's price is, nobody paid.
    dear = {**twice, "price": [5.0 if p is None else p for p in twice["price"]]}
    assert outcome(check(tmp_path, dear), "C02").facts["spend"] == pytest.approx(found.facts["spend"])
    # Without requests, a few equal rows may be chance, unless nothing that meets in time differs; a file read twice is none.
    few = outcome(check(tmp_path, twice, without=("request_id",)), "C02")
    assert (few.severity, few.facts["rows"]) == ("warning", 50)
    met = [i for i in range(400) if rows["price"][i] is not None]
    other = {**twice, **{name: [*values, *(values[i] for i in met)] for name, values in twice.items()}}
    other["price"][-len(met) :] = [price * 0.9 for price in other["price"][-len(met) :]]
    assert outcome(check(tmp_path, other, without=("request_id",)), "C02").status == "ok"
    whole = {name: values * 2 for name, values in rows.items()}
    assert outcome(check(tmp_path, whole, without=("request_id",)), "C02").severity == "error"


def test_a_join_that_multiplied_rows_is_found(tmp_path: Path) -> None:
    rows = clean()
    # Each click of the first thousand rows met two conversions of the same user.
    extra = [i for i in range(1000) if rows["click"][i]]
    fanned = {name: [*values, *(values[i] for i in extra)] for name, values in rows.items()}
    fanned["conversion_time"][-len(extra) :] = [rows["click_time"][i] + timedelta(hours=1) for i in extra]
    found = outcome(check(tmp_path, fanned), "C03")
    assert (found.status, found.facts["rows"]) == ("found", len(extra))
    assert outcome(check(tmp_path, fanned), "C02").status == "ok"


def test_campaigns_that_the_campaign_table_lacks_are_named(tmp_path: Path) -> None:
    (tmp_path / "campaigns.csv").write_text("campaign,name\n1,one\n2,two\n3,three\n")
    found = outcome(check(tmp_path, clean(), campaigns="campaigns.csv"), "C03")
    assert found.facts["campaigns"] == ["4"]


def test_weights_that_were_taken_into_account_already_are_told_from_weights_that_lack(tmp_path: Path) -> None:
    weighted = map_rows(clean(), spoilt(weight=lambda r: 1.0 if r["click"] else 10.0))
    found = outcome(check(tmp_path, weighted), "C07")
    assert found.severity == "error"
    assert "not both" in found.fix
    # One row in four without a click, and a weight that says so: nothing is wrong.
    sampled = map_rows(clean(), lambda r: None if r["click"] != 1 and r["request_id"] % 4 else r)
    right = map_rows(sampled, spoilt(weight=lambda r: 1.0 if r["click"] else 4.0))
    assert outcome(check(tmp_path, right), "C07").status == "ok"
    assert "1 in about" in outcome(check(tmp_path, sampled), "C07").fix


def test_conversions_still_to_come_are_seen_with_and_without_their_times(tmp_path: Path) -> None:
    def late(row: Row) -> Row:
        if not row["conversion"]:
            return row
        came = row["click_time"] + timedelta(hours=36) * ((row["request_id"] * 7919 % 1000) / 1000)
        known = came <= START + timedelta(hours=72)
        return {**row, "conversion": int(known), "conversion_time": came if known else None}

    rows = map_rows(clean(), late)
    found = outcome(check(tmp_path, rows), "C08")
    assert (found.status, found.severity) == ("found", "warning")
    blind = check(tmp_path, rows, without=("conversion_time", "click_time"))
    told = outcome(blind, "C08")
    assert "last quarter" in told.evidence
    converted = [c for c, click in zip(rows["conversion"], rows["click"], strict=True) if click]  # in order of time
    quarter = len(converted) // 4
    for name, part in (("earlier", converted[:-quarter]), ("last", converted[-quarter:])):
        assert told.facts[name] == pytest.approx(sum(part) / len(part), rel=0.005)
    # Where every click converts their rate has no spread, and does not fall.
    sure = check(tmp_path, map_rows(clean(), spoilt(conversion=lambda r: r["click"])), without=("conversion_time",))
    assert outcome(sure, "C08").status == "ok"
    maturity = {"conversion_window_hours": 36, "observed_until": "2026-11-04T00:00:00+00:00"}
    assert outcome(check(tmp_path, rows, maturity=maturity), "C08").severity == "info"


@pytest.mark.parametrize(("end", "severity"), [("2026-11-01T06:00:00+00:00", "error"), (BEFORE[1], None)])
def test_training_days_inside_the_window_are_a_leak(end: str, severity: str | None, tmp_path: Path) -> None:
    bundle = model(tmp_path / "new.bin", window=(BEFORE[0], end))
    report = check(tmp_path, clean(), models=[bundle])
    assert outcome(report, "C09").severity == severity
    if severity:
        assert "6.0 hours" in outcome(report, "C09").evidence


@pytest.mark.parametrize(("end", "severity"), [("2026-11-01T06:00:00+00:00", "warning"), (BEFORE[1], None)])
def test_rows_that_a_model_was_recalibrated_on_are_told(end: str, severity: str | None, tmp_path: Path) -> None:
    model(tmp_path / "new.bin", window=BEFORE)
    windows = (TrainingWindow(start=BEFORE[0], end=BEFORE[1]), TrainingWindow(start=BEFORE[0], end=end))
    calibrated = open_bundle(tmp_path / "new.bin").with_manifest(calibration_windows=windows)
    calibrated.write(tmp_path / "calibrated.bin")
    report = check(tmp_path, clean(), models=[tmp_path / "calibrated.bin"])
    assert outcome(report, "C09").severity == severity
    if severity:
        assert '"calibrated" was recalibrated on rows' in outcome(report, "C09").evidence
        assert "6.0 hours" in outcome(report, "C09").evidence


def test_values_that_the_model_never_saw_are_found(tmp_path: Path) -> None:
    bundle = model(tmp_path / "new.bin", spots=SPOTS[:2])
    found = outcome(check(tmp_path, clean(), models=[bundle]), "C10")
    assert found.severity == "error"
    assert found.facts["shares"]["new"]["spot"] == pytest.approx(clean()["spot"].count("foot") / 7200)
    upper = map_rows(clean(), spoilt(spot=lambda r: r["spot"].upper()))
    assert (
        outcome(check(tmp_path, upper, models=[model(tmp_path / "all.bin")]), "C10").facts["shares"]["all"]["spot"] == 1
    )


def test_a_scikit_learn_encoder_tells_what_it_has_seen(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("skops")
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    from bidsim.models import Feature, pack_sklearn

    rows = clean()
    known = pd.DataFrame({"spot": ["top", "side"] * 10})
    encoder = ColumnTransformer([("one", OneHotEncoder(handle_unknown="ignore"), ["spot"])])
    fitted = Pipeline([("encode", encoder), ("fit", LogisticRegression())]).fit(known, [0, 1] * 10)
    pack_sklearn(tmp_path / "lr.bin", ctr=fitted, features=[Feature(name="spot", type="categorical")])
    found = outcome(check(tmp_path, rows, models=[tmp_path / "lr.bin"]), "C10")
    assert found.facts["shares"]["lr"]["spot"] == pytest.approx(rows["spot"].count("foot") / 7200)


def test_a_category_is_known_however_the_log_writes_it(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    pytest.importorskip("skops")
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, pack_hashed, pack_sklearn
    from bidsim.models.columns import hash_term

    known = pd.DataFrame({"slot": [7.0, 8.0, np.nan, 9.0] * 10, "app": [True, False] * 20})
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["slot", "app"]))
    fitted = make_pipeline(encoder, LogisticRegression()).fit(known, [0, 1] * 20)
    kinds = [("slot", "float64"), ("app", "bool")]
    features = [Feature(name=n, type="categorical", dtype=dtype) for n, dtype in kinds]
    pack_sklearn(tmp_path / "lr.bin", ctr=fitted, features=features, example=known.head(8))
    terms = [["slot", v] for v in ("", "7", "8", "9")] + [["app", v] for v in ("true", "false")]
    weights = np.zeros(1 << 10, dtype=np.float32)
    weights[[hash_term(term) % 1024 for term in terms]] = 0.1
    spec = HashedSpec(bits=10, features=("slot", "app"))
    plain = tuple(Feature(name=n, type="categorical") for n, _ in kinds)
    pack_hashed(tmp_path / "hashed.bin", {"ctr": HashedLogisticRegression(spec, plain, weights, 0.0)})
    for kind, models in (("bigint", ("lr", "hashed")), ("double", ("hashed",)), ("decimal(12,2)", ("lr", "hashed"))):
        columns = {"slot": f"cast(nullif(request_id % 4 + 6, 6) as {kind})", "app": "won = 1"}
        log = {name: values[:400] for name, values in clean().items()}
        report = check(tmp_path, log, models=[tmp_path / f"{name}.bin" for name in models], made=columns)
        assert outcome(report, "C10").status == "ok", outcome(report, "C10").evidence


def test_the_hour_that_summer_time_leaves_out_is_not_missing(tmp_path: Path) -> None:
    start = datetime(2026, 3, 28)
    hours = [h for h in range(72) if h != 26]  # 02:00 of the 29th does not come in Berlin
    rows = map_rows(clean(), lambda r: {**r, "ts": start + timedelta(hours=hours[r["request_id"] % 71], minutes=5)})
    assert (
        outcome(check(tmp_path, rows, made={"ts": "timezone('UTC', ts)"}, timezone="Europe/Berlin"), "C01").status
        == "ok"
    )
    found = outcome(check(tmp_path, rows, made={"ts": "timezone('UTC', ts)"}), "C01")
    assert found.facts["missing"] == ["2026-03-29 02:00"]


def test_predictions_that_production_did_not_make_are_found_with_hour_and_segment(tmp_path: Path) -> None:
    baseline = model(tmp_path / "prod.bin")
    skewed = map_rows(
        clean(), spoilt(pctr=lambda r: r["pctr"] * (1.5 if r["spot"] == "side" and r["ts"].hour == 5 else 1.0))
    )
    found = outcome(check(tmp_path, skewed, baseline=baseline), "C15")
    assert (found.status, found.severity) == ("found", "warning")
    facts = found.facts["pctr"]
    assert facts["by"]["hour"]["5"]["ratio"] < 0.9
    assert facts["by"]["hour"]["6"]["off_by_1_percent"] == 0
    assert facts["by"]["spot"]["top"]["off_by_1_percent"] == 0
    assert facts["by"]["spot"]["side"]["off_by_1_percent"] > 0
    halved = map_rows(clean(), times("pctr", 0.5))
    assert outcome(check(tmp_path, halved, baseline=baseline), "C15").severity == "error"


def test_bids_that_production_did_not_make_are_a_warning(tmp_path: Path) -> None:
    shaded = map_rows(clean(), times("bid", 1.3))
    found = outcome(check(tmp_path, shaded), "C16")
    assert (found.status, found.severity) == ("found", "warning")
    assert found.facts["bids"]["ratio"] == pytest.approx(1 / 1.3)


def test_a_replay_shows_what_the_quick_checks_found(tmp_path: Path) -> None:
    rows = map_rows(clean(), lambda r: None if hour(r) in (30, 31) else r)
    rows = map_rows(rows, spoilt(campaign=lambda r: 1 if r["request_id"] % 5 else r["campaign"]))
    check(tmp_path, rows)
    document = {
        "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
        "columns": {"time": "ts", "unit": "user_id"},
        "candidates": {"new": {"bid": {"multiplier": 0.9}}},
    }
    for budget in ({}, {"budget": {"amount": 0.1, "per": "day"}}):
        result = bidsim.replay({**document, **budget})
        shown = {f.code: f for f in result.findings if f.code in QUICK}
        assert set(shown) == {"C01", "C11"}
        assert "Fetch them again" in shown["C01"].message
