"""The A/B ledger: read strictly, written beside the run and never into it, shown beside the forecast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import bidsim
from stored import make, store

from bidsim.store.leaderboard import make_leaderboard
from bidsim.store.ledger import read_outcomes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = make({"v1": {"cpa": (90.0, 85.0, 95.0), "spend": (1010.0, 1000.0, 1020.0), "auc": 0.71}})
    return store(tmp_path / "runs" / "r1", made)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_outcome_is_written_beside_the_run(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    ledger = tmp_path / "ab.csv"
    ledger.write_text(
        "metric,change,low,high,control,treatment,start,end,note,head\n"
        "cpa,-8%,\u221212%,\u22124%,,,2026-12-01,2026-12-14,\"all, of it\",\n"
        "spend,,,,200,230,,,,\n"
        "auc,0.01,,,,,,,,ctr\n"
    )  # fmt: skip
    said = bidsim("outcome", run, "--file", ledger)
    assert said.status == 0, said.err
    assert contents(run) == before
    (outcome,) = read_outcomes(run)
    assert [(c.metric, c.head, c.change) for c in outcome.changes] == [
        ("cpa", None, -0.08),
        ("spend", None, pytest.approx(0.15)),
        ("auc", "ctr", 0.01),
    ]
    assert (outcome.changes[0].low, outcome.changes[0].high) == (-0.12, -0.04)
    assert outcome.changes[0].note == "all, of it"
    entry = make_leaderboard([run.parent], "cpa").boards[0].entries[0]
    assert entry.held is True  # -10% [-15%, -5%] was forecast
    entry = make_leaderboard([run.parent], "spend").boards[0].entries[0]
    assert entry.held is False
    shown = bidsim("leaderboard", run.parent, "--by", "spend").out
    assert "missed, direction right" in shown
    assert "+15.0%" in shown


def test_a_test_whose_arms_shared_their_budgets_is_told_apart(run: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ab.csv"
    ledger.write_text("metric,head,change,budget_split\ncpa,,-8%,no\nspend,,0.15,yes\nauc,ctr,1%,No\n")
    said = bidsim("outcome", run, "--file", ledger)
    assert said.status == 0, said.err
    assert said.out.count("budgets shared") == 2
    (outcome,) = read_outcomes(run)
    assert [c.budget_split for c in outcome.changes] == [False, True, False]
    board = make_leaderboard([run.parent], "cpa")
    assert {m.metric: m.shared for m in board.track.metrics} == {"auc": 1, "cpa": 1, "spend": 0}
    shown = bidsim("leaderboard", run.parent, "--by", "cpa").out
    assert "budgets shared" in shown
    assert "1 online test (1 with budgets that both arms shared" in " ".join(shown.split())
    assert "budgets shared" not in bidsim("leaderboard", run.parent, "--by", "spend").out


def test_recording_again_is_once_and_a_later_outcome_counts(run: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ab.csv"
    ledger.write_text("metric,change\ncpa,-8%\n")
    for _ in range(2):
        assert bidsim("outcome", run / "result.json", "--file", ledger).status == 0
    (file,) = run.parent.glob("r1.outcome-*.json")
    # An earlier recording stays, the later counts.
    later = json.loads(file.read_text())
    later["recorded"], later["changes"][0]["change"] = "2999-01-01T00:00:00+00:00", 0.5
    (run.parent / "r1.outcome-0123456789ab.json").write_text(json.dumps(later))
    (run.parent / "r1.outcome-ffffffffffff.json").write_text("{")  # not ours to repair
    (run.parent / "r1.outcome-zz.json").write_text(file.read_text())
    entry = make_leaderboard([run.parent], "cpa").boards[0].entries[0]
    assert entry.online is not None
    assert entry.online.change == 0.5


def test_what_is_recorded_later_counts_whatever_the_clock_says(run: Path, tmp_path: Path) -> None:
    """Within one second, after the clock was set back, and also where an earlier file is recorded once more."""
    from bidsim.store.ledger import record_outcome
    from bidsim.store.scan import read_run

    ledger = tmp_path / "ab.csv"
    stored = read_run(run)
    assert stored is not None
    clock = ["2026-12-01T10:00:00+00:00"] * 4 + ["2025-01-01T00:00:00+00:00"] * 4
    for change, now in zip([1, 2, 3, 4, 2, 5, 1, 4], clock, strict=True):
        ledger.write_text(f"metric,change\ncpa,-{change}%\n")
        record_outcome(run, stored.record, ledger, now)
        entry = make_leaderboard([run.parent], "cpa").boards[0].entries[0]
        assert entry.online is not None
        assert entry.online.change == -change / 100
    assert len(read_outcomes(run)) == 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "ab.csv:1: an A/B ledger needs the columns metric and change"),
        ("metric\ncpa\n", "ab.csv:1: an A/B ledger needs"),
        ("metric,chnage\ncpa,1\n", 'ab.csv:1: unknown column "chnage" (did you mean "change"?)'),
        ("metric,metric,change\n", "ab.csv:1: a column stands twice"),
        ("metric,change\n", "ab.csv: has no row below its header"),
        ("metric,change\ncpaa,1\n", 'ab.csv:2: metric: the run has no "cpaa" (did you mean "cpa"?)'),
        ("metric,change\n\ncpa,ten\n", 'ab.csv:3: change: "ten" is not a number such as 0.031 or 3.1%'),
        ("metric,change\ncpa,1e999\n", "ab.csv:2: change:"),
        ("metric,change\ncpa,nan\n", "ab.csv:2: change:"),
        ("metric,change\ncpa,\n", "ab.csv:2: give change, or both"),
        ("metric,change\ncpa,1,2\n", "ab.csv:2: has 3 cells where the header has 2"),
        ("metric,change\ncpa,1\ncpa,0.5\n", "ab.csv:3: cpa of v1 stands in line 2 already"),
        ("metric,control,treatment\ncpa,0,2\n", "ab.csv:2: control is 0"),
        ("metric,control,treatment\ncpa,1e-300,1e300\n", "ab.csv:2: control and treatment are too far apart"),
        ("metric,control,treatment,change\ncpa,1,2,3\n", "ab.csv:2: give either"),
        ("metric,change,low\ncpa,1,0\n", "ab.csv:2: give both low and high"),
        ("metric,change,low,high\ncpa,1,2,3\n", "ab.csv:2: the change 1 is outside its interval"),
        ("metric,change\ncpa,3.1\n", "ab.csv:2: change: 3.1 would be +310%; write 3.1% or 310%"),
        ("metric,change,low,high\ncpa,0.5,-2,0.7\n", "ab.csv:2: low: -2 would be -200%; write -2% or -200%"),
        ("metric,change,start,end\ncpa,1,2026-12-02,2026-12-01\n", "ab.csv:2: it starts on"),
        ("metric,change,start\ncpa,1,yesterday\n", 'ab.csv:2: start: "yesterday" is not a day'),
        ("metric,change,budget_split\ncpa,1,half\n", 'ab.csv:2: budget_split: "half" is neither yes nor no'),
        ("metric,change,policy\ncpa,1,v2\n", 'ab.csv:2: policy: the run has no candidate "v2"; it has v1'),
        ("metric,change\nauc,1\n", "ab.csv:2: head: auc is given for ctr"),
        ("metric,head,change\ncpa,ctr,1\n", "ab.csv:2: head: cpa has none"),
        ('metric,change\n"cpa,1\n', "not valid CSV"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(run: Path, tmp_path: Path, text: str, problem: str) -> None:
    ledger = tmp_path / "ab.csv"
    ledger.write_text(text)
    said = bidsim("outcome", run, "--file", ledger)
    assert said.status == 2
    assert problem in said.err
    assert list(run.parent.iterdir()) == [run]


def test_files_that_are_no_ledger_and_folders_that_are_no_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bin.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "good.csv").write_text("metric,change\ncpa,1\n")
    for words, problem in (
        ((run, "--file", tmp_path / "none.csv"), "no such file"),
        ((run, "--file", tmp_path), "is a folder"),
        ((run, "--file", tmp_path / "bin.csv"), "not UTF-8"),
        ((tmp_path, "--file", tmp_path / "good.csv"), "is no whole run"),
        ((tmp_path / "none", "--file", tmp_path / "good.csv"), "is no whole run"),
    ):
        said = bidsim("outcome", *words)
        assert (said.status, problem in said.err) == (2, True), said.err


def test_several_candidates_must_be_told_apart(tmp_path: Path) -> None:
    run = store(tmp_path / "runs" / "r", make({"v1": {"cpa": 90.0}, "v2": {"cpa": 80.0}}))
    ledger = tmp_path / "ab.csv"
    ledger.write_text("metric,change\ncpa,-8%\n")
    assert "name one in policy (v1, v2)" in bidsim("outcome", run, "--file", ledger).err
    ledger.write_text("metric,policy,change\ncpa,v2,-8%\ncpa,v1,-3%\n")
    assert bidsim("outcome", run, "--file", ledger).status == 0
