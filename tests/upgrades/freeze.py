"""Files as this version of bidsim writes them, small, kept so that later versions are tried on them.

`python tests/upgrades/freeze.py` adds those of a schema whose number is new; what was frozen once is never written again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from command import SCENARIO, bidsim, log, write_log, write_model

from bidsim.models.manifest import SCHEMA as BUNDLE
from bidsim.models.manifest import Manifest
from bidsim.result import SCHEMA as RESULT
from bidsim.result import result_schema
from bidsim.store.ledger import SCHEMA as OUTCOME
from bidsim.store.record import SCHEMA as RUN
from bidsim.store.statistics import SCHEMA as STATISTICS
from bidsim.training.examples import SCHEMA as EXTRACTION
from bidsim.training.examples import ExtractionManifest

GOLDEN = Path(__file__).parent / "golden"
# By schema its file in the folder of a run or beside it.
FILES = {
    RESULT: "result.json",
    STATISTICS: "statistics.parquet",
    RUN: "run.json",
    BUNDLE: "m.bin",
    OUTCOME: "outcome.json",
    EXTRACTION: "manifest.json",
}
# Of those whose readers refuse keys that they don't know, which keys there are.
KEYS: dict[str, Callable[[], dict[str, Any]]] = {
    RESULT: result_schema,
    BUNDLE: Manifest.model_json_schema,
    EXTRACTION: ExtractionManifest.model_json_schema,
}
RULES = [{"metric": "calibration", "head": "ctr", "between": [0.5, 2.0]}]


def frozen(schema: str) -> Path:
    """golden/result-1/result.json"""
    return GOLDEN / schema.removeprefix("bidsim.").replace("/", "-") / FILES[schema]


def keys(schema: dict[str, Any]) -> dict[str, list[str]]:
    """The keys of each object of a JSON Schema, `!` where it must be there."""
    objects = {"": schema, **schema.get("$defs", {})}
    return {
        name: [f"{key}!" if key in found.get("required", ()) else key for key in sorted(found["properties"])]
        for name, found in sorted(objects.items())
        if "properties" in found
    }


def make(folder: Path) -> dict[str, Path]:
    """Files of all schemas, written by this version; by schema."""
    write_log(folder / "log.parquet", log().slice(0, 120))
    write_model(folder / "m.bin")
    window = {"last_hour": "2026-11-01T04:00:00", "duration_hour": 2}
    document = {**SCENARIO, "sample_type": "imp-click", "segments": [], "gate": RULES, "features": ["spot_id"]}
    (folder / "s.yaml").write_text(json.dumps(document))
    (folder / "e.yaml").write_text(json.dumps({**document, "logs_tables": {"ad": window}}))
    (folder / "ab.csv").write_text("metric,policy,change\nspend,v2,-8%\n")
    table = ["--table", f"ad={folder}/log.parquet"]
    for words in (
        ["replay", "--scenario", folder / "s.yaml", *table, "--out", folder / "run", "--as-of", "2026-12-01", "-q"],
        ["outcome", folder / "run", "--file", folder / "ab.csv"],
        ["extract", "--scenario", folder / "e.yaml", *table, "--train-hours", "2", "--out", folder / "data", "-q"],
    ):
        said = bidsim(*words)
        assert said.status == 0, said.err
    (outcome,) = folder.glob("run.outcome-*.json")
    run, data = folder / "run", folder / "data"
    return {
        RESULT: run / "result.json",
        STATISTICS: run / "statistics.parquet",
        RUN: run / "run.json",
        BUNDLE: folder / "m.bin",
        OUTCOME: outcome,
        EXTRACTION: data / "manifest.json",
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for schema, file in make(Path(folder)).items():
            target = frozen(schema)
            if target.exists():
                continue
            target.parent.mkdir(parents=True)
            shutil.copy(file, target)
            if schema == RUN:
                facts = json.loads(target.read_text()) | {"command": ["bidsim", "replay"], "machine": {}}
                target.write_text(json.dumps(facts, ensure_ascii=False) + "\n")
            if schema in KEYS:
                text = json.dumps(keys(KEYS[schema]()), indent=1, sort_keys=True)
                (target.parent / "keys.json").write_text(text + "\n")
            print("frozen:", target)


if __name__ == "__main__":
    main()
