"""Rules against a result. Pure: reads only the result, so a saved result can be judged again with other rules.

A rule passes where the whole interval lies inside its bound, fails where it lies outside, and is inconclusive where it
straddles; `evidence: point` judges the value alone. A metric that exists but is undefined here, has no interval or too
little data behind it on the baseline, is insufficient data; one that does not exist is not found, which fails.

Over the values of a segment "all must hold" passes without correction (an intersection-union test), and failures are
declared at a false discovery rate of 10% (Benjamini, Hochberg 1995) on one-sided p-values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from scipy.special import ndtr, ndtri

from bidsim.gate.bounds import Bound, bound_of
from bidsim.result import Difference, Estimate, Gate, Metric, Result, RuleOutcome, Segment, Status
from bidsim.scenario.schema import Rule

Action = Literal["pass", "fail", "warn", "ignore"]
# Power of 80% at a two-sided 95%: an effect of this many standard errors is usually seen.
DETECTABLE = 2.8
DISCOVERY_RATE = 0.10
STRADDLES = ", but the interval straddles it"

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
        given = (result.scenario.get("intervals") or {}) if isinstance(result.scenario, dict) else {}
        self.confidence = float(given.get("confidence", 0.95))
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
        for outcome in _discoveries(rule, list(_judge_rule(index, rule, policy)))
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
    reason = f"All {held} judgements pass." if held != 1 else "The one judgement passes."
    if held < len(outcomes):
        reason = f"{held} of {len(outcomes)} judgements pass; the rules say to ignore the others."
    return Gate(verdict="pass", reason=reason, rules=outcomes)


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


def _discoveries(rule: Rule, outcomes: list[RuleOutcome]) -> list[RuleOutcome]:
    """Over many segment values, failures by Benjamini and Hochberg's step-up procedure; the others straddle."""
    judged = [o for o in outcomes if o.p is not None]
    if rule.by is None or len(judged) < 2:
        return outcomes
    ordered = sorted(o.p for o in judged if o.p is not None)
    limit = max((p for rank, p in enumerate(ordered, 1) if p <= DISCOVERY_RATE * rank / len(ordered)), default=-1.0)
    found = []
    for o in outcomes:
        status = o.status
        if o.p is not None and status != "pass":
            status = "fail" if o.p <= limit else "inconclusive"
        sentence = o.sentence
        if o.status == "fail" and status == "inconclusive":
            sentence = sentence.removesuffix(".") + ", which among so many values may be chance."
        elif o.status == "inconclusive" and status == "fail":
            sentence = sentence.removesuffix(f"{STRADDLES}.") + ", and so many values beyond it are not chance."
        found.append(o.model_copy(update={"status": status, "action": _action(rule, status), "sentence": sentence}))
    return found


def _judge_place(index: _Index, rule: Rule, bound: Bound, place: Place, segment: Segment) -> RuleOutcome:
    policy, _, head, _, _ = place
    metric, difference = index.metrics[place], index.differences.get(place)
    base = difference.baseline if difference else None
    judged: Metric | Estimate | None = metric
    if bound.quantity != "value":
        judged = getattr(difference, bound.quantity) if difference else None
    quantity, low, high = (judged.value, judged.low, judged.high) if judged else (None, None, None)
    lacking = _lacking(index, rule, segment)
    subject = f"{_metric_name(rule, head)} of {policy}{_place_words(segment, index.result.data.campaign_names)}"
    if lacking:
        sentence = f"{subject} is not judged: {lacking}."
        return _outcome(rule, policy, head, segment, "insufficient_data", bound, sentence, metric.value, base)
    if quantity is None:
        sentence = f"{subject} is undefined here (a zero denominator or no labels), so it can't be judged."
        return _outcome(rule, policy, head, segment, "insufficient_data", bound, sentence, metric.value, base)
    interval = None if low is None or high is None else (low, high)
    said = f"{subject} {_said(bound, quantity, metric.value, base, interval)}; the rule {_allows(rule, bound)}"
    status: Status = "pass" if bound.holds(quantity) else "fail"
    if rule.evidence == "interval" and interval is None:
        sentence = f"{said}, but there is not enough data for an interval."
        return _outcome(rule, policy, head, segment, "insufficient_data", bound, sentence, metric.value, base)
    if interval is None:
        return _outcome(rule, policy, head, segment, status, bound, f"{said}.", metric.value, base)
    error = (interval[1] - interval[0]) / 2 / float(ndtri(0.5 + index.confidence / 2))
    p = None
    if rule.evidence == "interval":
        excess = bound.excess(quantity)
        p = float(ndtr(-excess / error)) if error > 0 else float(excess <= 0)
        inside = bound.holds(interval[0]) and bound.holds(interval[1])
        status = "pass" if inside else "fail" if bound.excludes(*interval) else "inconclusive"
    sentence = f"{said}{STRADDLES if status == 'inconclusive' else ''}."
    outcome = _outcome(rule, policy, head, segment, status, bound, sentence, metric.value, base)
    update = {"low": interval[0], "high": interval[1], "detectable": DETECTABLE * error, "p": p}
    return outcome.model_copy(update=update)


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


def _action(rule: Rule, status: Status) -> Action:
    return {
        "pass": "pass",
        "fail": rule.on_fail,
        "not_found": rule.on_fail,
        "inconclusive": rule.on_inconclusive,
        "unidentified": rule.on_unidentified,
        "insufficient_data": rule.on_insufficient_data,
    }[status]


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
    return RuleOutcome(
        rule=_title(rule),
        policy=policy,
        metric=rule.metric,
        head=head,
        segment=segment,
        status=status,
        action=_action(rule, status),
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


def _said(
    bound: Bound, quantity: float, value: float | None, baseline: float | None, interval: tuple[float, float] | None
) -> str:
    if bound.quantity == "value":
        return f"is {quantity:,.5g}" + (f" [{interval[0]:,.5g}, {interval[1]:,.5g}]" if interval else "")
    relative = bound.quantity == "relative"
    size = f"{abs(quantity) * 100:.3g}%" if relative else f"{abs(quantity):.4g}"
    verb = "does not change" if quantity == 0 else f"{'rises' if quantity > 0 else 'falls'} by {size}"
    if interval and quantity != 0:
        ends = sorted(x if quantity > 0 else -x for x in interval)
        verb += " [" + ", ".join(f"{x * 100:.3g}%" if relative else f"{x:.4g}" for x in ends) + "]"
    return f"{verb} ({baseline or 0:,.6g} to {value or 0:,.6g})"


def _allows(rule: Rule, bound: Bound) -> str:
    if rule.min_improvement is not None:
        return f"asks for {bound.words}"
    return f"allows {'values ' if rule.between else ''}{bound.words}"
