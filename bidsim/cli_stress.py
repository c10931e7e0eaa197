"""The command `bidsim stress`: the verdict again in other markets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidsim.cli_options import parse_memory, parse_tables
from bidsim.cli_runs import AsOfOption, day_of
from bidsim.errors import BidsimError
from bidsim.visible import visible_json

if TYPE_CHECKING:
    from bidsim.stress import Stress

MOST_SHIFTS = 50


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(stress)


def stress(
    scenario: Annotated[Path, typer.Option("--scenario", help="The scenario, a YAML file.")],
    model: Annotated[
        list[Path] | None, typer.Option("--model", help="Model of a candidate; several times for several.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Bundle of the baseline, instead of the scenario's.")
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="NAME=PATH of a log table: a file, a folder or a quoted glob.")
    ] = None,
    prices: Annotated[
        str | None, typer.Option("--prices", help='Shifts in per cent, "" for none. Default: -10,-5,5,10,20,30.')
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", help='Errors of the candidates in per cent, "" for none. Default: -20,-10,10,25.'
        ),
    ] = None,
    fail_on_flip: Annotated[
        bool, typer.Option("--fail-on-flip", help="Exit status 1 also where the verdict is another in some world.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="New folder for stress.json.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Default: all cores.")] = None,
    memory: Annotated[str, typer.Option("--memory", help="Bound for the process, such as 4GB or 1500MB.")] = "4GB",
    as_of: AsOfOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the worlds as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Replay again with other market prices and with candidates off by a factor: where does the verdict flip?"""
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.store.runs import check_free, write_run
    from bidsim.stress import CALIBRATION, PRICES
    from bidsim.stress import stress as replay_worlds

    shifts = _shifts(prices, "--prices", PRICES), _shifts(calibration, "--calibration", CALIBRATION)
    if not any(shifts):
        raise BidsimError(
            "--prices, --calibration: both are empty, so there is no other market to replay; give shifts to one"
        )
    if out is not None:
        check_free(out)
    loaded = load_scenario(scenario)
    found = replay_worlds(
        loaded,
        model or [],
        as_of=day_of(as_of, loaded),
        prices=shifts[0],
        calibration=shifts[1],
        baseline=baseline,
        tables=parse_tables(table or []),
        settings=Settings(threads=threads, memory_bytes=parse_memory(memory)),
        told=lambda text: None if quiet else print(f"replaying: {text}", file=sys.stderr),
    )
    if out is not None:
        write_run(out, {"stress.json": found.to_json()})
    typer.echo(visible_json(found.to_json()) if json else in_words(found), nl=False)
    return 1 if found.verdict == "fail" or (fail_on_flip and found.flips) else 0


def _shifts(text: str | None, flag: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if text is None:
        return default
    out = []
    for part in (p.strip() for p in text.split(",")) if text.strip() else ():
        try:
            value = float(part.removesuffix("%"))
        except ValueError:
            value = float("nan")
        if not -100 < value <= 1000:
            raise BidsimError(f'{flag}: "{part}" is not a shift in per cent above -100, such as -10,5,20')
        out.append(value / 100)
    if len(out) > MOST_SHIFTS:
        raise BidsimError(f"{flag}: {len(out)} worlds are too many; give at most {MOST_SHIFTS}")
    return tuple(out)


def in_words(found: Stress) -> str:
    """A table of the worlds, and where the verdict flips."""
    from bidsim.report.format import clean_name

    lines = [f"verdict: {found.verdict}"]
    for kind, points in found.points.items():
        names = [
            (c, m) for c, changes in points[0].change.items() for m in ("spend", "conversions", "cpa") if m in changes
        ]
        what = "others' prices" if kind == "prices" else "candidates' bids"
        lines += ["", f"{what:>16}  verdict  " + "  ".join(f"{f'{clean_name(c, 40)} {m}':>18}" for c, m in names)]
        for p in points:
            cells = ("–" if (v := p.change[c][m]) is None else f"{v:+.1%}" for c, m in names)
            lines.append(f"{p.shift:>+16.1%}  {p.verdict:7}  " + "  ".join(f"{cell:>18}" for cell in cells))
    lines.append("")
    for kind in found.points:
        flips = [f for f in found.flips if f.kind == kind]
        for f in flips:
            rules = ", ".join(clean_name(rule) for rule in f.rules) or "the gate"
            lines.append(f"{kind}: {found.verdict} at {f.holds:+.1%}, {f.verdict} at {f.breaks:+.1%} ({rules})")
        if not flips and len(found.points[kind]) > 1:
            first, last = found.points[kind][0].shift, found.points[kind][-1].shift
            lines.append(f"{kind}: {found.verdict} from {first:+.1%} to {last:+.1%}")
    return "\n".join(lines) + "\n"
