"""Damaged model files: how each ends when bidsim opens it as `--model` does. Prints a table; status 1 for any failure.

    python tests/benchmarks/fuzz_models.py --files 300 --jobs 2

A file may end in a message, or be loaded (some damage leaves a valid file). What must not happen: another exception,
the death of this process, more time than the limit allows, or a file that appears beside the models.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bidsim.errors import ModelError  # noqa: E402
from bidsim.models.sandbox import Limits  # noqa: E402
from tests.models.library_models import FORMATS, damage, opened  # noqa: E402


def attempt(name: str, path: Path, limits: Limits) -> tuple[str, float]:
    """How opening a file ends, and the seconds it took."""
    start = time.monotonic()
    try:
        opened(name, path, limits).scorer(limits)
        end = "loaded"
    except ModelError as error:
        text = str(error)
        end = "crash" if "crashed" in text else "hang" if "was stopped" in text else "refused"
    except BaseException as error:
        end = f"FAILED: {type(error).__name__}: {error}"
    return end, time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300, help="mutated files of each format")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="limit of one trial")
    parser.add_argument("--format", choices=list(FORMATS), action="append")
    args = parser.parse_args()
    limits, bad = Limits(seconds=args.seconds), 0
    print("| format | files | message | of these: crash in the child | hang in the child | loaded | slowest |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in args.format or FORMATS:
        file, train = FORMATS[name]
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / file
            train(whole)
            paths = []
            for seed in range(args.files):
                path = Path(folder) / f"{seed}-{file}"
                path.write_bytes(damage(whole.read_bytes(), seed))
                paths.append(path)
            before = sorted(p.name for p in Path(folder).rglob("*"))
            with ThreadPoolExecutor(args.jobs) as pool:
                ends = list(pool.map(lambda path, name=name: attempt(name, path, limits), paths))
            if sorted(p.name for p in Path(folder).rglob("*")) != before:
                print(f"{name}: a file appeared", file=sys.stderr)
                bad += 1
        counts = collections.Counter(end for end, _ in ends)
        failed = [end for end in counts if end.startswith("FAILED")]
        bad += len(failed)
        for end in failed:
            print(f"{name}: {end}", file=sys.stderr)
        said = counts["refused"] + counts["crash"] + counts["hang"]
        print(
            f"| {name} | {len(ends)} | {said} | {counts['crash']} | {counts['hang']} | {counts['loaded']} | "
            f"{max(seconds for _, seconds in ends):.1f} s |",
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
