"""Damaged model files: how each ends when bidsim opens it as `--model` does and scores rows. Prints a table.

    python tests/benchmarks/fuzz_models.py --files 300 --jobs 2
    python tests/benchmarks/fuzz_models.py --files 20 --cold

Libraries' own files are damaged as they are; a bundle too, which its checksums refuse; so skops payloads and manifests
are also damaged within a bundle whose checksums are right. A file may end in a message, or be loaded and score (some
damage leaves a valid file). What must not happen, and makes the status 1: another exception, the death of this process,
more time than the limits allow, a file that appears beside the models, a child process that is left behind, a file,
process or connection that a child touches (where strace is installed; beyond the libraries' and the system's own files).

Children are forked from a process that has imported the library, as thousands of imports would take hours; `--cold`
starts them as bidsim does, without a look at what they touch.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bidsim.errors import ModelError  # noqa: E402
from bidsim.models import Bundle, Scorer, open_bundle, open_model, open_scorer  # noqa: E402
from bidsim.models.sandbox import Limits  # noqa: E402
from tests.benchmarks.warm import left_behind, warm_children  # noqa: E402
from tests.models.library_models import (  # noqa: E402
    FORMATS,
    FRAME,
    damage,
    damage_manifest,
    damage_payload,
    hashed_bundle,
    opened,
    skops_bundle,
)

# Without gaps, which not every pipeline of scikit-learn takes.
ROWS = pa.RecordBatch.from_pandas(FRAME.fillna({"x": 0.0}), preserve_index=False)


@dataclass(frozen=True)
class Whole:
    """A file that is no bundle, as `--model` opens it."""

    path: Path

    def scorer(self, limits: Limits) -> Scorer:
        return open_scorer(self.path, limits).scorer


Case = tuple[str, Callable[[Path], object], Callable[[Path, int], bytes], Callable[[Path, Limits], Bundle | Whole]]


def as_file(whole: Path, seed: int) -> bytes:
    return damage(whole.read_bytes(), seed)


def as_payload(whole: Path, seed: int) -> bytes:
    return damage_payload(open_bundle(whole), seed, whole)


def as_manifest(whole: Path, seed: int) -> bytes:
    return damage_manifest(open_bundle(whole), seed)


def predictions(path: Path) -> None:
    """A file of predictions, Parquet or CSV."""
    table = pa.table({"ad_id": range(100, 160), "pctr": np.random.default_rng(1).random(60)})
    (pq.write_table if path.suffix == ".parquet" else csv.write_csv)(table, path)


# By format: the file's name, what makes it, how it is damaged, how it is opened.
CASES: dict[str, Case] = {
    **{
        name: (file, train, as_file, lambda path, limits, name=name: opened(name, path, limits))  # type: ignore[misc]
        for name, (file, train) in FORMATS.items()
    },
    "skops, linear": ("m.bin", partial(skops_bundle, model="linear"), as_payload, open_model),
    "skops, trees": ("m.bin", partial(skops_bundle, model="trees"), as_payload, open_model),
    "predictions, Parquet": ("p.parquet", predictions, as_file, lambda path, limits: Whole(path)),
    "predictions, CSV": ("p.csv", predictions, as_file, lambda path, limits: Whole(path)),
    "bundle": ("m.bin", hashed_bundle, as_file, open_model),
    "bundle's manifest": ("m.bin", hashed_bundle, as_manifest, open_model),
}


def attempt(case: Case, path: Path, limits: Limits) -> tuple[str, float]:
    """How opening a file and scoring rows with it ends, and the seconds it took."""
    start = time.monotonic()
    try:
        case[3](path, limits).scorer(limits).score(ROWS)
        end = "loaded"
    except ModelError as error:
        text = str(error)
        end = "crash" if "crashed" in text else "hang" if "was stopped" in text else "refused"
    except BaseException as error:
        end = f"FAILED: {type(error).__name__}: {error}"
    return end, time.monotonic() - start


def library(name: str) -> list[str]:
    """The library that children import, as the manifest names its format."""
    own = {
        "LightGBM": "lightgbm/1",
        "XGBoost": "xgboost/1",
        "CatBoost": "catboost/1",
        "ONNX": "onnx/1",
        "Vowpal": "vw/1",
    }
    first = name.split()[0]
    return ["sklearn.skops/1"] if name.startswith("skops") else [own[first]] if first in own else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300, help="mutated files of each format")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="limit of one trial")
    parser.add_argument("--cold", action="store_true", help="start every child anew, as bidsim does")
    parser.add_argument("--format", choices=list(CASES), action="append")
    args = parser.parse_args()
    limits, bad = Limits(seconds=args.seconds, batch_seconds=args.seconds), 0
    print(
        "| format | files | message | of these: crash in the child | hang in the child | scored | touched | slowest |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for name in args.format or CASES:
        case = CASES[name]
        file, train, damaged, _ = case
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / file
            train(whole)
            paths = []
            for seed in range(args.files):
                path = Path(folder) / f"{seed}-{file}"
                path.write_bytes(damaged(whole, seed))
                paths.append(path)
            before = sorted(p.name for p in Path(folder).rglob("*"))
            with nullcontext([]) if args.cold else warm_children(library(name)) as touched:
                with ThreadPoolExecutor(args.jobs) as pool:
                    ends = list(pool.map(lambda path, case=case: attempt(case, path, limits), paths))
                left = left_behind(cold=args.cold)
            if sorted(p.name for p in Path(folder).rglob("*")) != before:
                print(f"{name}: a file appeared", file=sys.stderr)
                bad += 1
        if left:
            print(f"{name}: processes {', '.join(left)} are left behind", file=sys.stderr)
            bad += 1
        counts = collections.Counter(end for end, _ in ends)
        failed = [end for end in counts if end.startswith("FAILED")]
        bad += len(failed)
        bad += len(touched)
        for end in [*failed, *touched]:
            print(f"{name}: {end}", file=sys.stderr)
        said = counts["refused"] + counts["crash"] + counts["hang"]
        print(
            f"| {name} | {len(ends)} | {said} | {counts['crash']} | {counts['hang']} | {counts['loaded']} | "
            f"{'not seen' if args.cold else len(touched)} | {max(seconds for _, seconds in ends):.1f} s |",
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
