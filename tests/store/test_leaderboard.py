"""The leaderboard: runs compared only within the same data and replay, beside what online tests showed."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command import bidsim
from scipy.stats import kendalltau
from stored import BASE, make, run_files, store

from bidsim import replay
from bidsim.errors import BidsimError
from bidsim.store.leaderboard import make_leaderboard
from bidsim.store.page import render_leaderboard
from bidsim.store.record import count_judged, make_record, policy_identity
from bidsim.store.scan import scan
from bidsim.store.track import FEWEST, kendall


def test_runs_are_ranked_within_the_same_data_scenario_and_baseline(tmp_path: Path) -> None:
    store(tmp_path / "a", make({"v1": {"cpa": (95.0, 90.0, 99.0)}}))
    store(tmp_path / "b", make({"v2": {"cpa": (80.0, 78.0, 82.0)}, "v3": {"cpa": (98.0, 97.0, 99.0)}}))
    store(tmp_path / "c", make({"v4": {"cpa": (10.0, 9.0, 11.0)}}, data="d2"))
    store(tmp_path / "d", make({"v5": {"cpa": 20.0}}, scenario={"auction": {"type": "first_price"}}))
    # What is judged, and where the log lies, are no part of what is replayed.
    same = {"gate": [{"metric": "cpa", "at_most": 1}], "candidates": {}, "logs_tables": {"ad": {"path": "elsewhere"}}}
    store(tmp_path / "e", make({"v6": {"cpa": (81.0, 79.0, 83.0)}}, scenario={"logs_tables": {"ad": {}}, "gate": []}))
    store(tmp_path / "f", make({"v7": {"cpa": (82.0, 81.9, 83.0)}}, scenario=same))
    found = make_leaderboard([tmp_path], "cpa")
    boards = [[(e.rank, e.policy, e.level) for e in b.entries] for b in found.boards]
    assert sorted(boards) == sorted(
        [
            [(1, "v2", False), (2, "v1", False), (3, "v3", False)],
            [(1, "v4", False)],
            [(1, "v5", False)],
            [(1, "v6", False), (2, "v7", True)],
        ]
    )
    tried = {b.fingerprint: b.tried for b in found.boards}
    assert tried == {"d1": 6, "d2": 1}


@pytest.mark.parametrize(
    ("by", "order"), [("conversions", ["v2", "v1", "v3"]), ("cpa", ["v3", "v1", "v2"]), ("calibration", ["v1", "v3", "v2"])]
)  # fmt: skip
def test_the_better_direction_is_the_metrics_and_nulls_come_last(tmp_path: Path, by: str, order: list[str]) -> None:
    values = {"v1": (10.0, 90.0, 1.01), "v2": (12.0, 95.0, 0.5), "v3": (9.0, 80.0, 1.3)}
    for name, (conversions, cpa, calibration) in values.items():
        made = make({name: {"conversions": conversions, "cpa": cpa, "calibration": calibration}})
        store(tmp_path / name, made)
    store(tmp_path / "none", make({"v0": {"spend": 1.0}}))
    (board,) = make_leaderboard([tmp_path], by).boards
    assert [e.policy for e in board.entries] == [*order, "v0"]
    assert board.entries[-1].rank is None


def test_a_number_of_which_neither_more_nor_less_is_better_is_said_to_be_none(tmp_path: Path) -> None:
    for name, spend in (("v1", 90.0), ("v2", 120.0)):
        store(tmp_path / name, make({name: {"spend": spend}}))
    found = make_leaderboard([tmp_path], "spend")
    assert found.better == "neither more nor less is better; the most comes first"
    assert [e.policy for e in found.boards[0].entries] == ["v2", "v1"]


def test_other_targets_are_other_data_wherever_the_campaign_table_lies(tmp_path: Path) -> None:
    log = "campaign,click,price,pctr\n1,1,20,0.1\n2,0,30,0.05\n1,0,10,0.02\n"
    (tmp_path / "log.csv").write_text(log)
    tables = {"a": "campaign,target_cpc\n1,1.5\n2,2\n", "b": "target_cpc,campaign\n2.0,2\n1.50,1\n"}
    records = {}
    for name, table in {**tables, "c": tables["a"].replace("1.5", "1.6")}.items():
        (tmp_path / f"{name}.csv").write_text(table)
        (tmp_path / "s.yaml").write_text(
            f"logs_tables: {{ad: {{path: log.csv}}}}\ncampaigns: {name}.csv\nperformance_indicator_type: cpc\n"
            "candidates: {v: {bid: {multiplier: 0.9}}}\n"
        )
        records[name] = make_record(replay(tmp_path / "s.yaml"), "", {})
    assert records["a"].comparison == records["b"].comparison
    assert records["c"].fingerprint != records["a"].fingerprint
    assert records["c"].comparison != records["a"].comparison


def test_a_log_is_the_same_data_whatever_a_scenario_looks_at_in_it(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "campaign,os,click,cv,price,pctr\n1,a,1,1,20,0.1\n2,b,0,0,30,0.05\n1,b,1,0,10,0.02\n"
    )
    records = []
    for at, more in enumerate(("", "segments: [os]\n", "segments: [campaign]\n", "sample_type: imp-click\n")):
        (tmp_path / "s.yaml").write_text(
            "logs_tables: {ad: {path: log.csv}}\nperformance_indicator_type: cpc\nbid: {formula: 300 * pctr}\n"
            f"columns: {{conversion: cv, pcvr: '0.5'}}\ncandidates: {{v: {{bid: {{multiplier: 0.{9 - at}}}}}}}\n{more}"
        )
        records.append(make_record(replay(tmp_path / "s.yaml"), "", {}))
    assert len({record.fingerprint for record in records}) == 1
    assert count_judged(records[0], records[1:]).candidates == 4


def test_the_same_candidate_counts_once_however_often_it_is_judged(tmp_path: Path) -> None:
    for name in "abc":
        store(tmp_path / name, make({f"called {name}": {"cpa": 90.0}}, sha256="one model"))
    (board,) = make_leaderboard([tmp_path]).boards
    assert (board.tried, len(board.entries)) == (1, 3)
    records = [r.record for r in scan([tmp_path]).runs]
    assert count_judged(records[0], records[1:]).model_dump() == {"candidates": 1, "runs": 3}


def test_logged_predictions_are_another_candidate_where_they_predict_otherwise() -> None:
    """They have no file: by the same columns, what tells them apart is how well they predict, and nobody else."""

    def identity(own: float, others: float, name: str = "v1", sha256: str | None = None) -> str:
        made = make({name: {"logloss": own, "cpa": 90.0}, "v2": {"logloss": others}})
        return policy_identity(made, made.policies[1].model_copy(update={"sha256": sha256}))

    assert identity(0.3, 0.5) == identity(0.3, 0.6) == identity(0.3, 0.5, name="again")
    assert identity(0.3, 0.5) != identity(0.4, 0.5)
    assert identity(0.3, 0.5, sha256="a") == identity(0.4, 0.5, sha256="a") != identity(0.3, 0.5, sha256="b")


def test_what_is_no_whole_run_is_passed_over_and_counted(tmp_path: Path) -> None:
    store(tmp_path / "good", make({"v1": {"cpa": 90.0}}))
    store(tmp_path / "odd [1] *?", make({"v2": {"cpa": 91.0}}))  # a name that reads as a pattern
    files = run_files(make({"v9": {"cpa": 1.0}}))
    broken = {
        "no result": {"run.json": files["run.json"]},
        "cut": {"run.json": str(files["run.json"])[:200], "result.json": files["result.json"]},
        "foreign": {"notes.txt": "hello"},
        "other json": {"run.json": "[1, 2]", "result.json": "{}"},
        "older": {"run.json": '{"schema": "bidsim.run/0"}', "result.json": "{}"},
        ".half-x1": {"result.json": files["result.json"]},
        ".git": {"config": ""},
    }
    for name, content in broken.items():
        (tmp_path / name).mkdir()
        for file, text in content.items():
            (tmp_path / name / file).write_text(str(text))
    (tmp_path / "file.txt").write_text("x")
    found = make_leaderboard([tmp_path])
    assert [e.policy for b in found.boards for e in b.entries] == ["v1", "v2"]
    assert found.passed_over == "6 folders passed over: 1 unfinished, 5 without a run"


def test_one_forged_run_does_not_end_the_leaderboard(tmp_path: Path) -> None:
    """Numbers that are none, and a key that stands twice, of which readers of JSON take one or the other."""
    store(tmp_path / "good", make({"v1": {"cpa": (90.0, 80.0, 99.0)}}))
    changes = {
        "nan": ('"candidate": 91.0', '"candidate": NaN'),
        "infinite": ('"candidate": 91.0', '"candidate": 1e999'),
        "twice": ('{"schema"', '{"record": 3, "schema"'),
    }
    for name, (old, new) in changes.items():
        store(tmp_path / name, make({"v2": {"cpa": 91.0}}))
        file = tmp_path / name / "run.json"
        file.write_text(file.read_text().replace(old, new, 1))
    said = bidsim("leaderboard", tmp_path, "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert [e["policy"] for b in found["boards"] for e in b["entries"]] == ["v1"]
    assert found["passed_over"] == "3 folders passed over: 3 without a run"


def test_heads_of_runs_that_others_wrote_can_not_act(tmp_path: Path) -> None:
    acts = "\x1b]0;title\x07\u202e"
    for at in range(FEWEST):
        (tmp_path / "ab.csv").write_text(f"metric,change\ncpa,{at + 1}%\n")
        run = store(tmp_path / "runs" / str(at), make({"v1": {"cpa": 90.0 + at}}, sha256=str(at)))
        assert bidsim("outcome", run, "--file", tmp_path / "ab.csv").status == 0
        for file in (run / "run.json", *(tmp_path / "runs").glob(f"{at}.outcome-*.json")):
            file.write_text(re.sub('"head": ?null', lambda _: f'"head":{json.dumps(acts)}', file.read_text()))
    said = bidsim("leaderboard", tmp_path / "runs", "--html", tmp_path / "board.html")
    assert "(]0;title)" in said.out
    assert f"{FEWEST} tests)" in said.out, "the best predictor is told"
    for text in (said.out, (tmp_path / "board.html").read_text()):
        assert not set(acts) & set(text) & set("\x1b\x07\u202e")


def test_a_result_with_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    for number in ("NaN", "-Infinity", "1e999", "9" * 400):
        run = store(tmp_path / number[:9], make({"v1": {"cpa": 90.0}}))
        text = (run / "result.json").read_text()
        assert "90.0" in text
        (run / "result.json").write_text(text.replace("90.0", number, 1))
        said = bidsim("report", run, "--out", tmp_path / "r.html")
        assert said.status == 2
        assert "result.json: has a number that is infinite or NaN, so it is damaged" in said.err
        assert not (tmp_path / "r.html").exists()


def test_an_unknown_metric_or_folder_is_named(tmp_path: Path) -> None:
    store(tmp_path / "a", make({"v1": {"cpa": 90.0, "auc": 0.8}}))
    with pytest.raises(BidsimError, match='did you mean "cpa"'):
        make_leaderboard([tmp_path], "cpaa")
    with pytest.raises(BidsimError, match="given for ctr"):
        make_leaderboard([tmp_path], "auc", "cvr")
    assert make_leaderboard([tmp_path], "auc").head == "ctr"
    with pytest.raises(BidsimError, match="no such folder"):
        make_leaderboard([tmp_path / "none"])
    assert make_leaderboard([]).boards == []


def test_terminal_json_and_page_say_the_same_and_names_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> [red]x[/red]\x1b[31m"
    store(tmp_path / "runs" / "a", make({evil: {"cpa": (90.0, 80.0, 95.0)}, "v2": {"cpa": (91.0, 89.0, 99.0)}}))
    said = bidsim("leaderboard", tmp_path / "runs", "--html", tmp_path / "board.html")
    assert said.status == 0, said.err
    assert "[red]x[/red]" in said.out
    assert "\x1b" not in said.out
    assert "2 =" in said.out
    assert "¥90.00" in said.out
    data = json.loads(bidsim("leaderboard", tmp_path / "runs", "--json").out)
    assert [e["policy"] for e in data["boards"][0]["entries"]] == [evil, "v2"]
    page = (tmp_path / "board.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    HTMLParser().feed(page)
    assert render_leaderboard(make_leaderboard([tmp_path / "runs"])) == page


def test_kendall_is_scipys() -> None:
    draw = random.Random(7)
    for _ in range(50):
        pairs = [(float(draw.randrange(6)), float(draw.randrange(6))) for _ in range(draw.randrange(2, 12))]
        ours, theirs = kendall(pairs), kendalltau(*zip(*pairs, strict=True)).statistic
        assert ours == pytest.approx(theirs) if ours is not None else theirs != theirs


def test_the_track_record_says_which_offline_metric_has_told_the_online_change_best(tmp_path: Path) -> None:
    """AUC orders the tests as the online CPA does, the forecast of CPA the other way round."""
    ledger = tmp_path / "ab.csv"
    for at in range(FEWEST):
        online = -0.01 * at
        made = make({f"v{at}": {"cpa": (90.0 + at, 85.0, 104.5), "auc": 0.7 + at / 100}})
        run = store(tmp_path / "runs" / f"r{at}", made)
        ledger.write_text(f"metric,change\ncpa,{online}\n")
        assert bidsim("outcome", run, "--file", ledger).status == 0
    (track,) = make_leaderboard([tmp_path / "runs"], "cpa").track.metrics
    assert (track.metric, track.tests) == ("cpa", FEWEST)
    assert track.held == (FEWEST, FEWEST)  # [-15%, +4.5%] holds all
    assert track.direction == (FEWEST - 1, FEWEST)  # the first changed nothing online
    assert track.best is not None
    assert (track.best.metric, track.best.head, track.best.tau, track.best.tests) == ("auc", "ctr", 1.0, FEWEST)
    miss = sum(abs(-0.01 * at - (90 + at - BASE["cpa"]) / 100) for at in range(FEWEST)) / FEWEST
    assert track.miss == pytest.approx(miss)
    assert "AUC (ctr) has ordered the candidates most like it" in bidsim("leaderboard", tmp_path / "runs").out
