"""What must be known of the log before its rows are reduced: rows that can't be used, the values of its segments, and
the betas that suit its prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bidsim.errors import LogError
from bidsim.replay.columns import join_campaigns
from bidsim.replay.engines import AnyEngine
from bidsim.replay.measures import COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.replay.sql import render
from bidsim.scenario.loading import LoadedScenario
from bidsim.statistics.units import MANY_VALUES
from bidsim.statistics.utility import RELATIVE_BETAS

MOST_VALUES = 5_000
# Measured (tests/benchmarks/load.py): what the numbers of one value of one policy take, from the sums to the page. Values
# of segments of few have more buckets.
VALUE_BYTES, FEW_VALUE_BYTES = 330_000, 1_400_000

# Counts that only say how to read the log: not of what tells one log from another, whose fingerprint must stay.
FOR_READING = (
    "prices_logged",
    "unitless",
    "small_weights",
    "conversions_of_many",
    "clicks_of_lost",
    "losses_with_reason",
    "losses_by_price",
    "without_target_cpc",
    "without_target_cpa",
    "weights_below_one",
    "weights_above_one",
)
# More conversions of one row than that are an amount of money rather than a count.
MANY_CONVERSIONS = 10


def census(engine: AnyEngine, plan: Plan, rows: str) -> dict[str, int]:
    """Counts of rows that can't be used as they are. Raises LogError for an empty window or unusable auction types."""
    targets = [f"target_{plan.indicator}"] if any(p.formula is None for p in plan.policies) else []
    sql = render("census", rows=rows, many=f"{MANY_CONVERSIONS}e0", targets=targets)
    names = [name for name, _ in engine.names(sql)]
    counts = {name: int(value or 0) for name, value in zip(names, engine.rows(sql)[0], strict=True)}
    if counts["rows"] == 0:
        files = plan.source.files[0] + (f" and {len(plan.source.files) - 1} more" if len(plan.source.files) > 1 else "")
        raise LogError(
            f"no row of the log lies in the window and meets all conditions; {_times(engine, plan)}"
            "check last_hour, duration_hour, timezone and conditions",
            file=files,
        )
    plan.unitless = counts["unitless"] > 0
    if counts["unknown_auction_types"]:
        raise LogError(
            f"auction.type gave neither first_price (1) nor second_price (2) on {counts['unknown_auction_types']} rows; "
            "write an expression that gives one of them for every row",
            file=plan.source.files[0],
        )
    return counts


def _times(engine: AnyEngine, plan: Plan) -> str:
    """When the log's rows are, in words; nothing of a log that was brought (only what might have fitted was) or read elsewhere."""
    if not plan.time_kind or plan.source.origin is not None or not engine.local:
        return ""
    relation = f"{plan.source.reader()} as s{join_campaigns(plan.campaigns, plan.campaign_sql)}"
    ends = ", ".join(f"strftime({end}({plan.local_time}), '%Y-%m-%dT%H:%M:%S')" for end in ("min", "max"))
    ((first, last, rows),) = engine.rows(f"select {ends}, count(*) from {relation}")
    if not rows:
        return "it has none; "
    return f"its times run from {first} to {last}; " if first else "none of them has a time; "


def segment_values(engine: AnyEngine, plan: Plan) -> list[tuple[str, ...]]:
    """The values of each segment as texts, in the log's order; leaves tables codes_<i> with the code of each."""
    found = []
    for i, segment in enumerate(plan.segments):
        engine.run(
            f"create or replace table codes_{i} as select value, "
            "cast(row_number() over (order by value) - 1 as integer) as code "
            f"from (select distinct {segment.column} as value from facts)"
        )
        count = engine.rows(f"select count(*) from codes_{i}")[0][0]
        if count > MOST_VALUES:
            raise LogError(
                f'segment "{segment.name}" has {count} values, at most {MOST_VALUES} can be reported; '
                "use a coarser expression",
                file=plan.source.files[0],
            )
        rows = engine.rows(f"select cast(value as varchar) from codes_{i} order by code")
        found.append(_texts([r[0] for r in rows]))
    return found


def campaigns_of(plan: Plan, values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The campaigns among the values of the segments; empty without campaigns."""
    return () if plan.campaign_segment is None else values[plan.campaign_segment]


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    """What values are called: NULL is null, and a text that reads "null" beside it is called by that, quotes and all."""
    given = {str(v) for v in values if v is not None}
    if None not in values or "null" not in given:
        return tuple("null" if v is None else str(v) for v in values)
    name = '"null"'
    while name in given:
        name = f'"{name}"'
    return tuple("null" if v is None else name if str(v) == "null" else str(v) for v in values)


def betas_of(loaded: LoadedScenario, counts: Mapping[str, int]) -> tuple[float, ...]:
    """The scenario's betas, or some relative to the log's mean price."""
    if loaded.scenario.expected_utility is not None:
        return tuple(loaded.scenario.expected_utility.betas)
    money = counts["prices"] / MONEY_SCALE
    rows = counts["priced_weights"] / 2**COUNT_BITS
    if not (rows > 0 and money > 0):
        return ()
    return tuple(relative * rows / money for relative in RELATIVE_BETAS)


def check_room(plan: Plan, values: Sequence[Sequence[str]], memory_bytes: int) -> None:
    """Raises LogError where the numbers of all segment values of all policies would not fit into the memory given."""
    count, policies = sum(map(len, values)), len(plan.policies)
    need = policies * sum(len(v) * (VALUE_BYTES if len(v) > MANY_VALUES else FEW_VALUE_BYTES) for v in values)
    if need > memory_bytes:
        raise LogError(
            f"the numbers of {count} segment values for {policies} policies need about {need / 1e9:.1f}GB beside what "
            f"the log takes, and --memory leaves {memory_bytes / 1e9:.1f}GB; raise it, or take fewer candidates at once "
            "or coarser segments"
        )
