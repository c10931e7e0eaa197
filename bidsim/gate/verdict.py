"""Rules against a result. Pure: reads only the result, so a saved result can be judged again with other rules.

A rule passes or fails by its point value (`evidence: point`); a metric that exists but is undefined here, or has too
little data behind it on the baseline, is insufficient data; one that does not exist is not found, which fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from bidsim.gate.bounds import Bound, bound_of
from bidsim.result import Difference, Gate, Metric, Result, RuleOutcome, Segment, Status
from bidsim.scenario.schema import Rule

Action = Literal["pass", "fail", "warn", "ignore"]
Place = tuple[str, str, str | None, tuple[tuple[str, str], ...], float | None]

NAMES = {
    "cpa": "CPA",
    "cpc": "CPC",
    "cpm": "CPM",
    "ctr": "CTR",
    "cvr": "CVR",
    "auc": "AUC",
    "gauc": "grouped AUC",
    "ece": "expected calibration error",
    "roi": "ROI",
    "cpa_at_matched_spend": "CPA at matched spend",
    "cpc_at_matched_spend": "CPC at matched spend",
}


class _Index:
    """A result's metrics and differences by policy, metric, head, segment and beta."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.metrics: dict[Place, Metric] = {self._place(m): m for m in result.metrics}
        self.differences: dict[Place, Difference] = {self._place(d): d for d in result.differences}
        self.segments: dict[str, list[Segment]] = {}
        self.heads: dict[str, list[str | None]] = {}
        self.betas: list[float] = sorted({m.beta for m in result.metrics if m.beta is not None})
        seen: set[tuple[tuple[str, str], ...]] = set()
        for m in result.metrics:
            key = tuple(m.segment.items())
            if key not in seen:
                seen.add(key)
                for name in m.segment:
                    self.segments.setdefault(name, []).append(m.segment)
            heads = self.heads.setdefault(m.metric, [])
            if m.head not in heads:
                heads.append(m.head)

    @staticmethod
    def _place(record: Metric | Difference) -> Place:
        return (record.policy, record.metric, record.head, tuple(record.segment.items()), record.beta)

    def baseline(self, metric: str, segment: Segment) -> float | None:
        found = self.metrics.get((self.result.baseline, metric, None, tuple(segment.items()), None))
        return found.value if found else None


def judge(result: Result, rules: Sequence[Rule], *, fidelity_warns: bool) -> Result:
    """The result with its gate. fidelity_warns: a failed fidelity check warns instead of failing."""
    index = _Index(result)
    outcomes = [
        outcome
        for rule in rules
        for policy in ([rule.policy] if rule.policy else result.candidates)
        for outcome in _judge_rule(index, rule, policy)
    ]
    return result.model_copy(update={"gate": _verdict(result, outcomes, bool(rules), fidelity_warns)})


def _verdict(result: Result, outcomes: list[RuleOutcome], ruled: bool, fidelity_warns: bool) -> Gate:
    broken = result.fidelity.passed is False
    why = (
        f"The replay does not reproduce the log: {result.fidelity.mismatched_rows} rows of the logged bids come out "
        "otherwise than logged."
    )
    failed = [o for o in outcomes if o.action == "fail"]
    warned = [o for o in outcomes if o.action == "warn"]
    if broken and not fidelity_warns:
        return Gate(verdict="fail", reason=why, rules=outcomes)
    if failed:
        return Gate(verdict="fail", reason=failed[0].sentence + _more(len(failed), "fail"), rules=outcomes)
    if not ruled:
        reason = "The scenario has no gate rules, so nothing was judged." + (f" {why}" if broken else "")
        return Gate(verdict="no_gate", reason=reason, rules=outcomes)
    if broken:
        return Gate(verdict="warn", reason=why, rules=outcomes)
    if warned:
        return Gate(verdict="warn", reason=warned[0].sentence + _more(len(warned), "warn"), rules=outcomes)
    held = sum(o.status == "pass" for o in outcomes)
    return Gate(verdict="pass", reason=f"All {len(outcomes)} judgements pass." if held else "", rules=outcomes)


def _more(count: int, verb: str) -> str:
    return f" {count - 1} more {verb if count > 2 else verb + 's'}." if count > 1 else ""


def _judge_rule(index: _Index, rule: Rule, policy: str) -> Iterator[RuleOutcome]:
    bound = bound_of(rule)
    head, problem = _head(index, rule)
    beta = _beta(index, rule)
    segments = index.segments.get(rule.by, []) if rule.by else [{}]
    if policy not in index.result.candidates:
        problem = f'there is no candidate "{policy}"'
    elif rule.metric not in index.heads:
        problem = f'the result has no metric "{rule.metric}"'
    elif rule.by and not segments:
        problem = f'the scenario has no segment "{rule.by}"'
    elif bound is None:
        problem = f'"{rule.metric}" has no better direction; bound it with max_increase or max_decrease'
    if problem or bound is None:
        yield _outcome(rule, policy, head, {}, "not_found", bound, f"{_title(rule)}: {problem}.")
        return
    found = False
    for segment in segments:
        place = (policy, rule.metric, head, tuple(segment.items()), beta)
        if place not in index.metrics:
            continue
        found = True
        yield _judge_place(index, rule, bound, place, segment)
    if not found:
        where = f" by {rule.by}" if rule.by else ""
        yield _outcome(
            rule, policy, head, {}, "not_found", bound, f'{_title(rule)}: "{rule.metric}" is not given{where}.'
        )


def _judge_place(index: _Index, rule: Rule, bound: Bound, place: Place, segment: Segment) -> RuleOutcome:
    policy, _, head, _, _ = place
    metric, difference = index.metrics[place], index.differences.get(place)
    base = difference.baseline if difference else None
    quantity = metric.value
    if bound.quantity != "value":
        change = difference and (difference.absolute if bound.quantity == "absolute" else difference.relative)
        quantity = change.value if change else None
    lacking = _lacking(index, rule, segment)
    subject = f"{_metric_name(rule, head)} of {policy}{_place_words(segment, index.result.data.campaign_names)}"
    if lacking:
        sentence = f"{subject} is not judged: {lacking}."
        return _outcome(rule, policy, head, segment, "insufficient_data", bound, sentence, metric.value, base)
    if quantity is None:
        sentence = f"{subject} is undefined here (a zero denominator or no labels), so it can't be judged."
        return _outcome(rule, policy, head, segment, "insufficient_data", bound, sentence, metric.value, base)
    holds = bound.holds(quantity)
    sentence = f"{subject} {_said(bound, quantity, metric.value, base)}; the rule {_allows(rule, bound)}."
    return _outcome(rule, policy, head, segment, "pass" if holds else "fail", bound, sentence, metric.value, base)


def _lacking(index: _Index, rule: Rule, segment: Segment) -> str:
    for least, name in ((rule.min_rows, "rows"), (rule.min_clicks, "clicks"), (rule.min_conversions, "conversions")):
        if least is not None:
            have = index.baseline(name, segment)
            if have is None or have < least:
                return f"the baseline has {have or 0:g} {name}, the rule asks for {least:g}"
    return ""


def _head(index: _Index, rule: Rule) -> tuple[str | None, str]:
    heads = index.heads.get(rule.metric, [])
    if rule.head is not None:
        return rule.head, ""
    if None in heads or not heads:
        return None, ""
    if len(heads) == 1:
        return heads[0], ""
    return None, f"the rule must name a head ({', '.join(str(h) for h in heads)})"


def _beta(index: _Index, rule: Rule) -> float | None:
    if rule.metric != "expected_utility" or not index.betas:
        return None
    if rule.beta is not None:
        return min(index.betas, key=lambda b: abs(b - float(rule.beta or 0)))
    return index.betas[len(index.betas) // 2]


def _outcome(
    rule: Rule,
    policy: str,
    head: str | None,
    segment: Segment,
    status: Status,
    bound: Bound | None,
    sentence: str,
    value: float | None = None,
    baseline: float | None = None,
) -> RuleOutcome:
    action: Action = "pass"
    if status in ("fail", "not_found"):
        action = rule.on_fail
    elif status == "insufficient_data":
        action = rule.on_insufficient_data
    return RuleOutcome(
        rule=_title(rule),
        policy=policy,
        metric=rule.metric,
        head=head,
        segment=segment,
        status=status,
        action=action,
        evidence=rule.evidence,
        value=value,
        baseline=baseline,
        bound=bound.words if bound else "",
        sentence=sentence,
    )


def _title(rule: Rule) -> str:
    if rule.name:
        return rule.name
    words = bound_of(rule)
    return (
        f"{_metric_name(rule, rule.head)}{f' by {rule.by}' if rule.by else ''}: {words.words if words else ''}".strip()
    )


def _metric_name(rule: Rule, head: str | None) -> str:
    name = NAMES.get(rule.metric, rule.metric.replace("_", " "))
    return f"{name} ({head})" if head else name


def _place_words(segment: Segment, names: dict[str, str]) -> str:
    """' on campaign 7 (Travel)'; names: of campaigns, and only a segment of campaigns has values among them."""
    named = segment and all(value in names for value in segment.values()) and "campaign" in segment
    return "".join(f" on {name} {value}{f' ({names[value]})' if named else ''}" for name, value in segment.items())


def _said(bound: Bound, quantity: float, value: float | None, baseline: float | None) -> str:
    if bound.quantity == "value":
        return f"is {quantity:,.5g}"
    size = f"{abs(quantity) * 100:.3g}%" if bound.quantity == "relative" else f"{abs(quantity):.4g}"
    verb = "does not change" if quantity == 0 else f"{'rises' if quantity > 0 else 'falls'} by {size}"
    return f"{verb} ({baseline or 0:,.6g} to {value or 0:,.6g})"


def _allows(rule: Rule, bound: Bound) -> str:
    if rule.min_improvement is not None:
        return f"asks for {bound.words}"
    return f"allows {'values ' if rule.between else ''}{bound.words}"
