"""After a fault nothing is half-written, nothing lives on, and the same command run again gives the same bytes.

A few of each class, as processes; tests/benchmarks/faults.py tries them by the hundred.
"""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("processes, signals and limits of POSIX", allow_module_level=True)

import machine
from world import Command, World, moment, wait_for


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("faults") / "world").make()


def ends(world: World, command: Command, number: signal.Signals, *, writing: bool, seed: int) -> tuple[int, str, Path]:
    draw = random.Random(seed)
    world.reference(command)
    place = world.place()
    command.before(place)
    process = world.start(command, place)
    wait_for(process, moment(draw, world.seconds[command.name]), place, writing, draw)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err, place


@pytest.mark.parametrize("writing", [False, True])
def test_a_killed_replay_leaves_a_whole_run_or_none(world: World, writing: bool) -> None:
    command = world.commands()["replay"]
    status, _, place = ends(world, command, signal.SIGKILL, writing=writing, seed=7)
    assert status in (0, -signal.SIGKILL)
    assert world.problems(command, place) == []
    assert world.again(command, place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_says_one_line_and_leaves_nothing(world: World, number: signal.Signals) -> None:
    command = world.commands()["replay"]
    world.reference(command)
    place = world.place()
    process = world.start(command, place)
    while process.poll() is None and not any((place / "tmp").iterdir()):  # it is at work
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (128 + number, "bidsim: interrupted; nothing is half-written\n")
    assert world.problems(command, place) == []
    assert machine.left_of_ended(place) == []
    assert list((place / "out").iterdir()) == []


def test_a_disk_that_is_full_is_one_message(world: World) -> None:
    """Files may not grow beyond what a run needs: its work folder, and its own folder, can't be written."""
    command = world.commands()["replay"]
    for size in (1 << 10, 64 << 10):
        place = world.place()
        with machine.no_file_above(size).on(place) as options:
            done = world.run(command, place, **options)
        assert done.status == 2, done.err
        assert done.err.startswith("bidsim: error: ")
        assert done.err.count("\n") == 1
        assert world.problems(command, place) == []
        assert list((place / "out").iterdir()) == []
        assert machine.left_of_ended(place) == []


@pytest.mark.skipif(not machine.can_mount(), reason="needs to mount a file system")
def test_a_folder_that_can_not_be_written_is_one_message(world: World) -> None:
    command = world.commands()["replay"]
    place = world.place()
    with machine.read_only("out").on(place) as options:
        done = world.run(command, place, **options)
    assert done.status == 2
    assert "out/run: the output folder can't be" in done.err
    assert done.err.count("\n") == 1
