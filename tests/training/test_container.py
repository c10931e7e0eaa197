"""The training contract of a container, with a directory that stands in for /opt/ml: what is read, written, printed,
and how it ends."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import Said, bidsim, process
from service import CHANNEL, HYPERPARAMETERS, write_config, write_service
from small_market import SCENARIO, market

from bidsim.models import open_bundle
from bidsim.store.scan import scan
from bidsim.training.container import LEFT
from bidsim.training.contract import Layout, write_failure
from bidsim.training.metric_lines import MOST_DEFINITIONS, curve_name, definitions, metric_line, regex_of

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def trained(root: Path) -> Said:
    return bidsim("sagemaker", "train", "--root", root, "--as-of", "2026-12-01")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A job that was done, and what it said."""
    root = write_service(tmp_path_factory.mktemp("job") / "ml")
    return root, trained(root)


def found(regex: str, text: str) -> list[float]:
    """What a service reads from a log: the group of every line that the expression matches."""
    return [float(m.group(1)) for line in text.splitlines() if (m := re.search(regex, line))]


def test_a_job_leaves_model_result_and_report_and_prints_its_metrics(job: tuple[Path, Said]) -> None:
    root, said = job
    assert said.status == 0, said.err
    assert not (root / "output/failure").exists()
    model = root / "model"
    assert {p.name for p in model.iterdir()} >= {"model.bin", "result.json", "report.html", "hyperparameters.json"}
    bundle = open_bundle(model / "model.bin")
    assert bundle.manifest.order == ("ctr", "cvr")
    assert "How the models were trained" in (model / "report.html").read_text("utf-8")
    # The model folder is a run that a leaderboard reads, of the model beside it.
    (run,) = scan([model]).runs
    assert [c.sha256 for c in run.record.candidates] == [bundle.sha256]
    # Both files of the training channel were one log: 96 hours of it.
    rows = sum(t.day < 5 for t in market().column("ts").to_pylist())
    curve = bundle.manifest.learning_curve["ctr"]
    assert curve.training_rows + curve.validation_rows == rows
    # Every documented expression finds its numbers, and only its own.
    result = json.loads((model / "result.json").read_bytes())
    told = {
        (m["metric"], m["head"]): m["value"] for m in result["metrics"] if m["policy"] == "trained" and not m["segment"]
    }
    for name in ("logloss", "auc", "normalized_entropy", "calibration"):
        (value,) = found(regex_of(f"test:ctr_{name}"), said.out)
        assert value == pytest.approx(told[name, "ctr"], rel=1e-8)
        curve_values = [getattr(r, name) for r in curve.rounds]
        assert found(regex_of(f"validation:ctr_{name}"), said.out) == pytest.approx(curve_values, rel=1e-8)
    assert found(regex_of("train:ctr_logloss"), said.out) == pytest.approx(
        [r.training_logloss for r in curve.rounds], rel=1e-8
    )
    (spend,) = found(regex_of("test:spend"), said.out)
    assert spend == pytest.approx(told["spend", None], rel=1e-8)
    lines = [line for line in said.out.splitlines() if line.startswith("metric ")]
    regexes = [d["Regex"] for d in definitions()]
    for line in lines:
        assert sum(bool(re.search(regex, line)) for regex in regexes) <= 1
    assert not re.search(r"\b(nan|inf|None)\b", said.out, re.IGNORECASE)
    assert all(found(d["Regex"], said.out) for d in definitions(heads=("ctr", "cvr")))


def test_the_readme_lists_the_expressions_that_are_printed() -> None:
    section = README[README.index("### In a container") :]
    table = re.findall(r"^\| `([a-z]+:[^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)
    listed = {
        (name.replace("HEAD", head), regex.replace("HEAD", head))
        for name, regex in table
        for head in ("ctr", "cvr", "ctcvr")
    }
    assert listed == {(d["Name"], d["Regex"]) for d in definitions()}
    assert len(definitions("test:ctr_brier")) <= MOST_DEFINITIONS


def test_lines_and_names_of_metrics() -> None:
    assert metric_line("test:cpa", math.nan) is None
    assert metric_line("test:cpa", math.inf) is None
    assert metric_line("test:cpa", None) is None
    line = metric_line("validation:ctr_logloss", 1.5e-7, 3)
    assert line == "metric validation:ctr_logloss=1.5e-07; round 3"
    assert found(regex_of("validation:ctr_logloss"), line) == [1.5e-7]
    assert found(regex_of("train:ctr_logloss"), line) == []
    assert curve_name("ctcvr_training_logloss") == "train:ctcvr_logloss"
    assert curve_name("ctcvr_logloss") == "validation:ctcvr_logloss"


def test_without_a_test_channel_the_training_channel_holds_the_judged_rows_too(
    job: tuple[Path, Said], tmp_path: Path
) -> None:
    root = write_service(tmp_path / "ml", {"model": '"hashed_logistic"'})
    shutil.move(root / "input/data/test/rows", root / "input/data/train/rows")
    (root / "input/data/test").rmdir()
    write_config(root, "inputdataconfig", {"train": CHANNEL, "scenario": CHANNEL})
    assert trained(root).status == 0
    for name in ("model.bin", "result.json"):  # the same rows, however they lie in files: the same bytes
        assert (root / "model" / name).read_bytes() == (job[0] / "model" / name).read_bytes()


def test_channels_without_windows_are_told_apart_by_their_files(tmp_path: Path) -> None:
    tables = {"log": {}}
    root = write_service(tmp_path / "ml", logs_tables=tables)
    write_config(root, "hyperparameters", {k: v for k, v in HYPERPARAMETERS.items() if k != "train_hours"})
    said = trained(root)
    assert said.status == 0, said.err
    result = json.loads((root / "model/result.json").read_bytes())
    assert result["data"]["rows"] == sum(t.day == 5 for t in market().column("ts").to_pylist())


def test_a_scenario_may_be_a_hyperparameter_and_the_content_type_tells_the_format(tmp_path: Path) -> None:
    tables = {"log": {"last_hour": "2026-11-05T23:00:00", "duration_hour": 24}}
    root = write_service(tmp_path / "ml", {"scenario": json.dumps({**SCENARIO, "logs_tables": tables})})
    shutil.rmtree(root / "input/data/scenario")
    for path in [p for p in (root / "input/data").rglob("*") if p.is_file() and p.name != "_SUCCESS"]:
        rows = pq.read_table(path).to_pylist()
        text = "".join(json.dumps({**r, "ts": r["ts"].isoformat()}) + "\n" for r in rows)
        path.write_text("\n" + text)  # nothing in its first bytes tells what it is
    typed = {**CHANNEL, "ContentType": "application/jsonlines"}
    write_config(root, "inputdataconfig", {"train": typed, "test": typed})
    said = trained(root)
    assert said.status == 0, said.err


def test_a_bundle_beside_the_scenario_is_the_baseline(job: tuple[Path, Said], tmp_path: Path) -> None:
    root = write_service(
        tmp_path / "ml", {"l2": "5"}, baseline=None, gate=[{"metric": "logloss", "at_most": 0.01, "head": "ctr"}]
    )
    shutil.copy(job[0] / "model/model.bin", root / "input/data/scenario/baseline.bin")
    said = trained(root)
    # A gate that fails is a result of the job.
    assert said.status == 0, said.err
    assert "gate: fail" in said.out
    result = json.loads((root / "model/result.json").read_bytes())
    assert result["policies"][0]["model"] == "baseline.bin"


@pytest.mark.parametrize(
    ("config", "content", "message"),
    [
        ("hyperparameters", {"learning_rat": "0.1"}, 'unknown key "learning_rat" (did you mean "learning_rate"?)'),
        ("hyperparameters", {"learning_rate": "fast"}, "learning_rate"),
        ("hyperparameters", {"model": "xgboost"}, 'there is no model "xgboost"'),
        ("hyperparameters", "{", "is not JSON"),
        ("hyperparameters", {"scenario": "name: x"}, "given twice"),
        ("resourceconfig", {"hosts": ["algo-1", "algo-2"]}, "names 2 hosts, and bidsim trains on one"),
        ("inputdataconfig", {"train": {**CHANNEL, "TrainingInputMode": "Pipe"}}, "channel train comes as a pipe"),
        ("inputdataconfig", {"train": {**CHANNEL, "RecordWrapperType": "RecordIO"}}, "wrapped as RecordIO"),
        ("inputdataconfig", {"training": CHANNEL}, 'no use for a channel "training" (did you mean "train"?)'),
        ("inputdataconfig", {"test": CHANNEL}, "there is no channel train"),
    ],
)
def test_a_job_that_can_not_be_done_says_why_in_one_message(
    config: str, content: Any, message: str, tmp_path: Path
) -> None:
    root = write_service(tmp_path / "ml")
    write_config(root, config, content)
    said = trained(root)
    assert said.status == 2
    failure = (root / "output/failure").read_text("utf-8")
    assert message in failure
    assert failure in said.err
    assert "Traceback" not in said.err
    assert list((root / "model").iterdir()) == []


def test_a_missing_scenario_and_an_empty_channel_are_told(tmp_path: Path) -> None:
    root = write_service(tmp_path / "ml")
    (root / "input/data/scenario/other.yaml").write_text("x")
    (root / "input/data/scenario/scenario.yaml").rename(root / "input/data/scenario/one.yaml")
    assert "there are 2 files that could be the scenario" in trained(root).err
    for path in (root / "input/data/scenario").iterdir():
        path.unlink()
    assert "channel scenario has no files" in trained(root).err
    (root / "input/data/scenario/notes.txt").write_text("x")
    assert "there is no scenario; give a channel scenario" in trained(root).err
    assert "no such folder" in trained(tmp_path / "nowhere").err
    assert not (tmp_path / "nowhere").exists()


def test_the_reason_is_cut_at_1024_characters(tmp_path: Path) -> None:
    write_failure(Layout(tmp_path), "底" * 5000)
    assert (tmp_path / "output/failure").read_text("utf-8") == "底" * 1024


def test_a_bug_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_service(tmp_path / "ml")

    def fail(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("bidsim.training.container.do_job", fail)
    assert trained(root).status == 70
    assert (root / "output/failure").read_text() == "ZeroDivisionError: of all things (the log has more)"


def test_a_result_that_can_not_be_replayed_is_told_before_training(tmp_path: Path) -> None:
    root = write_service(tmp_path / "ml", baseline=None)
    said = trained(root)
    assert said.status == 2
    assert "the baseline has no predictions" in (root / "output/failure").read_text()
    assert "metric " not in said.out


def test_sigterm_in_training_saves_the_model_and_a_job_started_again_goes_on(tmp_path: Path) -> None:
    """As a process, as the container is: `train` is told the root by its environment."""
    long = {"rounds": "25", "patience": "25", "batch_rows": "16"}
    root = write_service(tmp_path / "ml", long, sample_type="imp-click")
    (root / "checkpoints").mkdir()
    container = process("sagemaker", "train", "-q", cwd=tmp_path, env={"BIDSIM_ML_ROOT": str(root)})
    deadline = time.monotonic() + 60
    while container.poll() is None and time.monotonic() < deadline:
        if list((root / "checkpoints").glob("*/checkpoint-ctr.npz")):
            container.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    out, err = container.communicate(timeout=60)
    assert container.returncode == 0, err
    assert "stopped; the model so far is saved" in out
    assert [p.name for p in (root / "model").iterdir()] == ["model.bin"]
    assert not (root / "output/failure").exists()
    assert open_bundle(root / "model/model.bin").manifest.learning_curve["ctr"].stopped
    # The service brings the checkpoints back to another container of the same job.
    again = write_service(tmp_path / "again", long, sample_type="imp-click")
    shutil.copytree(root / "checkpoints", again / "checkpoints")
    whole = write_service(tmp_path / "whole", long, sample_type="imp-click")
    for each in (again, whole):
        said = trained(each)
        assert said.status == 0, said.err
    for name in ("model.bin", "result.json"):
        assert (again / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    assert list((again / "checkpoints").iterdir()) == []


def test_a_job_in_the_place_of_an_earlier_one_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_service(tmp_path / "ml", {"rounds": "0"}, sample_type="imp-click")
    assert trained(root).status == 2
    assert "rounds" in (root / "output/failure").read_text()
    write_config(root, "hyperparameters", {**HYPERPARAMETERS, "rounds": "1"})
    assert trained(root).status == 0
    assert not (root / "output/failure").exists()
    left = {p.name for p in (root / "model").iterdir()}
    assert left == LEFT
    # Stopped while it is judged: the model of this job stands alone, not beside the result of another.
    monkeypatch.setattr(
        "bidsim.training.workflow.replay_to_directory", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    assert trained(root).status == 0
    assert [p.name for p in (root / "model").iterdir()] == ["model.bin"]


def test_sigterm_before_anything_was_learned_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_service(tmp_path / "ml")
    monkeypatch.setattr("bidsim.stopping.StopRequest.__call__", lambda self: True)
    said = trained(root)
    assert said.status == 143
    assert "before anything was learned" in (root / "output/failure").read_text()
    assert list((root / "model").iterdir()) == []


def test_sigterm_while_the_model_is_judged_keeps_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_service(tmp_path / "ml")

    def terminated(*args: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("bidsim.training.workflow.replay_to_directory", terminated)
    said = trained(root)
    assert said.status == 0, said.err
    assert [p.name for p in (root / "model").iterdir()] == ["model.bin"]
    assert not open_bundle(root / "model/model.bin").manifest.learning_curve["ctr"].stopped
