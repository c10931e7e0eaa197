"""SIGTERM in training ends it cleanly with a saved model; run again, it goes on from its checkpoint to the same bytes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import bidsim, process
from small_market import hyperparameters, write_market

from bidsim.models import open_bundle
from bidsim.stopping import StopRequest, listening

LONG = {"train_hours": 96, "bits": 10, "rounds": 400, "patience": 400, "batch_rows": 8, "max_miscalibration": 3.0}


def stopped(victim: subprocess.Popen[str], when: Callable[[], bool]) -> tuple[int, str]:
    """Send SIGTERM once `when`; the exit status and what was said on stderr."""
    deadline = time.monotonic() + 60
    while victim.poll() is None and time.monotonic() < deadline:
        if when():
            victim.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    _, err = victim.communicate(timeout=60)
    return victim.returncode, err


def test_train_writes_what_it_has_learned(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, sample_type="imp-click")
    h = hyperparameters(tmp_path, **LONG)
    out = tmp_path / "m.bin"
    options = ("train", "--scenario", scenario, "--hyperparameters", h, "-o", out, "--checkpoint", tmp_path / "c", "-q")
    status, err = stopped(process(*options, cwd=tmp_path), (tmp_path / "c" / "checkpoint-ctr.npz").exists)
    assert status == 143, err
    assert "asked to stop; saving what has been learned" in err
    manifest = open_bundle(out).manifest
    assert manifest.learning_curve["ctr"].stopped
    assert "stopped before it was done" in str(manifest.note)


def test_run_saves_its_model_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, sample_type="imp-click")
    h = hyperparameters(tmp_path, **{**LONG, "rounds": 20, "patience": 20, "batch_rows": 16})
    options = ("run", "--scenario", scenario, "--hyperparameters", h, "--as-of", "2026-12-01", "--work")
    work = tmp_path / "work"
    status, err = stopped(
        process(*options, work, cwd=tmp_path), lambda: any(work.glob("checkpoints/*/checkpoint-ctr.npz"))
    )
    assert status == 143, err
    (model,) = work.glob("checkpoints/*/stopped.bin")
    assert f"the model so far is {model}" in err
    assert open_bundle(model).manifest.learning_curve["ctr"].stopped
    assert not list(work.glob("steps/train-*"))
    again = bidsim(*options, work)
    assert again.status == 0, again.err
    assert "extract: kept" in again.err
    assert not model.exists()
    assert bidsim(*options, tmp_path / "whole", "-q").status == 0
    (ours,), (theirs,) = ([*(tmp_path / f / "steps").glob("train-*/trained.bin")] for f in ("whole", "work"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert not open_bundle(theirs).manifest.learning_curve["ctr"].stopped


def test_outside_of_training_and_the_second_time_it_interrupts() -> None:
    request = StopRequest()
    assert not request.hear()
    assert request()
    request = StopRequest()
    with request.gently():
        assert request.hear()
        assert request()
        assert not request.hear()


def test_before_and_after_the_handler_is_the_one_that_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening() as stop:
        assert signal.getsignal(signal.SIGTERM) is not before
        with stop.gently():
            signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
