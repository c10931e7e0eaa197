"""What is installed is what was looked at: locks with hashes that fit pyproject.toml, licences, a bill of materials, a wheel
that is the same wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]
LOCKS = [TOP / ".ci" / name for name in ("requirements.txt", "image.txt", "image-build.txt")]


def load_parts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parts", TOP / ".ci" / "parts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parts"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


parts = load_parts()


def pinned(lock: Path) -> dict[str, list[Requirement]]:
    """The requirements of a lock by name; one name has several where they depend on the Python version."""
    found: dict[str, list[Requirement]] = {}
    text = lock.read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.partition(" --hash")[0].strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_by_hash_and_names_no_place(lock: Path) -> None:
    for requirements in pinned(lock).values():
        for r in requirements:
            assert re.fullmatch(r"==[^*]+", str(r.specifier)), r
            assert r.url is None
    assert "://" not in lock.read_text("utf-8")
    assert "--index" not in lock.read_text("utf-8")


def test_the_locks_fit_what_pyproject_asks_for_and_each_other() -> None:
    whole, image, build = (pinned(lock) for lock in LOCKS)
    for name, asked in (("requirements.txt", parts.asked(["dev"])), ("image.txt", parts.asked(["lightgbm"]))):
        lock = whole if name == "requirements.txt" else image
        for requirement in asked:
            versions = lock.get(canonicalize_name(requirement.name), [])
            assert versions, f"{requirement} is not in {name}; make the lock again, as its head says"
            for v in versions:
                assert requirement.specifier.contains(str(v.specifier).removeprefix("==")), f"{v} is not {requirement}"
    for lock in (image, build):
        for package, (one,) in lock.items():
            assert one.specifier in [r.specifier for r in whole[package]], f"{one} is another than in requirements.txt"
    assert {"hatchling", "setuptools", "wheel"} <= set(whole)


def test_ci_and_the_image_install_from_the_locks() -> None:
    run, docker = (TOP / ".ci" / "run").read_text("utf-8"), (TOP / "Dockerfile").read_text("utf-8")
    assert "--require-hashes --requirement .ci/requirements.txt" in run
    assert "# python: 3.11" in LOCKS[0].read_text("utf-8")
    assert "--require-hashes --requirement .ci/image.txt" in docker
    assert "--require-hashes --requirement .ci/image-build.txt" in docker


def test_no_dependency_has_a_strong_copyleft_licence() -> None:
    found = parts.parts()
    assert {"duckdb", "numpy", "pyarrow"} <= {p.name for p in found}
    assert not [(p.name, p.licence) for p in found if parts.is_strong_copyleft(p.licence) or p.licence == "unknown"]


@pytest.mark.parametrize(
    ("licence", "strong"),
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("LGPL-2.1-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MPL-2.0 OR GPL-2.0-only", False),
        ("MIT AND GPL-2.0-only", True),
        ("SSPL-1.0", True),
    ],
)
def test_strong_copyleft_is_told(licence: str, strong: bool) -> None:
    assert parts.is_strong_copyleft(licence) is strong


def test_the_bill_of_materials_is_whole_and_the_same_each_time() -> None:
    text = parts.sbom(["lightgbm"])
    assert parts.sbom(["lightgbm"]) == text
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    known = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {d["ref"] for d in bill["dependencies"]} == known
    assert {ref for d in bill["dependencies"] for ref in d["dependsOn"]} <= known
    assert any(c["name"] == "lightgbm" for c in bill["components"])
    with pytest.raises((PackageNotFoundError, KeyError)):
        parts.sbom(["no-such-extra"])


def test_the_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    digests = set()
    for place in ("one", "another/and deeper"):
        source = tmp_path / place
        source.mkdir(parents=True)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(TOP / name, source / name)  # with another date
        shutil.copytree(TOP / "bidsim", source / "bidsim", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(source / "out")]
        done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (wheel,) = (source / "out").glob("*.whl")
        digests.add((wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()))
    assert len(digests) == 1
