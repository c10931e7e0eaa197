"""Why the candidate's numbers change: level, mix and ranking; who wins what alone; what new campaigns would
change; and when budgets ran out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bidsim.report import format as f
from bidsim.report.knowledge import Plain
from bidsim.report.lookup import Lookup
from bidsim.report.words import label, writer
from bidsim.result import SplitPart

PARTS = ("level", "mix", "ranking")
SUMS = ("wins", "spend", "clicks", "conversions")
PERIODS_SHOWN = 60


@dataclass(frozen=True)
class SplitRow:
    """One metric: its name, the baseline's and the candidate's value, and (change, interval) of each part."""

    name: str
    baseline: str
    parts: list[tuple[str, str]]
    candidate: str


@dataclass(frozen=True)
class Split:
    policy: str
    rows: list[SplitRow]


@dataclass(frozen=True)
class Exhaustion:
    """How often each policy's money ran out, and when it first did by campaign and period; hidden: periods not listed."""

    counts: list[tuple[str, str]]
    table: Plain
    hidden: int


def splits(lookup: Lookup) -> list[Split]:
    """The change of each candidate, taken apart."""
    return [Split(c.name, rows) for c in lookup.candidates if (rows := list(_rows(lookup, c.name)))]


def _rows(lookup: Lookup, policy: str) -> Iterator[SplitRow]:
    found: dict[str, dict[str, SplitPart]] = {}
    for part in lookup.result.split:
        if part.policy == policy:
            found.setdefault(part.metric, {})[part.part] = part
    for metric, parts in found.items():
        if not set(PARTS) <= set(parts):
            continue
        write = writer(metric, lookup.money)
        said = []
        for name in PARTS:
            change = parts[name].relative
            said.append((f.change(change.value), f.interval(change.low, change.high, f.change)))
        yield SplitRow(label(metric), write(lookup.base(metric)), said, write(lookup.value(policy, metric)))


def alone(lookup: Lookup) -> list[tuple[str, Plain]]:
    """By candidate, what it wins and the baseline does not, and the other way round."""
    tables = []
    for candidate in lookup.candidates:
        rows = []
        for side, what in (("gained", "Only the candidate wins"), ("lost", "Only the baseline wins")):
            values = [lookup.value(candidate.name, f"{name}_{side}") for name in SUMS]
            if values[0] is None:
                continue
            rows.append([what, *(writer(n, lookup.money)(v) for n, v in zip(SUMS, values, strict=True))])
        if rows:
            share = lookup.value(candidate.name, "disagreement")
            rows.append(["Share of all that either wins", f.share(share), "", "", ""])
            tables.append((candidate.name, Plain(["", *(label(n) for n in SUMS)], rows)))
    return tables


def new_campaigns(lookup: Lookup) -> list[tuple[str, Plain]]:
    """Per candidate the relative changes with both intervals: other users of these campaigns, and new campaigns too."""
    told = lookup.result.diagnostics.get("new_campaigns")
    tables = []
    for policy, found in told.items() if isinstance(told, dict) else ():
        rows = []
        for metric, ends in found.items() if isinstance(found, dict) else ():
            difference = lookup.difference(policy, metric)
            if difference is None or not isinstance(ends, list | tuple) or len(ends) != 2:
                continue
            here, (low, high) = difference.relative, ends
            if all(isinstance(end, int | float) for end in ends):
                known = f.interval(here.low, here.high, f.change)
                rows.append([label(metric), f.change(here.value), known, f.interval(low, high, f.change)])
        if rows:
            columns = ["Metric", "Change", "Other users", "Other users and campaigns"]
            tables.append((policy, Plain(columns, rows)))
    return tables


def exhaustion(lookup: Lookup) -> Exhaustion | None:
    """When budgets ran out; None without a budget, or where none ran out."""
    told = lookup.result.diagnostics.get("budget")
    if not isinstance(told, dict):
        return None
    names = [p.name for p in lookup.result.policies]
    counts = _counts(told.get("exhausted"), names)
    listed = told.get("exhausted_at")
    groups = [g for g in listed if isinstance(g, dict)] if isinstance(listed, list) else []
    if not groups:
        return None
    family = lookup.campaign_family
    rows = []
    for group in groups[:PERIODS_SHOWN]:
        campaign = group.get("campaign")
        name = "" if campaign is None else lookup.label({family: str(campaign)}) if family else str(campaign)
        at = group.get("at")
        moments = at if isinstance(at, dict) else {}
        rows.append([name, f.clean_name(group.get("period")), *(_moment(moments.get(n)) for n in names)])
    columns = ["Campaign", "Period", *(f.clean_name(n) for n in names)]
    return Exhaustion(counts, Plain(columns, rows), max(0, len(groups) - PERIODS_SHOWN))


def _counts(told: Any, names: list[str]) -> list[tuple[str, str]]:
    found = told if isinstance(told, dict) else {}
    return [(n, f.count(float(found[n]))) for n in names if isinstance(found.get(n), int | float)]


def _moment(value: object) -> str:
    return f.DASH if value is None else f.clean_name(str(value).replace("T", " "))
