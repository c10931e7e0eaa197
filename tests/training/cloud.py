"""A stand-in for the training service: moto keeps objects and jobs, and here a job is what the container makes of it."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command import Said, bidsim
from service import write_config

BUCKET = "logs"
ROLE = "arn:aws:iam::123456789012:role/trainer"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/bidsim:1"


def upload(s3: Any, path: Path, key: str) -> None:
    s3.upload_file(str(path), BUCKET, key)


def play(s3: Any, job: Mapping[str, Any], hyperparameters: Mapping[str, str], name: str, root: Path) -> Said:
    """Do a job as the service does: lay out its channels and configuration, run the container, keep the model."""
    for channel in job["InputDataConfig"]:
        source = channel["DataSource"]["S3DataSource"]
        prefix = source["S3Uri"].removeprefix(f"s3://{BUCKET}/")
        for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
            rest = entry["Key"].removeprefix(prefix).strip("/") or Path(entry["Key"]).name
            path = root / "input/data" / channel["ChannelName"] / rest
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, entry["Key"], str(path))
    write_config(root, "hyperparameters", dict(hyperparameters))
    write_config(
        root, "inputdataconfig", {c["ChannelName"]: {"TrainingInputMode": "File"} for c in job["InputDataConfig"]}
    )
    write_config(root, "resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})
    said = bidsim("sagemaker", "train", "--root", root, "--as-of", "2026-12-01", "-q")
    if said.status == 0:
        place = job["OutputDataConfig"]["S3OutputPath"].removeprefix(f"s3://{BUCKET}/")
        put_archive(
            s3, f"{place}{name}/output/model.tar.gz", {p.name: p.read_bytes() for p in (root / "model").iterdir()}
        )
    return said


def put_archive(s3: Any, key: str, files: Mapping[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    s3.put_object(Bucket=BUCKET, Key=key, Body=buffer.getvalue())


def last_value(definitions: list[dict[str, str]], name: str, log: str) -> float:
    """What the service takes for a trial's objective: the last number that the metric's expression finds in its log."""
    (regex,) = [d["Regex"] for d in definitions if d["Name"] == name]
    return [float(m.group(1)) for line in log.splitlines() if (m := re.search(regex, line))][-1]
