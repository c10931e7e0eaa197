"""From scenario and log schema to the text of every step: what is compiled once, before any row is read.

User-written expressions are bound here: names in `columns` and `conditions` are log (or campaign-table) columns,
names in the bid formula are the policy's predictions, the targets, then log columns. Everything that can be wrong
with a name or a type is found here, with the scenario's line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bidsim.errors import BidsimError, LogError, ScenarioError
from bidsim.logs.source import Source, open_source
from bidsim.replay.engine import Engine
from bidsim.replay.policies import PolicyPlan
from bidsim.scenario.expressions import Compiled, compile_expression, quote_identifier
from bidsim.scenario.loading import LoadedScenario, nearest
from bidsim.scenario.schema import HEADS, PREDICTION_COLUMN, ROLES, Head

NUMERIC_ROLES = (
    "price",
    "floor",
    "bid",
    "won",
    "loss_reason",
    "click",
    "conversion",
    "weight",
    "target_cpc",
    "target_cpa",
    "daily_budget",
)
NUMERIC_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
OUTCOME_ROLES = ("price", "won", "click", "conversion")
TIME_PARTS = {
    "hour": "extract('hour' from {0})",
    "weekday": "extract('isodow' from {0})",
    "day": "cast({0} as date)",
}


@dataclass(frozen=True)
class Segment:
    """A way to cut the log. name: as the result calls it; column: in the SQL; shown: whether the scenario asked."""

    name: str
    column: str
    sql: str
    shown: bool = True


@dataclass(frozen=True)
class Carried:
    """A log column that a later step needs under an internal name."""

    column: str
    sql: str


@dataclass(frozen=True)
class Prediction:
    """One logged or scored prediction: policy index, head, raw column, column after validity, SQL (None: scored)."""

    policy: int
    head: Head
    column: str
    valid: str
    sql: str | None


@dataclass(frozen=True)
class CampaignTable:
    reader: str
    key: str
    names: dict[str, str]


@dataclass
class Plan:
    """Everything the steps need, as SQL text. Built by `make_plan`."""

    source: Source
    roles: dict[str, str | None]
    time_kind: str | None
    local_time: str | None
    conditions: list[str]
    segments: list[Segment]
    policies: list[PolicyPlan]
    predictions: list[Prediction]
    heads: tuple[Head, ...]
    first_price: str
    any_first_price: bool
    indicator: str
    campaigns: CampaignTable | None
    carried: dict[str, Carried] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    budget_amount: str | None = None
    budget_period: str | None = None
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def has(self, role: str) -> bool:
        return self.roles[role] is not None

    @property
    def weighted(self) -> bool:
        return self.has("weight")

    @property
    def scored(self) -> bool:
        return any(p.sql is None for p in self.predictions)

    @property
    def budgeted(self) -> bool:
        return self.budget_amount is not None

    def valid(self, policy: int, head: Head) -> str | None:
        """The column of a policy's own valid prediction of a head."""
        return next((p.valid for p in self.predictions if p.policy == policy and p.head == head), None)

    def prediction(self, policy: int, head: Head) -> str | None:
        """The SQL of what a policy predicts: its own head, the baseline's (spec 3.2), or pctr * pcvr for ctcvr."""
        for index in (policy, 0):
            column = self.valid(index, head)
            if column is not None:
                return column
        if head == "ctcvr":
            ctr, cvr = self.prediction(policy, "ctr"), self.prediction(policy, "cvr")
            if ctr and cvr:
                return f"({ctr} * {cvr})"
        return None


class Names:
    """The names a user's expression may use, and what they stand for at one level of the query."""

    def __init__(self, loaded: LoadedScenario, columns: Mapping[str, str]) -> None:
        self.loaded = loaded
        self.columns = dict(columns)

    def compile(self, text: str, *path: str | int, extra: Mapping[str, str] | None = None) -> Compiled:
        """path: the key of the scenario that holds the text, for messages."""
        key = ".".join(str(p) for p in path)

        def where(message: str) -> BidsimError:
            return self.loaded.error(f"{key}: {message}", *path)

        return compile_expression(text, {**self.columns, **(extra or {})}, where=where)


def make_plan(loaded: LoadedScenario, engine: Engine, source: Source, policies: list[PolicyPlan]) -> Plan:
    """Bind the scenario to the log's columns.

    policies: baseline first, as `policies.resolve` gives them; their SQL is completed here. Raises ScenarioError for
    a name or expression at fault, LogError for a missing or ill-typed column.
    """
    scenario = loaded.scenario
    log_columns = engine.names(f"select * from {source.reader()}")
    names = Names(loaded, {name: f"s.{quote_identifier(name)}" for name, _ in log_columns})
    campaign_sql = _role(names, loaded, "campaign")
    campaigns = _campaign_table(loaded, engine, source, campaign_sql)
    if campaigns is not None:
        for name, _ in engine.names(f"select * from {campaigns.reader}"):
            names.columns.setdefault(name, f"c.{quote_identifier(name)}")
    roles = {role: campaign_sql if role == "campaign" else _role(names, loaded, role) for role in ROLES}
    relation = f"{source.reader()} as s" + _join(campaigns, campaign_sql)
    types = _types(loaded, engine, relation, roles)
    _check_numeric(loaded, types)
    time_kind = _time_kind(loaded, types)
    if time_kind is not None:
        roles["time"] = f"cast({roles['time']} as {'timestamptz' if time_kind == 'instant' else 'timestamp'})"
    zone = scenario.timezone.replace("'", "''")
    local = roles["time"] if time_kind == "wall" else f"timezone('{zone}', {roles['time']})" if time_kind else None

    conditions = [names.compile(text, "conditions", i).sql for i, text in enumerate(scenario.conditions)]
    conditions += _window_conditions(loaded, roles["time"], time_kind)
    for i, text in enumerate(conditions):
        _check_binds(loaded, engine, relation, f"coalesce({text}, false)", "conditions", min(i, 10**6))
    segments = _segments(loaded, engine, relation, names, roles, local)
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
        indicator=_indicator(loaded, roles),
        campaigns=campaigns,
    )
    _auction_type(plan, names)
    _predictions(plan, names, engine, relation)
    _judged_heads(plan, loaded)
    _features(plan, loaded, {name for name, _ in log_columns})
    _formulas(plan, names)
    _budget(plan, names)
    _require(loaded, plan)
    return plan


def _role(names: Names, loaded: LoadedScenario, role: str) -> str | None:
    text = getattr(loaded.scenario.columns, role)
    if text is not None:
        return names.compile(text, "columns", role).sql
    if role == "unit" and loaded.scenario.intervals and loaded.scenario.intervals.unit:
        return names.compile(loaded.scenario.intervals.unit, "intervals", "unit").sql
    return names.columns.get(role)


def _join(campaigns: CampaignTable | None, campaign_sql: str | None) -> str:
    if campaigns is None:
        return ""
    return f" left join {campaigns.reader} as c on cast(c.{campaigns.key} as varchar) = cast({campaign_sql} as varchar)"


def _campaign_table(
    loaded: LoadedScenario, engine: Engine, source: Source, campaign_sql: str | None
) -> CampaignTable | None:
    path = loaded.scenario.campaigns
    if path is None:
        return None
    if campaign_sql is None:
        raise loaded.error("campaigns: the log has no campaign column to join on; set columns.campaign", "campaigns")
    table = open_source("campaigns", loaded.resolve(path), None)
    columns = [name for name, _ in engine.names(f"select * from {table.reader()}")]
    wanted = loaded.scenario.columns.campaign or "campaign"
    key = next((k for k in (wanted, "campaign") if k in columns), None)
    if key is None:
        raise LogError(
            f'the campaign table has no column "{wanted}" to join the log\'s campaign on; '
            f"it has {', '.join(columns[:20])}",
            file=path,
        )
    quoted = quote_identifier(key)
    twice = engine.rows(
        f"select cast({quoted} as varchar) k, count(*) n from {table.reader()} group by k having n > 1 order by k limit 1"
    )
    if twice:
        raise LogError(
            f'campaign "{twice[0][0]}" stands {twice[0][1]} times; joining it would count its rows that often',
            file=path,
        )
    named: dict[str, str] = {}
    if "name" in columns:
        rows = engine.rows(f"select cast({quoted} as varchar), cast(name as varchar) from {table.reader()} order by 1")
        named = {str(k): str(v) for k, v in rows if k is not None and v is not None}
    return CampaignTable(table.reader(), quoted, named)


def _types(loaded: LoadedScenario, engine: Engine, relation: str, roles: Mapping[str, str | None]) -> dict[str, str]:
    types: dict[str, str] = {}
    for role, sql in roles.items():
        if sql is not None:
            types[role] = _check_binds(loaded, engine, relation, sql, "columns", role)
    return types


def _check_binds(loaded: LoadedScenario, engine: Engine, relation: str, sql: str, *path: str | int) -> str:
    """The type of an expression over the log; an expression that the engine refuses is the scenario's error."""
    try:
        return engine.names(f"select {sql} as x from {relation}")[0][1]
    except LogError as error:
        key = ".".join(str(p) for p in path)
        reason = error.message.removeprefix("the log can't be read: ")
        raise loaded.error(f"{key}: the expression does not fit the log: {reason[:300]}", *path) from error


def _check_numeric(loaded: LoadedScenario, types: Mapping[str, str]) -> None:
    for role in NUMERIC_ROLES:
        kind = types.get(role, "DOUBLE")
        if not kind.startswith(NUMERIC_TYPES) and not kind.startswith("U") and kind != '"NULL"':
            raise loaded.error(
                f"columns.{role}: the log's column is {kind}, a number is needed; "
                f"write an expression such as cast({role} as double)",
                "columns",
                role,
            )


def _time_kind(loaded: LoadedScenario, types: Mapping[str, str]) -> str | None:
    kind = types.get("time")
    if kind is None:
        return None
    if kind == "TIMESTAMP WITH TIME ZONE":
        return "instant"
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return "wall"
    if loaded.scenario.columns.time is None:
        return None  # a column that merely happens to be called time
    raise loaded.error(
        f"columns.time: the log's column is {kind}, a time is needed; write to_timestamp(seconds), "
        "epoch_ms(milliseconds) or cast(text as timestamp)",
        "columns",
        "time",
    )


def _window_conditions(loaded: LoadedScenario, time: str | None, kind: str | None) -> list[str]:
    window = loaded.window()
    if window is None:
        return []
    if time is None:
        table = next(iter(loaded.scenario.logs_tables))
        raise loaded.error(
            "last_hour and duration_hour need the time of each row; set columns.time", "logs_tables", table, "last_hour"
        )
    start, end = window
    if kind == "instant":
        low, high = (f"timestamptz '{t:%Y-%m-%d %H:%M:%S}+00'" for t in (start, end))
    else:
        low, high = (f"timestamp '{t.astimezone(loaded.zone):%Y-%m-%d %H:%M:%S}'" for t in (start, end))
    return [f"({time} >= {low})", f"({time} < {high})"]


def _segments(
    loaded: LoadedScenario,
    engine: Engine,
    relation: str,
    names: Names,
    roles: Mapping[str, str | None],
    local: str | None,
) -> list[Segment]:
    found: dict[str, str] = {}
    for i, entry in enumerate(loaded.scenario.segments):
        pairs = [(entry, entry)] if isinstance(entry, str) else list(entry.items())
        for name, text in pairs:
            if name in found:
                raise loaded.error(f'segments: "{name}" stands twice', "segments", i)
            if text in ROLES and roles.get(text) is not None:
                sql = str(roles[text])
            elif text not in names.columns and text in TIME_PARTS and local is not None:
                sql = TIME_PARTS[text].format(local)
            else:
                sql = names.compile(text, "segments", i).sql
            _check_binds(loaded, engine, relation, sql, "segments", i)
            found[name] = sql
    segments = [Segment(name, f"segment_{i}", sql) for i, (name, sql) in enumerate(found.items())]
    if roles["campaign"] is not None and roles["campaign"] not in found.values():
        # Metrics over campaigns (gauc, target_attainment) need the campaigns even where nobody asked to see them.
        segments.append(Segment("campaign", f"segment_{len(segments)}", str(roles["campaign"]), shown=False))
    return segments


def _indicator(loaded: LoadedScenario, roles: Mapping[str, str | None]) -> str:
    given = loaded.scenario.performance_indicator_type
    if given is not None:
        return given
    return "cpa" if roles["target_cpa"] is not None or roles["target_cpc"] is None else "cpc"


def _auction_type(plan: Plan, names: Names) -> None:
    text = names.loaded.scenario.auction.type
    if text in ("second_price", "first_price"):
        plan.first_price = "true" if text == "first_price" else "false"
        plan.any_first_price = text == "first_price"
        return
    sql = names.compile(text, "auction", "type").sql
    # OpenRTB's `at` numbers them: 1 first price, 2 second price.
    plan.first_price = (
        f"case cast({sql} as varchar) when 'first_price' then true when '1' then true "
        "when 'second_price' then false when '2' then false end"
    )
    plan.any_first_price = True


def _predictions(plan: Plan, names: Names, engine: Engine, relation: str) -> None:
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
                _check_binds(names.loaded, engine, relation, f"cast({sql} as double)", *path)
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
            policy.borrowed_heads = tuple(h for h in base if h not in own and not (h == "ctcvr" and "ctr" in own))


def _judged_heads(plan: Plan, loaded: LoadedScenario) -> None:
    has = plan.has
    label = {"ctr": has("click"), "cvr": has("click") and has("conversion"), "ctcvr": has("conversion")}
    asked = loaded.scenario.heads
    if asked is None:
        plan.heads = tuple(h for h in HEADS if label[h] and any(p.head == h for p in plan.predictions))
        plan.heads = tuple(h for h in plan.heads if all(plan.prediction(p.index, h) for p in plan.policies))
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


def _features(plan: Plan, loaded: LoadedScenario, log_columns: set[str]) -> None:
    for i, name in enumerate(loaded.scenario.features):
        if name not in log_columns and not (name in TIME_PARTS and plan.local_time):
            raise loaded.error(f'features: the log has no column "{name}"{nearest(name, log_columns)}', "features", i)
    for policy in plan.policies:
        for name in policy.scorer.features if policy.scorer else ():
            if name in log_columns:
                plan.features[name] = f"s.{quote_identifier(name)}"
            elif name in TIME_PARTS and plan.local_time:
                plan.features[name] = TIME_PARTS[name].format(plan.local_time)
            else:
                raise LogError(
                    f'the model needs the feature "{name}", and the log has no such column{nearest(name, log_columns)}',
                    file=policy.model_file,
                )


def _later_names(plan: Plan, names: Names, compile_: Callable[[Mapping[str, str]], Compiled]) -> str:
    """Compile an expression of a later step: log columns it uses are carried there under internal names."""
    later = {name: f'"carried {i}"' for i, name in enumerate(names.columns)}
    compiled = compile_(later)
    for name in compiled.names:
        if name in later and name not in plan.carried:
            plan.carried[name] = Carried(later[name], names.columns[name])
    return compiled.sql


def _role_names(plan: Plan) -> dict[str, str]:
    return {r: r for r in ("target_cpc", "target_cpa", "daily_budget") if plan.has(r)}


def _formulas(plan: Plan, names: Names) -> None:
    loaded = names.loaded
    for policy in plan.policies:
        extra = _role_names(plan)
        for head in HEADS:
            sql = plan.valid(policy.index, head) or plan.valid(0, head)
            if sql is not None:
                extra[PREDICTION_COLUMN[head]] = sql
        text, path = policy.formula, policy.formula_path
        if text is None:
            text, path = _default_formula(plan, policy, loaded), ("bid",)
        policy.formula_text = text

        def compile_(
            later: Mapping[str, str],
            text: str = text,
            path: tuple[str | int, ...] = path,
            extra: dict[str, str] = extra,
            name: str = policy.name,
        ) -> Compiled:
            roles_too = {"price": "price", "bid": "bid_log", "campaign": "campaign", "floor": "floor_logged"}
            usable = {r: c for r, c in roles_too.items() if plan.has(r) and r not in names.columns}
            compiled = Names(loaded, {**later, **usable}).compile(text, *path, extra=extra)
            seen = {r for r in OUTCOME_ROLES if plan.roles[r] in {names.columns.get(n) for n in compiled.names}}
            if seen | (compiled.names & {"price"} - set(names.columns)):
                plan.warnings.append(
                    ("hindsight", f'the bid formula of "{name}" reads what is known only after the auction')
                )
            return compiled

        policy.formula_sql = _later_names(plan, names, compile_)


def _default_formula(plan: Plan, policy: PolicyPlan, loaded: LoadedScenario) -> str:
    target = f"target_{plan.indicator}"
    if not plan.has(target):
        raise loaded.error(
            f"the default bid formula for {plan.indicator} needs {target}, which neither the log nor the campaign table "
            f"has; set columns.{target} or bid.formula",
            "performance_indicator_type",
        )
    if plan.indicator == "cpc":
        return "1000 * target_cpc * pctr"
    if "ctcvr" in policy.own_heads:
        return "1000 * target_cpa * pctcvr"
    has = {h for h in HEADS if plan.valid(policy.index, h) or plan.valid(0, h)}
    if policy.index > 0 and not policy.own_heads and "ctcvr" in has:
        return "1000 * target_cpa * pctcvr"
    return "1000 * target_cpa * pctr * pcvr"


def _budget(plan: Plan, names: Names) -> None:
    budget = names.loaded.scenario.budget
    if budget is None:
        return
    if isinstance(budget.amount, str):
        amount = budget.amount
        plan.budget_amount = _later_names(
            plan,
            names,
            lambda later: Names(names.loaded, later).compile(amount, "budget", "amount", extra=_role_names(plan)),
        )
        plan.budget_amount = f"cast({plan.budget_amount} as double)"
    else:
        plan.budget_amount = f"{budget.amount!r}::double"
    if budget.per == "total":
        plan.budget_period = "''"
    elif budget.per in ("day", "hour"):
        if plan.local_time is None:
            raise names.loaded.error(f"budget.per: {budget.per} needs the time of each row; set columns.time", "budget")
        plan.budget_period = f"cast(date_trunc('{budget.per}', {plan.local_time}) as varchar)"
    else:
        plan.budget_period = f"cast({names.compile(budget.per, 'budget', 'per').sql} as varchar)"


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


def open_log(loaded: LoadedScenario, tables: Mapping[str, str]) -> Source:
    """The log of the scenario; tables: bindings of the command line, by table name. Raises ScenarioError, LogError."""
    name, table = next(iter(loaded.scenario.logs_tables.items()))
    unknown = [t for t in tables if t not in loaded.scenario.logs_tables]
    if unknown:
        raise ScenarioError(
            f'--table {unknown[0]}=...: the scenario has no table "{unknown[0]}"; it has {name}', file=loaded.file
        )
    if name in tables:
        return open_source(name, Path(tables[name]), table.format)
    if table.path is None:
        raise loaded.error(
            f"table {name} has no path; give one, or bind it with --table {name}=PATH", "logs_tables", name
        )
    return open_source(name, loaded.resolve(table.path), table.format)


def extra_files(loaded: LoadedScenario) -> Sequence[str]:
    """Files beside the log that the engine may read: the campaign table."""
    if loaded.scenario.campaigns is None:
        return []
    return open_source("campaigns", loaded.resolve(loaded.scenario.campaigns), None).files
