"""Leaderboards and comparisons as tables in a terminal; where there is none, as plain lines of the same table.

Names come from files that others wrote: they are cleaned, and never read as markup.
"""

from __future__ import annotations

import shutil
import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bidsim.report import format as f
from bidsim.report.words import difference_writer, writer
from bidsim.result import Estimate
from bidsim.store.compare import Comparison, Side
from bidsim.store.leaderboard import Entry, Leaderboard
from bidsim.store.ledger import Outcome
from bidsim.store.scan import StoredRun
from bidsim.store.words import change_of, held_words, metric_words, track_sentences, verdict_words

PLAIN_WIDTH = 200


def _console() -> Console:
    """As wide as the terminal; what reads a pipe gets whole lines."""
    terminal = sys.stdout.isatty()
    width = max(60, shutil.get_terminal_size((100, 24)).columns) if terminal else PLAIN_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _text(value: object, length: int = 60) -> Text:
    return Text(f.clean_name(value, length))


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if at < left else "right", overflow="fold")
    return table


def print_leaderboard(board: Leaderboard) -> None:
    """The leaderboard on stdout."""
    console = _console()
    name = metric_words(board.metric, board.head)
    console.print(Text(f"by {name}: {board.better}"))
    if not board.boards:
        console.print(Text("no runs yet"))
    for group in board.boards:
        first = group.entries[0]
        console.print()
        console.print(
            Text(
                f"{f.clean_name(first.scenario)}, data {f.short_hash(group.fingerprint)}: "
                f"{f.plural(group.tried, 'candidate')} judged on this data"
            )
        )
        online = any(e.online for e in group.entries)
        columns = ["#", "candidate", "run", "gate", "baseline", name, "change"]
        table = _table(*columns, *(["online", "forecast"] if online else []), left=4)
        for entry in group.entries:
            cells = _entry_cells(entry, board.metric)
            table.add_row(*cells, *(_online_cells(entry) if online else []))
        console.print(table)
        if any(e.level for e in group.entries[1:]):
            console.print(Text("= its interval overlaps the first one's: the two are not told apart"))
    for sentence in track_sentences(board.track):
        console.print(Text(sentence))
    if board.passed_over:
        console.print(Text(board.passed_over))


def _entry_cells(entry: Entry, metric: str) -> list[Text]:
    write = writer(metric, f.Money(entry.currency))
    rank = f.DASH if entry.rank is None else f"{entry.rank}{' =' if entry.level else ''}"
    change, interval = change_of(entry, metric)
    return [
        Text(rank),
        _text(entry.policy),
        _text(entry.run),
        Text(verdict_words(entry.verdict)),
        Text(write(entry.baseline)),
        Text(write(entry.value)),
        Text(f"{change} {interval}".strip()),
    ]


def _online_cells(entry: Entry) -> list[Text]:
    if entry.online is None:
        return [Text(""), Text("")]
    online = f"{f.change(entry.online.change)} {f.interval(entry.online.low, entry.online.high, f.change)}".strip()
    return [Text(online), Text(held_words(entry))]


def print_comparison(found: Comparison) -> None:
    """Two runs side by side on stdout."""
    console = _console()
    for at in (0, 1):
        verdict = verdict_words(found.verdicts[at])
        console.print(
            Text(f"{'AB'[at]}: {f.clean_name(found.names[at])}, {f.clean_name(found.policies[at])}: {verdict}")
        )
    if found.changed:
        table = _table("changed", "A", "B", left=3)
        for row in found.changed:
            table.add_row(*(_text(cell, 120) for cell in row))
        console.print(table)
    table = _table("", "baseline", "A", "change", "B", "change")
    for m in found.metrics:
        write = writer(m.metric, f.Money(found.currency))
        name = metric_words(m.metric, m.head)
        name += f" (beta {f.significant(m.beta, 3)})" if m.beta is not None else ""
        cells = [Text(c) for side in (m.first, m.second) for c in _side_cells(m.metric, side, found.currency)]
        table.add_row(_text(name), Text(write(m.baseline)), *cells)
    console.print(table)
    console.print(Text("changes are each run's own, against the same baseline; A and B were not paired"))
    if found.rules:
        table = _table("rules that differ", "where", "A", "B", left=4)
        for rule in found.rules[:60]:
            table.add_row(*(_text(cell, 120) for cell in rule))
        console.print(table)
        if len(found.rules) > 60:
            console.print(Text(f"{len(found.rules) - 60} more; --json has all"))


def _side_cells(metric: str, side: Side | None, currency: str | None) -> tuple[str, str]:
    if side is None:
        return f.DASH, ""
    way, say = difference_writer(metric)
    change: Estimate = side.absolute if way == "absolute" else side.relative
    said = f"{say(change.value)} {f.interval(change.low, change.high, say)}".strip() if change.value is not None else ""
    return writer(metric, f.Money(currency))(side.value), said


def print_outcome(run: StoredRun, outcome: Outcome) -> None:
    """What was forecast beside what the online test showed, on stdout."""
    forecasts = {(x.policy, x.metric, x.head): x for x in run.record.forecasts}
    table = _table("metric", "candidate", "forecast", "online", "", left=2)
    for c in outcome.changes:
        forecast = forecasts.get((c.policy, c.metric, c.head))
        r = forecast.relative if forecast else Estimate(value=None)
        held = "" if r.low is None or r.high is None else "held" if r.low <= c.change <= r.high else "missed"
        shared = "budgets shared" if c.budget_split is False else ""
        table.add_row(
            _text(metric_words(c.metric, c.head)),
            _text(c.policy),
            Text(f"{f.change(r.value)} {f.interval(r.low, r.high, f.change)}".strip()),
            Text(f"{f.change(c.change)} {f.interval(c.low, c.high, f.change)}".strip()),
            Text(", ".join(filter(None, (held, shared)))),
        )
    _console().print(table)
