"""Bundles from the files that libraries write: what the model file says of its inputs, joined with a features file.

The same function serves `bidsim model pack` and a raw model file given as `--model`: the second is packed in memory,
without a features file, and only where nothing has to be guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from bidsim.errors import ModelError
from bidsim.models.archive import read_model_file
from bidsim.models.bundle import Bundle, build_bundle, bundle_from_bytes
from bidsim.models.feature_file import FeatureFile, HeadOptions
from bidsim.models.kinds import describe, library_format
from bidsim.models.libraries import CATEGORIES, LABELS, Description, versions_of
from bidsim.models.manifest import Examples, Feature, LibraryFormat, LibraryHead, Manifest
from bidsim.models.sandbox import Limits, describe_in_child, predict_in_child
from bidsim.scenario.schema import HEADS, Head

EXAMPLES = 20
PREDICTED: dict[Head, str] = {"ctr": "pctr", "cvr": "pcvr", "ctcvr": "pctcvr"}
PAYLOADS: dict[LibraryFormat, str] = {
    "lightgbm/1": "model.txt",
    "xgboost/1": "model.xgb",
    "catboost/1": "model.cbm",
    "onnx/1": "model.onnx",
    "vw/1": "model.vw",
}


@dataclass(frozen=True)
class _Head:
    """One model file, described and joined with what the features file says."""

    entry: LibraryHead
    features: tuple[Feature, ...]
    tables: Mapping[str, tuple[str, ...]]
    payloads: Mapping[str, bytes]


def pack_models(
    models: Mapping[Head, Path],
    features: FeatureFile,
    *,
    out: Path,
    features_name: str = "the features file",
    examples: pa.Table | None = None,
    limits: Limits | None = None,
) -> Bundle:
    """A bundle of model files by head, in memory. Equal input (files and library versions) gives equal bytes.

    examples: log rows; up to 20 of them are kept with their predictions. Columns pctr, pcvr and pctcvr in it are
    what training predicted for these rows, and compared. Without rows, some are made up from the model's own inputs.
    Raises ModelError for what can't be used, after the library has seen the file in a child process only.
    """
    heads = {head: _read_head(head, models[head], features, features_name, limits) for head in HEADS if head in models}
    merged: dict[str, Feature] = {}
    for found in heads.values():
        for feature in found.features:
            if merged.setdefault(feature.name, feature) != feature:
                raise ModelError(
                    f'the heads disagree about feature "{feature.name}"; say its type under features',
                    file=features_name,
                )
    _check_named(features, merged, features_name)
    manifest = _manifest(
        features_name,
        heads={head: found.entry for head, found in heads.items()},
        features=tuple(merged.values()),
        training_window=features.training_window,
        versions=versions_of({found.entry.format for found in heads.values()}),
        recalibration={head: steps for head in heads if (steps := features.head(head).recalibration)},
        note=features.note,
    )
    payloads = {name: data for found in heads.values() for name, data in found.payloads.items()}
    tables = {name: values for found in heads.values() for name, values in found.tables.items()}
    examples = None if examples is None else _finite(examples, manifest, str(out))
    columns = _example_columns(manifest, tables, examples, str(out))
    bare = build_bundle(out, manifest, payloads)
    predictions = predict_in_child(bare.data, columns, str(out), limits)
    for head, values in predictions.items():
        _compare(head, values, examples, models[head])
    # A row with a missing value may have no prediction (NaN), which JSON can't hold.
    kept = np.flatnonzero(np.isfinite(np.array(list(predictions.values()))).all(axis=0)).tolist()
    if not kept:
        raise ModelError(
            "the models predict no number for any of the example rows", file=str(next(iter(models.values())))
        )
    rows = Examples(
        columns={name: tuple(values[i] for i in kept) for name, values in columns.items()},
        predictions={head: tuple(values[i] for i in kept) for head, values in predictions.items()},
    )
    return bare.with_manifest(examples=rows)


def open_model(path: Path, limits: Limits | None = None) -> Bundle:
    """What `--model` names: a bundle, or the raw file of a library where its inputs and its head are clear.

    Raises ModelError with what to do for anything else. A raw file's sha256 is that of the file.
    """
    data = read_model_file(path)
    format = library_format(data)
    if format is None:
        return bundle_from_bytes(path, data)
    head = _head_of(path, data)
    bundle = pack_models({head: path}, FeatureFile(), out=path, limits=limits)
    if bundle.payload(bundle.manifest.heads[head].payloads[0]) != data:
        raise ModelError("the file changed while it was read; try again when it is whole", file=str(path))
    return bundle.of_file(data)


def _head_of(path: Path, data: bytes) -> Head:
    words = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
    found = [head for head in HEADS if words & {head, f"p{head}"}]
    if len(found) != 1:
        raise ModelError(
            f"this is {describe(data).partition(';')[0]}, and its name doesn't say whether it predicts ctr, cvr or "
            f"ctcvr; call it such as {path.stem}-ctr{path.suffix}, or pack it: bidsim model pack --ctr {path} -o m.bin",
            file=str(path),
        )
    return found[0]


def _read_head(head: Head, path: Path, features: FeatureFile, features_name: str, limits: Limits | None) -> _Head:
    data = read_model_file(path)
    file = str(path)
    format = library_format(data)
    if format is None:
        members = ("manifest.json",) if data.startswith(b"PK") and b"bidsim.bundle/" in data[:4096] else None
        what = "a bundle already" if members else describe(data)
        raise ModelError(f"this is {what}", file=file)
    described = describe_in_child(format, data, file, limits)
    options = features.head(head)
    names = _ordered(head, format, described, features, options, file)
    kinds: dict[str, str] = dict.fromkeys(names, "any") if described.any_inputs else {}
    kinds |= dict(zip(names, described.kinds, strict=False))
    own = dict(zip(described.names, names, strict=False))
    tables = {own[name]: values for name, values in described.categories.items() if name in own}
    if described.untold and sum(features.entry(name).categories is not None for name in names) < described.untold:
        raise ModelError(
            f"the {LABELS[format]} model was trained on codes of pandas categories, and does not say of which inputs "
            f"({described.untold}); list the categories of each under features, in the order of their codes, such as "
            "`os: {categories: [ios, android]}`",
            file=file,
        )
    declared = []
    for name in names:
        said = features.entry(name)
        if said.type == "list" and kinds[name] != "any":
            raise ModelError(
                f'features: "{name}" is a list, but a {LABELS[format]} model takes one value: give it a column for each '
                "value that it was trained on (1 where the list has it), or train a model that takes lists (hashed, "
                "factorization machine, Vowpal Wabbit)",
                file=features_name,
            )
        if kinds[name] == "any" and said.type is None and said.cross is None:
            raise ModelError(
                f'features: say the type of "{name}" (numeric, categorical, list): a {LABELS[format]} model does not know '
                "it",
                file=features_name,
            )
        feature = features.feature(name, kinds[name])
        if kinds[name] == "text" and feature.type == "numeric":
            raise ModelError(
                f'features: "{name}" is numeric, but categorical in the {LABELS[format]} model {file}',
                file=features_name,
            )
        if kinds[name] == "code" and said.type == "numeric" and format != "onnx/1":
            raise ModelError(
                f'features: "{name}" is numeric, but categorical in the {LABELS[format]} model {file}',
                file=features_name,
            )
        if said.categories is not None:
            if name in tables and tables[name] != _texts(said.categories):
                raise ModelError(
                    f'features: the categories of "{name}" differ from those in {file}', file=features_name
                )
            tables[name] = _texts(said.categories)
        declared.append(feature)
        declared += _parts(name, said.cross or (), kinds, features, features_name)
    payloads = {f"{head}/{PAYLOADS[format]}": data}
    if tables:
        text = json.dumps(tables, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        payloads[f"{head}/{CATEGORIES}"] = text.encode()
    entry = LibraryHead(
        format=format,
        payloads=tuple(payloads),
        features=names,
        output=options.output,
        trees=_trees(described, options, file),
        missing={n: word for n in names if (word := features.entry(n).missing) is not None},
        namespaces=options.namespaces,
        prefixes={n: word for n in names if (word := features.entry(n).prefix) is not None} or None,
    )
    return _Head(entry, tuple(declared), tables, payloads)


def _parts(
    name: str, cross: Sequence[str], kinds: Mapping[str, str], features: FeatureFile, file: str
) -> list[Feature]:
    """The features that a cross is made of."""
    for part in cross:
        if kinds.get(part) == "numeric" or features.entry(part).type == "numeric":
            raise ModelError(
                f'features: "{name}" crosses "{part}", which is numeric; cross a category of the same column, such as '
                f"{part}_value: {{type: categorical, column: {features.entry(part).column or part}}}",
                file=file,
            )
    return [features.feature(part, "text") for part in cross]


def _manifest(file: str, **values: Any) -> Manifest:
    try:
        return Manifest(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(str(first["msg"]).removeprefix("Value error, "), file=file) from error


def _ordered(
    head: Head, format: LibraryFormat, described: Description, features: FeatureFile, options: HeadOptions, file: str
) -> tuple[str, ...]:
    """bidsim's names of the inputs in the model's order."""
    if described.any_inputs:
        named = [name for group in (options.namespaces or {}).values() for name in group]
        found = tuple(options.features or named or features.features)
        if not found:
            raise ModelError(
                f"a {LABELS[format]} model doesn't name its inputs: pack it with --features, a file that lists them with "
                "their types and, under the head, the namespaces",
                file=file,
            )
        if named and sorted(named) != sorted(found):
            raise ModelError(f"{head}.namespaces don't name each of its features once", file=file)
        return found
    count = len(described.names)
    if described.named and options.features is None:
        # LightGBM writes blanks in names as underscores.
        spelled = {re.sub(r"\s", "_", name): name for name in features.features}
        names = [name if name in features.features else spelled.get(name, name) for name in described.names]
        if len(set(names)) == count:
            return tuple(names)
    names = list(options.features or features.features)
    if len(names) == count and len(set(names)) == count:
        if described.named and set(names) == set(described.names) and tuple(names) != described.names:
            raise ModelError(
                f"{head}.features are the model's inputs in another order; its own is {_some(described.names)}",
                file=file,
            )
        return tuple(names)
    if not names:
        raise ModelError(
            f"this {LABELS[format]} model doesn't name its {count} inputs; list them in the order of training: "
            f"bidsim model pack --{head} {file} --features f.yaml -o m.bin, with `{head}: {{features: [...]}}` in f.yaml",
            file=file,
        )
    raise ModelError(f"the model has {count} inputs, the features file lists {len(names)}: {_some(names)}", file=file)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _trees(described: Description, options: HeadOptions, file: str) -> int | None:
    if isinstance(options.trees, int):
        return options.trees
    if described.best is None or options.trees == "all":
        return None
    if options.trees is None:
        raise ModelError(
            f"training stopped some rounds after the best one ({described.best}): XGBClassifier predicts with the best "
            "rounds, Booster.predict with all; pack it and say `trees: best` or `trees: all` under the head",
            file=file,
        )
    return described.best


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


def _check_named(features: FeatureFile, merged: Mapping[str, Feature], file: str) -> None:
    stray = [name for name in features.features if name not in merged]
    if stray:
        raise ModelError(f'features: no head reads "{stray[0]}"; the models read {_some(list(merged))}', file=file)


def _example_columns(
    manifest: Manifest, tables: Mapping[str, tuple[str, ...]], examples: pa.Table | None, file: str
) -> dict[str, tuple[Any, ...]]:
    tables = {**_of_parts(manifest, tables), **tables}
    sources = {feature.source: feature for feature in manifest.features if feature.cross is None}
    if examples is not None:
        missing = [source for source in sources if source not in examples.column_names]
        if missing:
            raise ModelError(f'the example rows lack column "{missing[0]}"', file=file)
        if not examples.num_rows:
            raise ModelError("the file of example rows has no rows", file=file)
        return {source: tuple(_scalar(v) for v in examples[source][:EXAMPLES].to_pylist()) for source in sources}
    draw = np.random.default_rng(20_000)
    columns: dict[str, tuple[Any, ...]] = {}
    for source, feature in sources.items():
        values: list[Any]
        if feature.type == "numeric":
            values = [round(float(v), 3) for v in draw.normal(size=EXAMPLES) * 10.0 ** draw.integers(-1, 4, EXAMPLES)]
        elif tables.get(feature.name):
            values = [tables[feature.name][i] for i in draw.integers(0, len(tables[feature.name]), EXAMPLES)]
        else:
            values = [str(i) for i in draw.integers(0, 20, EXAMPLES)]
        values[-1] = None
        columns[source] = tuple(values)
    return columns


def _finite(examples: pa.Table, manifest: Manifest, file: str) -> pa.Table:
    """The rows without an infinite number, which JSON can't hold."""
    kept = np.ones(examples.num_rows, dtype=bool)
    for name in {feature.source for feature in manifest.features} & set(examples.column_names):
        if pa.types.is_floating(examples[name].type):
            kept &= ~np.isinf(examples[name].to_numpy())
    if len(kept) and not kept.any():
        raise ModelError("every example row holds an infinite number; give rows without", file=file)
    return examples.filter(pa.array(kept))


def _of_parts(manifest: Manifest, tables: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Values of the parts of crosses, as their categories show them."""
    found: dict[str, tuple[str, ...]] = {}
    for feature in manifest.features:
        if feature.cross is None or feature.name not in tables:
            continue
        between = "_" if feature.separator is None else feature.separator
        split = [values.split(between) if between else [] for values in tables[feature.name]]
        for place, part in enumerate(feature.cross):
            values = dict.fromkeys(each[place] for each in split if len(each) == len(feature.cross))
            found[part] = tuple(values)
    return found


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Decimal):  # a number as a feature, and as a category where it is whole
        return float(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _compare(head: Head, values: Sequence[float], examples: pa.Table | None, file: Path) -> None:
    if examples is None or PREDICTED[head] not in examples.column_names:
        return
    column = examples[PREDICTED[head]][: len(values)].cast(pa.float64()).to_numpy()
    if not np.allclose(values, column, rtol=1e-5, atol=1e-9, equal_nan=True):
        row = int(np.nanargmax(np.abs(np.asarray(values) - np.where(np.isnan(column), -1, column))))
        raise ModelError(
            f"head {head} predicts {values[row]:.9g} for example row {row + 1}, not {column[row]:.9g} as its column "
            f"{PREDICTED[head]} says; check types, categories and order of the features, or leave that column out of the "
            "examples where it is another model's",
            file=str(file),
        )
