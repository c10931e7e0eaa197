"""`bidsim model`: make, look into, check and recalibrate model bundles."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidsim.cli_options import parse_memory, parse_tables
from bidsim.errors import BidsimError
from bidsim.files import BUNDLE_BEGINS, check_place
from bidsim.visible import visible_json

if TYPE_CHECKING:
    from bidsim.models.bundle import Bundle

models_app = typer.Typer(no_args_is_help=True, help="Make, look into, check and recalibrate model bundles.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A bundle, or a library's own model file.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The bundle to write.")]


class Method(StrEnum):
    platt = "platt"
    isotonic = "isotonic"


@models_app.command()
def pack(
    out: OutOption,
    ctr: Annotated[Path | None, typer.Option("--ctr", help="Model file of P(click | impression).")] = None,
    cvr: Annotated[Path | None, typer.Option("--cvr", help="Model file of P(conversion | click).")] = None,
    ctcvr: Annotated[Path | None, typer.Option("--ctcvr", help="Model file of P(conversion | impression).")] = None,
    features: Annotated[Path | None, typer.Option("--features", help="YAML: types, columns, categories.")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            "--examples",
            help="Parquet or CSV: log rows kept with their predictions; its own pctr, pcvr, pctcvr are compared.",
        ),
    ] = None,
) -> None:
    """Make a bundle of LightGBM, XGBoost, CatBoost, ONNX and Vowpal Wabbit files. Equal input gives equal bytes."""
    from bidsim.models.feature_file import FeatureFile, read_feature_file
    from bidsim.models.packing import pack_models
    from bidsim.models.tables import read_table

    given = {head: path for head, path in (("ctr", ctr), ("cvr", cvr), ("ctcvr", ctcvr)) if path is not None}
    if not given:
        raise BidsimError("nothing to pack: give at least one of --ctr, --cvr and --ctcvr")
    check_place(out, begins=BUNDLE_BEGINS)
    said = read_feature_file(features) if features is not None else FeatureFile()
    bundle = pack_models(
        given,  # type: ignore[arg-type]
        said,
        out=out,
        features_name=str(features or "--features"),
        examples=read_table(examples) if examples is not None else None,
    )
    typer.echo(bundle.write(out).sha256)


@models_app.command()
def inspect(file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.")]) -> None:
    """Print what a bundle holds, as JSON; no payload is loaded."""
    import json

    from bidsim.models.bundle import open_bundle

    typer.echo(visible_json(json.dumps(_inspected(open_bundle(file)), indent=2, ensure_ascii=False)))


@models_app.command()
def verify(file: FileArgument) -> None:
    """Load a model as a replay does: checksums, a trial in a child process, the example rows."""
    from bidsim.models.archive import read_model_file
    from bidsim.models.kinds import library_format
    from bidsim.models.packing import open_model

    bundle = open_model(file)
    scorer = bundle.scorer()
    examples = bundle.manifest.examples
    rows = len(next(iter(examples.predictions.values()))) if examples is not None and examples.predictions else 0
    raw = library_format(read_model_file(file)) is not None
    said = (
        f"{rows} rows of made-up values predicted alike twice"
        if raw
        else f"{rows} example rows predicted as when it was packed"
    )
    typer.echo(f"{file}: heads {', '.join(scorer.heads)}; {said}")


@models_app.command()
def calibrate(
    file: FileArgument,
    out: OutOption,
    scenario: Annotated[Path, typer.Option("--scenario", help="Names the log, its columns and conditions.")],
    method: Annotated[Method, typer.Option("--method", help="platt or isotonic")] = Method.platt,
    head: Annotated[list[str] | None, typer.Option("--head", help="ctr, cvr, ctcvr; default: all with labels.")] = None,
    last_hour: Annotated[str | None, typer.Option("--last-hour", help="Last hour of the rows to fit on.")] = None,
    duration_hour: Annotated[
        int | None, typer.Option("--duration-hour", min=1, help="Hours of rows to fit on.")
    ] = None,
    table: Annotated[list[str] | None, typer.Option("--table", help="NAME=PATH of a log table to fit on.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Default: all cores.")] = None,
    memory: Annotated[str, typer.Option("--memory", help="Bound for the process, such as 4GB or 1500MB.")] = "4GB",
) -> None:
    """Fit a recalibration on rows that will not be judged, and write the model with it."""
    from bidsim.calibrate import Window, hours_trained_on
    from bidsim.calibrate import calibrate as fit
    from bidsim.replay.pipeline import Settings
    from bidsim.scenario.loading import load_scenario
    from bidsim.scenario.schema import HEADS

    if (last_hour is None) != (duration_hour is None):
        raise BidsimError("--last-hour and --duration-hour belong together: give both or neither")
    for name in head or ():
        if name not in HEADS:
            raise BidsimError(f"--head {name}: write one of {', '.join(HEADS)}")
    check_place(out, begins=BUNDLE_BEGINS)
    window = None if last_hour is None or duration_hour is None else Window(last_hour, duration_hour)
    loaded = load_scenario(scenario)
    bundle, fits = fit(
        loaded,
        file,
        method=method.value,
        heads=tuple(h for h in HEADS if h in (head or ())),
        window=window,
        tables=parse_tables(table or []),
        settings=Settings(threads=threads, memory_bytes=parse_memory(memory)),
    )
    sha256 = bundle.write(out).sha256
    for found in fits:
        typer.echo(
            f"{found.head}: {found.rows} rows, {found.positives:.0f} positive; predicted / observed on them "
            f"{found.before:.4f} before, {found.after:.4f} after",
            err=True,
        )
    hours = hours_trained_on(bundle, loaded.zone)
    if hours:
        typer.echo(
            f"bidsim: warning: the model says that it was trained on {hours:.3g} hours of these rows, so the curve corrects "
            "too little; calibrate on rows after its training and before the judged ones (train with gap_hours to leave some)",
            err=True,
        )
    typer.echo(sha256)


def _inspected(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "file": str(bundle.path),
        "sha256": bundle.sha256,
        "heads": {
            head: {"format": entry.format, "recalibration": [s.type for s in manifest.recalibration.get(head, ())]}
            for head in manifest.order
            for entry in (manifest.heads[head],)
        },
        "features": [f.model_dump(exclude_none=True) for f in manifest.features],
        "training_window": None if manifest.training_window is None else manifest.training_window.model_dump(),
        "versions": dict(manifest.versions),
        "payloads": {name: entry.model_dump() for name, entry in manifest.payloads.items()},
        "examples": 0 if manifest.examples is None else len(next(iter(manifest.examples.columns.values()), ())),
        "note": manifest.note,
    }
