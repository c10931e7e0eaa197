"""Small faults put into the gate, the statistics and the kernels' reference, one at a time: do the tests notice? Prints a table.

    nice -n 10 python tests/benchmarks/mutants.py --count 220 --seed 9
    python tests/benchmarks/mutants.py --only bidsim/gate/ --count 100         # of these files
    python tests/benchmarks/mutants.py --again survivors.json                  # those that survived, after better tests

A mutant is one changed operator, comparison, constant, condition or call (min and max) of the syntax tree; texts, types and
messages of errors are left alone. The module's own tests run first; what survives them meets simulations and whole
replays against the naive one. Each runs in a fork of this process, in a copy of the code. Survivors are kept in --keep.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import copy
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STATISTICS = (
    *("auc", "intervals", "spread", "binned", "measured", "calibration", "split", "frontier"),
    *("tallies", "multiway", "units", "metrics", "resampling", "identified", "matched_range", "rare"),
)
FILES = [
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "bidsim/gate").glob("*.py") if p.name != "__init__.py"),
    *(f"bidsim/statistics/{name}.py" for name in STATISTICS),
    "bidsim/kernels/reference.py",
]
# By the folder of the mutant: the tests that meet it first, then those that meet what survived. Simulations come last.
TESTS = {
    "bidsim/gate": (["tests/gate"], ["tests/cli/test_gate.py", "tests/store/test_statistics.py"]),
    "bidsim/statistics": (
        [f"tests/statistics/test_{name}.py" for name in ("intervals", "multiway", "winning", "binned", "frontier")],
        [
            *(f"tests/statistics/test_{name}.py" for name in ("references", "resampling", "rare")),
            *(f"tests/replay/test_{name}.py" for name in ("unknown_fates", "matched_fates")),
            *(f"tests/replay/test_{name}.py" for name in ("split", "oracle", "levels", "invariants")),
            "tests/statistics/test_experiment.py",
        ],
    ),
    "bidsim/kernels": (["tests/kernels"], []),
}
HEAVY = [
    *("numpy", "scipy.stats", "scipy.special", "pyarrow.parquet", "duckdb", "sqlglot", "pydantic", "ruamel.yaml"),
    *("hypothesis", "sklearn.metrics", "pytest"),
]

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLS = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "zeros": "ones",
    "cumsum": "asarray",
    "abs": "float",
}


def mutations(node: ast.AST) -> list[ast.AST]:
    """What a node can be changed to."""
    out: list[ast.AST] = []

    def changed(**values: Any) -> None:
        other = copy.copy(node)
        for key, value in values.items():
            setattr(other, key, value)
        out.append(other)

    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in COMPARE:
                changed(ops=[*node.ops[:i], COMPARE[type(operator)](), *node.ops[i + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in BINARY:
        changed(op=BINARY[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        changed(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        out.append(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        changed(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        changed(value=node.value + 1)
        if node.value not in (0, 1):
            changed(value=node.value * 0.5 if isinstance(node.value, float) else node.value - 1)
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        changed(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in CALLS:
            func = copy.copy(node.func)
            setattr(func, "id" if isinstance(func, ast.Name) else "attr", CALLS[name])
            changed(func=func)
    elif isinstance(node, ast.Continue):
        out.append(ast.Break())
    return out


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """(parent, field, index, node) of every node that computes something."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params") or (isinstance(tree, ast.Raise)):
            continue
        if isinstance(tree, ast.Call) and getattr(tree.func, "id", getattr(tree.func, "attr", "")) in (
            "TypeVar",
            "Field",
            "ValueError",
            "zip",
            "field",
        ):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield tree, field, index, child
                yield from places(child)


def all_mutants(file: str) -> list[tuple[str, str]]:
    """(what changes, the whole new text) of every mutant of a file."""
    tree = ast.parse((ROOT / file).read_text())
    found = []
    for parent, field, index, node in list(places(tree)):
        for other in mutations(node):
            ast.fix_missing_locations(ast.copy_location(other, node))
            before = getattr(parent, field)
            setattr(parent, field, other if index is None else [*before[:index], other, *before[index + 1 :]])
            line = getattr(node, "lineno", 0)
            with contextlib.suppress(Exception):
                found.append(
                    (f"{file}:{line}: {ast.unparse(node)[:100]}  ->  {ast.unparse(other)[:100]}", ast.unparse(tree))
                )
            setattr(parent, field, before)
    return found


def run_tests(work: Path, tests: list[str], seconds: float) -> str:
    """killed, survived or hung, of the tests in a fork."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.chdir(work)
        sys.path[:] = [str(work), *(p for p in sys.path if not p.startswith(str(ROOT)))]
        import pytest

        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        os._exit(int(status))
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--only", action="append", help="files, by how they begin")
    parser.add_argument("--again", type=Path, help="what survived before")
    parser.add_argument("--keep", type=Path, default=Path("survivors.json"))
    parser.add_argument("--trust", action="store_true", help="that the tests pass without a mutant")
    parser.add_argument("--minutes", type=float, default=1e6, help="then it stops, after however many")
    parser.add_argument("--seconds", type=float, default=120, help="limit of the tests of one mutant")
    args = parser.parse_args()
    files = [f for f in FILES if not args.only or any(f.startswith(part) for part in args.only)]
    everything = [(file, what, text) for file in files for what, text in all_mutants(file)]
    if args.again:
        wanted = set(json.loads(args.again.read_text()))
        chosen = [m for m in everything if m[1] in wanted]
        missing = wanted - {m[1] for m in chosen}
        print(f"{len(missing)} are no longer there")
    else:
        chosen = random.Random(args.seed).sample(everything, min(args.count, len(everything)))
    print(f"{len(chosen)} of {len(everything)} mutants", flush=True)
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="bidsim-mutants-") as folder:
        work = Path(folder)
        for name in ("bidsim", "tests", "scenarios", "README.md", "pyproject.toml", "CHANGELOG.md"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
        for first, then in TESTS.values() if not args.trust else ():
            assert run_tests(work, [*first, *then], 3600) == "survived", f"{first} {then} fail without a mutant"
        began = time.monotonic()
        rows: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        survivors = []
        for number, (file, what, text) in enumerate(chosen, 1):
            if time.monotonic() - began > 60 * args.minutes:
                break
            first, then = TESTS[os.path.dirname(file)]
            (work / file).write_text(text)
            end = run_tests(work, first, args.seconds)
            if end == "survived" and then:
                end = run_tests(work, then, args.seconds)
                end = "killed by a replay" if end == "killed" else end
            (work / file).write_text((ROOT / file).read_text())
            rows[file][end] += 1
            if end == "survived":
                survivors.append(what)
                args.keep.write_text(json.dumps(survivors, indent=1))
            print(f"{number}/{len(chosen)} {end}: {what}", flush=True)
    print(
        "\n| module | mutants | killed by its own tests | by simulations and replays | hung | survived |\n|---|--:|--:|--:|--:|--:|"
    )
    for file, ends in sorted(rows.items()):
        counts = " | ".join(str(ends[end]) for end in ("killed", "killed by a replay", "hung", "survived"))
        print(f"| `{file.removeprefix('bidsim/')}` | {ends.total()} | {counts} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
