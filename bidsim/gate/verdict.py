"""Rules against a result. Pure: reads only the result, so a saved result can be judged again with other rules.

`judging` says what a rule finds at one place; here are what needs more than one place and the verdict. Over the values
of a segment "all must hold" passes without correction (an intersection-union test), and failures are declared at a
false discovery rate of 10% (Benjamini, Hochberg 1995) on one-sided p-values. A metric that exists but is undefined, has
no interval or too little data behind it, is insufficient data; one that does not exist is not found, which fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bidsim.gate.bounds import bound_of
from bidsim.gate.index import Index
from bidsim.gate.judging import Judgement, action_of, judge_place, outcome_of
from bidsim.gate.sentences import STRADDLES, title
from bidsim.gate.waivers import CODES, reminders, waive
from bidsim.result import Gate, Result, RuleOutcome, Status
from bidsim.scenario.explaining import nearest
from bidsim.scenario.schema import Rule

DISCOVERY_RATE = 0.10
GUARD = "too good to be true (built in)"
# Gains that have mostly been leaks: a scenario's own `suspicious` rule for the metric takes the place of these.
GUARDS = {"auc": 0.03, "cpa": "30%", "cpc": "30%"}


def judge(result: Result, rules: Sequence[Rule], *, fidelity_warns: bool) -> Result:
    """The result with its gate, on the result's as-of day. fidelity_warns: a failed fidelity check warns only."""
    index = Index(result)
    outcomes = [
        outcome
        for rule in rules
        for policy in ([rule.policy] if rule.policy else result.candidates)
        for outcome in waive(_discoveries(rule, list(_judge_rule(index, rule, policy))), rule, result.as_of)
    ]
    outcomes += _guards(index, rules)
    kept = [f for f in result.findings if f.code not in CODES]
    return result.model_copy(
        update={
            "gate": _verdict(result, outcomes, bool(rules), fidelity_warns),
            "findings": [*kept, *reminders(rules, result.as_of)],
        }
    )


def _guards(index: Index, rules: Sequence[Rule]) -> Iterator[RuleOutcome]:
    """Gains too good to be true that no rule of the scenario looks for: only where there are such."""
    own = {rule.metric for rule in rules if rule.suspicious is not None}
    for metric, most in GUARDS.items():
        if metric in own:
            continue
        for head in index.heads.get(metric, []):
            name = f"{GUARD}: {metric}" + (f" ({head})" if head else "")
            rule = Rule.model_validate({"metric": metric, "head": head, "suspicious": most, "name": name})
            for policy in index.result.candidates:
                yield from (j.outcome for j in _judge_rule(index, rule, policy) if j.outcome.status == "fail")


def _verdict(result: Result, outcomes: list[RuleOutcome], ruled: bool, fidelity_warns: bool) -> Gate:
    broken = result.fidelity.passed is False
    off = result.fidelity.mismatched_rows
    why = (
        f"The replay does not reproduce the log: {off} {'row' if off == 1 else 'rows'} of the logged bids "
        f"{'comes' if off == 1 else 'come'} out otherwise than logged.{result.told('won_without_bid')}"
    )
    failed = [o for o in outcomes if o.action == "fail" and not o.waived]
    warned = [o for o in outcomes if o.action == "warn" and not o.waived]
    if broken and not fidelity_warns:
        return Gate(verdict="fail", reason=why, rules=outcomes)
    if failed:
        return Gate(verdict="fail", reason=failed[0].sentence + _more(len(failed), "fail"), rules=outcomes)
    if not ruled or not outcomes:
        reason = "The scenario has no gate rules, so nothing was judged."
        reason += f" {why}" if broken else f" {warned[0].sentence}" if warned else ""
        return Gate(verdict="no_gate", reason=reason, rules=outcomes)
    if broken:
        return Gate(verdict="warn", reason=why, rules=outcomes)
    if warned:
        return Gate(verdict="warn", reason=warned[0].sentence + _more(len(warned), "warn"), rules=outcomes)
    return Gate(verdict="pass", reason=_passing(outcomes), rules=outcomes)


def _passing(outcomes: Sequence[RuleOutcome]) -> str:
    held, waived = sum(o.status == "pass" for o in outcomes), sum(o.waived for o in outcomes)
    if held == len(outcomes):
        return f"All {held} judgements pass." if held != 1 else "The one judgement passes."
    said = f"{held} of {len(outcomes)} judgements pass"
    if not waived:
        return f"{said}; the rules say to ignore the others."
    others = "; the rules say to ignore the others" if held + waived < len(outcomes) else ""
    return f"{said}, {waived} {'is' if waived == 1 else 'are'} waived{others}."


def _more(count: int, verb: str) -> str:
    return f" {count - 1} more {verb if count > 2 else verb + 's'}." if count > 1 else ""


def _judge_rule(index: Index, rule: Rule, policy: str) -> Iterator[Judgement]:
    bound = bound_of(rule)
    head, problem = index.head(rule)
    beta = index.beta(rule)
    segments = index.segments.get(rule.by, []) if rule.by else [{}]
    if policy not in index.result.candidates:
        problem = f'there is no candidate "{policy}"'
    elif rule.metric not in index.heads:
        problem = f'the result has no metric "{rule.metric}"{nearest(rule.metric, index.heads)}'
    elif head not in (heads := index.heads[rule.metric]) and not problem:
        known = ", ".join(h for h in heads if h)
        problem = (
            f'"{rule.metric}" is not given for head {head}, {f"only for {known}" if known else "but without a head"}'
        )
    elif rule.by and not segments:
        problem = f'the scenario has no segment "{rule.by}"; add it to segments'
    elif bound is None:
        problem = f'"{rule.metric}" has no better direction; bound it with max_increase or max_decrease'
    if problem or bound is None:
        yield Judgement(outcome_of(rule, (policy, head, {}), "not_found", f"{title(rule)}: {problem}."))
        return
    found = False
    for segment in segments:
        place = (policy, rule.metric, head, tuple(segment.items()), beta)
        if place in index.metrics:
            found = True
            yield judge_place(index, rule, bound, place, segment)
    if not found:
        sentence = f'{title(rule)}: "{rule.metric}" is not given{f" by {rule.by}" if rule.by else ""} for {policy}.'
        yield Judgement(outcome_of(rule, (policy, head, {}), "not_found", sentence))


def _discoveries(rule: Rule, judgements: list[Judgement]) -> list[RuleOutcome]:
    """Over many segment values, failures by Benjamini and Hochberg's step-up procedure; the others straddle.

    A failure that the rows which the log can't decide could undo is unidentified.
    """
    ordered = sorted(j.outcome.p for j in judgements if j.outcome.p is not None)
    many = rule.by is not None and len(ordered) > 1
    ranks = [rank for rank, p in enumerate(ordered, 1) if p <= DISCOVERY_RATE * rank / len(ordered)]
    # Equal to the largest p found for those that are there, and comparable with a p that they could have.
    limit = DISCOVERY_RATE * ranks[-1] / len(ordered) if ranks else -1.0
    found = []
    for j in judgements:
        o, anyway = j.outcome, j.fails_anyway
        status: Status = o.status
        sentence = o.sentence
        if many and o.p is not None and status in ("fail", "inconclusive"):
            status = "fail" if o.p <= limit else "inconclusive"
            anyway = j.lenient_p is None or j.lenient_p <= limit
            if o.status == "fail" and status == "inconclusive":
                sentence = sentence.removesuffix(".") + ", which among so many values may be chance."
            elif o.status == "inconclusive" and status == "fail":
                sentence = sentence.removesuffix(f"{STRADDLES}.") + ", and so many values beyond it are not chance."
        if status == "fail" and not anyway:
            status, sentence = "unidentified", sentence.removesuffix(".") + f"{j.unsure}."
        update = {"status": status, "action": action_of(rule, status), "sentence": sentence}
        found.append(o.model_copy(update=update))
    return found
