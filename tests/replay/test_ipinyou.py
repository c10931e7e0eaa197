"""Real logs: the counts that the papers' own scripts give for iPinYou campaign 1458, and features of the iPinYou sample.

Expected numbers are the tables in the data's README. There money is *cost* (sums of CPM prices): cost = 1000 x spend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared_data import shared_data

import bidsim
from bidsim.result import Result


def values(result: Result, policy: str, head: str | None = None) -> dict[str, Any]:
    return {m.metric: m.value for m in result.metrics if m.policy == policy and m.head == head and not m.segment}


def replay(log: Path, formula: str, **keys: Any) -> dict[str, Any]:
    scenario: dict[str, Any] = {
        "logs_tables": {"ad": {"path": str(log / "test.csv")}},
        "sample_type": "imp-click",
        "candidates": {"new": {"bid": {"formula": formula}}},
        "bid": {"formula": "pctr", **keys.pop("bid", {})},
        **keys,
    }
    return values(bidsim.replay(scenario), "new")


# (formula, budget in cost, impressions, clicks, cost)
RULE_1 = [
    ("50", 100000, 3693, 1, 100004),
    ("50", 500000, 17780, 7, 500020),
    ("50", 2000000, 43224, 17, 1215282),
    ("50", None, 43224, 17, 1215282),
    ("pctr * 50 / 0.00079", 100000, 4530, 11, 100042),
    ("pctr * 50 / 0.00079", 500000, 5666, 14, 123179),
    ("pctr * 50 / 0.00079", 2000000, 5666, 14, 123179),
    ("pctr * 50 / 0.00079", None, 5666, 14, 123179),
    ("pctr * 100 / 0.00079", 100000, 3114, 4, 100010),
    ("pctr * 100 / 0.00079", 500000, 15517, 22, 500000),
    ("pctr * 100 / 0.00079", 2000000, 15776, 22, 509774),
    ("pctr * 100 / 0.00079", None, 15776, 22, 509774),
    ("pctr * 300 / 0.00079", 100000, 2129, 1, 100021),
    ("pctr * 300 / 0.00079", 500000, 10457, 9, 500020),
    ("pctr * 300 / 0.00079", 2000000, 41739, 39, 2000012),
    ("pctr * 300 / 0.00079", None, 48989, 45, 2346859),
]


@pytest.mark.parametrize(("formula", "budget", "wins", "clicks", "cost"), RULE_1)
def test_stopping_at_the_win_that_reaches_the_budget(
    formula: str, budget: int | None, wins: int, clicks: int, cost: int
) -> None:
    keys: dict[str, Any] = {} if budget is None else {"budget": {"amount": budget / 1000, "per": "total"}}
    found = replay(shared_data("ipinyou_1458"), formula, **keys)
    assert (found["wins"], found["clicks"], round(found["spend"] * 1000)) == (wins, clicks, cost)


# Rule 2: stop once cost is above the budget (a unit more than "reaches"); bids cut to whole units must beat the price.
RULE_2 = [
    ("pctr * 50 / 0.00079", 107030, 4753, 14, 107038),
    ("pctr * 100 / 0.00079", 107030, 3210, 4, 107040),
    ("pctr * 81653.37974683545", 107030, 3979, 6, 107040),
    ("50", 107030, 4726, 1, 107038),
    ("pctr * 100 / 0.00079", 428122, 12937, 19, 428124),
    ("pctr * 81653.37974683545", 6849953, 7698, 16, 199156),
    ("50", 856244, 34969, 11, 802532),
]


@pytest.mark.parametrize(("formula", "budget", "wins", "clicks", "cost"), RULE_2)
def test_strict_auctions_of_whole_units(formula: str, budget: int, wins: int, clicks: int, cost: int) -> None:
    found = replay(
        shared_data("ipinyou_1458"),
        formula,
        bid={"round": "down"},
        auction={"ties": "lose"},
        budget={"amount": (budget + 1) / 1000, "per": "total"},
    )
    assert (found["wins"], found["clicks"], round(found["spend"] * 1000)) == (wins, clicks, cost)


# Rule 3: never overspend. Rule 4: the budget renewed every 1000 rows.
RULES_3_AND_4 = [
    ("pctr * 86552.66544417277", 215289, "total", 8141, 15, 215287),
    ("pctr * 50 / 0.0007959634855805408", 215289, "total", 5588, 14, 120752),
    ("pctr * 100 / 0.0007959634855805408", 215289, "total", 6628, 6, 215286),
    ("pctr * 86552.66544417277", 861159, "total", 9113, 17, 239416),
    ("pctr * 100 / 0.0007959634855805408", 3444638, "total", 15634, 22, 502941),
    ("pctr * 86552.66544417277", 2152, "row // 1000", 7654, 14, 197184),
    ("pctr * 50 / 0.0007959634855805408", 2152, "row // 1000", 5578, 14, 120282),
    ("pctr * 100 / 0.0007959634855805408", 2152, "row // 1000", 7121, 7, 215004),
    ("pctr * 86552.66544417277", 8611, "row // 1000", 9113, 17, 239416),
    ("pctr * 50 / 0.0007959634855805408", 8611, "row // 1000", 5588, 14, 120752),
    ("pctr * 100 / 0.0007959634855805408", 8611, "row // 1000", 15633, 22, 502835),
]


@pytest.mark.parametrize(("formula", "budget", "per", "wins", "clicks", "cost"), RULES_3_AND_4)
def test_bids_capped_at_the_money_left(formula: str, budget: int, per: str, wins: int, clicks: int, cost: int) -> None:
    found = replay(
        shared_data("ipinyou_1458"),
        formula,
        bid={"round": "down", "max": 300},
        budget={"amount": budget / 1000, "per": per, "overspend": "never"},
    )
    assert (found["wins"], found["clicks"], round(found["spend"] * 1000)) == (wins, clicks, cost)


def test_prediction_metrics_are_scikit_learns() -> None:
    folder = shared_data("ipinyou_1458")
    scenario = {
        "logs_tables": {"ad": {"path": str(folder / "test.csv")}},
        "candidates": {"new": {"columns": {"pctr": "pctr / 2"}}},
        "bid": {"formula": "1000 * pctr"},
    }
    result = bidsim.replay(scenario)
    found = values(result, "baseline", "ctr")
    assert result.data.rows == 100000
    assert found["logloss"] == pytest.approx(0.005592219426176396, rel=1e-9)
    assert found["auc"] == pytest.approx(0.7348692804168863, abs=1e-12)
    assert found["calibration"] == pytest.approx(0.0005766913 * 100000 / 65, rel=1e-6)
    # Halving every prediction keeps the order: the same AUC, half the calibration.
    halved = values(result, "new", "ctr")
    assert halved["auc"] == found["auc"]
    assert halved["calibration"] == pytest.approx(0.5 * found["calibration"], rel=1e-12)


def test_a_model_trained_on_the_sample_is_replayed_on_its_test_part(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction import FeatureHasher  # noqa: F401
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    from bidsim.models import Feature, pack_sklearn

    folder = shared_data("ipinyou_sample")
    names = ["AdExchange", "AdSlotVisibility", "AdSlotFormat", "Region", "AdSlotWidth", "CreativeID"]
    train, test = (pd.read_csv(folder / f"{part}.csv", na_values=["null", "Na"]) for part in ("train", "test"))
    train[names] = train[names].fillna("missing").astype(str)
    model = Pipeline(
        [
            ("encode", ColumnTransformer([("onehot", OneHotEncoder(handle_unknown="ignore"), names)])),
            ("classify", LogisticRegression(C=0.1, max_iter=500)),
        ]
    )
    model.fit(train[names], train["IsClick"])
    features = [Feature(name=n, type="categorical") for n in names]
    pack_sklearn(tmp_path / "lr.bin", ctr=model, features=features)
    scenario = {
        "logs_tables": {"ad": {"path": str(folder / "test.csv")}},
        "columns": {"price": "PayingPrice", "bid": "BiddingPrice", "click": "IsClick", "campaign": "Adid"},
        "baseline": {"columns": {"pctr": "0.0275"}, "bid": {"formula": "BiddingPrice"}},
        "bid": {"formula": "pctr * 3000"},
        "segments": ["AdExchange"],
    }
    result = bidsim.replay(scenario, [tmp_path / "lr.bin"])
    found = values(result, "lr", "ctr")
    predicted = model.predict_proba(test[names].fillna("missing").astype(str))[:, 1]
    assert result.data.rows == 2207
    assert found["auc"] == pytest.approx(roc_auc_score(test["IsClick"], predicted), abs=0.02)
    assert found["logloss"] == pytest.approx(log_loss(test["IsClick"], predicted), rel=0.02)
    # The production bids are the log's own: replayed, they win what the log won.
    assert values(result, "baseline")["clicks"] == 65
    assert result.fidelity.passed
    assert result.fidelity.formula_drift == 0
