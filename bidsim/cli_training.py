"""Commands of the improvement loop: extract, train, tune, run. They parse, call, print and give an exit status."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidsim.cli_options import parse_memory, parse_tables, print_summary
from bidsim.cli_runs import AsOfOption, day_of
from bidsim.errors import BidsimError
from bidsim.files import BUNDLE_BEGINS, check_place

if TYPE_CHECKING:
    from bidsim.training.curve import Measures
    from bidsim.training.trial import Outcome
    from bidsim.training.workflow import Workflow

ScenarioOption = Annotated[Path, typer.Option("--scenario", help="The scenario, a YAML file.")]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", help="NAME=PATH of a log table: a file, a folder or a quoted glob.")
]
TrainTableOption = Annotated[
    list[str] | None, typer.Option("--train-table", help="NAME=PATH of a log to train on, instead of the same log.")
]
GapOption = Annotated[
    float | None,
    typer.Option("--gap-hours", help="Between training and judged rows. Default: maturity.conversion_window_hours."),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Default: all cores.")]
MemoryOption = Annotated[str, typer.Option("--memory", help="Bound for the process, such as 4GB or 1500MB.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (extract, train, tune, run):
        app.command()(command)


HyperparametersOption = Annotated[
    Path | None, typer.Option("--hyperparameters", help="JSON file. Default: hashed logistic regression as it comes.")
]
TrainHoursOption = Annotated[
    int | None, typer.Option("--train-hours", min=1, help="Length of the training window, such as 168.")
]

WorkOption = Annotated[Path, typer.Option("--work", help="Folder of steps, checkpoints and runs.")]
BaselineOption = Annotated[
    Path | None, typer.Option("--baseline", help="Bundle of the baseline, instead of the scenario's.")
]


def extract(
    scenario: ScenarioOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the examples.")],
    train_hours: TrainHoursOption = None,
    gap_hours: GapOption = None,
    keep_negatives: Annotated[
        float, typer.Option("--keep-negatives", help="Share of training impressions without a result to keep.")
    ] = 1.0,
    table: TableOption = None,
    train_table: TrainTableOption = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    quiet: QuietOption = False,
) -> None:
    """Write labelled examples for training and evaluation, as Parquet with a manifest."""
    from bidsim.progress import progress_for
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.training.extract import Selection
    from bidsim.training.extract import extract as write

    settings = Settings(threads=threads, memory_bytes=parse_memory(memory))
    with progress_for(sys.stderr, quiet=quiet) as progress:
        made = write(
            load_scenario(scenario),
            out,
            Selection(train_hours, gap_hours, keep_negatives),
            tables=parse_tables(table or []),
            train_tables=parse_tables(train_table or []),
            settings=settings,
            progress=progress,
        )
    if not quiet:
        for name, part in (("train", made.manifest.train), ("evaluation", made.manifest.evaluation)):
            for sample, found in part.samples.items():
                typer.echo(f"{name} {sample}: {found.rows:,} rows, {found.positives:,} positive", err=True)
            for campaign in part.removed_campaigns:
                typer.echo(
                    f"{name}: campaign {campaign.campaign} left out ({campaign.clicks} clicks, "
                    f"{campaign.conversions} conversions)",
                    err=True,
                )
    typer.echo(str(out / "manifest.json"))


def train(
    scenario: ScenarioOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle to write.")],
    hyperparameters: HyperparametersOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of bidsim extract. Default: extracted for this training.")
    ] = None,
    train_hours: TrainHoursOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the hyperparameters' seed.")] = None,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="Folder to go on from after a kill.")] = None,
    table: TableOption = None,
    train_table: TrainTableOption = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    quiet: QuietOption = False,
) -> int:
    """Train the heads of a scenario into one bundle, with learning curves and a calibration check at the end.

    On SIGTERM the bundle is written with what has been learned so far, and says so (exit status 143).
    """
    from bidsim.progress import progress_for
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.training.hyperparameters import load_hyperparameters, to_train_here

    check_place(out, begins=BUNDLE_BEGINS)
    unread = {"--train-hours": train_hours, "--table": table, "--train-table": train_table}
    idle = next((flag for flag, value in unread.items() if value), None)
    if data is not None and idle is not None:
        raise BidsimError(f"{idle} says which rows to extract, and --data has its rows already; give one of the two")
    found = to_train_here(load_hyperparameters(hyperparameters))
    given = {"seed": seed, "train_hours": train_hours}
    found = found.with_values(**{key: value for key, value in given.items() if value is not None})
    loaded = load_scenario(scenario)
    settings = Settings(threads=threads, memory_bytes=parse_memory(memory))
    tables, train_tables = parse_tables(table or []), parse_tables(train_table or [])

    def say(name: str, value: float, step: int) -> None:
        if not quiet:
            typer.echo(f"bidsim: round {step}: {name} {value:.6g}", err=True)

    from bidsim.stopping import EXIT_TERMINATED, listening
    from bidsim.training.examples import open_extraction
    from bidsim.training.extract import content_sha256
    from bidsim.training.train import Stopped, extracted_for
    from bidsim.training.train import train as fit

    with progress_for(sys.stderr, quiet=quiet) as progress, listening() as stop:
        extraction = (
            nullcontext(open_extraction(data))
            if data is not None
            else extracted_for(
                loaded, found, tables=tables, train_tables=train_tables, settings=settings, progress=progress
            )
        )
        with extraction as examples:
            if examples.manifest.content_sha256 != content_sha256(loaded):
                raise BidsimError(
                    "was extracted for another log window, columns, conditions or features than the scenario has now; "
                    "extract again",
                    file=str(data),
                )
            if data is not None:
                examples.check_asked(found.document, found.file)
            try:
                with stop.gently():
                    trained = fit(
                        examples,
                        found,
                        out,
                        checkpoint=checkpoint,
                        stop=stop,
                        on_metric=say,
                        progress=progress,
                        threads=threads,
                    )
            except Stopped as error:
                typer.echo(f"bidsim: {error}", err=True)
                return EXIT_TERMINATED
    if not quiet:
        for head, measures in trained.validation.items():
            typer.echo(f"{head}: {_said(measures)}", err=True)
    typer.echo(trained.bundle.sha256)
    return EXIT_TERMINATED if trained.stopped else 0


def tune(
    scenario: ScenarioOption,
    space: Annotated[Path, typer.Option("--space", help="YAML of what to tune: ranges, choices, single values.")],
    trials: Annotated[int, typer.Option("--trials", min=1, max=10_000)] = 50,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Worker processes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the search.")] = 0,
    metric: Annotated[
        str, typer.Option("--metric", help="Objective, such as cpa_at_matched_spend.")
    ] = "normalized_entropy",
    head: Annotated[str | None, typer.Option("--head", help="Of the metric. Default: the first one trained.")] = None,
    tune_hours: Annotated[
        int | None,
        typer.Option("--tune-hours", min=1, help="Last hours of the training window. Default: a fifth of it."),
    ] = None,
    hyperparameters: HyperparametersOption = None,
    work: WorkOption = Path("bidsim-work"),
    train_hours: TrainHoursOption = None,
    baseline: BaselineOption = None,
    table: TableOption = None,
    train_table: TrainTableOption = None,
    tune_table: Annotated[
        list[str] | None, typer.Option("--tune-table", help="NAME=PATH of a log to measure trials on.")
    ] = None,
    as_of: AsOfOption = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    quiet: QuietOption = False,
) -> int:
    """Search for hyperparameters, then judge the best on the scenario's own window. Exit status as replay's."""
    from bidsim.progress import progress_for
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.stopping import EXIT_TERMINATED
    from bidsim.store.reading import load_run
    from bidsim.training.hyperparameters import load_hyperparameters, to_train_here
    from bidsim.training.space import load_space
    from bidsim.training.tune import Tuning
    from bidsim.training.tune import tune as search
    from bidsim.training.workflow import Workflow

    loaded = load_scenario(scenario)
    base = to_train_here(load_hyperparameters(hyperparameters))
    if train_hours is not None:
        base = base.with_values(train_hours=train_hours)
    tuning = Tuning(
        loaded,
        load_space(space, base),
        work,
        day_of(as_of, loaded),
        trials=trials,
        seed=seed,
        metric=metric,
        head=head,
        tune_hours=tune_hours,
        tables=parse_tables(table or []),
        train_tables=parse_tables(train_table or []),
        tune_tables=parse_tables(tune_table or []),
        baseline=baseline,
        settings=Settings(threads=threads, memory_bytes=parse_memory(memory)),
    )

    def say(outcome: Outcome, kept: bool) -> None:
        if not quiet:
            value = "" if outcome.value is None else f" {outcome.value:.6g}"
            typer.echo(
                f"trial {outcome.number}: {outcome.state}{value}{' (kept)' if kept else ''} {outcome.values}", err=True
            )

    with progress_for(sys.stderr, quiet=quiet) as progress:
        tuned = search(tuning, jobs=jobs, on_trial=say, progress=progress)
        if not quiet:
            typer.echo(f"best: trial {tuned.best.number}, {tuned.objective} {tuned.best.value:.6g}", err=True)
            typer.echo(f"hyperparameters: {tuned.directory / 'best.json'}", err=True)
        workflow = Workflow(
            loaded,
            tuned.hyperparameters,
            work,
            day_of(as_of, loaded),
            tables=tuning.tables,
            train_tables=tuning.train_tables,
            baseline=baseline,
            settings=tuning.settings,
        )
        directory = _run_gently(workflow, progress=progress)
        if directory is None:
            return EXIT_TERMINATED
    result = load_run(directory).result
    value = tuned.objective.value(result, "trained")
    window = result.data.window
    later = f" ({window.start} to {window.end}), trained again up to them" if window else ""
    if not quiet:
        said = "undefined" if value is None else f"{value:.6g}"
        typer.echo(
            f"{tuned.objective}: {tuned.best.value:.6g} in tuning ({tuned.tuning_window}), the best of {trials} trials"
        )
        typer.echo(f"{tuned.objective}: {said} on rows that tuning never saw{later}")
        typer.echo(f"trials: bidsim leaderboard {tuned.directory / 'runs'}")
        print_summary(result, directory)
    return 1 if result.gate.verdict == "fail" else 0


def run(
    scenario: ScenarioOption,
    hyperparameters: HyperparametersOption = None,
    work: WorkOption = Path("bidsim-work"),
    train_hours: TrainHoursOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the hyperparameters' seed.")] = None,
    baseline: BaselineOption = None,
    table: TableOption = None,
    train_table: TrainTableOption = None,
    as_of: AsOfOption = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    quiet: QuietOption = False,
) -> int:
    """Extract, train, predict, evaluate: do what is missing or changed, and judge the gate. Exit status as replay's.

    On SIGTERM in training the model so far is saved beside its checkpoint (exit status 143); run again to go on.
    """
    from bidsim.progress import progress_for
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.stopping import EXIT_TERMINATED
    from bidsim.store.reading import load_run
    from bidsim.training.hyperparameters import load_hyperparameters, to_train_here
    from bidsim.training.workflow import Workflow

    found = to_train_here(load_hyperparameters(hyperparameters))
    given = {"seed": seed, "train_hours": train_hours}
    loaded = load_scenario(scenario)
    workflow = Workflow(
        loaded,
        found.with_values(**{key: value for key, value in given.items() if value is not None}),
        work,
        as_of=day_of(as_of, loaded),
        tables=parse_tables(table or []),
        train_tables=parse_tables(train_table or []),
        baseline=baseline,
        settings=Settings(threads=threads, memory_bytes=parse_memory(memory)),
    )

    def say(step: str, path: Path, kept: bool) -> None:
        if not quiet:
            typer.echo(f"{step}: {'kept' if kept else 'done'} {path}", err=True)

    with progress_for(sys.stderr, quiet=quiet) as progress:
        directory = _run_gently(workflow, say, progress=progress)
        if directory is None:
            return EXIT_TERMINATED
    result = load_run(directory).result
    if not quiet:
        print_summary(result, directory)
    return 1 if result.gate.verdict == "fail" else 0


def _run_gently(workflow: Workflow, on_step: Any = lambda step, path, kept: None, **options: Any) -> Path | None:
    """The run's folder; None where SIGTERM came in training."""
    from bidsim.stopping import listening
    from bidsim.training.train import Stopped
    from bidsim.training.workflow import run_workflow

    with listening() as stop:
        try:
            return run_workflow(
                workflow,
                on_step,
                stop=stop,
                around=lambda step: stop.gently() if step == "train" else nullcontext(),
                **options,
            )
        except Stopped as error:
            typer.echo(f"bidsim: {error}", err=True)
            return None


def _said(found: Measures) -> str:
    """What validation rows showed, in words."""
    parts = [f"{found.rows:,} validation rows, {found.positives:,} positive"]
    for name, value in (
        ("log loss", found.logloss),
        ("normalized entropy", found.normalized_entropy),
        ("AUC", found.auc),
        ("predicted / observed", found.calibration),
    ):
        if value is not None:
            parts.append(f"{name} {value:.4f}")
    return ", ".join(parts)
