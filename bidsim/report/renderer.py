"""A process beside this one that draws charts: the library that does needs half a second to start, and holds up every
thread of Python while it starts and draws.

It is asked in lines of JSON and answers with a length and so many bytes of SVG. It ends with this process, however that
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
from typing import IO, Any, Self

from bidsim.errors import BidsimError
from bidsim.interpreter import command_of

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


Draw = Callable[[Mapping[str, Any], str, Labels], Picture]


def draw_here(document: Mapping[str, Any], description: str, labels: Labels) -> Picture:
    """Draw a Vega-Lite document in this process, when it is looked at."""
    from bidsim.report.svg import render_svg

    return Picture(lambda: render_svg(document, description, labels))


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

    def draw(self, document: Mapping[str, Any], description: str, labels: Labels) -> Picture:
        """Have a Vega-Lite document drawn."""
        if self._process is None:
            return draw_here(document, description, labels)
        asked = json.dumps([document, description, labels]).encode() + b"\n"
        drawing = self._pool.submit(self._ask, asked)
        return Picture(lambda: self._drawn(drawing, document, description, labels))

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

    def _drawn(self, drawing: Future[str], document: Mapping[str, Any], description: str, labels: Labels) -> str:
        try:
            return drawing.result(PATIENCE_SECONDS)
        except (OSError, ValueError, EOFError, TimeoutError):
            assert self._process is not None
            self._process.kill()  # so that what else it was asked fails at once
            return draw_here(document, description, labels).__html__()


def main() -> None:
    """The process's side. What libraries print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from bidsim.report.svg import render_svg

    with contextlib.suppress(BidsimError):  # said where a chart is wanted
        render_svg({"data": {"values": []}, "mark": "point"}, "")
    _answer(sys.stdin.buffer, answers)


def _answer(asked: IO[bytes], answers: IO[bytes]) -> None:
    from bidsim.report.svg import render_svg

    for line in asked:
        document, description, labels = json.loads(line)
        text = render_svg(document, description, {k: (v[0], v[1]) for k, v in labels.items()}).encode()
        answers.write(b"%d\n" % len(text) + text)
        answers.flush()
