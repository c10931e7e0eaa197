"""The command line: parse, call, print, exit status. Every command is one function of the library.

stdout carries only what was asked for (the run's summary, or ``--json``); progress and messages go to stderr.
"""

from __future__ import annotations

import gc
import sys
from datetime import date
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from bidsim import cli_runs, cli_stress, cli_training
from bidsim.cli_models import models_app
from bidsim.cli_options import parse_engine, parse_memory, parse_spark, parse_tables, print_summary
from bidsim.cli_runs import AnnotationsOption, AsOfOption, ChartsOption, InteractiveOption, annotate, parse_day
from bidsim.cli_sagemaker import sagemaker_app
from bidsim.visible import visible, visible_json

app = typer.Typer(
    name="bidsim",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Offline bid-simulation evaluator: replay held-out logs through a new CTR/CVR model before it spends money.",
)

app.add_typer(models_app, name="model")
app.add_typer(sagemaker_app, name="sagemaker")

# Some releases of Typer bring their own copy of click: the base of usage errors is found through Typer.
USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class SchemaName(StrEnum):
    scenario = "scenario"
    result = "result"


@cache
def _command() -> Any:
    """All commands with their options: made once where several are run in one process."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status. Raises what the library raises."""
    try:
        status = _command().main(args=arguments, prog_name="bidsim", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as error:
        # click ends with 1, our status of a failed gate, where the reader of stdout went away.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    except typer.Exit as error:
        return error.exit_code
    except USAGE_ERROR as error:
        error.show()
        return int(error.exit_code)
    return status if isinstance(status, int) else 0


def _version(wanted: bool) -> None:
    if wanted:
        from bidsim import __version__

        typer.echo(f"bidsim {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


ModelOption = Annotated[
    list[Path] | None, typer.Option("--model", help="Model of a candidate; several times for several.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Default: all cores.")]
MemoryOption = Annotated[str, typer.Option("--memory", help="Bound for the process, such as 4GB or 1500MB.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="duckdb (in this process) or spark. Default: as the scenario says.")
]
SparkOption = Annotated[
    list[str] | None,
    typer.Option("--spark", help="KEY=VALUE for engine spark: remote, master, or a setting such as spark.jars."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command()
def replay(
    scenario: Annotated[Path, typer.Option("--scenario", help="The scenario, a YAML file.")],
    model: ModelOption = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Bundle of the baseline, instead of the scenario's.")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="NAME=PATH of a log table: a file, a folder or a quoted glob."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for the run. Default: runs/<scenario>-<model>-<hash>.")
    ] = None,
    engine: EngineOption = None,
    spark: SparkOption = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    as_of: AsOfOption = None,
    charts: ChartsOption = None,
    interactive: InteractiveOption = False,
    annotations: AnnotationsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Replay a log through candidate and baseline; write the result and the report; judge the gate."""
    return _replay(
        scenario,
        model or [],
        baseline=baseline,
        tables=parse_tables(table or []),
        out=out,
        threads=threads,
        memory_bytes=parse_memory(memory),
        as_of=parse_day(as_of),
        json=json,
        quiet=quiet,
        charts=charts,
        interactive=interactive,
        annotations=annotations,
        engine=parse_engine(engine),
        spark=parse_spark(spark or []),
    )


@app.command()
def check(
    scenario: Annotated[Path, typer.Option("--scenario", help="The scenario, a YAML file.")],
    model: ModelOption = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Bundle of the baseline, instead of the scenario's.")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="NAME=PATH of a log table: a file, a folder or a quoted glob."),
    ] = None,
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    json: Annotated[bool, typer.Option("--json", help="Print every check as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Check whether a log is fit to be replayed: units, duplicates, delays, leaks, skew. Exit status 1: errors found."""
    from json import dumps

    from bidsim.checks.run import run_check
    from bidsim.progress import progress_for
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario

    memory_bytes, tables = parse_memory(memory), parse_tables(table or [])
    with progress_for(sys.stderr, quiet=quiet) as progress:
        report = run_check(
            load_scenario(scenario),
            model or [],
            baseline=baseline,
            tables=tables,
            settings=Settings(threads=threads, memory_bytes=memory_bytes),
            progress=progress,
        )
    shown = visible_json(dumps(report.as_dict(), indent=1, ensure_ascii=False)) if json else visible(report.text())
    typer.echo(shown)
    return 1 if report.failed else 0


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="New folder for the demo.")] = Path("bidsim-demo"),
    threads: ThreadsOption = None,
    memory: MemoryOption = "4GB",
    as_of: AsOfOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Make a market's log, train two models on its past, and replay the newer one: a first report in a minute."""
    from bidsim.market.demo import write_demo
    from bidsim.store.runs import check_free

    check_free(directory)
    memory_bytes, day = parse_memory(memory), parse_day(as_of)
    say = (lambda text: None) if quiet else (lambda text: typer.echo(text, err=True))
    files = write_demo(directory, say)
    status = _replay(
        files.scenario,
        [files.candidate],
        baseline=None,
        tables={},
        out=directory / "run",
        threads=threads,
        memory_bytes=memory_bytes,
        as_of=day,
        json=json,
        quiet=quiet,
    )
    if not quiet:
        report = directory / "run" / "report.html"
        typer.echo(
            f"\nWhat to look at in {report}:\n"
            f"1. {files.candidate.stem} ranks better: of the wins that the log shows it makes a quarter more conversions for "
            "the same money. But it bids more in a fifth of the auctions, lost ones without a price: the identified range "
            "says what these could undo. (In this market's truth the gain is half as large.)\n"
            "2. And it over-predicts clicks by a fifth, so it bids too high and its budgets are gone too early: that is "
            "why the gate stops it.\n"
            "3. The frontier shows what calibrated bids would have done: at 0.7 times its bids it brings still more.",
            err=True,
        )
    return status


cli_runs.add_to(app)
cli_training.add_to(app)
cli_stress.add_to(app)


@app.command()
def schema(name: Annotated[SchemaName, typer.Argument(help="scenario or result")]) -> None:
    """Print the JSON Schema of the scenario or of result.json."""
    import json

    if name is SchemaName.scenario:
        from bidsim.scenario.loading import json_schema

        document = json_schema()
    else:
        from bidsim.result import result_schema

        document = result_schema()
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _replay(
    scenario: Path,
    models: list[Path],
    *,
    baseline: Path | None,
    tables: dict[str, str],
    out: Path | None,
    threads: int | None,
    memory_bytes: int,
    as_of: date | None,
    json: bool,
    quiet: bool,
    charts: Path | None = None,
    interactive: bool = False,
    annotations: bool | None = None,
    engine: str | None = None,
    spark: dict[str, str] | None = None,
) -> int:
    from bidsim.progress import progress_for
    from bidsim.report.renderer import Renderer

    # A replay makes hundreds of thousands of records that live to its end: looking through them for cycles to free took a
    # fifth of a small one's time.
    gc.set_threshold(500_000, 50, 100)
    # Before the libraries of a replay are imported, so that it starts beside them.
    with Renderer() as renderer, progress_for(sys.stderr, quiet=quiet) as progress:
        from bidsim.run import replay_to_directory

        result, directory = replay_to_directory(
            scenario,
            models,
            baseline=baseline,
            tables=tables,
            out=out,
            charts=charts,
            interactive=interactive,
            threads=threads,
            memory_bytes=memory_bytes,
            as_of=as_of,
            progress=progress,
            command=sys.argv,
            engine=engine,
            spark=spark,
            draw=renderer.draw,
        )
    if json:
        typer.echo(visible_json(result.to_json()), nl=False)
    elif not quiet:
        print_summary(result, directory)
    annotate(result, annotations, json=json)
    return 1 if result.gate.verdict == "fail" else 0
