"""Commands on saved runs: judge again, render again, compare, rank, and record what the online test showed.

Like `cli`, they parse, call, print and give an exit status; `cli` adds them to its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidsim.errors import BidsimError
from bidsim.visible import visible_json

if TYPE_CHECKING:
    from bidsim.result import Result
    from bidsim.scenario.loading import LoadedScenario
    from bidsim.statistics.tables import Tables
    from bidsim.store.reading import SavedRun

RunArgument = Annotated[Path, typer.Argument(help="A run's folder, or its result.json.")]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of", help="Day on which the gate is judged, YYYY-MM-DD. Default: today in the scenario's time zone."
    ),
]
AnnotationsOption = Annotated[
    bool | None,
    typer.Option(
        "--annotations/--no-annotations", help="GitHub Actions annotations. Default: where GITHUB_ACTIONS is true."
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option("--confidence", help="Of the intervals, such as 0.9, from the run's statistics. Default: the run's."),
]
ChartsOption = Annotated[Path | None, typer.Option("--charts", help="New folder for the main charts, as PNG and SVG.")]
InteractiveOption = Annotated[
    bool, typer.Option("--interactive", help="A report with tooltips and zoom: it carries a script of about 1 MB.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (gate, report, plan, leaderboard, compare, outcome):
        app.command()(command)


def parse_day(text: str | None) -> date | None:
    """A day given with --as-of. Raises BidsimError."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BidsimError(f"--as-of {text}: not a day; write YYYY-MM-DD") from None


def day_of(text: str | None, loaded: LoadedScenario) -> date:
    """The day given, by default today in the scenario's time zone. Raises BidsimError."""
    return parse_day(text) or datetime.now(loaded.zone).date()


def annotate(result: Result, asked: bool | None, *, json: bool) -> None:
    """Print annotations where asked for, or where GitHub Actions runs us; beside JSON they go to stderr."""
    import os

    if asked is None:
        asked = os.environ.get("GITHUB_ACTIONS") == "true"
    if asked:
        from bidsim.report.annotations import render_annotations

        for line in render_annotations(result):
            typer.echo(line, err=json)


def gate(
    run: RunArgument,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="YAML list of rules, or a mapping with gate. Default: the run's own.")
    ] = None,
    confidence: ConfidenceOption = None,
    as_of: AsOfOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the judgement as JSON on stdout.")] = False,
    annotations: AnnotationsOption = None,
) -> int:
    """Judge a saved result again, with other rules or on another day; the log is not needed."""
    from bidsim.scenario.rules import load_rules, rules_of
    from bidsim.store.reading import load_run, with_confidence

    day = parse_day(as_of)
    given = load_rules(rules) if rules else None
    saved = load_run(run)
    if confidence is not None:
        saved = with_confidence(saved, confidence)
    own = rules_of(saved.result.scenario) if given is None or given.fidelity is None else None
    found = given or own
    assert found is not None
    fidelity = found.fidelity or (own.fidelity if own else None)
    from bidsim.gate import judge

    dated = saved.result.model_copy(update={"as_of": (day or _today(saved.result)).isoformat()})
    result = judge(dated, found.rules, fidelity_warns=fidelity == "warn")
    if json:
        _print_json(
            {
                "schema": "bidsim.gate/1",
                "name": result.name,
                "as_of": result.as_of,
                "fingerprint": result.data.fingerprint,
                "gate": result.gate.model_dump(),
                "findings": [f.model_dump() for f in result.findings if f.code.startswith("waiver_")],
            }
        )
    else:
        _print_judgement(result)
    annotate(result, annotations, json=json)
    return 1 if result.gate.verdict == "fail" else 0


def _print_judgement(result: Result) -> None:
    from bidsim.report.format import clean_name
    from bidsim.report.view import outcome_action

    typer.echo(f"{result.gate.verdict.upper().replace('_', ' ')}: {clean_name(result.gate.reason, 2000)}")
    typer.echo(f"judged as of {result.as_of}")
    words = {"fail": "FAIL", "warn": "WARN", "pass": "pass", "ignore": "ignored", "waived": "waived"}
    for o in result.gate.rules:
        status = f" ({o.status.replace('_', ' ')})" if o.status not in ("pass", "fail") else ""
        alone = " [judged on the value alone]" if o.evidence == "point" else ""
        typer.echo(f"  {words[outcome_action(o)]:<7}{status} {clean_name(o.sentence, 2000)}{alone}")
    for finding in result.findings:
        if finding.code.startswith("waiver_"):
            typer.echo(f"  note    {clean_name(finding.message, 2000)}")


def _today(result: Result) -> date:
    """Today in the scenario's time zone; a saved result may name one that this machine does not know."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    name = result.scenario.get("timezone") or "UTC"
    try:
        zone = ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BidsimError(f'the result\'s time zone "{str(name)[:60]}" is not known here; give --as-of') from None
    return datetime.now(zone).date()


def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file to write. Default: <run>.html here, if there is none yet.")
    ] = None,
    confidence: ConfidenceOption = None,
    interactive: InteractiveOption = False,
    charts: ChartsOption = None,
) -> None:
    """Render the report of a saved result again, and its charts as pictures.

    With another confidence its gate is judged again too, on the run's day.
    """
    from bidsim.files import write_file
    from bidsim.store.reading import load_run, with_confidence
    from bidsim.store.runs import check_free, write_run

    saved = load_run(run)
    if confidence is not None:
        from bidsim.gate import judge
        from bidsim.scenario.rules import rules_of

        saved = with_confidence(saved, confidence)
        own = rules_of(saved.result.scenario)
        saved = replace(saved, result=judge(saved.result, own.rules, fidelity_warns=own.fidelity == "warn"))
    target = out or Path(f"{saved.name}.html")
    _check_target(target, overwrite=out is not None)
    if charts is not None:
        check_free(charts)
    from bidsim.report import render_report

    tables = _tables(saved)
    page = render_report(
        saved.result,
        judged=_judged(saved),
        versions=_versions(saved),
        interactive=interactive,
        tables=tables,
    )
    write_file(target, page)
    typer.echo(f"report: {target}")
    if charts is not None:
        from bidsim.report.pictures import render_pictures

        pictures = render_pictures(saved.result, tables)
        write_run(charts, pictures)
        typer.echo(f"charts: {charts} ({len(pictures)} files)")


def _tables(saved: SavedRun) -> Tables | None:
    """The run's statistics; without them a report has no gain chart and no prices, which is said."""
    from bidsim.store.reading import load_tables

    try:
        return load_tables(saved)
    except BidsimError as error:
        typer.echo(f"bidsim: the report has no gain chart, bids and prices: {error}", err=True)
        return None


def _judged(saved: SavedRun) -> int | None:
    judged = saved.facts.get("judged")
    count = judged.get("candidates") if isinstance(judged, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _versions(saved: SavedRun) -> dict[str, str]:
    versions = saved.facts.get("versions")
    return {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {}


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise BidsimError("is a folder; give --out a file", file=str(target))
    if target.exists() and not overwrite:
        raise BidsimError("exists already; give --out another file, or this one to replace it", file=str(target))
    if (target.resolve().parent / "run.json").exists():
        raise BidsimError("lies in a run's folder, which never changes; give --out another place", file=str(target))


def plan(
    run: RunArgument,
    share: Annotated[
        list[float] | None,
        typer.Option("--share", help="The candidate's share of traffic, such as 0.1; several times."),
    ] = None,
    power: Annotated[float, typer.Option("--power", help="Chance to see the predicted change.")] = 0.8,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the test, two-sided.")] = 0.95,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Default: all that an A/B test can judge.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on stdout.")] = False,
) -> None:
    """How large an A/B test must be to confirm what a replay predicts."""
    from bidsim.report.plan import plan_json, render_plan
    from bidsim.statistics.experiment import METRICS, plan_experiment
    from bidsim.store.reading import load_run, load_tables

    shares = share or [0.05, 0.1, 0.5]
    for value, name in ((power, "--power"), (confidence, "--confidence"), *((s, "--share") for s in shares)):
        if not 0 < value < 1:
            raise BidsimError(f"{name} {value:g}: write a number between 0 and 1, such as 0.8")
    if confidence < 0.5:
        raise BidsimError(f"--confidence {confidence:g}: write at least 0.5")
    for name in metric or ():
        if name not in METRICS:
            raise BidsimError(f"--metric {name}: an A/B test is planned for {', '.join(METRICS)}")
    saved = load_run(run)
    tables = load_tables(saved)
    needs = list(
        plan_experiment(tables, shares=shares, power=power, confidence=confidence, metrics=tuple(metric or METRICS))
    )
    render = plan_json if json else render_plan
    typer.echo(render(saved.result, needs, power=power, confidence=confidence), nl=False)


def leaderboard(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders that hold runs. Default: runs.")] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="Metric to rank by. Default: CPA at matched spend, or what comes nearest."),
    ] = None,
    head: Annotated[str | None, typer.Option("--head", help="Head of the metric, where it has several.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the leaderboard as JSON on stdout.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write the leaderboard as an HTML page.")] = None,
) -> None:
    """Rank the candidates of all runs, within the same data and scenario, beside what online tests showed."""
    from bidsim.store.leaderboard import make_leaderboard

    if html is not None:
        _check_target(html, overwrite=True)
    board = make_leaderboard(runs or [Path("runs")], by, head)
    if html is not None:
        from bidsim.files import write_file
        from bidsim.store.page import render_leaderboard

        write_file(html, render_leaderboard(board))
        typer.echo(f"page: {html}", err=json)
    if json:
        _print_json(board.to_data())
    else:
        from bidsim.store.terminal import print_leaderboard

        print_leaderboard(board)


def compare(
    first: RunArgument,
    second: RunArgument,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Candidate to compare; twice for one of each run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
) -> None:
    """Compare two runs on the same data and scenario: what was changed, and what it did."""
    from bidsim.store.compare import compare as compare_runs
    from bidsim.store.reading import load_run

    names: list[str | None] = [*(policy or [])]
    if len(names) > 2:
        raise BidsimError("--policy is given at most twice: one for each run")
    names = names * 2 if len(names) == 1 else names or [None, None]
    found = compare_runs(load_run(first), load_run(second), (names[0], names[1]))
    if json:
        _print_json(found.to_data())
    else:
        from bidsim.store.terminal import print_comparison

        print_comparison(found)


def outcome(
    run: RunArgument,
    file: Annotated[Path, typer.Option("--file", help="CSV of the A/B test: metric, change, low, high, ...")],
) -> None:
    """Record what the online test of a run's candidate showed, beside the run; the leaderboard shows both."""
    from bidsim.store.ledger import record_outcome
    from bidsim.store.scan import read_run
    from bidsim.store.terminal import print_outcome

    directory = run if run.is_dir() else run.parent
    stored = read_run(directory)
    if isinstance(stored, str):
        raise BidsimError(stored, file=str(directory / "run.json"))
    if stored is None:
        raise BidsimError("is no whole run (result.json and run.json), so nothing is recorded", file=str(run))
    recorded = datetime.now(UTC).isoformat(timespec="seconds")
    target, found = record_outcome(directory, stored.record, file, recorded)
    print_outcome(stored, found)
    typer.echo(f"recorded: {target}")


def _print_json(document: Any) -> None:
    import json

    sys.stdout.write(visible_json(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n")
