"""The parts of a report as small records of ready-made strings, shared by the page and the summary.

Numbers are written here and nowhere else, so both say the same. Strings are not escaped: that is the renderer's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bidsim.gate.judging import rests_on_wins
from bidsim.report import format as f
from bidsim.report.lookup import Lookup
from bidsim.report.rule_plot import rule_plot
from bidsim.report.words import HEAD_WORDS, Write, better, difference_writer, label, writer
from bidsim.result import Estimate, Metric, RuleOutcome, Segment

GATE_ROWS = 40
COUNTED = "counted wins only"
FOLD_FROM = 4
_RANK = {"fail": 0, "warn": 1, "waived": 2, "ignore": 3, "pass": 4}
_STATUS = {
    "pass": "pass",
    "fail": "fail",
    "inconclusive": "inconclusive",
    "unidentified": "unidentified",
    "insufficient_data": "too little data",
    "not_found": "not found",
}


@dataclass(frozen=True)
class Cell:
    """A candidate's value beside the baseline's. known: what the log leaves open of the change, in words; tone: "good" or
    "bad" only where the interval excludes zero whatever the rows did that the log can't decide."""

    value: str
    change: str = ""
    interval: str = ""
    identified: str = ""
    known: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    metric: str
    baseline: str
    baseline_identified: str
    cells: list[Cell]


@dataclass(frozen=True)
class Group:
    """Rows under one heading; heading is empty for the economic ones."""

    heading: str
    rows: list[Row]


@dataclass(frozen=True)
class GateRow:
    action: str
    status: str
    rule: str
    policy: str
    metric: str
    where: str
    baseline: str
    value: str
    interval: str
    bound: str
    sentence: str
    by_point: bool = False
    known: str = ""
    plot: str = ""
    detectable: str = ""


@dataclass(frozen=True)
class GateTable:
    """dropped: judgements beyond the cap, all of them after those shown in severity."""

    rows: list[GateRow]
    counts: list[tuple[str, int]] = field(default_factory=list)
    dropped: int = 0


def cell(
    lookup: Lookup, policy: str, metric: str, head: str | None, segment: Segment, beta: float | None = None
) -> Cell:
    """One candidate, one metric, one place."""
    write = writer(metric, lookup.money)
    mine = lookup.metric(policy, metric, head, segment, beta)
    difference = lookup.difference(policy, metric, head, segment, beta)
    value = mine.value if mine else difference.candidate if difference else None
    way, say = difference_writer(metric)
    change = (difference.absolute if way == "absolute" else difference.relative) if difference else Estimate(value=None)
    bounds = decided(lookup, policy, metric, head, segment, way, beta)
    known = ""
    if difference is not None and difference.identified is not None and bounds != (change.low, change.high):
        span = getattr(difference.identified, way)
        known = f"identified: {_ends(span.low, span.high, say)}"
    elif bounds is None and change.value is not None:
        known = COUNTED
    return Cell(
        value=write(value),
        change=say(change.value) if difference else "",
        interval=f.interval(change.low, change.high, say),
        identified=identified(mine, lookup),
        known=known,
        tone=tone(metric, bounds),
    )


def confidence(lookup: Lookup) -> str:
    """Of the intervals, in percent; all digits of it."""
    return f"{100 * lookup.confidence:.12g}%"


Bounds = tuple[float | None, float | None]


def decided(
    lookup: Lookup,
    policy: str,
    metric: str,
    head: str | None,
    segment: Segment,
    way: str,
    beta: float | None = None,
) -> Bounds | None:
    """The interval of a change, moved to both ends of what the rows could have done that the log can't decide, as the
    gate judges it. None where such rows matter and no range says how much."""
    difference = lookup.difference(policy, metric, head, segment, beta)
    if difference is None:
        return None
    change: Estimate = getattr(difference, way)
    if head is not None or metric == "expected_utility":  # of all labelled rows, whoever would have won them
        return change.low, change.high
    if difference.identified is None:
        return None if lookup.leaves_open(policy, segment) else (change.low, change.high)
    span = getattr(difference.identified, way)
    if None in (change.value, change.low, change.high):
        return change.low, change.high
    low = None if span.low is None else change.low + min(0.0, span.low - change.value)
    high = None if span.high is None else change.high + max(0.0, span.high - change.value)
    return low, high


def tone(metric: str, bounds: Bounds | None) -> str:
    """Whether a change is clearly good or bad: its bounds exclude zero and the metric has a better direction."""
    way = better(metric)
    low, high = bounds or (None, None)
    if way and low is not None and low > 0:
        return "good" if way > 0 else "bad"
    if way and high is not None and high < 0:
        return "good" if way < 0 else "bad"
    return ""


def identified(metric: Metric | None, lookup: Lookup) -> str:
    """The range over whatever the unknown rows did; nothing where it is not computed or a single value."""
    if metric is None or metric.identified is None:
        return ""
    low, high = metric.identified.low, metric.identified.high
    if low == high:  # one value, or nothing that could be said
        return ""
    write = writer(metric.metric, lookup.money)
    return _ends(low, high, write)


def _ends(low: float | None, high: float | None, write: Write) -> str:
    """A range whose missing ends have no bound."""
    if low is None or high is None:
        return (
            f"{write(low)} or more" if low is not None else f"up to {write(high)}" if high is not None else "anything"
        )
    return f"{write(low)} to {write(high)}"


def _row(lookup: Lookup, metric: str, head: str | None, beta: float | None = None) -> Row:
    write = writer(metric, lookup.money)
    base = lookup.baseline.name if lookup.baseline else ""
    mine = lookup.metric(base, metric, head, None, beta)
    value = mine.value if mine else None
    if mine is None and lookup.candidates:
        difference = lookup.difference(lookup.candidates[0].name, metric, head, None, beta)
        value = difference.baseline if difference else None
    return Row(
        label=label(metric) + (f" (beta {f.significant(beta, 3)})" if beta is not None else ""),
        metric=metric,
        baseline=write(value),
        baseline_identified=identified(mine, lookup),
        cells=[cell(lookup, p.name, metric, head, {}, beta) for p in lookup.candidates],
    )


def economics(lookup: Lookup) -> Group:
    """The campaign manager's rows: money, results, and what a result costs."""
    cost = lookup.indicator
    metrics = ["spend", "clicks", "conversions", cost]
    metrics += [f"{cost}_at_matched_spend", f"{lookup.results}_at_matched_spend"]
    metrics += ["surplus", "target_attainment", "win_rate"]
    rows = [_row(lookup, m, None) for m in metrics if lookup.has(m)]
    rows += [_row(lookup, "expected_utility", None, beta) for beta in lookup.betas]
    return Group("", rows)


def predictions(lookup: Lookup) -> list[Group]:
    """The model builder's rows, head by head."""
    metrics = ["normalized_entropy", "logloss", "auc", "gauc", "calibration", "calibration_error"]
    return _by_head(lookup, [*metrics, "ece", "ece_if_calibrated", "churn"])


def brier_parts(lookup: Lookup) -> list[Group]:
    """The Brier score and what it is made of (CORP), head by head."""
    return _by_head(lookup, ["brier", "miscalibration", "discrimination", "uncertainty"])


def _by_head(lookup: Lookup, metrics: Sequence[str]) -> list[Group]:
    return [
        Group(HEAD_WORDS.get(head, f.clean_name(head)), [_row(lookup, m, head) for m in metrics if lookup.has(m, head)])
        for head in lookup.heads
    ]


def cards(lookup: Lookup) -> list[tuple[str, list[Row]]]:
    """Per candidate the five numbers to look at first; each row then has that candidate's cell alone."""
    cost = lookup.indicator
    chosen = ["spend", lookup.results, cost, f"{cost}_at_matched_spend"]
    rows = [_row(lookup, m, None) for m in chosen if lookup.has(m)]
    head = next((h for h in lookup.heads if lookup.has("calibration", h)), None)
    if head is not None:
        calibration = _row(lookup, "calibration", head)
        rows.append(replace(calibration, label=f"{calibration.label} ({head})"))
    return [
        (p.name, [Row(r.label, r.metric, r.baseline, r.baseline_identified, [r.cells[at]]) for r in rows])
        for at, p in enumerate(lookup.candidates)
    ]


def outcome_action(outcome: RuleOutcome) -> str:
    """What an outcome does to the verdict, in the word that its mark carries."""
    if outcome.waived and outcome.action != "pass":
        return "waived"
    return outcome.action


def gate_table(lookup: Lookup) -> GateTable:
    """Judgements by severity; the passing segments of one rule are one row."""
    outcomes = lookup.result.gate.rules
    counts: dict[str, int] = {}
    for o in sorted(outcomes, key=lambda o: (_RANK[outcome_action(o)], o.status)):
        action = outcome_action(o)
        said = {"ignore": "ignored"}.get(action, action) if o.status in ("pass", "fail") else _STATUS[o.status]
        counts[said] = counts.get(said, 0) + 1
    rows = sorted(_gate_rows(lookup, outcomes), key=lambda r: _RANK[r.action])
    return GateTable(rows[:GATE_ROWS], list(counts.items()), max(0, len(rows) - GATE_ROWS))


def _gate_rows(lookup: Lookup, outcomes: Sequence[RuleOutcome]) -> Iterator[GateRow]:
    groups: dict[tuple[str, str, str, str | None], list[RuleOutcome]] = {}
    for o in outcomes:
        groups.setdefault((o.rule, o.policy, o.metric, o.head), []).append(o)
    for group in groups.values():
        passing = [o for o in group if _foldable(o)]
        folded = passing if len(passing) >= FOLD_FROM else []
        yield from (_gate_row(lookup, o) for o in group if not (folded and _foldable(o)))
        if folded:
            yield _folded(lookup, folded, len(group))


def _foldable(outcome: RuleOutcome) -> bool:
    return outcome_action(outcome) == "pass" and bool(outcome.segment)


def _gate_row(lookup: Lookup, o: RuleOutcome) -> GateRow:
    write = writer(o.metric, lookup.money)
    return GateRow(
        action=outcome_action(o),
        status=_STATUS[o.status],
        rule=f.clean_name(o.rule, 120),
        policy=f.clean_name(o.policy),
        metric=label(o.metric) + (f" ({o.head})" if o.head else ""),
        where=lookup.label(o.segment) if o.segment else "",
        baseline=write(o.baseline),
        value=write(o.value),
        interval=f.interval(o.low, o.high, _judged_writer(o)),
        bound=f.clean_text(o.bound),
        sentence=f.clean_text(o.sentence),
        by_point=o.evidence == "point",
        known=COUNTED if _of_counted_wins(lookup, o) else "",
        plot=rule_plot(o, outcome_action(o)),
        detectable="" if o.detectable is None or o.evidence == "point" else _judged_writer(o)(o.detectable).lstrip("+"),
    )


def _of_counted_wins(lookup: Lookup, o: RuleOutcome) -> bool:
    """Whether the log leaves wins open that no range says the effect of."""
    mine = lookup.metric(o.policy, o.metric, o.head, o.segment)
    judged = o.quantity is not None and o.identified is None and rests_on_wins(o.metric)
    return judged and (mine is None or mine.identified is None) and lookup.leaves_open(o.policy, o.segment)


def _judged_writer(o: RuleOutcome) -> Write:
    """How the interval of what a rule judges is written: a relative change in percent."""
    if o.judged == "relative":
        return f.change
    return f.signed if o.judged == "absolute" else lambda v: f.significant(v, 4)


def _folded(lookup: Lookup, folded: Sequence[RuleOutcome], total: int) -> GateRow:
    first = folded[0]
    write = writer(first.metric, lookup.money)

    def span(values: Sequence[float | None]) -> str:
        known = [v for v in values if v is not None]
        return f"{write(min(known))} to {write(max(known))}" if known else f.DASH

    family = f.clean_name(" x ".join(first.segment))
    return GateRow(
        action="pass",
        status="pass",
        rule=f.clean_name(first.rule, 120),
        policy=f.clean_name(first.policy),
        metric=label(first.metric) + (f" ({first.head})" if first.head else ""),
        where=f"{len(folded):,} of {total:,} by {family}",
        baseline=span([o.baseline for o in folded]),
        value=span([o.value for o in folded]),
        interval="",
        bound=f.clean_text(first.bound),
        sentence=f"Holds for {len(folded):,} of {total:,} values of {family}.",
        by_point=first.evidence == "point",
    )
