"""Commands of the improvement loop: extract, train, tune, run. They parse, call, print and give an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

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
MemoryOption = Annotated[str, typer.Option("--memory", help="Bound for the process, such as 4GB or 900MB.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (extract,):
        app.command()(command)


def extract(
    scenario: ScenarioOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the examples.")],
    train_hours: Annotated[
        int | None, typer.Option("--train-hours", min=1, help="Length of the training window, such as 168.")
    ] = None,
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
    from bidsim.cli import parse_memory, parse_tables
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
