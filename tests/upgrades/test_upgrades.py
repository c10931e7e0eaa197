"""Files of an earlier bidsim open, or say what to do; those of a newer one say that bidsim is to be upgraded.

Frozen files of every schema number lie in golden/: a change of what is written, or of what is read, can't be forgotten.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import bidsim, log, write_log, write_scenario
from freeze import BUNDLE, EXTRACTION, FILES, GOLDEN, KEYS, OUTCOME, RESULT, RUN, STATISTICS, frozen, keys

from bidsim.models.archive import write_archive
from bidsim.versions import UPGRADE, other_version

FREEZE = "give it a new number, let the old one be read or say what to do, and run tests/upgrades/freeze.py"


def place(folder: Path, **changed: Path) -> Path:
    """The frozen run as a store has it. changed: by schema (`bidsim.` and number apart) a file in place of the frozen."""
    run = folder / "runs" / "run"
    run.mkdir(parents=True)
    for schema in (RESULT, STATISTICS, RUN):
        shutil.copy(frozen(schema), run / FILES[schema])
    shutil.copy(frozen(OUTCOME), folder / "runs" / "run.outcome-0123456789ab.json")
    return run


def test_every_schema_has_its_frozen_files() -> None:
    for schema in FILES:
        assert frozen(schema).is_file(), f"{schema} is new: run tests/upgrades/freeze.py"


@pytest.mark.parametrize("schema", KEYS)
def test_keys_change_with_the_number_only(schema: str) -> None:
    """A reader of the same number refuses keys that it does not know."""
    then = json.loads((frozen(schema).parent / "keys.json").read_text())
    assert keys(KEYS[schema]()) == then, f"what {schema} holds has changed: {FREEZE}"


def test_runs_frozen_by_earlier_versions_open(tmp_path: Path) -> None:
    """Judged again at another confidence, rendered, ranked, compared: whatever reads a saved run."""
    run = place(tmp_path)
    for words, says in (
        (["gate", run], "pass"),
        (["gate", run, "--confidence", "0.9"], "pass"),
        (["report", run, "--out", tmp_path / "r.html", "--confidence", "0.9"], "r.html"),
        (["leaderboard", run.parent, "--by", "spend"], "v2"),
        (["compare", run, run], ""),
        (["plan", run], ""),
        (["outcome", run, "--file", tmp_path / "ab.csv"], "recorded"),
    ):
        (tmp_path / "ab.csv").write_text("metric,policy,change\nspend,v2,-7%\n")
        said = bidsim(*words)
        assert said.status == 0, f"{words}: {said.err}; {FREEZE}"
        assert says in said.out + said.err
    board = json.loads(bidsim("leaderboard", run.parent, "--by", "spend", "--json").out)
    assert board["boards"][0]["entries"][0]["online"]["change"] == -0.07
    assert board["passed_over"] == ""


def test_numbers_of_frozen_statistics_are_those_of_the_frozen_result(tmp_path: Path) -> None:
    from bidsim.gate.index import place_of
    from bidsim.store.reading import load_run, with_confidence

    saved = load_run(place(tmp_path))
    again = with_confidence(saved, saved.result.scenario.get("intervals", {}).get("confidence", 0.95))
    # A later version may know better how sure a number is, give more numbers, and ranges of more; never another number.
    metrics = {place_of(m): m for m in again.result.metrics}
    differences = {place_of(d): d for d in again.result.differences}
    for before in saved.result.metrics:
        after = metrics[place_of(before)]
        known = after.identified if before.identified is None else before.identified
        assert after == before.model_copy(update={"low": after.low, "high": after.high, "identified": known})
    for one in saved.result.differences:
        other = differences[place_of(one)]
        bounds = {
            name: getattr(one, name).model_copy(
                update={"low": getattr(other, name).low, "high": getattr(other, name).high}
            )
            for name in ("absolute", "relative")
        }
        known = other.identified if one.identified is None else one.identified
        assert other == one.model_copy(update={**bounds, "identified": known})


def test_frozen_bundles_load_and_score(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", log().slice(0, 120))
    write_scenario(tmp_path / "s.yaml")
    for bundle in sorted(GOLDEN.glob("bundle-*/m.bin")):
        assert bidsim("model", "verify", bundle).status == 0, FREEZE
        words = ["--scenario", tmp_path / "s.yaml", "--table", f"ad={tmp_path}/log.parquet", "--model", bundle]
        said = bidsim("replay", *words, "--out", tmp_path / bundle.parent.name, "-q")
        assert said.status == 0, said.err


def as_json(file: Path, schema: str) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": schema, "of tomorrow": 1}))


def as_parquet(file: Path, schema: str) -> None:
    table = pq.read_table(file)
    given = {**json.loads(table.schema.metadata[b"bidsim"]), "schema": schema}
    pq.write_table(table.replace_schema_metadata({"bidsim": json.dumps(given)}), file)


def as_bundle(file: Path, schema: str) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = {**json.loads(members["manifest.json"]), "schema": schema, "of tomorrow": 1}
    write_archive(file, {**members, "manifest.json": json.dumps(manifest).encode()})


NEWER: dict[str, tuple[str, Callable[[Path, str], None], list[list[str]]]] = {
    RESULT: ("runs/run/result.json", as_json, [["gate", "runs/run"], ["report", "runs/run", "--out", "r.html"],
                                               ["compare", "runs/run", "runs/run"], ["plan", "runs/run"]]),
    STATISTICS: ("runs/run/statistics.parquet", as_parquet, [["gate", "runs/run", "--confidence", "0.9"],
                                                             ["report", "runs/run", "--out", "r.html", "--confidence", "0.9"]]),
    RUN: ("runs/run/run.json", as_json, [["outcome", "runs/run", "--file", "ab.csv"]]),
    BUNDLE: ("m.bin", as_bundle, [["model", "inspect", "m.bin"], ["model", "verify", "m.bin"],
                                  ["replay", "--scenario", "s.yaml", "--table", "ad=log.parquet", "--model", "m.bin", "-q"]]),
    EXTRACTION: ("data/manifest.json", as_json, [["train", "--scenario", "s.yaml", "--data", "data", "-o", "t.bin"]]),
}  # fmt: skip


@pytest.mark.parametrize("schema", NEWER)
def test_files_of_a_newer_bidsim_say_to_upgrade(schema: str, tmp_path: Path) -> None:
    run = place(tmp_path)
    write_log(tmp_path / "log.parquet", log().slice(0, 120))
    write_scenario(tmp_path / "s.yaml", {"features": ["spot_id"]})
    shutil.copy(frozen(BUNDLE), tmp_path / "m.bin")
    (tmp_path / "data").mkdir()
    shutil.copy(frozen(EXTRACTION), tmp_path / "data" / "manifest.json")
    (tmp_path / "ab.csv").write_text("metric,policy,change\nspend,v2,-7%\n")
    name, change, commands = NEWER[schema]
    kind, _, number = schema.rpartition("/")
    change(tmp_path / name, f"{kind}/{int(number) + 1}")
    before = sorted(p for p in tmp_path.rglob("*"))
    for words in commands:
        said = bidsim(*words, cwd=tmp_path)
        assert said.status == 2, (words, said)
        assert f"was {UPGRADE} (its schema is" in said.err, (words, said.err)
        assert Path(name).name in said.err
        assert said.err.count("\n") == 1
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert run.is_dir()


def test_a_store_with_runs_of_a_newer_bidsim_is_read_and_says_so(tmp_path: Path) -> None:
    run = place(tmp_path)
    shutil.copytree(run, run.with_name("newer"))
    as_json(run.with_name("newer") / "run.json", "bidsim.run/2")
    as_json(run.parent / "run.outcome-0123456789ab.json", "bidsim.outcome/2")
    said = bidsim("leaderboard", run.parent, "--by", "spend")
    assert said.status == 0
    assert f"1 folder passed over: 1 {UPGRADE}" in " ".join(said.out.split())
    assert f"1 recorded outcome passed over: was {UPGRADE}" in " ".join(said.out.split())
    assert "v2" in said.out


def test_what_to_do_follows_from_the_number() -> None:
    assert other_version("bidsim.result/3", "bidsim.result/2", "replay again") == (
        f'was {UPGRADE} (its schema is "bidsim.result/3", this version knows bidsim.result/2)'
    )
    assert other_version("bidsim.result/1", "bidsim.result/2", "replay again") == (
        'was made by an older bidsim, whose schema "bidsim.result/1" this version no longer reads; replay again'
    )
    for foreign in (
        "bidsim.run/1",
        "bidsim.result/x",
        "bidsim.result/01",
        7,
        None,
        ["bidsim.result/3"],
        "bidsim.result/2",
    ):
        assert other_version(foreign, "bidsim.result/2", "replay again") is None
