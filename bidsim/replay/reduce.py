"""From outcomes to small tables: the only place where statistics meet the engine's rows.

The main scan is one SQL aggregate. Rank tables and expected utility need functions that SQL lacks; their columns are
streamed through numpy on all threads. Every sum is of whole numbers, so threads and batches can't change a digit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.errors import LogError
from bidsim.replay.engine import Engine
from bidsim.replay.measures import COUNT_BITS, Measure, result_value
from bidsim.replay.plan import Plan, Segment
from bidsim.replay.policies import Bidder
from bidsim.replay.sql import render
from bidsim.statistics.metrics import Ranked
from bidsim.statistics.ranking import GRID_SHIFT, SMALL, Cells, Cuts, group_sums, make_keys, score_bits
from bidsim.statistics.tallies import OVERALL, Family
from bidsim.statistics.utility import expected_utility

RANK_BATCH = 1_048_576
MOST_VALUES = 5_000
State = TypeVar("State")
Ints = npt.NDArray[np.int64]


def census(engine: Engine, plan: Plan, rows: str) -> dict[str, int]:
    """Counts of rows that can't be used as they are. Raises LogError for an empty window or unusable auction types."""
    sql = render("census", rows=rows)
    names = [name for name, _ in engine.names(sql)]
    counts = {name: int(value or 0) for name, value in zip(names, engine.rows(sql)[0], strict=True)}
    if counts["rows"] == 0:
        files = plan.source.files[0] + (f" and {len(plan.source.files) - 1} more" if len(plan.source.files) > 1 else "")
        raise LogError(
            "no row of the log lies in the window and meets all conditions; "
            "check last_hour, duration_hour, timezone and conditions",
            file=files,
        )
    if counts["unknown_auction_types"]:
        raise LogError(
            f"auction.type gave neither first_price (1) nor second_price (2) on {counts['unknown_auction_types']} rows; "
            "write an expression that gives one of them for every row",
            file=plan.source.files[0],
        )
    return counts


def tally(engine: Engine, plan: Plan, measures: Sequence[Measure]) -> dict[str, Family]:
    """The main scan: sums by segment value, by family name ("" for the whole log). Leaves tables codes_<i>."""
    segments = plan.segments
    # Bit k of GROUPING is set where segment k is not part of the group.
    grouping = f"grouping({', '.join(s.column for s in segments)})" if segments else "0"
    sql = render("tally", grouping=grouping, segments=segments, measures=measures, outcomes="outcomes")
    engine.run(f"create or replace table tally as {sql}")
    families = {OVERALL: _family(engine, plan, measures, None, (1 << len(segments)) - 1 if segments else 0)}
    for i, segment in enumerate(segments):
        mask = ((1 << len(segments)) - 1) & ~(1 << (len(segments) - 1 - i))
        families[segment.name] = _family(engine, plan, measures, segment, mask)
        engine.run(
            f"create or replace table codes_{i} as select {segment.column} as value, "
            f"cast(row_number() over (order by {segment.column}) - 1 as integer) as code from tally where family = {mask}"
        )
    return families


def _family(engine: Engine, plan: Plan, measures: Sequence[Measure], segment: Segment | None, mask: int) -> Family:
    sums = ", ".join(f"m{i}" for i in range(len(measures)))
    column = segment.column if segment else "null"
    count = engine.rows(f"select count(*) from tally where family = {mask}")[0][0]
    if segment is not None and count > MOST_VALUES:
        raise LogError(
            f'segment "{segment.name}" has {count} values, at most {MOST_VALUES} can be reported; use a coarser expression',
            file=plan.source.files[0],
        )
    order = f"order by {column}" if segment else ""
    rows = engine.rows(f"select cast({column} as varchar), {sums} from tally where family = {mask} {order}")
    labels = tuple("null" if r[0] is None else str(r[0]) for r in rows) if segment else ("",)
    table = {m.key: np.array([int(r[i + 1] or 0) for r in rows], dtype=object) for i, m in enumerate(measures)}
    return Family(segment.name if segment else OVERALL, labels, table, {m.key: m.scale for m in measures})


def _share(
    batches: Iterator[pa.RecordBatch], work: Callable[[pa.RecordBatch, State], None], states: list[State]
) -> None:
    """Hand batches to as many threads as there are states; a state is touched by its own thread only."""
    lock = threading.Lock()

    def run(state: State) -> None:
        while True:
            with lock:
                batch = next(batches, None)
            if batch is None:
                return
            work(batch, state)

    with ThreadPoolExecutor(len(states)) as pool:
        for future in [pool.submit(run, state) for state in states]:
            future.result()


Task = tuple[str, str]  # (prediction SQL, family name)


def rank(
    engine: Engine, plan: Plan, families: dict[str, Family], head: str, *, threads: int, memory_bytes: int
) -> dict[Task, Ranked]:
    """Exact cut tables and score cells of one head, for each distinct prediction and family."""
    sources = list(dict.fromkeys(str(plan.prediction(p.index, head)) for p in plan.policies))  # type: ignore[arg-type]
    tasks = [(source, family) for source in sources for family in families]
    overall = families[OVERALL]
    labelled = max(overall.exact("labelled_rows", None, head)[0], 1)
    positives = max(overall.exact("y", p.index, head)[0] / overall.scales[("y", p.index, head)] for p in plan.policies)
    weight = sum(families[OVERALL].exact("weight")) >> COUNT_BITS if plan.weighted else labelled
    spare = 62 - max(1, int(weight)).bit_length()
    down = max(0, COUNT_BITS - spare) if plan.weighted else 0
    down_cells = max(0, COUNT_BITS + GRID_SHIFT - spare) if plan.weighted else 0
    shift = 0 if labelled <= SMALL else GRID_SHIFT
    if shift == 0:
        down_cells = down
    room = max(1, int(memory_bytes / 4 / (max(positives, 1.0) * 8 * (3 + 2 * threads))))
    result: dict[Task, Ranked] = {}
    for begin in range(0, len(tasks), room):
        part = tasks[begin : begin + room]
        result |= _rank(engine, plan, families, head, part, threads, shift, down, down_cells)
    return result


def _rank(
    engine: Engine,
    plan: Plan,
    families: dict[str, Family],
    head: str,
    tasks: Sequence[Task],
    threads: int,
    shift: int,
    down: int,
    down_cells: int,
) -> dict[Task, Ranked]:
    sources = list(dict.fromkeys(source for source, _ in tasks))
    used = [i for i, s in enumerate(plan.segments) if any(f == s.name for _, f in tasks)]
    columns = [f"cast({s} as float) as score_{i}" for i, s in enumerate(sources)]
    columns += [f"c{i}.code as code_{i}" for i in used] + (["wi"] if plan.weighted else [])
    code_of = {plan.segments[i].name: f"code_{i}" for i in used}

    def sql(positive: bool) -> str:
        return render(
            "positives",
            columns=", ".join(columns),
            outcomes="formulas",
            segments=plan.segments,
            head=head,
            positive=positive,
        )

    def each(batch: pa.RecordBatch) -> Iterator[tuple[Task, Ints, Ints | None]]:
        weights = np.asarray(batch.column("wi")) if plan.weighted else None
        codes = {f: np.asarray(batch.column(c)).astype(np.int64) for f, c in code_of.items()}
        for i, source in enumerate(sources):
            column = batch.column(f"score_{i}")
            keep = None if column.null_count == 0 else np.asarray(column.is_valid())
            scores = np.asarray(pc.fill_null(column, 0.0))
            bits = score_bits(scores if keep is None else scores[keep])
            mine = weights if keep is None or weights is None else weights[keep]
            for family in families:
                if (source, family) not in tasks:
                    continue
                code = None if family == OVERALL else codes[family] if keep is None else codes[family][keep]
                keys = make_keys(bits, code)
                if mine is None:
                    yield (source, family), np.sort(keys), None
                else:
                    order = np.argsort(keys)
                    yield (source, family), keys[order], mine[order]

    ones = np.ones(RANK_BATCH, dtype=np.int64)

    def weigh(keys: Ints, weights: Ints | None, down: int) -> Ints:
        return (
            weights >> down
            if weights is not None
            else ones[: len(keys)]
            if len(keys) <= len(ones)
            else np.ones_like(keys)
        )

    def positive_work(batch: pa.RecordBatch, state: dict[Task, tuple[Cells, list[tuple[Ints, ...]]]]) -> None:
        for task, keys, weights in each(batch):
            cells, parts = state[task]
            cells.add(keys, weigh(keys, weights, down_cells), positive=True)
            parts.append(group_sums(keys, weigh(keys, weights, down)))

    found: list[dict[Task, tuple[Cells, list[tuple[Ints, ...]]]]] = [
        {t: (Cells(shift), []) for t in tasks} for _ in range(threads)
    ]
    _share(engine.stream(sql(True), RANK_BATCH), positive_work, found)
    ranked: list[dict[Task, Ranked]] = [{} for _ in range(threads)]
    for task in tasks:
        parts = [p for state in found for p in state[task][1]]
        keys, weights = (
            group_sums(*(np.concatenate(c) for c in zip(*parts, strict=True)))
            if parts
            else (np.zeros(0, np.int64),) * 2
        )
        cuts = Cuts(keys, weights, len(families[task[1]].values))
        for i, state in enumerate(ranked):
            state[task] = Ranked(cuts if i == 0 else cuts.empty(), found[i][task][0])

    def negative_work(batch: pa.RecordBatch, state: dict[Task, Ranked]) -> None:
        for task, keys, weights in each(batch):
            state[task].cells.add(keys, weigh(keys, weights, down_cells), positive=False)
            state[task].cuts.add(keys, None if weights is None else weights >> down)

    _share(engine.stream(sql(False), RANK_BATCH), negative_work, ranked)
    for task, whole in ranked[0].items():
        for other in ranked[1:]:
            whole.cuts.merge(other[task].cuts)
            whole.cells.merge(other[task].cells)
    return ranked[0]


# Expected utility is summed as whole currency and a fraction of 2^44, both whole numbers.
FRACTION_BITS = 44


def utilities(
    engine: Engine,
    plan: Plan,
    families: dict[str, Family],
    bidders: Sequence[Bidder],
    bids: str,
    betas: Sequence[float],
    *,
    threads: int,
) -> dict[tuple[float, int, str], npt.NDArray[np.float64]]:
    """Expected utility in currency, by (beta, policy, family), each of shape (segment values,). Empty without values."""
    value = result_value(plan)
    if value is None or not betas:
        return {}
    label = "y_ctcvr" if plan.indicator == "cpa" and plan.has("conversion") else "y_ctr"
    if label == "y_ctr" and not plan.has("click"):
        label = "y_ctcvr"
    sql = render(
        "utility", value=f"coalesce({value}, 0e0)", outcomes=bids, bidders=bidders, segments=plan.segments, label=label
    )
    code_of = {s.name: f"code_{i}" for i, s in enumerate(plan.segments)}
    keys = [(beta, b.policy, family) for beta in betas for b in bidders for family in families]

    def work(batch: pa.RecordBatch, state: dict[tuple[float, int, str], npt.NDArray[np.object_]]) -> None:
        price, vy, w = (np.asarray(batch.column(c)) for c in ("price", "value", "w"))
        first: Any = np.asarray(batch.column("first_price")) if plan.any_first_price else False
        codes = {f: np.asarray(batch.column(c)) for f, c in code_of.items()}
        for i, b in enumerate(bidders):
            bid = np.asarray(pc.fill_null(batch.column(f"bid_{i}"), float("nan")))
            for beta in betas:
                x = expected_utility(price, bid, vy, beta, first)
                if plan.weighted:
                    x = x * w
                whole = np.floor(x)
                fraction = ((x - whole) * 2.0**FRACTION_BITS).astype(np.int64)
                units = whole.astype(np.int64)
                for family in families:
                    total = state[(beta, b.policy, family)]
                    if family == OVERALL:
                        total[0] += (int(units.sum()) << FRACTION_BITS) + int(fraction.sum())
                        continue
                    high = np.zeros(len(total), dtype=np.int64)
                    low = np.zeros(len(total), dtype=np.int64)
                    np.add.at(high, codes[family], units)
                    np.add.at(low, codes[family], fraction)
                    total += high.astype(object) * (1 << FRACTION_BITS) + low.astype(object)

    states = [{k: np.zeros(len(families[k[2]].values), dtype=object) for k in keys} for _ in range(threads)]
    _share(engine.stream(sql), work, states)
    for other in states[1:]:
        for key in keys:
            states[0][key] += other[key]
    return {k: np.array([int(v) / (1 << FRACTION_BITS) for v in states[0][k]], dtype=np.float64) for k in keys}
