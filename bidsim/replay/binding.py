"""From scenario and log schema to the plan: every expression compiled against the columns that it may use.

Names in the bid formula are the policy's predictions, the targets, then log columns; a log column that a later step
needs is carried to it under an internal name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from bidsim.errors import BidsimError, ExpressionError, LogError, ScenarioError
from bidsim.logs.bringing import Log
from bidsim.models.predictions import PredictionFile
from bidsim.replay.columns import (
    TIME_PARTS,
    Names,
    campaign_table,
    check_binds,
    check_numeric,
    given_twice,
    grouped,
    indicator,
    is_numeric,
    join_campaigns,
    named,
    not_numeric,
    role_sql,
    role_types,
    segments_of,
    shift_prices,
    unit_kind,
    unit_sql,
)
from bidsim.replay.engines import AnyEngine
from bidsim.replay.formulas import bind_formulas, later_names, role_names, try_amount
from bidsim.replay.pacing import pace_of
from bidsim.replay.plan import Plan, Prediction, Ripening
from bidsim.replay.policies import PolicyPlan
from bidsim.replay.times import event_seconds, time_kind_of, window_conditions, window_span
from bidsim.scenario.expressions import quote_identifier
from bidsim.scenario.loading import LoadedScenario, nearest
from bidsim.scenario.reading import Place
from bidsim.scenario.schema import HEADS, PREDICTION_COLUMN, ROLES, CvrJump


@contextmanager
def planned(loaded: LoadedScenario, engine: AnyEngine, log: Log, policies: list[PolicyPlan]) -> Iterator[Plan]:
    """The plan, while it is carried out: an expression without a value for some row is told by its key and line."""
    plan = make_plan(loaded, engine, log, policies)
    try:
        yield plan
    except ExpressionError as error:
        raise _named(error, loaded, engine, plan) from error


def _named(error: ExpressionError, loaded: LoadedScenario, engine: AnyEngine, plan: Plan) -> BidsimError:
    """The error of the expression at fault, found by computing each one alone."""
    relation = f"{plan.source.reader()} as s" + join_campaigns(plan.campaigns, plan.campaign_sql)
    unread: list[Place] = []
    for path, sql in plan.tried:
        try:
            engine.rows(f"select max(hash(x)) from (select {sql} as x from {relation})")
        except ExpressionError as found:
            return loaded.error(f"{'.'.join(map(str, path))}: {found.message}", *path)
        except BidsimError:  # a CSV file's reader takes the cast for its own, and blames the file's row
            unread.append(path)
    if len(unread) == 1:
        return loaded.error(f"{'.'.join(map(str, unread[0]))}: {error.message}", *unread[0])
    return ScenarioError(f"an expression of the scenario {error.message}", file=loaded.file)


def make_plan(loaded: LoadedScenario, engine: AnyEngine, log: Log, policies: list[PolicyPlan]) -> Plan:
    """Bind the scenario to the log's columns.

    log: brought to where the engine can read it; policies: baseline first, as `policies.resolve` gives them; their SQL
    is completed here. Raises ScenarioError for a name or expression at fault, LogError for a missing or ill-typed column.
    """
    scenario = loaded.scenario
    source = engine.open(log.table)
    log_columns = engine.names(f"select * from {source.reader()}")
    names = Names(loaded, {}, source)
    names.of_table("s", log_columns)
    campaign_sql = role_sql(names, loaded, "campaign")
    campaigns = names.campaigns = campaign_table(loaded, engine, log.campaigns, campaign_sql)
    campaign_columns = engine.names(f"select * from {campaigns.reader}") if campaigns is not None else []
    names.of_table("c", campaign_columns)
    roles = {role: campaign_sql if role == "campaign" else role_sql(names, loaded, role) for role in ROLES}
    relation = f"{source.reader()} as s" + join_campaigns(campaigns, campaign_sql)
    types = role_types(loaded, engine, relation, roles)
    check_numeric(names, engine, relation, types, roles)
    roles |= {role: grouped(sql, types[role]) for role in ("campaign", "request") if (sql := roles[role]) is not None}
    roles = shift_prices(roles, loaded.shift.prices)
    time_kind = time_kind_of(names, engine, relation, types, roles)
    if time_kind is not None:
        roles["time"] = f"cast({roles['time']} as {'timestamptz' if time_kind == 'instant' else 'timestamp'})"
    zone = scenario.timezone.replace("'", "''")
    local = roles["time"] if time_kind == "wall" else f"timezone('{zone}', {roles['time']})" if time_kind else None

    conditions = [names.compile(text, "conditions", i).sql for i, text in enumerate(scenario.conditions)]
    for i, text in enumerate(conditions):
        kind = check_binds(loaded, engine, relation, text, "conditions", i)
        if not is_numeric(kind):  # DuckDB would read the text of each row as true or false, or stop at it
            raise loaded.error(
                f'conditions.{i}: "{scenario.conditions[i][:60]}" gives a {kind}, where true or false is needed',
                "conditions",
                i,
            )
        check_binds(loaded, engine, relation, f"coalesce({text}, false)", "conditions", i)
    conditions += window_conditions(loaded, roles["time"], time_kind)
    segments = segments_of(loaded, engine, relation, names, roles, local)
    if (unit := roles["unit"]) is not None:
        roles["unit"] = unit_sql(unit, types["unit"])
    plan = Plan(
        source=source,
        roles=roles,
        time_kind=time_kind,
        local_time=local,
        conditions=conditions,
        segments=segments,
        policies=policies,
        predictions=[],
        heads=(),
        first_price="false",
        any_first_price=False,
        indicator=indicator(loaded, roles),
        campaigns=campaigns,
    )
    plan.unit = unit_kind(types.get("unit"))
    plan.zone = zone
    plan.tried = names.tried
    plan.campaign_sql = campaign_sql
    plan.twice = given_twice(loaded, [n for n, _ in log_columns], [n for n, _ in campaign_columns])
    plan.span = window_span(loaded, roles["time"], time_kind)
    for role in ("time", "click_time", "conversion_time"):
        seconds = event_seconds(loaded, types, roles, role)
        if seconds is not None:
            plan.seconds[role] = seconds
    if roles["exchange"] is not None:
        plan.carry("exchange", roles["exchange"])
    _ripening(plan, loaded)
    _auction_type(plan, names, engine, relation)
    _predictions(plan, names, engine, relation)
    _judged_heads(plan, loaded)
    _features(plan, names, {name for name, _ in log_columns})
    bind_formulas(plan, names, engine, relation)
    _budget(plan, names, engine, relation)
    _internal(plan, loaded)
    _require(loaded, plan)
    return plan


def _ripening(plan: Plan, loaded: LoadedScenario) -> None:
    given, until = loaded.scenario.maturity, loaded.observed_until()
    anomaly = loaded.scenario.remove_anomaly_cvr_cpns
    plan.jump = anomaly if isinstance(anomaly, CvrJump) else CvrJump() if anomaly else None
    if given is None or until is None:
        return
    needed = ["time", *(["conversion_time", "conversion"] if given.immature == "weight" else [])]
    for role in needed:
        if role not in plan.seconds and not (role == "conversion" and plan.has(role)):
            raise loaded.error(f"maturity needs a {role.replace('_', ' ')}; set columns.{role}", "maturity")
    plan.ripening = Ripening(given.conversion_window_hours * 3600.0, until.timestamp(), given.immature == "weight")
    plan.carry("seen_at", plan.seconds["time"])
    if "click_time" in plan.seconds:
        plan.carry("clicked_at", plan.seconds["click_time"])
    if "conversion_time" in plan.seconds:
        plan.carry("converted_at", plan.seconds["conversion_time"])


def _auction_type(plan: Plan, names: Names, engine: AnyEngine, relation: str) -> None:
    text = names.loaded.scenario.auction.type
    if text in ("second_price", "first_price"):
        plan.first_price = "true" if text == "first_price" else "false"
        plan.any_first_price = text == "first_price"
        return
    if re.fullmatch(r"\w+", text) and named(text, names.columns) is None:
        close = nearest(text, ["second_price", "first_price", *names.columns])
        raise names.loaded.error(
            f'auction.type: "{text}" is neither second_price nor first_price nor a column of the log{close}',
            "auction",
            "type",
        )
    sql = names.compile(text, "auction", "type").sql
    check_binds(names.loaded, engine, relation, sql, "auction", "type")
    # OpenRTB's `at` numbers them: 1 first price, 2 second price.
    plan.first_price = (
        f"case cast({sql} as varchar) when 'first_price' then true when '1' then true "
        "when 'second_price' then false when '2' then false end"
    )
    plan.any_first_price = True


def _predictions(plan: Plan, names: Names, engine: AnyEngine, relation: str) -> None:
    for policy in plan.policies:
        for head in HEADS:
            column = f"prediction_{policy.index}_{head}"
            valid = f"p_{policy.index}_{head}"
            if policy.scorer is not None:
                if head in policy.scorer.heads:
                    plan.predictions.append(Prediction(policy.index, head, column, valid, None))
                continue
            role = PREDICTION_COLUMN[head]
            if policy.columns is not None:
                text = getattr(policy.columns, role)
                sql = None if text is None else names.compile(text, *policy.path, "columns", role).sql
                path: tuple[str | int, ...] = (*policy.path, "columns", role)
            elif policy.index > 0:
                continue  # a candidate that only bids differently predicts what the baseline predicts
            else:
                sql, path = plan.roles[role], ("columns", role)
            if sql is not None:
                kind = check_binds(names.loaded, engine, relation, sql, *path)
                if not is_numeric(kind):
                    given = getattr(policy.columns or names.loaded.scenario.columns, role) or role
                    raise not_numeric(names, engine, relation, sql, kind, given, *path)
                plan.predictions.append(Prediction(policy.index, head, column, valid, sql))
                policy.column_names[role] = (
                    getattr(policy.columns, role)
                    if policy.columns
                    else getattr(names.loaded.scenario.columns, role) or role
                )
        own = {p.head for p in plan.predictions if p.policy == policy.index}
        if not own and policy.index == 0:
            raise names.loaded.error(
                "the baseline has no predictions: the log has no pctr, pcvr or pctcvr column; "
                "name them in columns, or give baseline: {model: FILE} or --baseline FILE",
                "baseline",
            )
        policy.own_heads = tuple(h for h in HEADS if h in own)
        if policy.index > 0:
            base = plan.policies[0].own_heads
            product = {"ctr", "cvr"} & own and {"ctr", "cvr"} <= own | set(base)
            policy.borrowed_heads = tuple(h for h in base if h not in own and not (h == "ctcvr" and product))


def _judged_heads(plan: Plan, loaded: LoadedScenario) -> None:
    has = plan.has
    label = {"ctr": has("click"), "cvr": has("click") and has("conversion"), "ctcvr": has("conversion")}
    asked = loaded.scenario.heads
    known = [h for h in HEADS if label[h] and any(p.head == h for p in plan.predictions)]
    known = [h for h in known if all(plan.prediction(p.index, h) for p in plan.policies)]
    plan.calibrated_by = {"ctr": ("ctr",)} if "ctr" in known else {}
    if "ctcvr" in known:
        plan.calibrated_by["ctcvr"] = ("ctcvr",)
    elif {"ctr", "cvr"} <= set(known):
        plan.calibrated_by["ctcvr"] = ("ctr", "cvr")
    if asked is None:
        plan.heads = tuple(known)
        return
    for head in asked:
        if not label[head]:
            need = {"ctr": "click", "cvr": "click and conversion", "ctcvr": "conversion"}[head]
            raise loaded.error(
                f"sample_type asks for {head}, which needs a {need} column; set it in columns", "sample_type"
            )
        for policy in plan.policies:
            if plan.prediction(policy.index, head) is None:
                raise loaded.error(
                    f'sample_type asks for {head}, but policy "{policy.name}" does not predict it '
                    f"and the baseline has no {PREDICTION_COLUMN[head]} to take instead",
                    "sample_type",
                )
    plan.heads = asked


def _features(plan: Plan, names: Names, log_columns: set[str]) -> None:
    loaded = names.loaded
    for i, name in enumerate(loaded.scenario.features):
        if name not in log_columns and not (name in TIME_PARTS and plan.local_time):
            raise loaded.error(f'features: the log has no column "{name}"{nearest(name, log_columns)}', "features", i)
    for policy in plan.policies:
        for name in policy.scorer.features if policy.scorer else ():
            if name in log_columns:
                names.check_whole(name)
                plan.features[name] = f"s.{quote_identifier(name)}"
            elif name in TIME_PARTS and plan.local_time:
                plan.features[name] = TIME_PARTS[name].format(plan.local_time)
            else:
                keyed = policy.bundle is None and isinstance(policy.scorer, PredictionFile)
                raise LogError(
                    f'{"its key is" if keyed else "the model needs the feature"} "{name}", and the log has no such column'
                    f"{nearest(name, log_columns)}",
                    file=policy.model_path,
                )


def _budget(plan: Plan, names: Names, engine: AnyEngine, relation: str) -> None:
    budget = names.loaded.scenario.budget
    if budget is None:
        return
    if isinstance(budget.amount, str):
        amount = budget.amount
        plan.budget_amount = later_names(
            plan,
            names,
            lambda later: Names(names.loaded, later).compile(amount, "budget", "amount", extra=role_names(plan)),
        )
        try_amount(plan, names, engine, relation, amount, "budget", "amount", extra=role_names(plan))
        plan.budget_amount = f"cast({plan.budget_amount} as double)"
    else:
        plan.budget_amount = f"{budget.amount!r}::double"
    local, time = plan.local_time, plan.roles["time"]
    if budget.per == "total":
        plan.budget_period = "''"
    elif budget.per in ("day", "hour"):
        if local is None:
            raise names.loaded.error(f"budget.per: {budget.per} needs the time of each row; set columns.time", "budget")
        if budget.per == "day":
            plan.budget_period = f"cast({local} as date)"
        elif plan.time_kind == "instant":
            # The instant at which the local hour began: when clocks go back, the hour that comes twice is two hours.
            plan.budget_period = f"({time} - ({local} - date_trunc('hour', {local})))"
        else:
            plan.budget_period = f"date_trunc('hour', {local})"
    else:
        if re.fullmatch(r"\w+", budget.per) and named(budget.per, names.columns) is None:
            raise names.loaded.error(
                f'budget.per: "{budget.per}" is neither day, hour nor total, nor a column of the log'
                f"{nearest(budget.per, ['day', 'hour', 'total', *names.columns])}; an SQL expression will do too",
                "budget",
                "per",
            )
        period = names.compile(budget.per, "budget", "per").sql
        check_binds(names.loaded, engine, relation, period, "budget", "per")
        plan.budget_period = f"cast({period} as varchar)"
    if budget.pacing == "even":
        elapsed, span = pace_of(plan, names.loaded, budget.per)
        # A row without a time comes last in its period, when all of the budget is released.
        elapsed, span = f"cast({elapsed} as bigint)", f"cast({span} as bigint)"
        plan.pace = (f"coalesce({elapsed}, {span}, 1)", f"coalesce({span}, 1)")


def _internal(plan: Plan, loaded: LoadedScenario) -> None:
    if not loaded.scenario.auction.internal:
        return
    for role in ("request", "campaign"):
        if not plan.has(role):
            raise loaded.error(
                f"auction.internal needs to know which bids are of one request, and of which campaign; set columns.{role}",
                "auction",
                "internal",
            )
    plan.internal = True


def _require(loaded: LoadedScenario, plan: Plan) -> None:
    if not plan.has("price"):
        raise LogError(
            'the log has no price: no column "price" and columns.price is not set; it is the lowest bid that would have '
            "won, in currency per 1000 impressions",
            file=loaded.file,
        )
    if not (plan.has("click") or plan.has("conversion")):
        raise LogError(
            "the log has neither clicks nor conversions; set columns.click or columns.conversion", file=loaded.file
        )
    if any(p.role == "candidate" for p in plan.policies):
        return
    raise ScenarioError("no candidate: give --model FILE, or candidates in the scenario", file=loaded.file)
