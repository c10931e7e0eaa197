"""Training and tuning jobs from the same scenario: what the service is asked for, and what comes back as runs."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from cloud import BUCKET, IMAGE, ROLE, last_value, play, put_archive, upload
from command import Said, bidsim
from moto.server import ThreadedMotoServer
from small_market import SCENARIO, hyperparameters, write_market

from bidsim.cli_sagemaker import default_name
from bidsim.errors import BidsimError
from bidsim.models import open_bundle
from bidsim.scenario.loading import load_scenario
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.orders import JOB_NAME, LONGEST_TUNING_NAME, parameter_ranges
from bidsim.training.sagemaker import Clients, best_hyperparameters, connect, fetch, look, stop
from bidsim.training.space import load_space

SECRET = "s3cr3t-of-nobody"
REGION = "eu-west-1"
SPACE = """
train_hours: 96
rounds: 2
max_miscalibration: 4
learning_rate: {low: 0.01, high: 2, log: true}
bits: {low: 6, high: 14}
crosses: {choices: [[], [[ad, spot]]]}
batch_rows: {low: 64, high: 128, step: 32}
cvr.l2: {low: 0, high: 10}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def clients(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clients:
    """The environment of a user whose service is moto, with an empty store."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    made = connect()
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"), timeout=10).close()
    made.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return made


def submitted(scenario: Path, *options: str | Path) -> Said:
    given = ("--image", IMAGE, "--role", ROLE, "--output", f"s3://{BUCKET}/jobs", "--train", f"s3://{BUCKET}/market")
    return bidsim("sagemaker", "submit", "--scenario", scenario, *given, *options)


def test_a_training_job_from_submission_to_the_leaderboard(clients: Clients, tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    upload(clients.s3, tmp_path / "log.parquet", "market/log.parquet")
    h = hyperparameters(tmp_path, bits=10, rounds=2, max_miscalibration=4.0, crosses=[["ad", "spot"]])
    said = submitted(
        scenario, "--hyperparameters", h, "--train-hours", "96", "--name", "weekly-1", "--spot", "--memory", "2GB"
    )
    assert said.status == 0, said.err
    assert said.out.strip().endswith("training-job/weekly-1")
    kind, job = look(clients, "weekly-1")
    assert kind == "training"
    assert job["HyperParameters"] == {
        "bits": "10",
        "rounds": "2",
        "max_miscalibration": "4.0",
        "crosses": '[["ad", "spot"]]',
        "train_hours": "96",
    }
    assert job["AlgorithmSpecification"]["TrainingImage"] == IMAGE
    assert [c["ChannelName"] for c in job["InputDataConfig"]] == ["train", "scenario"]
    assert job["EnableManagedSpotTraining"]
    assert job["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert bidsim("sagemaker", "status", "weekly-1").out.startswith("weekly-1: Completed")
    played = play(clients.s3, job, job["HyperParameters"], "weekly-1", tmp_path / "ml")
    assert played.status == 0, played.err
    said = bidsim("sagemaker", "fetch", "weekly-1", "--out", tmp_path / "runs")
    assert said.status == 0, said.err
    assert open_bundle(tmp_path / "runs/weekly-1/model.bin").manifest.order == ("ctr", "cvr")
    # The same scenario here gives the same numbers, and both stand on one leaderboard.
    options = (
        "run",
        "--scenario",
        scenario,
        "--hyperparameters",
        h,
        "--train-hours",
        "96",
        "--as-of",
        "2026-12-01",
        "-q",
    )
    assert bidsim(*options, "--work", tmp_path / "work").status == 0
    (local,) = (tmp_path / "work/runs").iterdir()
    ours, theirs = (json.loads((p / "result.json").read_bytes()) for p in (local, tmp_path / "runs/weekly-1"))
    assert ours["metrics"] == theirs["metrics"]
    board = bidsim("leaderboard", tmp_path / "runs", tmp_path / "work/runs", "--json")
    (only,) = json.loads(board.out)["boards"]
    assert {entry["run"] for entry in only["entries"]} == {"weekly-1", local.name}


def test_a_tuning_job_from_submission_to_the_leaderboard(clients: Clients, tmp_path: Path) -> None:
    """moto keeps the job; what it can't do (list trials, call one the best) botocore's stub says."""
    scenario = write_market(tmp_path, gate=[{"metric": "auc", "head": "ctr", "at_least": 0.6}])
    upload(clients.s3, tmp_path / "log.parquet", "market/log.parquet")
    (tmp_path / "space.yaml").write_text(SPACE)
    options = ("--space", tmp_path / "space.yaml", "--trials", "20", "--jobs", "2", "--seed", "7", "--name", "search")
    said = submitted(scenario, *options)
    assert said.status == 0, said.err
    kind, job = look(clients, "search")
    assert kind == "tuning"
    config, definition = job["HyperParameterTuningJobConfig"], job["TrainingJobDefinition"]
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2}
    wanted = config["HyperParameterTuningJobObjective"]
    assert wanted == {"Type": "Minimize", "MetricName": "test:ctr_normalized_entropy"}
    assert config["RandomSeed"] == 7
    assert len(definition["AlgorithmSpecification"]["MetricDefinitions"]) <= 40
    # Trials train on what is left of the training window, and are measured on its last fifth.
    assert definition["StaticHyperParameters"]["train_hours"] == str(96 - 19)
    body = clients.s3.get_object(Bucket=BUCKET, Key="jobs/search/scenario/scenario.yaml")["Body"].read()
    table = json.loads(body)["logs_tables"]["log"]
    assert (table["last_hour"], table["duration_hour"]) == ("2026-11-04T23:00:00+00:00", 19)
    assert "gate" not in json.loads(body)
    # The service draws, runs and reads the log; here two trials of the twenty.
    trials = []
    for number, drawn in enumerate(({"learning_rate": "0.02"}, {"learning_rate": "0.3"})):
        values = {**definition["StaticHyperParameters"], "bits": "9", "crosses": "[]", "batch_rows": "96", **drawn}
        values |= {"_tuning_objective_metric": wanted["MetricName"], "cvr.l2": "1.5"}
        name = f"search-{number:03d}"
        played = play(clients.s3, definition, values, name, tmp_path / name)
        assert played.status == 0, played.err
        value = last_value(definition["AlgorithmSpecification"]["MetricDefinitions"], wanted["MetricName"], played.out)
        trials.append((name, values, value))
    best = min(trials, key=lambda trial: trial[2])
    found, stub = stubbed(clients, job, trials, best)
    with stub:
        described, fetched = fetch(found, "search", tmp_path / "runs")
        assert best_hyperparameters(found, described, tmp_path / "runs/best.json") == best[0]
    assert [(f.name, f.status) for f in fetched] == [(n, "Completed") for n, _, _ in trials] + [
        ("search-002", "Failed")
    ]
    assert fetched[2].reason == "no head"
    said = bidsim("leaderboard", tmp_path / "runs", "--by", "normalized_entropy", "--head", "ctr", "--json")
    (board,) = json.loads(said.out)["boards"]
    assert [e["run"] for e in board["entries"]] == [t[0] for t in sorted(trials, key=lambda trial: trial[2])]
    assert [e["value"] for e in board["entries"]] == pytest.approx(sorted(t[2] for t in trials), rel=1e-8)
    # The best one's hyperparameters are for the whole training window again, and none of the service's own.
    told = json.loads((tmp_path / "runs/best.json").read_bytes())
    assert (told["train_hours"], told["crosses"], told["cvr.l2"]) == (96, [], 1.5)
    assert told["learning_rate"] == float(best[1]["learning_rate"])
    assert not [key for key in told if key.startswith("_")]


def stubbed(clients: Clients, job: dict[str, Any], trials: list[Any], best: Any) -> tuple[Clients, Stubber]:
    """A service that has done these trials and failed at one, told in two pages."""
    client = boto3.client("sagemaker")
    stub = Stubber(client)

    def summary(name: str, status: str, value: float | None) -> dict[str, Any]:
        made = {
            "TrainingJobName": name,
            "TrainingJobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{name}",
            "CreationTime": datetime(2026, 11, 25, tzinfo=UTC),
            "TrainingJobStatus": status,
            "TunedHyperParameters": {},
        }
        if value is not None:
            metric = {"MetricName": "test:ctr_normalized_entropy", "Value": value}
            made["FinalHyperParameterTuningJobObjectiveMetric"] = metric
        return made

    def description(name: str, status: str, values: dict[str, str], **more: Any) -> dict[str, Any]:
        place = f"{job['TrainingJobDefinition']['OutputDataConfig']['S3OutputPath']}{name}/output/model.tar.gz"
        needed = {k: summary(name, status, None)[k] for k in ("TrainingJobName", "TrainingJobArn", "CreationTime")}
        return {
            **needed,
            "TrainingJobStatus": status,
            "SecondaryStatus": status,
            "HyperParameters": values,
            "AlgorithmSpecification": {"TrainingInputMode": "File"},
            "ResourceConfig": {"VolumeSizeInGB": 1},
            "StoppingCondition": {},
            "ModelArtifacts": {"S3ModelArtifacts": place},
            **more,
        }

    stub.add_client_error("describe_training_job", "ValidationException", "Requested resource not found.")
    told = {k: v for k, v in job.items() if k not in ("ResponseMetadata", "BestTrainingJob", "OverallBestTrainingJob")}
    stub.add_response(
        "describe_hyper_parameter_tuning_job", {**told, "BestTrainingJob": summary(best[0], "Completed", best[2])}
    )
    asked = {
        "HyperParameterTuningJobName": "search",
        "SortBy": "CreationTime",
        "SortOrder": "Ascending",
        "MaxResults": 100,
    }
    listing = "list_training_jobs_for_hyper_parameter_tuning_job"
    (one, two) = [summary(name, "Completed", value) for name, _, value in trials]
    stub.add_response(listing, {"TrainingJobSummaries": [one], "NextToken": "more"}, asked)
    stub.add_response("describe_training_job", description(trials[0][0], "Completed", trials[0][1]))
    page = {"TrainingJobSummaries": [two, summary("search-002", "Failed", None)]}
    stub.add_response(listing, page, {**asked, "NextToken": "more"})
    stub.add_response("describe_training_job", description(trials[1][0], "Completed", trials[1][1]))
    stub.add_response("describe_training_job", description("search-002", "Failed", {}, FailureReason="no\n head"))
    environment = job["TrainingJobDefinition"]["Environment"]
    stub.add_response("describe_training_job", description(best[0], "Completed", best[1], Environment=environment))
    return Clients(client, clients.s3), stub


def test_jobs_of_either_kind_are_stopped(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    assert submitted(write_market(tmp_path), "--space", tmp_path / "space.yaml", "--name", "x").status == 0
    _, job = look(clients, "x")
    client = boto3.client("sagemaker")
    with Stubber(client) as stub:
        stub.add_client_error("describe_training_job", "ValidationException", "Requested resource not found.")
        told = {k: v for k, v in job.items() if k != "ResponseMetadata"}
        stub.add_response("describe_hyper_parameter_tuning_job", told)
        stub.add_response("stop_hyper_parameter_tuning_job", {}, {"HyperParameterTuningJobName": "x"})
        assert stop(Clients(client, None), "x") == "tuning"
        stub.assert_no_pending_responses()


def test_the_space_is_the_service_s(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml", Hyperparameters({}))
    assert parameter_ranges(space) == {
        "IntegerParameterRanges": [{"Name": "bits", "MinValue": "6", "MaxValue": "14", "ScalingType": "Linear"}],
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "0.01", "MaxValue": "2", "ScalingType": "Logarithmic"},
            {"Name": "cvr.l2", "MinValue": "0", "MaxValue": "10", "ScalingType": "Linear"},
        ],
        "CategoricalParameterRanges": [
            {"Name": "crosses", "Values": ["[]", '[["ad", "spot"]]']},
            {"Name": "batch_rows", "Values": ["64", "96", "128"]},
        ],
    }
    for values in parameter_ranges(space)["CategoricalParameterRanges"]:
        for value in values["Values"]:
            space.base.with_values(**{values["Name"]: value})
    (tmp_path / "space.yaml").write_text("bits: {low: 2, high: 28}\nbatch_rows: {low: 1, high: 1000, step: 2}\n")
    with pytest.raises(BidsimError, match="batch_rows: the service has no steps"):
        parameter_ranges(load_space(tmp_path / "space.yaml", Hyperparameters({})))


def test_a_dry_run_prints_the_request_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidsim.training.sagemaker.connect", lambda region: pytest.fail("connected"))
    said = submitted(write_market(tmp_path), "--train-hours", "96", "--dry-run")
    assert said.status == 0, said.err
    body = json.loads(said.out)
    assert JOB_NAME.fullmatch(body["TrainingJobName"])
    assert body["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == f"s3://{BUCKET}/market"


def test_the_files_that_a_scenario_names_travel_with_it(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / "dims").mkdir()
    (tmp_path / "dims/c.csv").write_text("ad,name\n1,one\n")
    for name in ("prod.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"bundle")
    scenario = write_market(
        tmp_path,
        campaigns="dims/c.csv",
        baseline={"model": "prod.bin"},
        candidates={"other": {"model": "other.bin", "bid": {"multiplier": 0.9}}},
    )
    assert submitted(scenario, "--train-hours", "96", "--name", "a").status == 0
    listed = clients.s3.list_objects_v2(Bucket=BUCKET, Prefix="jobs/a/scenario/")["Contents"]
    names = {e["Key"].rpartition("/")[2] for e in listed}
    for name in names:
        clients.s3.download_file(BUCKET, f"jobs/a/scenario/{name}", str(tmp_path / "dims" / name))
    loaded = load_scenario(tmp_path / "dims/scenario.yaml")
    assert loaded.name == "market"
    assert loaded.scenario.campaigns in names
    assert loaded.scenario.baseline is not None
    assert loaded.scenario.baseline.model in names
    assert loaded.scenario.candidates["other"].model in names
    assert loaded.document["logs_tables"]["log"] == {
        k: v for k, v in SCENARIO["logs_tables"]["log"].items() if k != "path"
    }
    assert submitted(scenario, "--train-hours", "96", "--name", "b", "--baseline", tmp_path / "other.bin").status == 0
    assert clients.s3.get_object(Bucket=BUCKET, Key="jobs/b/scenario/baseline.bin")["Body"].read() == b"bundle"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "jobs"), "--output jobs: write s3://bucket/prefix"),
        (("--test", "/local"), "--test /local: write s3://bucket/prefix"),
        (("--name", "under_score"), "a job's name has letters, digits and hyphens"),
        ((), "how long is the training window? give --train-hours"),
        (("--train-hours", "96", "--baseline", "nowhere.bin"), "nowhere.bin: no such file; check --baseline"),
        (("--train-hours", "96", "--memory", "much"), "--memory much: not a size"),
        (("--space", "SPACE", "--metric", "calibration"), "take calibration_error"),
        (("--space", "SPACE", "--tune-hours", "96"), "none are left to train trials on"),
        (("--space", "SPACE", "--name", "a" * 40), "at most 32"),
    ],
)
def test_what_could_never_work_is_told_before_anything_is_asked(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    given = [str(tmp_path / "space.yaml") if o == "SPACE" else o for o in options]
    said = submitted(write_market(tmp_path), *given)
    assert (said.status, message in said.err) == (2, True), said.err


def test_what_the_service_refuses_is_one_message_without_secrets(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = write_market(tmp_path)
    said = submitted(scenario, "--train-hours", "96", "--output", "s3://nobody-s/jobs")
    assert said.status == 2
    assert "uploading the scenario: " in said.err
    said = bidsim("sagemaker", "fetch", "nobody")
    assert (said.status, "there is no training or tuning job nobody" in said.err) == (2, True)
    texts = [said.err]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    said = bidsim("sagemaker", "status", "nobody")
    assert said.status == 2
    assert "there are no credentials; give them as for the aws command" in said.err
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    said = bidsim("sagemaker", "status", "nobody")
    assert (said.status, "there is no region; give --region" in said.err) == (2, True)
    for text in (*texts, said.err):
        assert SECRET not in text
        assert "Traceback" not in text


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "boto3":
            raise ImportError
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    said = bidsim("sagemaker", "status", "x")
    assert (said.status, "pip install 'bidsim[sagemaker]'" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../model.bin": b"x"}, "which no job of bidsim leaves"),
        ({"/etc/x": b"x"}, "which no job of bidsim leaves"),
        ({"sub/model.bin": b"x"}, "which no job of bidsim leaves"),
        ({"result.json": b"{}"}, "has no model.bin"),
        ({f"{i}": b"" for i in range(70)}, "holds more than"),
        (None, "is no archive of a job"),
    ],
)
def test_an_archive_that_no_job_left_is_refused_whole(
    files: dict[str, bytes] | None, message: str, clients: Clients, tmp_path: Path
) -> None:
    scenario = write_market(tmp_path)
    assert submitted(scenario, "--train-hours", "96", "--name", "odd").status == 0
    key = "jobs/odd/output/odd/output/model.tar.gz"
    if files is None:
        clients.s3.put_object(Bucket=BUCKET, Key=key, Body=b"no archive")
    else:
        put_archive(clients.s3, key, files)
    said = bidsim("sagemaker", "fetch", "odd", "--out", tmp_path / "runs")
    assert (said.status, message in said.err) == (2, True), said.err
    assert not list((tmp_path / "runs").glob("*"))
    assert not (tmp_path / "model.bin").exists()


def test_names_of_jobs_fit_either_kind() -> None:
    for scenario in ("weekly", "週次", "a b_c--" * 9, "-x-"):
        name = default_name(scenario, datetime(2026, 11, 25, 9, 5, tzinfo=UTC))
        assert JOB_NAME.fullmatch(name)
        assert len(name) <= LONGEST_TUNING_NAME
