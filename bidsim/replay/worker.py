"""What the reduction does with a batch of rows: what one thread, or one part of the log, sums, and how two such merge.

Made where the rows are, from what `Reduction` knows before it reads them; everything here can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim import kernels
from bidsim.replay.aside import Aside, Wanted
from bidsim.replay.batches import Batch, Pick
from bidsim.replay.levels import LevelScan
from bidsim.replay.logged import Logged, add_drift
from bidsim.replay.measures import COUNT_BITS, NO_LABEL, Adder, add_calibration, add_head, add_log, add_policy
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.priced import Priced
from bidsim.statistics.ranking import GRID_SHIFT, Cells, Cuts, score_bits
from bidsim.statistics.tables import Place
from bidsim.statistics.tallies import Tally
from bidsim.statistics.units import BUCKETS, UnitCount
from bidsim.statistics.utility import expected_utility

INFLUENCE_BITS = 30
UTILITY_BITS = 36
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Pair = tuple[str, int]


@dataclass(frozen=True)
class Shape:
    """The size of everything that is summed. families: names, the whole log first; sizes, buckets: by family; small:
    whether the log is; down, down_cells: last bits of weights that are dropped where their total leaves no room."""

    plan: Plan
    families: tuple[str, ...]
    sizes: Mapping[str, int]
    buckets: Mapping[str, int]
    small: bool
    down: int
    down_cells: int

    def weights(self, pick: Pick, down: int) -> Ints | None:
        return pick.take(pick.batch["wi"]) >> down if self.plan.weighted else None


def labelled(batch: Batch, head: str, source: int, label: int) -> Pick:
    """The rows with a label of a head for which there is a prediction."""
    return batch.pick((batch[f"y_{head}"] == label) & ~np.isnan(batch[f"score_{source}"]))


@dataclass(frozen=True)
class Positives:
    """The positively labelled rows of one head and source."""

    bits: Ints
    bucket: Ints
    codes: list[Ints]
    weights: Ints


class PositiveRows:
    """Gathers the positively labelled rows of every head and source."""

    def __init__(self, shape: Shape, pairs: Sequence[Pair]) -> None:
        self.shape = shape
        self.parts: dict[Pair, list[Positives]] = {pair: [] for pair in pairs}

    def add(self, incoming: pa.RecordBatch) -> None:
        batch = Batch(self.shape.plan, incoming)
        for head, source in self.parts:
            pick = labelled(batch, head, source, 1)
            weights = self.shape.weights(pick, self.shape.down)
            part = Positives(
                score_bits(pick.take(batch[f"score_{source}"]).astype(np.float32)),
                pick.take(batch.bucket),
                [pick.take(code) for code in batch.codes],
                np.ones(pick.count, dtype=np.int64) if weights is None else weights,
            )
            self.parts[(head, source)].append(part)

    def merge(self, other: Self) -> None:
        for pair, parts in other.parts.items():
            self.parts[pair] += parts

    def joined(self, pair: Pair) -> Positives:
        parts = self.parts[pair]

        def join(found: list[Ints]) -> Ints:
            return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

        return Positives(
            join([p.bits for p in parts]),
            join([p.bucket for p in parts]),
            [join([p.codes[i] for p in parts]) for i in range(len(self.shape.plan.segments))],
            join([p.weights for p in parts]),
        )


@dataclass(frozen=True)
class Rank:
    """What the scan of the negatives needs of one head, source and family. beaten: by place, the share of positives
    below it, in units of 2^-INFLUENCE_BITS."""

    cuts: Cuts
    beaten: Floats


@dataclass(frozen=True)
class Scan:
    """What one look at all rows is for. pairs: judged heads with a source of their predictions; levels: what counts where
    bids start to win, if asked; wanted: what is set aside for later looks, where it can be."""

    shape: Shape
    bidders: Sequence[Bidder]
    betas: Sequence[float]
    pairs: Sequence[Pair]
    ranks: Mapping[Place, Rank]
    levels: Callable[[], LevelScan] | None
    wanted: Wanted | None


class Worker:
    """Everything that the scan sums."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.shape = shape = scan.shape
        plan = shape.plan
        self.tallies = [Tally(shape.sizes[name] * shape.buckets[name]) for name in shape.families]
        self.adder = Adder(plan, self.tallies)
        self.units = UnitCount()
        unit = 2.0 ** (shape.down_cells - COUNT_BITS) if plan.weighted else 1.0
        self.histograms = {place: np.zeros(rank.cuts.places, dtype=np.int64) for place, rank in scan.ranks.items()}
        self.cells: dict[Place, Cells] = {}
        for place in scan.ranks:
            codes = shape.sizes[place[2]]
            coarser = 0 if codes <= 64 else 1 if codes <= 512 else 2 if codes <= 2048 else 3
            self.cells[place] = Cells(0 if shape.small else GRID_SHIFT + coarser, codes, unit=unit)
        self.by_bucket = {pair: Cells(GRID_SHIFT, BUCKETS, unit=unit, means=False) for pair in scan.pairs}
        self.levels = scan.levels() if scan.levels else None
        segment = plan.campaign_segment
        campaigns = 0 if segment is None else shape.sizes[shape.families[segment + 1]]
        self.logged = Logged(plan, [b.policy for b in scan.bidders], campaigns)
        self.priced = Priced(len(scan.bidders), weighted=plan.weighted, down=shape.down)
        self.aside = Aside(scan.wanted) if scan.wanted else None

    def add(self, incoming: pa.RecordBatch) -> None:
        plan = self.shape.plan
        batch = Batch(plan, incoming)
        self.units.add(batch.hashes)
        add_log(self.adder, batch)
        add_drift(self.adder, batch)
        self.logged.add(batch)
        self.priced.add(batch)
        for b in self.scan.bidders:
            add_policy(self.adder, batch, b.policy)
            for judged in plan.heads:
                add_head(self.adder, batch, b.policy, judged)
            for unjudged in plan.unjudged:
                add_calibration(self.adder, batch, b.policy, unjudged)
        self._add_utility(batch)
        for head, source in self.scan.pairs:
            self._add_negatives(batch, head, source)
        if self.levels is not None:
            self.levels.add(batch)
        if self.aside is not None:
            self.aside.add(batch)

    def merge(self, other: Self) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)
        self.units.merge(other.units)
        self.logged.merge(other.logged)
        self.priced.merge(other.priced)
        for place, histogram in self.histograms.items():
            histogram += other.histograms[place]
        for place, cells in self.cells.items():
            cells.merge(other.cells[place])
        for pair, cells in self.by_bucket.items():
            cells.merge(other.by_bucket[pair])
        if self.levels is not None and other.levels is not None:
            self.levels.merge(other.levels)
        if self.aside is not None and other.aside is not None:
            self.aside.merge(other.aside)

    def _add_negatives(self, batch: Batch, head: str, source: int) -> None:
        shape = self.shape
        pick = labelled(batch, head, source, 0)
        if pick.count == 0:
            return
        bits = score_bits(pick.take(batch[f"score_{source}"]).astype(np.float32))
        weights = shape.weights(pick, shape.down)
        cell_weights = shape.weights(pick, shape.down_cells)
        share_weights = batch["w"] if shape.plan.weighted else None
        rows = pick.rows
        self.by_bucket[(head, source)].add(bits, batch.bucket, cell_weights, positive=False, rows=rows)
        for i, name in enumerate(shape.families):
            code = None if i == 0 else batch.codes[i - 1]
            place = (head, source, name)
            rank = self.scan.ranks[place]
            self.cells[place].add(bits, code, cell_weights, positive=False, rows=rows)
            lost = self.tallies[i].of(("lost", source, head))
            kernels.rank(
                pick.count, rows, bits, code, weights, share_weights, rank.cuts.finder, rank.beaten,
                self.histograms[place], batch.groups[i], lost,
            )  # fmt: skip

    def add_positives(self, head: str, source: int, positives: Positives) -> None:
        """Those that `PositiveRows` found: once, when all else is merged."""
        weights = positives.weights >> (self.shape.down_cells - self.shape.down)
        self.by_bucket[(head, source)].add(positives.bits, positives.bucket, weights, positive=True)
        for i, name in enumerate(self.shape.families):
            code = None if i == 0 else positives.codes[i - 1]
            self.cells[(head, source, name)].add(positives.bits, code, weights, positive=True)

    def _add_utility(self, batch: Batch) -> None:
        if "value" not in batch.columns or not self.scan.betas:
            return
        plan = self.shape.plan
        row = batch["row"]
        pick = batch.pick((row & 6 == 4) & (batch[f"y_{plan.worth_label}"] != NO_LABEL))
        first = batch["first_price"] if plan.any_first_price else None
        for b in self.scan.bidders:
            bid = batch[f"bid_{b.policy}"]
            for beta in self.scan.betas:
                each = expected_utility(
                    pick.rows, batch["price"], bid, batch["value"], beta, first, quick=not self.shape.small
                )
                self.adder.fixed(("expected_utility", b.policy, repr(beta)), pick, each, 2.0**UTILITY_BITS)
