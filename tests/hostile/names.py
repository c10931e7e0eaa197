"""Names that want to be markup, code, commands of a CI or codes of a terminal, everywhere that a name can stand."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from command import bidsim

from hostile.logs import _table
from hostile.trial import REPLAY, Trial

NAMES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "</style><svg onload=alert(1)>", "<!--", "-->", "]]>", "<![CDATA[x]]>", "javascript:alert(1)", '" onmouseover="alert(1)', "' onfocus='alert(1)", "&lt;b&gt;", "&#x3c;b&#x3e;", "&amp;", "{{7*7}}", "{% raw %}",
    "${7*7}", "datum.x", "datum['x']", "[x](javascript:alert(1))", "![x](http://127.0.0.1:9/x.png)", "| a | b |", "`code`", "***", "# title", "- [ ] x", "@team", "#123", "\\", "\\u003cscript\\u003e", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://x\x07y\x1b]8;;\x07", "\x9b31m", "a\rb", "a\nb", "a\n::error::x",
    "::add-mask::x", "##[error]x", "[bold red]x[/]", "[link=http://x]y[/link]", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\u2028", "a\u0301" * 60, "x" * 1000, "日本語" * 100, "\ud7ff", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "=1+1", "%00", "../../x", "NaN", "null", "", " ", "\t", "\x00", "\u00ad", "ﷺ" * 20,
]  # fmt: skip
CLEAN = [n for n in NAMES if "\x00" not in n]


def names(draw: random.Random, folder: Path) -> Trial:
    """A run whose names are hostile, told as text, HTML, Markdown, XML and JSON, then read again by other commands."""
    table = _table()
    some = draw.sample(CLEAN, 6)
    table = table.set_column(4, "spot_id", pa.array([draw.choice(some) for _ in range(table.num_rows)]))
    pq.write_table(table, folder / "log-1.parquet")
    key = draw.choice([n for n in CLEAN if _printable(n)])
    candidate, segment, rule = (draw.choice([n for n in NAMES if _printable(n)]) for _ in range(3))
    document: dict[str, Any] = {
        "logs_tables": {"ad": {"path": "log-1.parquet"}},
        "columns": {"time": "ts", "unit": "user_id", "campaign": "spot_id", "price": "paying_price"},
        "candidates": {candidate or "v": {"columns": {"pctr": "pctr_v2"}}},
        "segments": ["campaign", {segment or "s": "spot_id"}],
        "campaigns": "campaigns.csv",
        "gate": [
            {
                "metric": "cpa",
                "name": rule,
                "at_most": 0.0001,
                "by": "campaign",
                "waive": {"until": "2026-12-31", "reason": key or "r", "owner": draw.choice(CLEAN) or "o"},
            },
            {
                "metric": "calibration",
                "head": "ctr",
                "name": draw.choice(CLEAN),
                "between": [0.999, 1.0],
                "by": segment or "s",
            },
        ],
        "fidelity": "warn",
    }
    if key and len(key) <= 200:
        document["name"] = key
    lines = ["campaign,name", *(f"{_csv(s)},{_csv(draw.choice(CLEAN))}" for s in dict.fromkeys(some))]
    (folder / "campaigns.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(document, ensure_ascii=True)
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    model = f"{draw.choice(CLEAN)[:60].replace('/', '_') or 'm'}.bin"
    more: tuple[str, ...] = ()
    if draw.random() < 0.5:
        (folder / "m.bin").rename(folder / model)
        more = ("--model", model) if not model.startswith("-") else ("--model", f"./{model}")
    words = (*REPLAY, *more)
    tell = draw.choice([("--annotations",), ("--interactive",), ("--json",), ()])
    kind = draw.random()
    if kind < 0.5:
        return Trial(
            (*words, *tell),
            ("s.yaml", "log-1", "campaigns.csv", model),
            f"{key[:30]!r} {candidate[:30]!r} {segment[:30]!r}",
        )
    said = bidsim(*words, "--quiet", cwd=folder, drawn=True)
    if said.status == 2:
        return Trial((*words, *tell), ("s.yaml", "log-1", "campaigns.csv", model), "refused")
    (folder / "out").rename(folder / "run")
    again = draw.choice(
        [("gate", "run"), ("gate", "run", "--annotations"), ("report", "run", "--out", "out.html"), ("leaderboard", "."), ("leaderboard", ".", "--html", "out.html"),
         ("compare", "run", "run"), ("plan", "run"), ("report", "run", "--out", "out.html", "--interactive"), ("stress", "--scenario", "s.yaml", "--prices", "10", "--memory", "1GB"), ("check", "--scenario", "s.yaml", "--memory", "1GB")]
    )  # fmt: skip
    return Trial(again, ("run", "s.yaml", "no run", "log-1"), f"{again[0]} {key[:30]!r} {candidate[:30]!r}")


def _printable(name: str) -> bool:
    return not any(ord(c) < 32 or ord(c) == 127 for c in name)


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""').replace("\x00", "") + '"'


ACTING = frozenset(
    [
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "input",
        "button",
        "video",
        "audio",
        "source",
    ]
)


class Acting(HTMLParser):
    """Finds what a page would do: tags that load or run, attributes that are code, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ACTING:
            self.found.add(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("srcdoc", "formaction"):
                self.found.add(name)
            if name in ("href", "src", "action", "xlink:href") and not (value or "").startswith("#"):
                self.found.add(f"{name}={(value or '')[:30]}")


def page_problems(folder: Path) -> list[str]:
    """What the pages, summaries and XML of a run hold that acts."""
    problems = []
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        interactive = "vega" in text  # two scripts of our own; tests/report/test_interactive.py looks into them
        acting = Acting()
        acting.feed(text)
        found = acting.found - ({"<script>"} if interactive else set())
        if found:
            problems.append(f"{path.name} has {sorted(found)[:5]}")
        if not interactive and any((ord(c) < 32 and c not in "\n\t") or c in "\x7f\x9b\u202e\u2066" for c in text):
            problems.append(f"{path.name} has control or turning characters")
    for path in folder.rglob("junit.xml"):
        xml.etree.ElementTree.parse(path)
    for path in folder.rglob("summary.md"):
        text = path.read_text(encoding="utf-8")
        for bad in ("<script", "<img", "](javascript", "](http", "\x1b", "\x9b", "\u202e", "\n::"):
            if bad in text:
                problems.append(f"summary.md holds {bad!r}")
    return problems


CLASSES = {"names": names}
