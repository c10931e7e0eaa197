"""The README does not lie: its scenarios load, its options exist, its links lead somewhere, copies are copies."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bidsim.scenario.loading import load_scenario, parse_scenario, refuse_unsupported
from bidsim.scenario.schema import ROLES, Scenario
from bidsim.training.hyperparameters import MODELS, Hyperparameters
from bidsim.training.space import load_space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_every_scenario_to_copy_loads_and_is_supported(path: Path) -> None:
    refuse_unsupported(load_scenario(path))
    assert f"({path.name})" in (ROOT / "scenarios" / "README.md").read_text(encoding="utf-8")


def test_the_demo_scenario_is_the_one_that_the_demo_writes() -> None:
    packaged = resources.files("bidsim.market").joinpath("demo.yaml").read_text("utf-8")
    assert (ROOT / "scenarios" / "demo.yaml").read_text(encoding="utf-8") == packaged


def test_the_scenario_and_the_space_of_the_readme_load_and_are_supported(tmp_path: Path) -> None:
    text, recipe, space = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert list(YAML(typ="safe", pure=True).load(recipe)["jobs"]) == ["replay"]
    refuse_unsupported(parse_scenario(text, file="README.md", directory=ROOT))
    (tmp_path / "space.yaml").write_text(space, encoding="utf-8")
    assert len(load_space(tmp_path / "space.yaml", Hyperparameters({})).axes) == 4


def test_every_key_and_role_is_in_the_reference() -> None:
    reference = README[README.index("## Scenario reference") : README.index("## What the numbers mean")]
    later = {"intervals", "outcomes"}
    missing = [k for k in Scenario.model_fields if k not in later and f"`{k}" not in reference]
    assert missing == []
    assert [r for r in ROLES if not re.search(rf"\b{r}\b", reference)] == []


@pytest.mark.parametrize("name", MODELS)
def test_every_hyperparameter_is_named_with_its_default(name: str) -> None:
    table = README[README.index("| `model` |") :]
    rows = re.findall(r"^\| (?:all|`(\w+)`[^|]*) \| ((?:those, and )?`.*) \|$", table, re.MULTILINE)[:4]
    assert [row[0] for row in rows] == ["", *MODELS]
    shared = ("", name, "hashed_logistic") if name == "factorization_machine" else ("", name)
    told = " ".join(text for model, text in rows if model in shared)
    for key, field in MODELS[name].model_fields.items():
        if key == "model":
            continue
        default = f" {field.default:g}" if isinstance(field.default, int | float) else ""
        if (name, key) == ("lightgbm", "rounds"):
            default = " 5 (`lightgbm` 20)"
        assert re.search(rf"`{key}`{re.escape(default)}", told), key


def test_every_option_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    from bidsim.cli import app, run

    for command in app.registered_commands:
        assert command.callback is not None
        assert run([command.name or command.callback.__name__, "--help"]) == 0
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            assert run([str(group.name), command.name or command.callback.__name__, "--help"]) == 0
    shown = capsys.readouterr().out
    ours = re.sub(r"^docker .*$", "", README[README.index("## Your own log") :], flags=re.MULTILINE)
    for option in set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", ours)):
        assert option in shown, option


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
