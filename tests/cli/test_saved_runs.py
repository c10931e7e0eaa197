"""Commands on saved runs as a pipeline uses them: judge again, render again, compare, rank."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import SCENARIO, bidsim, log, write_log, write_scenario

SANE = {"metric": "calibration", "head": "ctr", "between": [0.2, 5], "evidence": "point", "name": "sane"}
INSANE = {**SANE, "between": [0, 0.01], "name": "insane"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two candidates judged in two runs on the same data, in one store."""
    folder = tmp_path_factory.mktemp("saved")
    write_log(folder / "log.parquet", log().slice(0, 500))
    for name, column in (("one", "pctr_v2"), ("two", "pctr")):
        changes = {"candidates": {name: {"columns": {"pctr": column}}}, "gate": [SANE], "currency": "JPY"}
        write_scenario(folder / f"{name}.yaml", {**changes, "timezone": "Asia/Tokyo"})
        words = ["--scenario", folder / f"{name}.yaml", "--table", f"ad={folder / 'log.parquet'}"]
        said = bidsim("replay", *words, "--out", folder / "runs" / name, "--quiet", "--as-of", "2026-11-20")
        assert said.status == 0, said.err
    (folder / "log.parquet").unlink()  # whatever follows needs no log
    return folder / "runs"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def write_rules(path: Path, rules: Any) -> Path:
    path.write_text(json.dumps(rules))
    return path


@pytest.mark.parametrize(
    ("rules", "status", "verdict"),
    [
        ([SANE], 0, "PASS"),
        ([INSANE], 1, "FAIL"),
        ({"gate": [{**INSANE, "on_fail": "warn"}]}, 0, "WARN"),
        ({**SCENARIO, "gate": [SANE, INSANE]}, 1, "FAIL"),
        ([], 0, "NO GATE"),
        ([{**INSANE, "waive": {"until": "2026-12-31", "reason": "known", "owner": "me"}}], 0, "PASS"),
        ([{**INSANE, "waive": {"until": "2026-11-30", "reason": "known", "owner": "me"}}], 1, "FAIL"),
    ],
)
def test_a_saved_result_is_judged_again_without_its_log(
    runs: Path, tmp_path: Path, rules: Any, status: int, verdict: str
) -> None:
    before = contents(runs / "one")
    file = write_rules(tmp_path / "g.yaml", rules)
    said = bidsim("gate", runs / "one", "--rules", file, "--as-of", "2026-12-10")
    assert (said.status, said.err) == (status, "")
    assert said.out.startswith(f"{verdict}: ")
    data = json.loads(
        bidsim("gate", runs / "one" / "result.json", "--rules", file, "--as-of", "2026-12-10", "--json").out
    )
    assert data["as_of"] == "2026-12-10"
    assert data["gate"]["verdict"] == verdict.lower().replace(" ", "_")
    for outcome in data["gate"]["rules"]:
        assert outcome["sentence"] in said.out
    assert contents(runs / "one") == before


def test_without_rules_it_is_judged_by_its_own(runs: Path) -> None:
    said = bidsim("gate", runs / "one")
    assert (said.status, said.out.splitlines()[0]) == (0, "PASS: The one judgement passes.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "g.yaml: the file is empty"),
        ("[]]", "not valid YAML"),
        ("just text", "g.yaml:1: is neither a list nor a mapping with gate"),
        ("rules: []", 'g.yaml:1: unknown key "rules"'),
        ("currency: JPY", "g.yaml: has no gate"),
        ("- {metric: cpa, at_most: 1}\n- {metric: cpa, at_mots: 1}", 'g.yaml:2: unknown key "at_mots" (did you mean "at_most"?)'),
        ("gate:\n- {metric: cpa}", "g.yaml:2: gate.0: a rule has exactly one bound"),
        ("- {metric: cpa, at_most: 1, waive: {until: soon, reason: r, owner: o}}", 'is not a day'),
        ("- {metric: cpa, max_width: 1, evidence: point}", "max_width is about the interval"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_refused_with_their_line(
    runs: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "g.yaml").write_text(text)
    said = bidsim("gate", runs / "one", "--rules", tmp_path / "g.yaml")
    assert said.status == 2
    assert problem in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "is JSON, but no result"),
        (
            b'{"schema": "bidsim.result/9"}',
            'made by a newer bidsim: upgrade bidsim to read it (its schema is "bidsim.result/9"',
        ),
        (b'{"schema": "bidsim.result/1", "name": 3}', "is not a valid result"),
    ],
)
@pytest.mark.parametrize("command", ["gate", "report"])
def test_what_is_no_result_is_refused(tmp_path: Path, command: str, content: bytes, problem: str) -> None:
    (tmp_path / "result.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "result.json"):
        said = bidsim(command, path)
        assert (said.status, problem in said.err) == (2, True), said.err
    assert "no such file" in bidsim(command, tmp_path / "none").err
    (tmp_path / "empty").mkdir()
    assert "has no result.json" in bidsim(command, tmp_path / "empty").err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "result.json"]


def test_a_report_is_rendered_again_as_it_was(runs: Path, tmp_path: Path) -> None:
    before = contents(runs / "one")
    said = bidsim("report", runs / "one", "--out", tmp_path / "again.html", "--charts", tmp_path / "charts")
    assert said.status == 0, said.err
    assert (tmp_path / "again.html").read_bytes() == before["report.html"]
    assert {p.suffix for p in (tmp_path / "charts").iterdir()} == {".svg", ".png"}
    assert contents(runs / "one") == before
    assert bidsim("report", runs / "one", "--interactive", cwd=tmp_path).status == 0
    assert "vegaEmbed" in (tmp_path / "one.html").read_text()
    # Nothing is overwritten unless it was named, and a run never.
    assert "exists already" in bidsim("report", runs / "one", cwd=tmp_path).err
    assert (
        "exists already" in bidsim("report", runs / "one", "--out", "new.html", "--charts", "charts", cwd=tmp_path).err
    )
    assert not (tmp_path / "new.html").exists()
    assert "never changes" in bidsim("report", runs / "one", "--out", runs / "two" / "report.html").err


def test_annotations_where_github_runs_us_or_on_request(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    words = ("gate", runs / "one", "--rules", write_rules(tmp_path / "g.yaml", [INSANE]))
    assert "::error" not in bidsim(*words).out
    assert "::error" in bidsim(*words, "--annotations").out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "::error" in bidsim(*words).out
    assert "::error" not in bidsim(*words, "--no-annotations").out
    beside = bidsim(*words, "--json")
    json.loads(beside.out)
    assert "::error" in beside.err


def test_a_run_keeps_what_it_was_made_from_and_counts_the_candidates_on_its_data(runs: Path) -> None:
    facts = [json.loads((runs / name / "run.json").read_text()) for name in ("one", "two")]
    assert [x["judged"]["candidates"] for x in facts] == [1, 2]
    assert "2 candidates have been judged on this data" in (runs / "two" / "report.html").read_text()
    for name, x in zip(("one", "two"), facts, strict=True):
        kept = (runs / name / "scenario.yaml").read_bytes()
        assert kept == (runs.parent / f"{name}.yaml").read_bytes()
        assert x["record"]["files"]["scenario.yaml"] == hashlib.sha256(kept).hexdigest()
        # The result itself knows nothing of other runs.
        assert b"judged on this data" not in (runs / name / "result.json").read_bytes()


def test_runs_on_the_same_data_are_compared_and_ranked(runs: Path, tmp_path: Path) -> None:
    said = bidsim("compare", runs / "one", runs / "two")
    assert said.status == 0, said.err
    assert "CPA" in said.out
    betas = re.findall(r"Expected utility \(beta ([\d.,]+)\)", said.out)
    assert len(set(betas)) == 3
    data = json.loads(bidsim("compare", runs / "one", runs / "two", "--json").out)
    assert data["policies"] == ["one", "two"]
    assert "scenario: candidates" in [c["what"] for c in data["changed"]]
    results = [json.loads((runs / n / "result.json").read_text()) for n in ("one", "two")]
    for side, found in (("first", results[0]), ("second", results[1])):
        theirs = {(m["metric"], m["head"], m["beta"]): m[side]["value"] for m in data["metrics"]}
        for d in found["differences"]:
            if not d["segment"]:
                assert theirs[(d["metric"], d["head"], d["beta"])] == d["candidate"]
    board = json.loads(bidsim("leaderboard", runs, "--json", "--by", "cpa").out)
    assert [len(b["entries"]) for b in board["boards"]] == [2]
    assert board["boards"][0]["tried"] == 2
    assert bidsim("compare", runs / "one", runs / "two", "--policy", "three").status == 2


def test_runs_on_other_data_or_replays_are_not_compared(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs / "two", other)
    document = json.loads((other / "result.json").read_text())
    document["data"]["fingerprint"] = "f" * 64
    (other / "result.json").write_text(json.dumps(document))
    said = bidsim("compare", runs / "one", other)
    assert (said.status, "made with other data" in said.err) == (2, True)
    document["data"] = json.loads((runs / "two" / "result.json").read_text())["data"]
    document["scenario"]["auction"] = {"type": "first_price"}
    (other / "result.json").write_text(json.dumps(document))
    said = bidsim("compare", runs / "one", other)
    assert (said.status, "the scenarios differ in auction" in said.err) == (2, True)


def test_replay_writes_charts_and_an_interactive_report_on_request(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", log().slice(0, 300))
    write_scenario(tmp_path / "s.yaml", {"segments": []})
    words = ["replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", "--interactive", "--quiet"]
    assert bidsim(*words, "--charts", "charts", "--out", "run", cwd=tmp_path).status == 0
    assert "vegaEmbed" in (tmp_path / "run" / "report.html").read_text()
    assert list((tmp_path / "charts").glob("*.png"))
    # A taken folder is known before the log is read, and nothing is written.
    said = bidsim(*words, "--charts", "charts", "--out", "second", cwd=tmp_path)
    assert (said.status, "exists already" in said.err) == (2, True)
    assert not (tmp_path / "second").exists()
