"""The replay, as one sentence: scenario -> log -> scores -> bids -> outcomes -> statistics -> gate -> result.

Rows exist only up to the outcomes; from the statistics on there are only small tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from bidsim.checks.counted import counted_by
from bidsim.checks.quick import quick_checks, worth_saying
from bidsim.gate import judge
from bidsim.logs.bringing import Log, brought
from bidsim.logs.opening import open_log
from bidsim.replay.assemble import Reduced, assemble
from bidsim.replay.binding import planned
from bidsim.replay.census import betas_of, campaigns_of, census, check_room, segment_values
from bidsim.replay.exchanges import exchanges
from bidsim.replay.fidelity import check_fidelity
from bidsim.replay.levels import OtherLevels, level_scan, level_starts
from bidsim.replay.matched_fates import matched_ranges
from bidsim.replay.measures import COARSE_BITS, FINE_BITS, FINE_ROWS, result_value
from bidsim.replay.notes import observe, training
from bidsim.replay.policies import bidder, resolve
from bidsim.replay.progress import Progress, Silent
from bidsim.replay.reduce import Reduction, outline_of
from bidsim.replay.stages import Stages
from bidsim.replay.starting import open_engine
from bidsim.replay.sweeps import sweep_levels
from bidsim.replay.unknowns import find_unknowns
from bidsim.replay.walk import walk_levels
from bidsim.result import Result
from bidsim.scenario.loading import LoadedScenario, refuse_unsupported
from bidsim.scratch import scratch
from bidsim.statistics.tables import Tables

# What Python itself needs beside the engine: interpreter, libraries, a few batches.
OWN_BYTES = 600 * 2**20
LEAST_BYTES = 1024 * 2**20


@dataclass(frozen=True)
class Settings:
    """How to run, never what to compute. threads: None for all cores; memory_bytes: for the whole process;
    engine: duckdb or spark, None for the scenario's; spark: remote, master and settings of Spark by name."""

    threads: int | None = None
    memory_bytes: int = 4 * 2**30
    directory: Path | None = None
    engine: str | None = None
    spark: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine_bytes(self) -> int:
        """What is left for the engine."""
        return max(LEAST_BYTES, self.memory_bytes) - OWN_BYTES


@dataclass(frozen=True)
class Replayed:
    """A judged result, the tables that it was computed from, and the log that they were reduced from."""

    result: Result
    tables: Tables
    log: Log


def run_replay(
    loaded: LoadedScenario,
    models: Sequence[Path],
    *,
    as_of: date,
    baseline: Path | None = None,
    tables: Mapping[str, str] | None = None,
    log: Log | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Replay a scenario. models: bundles of candidates; tables: paths of tables by name, as on the command line.
    log: what these tables mean, already opened and perhaps brought here.

    Raises BidsimError for anything that can't be used; writes nothing but a work folder that is gone at the end.
    """
    settings, progress = settings or Settings(), progress or Silent()
    threads = settings.threads or os.cpu_count() or 1
    refuse_unsupported(loaded)
    scenario = loaded.scenario
    progress.step("opening models and log")
    policies = resolve(loaded, models, baseline, threads)
    found = log or open_log(loaded, tables or {})
    with (
        scratch(settings.directory) as work,
        brought(found, Path(work).resolve(), progress.step) as here,
        open_engine(
            loaded,
            here.files,
            Path(work).resolve(),
            engine=settings.engine,
            spark=settings.spark,
            threads=threads,
            memory_bytes=settings.engine_bytes,
            folders=here.folders,
        ) as engine,
        planned(loaded, engine, here, policies) as plan,
    ):
        ties_lose = scenario.auction.ties == "lose"
        never = scenario.budget is not None and scenario.budget.overspend == "never"
        stages = Stages(engine, plan, ties_lose=ties_lose, never=never)
        progress.step("reading and scoring the log" if plan.scored else "reading the log")
        stages.read(progress.rows)
        removed = stages.remove_anomalies() if scenario.remove_anomaly_cvr_cpns else None
        counts = census(engine, plan, stages.rows)
        progress.total(counts["rows"])
        plan.fraction_bits, plan.loss_bits = FINE_BITS if counts["rows"] <= FINE_ROWS else COARSE_BITS
        stages.derive()
        found_before = len(plan.findings)
        bidders = [bidder(p, str(p.index)) for p in policies]
        progress.step("settling budgets" if plan.budgeted else "replaying auctions")
        stages.settle(bidders, "outcomes", progress.rows)
        plan.notes |= observe(plan, stages, bidders, "outcomes") | training(policies)
        progress.step("reducing to statistics")
        values = segment_values(engine, plan)
        check_room(plan, values, settings.memory_bytes - OWN_BYTES)
        starts = level_starts(plan, ties_lose)
        levels_of = level_scan(plan, values, ties_lose) if starts else None
        reduction = Reduction(engine, plan, values, counts)
        betas = betas_of(loaded, counts) if result_value(plan) is not None else ()
        fates = not plan.budgeted and scenario.outcomes == "observed"
        scanned = reduction.run(
            bidders, "outcomes", betas, starts, levels_of, progress.rows, ties_lose=ties_lose, fates=fates
        )
        progress.step("other bid levels")
        families = scanned.families
        if scanned.levels is not None:
            levels = walk_levels(engine, plan, scanned.levels, starts, families, scanned.aside)
        else:
            levels, families = sweep_levels(engine, plan, stages, families)
        predict = scenario.outcomes == "predicted"
        unknown = find_unknowns(stages, bidders, "outcomes", scanned.families, scanned.aside, predict=predict)
        ranges = {} if predict else matched_ranges(stages, levels, unknown, families, scanned.aside)
        plan.notes |= exchanges(stages, bidders, "outcomes", scanned.families, scanned.logged)
        fidelity = check_fidelity(plan, scanned.logged)
        counted = counted_by(plan, scanned.logged, campaigns_of(plan, values), scanned.units)
        checked = quick_checks(engine, plan, counts["rows"], counted)
        plan.findings[found_before:found_before] = [o.finding() for o in worth_saying(checked)]
    progress.step("computing numbers and intervals")
    outline = outline_of(plan, betas, scanned.units)
    families = {n: replace(f, expected=unknown.expected.get(n, {})) for n, f in families.items()}
    if unknown.expected:
        # Other levels count observed outcomes only: beside expected ones they would compare two populations.
        levels = OtherLevels(levels.frontier, {}, {})
    small = Tables(
        outline, families, scanned.ranked, levels.matched, levels.stages, unknown.pairs, ranges, scanned.prices
    )
    result = assemble(loaded, Reduced(plan, counts, small, levels.frontier, fidelity, removed), as_of)
    result = result.model_copy(update={"diagnostics": {**result.diagnostics, **plan.notes}})
    return Replayed(judge(result, scenario.gate, fidelity_warns=scenario.fidelity == "warn"), small, found)
