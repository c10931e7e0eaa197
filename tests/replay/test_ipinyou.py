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


Row = tuple[str, int, int, int]  # formula, impressions, clicks, cost


def check(rows: list[Row], cost: int | None, **keys: Any) -> None:
    """Replay one candidate for each formula, and compare what each wins. cost: the budget in cost, None for none."""
    scenario: dict[str, Any] = {
        "logs_tables": {"ad": {"path": str(shared_data("ipinyou_1458") / "test.csv")}},
        "sample_type": "imp-click",
        "candidates": {f"c{i}": {"bid": {"formula": row[0]}} for i, row in enumerate(rows)},
        **keys,
        "bid": {"formula": "pctr", **keys.get("bid", {})},
    }
    if cost is not None:
        scenario["budget"] = {"amount": cost / 1000, "per": "total", **keys.get("budget", {})}
    result = bidsim.replay(scenario)
    for i, (formula, *expected) in enumerate(rows):
        found = values(result, f"c{i}")
        assert [found["wins"], found["clicks"], round(found["spend"] * 1000)] == expected, (formula, cost)


def linear(b0: int, rate: str) -> str:
    return f"pctr * {b0} / {rate}"


CONST, L50, L100, L300 = "50", linear(50, "0.00079"), linear(100, "0.00079"), linear(300, "0.00079")
# Rule 1: stop after the win that reaches the budget; a bid equal to the price wins.
RULE_1: dict[int | None, list[Row]] = {
    100000: [(CONST, 3693, 1, 100004), (L50, 4530, 11, 100042), (L100, 3114, 4, 100010), (L300, 2129, 1, 100021)],
    500000: [(CONST, 17780, 7, 500020), (L50, 5666, 14, 123179), (L100, 15517, 22, 500000), (L300, 10457, 9, 500020)],
    2000000: [
        (CONST, 43224, 17, 1215282), (L50, 5666, 14, 123179), (L100, 15776, 22, 509774), (L300, 41739, 39, 2000012),
    ],
    None: [(CONST, 43224, 17, 1215282), (L50, 5666, 14, 123179), (L100, 15776, 22, 509774), (L300, 48989, 45, 2346859)],
}  # fmt: skip


@pytest.mark.parametrize("cost", RULE_1)
def test_stopping_at_the_win_that_reaches_the_budget(cost: int | None) -> None:
    check(RULE_1[cost], cost)


# Rule 2: stop once cost is above the budget (a unit more than "reaches"); bids cut to whole units must beat the price.
MCPC = "pctr * 81653.37974683545"
FREE: list[Row] = [
    (L50, 5104, 14, 113971),
    (L100, 14947, 22, 488176),
    (MCPC, 7698, 16, 199156),
    (CONST, 34969, 11, 802532),
]
RULE_2: dict[int, list[Row]] = {
    107030: [(L50, 4753, 14, 107038), (L100, 3210, 4, 107040), (MCPC, 3979, 6, 107040), (CONST, 4726, 1, 107038)],
    214061: [(L50, 5104, 14, 113971), (L100, 6397, 6, 214069), (MCPC, 7698, 16, 199156), (CONST, 9423, 2, 214076)],
    428122: [(L50, 5104, 14, 113971), (L100, 12937, 19, 428124), (MCPC, 7698, 16, 199156), (CONST, 18587, 7, 428143)],
    856244: FREE,
    1712488: FREE,
    3424976: FREE,
    6849953: FREE,
}


@pytest.mark.parametrize("cost", RULE_2)
def test_strict_auctions_of_whole_units(cost: int) -> None:
    check(RULE_2[cost], cost + 1, bid={"round": "down"}, auction={"ties": "lose"})


# Rule 3: never overspend, one budget. Rule 4: the budget renewed every 1000 rows.
RATE = "0.0007959634855805408"
CPC, N50, N100 = "pctr * 86552.66544417277", linear(50, RATE), linear(100, RATE)
RULES_3_AND_4: dict[tuple[int, str], list[Row]] = {
    (215289, "total"): [(CPC, 8141, 15, 215287), (N50, 5588, 14, 120752), (N100, 6628, 6, 215286)],
    (861159, "total"): [(CPC, 9113, 17, 239416), (N50, 5588, 14, 120752), (N100, 15634, 22, 502941)],
    (3444638, "total"): [(CPC, 9113, 17, 239416), (N50, 5588, 14, 120752), (N100, 15634, 22, 502941)],
    (2152, "row // 1000"): [(CPC, 7654, 14, 197184), (N50, 5578, 14, 120282), (N100, 7121, 7, 215004)],
    (8611, "row // 1000"): [(CPC, 9113, 17, 239416), (N50, 5588, 14, 120752), (N100, 15633, 22, 502835)],
}


@pytest.mark.parametrize(("cost", "per"), RULES_3_AND_4)
def test_bids_capped_at_the_money_left(cost: int, per: str) -> None:
    keys = {"bid": {"round": "down", "max": 300}, "budget": {"per": per, "overspend": "never"}}
    check(RULES_3_AND_4[(cost, per)], cost, **keys)


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
