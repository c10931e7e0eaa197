"""What SageMaker is asked for, as the data of its API: a training job of a scenario, or a tuning job over a space.

The scenario travels in a channel of its own, with the files that it names; the rows of a tuning job are chosen as
`bidsim tune` does: trials are measured on the end of the training window, so that the scenario's own window stays
unseen. Nothing here talks to the service, and no credentials pass through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.gate.bounds import HIGHER_IS_BETTER
from bidsim.scenario.loading import LoadedScenario, refuse_unsupported
from bidsim.scenario.schema import HEADS, Head
from bidsim.training.contract import BASELINE_FILE, SCENARIO, SCENARIO_FILE
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.metric_lines import definitions, judged_name
from bidsim.training.space import Axis, Space
from bidsim.training.trial import NEAR_ONE, Objective, make_objective
from bidsim.training.tune import tuning_window
from bidsim.training.windows import changed, plan_windows

JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
LONGEST_NAME, LONGEST_TUNING_NAME = 63, 32
MOST_VALUES, LONGEST_VALUE = 100, 2500
MOST_CHOICES = 30
SPOT_WAIT = 2  # times the training time, for machines to come
# Tells who fetches the best trial which training window the search was cut from.
WHOLE_TRAIN_HOURS = "BIDSIM_WHOLE_TRAIN_HOURS"


@dataclass(frozen=True)
class Machine:
    """What a job runs on. memory: bound for bidsim's process there, as on the command line."""

    instance: str = "ml.m5.xlarge"
    volume_gb: int = 30
    max_hours: float = 24
    spot: bool = False
    memory: str | None = None


@dataclass(frozen=True)
class Order:
    """A training job as it is asked for. output: s3 prefix of everything that it writes; train, test: of the logs."""

    loaded: LoadedScenario
    hyperparameters: Hyperparameters
    name: str
    image: str
    role: str
    output: str
    train: str
    test: str | None = None
    baseline: Path | None = None
    machine: Machine = field(default_factory=Machine)

    @property
    def prefix(self) -> str:
        """Where the job's own files lie."""
        return f"{self.output.rstrip('/')}/{self.name}"


@dataclass(frozen=True)
class Request:
    """body: of create_training_job or, for a tuning job, create_hyper_parameter_tuning_job; uploads: to `scenario`."""

    tuning: bool
    body: dict[str, Any]
    scenario: str
    uploads: Mapping[str, Path | str]


def training_request(order: Order) -> Request:
    """A training job, judged on the scenario's own window. Raises BidsimError for what could never work."""
    _check(order, LONGEST_NAME)
    name = next(iter(order.loaded.scenario.logs_tables))
    plan_windows(
        order.loaded,
        train_hours=order.hyperparameters.shared.train_hours,
        gap_hours=order.hyperparameters.shared.gap_hours,
        tables={name: order.train},
        train_tables={name: order.train} if order.test else None,
    )
    uploads = scenario_files(order.loaded, order.baseline)
    body = {
        "TrainingJobName": order.name,
        "HyperParameters": _texts(order.hyperparameters.document),
        **_definition(order, definitions(heads=order.loaded.scenario.heads or HEADS), order.test),
    }
    return Request(False, body, f"{order.prefix}/{SCENARIO}/", uploads)


def tuning_request(
    order: Order,
    space: Space,
    *,
    trials: int,
    jobs: int,
    seed: int,
    metric: str,
    head: str | None,
    tune_hours: int | None,
    tune: str | None,
) -> Request:
    """A tuning job over a space. tune: s3 prefix of a log to measure trials on; without, it is the training log.

    Raises BidsimError for what could never work.
    """
    _check(order, LONGEST_TUNING_NAME)
    loaded, base = order.loaded, space.base
    heads: tuple[Head, ...] = loaded.scenario.heads or HEADS
    objective = make_objective(metric, head, heads)
    if objective.metric in NEAR_ONE:
        raise BidsimError(
            f"--metric: {objective.metric} is best near 1, and the service only knows more or less; take "
            "calibration_error or another metric"
        )
    static = dict(base.document)
    environment: dict[str, str] = {}
    if loaded.window() is None:
        if tune is None:
            raise BidsimError("without a window in the scenario, tuning needs a log of its own: --tune s3://...")
        judged = loaded
    else:
        name = next(iter(loaded.scenario.logs_tables))
        tables = {name: order.train}
        judged, selection, _ = tuning_window(loaded, base.shared, tune_hours=tune_hours, train_tables=tables)
        static["train_hours"] = selection.train_hours
        environment[WHOLE_TRAIN_HOURS] = str(base.shared.train_hours)
    judged = changed(judged, gate=None, candidates=None, segments=None, name=f"{loaded.name[:190]} tuning")
    wanted = judged_name(objective.metric, objective.head)
    body = {
        "HyperParameterTuningJobName": order.name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": _direction(objective), "MetricName": wanted},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": min(jobs, trials)},
            "ParameterRanges": parameter_ranges(space),
            "TrainingJobEarlyStoppingType": "Off",
            "RandomSeed": seed,
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": _texts({k: v for k, v in static.items() if k not in space.axes}),
            **_definition(order, definitions(wanted, heads), tune, environment),
        },
    }
    return Request(True, body, f"{order.prefix}/{SCENARIO}/", scenario_files(judged, order.baseline))


def parameter_ranges(space: Space) -> dict[str, list[dict[str, Any]]]:
    """The space as the service has it. Raises BidsimError for what it has not."""
    whole: list[dict[str, Any]] = []
    real: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    for key, axis in space.axes.items():
        values = _values(key, axis, key in space.whole)
        if values is not None:
            if len(values) > MOST_CHOICES:
                raise BidsimError(
                    f"{key}: the service takes at most {MOST_CHOICES} choices or steps, got {len(values)}"
                )
            chosen.append({"Name": key, "Values": values})
            continue
        ends = {"MinValue": _number(axis.low), "MaxValue": _number(axis.high)}
        scale = {"ScalingType": "Logarithmic" if axis.log else "Linear"}
        (whole if key in space.whole else real).append({"Name": key, **ends, **scale})
    return {"IntegerParameterRanges": whole, "ContinuousParameterRanges": real, "CategoricalParameterRanges": chosen}


def scenario_files(loaded: LoadedScenario, baseline: Path | None) -> dict[str, Path | str]:
    """The scenario as it is read in the container, and the files that it names, all in one folder: name to content.

    Where the logs lie is left out, for the channels say it. Raises BidsimError for a file that is not there.
    """
    refuse_unsupported(loaded)
    files: dict[str, Path | str] = {}

    def take(path: Path) -> str:
        if not path.is_file():
            raise BidsimError("no such file, or more than one; a job takes single files beside the log", file=str(path))
        name = f"{len(files)}-{path.name}"
        files[name] = path
        return name

    document = loaded.document
    tables = {n: {k: v for k, v in (t or {}).items() if k != "path"} for n, t in document["logs_tables"].items()}
    replaced: dict[str, Any] = {"logs_tables": tables}
    if document.get("campaigns"):
        replaced["campaigns"] = take(loaded.resolve(document["campaigns"]))
    policies = dict(document.get("candidates") or {})
    for name, policy in policies.items():
        if policy.get("model"):
            policies[name] = {**policy, "model": take(loaded.resolve(policy["model"]))}
    if policies:
        replaced["candidates"] = policies
    own = document.get("baseline") or {}
    if baseline is not None:
        if not baseline.is_file():
            raise BidsimError("no such file; check --baseline", file=str(baseline))
        files[BASELINE_FILE] = baseline
        own = {k: v for k, v in own.items() if k != "model"}
        replaced["baseline"] = own or None
    elif own.get("model"):
        replaced["baseline"] = {**own, "model": take(loaded.resolve(own["model"]))}
    made = changed(loaded, **replaced)
    files[SCENARIO_FILE] = json.dumps(made.document, indent=1, ensure_ascii=False) + "\n"
    return files


def _check(order: Order, longest: int) -> None:
    if not JOB_NAME.fullmatch(order.name) or len(order.name) > longest:
        raise BidsimError(
            f"--name {order.name[:80]}: a job's name has letters, digits and hyphens between them, at most {longest}"
        )
    for option, value in (("--output", order.output), ("--train", order.train), ("--test", order.test)):
        if value is not None:
            s3_place(value, option)
    if not order.loaded.scenario.features:
        raise order.loaded.error("names no features: list the log columns that a model may learn from", "features")


def s3_place(uri: str, option: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key. Raises BidsimError."""
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", uri)
    if match is None:
        raise BidsimError(f"{option} {uri[:200]}: write s3://bucket/prefix")
    return match.group(1), match.group(2) or ""


def _definition(
    order: Order, metrics: list[dict[str, str]], test: str | None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What training jobs and trials of a tuning job have alike."""
    machine = order.machine
    seconds = round(machine.max_hours * 3600)
    channels = {"train": order.train, "test": test, SCENARIO: f"{order.prefix}/{SCENARIO}/"}
    stopping = {"MaxRuntimeInSeconds": seconds}
    made: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": order.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        "RoleArn": order.role,
        "InputDataConfig": [_channel(name, uri) for name, uri in channels.items() if uri is not None],
        "OutputDataConfig": {"S3OutputPath": f"{order.prefix}/output/"},
        "ResourceConfig": {
            "InstanceType": machine.instance,
            "InstanceCount": 1,
            "VolumeSizeInGB": machine.volume_gb,
        },
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": machine.spot,
    }
    if machine.spot:
        stopping["MaxWaitTimeInSeconds"] = SPOT_WAIT * seconds
        made["CheckpointConfig"] = {"S3Uri": f"{order.prefix}/checkpoints/", "LocalPath": "/opt/ml/checkpoints"}
    told = {**(environment or {}), **({"BIDSIM_MEMORY": machine.memory} if machine.memory else {})}
    if told:
        made["Environment"] = told
    return made


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters as the service takes them. Raises BidsimError where they are too many or too long."""
    made = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}
    if len(made) > MOST_VALUES:
        raise BidsimError(f"the service takes at most {MOST_VALUES} hyperparameters, got {len(made)}")
    long = next((key for key, value in made.items() if len(value) > LONGEST_VALUE), None)
    if long is not None:
        raise BidsimError(f"{long}: the service takes at most {LONGEST_VALUE} characters a hyperparameter")
    return made


def _values(key: str, axis: Axis, whole: bool) -> list[str] | None:
    """The values of an axis that has only so many; None for a range."""
    if axis.choices is not None:
        return [json.dumps(choice, ensure_ascii=False) for choice in axis.choices]
    if axis.step is None or (whole and axis.step == 1):
        return None
    assert axis.low is not None
    count = round((axis.last - axis.low) / axis.step) + 1
    if count > MOST_CHOICES:
        raise BidsimError(
            f"{key}: the service has no steps, and {count} values are more than the {MOST_CHOICES} it takes"
        )
    return [_number(axis.low + i * axis.step) for i in range(count)]


def _number(value: float | None) -> str:
    assert value is not None
    return str(int(value)) if float(value).is_integer() else f"{value:.12g}"


def _direction(objective: Objective) -> str:
    return "Maximize" if objective.metric in HIGHER_IS_BETTER else "Minimize"
