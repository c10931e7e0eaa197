"""Commands for training as a service: in its container, and from outside. They parse, call, print, give a status."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidsim.cli_options import parse_memory
from bidsim.cli_runs import AsOfOption, day_of
from bidsim.errors import BidsimError

if TYPE_CHECKING:
    from bidsim.training.orders import Order

RegionOption = Annotated[str | None, typer.Option("--region", help="Default: as the environment has it.")]
JobArgument = Annotated[str, typer.Argument(help="Name of a training or tuning job.")]

sagemaker_app = typer.Typer(no_args_is_help=True, help="Training jobs: in the container, and submitted to the service.")


@sagemaker_app.command()
def train(
    root: Annotated[
        Path, typer.Option("--root", envvar="BIDSIM_ML_ROOT", help="What the service lays out and reads.")
    ] = Path("/opt/ml"),
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, envvar="BIDSIM_THREADS")] = None,
    memory: Annotated[
        str, typer.Option("--memory", envvar="BIDSIM_MEMORY", help="Bound for the process, such as 4GB or 1500MB.")
    ] = "4GB",
    as_of: AsOfOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; metrics are always printed.")] = False,
) -> int:
    """What a training container runs: read the job below --root, train, judge, leave model, result and report.

    Metrics are printed one a line. On SIGTERM the model is saved as it is (exit status 0). A failed job says why in
    output/failure.
    """
    from bidsim.stopping import EXIT_TERMINATED, listening
    from bidsim.training.contract import Layout, clear_failure, write_failure
    from bidsim.training.train import Stopped

    layout = Layout(root)
    try:
        from bidsim.progress import progress_for
        from bidsim.replay.pipeline import Settings
        from bidsim.training.container import do_job

        clear_failure(layout)
        settings = Settings(threads=threads, memory_bytes=parse_memory(memory))
        with progress_for(sys.stderr, quiet=quiet) as progress, listening() as stop:
            finished = do_job(
                layout,
                day=lambda loaded: day_of(as_of, loaded),
                say=typer.echo,
                settings=settings,
                stop=stop,
                gently=stop.gently,
                progress=progress,
            )
    except BaseException as error:
        write_failure(layout, _reason(error))
        if isinstance(error, Stopped):
            typer.echo(f"bidsim: {error}", err=True)
            return EXIT_TERMINATED
        raise
    if finished.result is None:
        typer.echo(f"stopped; the model so far is saved: {finished.model}")
    else:
        typer.echo(f"gate: {finished.result.gate.verdict}")
        typer.echo(f"model: {finished.model}")
    return 0


@sagemaker_app.command()
def metrics() -> None:
    """Print the metric definitions of a training job as JSON: the name of each metric, and what finds it in the log."""
    import json

    from bidsim.training.metric_lines import definitions

    typer.echo(json.dumps(definitions(), indent=1))


@sagemaker_app.command()
def submit(
    scenario: Annotated[Path, typer.Option("--scenario", help="The scenario, a YAML file.")],
    image: Annotated[str, typer.Option("--image", help="The container, in a registry that the service reads.")],
    role: Annotated[str, typer.Option("--role", help="ARN of the role that the job takes.")],
    output: Annotated[str, typer.Option("--output", help="s3://bucket/prefix for all that the job writes.")],
    train_log: Annotated[str, typer.Option("--train", help="s3://... of the log to learn from.")],
    test_log: Annotated[
        str | None,
        typer.Option("--test", help="s3://... of the judged log. Default: the scenario's window of the training log."),
    ] = None,
    space: Annotated[Path | None, typer.Option("--space", help="YAML of what to tune: makes it a tuning job.")] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, max=750)] = 50,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=100, help="Trials at a time.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the search.")] = 0,
    metric: Annotated[str, typer.Option("--metric", help="Objective of the search.")] = "normalized_entropy",
    head: Annotated[str | None, typer.Option("--head", help="Of the metric. Default: the first one.")] = None,
    tune_hours: Annotated[
        int | None,
        typer.Option("--tune-hours", min=1, help="Last hours of the training window. Default: a fifth of it."),
    ] = None,
    tune_log: Annotated[
        str | None, typer.Option("--tune", help="s3://... of a log to measure trials on. Default: the training log.")
    ] = None,
    hyperparameters: Annotated[Path | None, typer.Option("--hyperparameters", help="JSON file.")] = None,
    train_hours: Annotated[int | None, typer.Option("--train-hours", min=1)] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="Bundle of the baseline.")] = None,
    instance: Annotated[str, typer.Option("--instance", help="Type of the machine.")] = "ml.m5.xlarge",
    volume_gb: Annotated[int, typer.Option("--volume-gb", min=1, help="For logs, examples and model.")] = 30,
    max_hours: Annotated[float, typer.Option("--max-hours", min=0.02, max=672, help="After which it is stopped.")] = 24,
    spot: Annotated[bool, typer.Option("--spot", help="Spare machines; goes on from a checkpoint.")] = False,
    memory: Annotated[str | None, typer.Option("--memory", help="Bound for bidsim's process there.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: the scenario's, and the time.")] = None,
    region: RegionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, do nothing.")] = False,
) -> None:
    """Start a training job or, with --space, a tuning job of a scenario. Credentials are those of the aws command."""
    import json

    from bidsim.scenario.loading import load_scenario
    from bidsim.training.hyperparameters import load_hyperparameters
    from bidsim.training.orders import Machine, Order, training_request, tuning_request
    from bidsim.training.space import load_space

    if memory is not None:
        parse_memory(memory)
    loaded = load_scenario(scenario)
    values = load_hyperparameters(hyperparameters)
    if train_hours is not None:
        values = values.with_values(train_hours=train_hours)
    order = Order(
        loaded,
        values,
        name or default_name(loaded.name, datetime.now(UTC)),
        image,
        role,
        output,
        train_log,
        test_log,
        baseline,
        Machine(instance, volume_gb, max_hours, spot, memory),
    )
    if space is None:
        request = training_request(order)
    else:
        request = tuning_request(
            order,
            load_space(space, values),
            trials=trials,
            jobs=jobs,
            seed=seed,
            metric=metric,
            head=head,
            tune_hours=tune_hours,
            tune=tune_log,
        )
    if dry_run:
        typer.echo(json.dumps(request.body, indent=1, ensure_ascii=False))
        return
    from bidsim.training.sagemaker import connect
    from bidsim.training.sagemaker import submit as start

    typer.echo(start(connect(region), request))
    _say_next(order)


@sagemaker_app.command()
def status(job: JobArgument, region: RegionOption = None) -> None:
    """What the service says of a job."""
    from bidsim.report.format import clean_name
    from bidsim.training.sagemaker import connect, look

    kind, found = look(connect(region), job)
    if kind == "training":
        typer.echo(f"{job}: {found['TrainingJobStatus']} ({found.get('SecondaryStatus', '')})")
    else:
        counts = found.get("TrainingJobStatusCounters", {})
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        typer.echo(f"{job}: {found['HyperParameterTuningJobStatus']}" + (f" ({told})" if told else ""))
        best = found.get("BestTrainingJob", {})
        value = best.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
        if value is not None:
            typer.echo(f"best: {best['TrainingJobName']} {value:.6g}")
    if found.get("FailureReason"):
        typer.echo(f"reason: {clean_name(str(found['FailureReason']), 1024)}")


@sagemaker_app.command()
def stop(job: JobArgument, region: RegionOption = None) -> None:
    """Ask a job to stop; it saves its model as it is."""
    from bidsim.training.sagemaker import connect
    from bidsim.training.sagemaker import stop as ask

    typer.echo(f"{job}: asked to stop ({ask(connect(region), job)} job)")


@sagemaker_app.command()
def fetch(
    job: JobArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs, one for each training job.")] = Path("runs"),
    region: RegionOption = None,
) -> None:
    """Bring what a job left: models, results and reports, as runs for the leaderboard. What is there already stays."""
    from bidsim.report.format import clean_name
    from bidsim.training.sagemaker import best_hyperparameters, connect
    from bidsim.training.sagemaker import fetch as bring

    clients = connect(region)
    found, jobs = bring(clients, job, out)
    for each in jobs:
        value = "" if each.value is None else f" {each.value:.6g}"
        where = f" {each.run}" if each.run else f" {clean_name(each.reason, 300)}" if each.reason else ""
        typer.echo(f"{each.name}: {each.status}{value}{where}")
    if "HyperParameterTuningJobName" in found:
        file = out / f"{job}.best.json"
        best = best_hyperparameters(clients, found, file)
        if best is not None:
            typer.echo(f"best: {best}; hyperparameters: {file}", err=True)
            typer.echo(
                "trials were measured on the tuning window; judge the best on rows that it never saw: bidsim run, or "
                "bidsim sagemaker submit, with --hyperparameters",
                err=True,
            )
    typer.echo(f"bidsim leaderboard {out}", err=True)


def default_name(scenario: str, now: datetime) -> str:
    """A job's name that a tuning job may have too: the scenario's in short, and the time."""
    import re

    short = re.sub(r"[^a-zA-Z0-9]+", "-", scenario)[:18].strip("-") or "bidsim"
    return f"{short}-{now:%y%m%d-%H%M%S}"


def _say_next(order: Order) -> None:
    typer.echo(f"bidsim sagemaker status {order.name}", err=True)
    typer.echo(f"bidsim sagemaker fetch {order.name} --out runs", err=True)


def _reason(error: BaseException) -> str:
    if isinstance(error, BidsimError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by a signal before anything was learned; no model was saved"
    if isinstance(error, MemoryError):
        return "not enough memory; lower BIDSIM_MEMORY or BIDSIM_THREADS, or take a larger instance"
    return f"{type(error).__name__}: {error} (the log has more)"
