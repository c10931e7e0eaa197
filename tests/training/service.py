"""A directory laid out as the training service lays out /opt/ml, with the small market in its channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from small_market import SCENARIO, market

# As the service writes it: every value is a text, and some keys are its own.
HYPERPARAMETERS = {
    "train_hours": "96",
    "bits": "10",
    "rounds": "3",
    "cvr.l2": "2.0",
    "crosses": '[["ad", "spot"]]',
    "max_miscalibration": "3.0",
    "_tuning_objective_metric": "test:ctr_normalized_entropy",
    "sagemaker_job_name": '"x"',
}
CHANNEL = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}


def write_service(root: Path, hyperparameters: dict[str, Any] | None = None, **scenario: Any) -> Path:
    """The root: input/data/{train,test,scenario} and input/config. scenario: keys changed, None leaves one out."""
    table = market()
    days = table.column("ts").to_pylist()
    cut = next(i for i, t in enumerate(days) if t.day == 5)
    parts = {"train/dt=1/part-00000": table.slice(0, 2000), "train/dt=2/part-00001": table.slice(2000, cut - 2000)}
    parts["test/rows"] = table.slice(cut)
    for name, part in parts.items():
        _file(root / "input/data" / name, part)
    (root / "input/data/train/_SUCCESS").touch()
    document = {k: v for k, v in {**SCENARIO, **scenario}.items() if v is not None}
    (root / "input/data/scenario").mkdir()
    (root / "input/data/scenario/scenario.yaml").write_text(
        "".join(f"{k}: {json.dumps(v)}\n" for k, v in document.items())
    )
    write_config(root, "hyperparameters", {**HYPERPARAMETERS, **(hyperparameters or {})})
    write_config(root, "inputdataconfig", dict.fromkeys(("train", "test", "scenario"), CHANNEL))
    write_config(root, "resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "e"})
    for name in ("model", "output"):
        (root / name).mkdir()
    return root


def write_config(root: Path, name: str, content: Any) -> None:
    path = root / "input/config" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def _file(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
