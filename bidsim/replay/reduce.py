"""From outcomes to small tables: the only place where statistics meet the engine's rows.

Two streams of the same columns: the positively labelled rows first, whose scores are the cut points of the exact AUC,
then all rows once. Every sum is of whole numbers by segment value and bucket of units, so threads, batches and files
can't change a digit, and intervals need no further look at the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim import kernels
from bidsim.replay.batches import Batch, Pick
from bidsim.replay.engine import Engine
from bidsim.replay.measures import COUNT_BITS, NO_LABEL, Adder, add_head, add_log, add_policy, scales
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.stream import STREAM_ROWS, share, stream_sql
from bidsim.statistics.auc import auc
from bidsim.statistics.calibration import bins_by_code, recalibrated_brier
from bidsim.statistics.ranking import GRID_SHIFT, SMALL, Cells, Cuts, score_bits
from bidsim.statistics.tables import Outline, Place, Ranked, ScoreGrid
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally
from bidsim.statistics.units import BUCKETS, UnitCount, buckets_for
from bidsim.statistics.utility import expected_utility

INFLUENCE_BITS = 30
UTILITY_BITS = 36
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scanned:
    """What the scan leaves: sums by family, rank tables by head, source and family, number of units."""

    families: dict[str, Family]
    ranked: dict[Place, Ranked]
    units: int


@dataclass(frozen=True)
class _Positives:
    """The positively labelled rows of one head and source, in the order of the batches."""

    bits: Ints
    bucket: Ints
    codes: list[Ints]
    weights: Ints


@dataclass(frozen=True)
class _Rank:
    """What the scan of the negatives needs of one head, source and family. beaten: by place, the share of positives
    below it, in units of 2^-INFLUENCE_BITS."""

    cuts: Cuts
    beaten: Floats


@dataclass
class _Worker:
    """What one thread sums."""

    tallies: list[Tally]
    adder: Adder
    histograms: dict[Place, Ints] = field(default_factory=dict)
    cells: dict[Place, Cells] = field(default_factory=dict)
    by_bucket: dict[tuple[str, int], Cells] = field(default_factory=dict)
    units: UnitCount = field(default_factory=UnitCount)


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
    """One reduction of one set of outcomes. more: further work on each batch (bid levels), with a state a thread."""

    def __init__(
        self, engine: Engine, plan: Plan, values: Sequence[tuple[str, ...]], counts: Mapping[str, int], *, threads: int
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.threads = threads
        plan.buckets = [buckets_for(len(v)) for v in values]
        self.families = [OVERALL, *(s.name for s in plan.segments)]
        self.labels = dict(zip(self.families, [("",), *values], strict=True))
        self.sizes = {name: len(labels) for name, labels in self.labels.items()}
        self.buckets = dict(zip(self.families, [BUCKETS, *plan.buckets], strict=True))
        self.small = counts["rows"] <= SMALL
        # Weights are whole numbers of 2^-32; where their total leaves no room, their last bits are dropped.
        total = (counts["weights"] >> COUNT_BITS) + 1 if plan.weighted else counts["rows"]
        spare = 62 - max(1, total).bit_length()
        self.down = max(0, COUNT_BITS - spare) if plan.weighted else 0
        self.down_cells = max(0, COUNT_BITS + GRID_SHIFT + 4 - spare) if plan.weighted else 0

    def run(
        self,
        bidders: Sequence[Bidder],
        outcomes: str,
        betas: Sequence[float],
        starts: Sequence[Any],
        more: Sequence[Callable[[Batch], None]],
        progress: Callable[[int], None],
    ) -> Scanned:
        plan = self.plan
        pairs = [(str(head), source) for head in plan.heads for source in plan.head_sources(head)]
        positives = self._positives(pairs, stream_sql(plan, [], "formulas", (), self._positive(), labels=plan.heads))
        ranks = {
            (head, source, name): self._rank(positives[(head, source)], name)
            for head, source in pairs
            for name in self.families
        }
        done = 0
        lock = threading.Lock()
        workers = [self._worker(ranks, pairs) for _ in range(self.threads)]
        extra = {id(w): work for w, work in zip(workers, more, strict=False)}

        def work(incoming: pa.RecordBatch, worker: _Worker) -> None:
            nonlocal done
            batch = Batch(plan, incoming)
            worker.units.add(batch.hashes)
            add_log(worker.adder, batch)
            for b in bidders:
                add_policy(worker.adder, batch, b.policy)
                for judged in plan.heads:
                    add_head(worker.adder, batch, b.policy, judged)
            self._add_utility(worker, batch, bidders, betas)
            for head, source in pairs:
                self._add_negatives(worker, batch, ranks, head, source)
            if id(worker) in extra:
                extra[id(worker)](batch)
            with lock:
                done += batch.rows
                progress(done)

        share(self.engine.stream(stream_sql(plan, bidders, outcomes, starts), STREAM_ROWS), work, workers)
        first = workers[0]
        for other in workers[1:]:
            for mine, theirs in zip(first.tallies, other.tallies, strict=True):
                mine.merge(theirs)
            first.units.merge(other.units)
            for place, cells in first.cells.items():
                cells.merge(other.cells[place])
            for pair, cells in first.by_bucket.items():
                cells.merge(other.by_bucket[pair])
        for (head, source), found in positives.items():
            self._add_positives(first, head, source, found)
        families, loose = self._families(first, betas)
        ranked = {
            place: self._ranked(place, rank, workers, positives[place[:2]], loose) for place, rank in ranks.items()
        }
        return Scanned(families, ranked, first.units.value())

    def _positive(self) -> str:
        labels = " or ".join(f"y_{head} = 1e0" for head in self.plan.heads) or "false"
        # The log's own columns first: a filter that the scan itself can apply.
        raw = [f"{role}_logged > 0e0" for role in ("click", "conversion") if self.plan.has(role)]
        return f"({' or '.join(raw)}) and ({labels})"

    def _weights(self, pick: Pick, down: int) -> Ints | None:
        return pick.take(pick.batch["wi"]) >> down if self.plan.weighted else None

    def _positives(self, pairs: Sequence[tuple[str, int]], sql: str) -> dict[tuple[str, int], _Positives]:
        found: list[dict[tuple[str, int], list[_Positives]]] = [{p: [] for p in pairs} for _ in range(self.threads)]

        def work(incoming: pa.RecordBatch, state: dict[tuple[str, int], list[_Positives]]) -> None:
            batch = Batch(self.plan, incoming)
            for head, source in pairs:
                pick = self._labelled(batch, head, source, 1)
                weights = self._weights(pick, self.down)
                part = _Positives(
                    score_bits(pick.take(batch[f"score_{source}"]).astype(np.float32)),
                    pick.take(batch.bucket),
                    [pick.take(code) for code in batch.codes],
                    np.ones(pick.count, dtype=np.int64) if weights is None else weights,
                )
                state[(head, source)].append(part)

        if pairs:
            share(self.engine.stream(sql, STREAM_ROWS), work, found)
        none = np.zeros(0, dtype=np.int64)

        def joined(parts: list[Ints]) -> Ints:
            return np.concatenate(parts) if parts else none

        out = {}
        for pair in pairs:
            parts = [p for state in found for p in state[pair]]
            out[pair] = _Positives(
                joined([p.bits for p in parts]),
                joined([p.bucket for p in parts]),
                [joined([p.codes[i] for p in parts]) for i in range(len(self.plan.segments))],
                joined([p.weights for p in parts]),
            )
        return out

    @staticmethod
    def _labelled(batch: Batch, head: str, source: int, label: int) -> Pick:
        return batch.pick((batch[f"y_{head}"] == label) & ~np.isnan(batch[f"score_{source}"]))

    def _rank(self, positives: _Positives, family: str) -> _Rank:
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
        return _Rank(cuts, np.rint(share_of * 2.0**INFLUENCE_BITS))

    def _worker(self, ranks: Mapping[Place, _Rank], pairs: Sequence[tuple[str, int]]) -> _Worker:
        tallies = [Tally(self.sizes[name] * self.buckets[name]) for name in self.families]
        worker = _Worker(tallies, Adder(self.plan, tallies))
        unit = 2.0 ** (self.down_cells - COUNT_BITS) if self.plan.weighted else 1.0
        worker.histograms = {place: np.zeros(rank.cuts.places, dtype=np.int64) for place, rank in ranks.items()}
        for place in ranks:
            codes = self.sizes[place[2]]
            coarser = 0 if codes <= 64 else 1 if codes <= 512 else 2 if codes <= 2048 else 3
            worker.cells[place] = Cells(0 if self.small else GRID_SHIFT + coarser, codes, unit=unit)
        worker.by_bucket = {pair: Cells(GRID_SHIFT, BUCKETS, unit=unit, means=False) for pair in pairs}
        return worker

    def _add_negatives(
        self, worker: _Worker, batch: Batch, ranks: Mapping[Place, _Rank], head: str, source: int
    ) -> None:
        pick = self._labelled(batch, head, source, 0)
        if pick.count == 0:
            return
        bits = score_bits(pick.take(batch[f"score_{source}"]).astype(np.float32))
        weights = self._weights(pick, self.down)
        cell_weights = self._weights(pick, self.down_cells)
        share_weights = batch["w"] if self.plan.weighted else None
        rows, count = pick.rows, pick.count
        worker.by_bucket[(head, source)].add(bits, batch.bucket, cell_weights, positive=False, rows=rows)
        for i, name in enumerate(self.families):
            code = None if i == 0 else batch.codes[i - 1]
            place = (head, source, name)
            worker.cells[place].add(bits, code, cell_weights, positive=False, rows=rows)
            lost = worker.tallies[i].of(("lost", source, head))
            rank = ranks[place]
            kernels.rank(
                count, rows, bits, code, weights, share_weights, rank.cuts.finder, rank.beaten,
                worker.histograms[place], batch.groups[i], lost,
            )  # fmt: skip

    def _add_positives(self, worker: _Worker, head: str, source: int, positives: _Positives) -> None:
        weights = positives.weights >> (self.down_cells - self.down)
        worker.by_bucket[(head, source)].add(positives.bits, positives.bucket, weights, positive=True)
        for i, name in enumerate(self.families):
            code = None if i == 0 else positives.codes[i - 1]
            worker.cells[(head, source, name)].add(positives.bits, code, weights, positive=True)

    def _ranked(
        self,
        place: Place,
        rank: _Rank,
        workers: Sequence[_Worker],
        positives: _Positives,
        loose: Mapping[str, Mapping[Key, Floats]],
    ) -> Ranked:
        head, source, name = place
        negatives = sum((w.histograms[place] for w in workers), start=np.zeros(rank.cuts.places, dtype=np.int64))
        ladders = rank.cuts.ladders(negatives)
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
        first = workers[0]
        return Ranked(
            auc=np.array([auc(ladder) for ladder in ladders]),
            recalibrated=np.array([recalibrated_brier(ladder) for ladder in ladders]),
            bins=bins_by_code(first.cells[place], size),
            won=parts.get(("won", source, head), nothing) / 2.0**INFLUENCE_BITS,
            lost=loose[name].get(("lost", source, head), nothing) / 2.0**INFLUENCE_BITS,
            grid=ScoreGrid(*first.by_bucket[(head, source)].matrix()) if name == OVERALL else None,
        )

    def _families(
        self, worker: _Worker, betas: Sequence[float]
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

    def _add_utility(self, worker: _Worker, batch: Batch, bidders: Sequence[Bidder], betas: Sequence[float]) -> None:
        if "value" not in batch.columns or not betas:
            return
        plan = self.plan
        row = batch["row"]
        pick = batch.pick((row & 6 == 4) & (batch[f"y_{plan.worth_label}"] != NO_LABEL))
        first = batch["first_price"] if plan.any_first_price else None
        for b in bidders:
            for beta in betas:
                each = expected_utility(
                    pick.rows,
                    batch["price"],
                    batch[f"bid_{b.policy}"],
                    batch["value"],
                    beta,
                    first,
                    quick=not self.small,
                )
                worker.adder.fixed(("expected_utility", b.policy, repr(beta)), pick, each, 2.0**UTILITY_BITS)
