"""Conversions that come late (spec: maturity): young rows are left out, or their conversions weighted by 1 / G(age).

A row is mature when its conversion window had passed at `observed_until`. G, the share of conversions that have come
by an age, is estimated on mature rows, by campaign where it has enough of them; inverse-probability weighting by it is
unbiased as long as delays are now as they were then (Chapelle 2014 models the same delays). Rows so young that less
than a tenth of the conversions can have come are left out too. The same rows and weights hold for every policy, and
prediction metrics of conversions use mature rows only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from bidsim.errors import LogError
from bidsim.replay.engines import AnyEngine
from bidsim.replay.plan import Plan, Ripening
from bidsim.result import Finding

FEWEST = 100  # mature conversions without which G is not estimated at all
FEWEST_OF_CAMPAIGN = 50
LEAST_SHARE = 0.1
MOST_SHOWN = 50


def ripen(engine: AnyEngine, plan: Plan, rows: str) -> str:
    """The view of the rows that count, with conversions as they count; notes and finding go to the plan.

    Raises LogError where no row is mature, or too few conversions to know how late they come.
    """
    how = plan.ripening
    assert how is not None
    mature = f"(seen_at + {how.window!r}::double <= {how.observed_until!r}::double)"
    total, old, last = engine.rows(f"select count(*), count_if({mature}), max(seen_at) from {rows}")[0]
    decidable = _moment(plan, last + how.window) if last is not None else None
    if total and not old:
        raise LogError(
            f"no row is mature: at maturity.observed_until ({_moment(plan, how.observed_until)}) none is older than "
            f"the conversion window; the comparison is decidable from {decidable}",
            file=plan.source.files[0],
        )
    if how.weighted:
        kept = _weigh(engine, plan, how, rows, mature, decidable)
    else:
        engine.run(f"create view mature_rows as select *, true as mature from {rows} where {mature}")
        kept = old
    note: dict[str, Any] = {
        "rows": int(total),
        "mature": int(old),
        "used": int(kept),
        "observed_until": _moment(plan, how.observed_until),
        "decidable_from": decidable,
    }
    if "conversion_time" in plan.seconds:
        note["delay_hours"] = _delays(engine, plan, how, rows)
    plan.notes["maturity"] = note
    if total > old:
        share = (total - old) / total
        what = (
            f"{kept - old:,} of them count with their conversions divided by the share that has come by their age"
            if how.weighted
            else "they are left out for every policy"
        )
        plan.findings.append(
            Finding(
                code="immature",
                severity="warning" if share > 0.2 or how.weighted else "info",
                message=f"{total - old:,} of {total:,} rows ({share:.1%}) are younger than the conversion window of "
                f"{how.window / 3600:g} hours; {what}. All are mature from {decidable}.",
            )
        )
    return "mature_rows"


def _weigh(engine: AnyEngine, plan: Plan, how: Ripening, rows: str, mature: str, decidable: str | None) -> int:
    # Ages in square roots of minutes: steps fine where most conversions come, coarse later; linear within a step.
    engine.run(
        f"create table delays as select campaign, {_step(_delay(plan, how))} as step, count(*) as n from {rows} "
        f"where {mature} and conversion_logged > 0e0 and converted_at is not null group by all"
    )
    (found,) = engine.rows("select coalesce(cast(sum(n) as bigint), 0) from delays")[0]
    if found < FEWEST:
        raise LogError(
            f"maturity.immature: weight needs at least {FEWEST} conversions of mature rows to know how late they come, "
            f"and there are {found}; use immature: drop, or wait: the comparison is decidable from {decidable}",
            file=plan.source.files[0],
        )
    steps = int((how.window / 60.0) ** 0.5) + 1
    engine.run(
        f"""create table shares as
        with grid as (
          select c.campaign, cast(g.step as bigint) as step, coalesce(d.n, 0) as n
          from (select distinct campaign from {rows}) as c cross join range({steps + 1}) as g(step)
          left join delays as d on d.campaign is not distinct from c.campaign and d.step = g.step
        ),
        pooled as (
          select step, sum(n) as n, sum(sum(n)) over (order by step) as upto, sum(sum(n)) over () as total
          from grid group by step
        ),
        own as (
          select *, sum(n) over (partition by campaign order by step) as upto, sum(n) over (partition by campaign) as total
          from grid
        )
        select o.campaign, o.step,
          case when o.total >= {FEWEST_OF_CAMPAIGN} then (o.upto - o.n) / o.total::double else (p.upto - p.n) / p.total::double end
            as low,
          case when o.total >= {FEWEST_OF_CAMPAIGN} then o.upto / o.total::double else p.upto / p.total::double end as high
        from own as o join pooled as p using (step)"""
    )
    # The age from which every campaign has seen its tenth.
    (young,) = engine.rows(
        f"select max(s) from (select campaign, min(step) as s from shares where low >= {LEAST_SHARE!r}::double group by campaign)"
    )[0]
    youngest = float(young or 0) ** 2 * 60.0
    age = f"({how.observed_until!r}::double - coalesce({_clicked(plan, 'r.')}, r.seen_at))"
    root = f"sqrt(greatest({age}, 0e0) / 60e0)"
    engine.run(
        f"""create view mature_rows as
        select r.* replace (case when {mature} then r.conversion_logged
          else r.conversion_logged / (s.low + (s.high - s.low) * ({root} - s.step)) end as conversion_logged),
          {mature} as mature
        from {rows} as r left join shares as s
          on s.campaign is not distinct from r.campaign and s.step = least({_step(age)}, {steps})
        where r.seen_at <= {how.observed_until - youngest!r}::double"""
    )
    return int(
        engine.rows(f"select count(*) from {rows} where seen_at <= {how.observed_until - youngest!r}::double")[0][0]
    )


def _clicked(plan: Plan, prefix: str = "") -> str:
    return f"{prefix}clicked_at" if "click_time" in plan.seconds else "null::double"


def _delay(plan: Plan, how: Ripening) -> str:
    """SQL of the seconds from click (or impression) to conversion, within the window."""
    return f"least(greatest(converted_at - coalesce({_clicked(plan)}, seen_at), 0e0), {how.window!r}::double)"


def _step(seconds: str) -> str:
    return f"cast(floor(sqrt(greatest({seconds}, 0e0) / 60e0)) as bigint)"


def _delays(engine: AnyEngine, plan: Plan, how: Ripening, rows: str) -> list[dict[str, Any]]:
    """Quantiles of the delay of mature rows' conversions: overall (campaign null), then the largest campaigns."""
    quantiles = "quantile_cont(d, [0.5, 0.9, 0.99])"
    mature = f"seen_at + {how.window!r}::double <= {how.observed_until!r}::double"
    text = (
        f"select campaign, {_delay(plan, how)} / 3600e0 as d from {rows} "
        f"where {mature} and conversion_logged > 0e0 and converted_at is not null"
    )
    found = engine.rows(f"select null, count(*), {quantiles} from ({text})")
    if plan.has("campaign"):
        found += engine.rows(
            f"select coalesce(cast(campaign as varchar), 'null') as c, count(*) as n, {quantiles} from ({text}) "
            f"group by campaign order by n desc, c limit {MOST_SHOWN}"
        )
    return [
        {"campaign": c, "conversions": int(n), **dict(zip(("p50", "p90", "p99"), q, strict=True))}
        for c, n, q in found
        if n
    ]


def _moment(plan: Plan, seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, UTC)
        .astimezone(ZoneInfo(plan.zone.replace("''", "'")))
        .isoformat(timespec="seconds")
    )
