"""The summary for a pull request, in Markdown: the verdict first, at most 60 kB whatever the result holds.

Names are shown as code, with every character that Markdown, HTML or a code host reads as a sign written as an entity
or broken up: a campaign can't close a table, mention a user or make a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bidsim.report import format as f
from bidsim.report import knowledge, view
from bidsim.report.extremes import extremes
from bidsim.report.lookup import Lookup
from bidsim.report.segments import by_spend
from bidsim.report.words import label, writer
from bidsim.result import Result

MOST_BYTES = 60_000
RULE_ROWS = 25
FINDINGS = 20
SEGMENT_ROWS = 20
CANDIDATES = 6
_MARKS = {"pass": "✅ PASS", "warn": "⚠️ WARN", "fail": "❌ FAIL", "no_gate": "⬜ NO GATE"}
_SIGNS = frozenset("&<>\\`*_[]#|~@$")
_CUT = "\n\n_Cut at 60 kB; report.html and result.json have the rest._\n"


def text(value: object, length: int = f.TEXT_LENGTH) -> str:
    """A sentence as Markdown that shows it as it is."""
    escaped = "".join(f"&#{ord(c)};" if c in _SIGNS else c for c in f.clean_name(value, length))
    # What a code host turns into a link, a picture or a list by itself: @user, #1, www.x, http://x, :emoji:, "1. x".
    escaped = escaped.replace("&#64;", "&#64;<!-- -->").replace("&#35;", "&#35;<!-- -->")
    escaped = re.sub(r"(?i)(www)\.", r"\1<!-- -->.", escaped)
    escaped = re.sub(r":(?=\S)", "&#58;<!-- -->", escaped)
    return re.sub(r"^(\d*)([-+=.)])", lambda m: f"{m[1]}&#{ord(m[2])};", escaped)


def name(value: object) -> str:
    """A name as inline code."""
    return f"<code>{text(value, f.NAME_LENGTH)}</code>"


def render_summary(result: Result, *, judged: int | None = None, lookup: Lookup | None = None) -> str:
    """summary.md of a result. The same arguments give the same bytes. judged: as for `render_report`; lookup: of the result,
    where there is one already."""
    lookup = lookup or Lookup(result)
    many = knowledge.many_judged(judged)
    head = [*_verdict(lookup), *_rules(lookup), *_headline(lookup), *(["", text(many)] if many else [])]
    parts = (_findings, _predictions, _extremes, _segments, _knowledge, _provenance)
    rest = [block for part in parts for block in part(lookup)]
    return _within("\n".join(head) + "\n", [block + "\n" for block in rest])


def _within(head: str, blocks: Sequence[str]) -> str:
    """The head and as many whole blocks as fit."""
    out = _head_within(head)
    for block in blocks:
        if len((out + block + _CUT).encode()) > MOST_BYTES:
            return out.rstrip("\n") + _CUT
        out += "\n" + block
    return out


def _head_within(head: str) -> str:
    room = MOST_BYTES - len(_CUT.encode())
    if len(head.encode()) <= room:
        return head
    lines, size = [], 0
    for line in head.splitlines():
        size += len(line.encode()) + 1
        if size > room:
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table; the first `left` columns are aligned left, the others right. Cells are Markdown."""
    rule = [":--"] * left + ["--:"] * (len(columns) - left)
    lines = [columns, rule, *rows]
    # A dollar sign is an amount's here and never a formula's.
    return ["", *("| " + " | ".join(line).replace("$", "&#36;") + " |" for line in lines), ""]


def folded(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"<details><summary>{title}</summary>", *lines, "</details>"])


def _verdict(lookup: Lookup) -> list[str]:
    result = lookup.result
    against = f" against {name(lookup.baseline.name)}" if lookup.baseline else ""
    who = f.listed(name(p.name) for p in lookup.candidates[:CANDIDATES]) or "No candidate"
    zone = result.scenario.get("timezone") or "UTC"
    window = result.data.window
    when = f"{f.moment(window.start)} to {f.moment(window.end)} ({text(zone, 40)})" if window else "the whole log"
    return [
        f"## {_MARKS[result.gate.verdict]}: {text(result.name, f.NAME_LENGTH)}",
        "",
        text(result.gate.reason) if result.gate.reason else "No reason was recorded.",
        "",
        f"{who}{against}, {when}, {f.count(result.data.rows)} rows.",
    ]


def _rules(lookup: Lookup) -> list[str]:
    gate = view.gate_table(lookup)
    counts = " · ".join(f"{n} {word}" for word, n in gate.counts)
    shown = [r for r in gate.rows if r.action in ("fail", "warn", "waived")]
    weak = _without_evidence(lookup)
    if not shown:
        return ["", counts, *weak] if counts else []
    rows = [
        [
            f"**{r.action}**" + (f" ({r.status})" if r.status != r.action else ""),
            text(r.rule, 120),
            name(r.where) if r.where else "all",
            name(r.policy),
            r.baseline,
            r.value,
            text(r.bound),
        ]
        for r in shown[:RULE_ROWS]
    ]
    lines = table(["Outcome", "Rule", "Where", "Candidate", "Baseline", "Value", "Bound"], rows, left=4)
    more = len(shown) - RULE_ROWS + (gate.dropped if shown[-1] is gate.rows[-1] else 0)
    note = [f"{f.plural(more, 'more row')} in report.html."] if more > 0 else []
    return ["", counts, *weak, *lines, *note]


def _without_evidence(lookup: Lookup) -> list[str]:
    """A reviewer must see where a verdict rests on values that may be noise."""
    outcomes = lookup.result.gate.rules
    points = sum(o.evidence == "point" for o in outcomes)
    if not points:
        return []
    which = "All are" if points == len(outcomes) else f"{points} of {len(outcomes)} are"
    return ["", f"{which} judged on the value alone, without an interval as evidence."]


def _rows(lookup: Lookup, rows: Iterable[view.Row]) -> list[str]:
    shown = lookup.candidates[:CANDIDATES]
    columns = ["", name(lookup.baseline.name) if lookup.baseline else "baseline"]
    columns += [c for p in shown for c in (name(p.name), "change")]
    lines = []
    for r in rows:
        cells = r.cells[:CANDIDATES]
        changes = [
            (c.value, " ".join(part for part in (c.change or f.DASH, c.interval, _known(c)) if part)) for c in cells
        ]
        lines.append([text(r.label), r.baseline, *(part for pair in changes for part in pair)])
    more = len(lookup.candidates) - len(shown)
    note = [f"{f.plural(more, 'more candidate')} in report.html."] if more > 0 else []
    return [*table(columns, lines), *note]


def _known(cell: view.Cell) -> str:
    """What rows that the log can't decide leave open of a change."""
    return f"({cell.known})" if cell.known else ""


def _headline(lookup: Lookup) -> list[str]:
    rows = view.economics(lookup).rows
    if not rows:
        return []
    honest = "No intervals are computed: differences are point values and may be noise."
    if lookup.has_intervals:
        honest = f"Brackets hold {view.confidence(lookup)} intervals."
        if any(lookup.leaves_open(c.name) for c in lookup.candidates):
            honest += " Identified: what the change could be, whatever the rows did that this log can't decide."
    return [*_rows(lookup, rows), honest]


def _findings(lookup: Lookup) -> list[str]:
    found = lookup.result.findings
    if not found:
        return []
    lines = [f"- {x.severity}: {text(x.message)}" for x in found[:FINDINGS]]
    if len(found) > FINDINGS:
        lines.append(f"- {len(found) - FINDINGS} more in report.html")
    return [folded(f.plural(len(found), "finding"), ["", *lines, ""])]


def _predictions(lookup: Lookup) -> list[str]:
    blocks = [(g.heading, _rows(lookup, g.rows)) for g in view.predictions(lookup) if g.rows]
    if not blocks:
        return []
    return [folded("Predictions", [line for heading, lines in blocks for line in ("", f"**{text(heading)}**", *lines)])]


def _extremes(lookup: Lookup) -> list[str]:
    """Where candidates do worst and best, by the near end of the interval."""
    rows, said = [], []
    found = extremes(lookup)[:CANDIDATES]
    for e in found:
        said += ["", f"{name(e.policy)}: {text(e.said)} {text(e.left)}".rstrip()]
        rows += [
            [
                name(e.policy),
                word,
                f"{name(x.name)} ({text(x.family, f.NAME_LENGTH)})",
                x.was,
                " ".join(part for part in (x.cost.change, x.cost.interval, _known(x.cost)) if part),
                x.counts,
            ]
            for word, side in (("worst", e.worst), ("best", e.best))
            for x in side
        ]
    cost = label(lookup.indicator)
    columns = ["Candidate", "", "Segment", cost, f"change of {cost}", lookup.results]
    return (
        [folded("Worst and best segments", [*said, *(table(columns, rows, left=3) if rows else [""])])] if found else []
    )


def _segments(lookup: Lookup) -> list[str]:
    blocks = []
    metrics = [m for m in ("spend", lookup.results, lookup.indicator) if lookup.has(m)]
    for family in lookup.families:
        lines: list[str] = []
        for policy in lookup.candidates[:2]:
            segments = by_spend(lookup, family)
            rows = []
            for s in segments[:SEGMENT_ROWS]:
                cells = [name(lookup.label(s))]
                for m in metrics:
                    mine = view.cell(lookup, policy.name, m, None, s)
                    write = writer(m, lookup.money)
                    change = " ".join(part for part in (mine.change or f.DASH, mine.interval, _known(mine)) if part)
                    cells += [write(lookup.base(m, None, s)), mine.value, change]
                rows.append(cells)
            columns = [
                text(family, f.NAME_LENGTH),
                *(c for m in metrics for c in (label(m), name(policy.name), "change")),
            ]
            lines += table(columns, rows)
            if len(segments) > SEGMENT_ROWS:
                lines.append(f"The {SEGMENT_ROWS} of {len(segments):,} with the most baseline spend.")
        blocks.append(folded(f"By {text(family, f.NAME_LENGTH)}", lines))
    return blocks


def _plain(found: knowledge.Plain) -> list[str]:
    return table(found.columns, [[name(row[0]), *row[1:]] for row in found.rows])


def _knowledge(lookup: Lookup) -> list[str]:
    sentence, _ = knowledge.fidelity(lookup)
    curse = knowledge.curse(lookup)
    lines = _plain(knowledge.unknowns(lookup))
    lines += [f"- {text(what)}: {value}" for what, value in knowledge.log_rows(lookup)]
    if curse:
        lines += ["", "What each policy predicted for its own wins, beside what was observed on them:", *_plain(curse)]
    return [folded("What can be known", [*lines, "", sentence])]


def _provenance(lookup: Lookup) -> list[str]:
    result = lookup.result
    rows = [
        [
            name(p.name),
            p.role,
            name(p.model) if p.model else "logged predictions",
            f.short_hash(p.sha256),
            name(p.formula),
        ]
        for p in result.policies
    ]
    lines = table(["Policy", "Role", "Model", "sha256", "Bid formula"], rows, left=5)
    facts = f"Data fingerprint {name(result.data.fingerprint)}, judged as of {text(result.as_of, 40)}."
    return [folded("Provenance", [*lines, facts])]
