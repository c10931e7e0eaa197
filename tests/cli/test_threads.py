"""--threads bounds how many batches a library's model scores at once, in every command that scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import bidsim, log, write_log, write_scenario

from bidsim.models import serving


@pytest.mark.skipif(not hasattr(serving, "_Server"), reason="elsewhere libraries score in bidsim's own process")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_library_scores_as_many_batches_at_once_as_threads_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    pytest.importorskip("lightgbm")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    turns: list[int] = []
    begin = serving._Server.__init__

    def begun(self: Any, bundle: Any, heads: Any, limits: Any, at_once: int) -> None:
        turns.append(at_once)
        begin(self, bundle, heads, limits, at_once)

    monkeypatch.setattr(serving._Server, "__init__", begun)
    window = {
        "path": str(write_log(tmp_path / "log.parquet", log())),
        "last_hour": "2026-11-02T23:00:00",
        "duration_hour": 24,
    }
    changes = {
        "features": ["age", "spot_id"],
        "segments": [],
        "sample_type": "imp-click",
        "logs_tables": {"ad": window},
    }
    scenario = write_scenario(tmp_path / "s.yaml", changes)
    (tmp_path / "h.json").write_text(json.dumps({"model": "lightgbm", "rounds": 2, "max_miscalibration": 5}))
    given = ("--scenario", scenario, "--threads", str(threads), "--quiet")
    trained = bidsim(
        "train", *given, "--hyperparameters", tmp_path / "h.json", "--train-hours", "24", "-o", tmp_path / "m.bin"
    )
    assert trained.status == 0, trained.err
    assert set(turns) == {threads}
    for command in (
        ("check", *given, "--model", tmp_path / "m.bin"),
        ("replay", *given, "--model", tmp_path / "m.bin", "--out", tmp_path / "run"),
        ("run", *given, "--hyperparameters", tmp_path / "h.json", "--train-hours", "24", "--work", tmp_path / "work"),
    ):
        turns.clear()
        said = bidsim(*command)
        assert said.status in (0, 1), said.err
        assert turns, command[0]
        assert set(turns) == {threads}, command[0]
