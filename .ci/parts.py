"""What bidsim is made of, told by the packages that are installed here: licences, or a bill of materials (CycloneDX 1.6).

    python .ci/parts.py licences                 # a table; EXTRA names after it: python .ci/parts.py licences lightgbm s3
    python .ci/parts.py sbom lightgbm > sbom.json

The same packages give the same bytes: no time, no random number. For known vulnerabilities, where their database can be
reached: `pip-audit --requirement .ci/requirements.txt --require-hashes` (package `pip-audit`).
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]
# Licences that ask of a program that its own source be given away when it is.
STRONG_COPYLEFT = re.compile(r"\b(A?GPL|SSPL|OSL|EUPL|GNU (Affero )?General Public)", re.IGNORECASE)
LESSER = re.compile(r"\bL(esser )?GPL|GNU (Lesser|Library)", re.IGNORECASE)
SPDX = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The MIT License (MIT)": "MIT",
    "new BSD": "BSD-3-Clause",
}


@dataclass(frozen=True)
class Part:
    """One installed package. needs: names of those that it asks for, among the parts."""

    name: str
    version: str
    licence: str
    summary: str
    needs: tuple[str, ...]


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def asked(extras: Iterable[str] = ()) -> list[Requirement]:
    """What pyproject.toml asks for, with the extras named."""
    data = project()
    optional: dict[str, list[str]] = data["optional-dependencies"]  # type: ignore[assignment]
    core: list[str] = data["dependencies"]  # type: ignore[assignment]
    wanted = [Requirement(text) for text in [*core, *(text for extra in extras for text in optional[extra])]]
    own = [r for r in wanted if r.name == "bidsim"]
    others = [r for r in wanted if r.name != "bidsim"]
    return others + [r for each in own for r in asked(sorted(each.extras)) if r.name not in {o.name for o in others}]


def parts(extras: Iterable[str] = ()) -> list[Part]:
    """Every package that bidsim needs here, by name, with all that those need. Raises PackageNotFoundError."""
    found: dict[str, Part] = {}
    waiting = [r for r in asked(extras) if _here(r, "")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = {"", *requirement.extras}
        if all((name, extra) in seen for extra in wanted):
            continue
        seen |= {(name, extra) for extra in wanted}
        package = distribution(requirement.name)
        below = [r for text in package.requires or [] for r in [Requirement(text)]]
        below = [r for r in below if any(_here(r, extra) for extra in wanted)]
        needs = sorted({canonicalize_name(r.name) for r in below} | set(found[name].needs if name in found else ()))
        summary = package.metadata["Summary"] or ""
        found[name] = Part(name, package.version, licence_of(package), summary, tuple(needs))
        waiting += below
    return [found[name] for name in sorted(found)]


def _here(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def licence_of(package: Distribution) -> str:
    """The SPDX expression where the package gives one, else its classifiers, else the first line of what it says."""
    about = package.metadata
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classified = [
        text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or [] if text.startswith("License :: OSI")
    ]
    if classified:
        return " OR ".join(SPDX.get(text, text) for text in classified)
    said = (about.get("License") or "unknown").strip().splitlines()[0][:60]
    return SPDX.get(said, said)


def is_strong_copyleft(licence: str) -> bool:
    """Whether every choice that a licence leaves is a strong copyleft."""
    choices = re.split(r"\bOR\b|/", licence)
    return all(bool(STRONG_COPYLEFT.search(LESSER.sub("", choice))) for choice in choices)


def licences(extras: Iterable[str]) -> str:
    rows = [f"| {p.name} | {p.version} | {p.licence} |" for p in parts(extras)]
    return "\n".join(["| package | version | licence |", "|---|---|---|", *rows]) + "\n"


def sbom(extras: Iterable[str]) -> str:
    """CycloneDX JSON: bidsim, its parts, and which needs which."""
    data, found = project(), parts(extras)
    here = {p.name for p in found}
    root = f"pkg:pypi/bidsim@{data['version']}"
    references = {p.name: f"pkg:pypi/{p.name}@{p.version}" for p in found}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "bidsim",
                "version": data["version"],
                "licenses": [{"license": {"id": data["license"]}}],
                "purl": root,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": references[p.name],
                "name": p.name,
                "version": p.version,
                "description": p.summary,
                "licenses": [{"license": {"name": p.licence}}],
                "purl": references[p.name],
            }
            for p in found
        ],
        "dependencies": [
            {
                "ref": root,
                "dependsOn": sorted(references[canonicalize_name(r.name)] for r in asked(extras) if _here(r, "")),
            },
            *({"ref": references[p.name], "dependsOn": [references[n] for n in p.needs if n in here]} for p in found),
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    kinds = {"licences": licences, "sbom": sbom}
    if len(sys.argv) < 2 or sys.argv[1] not in kinds:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        sys.stdout.write(kinds[sys.argv[1]](sys.argv[2:]))
    except PackageNotFoundError as error:
        print(f"{error}: install bidsim with these extras first", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
