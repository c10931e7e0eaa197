"""Which pictures a result gives: each with its chart, its words, and what the tokens in it stand for.

The page draws them inline, `pictures` writes them as files, `interactive` lets the browser draw them again.
"""

from __future__ import annotations

import math

from bidsim.report import plots
from bidsim.report.drawing import Drawing
from bidsim.report.lookup import Lookup
from bidsim.report.segments import Shifts, shifts
from bidsim.report.training import of_training
from bidsim.report.words import HEAD_WORDS, label

# A frontier's cost per result is drawn from this many results on.
FEWEST = 20


def of_head(lookup: Lookup, head: str, words: str) -> list[Drawing]:
    """Calibration of one head: observed against predicted, and their ratio."""
    curves = lookup.curves(head)[: plots.CANDIDATES + 1]
    band = gate_band(lookup, head)
    tips = (("predicted", "mean predicted", ".4~p"), ("observed", "observed", ".4~p"))
    found = []
    for name, plot, title, text in (
        (
            "reliability",
            plots.reliability(curves),
            "Observed against predicted",
            "A line on the diagonal is calibrated.",
        ),
        (
            "ratio",
            plots.ratio(curves, band),
            "Observed / predicted",
            "Above 1 the policy predicts too little, below 1 too much.",
        ),
    ):
        if plot is not None:
            described = (
                f"{title}, {words}, in equal-mass bins, one line a policy. {text} The numbers follow as a table."
            )
            alone = f"{head.upper()}: {title[0].lower()}{title[1:]}"
            found.append(Drawing(f"{name}-{head}", title, described, plot, tips=tips, alone=alone))
    return found


def gate_band(lookup: Lookup, head: str) -> tuple[float, float] | None:
    """Observed / predicted where the gate's rule on calibration (predicted / observed, overall) passes."""
    for o in lookup.result.gate.rules:
        mine = o.metric == "calibration" and o.head == head and not o.segment
        if mine and o.judged == "value" and o.allowed is not None:
            low, high = o.allowed.low, o.allowed.high
            top = 1 / low if low is not None and low > 0 else math.inf
            return (1 / high if high is not None and high > 0 else 0.0, top)
    return None


def of_frontier(lookup: Lookup) -> list[Drawing]:
    """Results, and the cost of one, by spend as all bids of a policy are multiplied."""
    result = lookup.result
    policies = [p.name for p in result.policies]
    rows = plots.frontier_rows(result.frontier, policies, lookup.results, FEWEST)
    # The frontier is of observed outcomes, whatever else counts.
    ones = [p.spend for p in result.frontier if p.policy == result.baseline and abs(p.multiplier - 1) < 1e-9]
    spend = ones[0] if ones else lookup.base("spend")
    unit = f" ({lookup.money.code})" if lookup.money.code else ""
    tips = (
        ("order", "multiplier", ".3~f"),
        ("spend", "spend", ",.0f"),
        ("results", lookup.results, ",.1~f"),
        ("cost", label(lookup.indicator), ",.4~r"),
    )
    found = []
    for name, y_title in (("results", lookup.results), ("cost", f"{label(lookup.indicator)}{unit}")):
        plot = plots.frontier(rows, spend, name, y_title, f"spend{unit}")
        if plot is not None:
            title = f"{y_title[0].upper()}{y_title[1:]} by spend"
            described = f"{title} as all bids of a policy are multiplied; vertical line: the baseline's spend."
            found.append(Drawing(f"frontier-{name}", title, described, plot, tips=tips))
    return found


def of_campaigns(lookup: Lookup) -> tuple[Drawing, Shifts] | None:
    """The change by campaign as a forest plot, and what it shows."""
    found = shifts(lookup, plots.CANDIDATES, plots.LABEL_COLUMNS)
    if found is None or not found.labels:
        return None
    labels = {f"r{n}": pair for n, pair in enumerate(zip(found.labels, found.names, strict=True))}
    cost = label(lookup.indicator)
    plot = plots.campaigns(found, "change of spend", f"change of {cost} (left: cheaper)")
    count = len(found.labels)
    described = (
        f"Relative change of spend and of {cost} by campaign, {count} campaigns by falling baseline spend. "
        "The numbers follow in the table by segment."
    )
    title = f"{count:,} campaign{'s' * (count != 1)}, by falling baseline spend"
    tips = (("value", "change", "+.1~%"), ("low", "from", "+.1~%"), ("high", "to", "+.1~%"))
    return Drawing("campaigns", title, described, plot, labels, tips, policies=1), found


def all_drawings(lookup: Lookup) -> list[Drawing]:
    """The main charts of a result, in the order of the page."""
    found = [d for head in lookup.heads for d in of_head(lookup, head, HEAD_WORDS.get(head, head))]
    campaigns = of_campaigns(lookup)
    return [*found, *of_frontier(lookup), *([campaigns[0]] if campaigns else []), *of_training(lookup)]
