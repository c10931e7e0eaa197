"""Help, version, schemas and completion: what a user tries first, and what other programs read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import bidsim, process, write_log, write_model, write_scenario
from ruamel.yaml import YAML

from bidsim.result import Result

ROOT = Path(__file__).parents[2]
HEAVY = (
    "duckdb",
    "numpy",
    "pyarrow",
    "sklearn",
    "scipy",
    "pandas",
    "altair",
    "sqlglot",
    "vl_convert",
    "jinja2",
    "boto3",
    "deltalake",
    "pyiceberg",
)


MISTYPED = ["replay", "--scenario", "no.yaml", "--threads", "0"]


COMMANDS = ("replay", "check", "demo", "schema", "gate", "report", "plan", "leaderboard", "compare", "outcome")
HELP = [[name, "--help"] for name in COMMANDS]


@pytest.mark.parametrize("words", [["--help"], ["--version"], *HELP, MISTYPED])
def test_help_and_mistyped_options_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    """They would cost seconds (the house style gives them a quarter of one)."""
    code = (
        "import sys; from bidsim.__main__ import _run; sys.argv = ['bidsim', *sys.argv[1:]]; status = _run(); "
        f"print('imported', [m for m in {HEAVY!r} if m in sys.modules], status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"imported [] {2 if '0' in words else 0}"


def test_version_and_help_say_what_there_is() -> None:
    from importlib.metadata import version

    assert bidsim("--version").out == f"bidsim {version('bidsim')}\n"
    for command in COMMANDS:
        assert command in bidsim("--help").out
    assert bidsim().status == 2  # no command is a usage error, with the help as its explanation


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_complete(shell: str, tmp_path: Path) -> None:
    with process(cwd=tmp_path, env={"_BIDSIM_COMPLETE": f"source_{shell}"}) as script:
        out, _ = script.communicate(timeout=60)
    assert "_BIDSIM_COMPLETE" in out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)
    words = {"_BIDSIM_COMPLETE": f"complete_{shell}", "COMP_WORDS": "bidsim rep", "COMP_CWORD": "1",
             "_TYPER_COMPLETE_ARGS": "bidsim rep", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    with process(cwd=tmp_path, env=words) as completion:
        out, err = completion.communicate(timeout=60)
    assert "replay" in out, err


def schema(name: str) -> Any:
    said = bidsim("schema", name)
    assert (said.status, said.err) == (0, "")
    document = json.loads(said.out)
    jsonschema.Draft202012Validator.check_schema(document)
    return document


def test_an_unknown_schema_is_a_usage_error() -> None:
    said = bidsim("schema", "report")
    assert said.status == 2
    assert "'scenario', 'result'" in said.err


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_scenario_schema_accepts_the_scenarios_to_copy(path: Path) -> None:
    document = YAML(typ="safe").load(path)
    jsonschema.validate(document, schema("scenario"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "conditon": []}, schema("scenario"))


KINDS: dict[str, dict[str, Any]] = {
    "logged predictions": {"segments": ["campaign"]},
    "first price, ties lose, one head": {
        "auction": {"type": "first_price", "ties": "lose"},
        "performance_indicator_type": "cpc",
        "bid": {"formula": "100 * pctr", "round": "down", "min": 1, "max": 50},
        "sample_type": "imp-click",
    },
    "budget, gate by segment, weights": {
        "budget": {"amount": 0.5, "per": "hour", "overspend": "never"},
        "columns": {"time": "ts", "campaign": "ad_id", "price": "paying_price", "weight": "sample_weight"},
        "segments": ["campaign"],
        "gate": [
            {"metric": "cpa", "max_increase": "5%", "by": "campaign", "min_conversions": 2},
            {"metric": "nothing", "at_most": 1},
        ],
    },
    "a window in Tokyo": {
        "logs_tables": {"ad": {"last_hour": "2026-11-01T20:00:00", "duration_hour": 6, "path": "log.parquet"}},
        "timezone": "Asia/Tokyo",
    },
    "no row with a click": {"conditions": ["click = 0"], "bid": {"formula": "20"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_validates_against_its_published_schema(kind: str, tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet")
    write_model(tmp_path / "m.bin")
    write_scenario(tmp_path / "s.yaml", {"logs_tables": {"ad": {"path": "log.parquet"}}, "segments": [], **KINDS[kind]})
    said = bidsim("replay", "--scenario", "s.yaml", "--model", "m.bin", "--out", "run", "--json", "-q", cwd=tmp_path)
    assert said.status in (0, 1), said.err
    document = json.loads(said.out, parse_constant=pytest.fail)
    validator = jsonschema.Draft202012Validator(schema("result"))
    assert list(validator.iter_errors(document)) == []
    assert Result.model_validate(document).to_json() == said.out
    broken = {**document, "differences": [], "calibration": [], "metrics": [{**document["metrics"][0], "valeu": 1}]}
    assert list(validator.iter_errors(broken)) != []
