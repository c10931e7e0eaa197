"""A directory laid out as SageMaker lays out /opt/ml for a training container: what a job is told, where it answers.

input/config/hyperparameters.json    all values are texts; keys that begin with _ or sagemaker_ are the service's
input/config/inputdataconfig.json    the channels, and how their files come
input/config/resourceconfig.json     the hosts
input/data/CHANNEL/                  the files of a channel: train, test, scenario
checkpoints/                         kept for a job that is started again, where it is there
model/                               what is kept of the job
output/failure                       why it failed; the service reads 1,024 characters
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.scenario.explaining import nearest
from bidsim.scenario.loading import LoadedScenario, load_scenario, parse_scenario
from bidsim.training.hyperparameters import read_mapping
from bidsim.training.windows import changed

FAILURE_CHARACTERS = 1024
NOT_OURS = ("_", "sagemaker_")
CHANNELS = ("train", "test", "scenario")
SCENARIO = "scenario"
SCENARIO_FILE = "scenario.yaml"
BASELINE_FILE = "baseline.bin"
SCENARIO_ENDINGS = (".yaml", ".yml", ".json")
FORMATS = {
    "text/csv": "csv",
    "application/x-parquet": "parquet",
    "application/vnd.apache.parquet": "parquet",
    "application/jsonlines": "ndjson",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
}


@dataclass(frozen=True)
class Layout:
    """The places below a root."""

    root: Path

    def config(self, name: str) -> Path:
        return self.root / "input" / "config" / name

    def channel(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def failure(self) -> Path:
        return self.root / "output" / "failure"


@dataclass(frozen=True)
class Job:
    """What is asked for. hyperparameters: ours alone; train, test: globs of the logs' files, test None where it is train;
    baseline: a bundle beside the scenario."""

    loaded: LoadedScenario
    hyperparameters: Mapping[str, Any]
    train: str
    test: str | None
    baseline: Path | None


def read_job(layout: Layout) -> Job:
    """Read and check everything that a job is told. Raises BidsimError naming the file, channel or key."""
    if not layout.root.is_dir():
        raise BidsimError("no such folder; the training service mounts it, --root names another", file=str(layout.root))
    _check_hosts(layout)
    channels = _channels(layout)
    values = {key: _unquoted(value) for key, value in _optional(layout.config("hyperparameters.json")).items()}
    values = {key: value for key, value in values.items() if not key.startswith(NOT_OURS)}
    loaded = _scenario(layout, values.pop(SCENARIO, None))
    if "train" not in channels:
        raise BidsimError("there is no channel train; give it the log to learn from", file=str(layout.channel("train")))
    formats = {FORMATS.get(str(channels[c].get("ContentType"))) for c in ("train", "test") if c in channels}
    name, table = next(iter(loaded.document["logs_tables"].items()))
    (known, *others) = formats
    if known is not None and not others and not (table or {}).get("format"):
        loaded = changed(
            loaded, logs_tables={**loaded.document["logs_tables"], name: {**(table or {}), "format": known}}
        )
    baseline = layout.channel(SCENARIO) / BASELINE_FILE
    return Job(
        loaded,
        values,
        _files(layout, "train"),
        _files(layout, "test") if "test" in channels else None,
        baseline if baseline.is_file() else None,
    )


def write_failure(layout: Layout, reason: str) -> None:
    """Tell the service why a job failed; what can't be told must not hide the reason, which stands in the log too."""
    if not layout.root.is_dir():
        return
    try:
        write_file(layout.failure, reason[:FAILURE_CHARACTERS])
    except BidsimError:
        return


def clear_failure(layout: Layout) -> None:
    """What an earlier job in the same place failed of is no news of this one. Raises BidsimError."""
    try:
        layout.failure.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise BidsimError(f"can't be removed: {error.strerror}", file=str(layout.failure)) from error


def _optional(path: Path) -> dict[str, Any]:
    return read_mapping(path, "") if path.exists() else {}


def _unquoted(value: Any) -> Any:
    """A text that some clients write as JSON, quotes and all."""
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _check_hosts(layout: Layout) -> None:
    path = layout.config("resourceconfig.json")
    hosts = _optional(path).get("hosts", [])
    if isinstance(hosts, list) and len(hosts) > 1:
        raise BidsimError(
            f"names {len(hosts)} hosts, and bidsim trains on one; set the instance count to 1", file=str(path)
        )


def _channels(layout: Layout) -> dict[str, dict[str, Any]]:
    """The configuration of each channel. Raises BidsimError for one that is unknown, or comes as no files."""
    path = layout.config("inputdataconfig.json")
    found = {name: value if isinstance(value, dict) else {} for name, value in _optional(path).items()}
    if not path.exists():
        data = layout.channel("")
        found = {p.name: {} for p in sorted(data.iterdir()) if p.is_dir()} if data.is_dir() else {}
    for name, value in found.items():
        if name not in CHANNELS:
            hint = nearest(name, CHANNELS) or f"; known are {', '.join(CHANNELS)}"
            raise BidsimError(f'there is no use for a channel "{name}"{hint}', file=str(path))
        if value.get("TrainingInputMode", "File") not in ("File", "FastFile"):
            raise BidsimError(f"channel {name} comes as a pipe; set its input mode to File or FastFile", file=str(path))
        if value.get("RecordWrapperType", "None") not in ("None", None, ""):
            raise BidsimError(f"channel {name} is wrapped as RecordIO; give plain files", file=str(path))
        if not any(p.is_file() for p in layout.channel(name).rglob("*")):
            raise BidsimError(f"channel {name} has no files; check its S3 location", file=str(layout.channel(name)))
    return found


def _files(layout: Layout, channel: str) -> str:
    """All files of a channel, whatever they are called: they are one table."""
    return f"{glob.escape(str(layout.channel(channel)))}/**"


def _scenario(layout: Layout, text: Any) -> LoadedScenario:
    """From the channel, or from the hyperparameter that holds its text."""
    folder = layout.channel(SCENARIO)
    if text is not None:
        if folder.is_dir():
            raise BidsimError(
                "the scenario is given twice, as a channel and as a hyperparameter; keep one",
                file=str(layout.config("hyperparameters.json")),
            )
        return parse_scenario(str(text), file="hyperparameter scenario", directory=layout.channel(""))
    found = sorted(p for p in folder.glob("*") if p.suffix in SCENARIO_ENDINGS and not p.name.startswith((".", "_")))
    chosen = [p for p in found if p.name == SCENARIO_FILE] or found
    if len(chosen) != 1:
        what = "there is no scenario" if not chosen else f"there are {len(chosen)} files that could be the scenario"
        raise BidsimError(
            f"{what}; give a channel {SCENARIO} with {SCENARIO_FILE} and the files that it names, or its text as the "
            f"hyperparameter {SCENARIO}",
            file=str(folder),
        )
    return load_scenario(chosen[0])
