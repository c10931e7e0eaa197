"""Names come from files that others wrote: none acts on the terminal or on the CI that shows it."""

from __future__ import annotations

import json

import pytest

from bidsim.__main__ import _run
from bidsim.errors import LogError
from bidsim.visible import visible, visible_json

ACTING = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202elog", "\u2066x\u2069"]
ACTING += ["\ufeff", "\u2028", "\x00", "\x7f", "\udcff", "\U000e0041"]


@pytest.mark.parametrize("name", ACTING)
def test_a_message_shows_what_would_act_as_its_code_point(name: str) -> None:
    said = str(LogError(f'the column "{name}" is not there', file=f"{name}.parquet"))
    assert said == visible(said)
    assert all(c.isprintable() for c in said)
    assert "\\u" in said


def test_a_message_is_no_flood() -> None:
    assert len(str(LogError("x" * 1_000_000, file="a.parquet"))) < 5_000


def test_what_people_write_stays_as_it_is() -> None:
    text = "s.yaml:3: 日本語 – é\u3000\u00a0👨\u200d👩\u200d👧 می\u200cخواهم\n\tsecond line"
    assert visible(text) == visible_json(text) == text


@pytest.mark.parametrize("text", ["x\n::error::y", "::add-mask::x", "x\n  ::stop-commands::t", "a ##[add-mask]x"])
def test_no_line_is_a_command_of_the_ci(text: str) -> None:
    shown = visible(text)
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())
    assert "##[" not in shown


@pytest.mark.parametrize("name", ACTING)
def test_json_on_the_terminal_says_the_same(name: str) -> None:
    text = json.dumps({name: [name, "日本語"]}, ensure_ascii=False, indent=1)
    shown = visible_json(text)
    assert json.loads(shown) == {name: [name, "日本語"]}
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_machine_without_threads_to_give_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("bidsim.cli.run", run)
    assert _run() == 2
    assert "gives no more threads; lower --threads" in capsys.readouterr().err
