"""The bid formulas of a plan: each policy's own text, the scenario's or the default one, compiled to SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bidsim.replay.columns import MONEY_ROLES, Names, check_binds, is_numeric
from bidsim.replay.engines import AnyEngine
from bidsim.replay.plan import Carried, Plan
from bidsim.replay.policies import PolicyPlan
from bidsim.scenario.expressions import Compiled
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.schema import HEADS, PREDICTION_COLUMN, ROLES

SEEN_ROLES = ("price", "bid", "floor")
OUTCOME_ROLES = ("price", "won", "click", "conversion")


def later_names(plan: Plan, names: Names, compile_: Callable[[Mapping[str, str]], Compiled]) -> str:
    """Compile an expression of a later step: log columns it uses are carried there under internal names."""
    later = {name: f'"carried {i}"' for i, name in enumerate(names.columns)}
    compiled = compile_(later)
    for name in compiled.names:
        if name in later and name not in plan.carried:
            plan.carried[name] = Carried(later[name], names.part(name))
    return compiled.sql


def role_names(plan: Plan) -> dict[str, str]:
    return {r: r for r in MONEY_ROLES if plan.has(r)}


def try_amount(
    plan: Plan, names: Names, engine: AnyEngine, relation: str, text: str, *path: str | int, extra: Mapping[str, str]
) -> None:
    """Refuse an amount of money that is none, by what it would be over the log itself, and keep that for messages.

    extra: what its names stand for in the step where it will be computed.
    """
    known = {r: f"cast({plan.roles[r]} as double)" for r in ROLES if plan.has(r)}
    over_log = {name: known.get(name, "cast(0.5 as double)") for name in extra}
    for p in plan.predictions:
        if p.sql is not None and PREDICTION_COLUMN[p.head] in over_log and extra[PREDICTION_COLUMN[p.head]] == p.valid:
            over_log[PREDICTION_COLUMN[p.head]] = f"cast({p.sql} as double)"
    roles = {r: sql for r, sql in known.items() if r in SEEN_ROLES and r not in names.columns}
    if plan.has("campaign") and "campaign" not in names.columns:
        roles["campaign"] = str(plan.roles["campaign"])
    sql = Names(names.loaded, {**names.columns, **roles}).compile(text, *path, extra=over_log).sql
    kind = check_binds(names.loaded, engine, relation, sql, *path)
    if not is_numeric(kind) and kind != "VARCHAR":  # the text of a number is one
        key = ".".join(map(str, path))
        raise names.loaded.error(f"{key}: gives a {kind}, where an amount of money is needed", *path)
    names.tried.append((path, f"cast({sql} as double)"))


def bind_formulas(plan: Plan, names: Names, engine: AnyEngine, relation: str) -> None:
    loaded = names.loaded
    for policy in plan.policies:
        extra = role_names(plan)
        for head in HEADS:
            sql = plan.valid(policy.index, head) or plan.valid(0, head)
            if sql is not None:
                extra[PREDICTION_COLUMN[head]] = sql
        text, path = policy.formula, policy.formula_path
        if text is None:
            text, path = _default_formula(plan, policy, loaded), ("bid",)
        policy.formula_text = text
        roles_too = {"price": "price", "bid": "bid_log", "campaign": "campaign", "floor": "floor_logged"}
        if loaded.shift.prices != 1.0:  # what the log bid is what it was, whatever others ask
            roles_too["bid"] = f"(bid_log / {loaded.shift.prices!r}::double)"
        usable = {r: c for r, c in roles_too.items() if plan.has(r) and r not in names.columns}
        used: set[str] = set()

        def compile_(
            later: Mapping[str, str],
            text: str = text,
            path: tuple[str | int, ...] = path,
            extra: dict[str, str] = extra,
            name: str = policy.name,
            usable: dict[str, str] = usable,
            used: set[str] = used,
        ) -> Compiled:
            compiled = Names(loaded, {**later, **usable}).compile(text, *path, extra=extra)
            used |= compiled.names
            read = {names.columns[n] for n in compiled.names if n in names.columns}
            seen = {r for r in OUTCOME_ROLES if plan.roles[r] in read}
            if seen | (compiled.names & {"price"} - set(names.columns)):
                plan.warnings.append(
                    ("hindsight", f'the bid formula of "{name}" reads what is known only after the auction')
                )
            return compiled

        formula = later_names(plan, names, compile_)
        if policy.index > 0:
            lent = {h for h in HEADS if PREDICTION_COLUMN[h] in used and not plan.valid(policy.index, h)}
            policy.borrowed_heads = tuple(h for h in HEADS if h in {*policy.borrowed_heads, *lent})
        policy.formula_sql = _never_on_invalid(plan, policy, formula)
        try_amount(plan, names, engine, relation, text, *path, extra=extra)


def _never_on_invalid(plan: Plan, policy: PolicyPlan, formula: str) -> str:
    """A prediction that is NaN or out of range is never bid on (spec 3.2), even by a formula that does without it.

    A missing one is NULL to the formula, which may say what then: coalesce, or another target's formula.
    """
    broken = [f"({p.column} is not null and {p.valid} is null)" for p in plan.used(policy.index)]
    return f"case when {' or '.join(broken)} then null else {formula} end"


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
