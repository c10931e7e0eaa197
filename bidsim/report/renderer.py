"""A process beside this one that draws charts: the libraries that do need most of a second to start, and hold up every
thread of Python while they start and draw.

It is given plots in lines of JSON and answers with a length and so many bytes of SVG. It ends with this process, however that
ends, since its stdin ends then. Where it can't be started, or fails, charts are drawn here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

from bidsim.errors import BidsimError
from bidsim.interpreter import command_of
from bidsim.report.plots import Plot

# Token in a picture -> (label, full text as its tooltip).
Labels = Mapping[str, tuple[str, str]]
# A chart takes a few hundredths of a second.
PATIENCE_SECONDS = 60.0


class Picture:
    """Inline SVG that is perhaps still being drawn; markup to a template. Empty where it could not be drawn."""

    def __init__(self, drawn: Callable[[], str]) -> None:
        self._drawn = drawn
        self._text: str | None = None

    def __html__(self) -> str:
        if self._text is None:
            self._text = self._drawn()
        return self._text

    def __bool__(self) -> bool:
        return bool(self.__html__())


Draw = Callable[[Plot, str, Labels], Picture]


def draw_here(plot: Plot, description: str, labels: Labels) -> Picture:
    """Draw in this process, when it is looked at."""
    return Picture(lambda: _svg(plot, description, labels))


def _svg(plot: Plot, description: str, labels: Labels) -> str:
    from bidsim.report.charts import spec
    from bidsim.report.svg import render_svg

    return render_svg(spec(plot), description, labels)


class Renderer:
    """The process, for as long as the block lasts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="charts")

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command_of(__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pool.shutdown(cancel_futures=True)
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()

    def draw(self, plot: Plot, description: str, labels: Labels) -> Picture:
        """Have it drawn."""
        if self._process is None:
            return draw_here(plot, description, labels)
        asked = json.dumps([plot.kind, plot.arguments, description, labels]).encode() + b"\n"
        drawing = self._pool.submit(self._ask, asked)
        return Picture(lambda: self._drawn(drawing, plot, description, labels))

    def _ask(self, asked: bytes) -> str:
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(asked)
        stdin.flush()
        size = int(stdout.readline())
        text = stdout.read(size)
        if len(text) < size:
            raise EOFError("the process that draws has ended")
        return text.decode()

    def _drawn(self, drawing: Future[str], plot: Plot, description: str, labels: Labels) -> str:
        try:
            return drawing.result(PATIENCE_SECONDS)
        except (OSError, ValueError, EOFError, TimeoutError):
            assert self._process is not None
            self._process.kill()  # so that what else it was asked fails at once
            return _svg(plot, description, labels)


def main() -> None:
    """The process's side. What libraries print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from bidsim.report import charts  # noqa: F401  Altair is loaded before it is asked for
    from bidsim.report.svg import render_svg

    with contextlib.suppress(BidsimError):  # said where a chart is wanted
        render_svg({"data": {"values": []}, "mark": "point"}, "")
    _answer(sys.stdin.buffer, answers)


def _answer(asked: IO[bytes], answers: IO[bytes]) -> None:
    for line in asked:
        kind, arguments, description, labels = json.loads(line)
        text = _svg(Plot(kind, arguments), description, {k: (v[0], v[1]) for k, v in labels.items()}).encode()
        answers.write(b"%d\n" % len(text) + text)
        answers.flush()
