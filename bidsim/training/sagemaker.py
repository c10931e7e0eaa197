"""Jobs of SageMaker through boto3 (extra: `sagemaker`): submit, look, stop, and fetch what they left behind.

Credentials are found as boto3 finds them (environment, profile, role) and are never read, printed or written here.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.training.container import BUNDLE
from bidsim.training.contract import NOT_OURS
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.orders import WHOLE_TRAIN_HOURS, Request, s3_place
from bidsim.training.steps import new_directory

MOST_FILES, MOST_BYTES = 64, 8 << 30
Kind = Literal["training", "tuning"]


@dataclass(frozen=True)
class Clients:
    """boto3's clients of the two services."""

    sagemaker: Any
    s3: Any


@dataclass(frozen=True)
class Fetched:
    """One training job. run: its folder, None where it left nothing; value: of the objective, in a tuning job."""

    name: str
    status: str
    run: Path | None
    value: float | None = None
    reason: str = ""


def connect(region: str | None = None) -> Clients:
    """Clients as the environment has it. Raises BidsimError."""
    try:
        import boto3
    except ImportError as error:
        raise BidsimError("training jobs need boto3: pip install 'bidsim[sagemaker]'") from error
    with _told("connecting"):
        session = boto3.Session(region_name=region)
        return Clients(session.client("sagemaker"), session.client("s3"))


def submit(clients: Clients, request: Request) -> str:
    """Upload the scenario, then start the job; returns its ARN. Raises BidsimError."""
    bucket, prefix = s3_place(request.scenario, "--output")
    with _told("uploading the scenario"):
        for name, content in request.uploads.items():
            with io.BytesIO(content.encode()) if isinstance(content, str) else content.open("rb") as stream:
                clients.s3.upload_fileobj(stream, bucket, f"{prefix}{name}")
    with _told("starting the job"):
        if request.tuning:
            return str(
                clients.sagemaker.create_hyper_parameter_tuning_job(**request.body)["HyperParameterTuningJobArn"]
            )
        return str(clients.sagemaker.create_training_job(**request.body)["TrainingJobArn"])


def look(clients: Clients, name: str) -> tuple[Kind, dict[str, Any]]:
    """What the service says of a job, whether it trains or tunes. Raises BidsimError."""
    with _told("looking for the job"):
        kinds: tuple[Kind, ...] = ("training", "tuning")
        for kind in kinds:
            try:
                return kind, _describe(clients, kind, name)
            except clients.sagemaker.exceptions.ClientError as error:
                if not _is_missing(error):
                    raise
    raise BidsimError(f"there is no training or tuning job {name[:80]} here; check name, region and account")


def stop(clients: Clients, name: str) -> Kind:
    """Ask a job to stop: it saves its model within two minutes. Raises BidsimError."""
    kind, _ = look(clients, name)
    with _told("stopping the job"):
        if kind == "tuning":
            clients.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        else:
            clients.sagemaker.stop_training_job(TrainingJobName=name)
    return kind


def fetch(clients: Clients, name: str, out: Path) -> tuple[dict[str, Any], list[Fetched]]:
    """What a job left, as runs in `out`: a folder for each training job, whole or not at all; those there are kept.

    Returns the job's description, and its training jobs in the order in which they were made. Raises BidsimError.
    """
    kind, found = look(clients, name)
    if kind == "training":
        return found, [_fetch_one(clients, found, out)]
    made = []
    for trial in _trials(clients, name):
        described = _described(clients, trial["TrainingJobName"])
        final = trial.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
        made.append(_fetch_one(clients, described, out, final.get("Value")))
    return found, made


def best_hyperparameters(clients: Clients, found: dict[str, Any], file: Path) -> str | None:
    """Write those of a tuning job's best trial, to train with on the whole training window; returns the trial's name.

    None where there is no best trial yet. Raises BidsimError.
    """
    best = found.get("BestTrainingJob", {}).get("TrainingJobName")
    if best is None:
        return None
    described = _described(clients, best)
    values, hours = described["HyperParameters"], described.get("Environment", {}).get(WHOLE_TRAIN_HOURS)
    ours = {key: value for key, value in values.items() if not key.startswith(NOT_OURS)}
    document = Hyperparameters({**ours, **({"train_hours": hours} if hours else {})}, best).document
    write_file(file, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return str(best)


def _trials(clients: Clients, name: str) -> Iterator[dict[str, Any]]:
    with _told("listing the trials"):
        asked: dict[str, Any] = {
            "HyperParameterTuningJobName": name,
            "SortBy": "CreationTime",
            "SortOrder": "Ascending",
            "MaxResults": 100,
        }
        while True:
            page = clients.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(**asked)
            yield from page["TrainingJobSummaries"]
            if not page.get("NextToken"):
                return
            asked["NextToken"] = page["NextToken"]


def _described(clients: Clients, name: str) -> dict[str, Any]:
    with _told(f"looking for {name}"):
        return _describe(clients, "training", name)


def _describe(clients: Clients, kind: Kind, name: str) -> dict[str, Any]:
    if kind == "training":
        return dict(clients.sagemaker.describe_training_job(TrainingJobName=name))
    return dict(clients.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name))


def _is_missing(error: Any) -> bool:
    code = error.response.get("Error", {}).get("Code", "")
    message = error.response.get("Error", {}).get("Message", "").lower()
    return code in ("ResourceNotFound", "ResourceNotFoundException") or (
        code == "ValidationException" and ("not found" in message or "could not find" in message)
    )


def _fetch_one(clients: Clients, job: dict[str, Any], out: Path, value: float | None = None) -> Fetched:
    name, status = job["TrainingJobName"], job["TrainingJobStatus"]
    reason = " ".join(str(job.get("FailureReason", "")).split())
    uri = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if status not in ("Completed", "Stopped") or not uri:
        return Fetched(name, status, None, value, reason)
    folder = out / name
    if folder.is_dir():
        return Fetched(name, status, folder, value, reason)
    bucket, key = s3_place(uri, "ModelArtifacts")
    with tempfile.TemporaryFile(prefix="bidsim-") as archive:
        try:
            with _told(f"downloading {uri}"):
                clients.s3.download_fileobj(bucket, key, archive)
        except _Missing:
            # A job that was stopped before it had learned anything has no archive.
            if status == "Stopped":
                return Fetched(name, status, None, value, reason or "it left no model")
            raise
        archive.seek(0)
        with new_directory(folder) as aside:
            _unpack(archive, aside, uri)
    return Fetched(name, status, folder, value, reason)


def _unpack(archive: IO[bytes], folder: Path, uri: str) -> None:
    """The files of a model archive, all in one folder. Raises BidsimError for anything that bidsim would not have left."""
    total = 0
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            for number, member in enumerate(tar):
                name = member.name.removeprefix("./")
                if member.isdir() and name in ("", "."):
                    continue
                total += member.size
                if not member.isfile() or "/" in name or "\\" in name or name.startswith(".") or not name:
                    raise BidsimError(f"holds {member.name[:100]!r}, which no job of bidsim leaves", file=uri)
                if number >= MOST_FILES or total > MOST_BYTES:
                    raise BidsimError("holds more than a job of bidsim leaves", file=uri)
                source = tar.extractfile(member)
                assert source is not None
                with (folder / name).open("xb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
    except (tarfile.TarError, EOFError, FileExistsError, OSError) as error:
        raise BidsimError(f"is no archive of a job: {error}", file=uri) from error
    if not (folder / BUNDLE).is_file():
        raise BidsimError(f"has no {BUNDLE}; was it a job of bidsim?", file=uri)


class _Missing(BidsimError):
    """The service has no such object."""


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What boto3 raises, as one message that tells what was being done; of what the service says the first line."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise BidsimError(
            f"{what}: there are no credentials; give them as for the aws command: environment, profile or role"
        ) from error
    except NoRegionError as error:
        raise BidsimError(f"{what}: there is no region; give --region or set AWS_DEFAULT_REGION") from error
    except ClientError as error:
        said = error.response.get("Error", {})
        code, lines = str(said.get("Code", "")), str(said.get("Message", "")).strip().splitlines()
        kind = _Missing if code in ("404", "NoSuchKey") else BidsimError
        raise kind(f"{what}: {code}: {lines[0][:300] if lines else ''}") from error
    except BotoCoreError as error:
        raise BidsimError(f"{what}: {str(error).splitlines()[0][:300]}") from error
