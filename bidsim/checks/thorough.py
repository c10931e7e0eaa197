"""The checks that read the log again and again: duplicates, fan-out, order of events, delays, throttling, categories.

Only `bidsim check` runs them. They read the same views as the replay; `run` has the rows carry what they need.
"""

from __future__ import annotations

from typing import Any

from bidsim.checks.catalogue import Outcome, found, ok, skipped
from bidsim.replay.engine import Engine
from bidsim.replay.plan import Plan

MOST_LISTED = 20
# A campaign whose last row of a day is followed by as many hours as bring this many rows at its rate has stopped:
# by chance that is rarer than 1e-12 (Poisson).
EXPECTED_AFTER_LAST = 30


def duplicates(engine: Engine, plan: Plan) -> list[Outcome]:
    """C02 and C03: rows that stand twice, and bids of one request and campaign that stand beside each other."""
    by_request = plan.has("request")
    if not by_request and not (plan.time_kind and plan.unit != "row"):
        why = "rows can't be told apart without columns.request, or a time and a unit"
        return [skipped("C02", why), _dimension(engine, plan) or skipped("C03", "the log has no request")]
    # Without requests two users' rows may agree by chance where times are coarse: a few are no evidence.
    tolerance = 0.0 if by_request else 0.01
    content = ["ts", "unit", "price_logged", "bid_log", "click", "conversion", "won_logged"]
    content += ["converted_at"] if "conversion_time" in plan.seconds else []
    key = "request, campaign" if by_request else "campaign"
    known = "request is not null" if by_request else "unit is not null"
    total, extra, worth = engine.rows(
        f"select coalesce(sum(n), 0), coalesce(sum(n - 1), 0), coalesce(sum((n - 1) * s), 0e0) from (select count(*) as n, "
        "coalesce(any_value(case when won then price_logged * w end) / 1e3, 0e0) as s "
        f"from facts where {known} group by {key}, {', '.join(content)})"
    )[0]
    out = []
    if extra > tolerance * total or (extra and _never_by_chance(engine, content, known)):
        out.append(
            found(
                "C02",
                "error" if extra > tolerance * total else "warning",
                f"{int(extra):,} rows repeat another in {'request, ' * by_request}campaign, time, price, bid and labels"
                f"{'' if by_request else ' (no request: by unit and time)'}; they add {worth:,.2f} to what the rows cost.",
                "Keep one of each: was a file read twice, or a partition loaded again?",
                rows=int(extra),
                spend=float(worth),
            )
        )
    else:
        out.append(ok("C02", rows=int(extra)))
    missing = _dimension(engine, plan)
    if missing is not None:
        return [*out, missing]
    if not by_request:
        return [*out, skipped("C03", "the log has no request")]
    fanned, rows = engine.rows(
        f"select count(*), coalesce(sum(n - 1), 0) from (select count(*) as n from "
        f"(select distinct request, campaign, {', '.join(content)} from facts where {known}) group by {key} having n > 1)"
    )[0]
    if not fanned:
        return [*out, ok("C03")]
    share = int(rows) / max(1, int(total))
    return [
        *out,
        found(
            "C03",
            "error" if share > 0.01 else "warning",
            f"{int(fanned):,} pairs of request and campaign have several rows that differ ({int(rows):,} rows too many, "
            f"{share:.2%}): a join with clicks or conversions that found several multiplies spend.",
            "Bring clicks and conversions to one row a bid before joining them; where a request has several slots, make "
            "the slot part of columns.request.",
            rows=int(rows),
            share=share,
        ),
    ]


def _never_by_chance(engine: Engine, content: list[str], known: str) -> bool:
    """Whether rows of one campaign, unit and time that have a price agree in all the rest, or nearly: bids that only happen
    to meet in time would differ in price."""
    by = "campaign, ts, unit"
    alike, together = engine.rows(
        "select coalesce(sum(k - groups), 0), coalesce(sum(k - 1), 0) from (select sum(n) as k, count(*) as groups from "
        f"(select {by}, count(*) as n from facts where {known} and price_logged is not null "
        f"group by {by}, {', '.join(c for c in content if c not in ('ts', 'unit'))}) group by {by} having sum(n) > 1)"
    )[0]
    return bool(alike >= 0.9 * together > 0)


def _dimension(engine: Engine, plan: Plan) -> Outcome | None:
    """Campaigns of the log that the campaign table lacks."""
    table = plan.campaigns
    if table is None:
        return None
    rows = engine.rows(
        f"select coalesce(cast(campaign as varchar), 'null'), count(*) as n from facts where not exists (select 1 from "
        f"{table.reader} as c where cast(c.{table.key} as varchar) = cast(facts.campaign as varchar)) "
        "group by 1 order by n desc, 1"
    )
    if not rows:
        return None
    count = sum(int(n) for _, n in rows)
    return found(
        "C03",
        "warning",
        f"{count:,} rows are of {len(rows)} campaigns that the campaign table lacks "
        f"({', '.join(name for name, _ in rows[:5])}{' ...' if len(rows) > 5 else ''}): no target, no bid.",
        "Add them to the campaign table, or leave them out in conditions.",
        rows=count,
        campaigns=[name for name, _ in rows[:MOST_LISTED]],
    )


def order_of_events(engine: Engine, plan: Plan) -> Outcome:
    """C04: clicks before their impression, conversions before their click, conversions without a click."""
    tests: dict[str, tuple[str, str]] = {}
    if "click_time" in plan.seconds and "time" in plan.seconds:
        tests["clicks before their impression"] = ("clicked_at < seen_at", "clicked_at is not null")
    if "conversion_time" in plan.seconds and ("click_time" in plan.seconds or "time" in plan.seconds):
        origin = "coalesce(clicked_at, seen_at)" if "click_time" in plan.seconds else "seen_at"
        tests["conversions before their click or impression"] = (f"converted_at < {origin}", "converted_at is not null")
    if plan.has("click") and plan.has("conversion"):
        tests["conversions of rows without a click"] = ("click = 0e0 and conversion > 0e0", "conversion > 0e0")
    if not tests:
        return skipped("C04", "needs click_time or conversion_time beside the time, or both labels")
    sums = ", ".join(f"count_if(({bad}) and ({of})), count_if({of})" for bad, of in tests.values())
    (row,) = engine.rows(f"select {sums} from facts")
    counts = {name: (int(row[2 * i]), int(row[2 * i + 1])) for i, name in enumerate(tests)}
    wrong = {name: pair for name, pair in counts.items() if pair[0]}
    if not wrong:
        return ok("C04")
    worst = max(bad / of for bad, of in wrong.values())
    return found(
        "C04",
        "error" if worst > 0.01 else "warning",
        "; ".join(f"{bad:,} of {of:,} {name}" for name, (bad, of) in wrong.items()) + ".",
        "Check that both times are in one time zone (a whole number of hours off?), that events are joined on the request "
        "and not on the user, and that columns.click means clicks.",
        **{name.replace(" ", "_"): list(pair) for name, pair in wrong.items()},
    )


def immaturity(engine: Engine, plan: Plan, window_hours: float | None, observed_until: float | None) -> Outcome:
    """C08. window_hours, observed_until: the scenario's maturity, None without."""
    if not (plan.has("conversion") and "time" in plan.seconds):
        return skipped("C08", "needs conversions and the time of each row")
    if window_hours is not None and observed_until is not None:
        young, total = engine.rows(
            f"select count_if(seen_at + {window_hours * 3600!r}::double > {observed_until!r}::double), count(*) from facts"
        )[0]
        if not young:
            return ok("C08", immature_rows=0)
        return found(
            "C08",
            "info",
            f"{young:,} of {total:,} rows ({young / total:.1%}) are younger than the conversion window.",
            "The scenario's maturity treats them, for every policy alike; older days would not need it.",
            immature_rows=int(young),
        )
    clicked = "click = 1e0" if plan.has("click") else "won"
    if "conversion_time" in plan.seconds:
        origin = "coalesce(clicked_at, seen_at)" if "click_time" in plan.seconds else "seen_at"
        end, late = engine.rows(
            f"select greatest(max(seen_at), max(converted_at)), quantile_cont(converted_at - {origin}, 0.9) "
            "filter (where conversion > 0e0) from facts"
        )[0]
        if end is None or late is None or late <= 0:
            return ok("C08")
        young, total = engine.rows(
            f"select count_if({origin} > {end - late!r}::double), count(*) from facts where {clicked}"
        )[0]
        share = young / total if total else 0.0
        if share <= 0.1:
            return ok("C08", share=share, p90_hours=late / 3600)
        return found(
            "C08",
            "warning",
            f"{share:.0%} of the clicks are younger at the log's end than the delay within which 90% of conversions come "
            f"({late / 3600:.1f} hours): their conversions are still to come.",
            "Set maturity (conversion_window_hours, observed_until), or evaluate older days.",
            share=share,
            p90_hours=late / 3600,
        )
    rows = engine.rows(
        "select bucket, count(*), count_if(conversion > 0e0) from (select conversion, "
        "ntile(4) over (order by seen_at, unit) as bucket "
        f"from facts where {clicked} and conversion is not null and seen_at is not null) group by bucket order by bucket"
    )
    if len(rows) < 4:
        return ok("C08")
    n1, c1 = (sum(r[i] for r in rows[:3]) for i in (1, 2))
    n2, c2 = rows[3][1], rows[3][2]
    pooled = (c1 + c2) / (n1 + n2)
    spread = (pooled * (1 - pooled) * (1 / n1 + 1 / n2)) ** 0.5
    if c1 < FEWEST_CONVERSIONS or spread == 0 or (c2 / n2 - c1 / n1) / spread > -4 or c2 / n2 > 0.8 * c1 / n1:
        return ok("C08")
    return found(
        "C08",
        "warning",
        f"Conversions per click fall from {c1 / n1:.2%} to {c2 / n2:.2%} in the last quarter of the clicks, as they do "
        "where the latest conversions are still to come.",
        "Set maturity (conversion_window_hours, observed_until) and columns.conversion_time, or evaluate older days.",
        earlier=c1 / n1,
        last=c2 / n2,
    )


FEWEST_CONVERSIONS = 50


def throttling(engine: Engine, plan: Plan) -> Outcome:
    """C14: campaigns that stop long before their day is over, while the rest of the log goes on."""
    if not (plan.has("campaign") and plan.time_kind):
        return skipped("C14", "needs a campaign and the time of each row")
    rows = engine.rows(
        f"""with hourly as (
          select campaign, cast(local_ts as date) as day, extract('hour' from local_ts) as hour, count(*) as n
          from facts where local_ts is not null group by all
        ),
        everyone as (
          select day, hour, sum(n) as n, sum(sum(n)) over (partition by day order by hour) as upto,
            sum(sum(n)) over (partition by day) as total
          from hourly group by day, hour
        ),
        stopped as (select campaign, day, max(hour) as hour, sum(n) as n from hourly group by campaign, day)
        select coalesce(cast(campaign as varchar), 'null'), cast(s.day as varchar), cast(s.hour as integer),
          s.n * (e.total - e.upto) / e.upto::double as expected
        from stopped as s join everyone as e on e.day = s.day and e.hour = s.hour
        where expected >= {EXPECTED_AFTER_LAST}
        order by expected desc, 1, 2"""
    )
    groups = engine.rows("select count(*) from (select distinct campaign, cast(local_ts as date) from facts)")[0][0]
    if not rows:
        return ok("C14")
    listed = ", ".join(f"{c} on {d} (last row at {h}:00)" for c, d, h, _ in rows[:3])
    return found(
        "C14",
        "warning",
        f"{len(rows)} of {groups} campaign days end early while others go on: {listed}. The log's own budgets or pacing "
        "kept the rest of their requests out of the log.",
        "A candidate can't win what was never bid on: compare under budgets below what the log spent, and don't read "
        "totals as forecasts.",
        campaign_days=len(rows),
        of=int(groups),
        examples=[[c, d, h] for c, d, h, _ in rows[:MOST_LISTED]],
    )


def skew(engine: Engine, code: str, what: str, pairs: list[tuple[str, str, str]], plan: Plan) -> Outcome:
    """C15, C16: what the log carries against what is recomputed, overall, by hour and by segment.

    pairs: (name, SQL of the logged value, SQL of the recomputed one) over the view `checked`.
    """
    facts: dict[str, Any] = {}
    worst: list[tuple[float, float, str]] = []
    for name, logged, ours in pairs:
        both = f"isfinite({logged}) and {logged} > 0e0 and isfinite({ours})"
        sums = f"count(*), sum({logged}), sum({ours}), count_if(abs({ours} - {logged}) > 0.01e0 * {logged})"
        (n, ours_before, ours_now, off) = engine.rows(f"select {sums} from checked where {both}")[0]
        if not n:
            continue
        cuts = {"hour": "extract('hour' from local_ts)"} if plan.time_kind else {}
        cuts |= {s.name: s.column for s in plan.segments}
        by: dict[str, Any] = {}
        for cut, column in cuts.items():
            rows = engine.rows(
                f"select coalesce(cast({column} as varchar), 'null') as k, {sums} from checked where {both} group by {column} "
                "order by 2 desc, k limit 500"
            )
            by[cut] = {
                k: {"rows": int(m), "ratio": now / before, "off_by_1_percent": int(o) / int(m)}
                for k, m, before, now, o in rows
            }
            for value, row in by[cut].items():
                if row["rows"] >= 100:
                    worst.append((abs(row["ratio"] - 1.0), row["ratio"], f"{name} of {cut} {value}"))
        facts[name] = {"rows": int(n), "ratio": ours_now / ours_before, "off_by_1_percent": int(off) / int(n), "by": by}
    if not facts:
        return skipped(code, f"the log has no usable {what} to compare")
    if all(f["off_by_1_percent"] <= 0.01 for f in facts.values()):
        return ok(code, **facts)
    words = "; ".join(
        f"{name} are {f['ratio']:.3g} times the log's, {f['off_by_1_percent']:.0%} of rows off by more than 1%"
        for name, f in facts.items()
        if f["off_by_1_percent"] > 0.01
    )
    far = ", ".join(f"{of} {ratio:.3g} times" for _, ratio, of in sorted(worst, key=lambda w: (-w[0], w[2]))[:3])
    severe = any(abs(f["ratio"] - 1.0) > 0.2 for f in facts.values())
    evidence = f"Recomputed {words}.{f' Furthest: {far}.' if far else ''}"
    if code == "C16":
        # Explored, shaded or paced bids differ on purpose, so this is never more than a warning.
        fix = (
            "Where bids were explored, shaded or paced on purpose this is expected; else the formula, targets or model of "
            "the scenario's baseline are not production's."
        )
        return found(code, "warning", evidence, fix, **facts)
    return found(
        code,
        "error" if severe else "warning",
        evidence,
        "Features that the model sees here differ from those it saw in production (missing, stale or otherwise encoded), "
        "or another model or formula was in production: find the hour or segment at which it begins.",
        **facts,
    )
