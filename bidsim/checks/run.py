"""`bidsim check`: every check of one scenario's log, thorough ones included."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bidsim.checks.catalogue import Outcome, Report, skipped
from bidsim.checks.categories import log_of_features, unseen_categories
from bidsim.checks.quick import quick_checks
from bidsim.checks.thorough import duplicates, immaturity, order_of_events, skew, throttling
from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.replay.binding import planned
from bidsim.replay.engine import Engine
from bidsim.replay.pipeline import Settings
from bidsim.replay.plan import Plan
from bidsim.replay.policies import bidder, resolve
from bidsim.replay.progress import Progress, Silent
from bidsim.replay.sql import render
from bidsim.replay.stages import Stages
from bidsim.scenario.loading import LoadedScenario, refuse_spark, refuse_unsupported
from bidsim.scenario.schema import PREDICTION_COLUMN, Policy
from bidsim.scratch import scratch

EVENTS = {"time": "seen_at", "click_time": "clicked_at", "conversion_time": "converted_at"}


def run_check(
    loaded: LoadedScenario,
    models: Sequence[Path],
    *,
    baseline: Path | None = None,
    tables: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a scenario's log and models; without any candidate the log and the baseline alone.

    Budgets, internal auctions, maturity and removed campaigns play no part: the log is looked at as it is.
    Raises BidsimError for anything that can't be used.
    """
    settings, progress = settings or Settings(), progress or Silent()
    refuse_unsupported(loaded)
    refuse_spark(loaded, "bidsim check")
    loaded = _with_candidate(loaded, models)
    policies = resolve(loaded, models, baseline, settings.threads)
    progress.step("opening models and log")
    found = open_log(loaded, tables or {})
    threads = settings.threads or os.cpu_count() or 1
    with (
        scratch(settings.directory) as work,
        brought(found, Path(work).resolve(), progress.step) as log,
        Engine(
            log.files,
            Path(work).resolve(),
            folders=log.folders,
            threads=threads,
            memory_bytes=settings.engine_bytes,
            zone=loaded.scenario.timezone,
        ) as engine,
        planned(loaded, engine, log, policies) as plan,
    ):
        plan.budget_amount = plan.budget_period = plan.pace = plan.ripening = None
        plan.internal = False
        for role, sql in plan.seconds.items():
            plan.carry(EVENTS[role], sql)
        logged = _carry_predictions(plan)
        stages = Stages(engine, plan, ties_lose=loaded.scenario.auction.ties == "lose", never=False)
        progress.step("reading and scoring the log" if plan.scored else "reading the log")
        stages.read(progress.rows)
        stages.derive()
        bids = render(
            "bids", formulas="formulas", bidders=[bidder(policies[0], "0")], any_first_price=plan.any_first_price
        )
        engine.run(f"create view checked as {bids}")
        (rows,) = engine.rows("select count(*) from facts")[0]
        if not rows:
            from bidsim.replay.census import census

            census(engine, plan, stages.rows)  # says that no row is left, and why that may be
        progress.step("checking")
        outcomes = quick_checks(engine, plan, int(rows), all_rows=True)
        outcomes += duplicates(engine, plan)
        outcomes.append(order_of_events(engine, plan))
        maturity, until = loaded.scenario.maturity, loaded.observed_until()
        window = maturity.conversion_window_hours if maturity else None
        outcomes.append(immaturity(engine, plan, window, until.timestamp() if until else None))
        bundles = {p.name: p.bundle for p in policies if p.bundle is not None}
        outcomes.append(unseen_categories(engine, plan, bundles, log_of_features(plan)))
        outcomes.append(throttling(engine, plan))
        outcomes.append(_prediction_skew(engine, plan, logged))
        outcomes.append(_bid_skew(engine, plan))
    return Report(loaded.name, int(rows), sorted(outcomes, key=lambda o: o.code))


def _with_candidate(loaded: LoadedScenario, models: Sequence[Path]) -> LoadedScenario:
    """The log can be checked before there is a candidate: the baseline stands in for it."""
    if models or loaded.scenario.candidates:
        return loaded
    from dataclasses import replace

    from bidsim.scenario.schema import Bid

    stand_in = {"(none)": Policy(bid=Bid(multiplier=1.0))}
    return replace(loaded, scenario=loaded.scenario.model_copy(update={"candidates": stand_in}))


def _carry_predictions(plan: Plan) -> list[tuple[str, str, str]]:
    """Production's own predictions beside those of a baseline model: (name, logged, recomputed)."""
    pairs = []
    for p in plan.predictions:
        role = PREDICTION_COLUMN[p.head]
        if p.policy == 0 and p.sql is None and plan.roles[role] is not None:
            plan.carry(f"logged_{role}", f"cast({plan.roles[role]} as double)")
            pairs.append((role, f"logged_{role}", p.valid))
    return pairs


def _prediction_skew(engine: Engine, plan: Plan, pairs: list[tuple[str, str, str]]) -> Outcome:
    if not pairs:
        return skipped("C15", "needs production's predictions in the log and the baseline as a model (--baseline)")
    return skew(engine, "C15", "predictions", pairs, plan)


def _bid_skew(engine: Engine, plan: Plan) -> Outcome:
    if not plan.has("bid"):
        return skipped("C16", "the log has no bids of its own (columns.bid)")
    return skew(engine, "C16", "bids", [("bids", "bid_log", "bid_0")], plan)
