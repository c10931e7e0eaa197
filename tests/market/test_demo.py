"""The demo is the same every time, its log could have come from its own production model, and its candidate is both
better at ranking and too sure of itself."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

from bidsim import replay
from bidsim.errors import BidsimError
from bidsim.market import DemoFiles, DemoSize, write_demo
from bidsim.market.demo import production_bids
from bidsim.market.live import Day, Rules, run_live
from bidsim.market.market import CAMPAIGNS, CPA, LOG_SCHEMA, SEED, Market
from bidsim.models import open_bundle
from bidsim.scenario.schema import Scenario

SMALL = DemoSize(training_rows_per_day=4_000, evaluation_rows_per_day=4_000)
EVALUATION = ("2026-11-05", "2026-11-06", "2026-11-07")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    """Of the real size, less a day here and there: a few seconds."""
    size = DemoSize(training_rows_per_day=60_000, evaluation_rows_per_day=60_000)
    return write_demo(tmp_path_factory.mktemp("demo"), lambda message: None, size=size)


@pytest.fixture(scope="module")
def log(demo: DemoFiles) -> pa.RecordBatch:
    folder = demo.scenario.parent / "logs"
    days = [pq.read_table(folder / f"dt={day}" / "part-0.parquet", partitioning=None) for day in EVALUATION]
    return pa.concat_tables(days).combine_chunks().to_batches()[0]


def column(log: pa.RecordBatch, name: str) -> np.ndarray:
    return np.asarray(log[name].to_numpy(zero_copy_only=False), dtype=np.float64)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_demo_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    said: list[str] = []
    write_demo(tmp_path / "a", said.append, size=SMALL)
    write_demo(tmp_path / "b", lambda message: None, size=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert said
    before = contents(tmp_path / "a")
    write_demo(tmp_path / "a", lambda message: None, size=SMALL)
    assert contents(tmp_path / "a") == before
    write_demo(tmp_path / "c", lambda message: None, size=SMALL, seed=2)
    assert contents(tmp_path / "c")["prod.bin"] != before["prod.bin"]


def test_it_writes_what_it_says(demo: DemoFiles) -> None:
    folder = demo.scenario.parent
    days = sorted(folder.glob("logs/dt=*/*.parquet"))
    assert [path.parent.name for path in days] == [f"dt=2026-11-0{n}" for n in range(1, 8)]
    assert demo.log == str(folder / "logs" / "dt=*" / "*.parquet")
    lines = demo.campaigns.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "ad_id,name,target_cpc,target_cpa,daily_budget"
    assert lines[1] == "101,星空パズル iOS,,480,1300"
    assert len(lines) == 13
    assert demo.baseline.name == "prod.bin"
    assert demo.candidate.name == "v2.bin"


def test_the_scenario_is_one_that_bidsim_reads(demo: DemoFiles) -> None:
    raw = YAML(typ="safe").load(demo.scenario.read_text(encoding="utf-8"))
    scenario = Scenario.model_validate(raw)
    assert scenario.heads == ("ctr", "cvr")
    assert 5 <= len(scenario.gate) <= 8
    assert {rule.evidence for rule in scenario.gate} == {"interval"}
    assert scenario.budget is not None
    named = scenario.columns.model_dump(exclude_none=True).values()
    assert set(named) <= set(LOG_SCHEMA.names)


def test_a_scenario_that_is_not_the_demos_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text("name: mine\n")
    with pytest.raises(BidsimError, match="choose another directory"):
        write_demo(tmp_path, lambda message: None, size=SMALL)
    assert (tmp_path / "scenario.yaml").read_text() == "name: mine\n"
    (tmp_path / "file").touch()
    with pytest.raises(BidsimError, match="can't be written"):
        write_demo(tmp_path / "file" / "x", lambda message: None, size=SMALL)


def test_prices_and_labels_stand_only_on_won_rows(log: pa.RecordBatch) -> None:
    assert log.schema.equals(LOG_SCHEMA)
    won = column(log, "is_win") == 1
    price, bid = column(log, "paying_price"), column(log, "bid_price")
    for name in ("paying_price", "is_click", "cv"):
        assert (np.isnan(column(log, name)) == ~won).all()
    assert (bid[won] >= price[won]).all()
    assert (price[won] > 0).all()
    click, conversion = column(log, "is_click"), column(log, "cv")
    assert (click[conversion == 1] == 1).all()
    assert (~log["click_ts"].is_null().to_numpy(zero_copy_only=False) == (click == 1)).all()
    assert (~log["cv_ts"].is_null().to_numpy(zero_copy_only=False) == (conversion == 1)).all()
    assert (np.diff(log["ts"].cast("int64").to_numpy()) >= 0).all()
    assert 0.01 < click[won].mean() < 0.025
    assert 0.05 < conversion[won].sum() / click[won].sum() < 0.13
    assert 0.3 < won.mean() < 0.8


def test_days_and_hours_are_tokyos(demo: DemoFiles, log: pa.RecordBatch) -> None:
    local = log["ts"].cast("int64").to_numpy() // 1_000_000 + 9 * 3600
    assert (local // 3600 % 24 == column(log, "hour")).all()
    days = np.datetime64("1970-01-01") + np.unique(local // 86400).astype("timedelta64[D]")
    assert [str(day) for day in days] == list(EVALUATION)


def test_production_bid_with_the_baseline(demo: DemoFiles, log: pa.RecordBatch) -> None:
    scores = open_bundle(demo.baseline).scorer().score(log)
    campaign = {c.ad_id: c for c in CAMPAIGNS}
    ads = [campaign[ad] for ad in log["ad_id"].to_pylist()]
    target = np.array([c.target for c in ads])
    pcvr = np.where([c.billing_type == CPA for c in ads], scores["cvr"], 1.0)
    np.testing.assert_array_equal(1000 * (target * scores["ctr"] * pcvr), column(log, "bid_price"))


def test_the_baseline_adds_up_and_the_candidate_ranks_better_but_promises_too_much(
    demo: DemoFiles, log: pa.RecordBatch
) -> None:
    won = column(log, "is_win") == 1
    click = column(log, "is_click")[won]
    prod = open_bundle(demo.baseline).scorer().score(log)["ctr"][won]
    v2 = open_bundle(demo.candidate).scorer().score(log)["ctr"][won]
    assert 0.93 < prod.sum() / click.sum() < 1.07
    assert 1.12 < v2.sum() / click.sum() < 1.28
    assert roc_auc_score(click, v2) > roc_auc_score(click, prod) + 0.03


def test_what_v2_would_really_bring_lies_in_its_identified_range(demo: DemoFiles) -> None:
    market, size = Market(SEED), DemoSize(training_rows_per_day=60_000, evaluation_rows_per_day=60_000)
    scorers = {name: open_bundle(file).scorer() for name, file in (("baseline", demo.baseline), ("v2", demo.candidate))}
    rules = Rules(budget=np.array([c.daily_budget for c in CAMPAIGNS]))
    truth = dict.fromkeys(scorers, 0.0)
    for day in EVALUATION:
        auctions = market.opportunities(date.fromisoformat(day), size.evaluation_rows_per_day)
        own = np.arange(len(auctions))
        for name, scorer in scorers.items():
            bid = production_bids(auctions, scorer)
            wins, _ = run_live(Day(auctions.request, auctions.campaign, own, auctions.price), bid, bid, rules)
            truth[name] += float((auctions.ctr * auctions.cvr * wins).sum())
    result = replay(demo.scenario, [demo.candidate])
    (found,) = [d for d in result.differences if d.metric == "conversions" and not d.segment]
    assert found.identified is not None
    low, high = found.identified.relative.low, found.identified.relative.high
    assert low is not None
    assert high is not None
    change = truth["v2"] / truth["baseline"] - 1
    assert low < change < high
    assert high - low > 0.1
