"""What the Dockerfile promises, as far as its text can tell: there is no Docker where these tests run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from command import bidsim

TOP = Path(__file__).parents[2]
TEXT = (TOP / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LINES = [line.split(None, 1) for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]


def stages() -> dict[str, list[list[str]]]:
    """The instructions of each stage, without its FROM, by name."""
    found: dict[str, list[list[str]]] = {}
    for word, rest in LINES:
        if word == "FROM":
            found[rest.rpartition(" AS ")[2]] = []
        else:
            list(found.values())[-1].append([word, rest])
    return found


def test_the_base_image_is_pinned_and_small() -> None:
    bases = {rest.partition(" AS ")[0] for word, rest in LINES if word == "FROM"} - set(stages())
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)


def test_entry_points_are_in_exec_form_and_are_commands_of_bidsim() -> None:
    made = stages()
    assert list(made)[-1] == "train"
    entry = {name: [json.loads(rest) for word, rest in made[name] if word == "ENTRYPOINT"] for name in made}
    assert entry["train"] == [["bidsim", "sagemaker"]]
    assert entry["tool"] == [["bidsim"]]
    assert not re.search(r"\b(tini|dumb-init)\b|--init", TEXT)
    for words in (*entry["train"], *entry["tool"]):
        said = bidsim(*words[1:], *(["train"] if words[1:] else []), "--help")
        assert said.status == 0
    assert "/opt/ml" in bidsim("sagemaker", "train", "--help").out


def test_the_tool_is_not_root_and_the_training_image_says_why_it_is() -> None:
    made = stages()
    users = {name: [rest for word, rest in made[name] if word == "USER"] for name in made}
    assert users["tool"] == ["bidsim"]
    assert users["train"] == ["root"]
    assert re.search(r"# Root, because SageMaker .*\n(#.*\n)*USER root", TEXT)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    rules = [r for r in (TOP / ".dockerignore").read_text().splitlines() if r and not r.startswith("#")]
    assert rules[0] == "*"
    copied = [
        name for word, rest in LINES if word == "COPY" and not rest.startswith("--from") for name in rest.split()[:-1]
    ]
    assert copied
    for name in copied:
        assert (TOP / name).exists()
        assert f"!{name}" in rules
    for name in (".git", "tests", "scenarios", "runs", "credentials"):
        assert not any(r.startswith("!") and fnmatch(name, r[1:]) for r in rules)


def test_what_is_copied_is_what_the_package_is_built_from() -> None:
    """pyproject.toml names no file that the build stage lacks."""
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))
    named = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    named |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {
        name.rstrip("/")
        for word, rest in LINES
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert named <= copied
    extras = re.findall(r"ARG EXTRAS=(\S+)", TEXT)
    assert set(extras[0].split(",")) <= set(project["project"]["optional-dependencies"])


@pytest.mark.parametrize("module", ["boto3", "duckdb", "lightgbm", "sklearn"])
def test_help_waits_for_no_heavy_import(module: str) -> None:
    code = f"import sys\nfrom bidsim.cli import run\nrun(['sagemaker', '--help'])\nassert {module!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=TOP)
