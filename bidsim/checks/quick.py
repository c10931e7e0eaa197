"""The checks that a replay can afford: counts that its scan leaves, rows by hour, and a look at some rows.

They read the same views as the replay, so windows, conditions and roles are those of the scenario.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from bidsim.checks.catalogue import Outcome, Severity, found, ok, skipped
from bidsim.checks.counted import Counted, count_rows
from bidsim.replay.engines import AnyEngine
from bidsim.replay.exchanges import LEAST_WINS, LOOKS_FIRST_PRICE
from bidsim.replay.plan import Plan

FEWEST_ROWS_OF_HOUR = 20
MOST_HOURS = 200
FEWEST_POSITIVES = 50
FEW_UNITS, FEW_CONVERSIONS = 20, 30


# Above MANY rows a replay reckons ratios of money and predictions from some only: the first FIRST of the log, or, where
# rows are in another order than the log's, one in THIN, told by its time. An engine that keeps no order reads them all.
MANY, FIRST, THIN = 1_000_000, 250_000, 17


def quick_checks(
    engine: AnyEngine,
    plan: Plan,
    rows: int,
    counted: Counted | None = None,
    formulas: str = "formulas",
    *,
    all_rows: bool = False,
) -> list[Outcome]:
    """Outcomes of the checks in `catalogue.QUICK`.

    rows: how many there are; counted: what the scan of a replay left, None to ask the engine; formulas: the view of them
    with every policy's raw bid; all_rows: never thin them out.
    """
    some = formulas
    if rows > MANY and not all_rows and engine.keeps_order:
        thinned = plan.budgeted and plan.time_kind
        some = f"(select * from {formulas} {f'where epoch_us(ts) % {THIN} = 0' if thinned else f'limit {FIRST}'})"
    counts = counted or count_rows(engine, plan, formulas, exact=rows <= MANY)
    row = _ratios(engine, plan, some)
    return [
        _hours(engine, plan, formulas),
        _price_above_bid(plan, counts),
        _units_of_money(plan, row),
        _down_sampling(plan, row),
        training_overlap(plan, _instants(engine, plan, formulas) if _says_when(plan) else None),
        _dominance(plan, counts),
        _few(plan, counts),
        _labels(plan, counts),
    ]


# isfinite comes first: to the engine NaN is greater than every number.
PRICED = "isfinite(price_logged) and price_logged > 0e0"
PAIRS = f"won and not first_price and {PRICED} and bid_log > 0e0"


def _ratios(engine: AnyEngine, plan: Plan, formulas: str) -> dict[str, Any]:
    baseline = f"(raw_0 * {plan.policies[0].multiplier!r}::double)"
    bid = f"isfinite({baseline}) and {baseline} > 0e0"
    columns = {
        "price_to_bid": f"avg(case when {PAIRS} then ln(price_logged / bid_log) end)",
        "price_to_own": f"avg(case when {bid} and {PRICED} then ln(price_logged / {baseline}) end)",
        "own_to_bid": f"avg(case when {bid} and bid_log > 0e0 then ln({baseline} / bid_log) end)",
    }
    p = plan.prediction(0, "ctr") if plan.has("click") else None
    if p is not None:
        labelled = f"y_ctr is not null and {p} is not null"
        for name, weight in (("", "1e0"), ("w", "w"))[: 1 + plan.weighted]:
            columns[f"p{name}"] = f"sum(case when {labelled} then {weight} * {p} end)"
            columns[f"y{name}"] = f"sum(case when {labelled} then {weight} * y_ctr end)"
            columns[f"v{name}"] = f"sum(case when {labelled} then {weight} * {weight} * {p} * (1e0 - {p}) end)"
        columns["positives"] = f"count_if({labelled} and y_ctr = 1e0)"
    (row,) = engine.rows(f"select {', '.join(columns.values())} from {formulas}")
    found = dict(zip(columns, row, strict=True))
    return found if plan.weighted else found | {f"{name}w": found[name] for name in "pyv" if name in found}


def _hours(engine: AnyEngine, plan: Plan, formulas: str) -> Outcome:
    if not plan.time_kind:
        return skipped("C01", "the log has no time")
    hours = engine.rows(
        f"select hour, count(*) from (select epoch_us(ts) // 3600000000 as hour from {formulas} where ts is not null) "
        "group by hour"
    )
    counts = {int(h): int(n) for h, n in hours}
    typical = sorted(counts.values())[len(counts) // 2] if counts else 0
    if typical < FEWEST_ROWS_OF_HOUR:
        return ok("C01", hours=len(counts))
    zone = ZoneInfo(plan.zone.replace("''", "'"))
    hours_in_order = sorted(counts)
    # One row of 1970 makes a gap of half a million hours: gaps are counted, and only the first hours of them looked at.
    gaps = [range(a + 1, b) for a, b in pairwise(hours_in_order) if b > a + 1]
    if plan.time_kind == "wall":
        gaps = [gap for gap in gaps if len(gap) > 1 or _strikes(gap[0], zone)]
        zone = ZoneInfo("UTC")
    missing = sum(map(len, gaps))
    if not missing:
        return ok("C01", hours=len(counts))
    first = islice(chain.from_iterable(gaps), MOST_HOURS)
    shown = [datetime.fromtimestamp(h * 3600, UTC).astimezone(zone).strftime("%Y-%m-%d %H:00") for h in first]
    severity: Severity = "error" if missing > 0.1 * (missing + len(counts)) else "warning"
    return found(
        "C01",
        severity,
        f"{missing} of {missing + len(counts)} hours have no row, though an hour usually has {typical:,}: "
        f"{', '.join(shown[:5])}{' ...' if missing > 5 else ''}.",
        "Fetch them again, or move last_hour and duration_hour to a span without gaps.",
        missing=shown,
        typical=typical,
    )


def _strikes(hour: int, zone: ZoneInfo) -> bool:
    """Whether an hour of the wall clock comes at all: where summer time begins, one does not. hour: since 1970."""
    wall = datetime.fromtimestamp(hour * 3600, UTC).replace(tzinfo=None)
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall


def _price_above_bid(plan: Plan, counts: Counted) -> Outcome:
    if not plan.has("bid"):
        return skipped("C05", "the log has no bids of its own (columns.bid)")
    above, pairs = counts.above, counts.pairs
    if pairs >= LEAST_WINS and counts.equal >= LOOKS_FIRST_PRICE * pairs:
        return found(
            "C05",
            "error",
            f"{counts.equal:,} of {pairs:,} won second-price rows ({counts.equal / pairs:.2%}) have the logged bid as their "
            "price, as in a first-price auction.",
            "Set auction.type, or give the lowest bid that would have won as price.",
            rows=counts.equal,
            share=counts.equal / pairs,
        )
    if not above:
        return ok("C05", pairs=pairs)
    share = above / pairs
    return found(
        "C05",
        "error" if share > 0.05 else "warning",
        f"{above:,} of {pairs:,} won second-price rows ({share:.2%}) have a price above the logged bid.",
        "Check that bid and price are of the same auction, unit and currency, with or without fees alike; where the "
        "exchange is first price, set auction.type.",
        rows=above,
        share=share,
    )


def _units_of_money(plan: Plan, row: dict[str, Any]) -> Outcome:
    """Geometric means of ratios that are near 1 in a sound log (traps T23)."""
    ratios = {
        "price to logged bid": (row["price_to_bid"], 30.0, 200.0),
        "recomputed baseline bid to logged bid": (row["own_to_bid"], 30.0, 30.0),
        "price to recomputed baseline bid": (row["price_to_own"], 200.0, 200.0),
    }
    for what, (logarithm, most, least) in ratios.items():
        if logarithm is None or not math.isfinite(logarithm):
            continue
        ratio = math.exp(max(-700.0, min(700.0, logarithm)))
        if 1 / least <= ratio <= most:
            continue
        power = round(math.log10(ratio) / 3) * 3
        return found(
            "C06",
            "error",
            f"The ratio of {what} is {ratio:.3g} (geometric mean){f', about a factor of 10^{power}' if power else ''}.",
            "Bids and prices are currency per 1000 impressions: multiply per-impression money by 1000, divide micros by "
            "1e6, in columns, the targets or bid.formula.",
            ratio=ratio,
            of=what,
        )
    return ok("C06")


def _down_sampling(plan: Plan, row: dict[str, Any]) -> Outcome:
    if "positives" not in row:
        return skipped("C07", "there are no click labels and click predictions to compare")
    if (row["positives"] or 0) < FEWEST_POSITIVES or not row["yw"] or not row["pw"]:
        return ok("C07")
    ratio, plain = row["pw"] / row["yw"], row["p"] / row["y"]
    z = (row["pw"] - row["yw"]) / math.sqrt(max(row["vw"], 1e-300))
    if 0.5 <= ratio <= 2.0 or abs(z) < 6:
        return ok("C07", predicted_to_observed=ratio)
    if not plan.weighted:
        fix = (
            f"If rows without a click were kept 1 in about {1 / ratio:.0f}, say so with columns.weight."
            if ratio < 1
            else "Check that the labels are all there, and that the predictions are probabilities."
        )
    elif 0.8 <= plain <= 1.25:
        fix = "Without weights they agree: the predictions are those of the sample; correct them or the weights, not both."
    else:
        fix = "Check columns.weight: a row stands for weight rows of the full log."
    return found(
        "C07",
        "error" if not 0.2 <= ratio <= 5.0 else "warning",
        f"The baseline predicts {ratio:.3g} times the clicks that the log shows"
        f"{f' ({plain:.3g} times without weights)' if plan.weighted else ''}.",
        fix,
        predicted_to_observed=ratio,
        unweighted=plain,
    )


def _says_when(plan: Plan) -> bool:
    """Whether some policy says on which days it was trained or calibrated."""
    return any(p.training_window or (p.bundle and p.bundle.manifest.calibration_windows) for p in plan.policies)


def _instants(engine: AnyEngine, plan: Plan, formulas: str) -> tuple[float, float] | None:
    """First and last time of the log in seconds since 1970."""
    if not plan.time_kind:
        return None
    ends = engine.rows(f"select cast(min(ts) as varchar), cast(max(ts) as varchar) from {formulas}")[0]
    if ends[0] is None:
        return None
    kind = "timestamptz" if plan.time_kind == "instant" else "timestamp"
    pair = [f"{kind} '{end}'" for end in ends]
    if kind == "timestamp":
        pair = [f"timezone('{plan.zone}', {p})" for p in pair]
    low, high = engine.rows(f"select {', '.join(f'epoch({p})' for p in pair)}")[0]
    return float(low), float(high)


def training_overlap(plan: Plan, span: tuple[float, float] | None) -> Outcome:
    """span: first and last time of the evaluation, seconds since 1970."""
    trained = [(p.name, *p.training_window) for p in plan.policies if p.training_window]
    bundles = [(p.name, p.bundle) for p in plan.policies if p.bundle is not None]
    fitted = [(name, w.start, w.end) for name, bundle in bundles for w in bundle.manifest.calibration_windows]
    if not trained and not fitted:
        return skipped("C09", "no model says on which days it was trained")
    if span is None:
        return skipped("C09", "the log has no time")
    for name, start, end in trained:
        if (hours := _hours_within(start, end, span, plan)) is not None:
            return found(
                "C09",
                "error",
                f'"{name}" was trained on {start} to {end}, of which {hours:.1f} hours are evaluated here: '
                "it has seen the answers.",
                "Evaluate on days after its training, or train it on days before these.",
                policy=name,
                hours=hours,
            )
    for name, start, end in fitted:
        if (hours := _hours_within(start, end, span, plan)) is not None:
            return found(
                "C09",
                "warning",
                f'"{name}" was recalibrated on rows of {start} to {end}, of which {hours:.1f} hours are evaluated here: '
                "if they are of this log or of a copy of it, it has seen the answers.",
                "Calibrate on days before the evaluated ones.",
                policy=name,
                hours=hours,
            )
    return ok("C09")


def _hours_within(start: str, end: str, span: tuple[float, float], plan: Plan) -> float | None:
    """Hours of a window of log time that are evaluated; None where they do not touch, or the window is no time."""
    first, last = _moment(start, plan), _moment(end, plan)
    if first is None or last is None or first > span[1] or last <= span[0]:
        return None
    return max((min(last, span[1]) - max(first, span[0])) / 3600, 0.0)


def _moment(text: str, plan: Plan) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    zone = ZoneInfo(plan.zone.replace("''", "'"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def _dominance(plan: Plan, counts: Counted) -> Outcome:
    if not plan.has("campaign"):
        return skipped("C11", "the log has no campaign")
    total = math.fsum(counts.spend.values())
    name, most = min(counts.spend.items(), key=lambda each: (-each[1], each[0]), default=("", 0.0))
    if len(counts.spend) < 2 or not total or most <= 0.5 * total:
        return ok("C11")
    share = most / total
    return found(
        "C11",
        "warning",
        f"Campaign {name} has {share:.0%} of the log's spend: overall numbers are mostly its own.",
        "Judge by campaign (segments: [campaign], rules with by: campaign), or leave it out in conditions and look again.",
        campaign=name,
        share=share,
    )


def _few(plan: Plan, counts: Counted) -> Outcome:
    parts: list[str] = []
    units = counts.units
    if units is not None and units < FEW_UNITS:
        parts.append(f"{units} units")
    if plan.has("conversion") and counts.conversions < FEW_CONVERSIONS:
        parts.append(f"{counts.conversions} conversions")
    elif plan.has("click") and not plan.has("conversion") and counts.clicks < FEW_CONVERSIONS:
        parts.append(f"{counts.clicks} clicks")
    if not parts:
        return ok("C12", units=units, conversions=counts.conversions)
    return found(
        "C12",
        "warning",
        f"The log has only {' and '.join(parts)}; intervals will be wide, or missing.",
        "Read more days or campaigns; a CPA is known to about 196 / sqrt(conversions) percent.",
        units=units,
        conversions=counts.conversions,
    )


def _labels(plan: Plan, counts: Counted) -> Outcome:
    parts: list[tuple[float, str]] = []
    if plan.has("click") and counts.won and counts.no_click:
        share = counts.no_click / counts.won
        parts.append((share, f"{counts.no_click:,} of {counts.won:,} won rows ({share:.1%}) have no click label"))
    if plan.has("conversion") and counts.clicks and counts.no_conversion:
        share = counts.no_conversion / counts.clicks
        parts.append((share, f"{counts.no_conversion:,} of {counts.clicks:,} clicks ({share:.1%}) no conversion label"))
    parts = [p for p in parts if p[0] > 0.01]
    if not parts:
        return ok("C13")
    return found(
        "C13",
        "error" if max(p[0] for p in parts) > 0.5 else "warning",
        f"{'; '.join(text for _, text in parts)}: they are not counted.",
        "If a missing label means that nothing happened, write coalesce(column, 0) in columns; if labels come later, "
        "read older days.",
        shares=[p[0] for p in parts],
    )


def worth_saying(outcomes: list[Outcome]) -> Iterator[Outcome]:
    """What a replay shows of its checks."""
    return (o for o in outcomes if o.status == "found")
