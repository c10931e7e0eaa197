"""Commands for training as a service: in its container, and from outside. They parse, call, print, give a status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bidsim.cli_runs import AsOfOption, day_of
from bidsim.errors import BidsimError

sagemaker_app = typer.Typer(no_args_is_help=True, help="Training jobs: in the container, and submitted to the service.")


@sagemaker_app.command()
def train(
    root: Annotated[
        Path, typer.Option("--root", envvar="BIDSIM_ML_ROOT", help="What the service lays out and reads.")
    ] = Path("/opt/ml"),
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, envvar="BIDSIM_THREADS")] = None,
    memory: Annotated[
        str, typer.Option("--memory", envvar="BIDSIM_MEMORY", help="Bound for the process, such as 4GB or 900MB.")
    ] = "4GB",
    as_of: AsOfOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; metrics are always printed.")] = False,
) -> int:
    """What a training container runs: read the job below --root, train, judge, leave model, result and report.

    Metrics are printed one a line. On SIGTERM the model is saved as it is (exit status 0). A failed job says why in
    output/failure.
    """
    from bidsim.stopping import EXIT_TERMINATED, listening
    from bidsim.training.contract import Layout, write_failure
    from bidsim.training.train import Stopped

    layout = Layout(root)
    try:
        from bidsim.cli import parse_memory
        from bidsim.progress import progress_for
        from bidsim.replay.pipeline import Settings
        from bidsim.training.container import do_job

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


def _reason(error: BaseException) -> str:
    if isinstance(error, BidsimError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by a signal before anything was learned; no model was saved"
    if isinstance(error, MemoryError):
        return "not enough memory; lower BIDSIM_MEMORY or BIDSIM_THREADS, or take a larger instance"
    return f"{type(error).__name__}: {error} (the log has more)"
