"""The leaderboard as one HTML page that opens offline: the report's look, no script, the same strict policy."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bidsim.report import format as f
from bidsim.report.html import style_digest, style_sheet
from bidsim.report.words import writer
from bidsim.store.leaderboard import Board, Entry, Leaderboard
from bidsim.store.words import change_of, held_words, metric_words, track_sentences, verdict_words


def render_leaderboard(board: Leaderboard) -> str:
    """The page as text. The same leaderboard gives the same bytes."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("bidsim.store").joinpath("leaderboard.html.j2").read_text("utf-8")
    css = style_sheet()
    page = environment.from_string(source).render(
        css=Markup(css),
        style_hash=style_digest(css),
        metric=metric_words(board.metric, board.head),
        better=board.better,
        boards=[_board(b, board.metric) for b in board.boards],
        track=track_sentences(board.track),
        passed_over=board.passed_over,
    )
    return page.strip() + "\n"


def _board(board: Board, metric: str) -> dict[str, Any]:
    return {
        "name": f.clean_name(board.entries[0].scenario),
        "fingerprint": f.short_hash(board.fingerprint),
        "tried": f.plural(board.tried, "candidate"),
        "online": any(e.online for e in board.entries),
        "level": any(e.level for e in board.entries[1:]),
        "rows": [_row(e, metric) for e in board.entries],
    }


def _row(entry: Entry, metric: str) -> dict[str, str]:
    write = writer(metric, f.Money(entry.currency))
    change, interval = change_of(entry, metric)
    online = entry.online
    return {
        "rank": f.DASH if entry.rank is None else f"{entry.rank}{' =' if entry.level else ''}",
        "policy": f.clean_name(entry.policy),
        "sha256": f.short_hash(entry.sha256) if entry.sha256 else "",
        "run": f.clean_name(entry.run),
        "started": f.moment(entry.started),
        "verdict": verdict_words(entry.verdict),
        "kind": entry.verdict if entry.verdict in ("pass", "warn", "fail") else "none",
        "baseline": write(entry.baseline),
        "value": write(entry.value),
        "change": change,
        "interval": interval,
        "online": f.change(online.change) if online else "",
        "online_interval": f.interval(online.low, online.high, f.change) if online else "",
        "held": held_words(entry),
    }
