"""What the log could and could not tell: coverage, unknown rows, fidelity, and predictions beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bidsim.report import format as f
from bidsim.report.lookup import Lookup
from bidsim.report.words import label, writer


@dataclass(frozen=True)
class Plain:
    """A table of strings: its columns, and rows that begin with their heading."""

    columns: list[str]
    rows: list[list[str]]


PER_POLICY = ("coverage", "unknown_wins", "unknown_outcomes", "invalid_predictions", "clipped_predictions")


def unknowns(lookup: Lookup) -> Plain:
    """Per policy what was counted and what could not be."""
    result = lookup.result
    told = result.diagnostics.get("policies")
    by_policy = told if isinstance(told, dict) else {}
    rows = []
    for policy in result.policies:
        mine = by_policy.get(policy.name)
        mine = mine if isinstance(mine, dict) else {}
        row = [policy.name]
        for metric in PER_POLICY:
            value = mine.get(metric, lookup.value(policy.name, metric))
            row.append(writer(metric, lookup.money)(_number(value)))
        rows.append(row)
    return Plain(["Policy", *(label(m) for m in PER_POLICY)], rows)


def reactions(lookup: Lookup) -> str:
    """What no log knows, whatever its rows say, and how often it meets the same unit."""
    data = lookup.result.data
    caused = "Conversions are what attribution gave to these impressions, not what they caused. "
    met = ""
    if data.units:
        met = f" (this log has {f.significant(data.rows / data.units, 2)} rows of each unit on average)"
    return (
        f"{caused if lookup.has('conversions') else ''}Nobody reacts in a replay: not users, who would see more ads or "
        f"fewer{met}, nor exchanges and competitors, who answer other bids."
    )


def log_rows(lookup: Lookup) -> list[tuple[str, str]]:
    """What is the log's and not a policy's: (what, how many)."""
    found = lookup.result.diagnostics
    names = {
        "undecidable": "Undecidable rows (neither a price nor a logged result; left out for every policy)",
        "invalid_weights": "Rows left out for their weight",
        "invalid_prices": "Rows whose price is unusable (treated as without a price)",
        "invalid_labels": "Rows whose click or conversion is unusable (treated as without a label)",
    }
    rows = [(text, f.count(_number(found[key]))) for key, text in names.items() if key in found]
    drift = lookup.result.fidelity.formula_drift
    drift = drift if drift is not None else _number(found.get("formula_drift"))
    rows.append(("Formula drift: rows whose recomputed baseline bid is off by over 1%", f.share(drift)))
    return rows


EXCHANGE = {"exchange", "rows", "auction", "looks_like", "policies", "would_settle"}
CLASSES = {
    "exact": "Known",
    "exact_loss": "Surely lost",
    "unknown_win": "Win unknown",
    "unknown_outcome": "Outcome unknown",
    "undecidable": "Undecidable",
}


def exchanges(lookup: Lookup) -> Plain | None:
    """Per exchange and policy which share of the rows can be known."""
    rows = []
    told = _exchanges(lookup)
    for name, each in told:
        auction = str(each["auction"]).replace("_", " ")
        if each["looks_like"] not in (None, each["auction"]):
            auction += f", looks like {str(each['looks_like']).replace('_', ' ')}"
        for policy, shares in each["policies"].items():
            cells = [f.share(_number(shares[kind])) for kind in CLASSES]
            rows.append([name, f.clean_name(policy), f.count(each["rows"]), auction, *cells])
    return Plain(["Exchange", "Policy", "Rows", "Auction", *CLASSES.values()], rows) if rows else None


def would_settle(lookup: Lookup) -> Plain | None:
    """Per exchange which log column would decide how many of its rows."""
    rows = [
        [name, s["column"], s["what"], f.share(s["rows"])]
        for name, each in _exchanges(lookup)
        for s in each["would_settle"]
    ]
    return Plain(["Exchange", "Log column", "What it would tell", "Rows it would decide"], rows) if rows else None


def _exchanges(lookup: Lookup) -> list[tuple[str, dict[str, Any]]]:
    told = lookup.result.diagnostics.get("exchanges")
    if not isinstance(told, list):
        return []
    known = [e for e in told if isinstance(e, dict) and e.keys() >= EXCHANGE]
    return [("all" if e["exchange"] is None and len(told) == 1 else str(e["exchange"]), e) for e in known]


def curse(lookup: Lookup) -> Plain | None:
    """Winner's curse: what each policy predicted for its own wins beside what was observed on them."""
    rows = []
    for policy in lookup.result.policies:
        row = [policy.name]
        known = False
        for metric, head in (("clicks", "ctr"), ("conversions", "ctcvr")):
            predicted = lookup.value(policy.name, f"predicted_{metric}")
            observed = lookup.value(policy.name, metric)
            ratio = predicted / observed if predicted is not None and observed else None
            if lookup.predicted and predicted is not None:
                # What counts in expectation was not observed; the ratio of what was is a number of its own.
                ratio = lookup.value(policy.name, "calibration_on_wins", head)
                observed = round(predicted / ratio, 6) if ratio else 0.0
            known = known or predicted is not None
            row += [f.count(predicted), f.count(observed), f.fixed(ratio, 3)]
        if known:
            rows.append(row)
    kinds = ["clicks", "conversions"]
    columns = ["Policy", *(text for k in kinds for text in (f"Predicted {k}", f"Observed {k}", "Predicted / observed"))]
    return Plain(columns, rows) if rows else None


def fidelity(lookup: Lookup) -> tuple[str, Plain | None]:
    """One sentence on whether the replay reproduces the log, and the two sides of it."""
    found = lookup.result.fidelity
    if not found.checked:
        return "The log has no bids of its own, so it could not be checked that the replay reproduces it.", None
    mismatched = found.mismatched_rows or 0
    if found.passed:
        sentence = "The logged bids, replayed, reproduce the log exactly."
    else:
        sentence = (
            f"The logged bids, replayed, do not reproduce the log: {f.plural(mismatched, 'row')} "
            f"{'comes' if mismatched == 1 else 'come'} out otherwise than logged."
            f"{lookup.result.told('won_without_bid')}"
        )
    rows = []
    for name in dict.fromkeys([*found.log, *found.replayed]):
        write = writer(name, lookup.money)
        rows.append([label(name), write(found.log.get(name)), write(found.replayed.get(name))])
    return sentence, Plain(["", "As logged", "Replayed"], rows) if rows else None


def exact(lookup: Lookup) -> str:
    """Which policies' economic numbers are exact whatever the unknown rows did."""
    sure = []
    for policy in lookup.result.policies:
        found = lookup.metric(policy.name, "spend")
        if found and found.identified and found.identified.low == found.identified.high is not None:
            sure.append(policy.name)
    return f.listed(f.clean_name(name) for name in sure)


def many_judged(judged: int | None) -> str:
    """What picking among several candidates on one log costs; nothing where there is only one.

    One bound at a one-sided 2.5% lets k candidates without any effect pass by chance in 1 - 0.975^k of the cases.
    """
    if judged is None or judged < 2:
        return ""
    chance = f.share(1 - 0.975**judged)
    return (
        f"{judged:,} candidates have been judged on this data. The best of so many owes something to luck: a bound that "
        f"chance alone passes 2.5% of the time is passed by one of {judged:,} in {chance}. Confirm the choice on newer data."
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
