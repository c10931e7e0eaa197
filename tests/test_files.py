"""Files that appear whole or not at all take the place of files only."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from bidsim.errors import BidsimError
from bidsim.files import check_place, write_file


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and /proc are Unix's")
def test_a_device_a_pipe_or_a_standard_stream_is_never_replaced(tmp_path: Path) -> None:
    # As root it could be: /dev/null would be a file from then on.
    pipe, stream = tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)
    stream.symlink_to("/proc/self/fd/1")
    for path in (pipe, stream):
        for refuse in (lambda p: check_place(p, begins=b""), lambda p: write_file(p, "x")):
            with pytest.raises(BidsimError, match="can't be written: it is no regular file"):
                refuse(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stream.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipe", "stdout"]


def test_a_file_and_a_link_to_one_are_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "b"
    file.write_text("old")
    link.symlink_to(file)
    for path in (file, link):
        check_place(path, begins=b"")
        write_file(path, "new")
        assert path.read_text() == "new"
