"""What a reviewer must know before trusting the numbers: rows that could not be used, wins that could not be known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bidsim.replay.census import MANY_CONVERSIONS
from bidsim.replay.plan import Plan
from bidsim.replay.policies import BASELINE, PolicyPlan
from bidsim.result import Finding, Metric
from bidsim.statistics.tallies import Family

# Share of rows from which on a baseline that bids otherwise than production did is said first.
MUCH_DRIFT = 0.1
# Share of the baseline's spend that a multiplier at matched spend may leave without a word.
MUCH_LEFT = 0.01
# Share of rows from which on those that are left out for want of a price are a warning.
MUCH_UNDECIDABLE = 0.05


def _counted(number: float, one: str, many: str) -> str:
    """ "1 row has", "12,345,678 rows have"; a weighted number keeps a fraction only while it could matter."""
    written = f"{number:,.0f}" if number >= 1000 or float(number).is_integer() else f"{number:,.4g}"
    return f"{written} {one if number == 1 else many}"


def _removal(plan: Plan, removed: Sequence[tuple[str, int, int]]) -> Finding:
    if not (plan.has("campaign") and plan.has("click") and plan.has("conversion")):
        message = "remove_anomaly_cvr_cpns needs campaign, click and conversion columns; nothing could be checked."
        return Finding(code="anomaly_cvr", severity="warning", message=message)
    listed = ", ".join(
        f"{name} ({_counted(c, 'click', 'clicks')}, {_counted(v, 'conversion', 'conversions')})"
        for name, c, v in removed[:20]
    )
    more = len(removed) - 20
    what = (
        f"Left out for every policy, more conversions than clicks: {listed}{f' and {more} more' if more > 0 else ''}."
        if listed
        else "No campaign has more conversions than clicks."
    )
    return Finding(
        code="anomaly_cvr",
        severity="warning" if listed else "info",
        message=what,
    )


def jumped(jumps: Sequence[tuple[str, str, float, float]]) -> Finding:
    """jumps: (campaign, day, conversion rate of the day, of the days before it) of campaigns that were left out."""
    listed = ", ".join(f"{name} ({day}: {now:.2%} after {before:.2%})" for name, day, now, before in jumps[:20])
    more = f" and {len(jumps) - 20} more" if len(jumps) > 20 else ""
    return Finding(
        code="anomaly_cvr_jump",
        severity="warning",
        message=f"Left out for every policy, conversions per click jump from one day to the next: {listed}{more}.",
    )


def unfunded(rows: int) -> Finding:
    """rows: of the log whose budget is missing."""
    return Finding(
        code="budget_missing",
        severity="warning",
        message=f"{_counted(rows, 'row has', 'rows have')} no budget.amount, so no policy bids on {'it' if rows == 1 else 'them'}; "
        "give campaigns without a limit one, such as coalesce(daily_budget, 1e9).",
    )


def two_sources(role: str, rows: int) -> Finding:
    """rows: of the log whose own target or budget is not that of the campaign table."""
    return Finding(
        code="two_sources",
        severity="warning",
        message=f"{_counted(rows, 'row has', 'rows have')} another {role} in the log than in the campaign "
        f"table, and the log's is used; "
        f"write columns: {{{role}: {role}}} if it is meant, or rename the log's column to have the table's.",
    )


def won_without_bid(rows: int) -> Finding:
    """rows: that the log won without a bid that could be replayed."""
    return Finding(
        code="won_without_bid",
        severity="warning",
        message=f"{_counted(rows, 'row was', 'rows were')} won without a logged bid, so {'its win' if rows == 1 else 'their wins'} "
        "can't be reproduced; "
        "mend columns.bid, or leave such rows out by a condition.",
    )


def drifted(share: float | None) -> Iterator[Finding]:
    """share: of the rows whose recomputed baseline bid is more than 1% off the logged one."""
    if share is not None and share > MUCH_DRIFT:
        yield Finding(
            code="formula_drift",
            severity="warning",
            message=f"The baseline's bid is more than 1% off the logged one in {share:.1%} of the rows: unless production "
            "explores, shades or paces its bids on purpose, formula, targets or model are not what it bids with.",
        )


def unmatched(metrics: Sequence[Metric]) -> Iterator[Finding]:
    """Candidates whose multiplier at matched spend leaves much of the baseline's spend."""
    overall = {(m.policy, m.metric): m.value for m in metrics if not m.segment}
    for policy in dict.fromkeys(m.policy for m in metrics):
        for cost, results in (("cpa", "conversions"), ("cpc", "clicks")):
            each, count = (overall.get((policy, f"{name}_at_matched_spend")) for name in (cost, results))
            spend = overall.get((BASELINE, "spend"))
            if each is not None and count is not None and spend and 1 - each * count / spend > MUCH_LEFT:
                yield Finding(
                    code="unmatched_spend",
                    severity="info",
                    message=f'At matched spend "{policy}" spends {1 - each * count / spend:.1%} less than the baseline: no '
                    "multiplier of its bids comes nearer without spending more, so less spend explains part of a lower "
                    f"{cost.upper()} there.",
                )
                break


def absent(plan: Plan, campaigns: Family | None) -> Iterator[Finding]:
    """Campaigns of the log that the campaign table lacks. campaigns: the log by campaign."""
    if plan.campaigns is None or campaigns is None:
        return
    rows = campaigns.get("weight")
    lacking = [(name, n) for name, n in zip(campaigns.values, rows, strict=True) if name not in plan.campaigns.keys]
    if lacking:
        none = len(lacking) == len(campaigns.values)
        has = sorted(plan.campaigns.keys)
        listing = f"; the table has {', '.join(has[:5])}{' ...' if len(has) > 5 else ''}" if none else ""
        count, listed = sum(n for _, n in lacking), ", ".join(name for name, _ in lacking[:20])
        yield Finding(
            code="campaigns_missing",
            severity="error" if none else "warning",
            message=f"{_counted(count, 'row is', 'rows are')} of {len(lacking)} "
            f"campaign{'s' * (len(lacking) != 1)} that the campaign table lacks "
            f"({listed}{' ...' if len(lacking) > 20 else ''}{listing}): nothing is bid where what it gives is needed.",
        )


def find_all(
    plan: Plan, census: Mapping[str, int], overall: Family, removed: Sequence[tuple[str, int, int]] | None
) -> Iterator[Finding]:
    """Findings in the order in which a reviewer wants them: what was wrong with rows, then what each policy met.

    overall: sums of the whole log; removed: (campaign, clicks, conversions) left out as anomalous, None: not asked for.
    """
    for code, message in plan.warnings:
        yield Finding(code=code, severity="warning", message=message)
    yield from plan.findings
    if removed is not None:
        yield _removal(plan, removed)
    for key, what, then in (
        ("invalid_weights", "a missing, negative or unusable weight (at most 2^20)", "left out"),
        ("invalid_prices", "a negative, NaN or unusable price", "treated as without a price"),
        ("invalid_clicks", "a click that is neither 0 nor 1", "treated as without a click label"),
        ("invalid_conversions", "a negative or NaN conversion count", "treated as without a conversion label"),
    ):
        if census[key]:
            many = _counted(census[key], "row has", "rows have")
            they = "it was" if census[key] == 1 else "they were"
            yield Finding(code=key, severity="warning", message=f"{many} {what}; {they} {then}.")
    if census["small_weights"]:
        yield Finding(
            code="small_weights",
            severity="warning",
            message=f"{_counted(census['small_weights'], 'row has', 'rows have')} a weight below 1/1024, of "
            "which counts keep 2^-32 and no less; "
            "multiply all weights by one number, which changes no ratio.",
        )
    unlabelled = census["clicks_without_conversion_label"]
    if plan.has("conversion") and unlabelled:
        hint = " The column has no 0 at all: if NULL means no conversion, write coalesce(...)." * (
            census["zero_conversions"] == 0
        )
        yield Finding(
            code="unlabelled_clicks",
            severity="warning",
            message=f"{_counted(unlabelled, 'clicked row has', 'clicked rows have')} no conversion label "
            f"and {'is' if unlabelled == 1 else 'are'} not counted.{hint}",
        )
    yield from _implausible(census)
    for policy in plan.policies:
        yield from _of_policy(policy, overall, bids_logged=plan.has("bid"))
    undecidable = overall.get("undecidable")[0]
    if undecidable:
        yield Finding(
            code="undecidable",
            severity="warning" if undecidable > MUCH_UNDECIDABLE * overall.get("weight")[0] else "info",
            message=f"{_counted(undecidable, 'row has', 'rows have')} no price and {'is' if undecidable == 1 else 'are'} not "
            f"logged as lost, so what a win costs is unknown; {'it is' if undecidable == 1 else 'they are'} left out for every "
            "policy.",
        )
    if plan.budgeted:
        yield Finding(
            code="budget",
            severity="info",
            message="Budgets make rows depend on each other: matched-spend numbers are given overall only, "
            "to about 0.3% of the multiplier.",
        )


def _implausible(census: Mapping[str, int]) -> Iterator[Finding]:
    """Columns that can hardly be what the scenario takes them for."""
    if census["clicks_of_lost"]:
        yield Finding(
            code="clicks_of_lost",
            severity="warning",
            message=f"{_counted(census['clicks_of_lost'], 'row is', 'rows are')} logged as lost with a click, which is not "
            "counted; check "
            "columns.won and columns.click.",
        )
    if census["losses_with_reason"] and not census["losses_by_price"]:
        yield Finding(
            code="losses_by_price",
            severity="warning",
            message=f"{_counted(census['losses_with_reason'], 'lost row has', 'lost rows have')} a loss_reason and none has 100, "
            "101 or 102 (OpenRTB's "
            "codes of losses by price), so all of them are taken as lost whatever is bid; where the codes are others, map "
            "them in columns.loss_reason by case when.",
        )
    if 2 * census["conversions_of_many"] > census["conversions_logged"]:
        yield Finding(
            code="conversions_of_many",
            severity="warning",
            message=f"{census['conversions_of_many']:,} of {census['conversions_logged']:,} rows with conversions have more "
            f"than {MANY_CONVERSIONS}, and so many are counted; where the column is an amount of money, write "
            'columns: {conversion: "column > 0"}.',
        )
    for role in ("target_cpc", "target_cpa"):
        if lacking := census.get(f"without_{role}", 0):
            yield Finding(
                code="target_missing",
                severity="warning",
                message=f"{_counted(lacking, 'row has', 'rows have')} no {role} above 0, so nothing is bid there; give campaigns "
                "one, or leave them out by a condition.",
            )
    if not census["weights"]:
        yield Finding(
            code="weightless",
            severity="error",
            message="No row has a weight above 0 that can be used, so nothing is counted; check columns.weight, which is how many "
            "rows of the market a row stands for.",
        )
    if census["weights_below_one"] and not census["weights_above_one"] and not census["small_weights"]:
        yield Finding(
            code="weights_below_one",
            severity="warning",
            message=f"{_counted(census['weights_below_one'], 'row has', 'rows have')} a weight below 1 and none has one above: a "
            "weight is how many "
            "rows of the market a row stands for; where the column is the share of rows that were kept, write "
            'columns: {weight: "1 / column"}.',
        )


def _of_policy(policy: PolicyPlan, overall: Family, *, bids_logged: bool) -> Iterator[Finding]:
    invalid = overall.get("invalid_predictions", policy.index)[0]
    if invalid:
        yield Finding(
            code="invalid_predictions",
            severity="warning",
            message=f'"{policy.name}" has {_counted(invalid, "row", "rows")} with a missing, NaN or out-of-range '
            "prediction: not bid on "
            "(a missing one only where the formula says so), and left out of its prediction metrics, which are then over "
            "fewer rows than the others'.",
        )
    spend, unobserved = (overall.observed(name, policy.index)[0] for name in ("spend", "unobserved_spend"))
    coverage = spend / (spend + unobserved) if spend + unobserved else 1.0
    if coverage < 0.95:
        yield Finding(
            code="coverage",
            severity="warning",
            message=f'Only {coverage:.1%} of the spend of "{policy.name}" is on impressions whose outcome the log observed.',
        )
    unknown = overall.get("unknown_wins", policy.index)[0]
    if unknown:
        one = unknown == 1
        yield Finding(
            code="unknown_wins",
            severity="info",
            message=f'"{policy.name}" bids {"above the logged bid " if bids_logged else ""}on '
            f"{_counted(unknown, 'lost auction', 'lost auctions')} without a known price{'' if bids_logged else ' or logged bid'}; "
            f"whether it wins {'it' if one else 'them'} can't be told from this log, and {'it' if one else 'they'} "
            + (
                f"count{'s' if one else ''} in expectation."
                if overall.expected
                else f"{'is' if one else 'are'} not counted."
            ),
        )
    if policy.borrowed_heads:
        yield Finding(
            code="borrowed_heads",
            severity="info",
            message=f'"{policy.name}" has no {", ".join(policy.borrowed_heads)} head; the baseline\'s is used.',
        )
