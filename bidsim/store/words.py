"""The words that the leaderboard's table and page share."""

from __future__ import annotations

from bidsim.report import format as f
from bidsim.report.words import difference_writer, label
from bidsim.store.leaderboard import Entry
from bidsim.store.track import FEWEST, Track


def verdict_words(verdict: str) -> str:
    return verdict.upper().replace("_", " ")


def metric_words(metric: str, head: str | None) -> str:
    """A metric as it is said, with its head where it has one; both come from files that others wrote."""
    return label(metric) + (f" ({f.clean_name(head, 40)})" if head else "")


def change_of(entry: Entry, metric: str) -> tuple[str, str]:
    """(change, interval) as the metric's changes are said."""
    way, say = difference_writer(metric)
    value, low, high = entry.absolute if way == "absolute" else entry.relative
    return (say(value), f.interval(low, high, say)) if value is not None else (f.DASH, "")


def held_words(entry: Entry) -> str:
    """Whether the forecast held what the online test showed."""
    if entry.online is None:
        return ""
    value = entry.relative[0]
    if value is None:
        return "no forecast"
    right = (value > 0) - (value < 0) == (entry.online.change > 0) - (entry.online.change < 0)
    held = {True: "held, ", False: "missed, ", None: ""}[entry.held]
    shared = ", budgets shared" if entry.online.budget_split is False else ""
    return f"{held}direction {'right' if right else 'wrong'}{shared}"


def track_sentences(track: Track) -> list[str]:
    """How forecasts have done against online tests, a sentence a metric."""
    found = []
    for m in track.metrics:
        said = f"{metric_words(m.metric, m.head)}: {f.plural(m.tests, 'online test')}"
        if m.shared:
            said += f" ({m.shared} with budgets that both arms shared, which moves what a test shows)"
        if m.held[1]:
            said += f"; {m.held[0]} of {m.held[1]} forecast intervals held the online change"
        if m.direction[1]:
            said += f"; direction right in {m.direction[0]} of {m.direction[1]}"
        if m.miss is not None:
            said += f"; mean miss {f.change(m.miss).lstrip('+').removesuffix('%')} points"
        if m.best is not None:
            best = metric_words(m.best.metric, m.best.head)
            said += f"; offline, {best} has ordered the candidates most like it (tau {m.best.tau:.2f}, {m.best.tests} tests)"
        elif m.tests < FEWEST:
            said += f"; which offline metric predicts best is told from {FEWEST} tests on"
        found.append(said + ".")
    return found
