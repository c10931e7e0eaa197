"""From outcomes to small tables: the only place where statistics meet the engine's rows.

Two streams of the same columns: the positively labelled rows first, whose scores are the cut points of the exact AUC,
then all rows once. Every sum is of whole numbers by segment value and bucket of units, so threads, batches and files
can't change a digit, and intervals need no further look at the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bidsim.replay.aside import Aside, Wanted
from bidsim.replay.engines import AnyEngine
from bidsim.replay.levels import LevelScan, Start
from bidsim.replay.logged import Logged
from bidsim.replay.measures import COUNT_BITS, scales
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.stream import STREAM_ROWS, stream_sql
from bidsim.replay.worker import (
    INFLUENCE_BITS,
    UTILITY_BITS,
    Pair,
    PositiveRows,
    Positives,
    Rank,
    Scan,
    Shape,
    Worker,
)
from bidsim.replay.worth import sources_of_results
from bidsim.statistics.auc import auc
from bidsim.statistics.calibration import bins_by_code, recalibrated
from bidsim.statistics.prices import Prices
from bidsim.statistics.ranking import GRID_SHIFT, SMALL, Cuts
from bidsim.statistics.tables import Outline, Place, Ranked, ScoreGrid
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally
from bidsim.statistics.units import BUCKETS, buckets_for

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scanned:
    """What the scan leaves: sums by family, rank tables by head, source and family, number of units, and where bids start
    to win, if asked; bids and prices; and the rows that it set aside."""

    families: dict[str, Family]
    ranked: dict[Place, Ranked]
    units: int
    levels: LevelScan | None
    logged: Logged
    prices: Prices
    aside: Aside | None


def outline_of(plan: Plan, betas: Sequence[float], units: int) -> Outline:
    """What of a plan the tables need to speak for themselves."""
    place = plan.campaign_segment
    return Outline(
        policies=tuple(p.name for p in plan.policies),
        heads=tuple(str(h) for h in plan.heads),
        sources={(p.index, str(h)): plan.source_of(p.index, h) for p in plan.policies for h in plan.heads},
        shown=(OVERALL, *(s.name for s in plan.segments if s.shown)),
        campaigns=None if place is None else plan.segments[place].name,
        has_click=plan.has("click"),
        has_conversion=plan.has("conversion"),
        weighted=plan.weighted,
        betas=tuple(betas),
        units=units,
    )


class Reduction:
    """One reduction of one set of outcomes."""

    def __init__(
        self, engine: AnyEngine, plan: Plan, values: Sequence[tuple[str, ...]], counts: Mapping[str, int]
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.counts = counts
        plan.buckets = [buckets_for(len(v)) for v in values]
        self.families = (OVERALL, *(s.name for s in plan.segments))
        self.labels = dict(zip(self.families, [("",), *values], strict=True))
        # Weights are whole numbers of 2^-32; where their total leaves no room, their last bits are dropped.
        total = (counts["weights"] >> COUNT_BITS) + 1 if plan.weighted else counts["rows"]
        spare = 62 - max(1, total).bit_length()
        self.shape = Shape(
            plan=plan,
            families=self.families,
            sizes={name: len(labels) for name, labels in self.labels.items()},
            buckets=dict(zip(self.families, [BUCKETS, *plan.buckets], strict=True)),
            small=counts["rows"] <= SMALL,
            down=max(0, COUNT_BITS - spare) if plan.weighted else 0,
            down_cells=max(0, COUNT_BITS + GRID_SHIFT + 4 - spare) if plan.weighted else 0,
        )
        self.sizes, self.buckets = self.shape.sizes, self.shape.buckets
        self.down = self.shape.down

    def run(
        self,
        bidders: Sequence[Bidder],
        outcomes: str,
        betas: Sequence[float],
        starts: Sequence[Start],
        levels: Callable[[], LevelScan] | None,
        progress: Callable[[int], None],
        *,
        ties_lose: bool,
        fates: bool,
    ) -> Scanned:
        """levels: makes what counts where bids start to win; starts: what it reads; fates: whether rows of unknown fate are
        set aside."""
        plan = self.plan
        pairs = [(str(head), source) for head in plan.heads for source in plan.head_sources(head)]
        positives = self._positives(pairs, stream_sql(plan, [], "formulas", (), self._positive(), labels=plan.heads))
        ranks = {
            (head, source, name): self._rank(positives[(head, source)], name)
            for head, source in pairs
            for name in self.families
        }
        wanted = self._wanted(bidders, starts, fates=fates) if self.engine.local else None
        scan = Scan(self.shape, bidders, betas, pairs, ranks, levels, wanted)
        open_rows = wanted is not None and bool(wanted.fates)
        dearer = wanted is not None and wanted.dearer
        sql = stream_sql(plan, bidders, outcomes, starts, ties_lose=ties_lose, fates=open_rows, dearer=dearer)
        worker = self.engine.reduce(sql, partial(Worker, scan), progress)
        for (head, source), found in positives.items():
            worker.add_positives(head, source, found)
        families, loose = self._families(worker, betas)
        ranked = {
            place: self._ranked(place, rank, worker, positives[place[:2]], loose) for place, rank in ranks.items()
        }
        prices = worker.priced.table(worker.logged)
        return Scanned(families, ranked, worker.units.value(), worker.levels, worker.logged, prices, worker.aside)

    def _wanted(self, bidders: Sequence[Bidder], starts: Sequence[Start], *, fates: bool) -> Wanted | None:
        """What the scan sets aside; None for nothing."""
        plan, counts = self.plan, self.counts
        dearer = counts["prices_logged"] - counts["invalid_prices"] < counts["rows"]
        found = Wanted(
            plan,
            self.engine.work,
            tuple(s.policy for s in starts) if len(plan.policies) > 1 else (),
            tuple(b.policy for b in bidders) if fates else (),
            dearer=dearer,
            sources=tuple(dict.fromkeys(i for each in sources_of_results(plan).values() for _, i in each)),
            raised=tuple(s.policy for s in starts[1:]) if fates and not dearer else (),
        )
        return found if found.kinds else None

    def _positive(self) -> str:
        labels = " or ".join(f"y_{head} = 1e0" for head in self.plan.heads) or "false"
        # The log's own columns first: a filter that the scan itself can apply.
        raw = [f"{role}_logged > 0e0" for role in ("click", "conversion") if self.plan.has(role)]
        return f"({' or '.join(raw)}) and ({labels})"

    def _positives(self, pairs: Sequence[Pair], sql: str) -> dict[Pair, Positives]:
        if not pairs:
            return {}
        rows = self.engine.reduce(sql, partial(PositiveRows, self.shape, pairs))
        return {pair: rows.joined(pair) for pair in pairs}

    def _rank(self, positives: Positives, family: str) -> Rank:
        code = None if family == OVERALL else positives.codes[self.families.index(family) - 1]
        cuts = Cuts.of(positives.bits, code, positives.weights, self.sizes[family])
        totals = np.zeros(self.sizes[family])
        np.add.at(totals, cuts.code, cuts.positive)
        beaten = cuts.beaten()
        share_of = np.zeros(cuts.places)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = 0.5 / totals[cuts.code]
            share_of[1::2] = np.where(totals[cuts.code] > 0, beaten[1::2] * each, 0.0)
            share_of[2::2] = np.where(totals[cuts.code] > 0, beaten[2::2] * each, 0.0)
        return Rank(cuts, np.rint(share_of * 2.0**INFLUENCE_BITS))

    def _ranked(
        self,
        place: Place,
        rank: Rank,
        worker: Worker,
        positives: Positives,
        loose: Mapping[str, Mapping[Key, Floats]],
    ) -> Ranked:
        head, source, name = place
        ladders = rank.cuts.ladders(worker.histograms[place])
        size, buckets = self.sizes[name], self.buckets[name]
        # What each positive beats: its own place among the cuts, then the negatives below it and half of those equal.
        code = None if name == OVERALL else positives.codes[self.families.index(name) - 1]
        at = rank.cuts.place(positives.bits, code)
        beats = np.zeros(rank.cuts.places)
        for c, ladder in enumerate(ladders):
            begin = int(rank.cuts.starts[c])
            if ladder.negatives:
                shares = (ladder.below + 0.5 * ladder.equal) / ladder.negatives
                beats[2 * begin + 3 : 2 * (begin + len(shares)) + 3 : 2] = shares
        bucket = positives.bucket // (BUCKETS // buckets)
        group = bucket if code is None else code * buckets + bucket
        unit = 2.0 ** -(COUNT_BITS - self.down) if self.plan.weighted else 1.0
        won = Tally(size * buckets)
        for part in range(0, len(at), STREAM_ROWS):
            cut = slice(part, part + STREAM_ROWS)
            won.add(
                ("won", source, head),
                group[cut],
                np.rint(beats[at[cut]] * positives.weights[cut] * unit * 2.0**INFLUENCE_BITS),
            )
        _, parts = won.exact(size, buckets)
        nothing = np.zeros((size, buckets))
        refits = [recalibrated(ladder, unit) for ladder in ladders]
        bins, spans = bins_by_code(worker.cells[place], size)
        return Ranked(
            auc=np.array([auc(ladder) for ladder in ladders]),
            recalibrated=np.array([refit.brier for refit in refits]),
            bins=bins,
            won=parts.get(("won", source, head), nothing) / 2.0**INFLUENCE_BITS,
            lost=loose[name].get(("lost", source, head), nothing) / 2.0**INFLUENCE_BITS,
            grid=ScoreGrid(*worker.by_bucket[(head, source)].matrix()) if name == OVERALL else None,
            wiggle=np.array([refit.wiggle for refit in refits]),
            spans=spans,
        )

    def _families(
        self, worker: Worker, betas: Sequence[float]
    ) -> tuple[dict[str, Family], dict[str, Mapping[Key, Floats]]]:
        """(families by name, the parts of all sums by family name)."""
        scale = scales(self.plan)
        for policy in self.plan.policies:
            for beta in betas:
                scale[("expected_utility", policy.index, repr(beta))] = 2**UTILITY_BITS
        found: dict[str, Family] = {}
        loose: dict[str, Mapping[Key, Floats]] = {}
        for name, tally in zip(self.families, worker.tallies, strict=True):
            labels, buckets = self.labels[name], self.buckets[name]
            sums, parts = tally.exact(len(labels), buckets)
            loose[name] = parts
            known = {k: v for k, v in parts.items() if k in scale}
            found[name] = Family(name, labels, {k: v for k, v in sums.items() if k in scale}, scale, known, buckets)
        return found, loose
