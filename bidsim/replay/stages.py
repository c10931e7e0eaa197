"""From log rows to outcomes, in the order of the spec: each step is a view over the one before it.

Where rows must pass through Python (a model scores them, or a budget is settled in order) and where the source can't
be scanned twice cheaply (CSV, NDJSON), the step's rows are written to a Parquet file of the work folder, in a stream;
memory is bounded by the engine's share and a few batches.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bidsim.errors import ModelError
from bidsim.replay.budget import Ledger, Rows
from bidsim.replay.engine import Engine, quote_path
from bidsim.replay.plan import NUMERIC_ROLES, Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.sql import render

Progress = Callable[[int], None]


class Stages:
    """The views of one replay. `progress` is told how many rows passed through Python."""

    def __init__(self, engine: Engine, plan: Plan, *, ties_lose: bool, never: bool, threads: int) -> None:
        self.engine = engine
        self.plan = plan
        self.ties_lose = ties_lose
        self.never = never
        self.threads = threads
        self._files = 0
        self.rows = "log_rows"
        self._stored: dict[str, Path] = {}

    def read(self, progress: Progress) -> None:
        """Step 1 and 2: view `rows`, the window's rows with every policy's own raw predictions."""
        plan = self.plan
        streams = plan.scored or plan.source.format != "parquet"
        sql = self._rows_sql()
        if not streams:
            self.engine.run(f"create view log_rows as {sql}")
            return
        models = {p.index: p for p in plan.policies if p.scorer is not None}
        features = list(plan.features)
        outputs = [(p.policy, p.head, p.column) for p in plan.predictions if p.sql is None]

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            kept = batch.select([n for n in batch.schema.names if not n.startswith("feature ")])
            if not models:
                return kept
            given = pa.RecordBatch.from_arrays([batch.column(f"feature {i}") for i in range(len(features))], features)
            scores = {i: _score(p.name, p.scorer, p.model_file, given) for i, p in models.items()}
            arrays = [pa.array(scores[i][head], type=pa.float64()) for i, head, _ in outputs]
            return pa.RecordBatch.from_arrays(
                [*kept.columns, *arrays], [*kept.schema.names, *(column for _, _, column in outputs)]
            )

        self._store("log_rows", _ordered_map(score, self.engine.stream(sql), self.threads), progress)

    def remove_anomalies(self) -> list[tuple[str, int, int]]:
        """Leave out campaigns whose CVR is impossible, for every policy; (campaign, clicks, conversions) of each."""
        plan, engine = self.plan, self.engine
        if not (plan.has("campaign") and plan.has("click") and plan.has("conversion")):
            return []
        engine.run(f"create table anomalies as {render('anomalies')}")
        found = engine.rows("select cast(campaign as varchar), clicks, conversions from anomalies order by campaign")
        self.rows = "kept_rows"
        engine.run(
            f"create view {self.rows} as select * from log_rows r where not exists "
            "(select 1 from anomalies a where a.campaign is not distinct from r.campaign)"
        )
        return [("null" if name is None else str(name), int(c), int(v)) for name, c, v in found]

    def derive(self) -> None:
        """Step 3, first half: view `formulas`; under a budget its rows are put in the budget's order once."""
        plan, engine = self.plan, self.engine
        engine.run(
            "create view facts as "
            + render(
                "facts",
                rows=self.rows,
                weighted=plan.weighted,
                has_win=plan.has("won"),
                has_click=plan.has("click"),
                has_conversion=plan.has("conversion"),
                predictions=plan.predictions,
            )
        )
        text = render("formulas", facts="facts", policies=plan.policies, budget_amount=plan.budget_amount)
        if not plan.budgeted:
            engine.run(f"create view formulas as {text}")
            return
        file = self._file()
        order = "campaign, period, ts, request, log_file, log_row"
        engine.run(
            f"copy (select * from ({text}) order by {order}) to '{quote_path(file)}' (format parquet, compression lz4)"
        )
        engine.run(f"create view formulas as select * from read_parquet('{quote_path(file)}')")

    def settle(self, bidders: Sequence[Bidder], name: str, progress: Progress | None = None) -> str:
        """Steps 3 (second half) to 7 for some bidders: view `name`, their outcomes. Returns the view's name."""
        plan, engine = self.plan, self.engine
        bids = render("bids", formulas="formulas", bidders=bidders, any_first_price=plan.any_first_price)
        auctions = render(
            "auctions", bids=f"({bids})", bidders=bidders, ties_lose=self.ties_lose, budgeted=plan.budgeted
        )
        if plan.budgeted:
            settled = f"{name}_settled"
            parts = [f"false as {p}_{b.key}" for b in bidders for p in ("entered", "won", "open")]
            parts += [f"0::bigint as paid_{b.key}" for b in bidders]
            nothing = f"select *, {', '.join(parts)} from ({auctions}) where false"
            self._store(settled, self._settled(bidders, auctions), progress or (lambda rows: None), nothing)
            source = settled
        else:
            source = f"({auctions})"
        outcomes = render("outcomes", auctions=source, bidders=bidders, settled=plan.budgeted)
        engine.run(f"create or replace view {name} as {outcomes}")
        return name

    def settled_sums(self, bidders: Sequence[Bidder]) -> Iterator[pa.RecordBatch]:
        """What the budget leaves of each bidder's wins, with only the columns that sums over wins need; nothing is kept."""
        plan = self.plan
        bids = render("bids", formulas="formulas", bidders=bidders, any_first_price=plan.any_first_price)
        auctions = render("auctions", bids=f"({bids})", bidders=bidders, ties_lose=self.ties_lose, budgeted=True)
        columns = ["campaign", "period", "budget_amount", "first_price", "bar", "bid_log", "w", "wi", "lost", "price"]
        columns += ["observed", "click", "conversion", "unit"]
        columns += [f"{part}_{b.key}" for b in bidders for part in ("bid", "wins", "unknown", "pay")]
        return self._settled(bidders, f"select {', '.join(columns)} from ({auctions})")

    def _settled(self, bidders: Sequence[Bidder], auctions: str) -> Iterator[pa.RecordBatch]:
        ledgers = {b.key: Ledger(never=self.never, strict=self.ties_lose) for b in bidders}
        last: list[Any] | None = None
        made = {f"{part}_{b.key}" for b in bidders for part in ("wins", "unknown", "pay")}
        spare = made | {"bar", "budget_amount", "log_file", "log_row", "ts", "request", "period"}
        for batch in self.engine.stream(auctions):
            starts, last = _starts(batch, last)
            limit = _floats(batch, "budget_amount")
            first_price = _bools(batch, "first_price")
            bar = _ints(batch, "bar")
            own_bid = _floats(batch, "bid_log") * _floats(batch, "w") * 1e9
            kept = batch.select([n for n in batch.schema.names if n not in spare])
            arrays, names = list(kept.columns), list(kept.schema.names)
            for b in bidders:
                bids = np.asarray(batch.column(f"bid_{b.key}").is_valid())
                rows = Rows(limit, bids, _bools(batch, f"wins_{b.key}"), _ints(batch, f"pay_{b.key}"), bar, first_price)
                done = ledgers[b.key].settle(starts, rows)
                unknown = _bools(batch, f"unknown_{b.key}") & done.entered
                if self.never:
                    # A bid cut to no more than the logged one, which lost, has surely lost.
                    unknown &= ~(_bools(batch, "lost") & (done.left <= own_bid))
                    # A first-price bid cut below the logged one, which won at an unknown price, may or may not win.
                    unpriced = ~np.asarray(batch.column("price").is_valid())
                    unknown |= rows.wins & ~done.won & done.entered & unpriced
                for part, values in (
                    ("entered", done.entered),
                    ("won", done.won),
                    ("paid", done.paid),
                    ("open", unknown),
                ):
                    arrays.append(pa.array(values))
                    names.append(f"{part}_{b.key}")
            yield pa.RecordBatch.from_arrays(arrays, names)

    def _rows_sql(self) -> str:
        plan = self.plan
        position = {"file": "''", "row": "0"}
        if plan.budgeted:
            if plan.source.keeps_row_numbers:
                position = {"file": "s.filename" if len(plan.source.files) > 1 else "''", "row": "s.file_row_number"}
            else:
                position["row"] = "row_number() over ()"
        features = [
            {"column": f'"feature {i}"', "sql": sql} for i, sql in enumerate(plan.features.values()) if plan.scored
        ]
        return render(
            "rows",
            time=plan.roles["time"] if plan.time_kind else None,
            local_time=plan.local_time,
            roles=plan.roles,
            numeric_roles=NUMERIC_ROLES,
            unit=_unit(plan),
            first_price=plan.first_price,
            predictions=[p for p in plan.predictions if p.sql is not None],
            segments=plan.segments,
            carried=[*({"column": c.column, "sql": c.sql} for c in plan.carried.values()), *features],
            budget_period=plan.budget_period,
            position=position,
            reader=plan.source.reader(with_position=plan.budgeted and plan.source.keeps_row_numbers),
            campaigns=plan.campaigns,
            conditions=plan.conditions,
        )

    def _file(self) -> Path:
        self._files += 1
        return self.engine.work / f"stage-{self._files}.parquet"

    def _store(self, view: str, batches: Iterable[pa.RecordBatch], progress: Progress, nothing: str = "") -> None:
        """Write a stream of batches aside and make it the view; an empty stream keeps no file, the view is `nothing`."""
        iterator = iter(batches)
        first = next(iterator, None)
        if first is None:
            self.engine.run(f"create or replace view {view} as {nothing or self._empty()}")
            return
        file = self._file()

        def counted() -> Iterator[pa.RecordBatch]:
            rows = first.num_rows
            progress(rows)
            yield first
            for batch in iterator:
                rows += batch.num_rows
                progress(rows)
                yield batch

        self.engine.store(counted(), first.schema, file)
        old = self._stored.pop(view, None)
        self.engine.run(f"create or replace view {view} as select * from read_parquet('{quote_path(file)}')")
        if old is not None:
            os.unlink(old)
        self._stored[view] = file

    def _empty(self) -> str:
        columns = ", ".join(f"null::double as {p.column}" for p in self.plan.predictions if p.sql is None)
        return f"select *{', ' + columns if columns else ''} from ({self._rows_sql()}) where false"


def _unit(plan: Plan) -> str:
    """SQL of a row's unit; without one, the time that helps to tell rows apart."""
    if plan.unit == "row":
        return f"coalesce(epoch_us({plan.local_time}), 0)" if plan.time_kind else "0::bigint"
    return f"cast({plan.roles['unit']} as {'bigint' if plan.unit == 'whole' else 'varchar'})"


def _score(policy: str, scorer: Any, file: str | None, batch: pa.RecordBatch) -> dict[str, npt.NDArray[np.float64]]:
    scores: dict[str, npt.NDArray[np.float64]] = scorer.score(batch)
    for head in scorer.heads:
        if head not in scores or len(scores[head]) != batch.num_rows:
            raise ModelError(f'policy "{policy}": the model gave no {head} prediction for some rows', file=file)
    return scores


def _ordered_map(
    function: Callable[[pa.RecordBatch], pa.RecordBatch], batches: Iterator[pa.RecordBatch], threads: int
) -> Iterator[pa.RecordBatch]:
    """Apply to batches on several threads, results in the order of the batches, a few at a time in memory."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _starts(batch: pa.RecordBatch, last: list[Any] | None) -> tuple[npt.NDArray[np.bool_], list[Any]]:
    """Where a new (campaign, period) begins; last: the key of the row before the batch."""
    n = batch.num_rows
    starts = np.zeros(n, dtype=bool)
    key = []
    for name in ("campaign", "period"):
        codes = batch.column(name).dictionary_encode().indices
        codes = np.asarray(pc.fill_null(codes, -1))
        starts[1:] |= codes[1:] != codes[:-1]
        key.append((batch.column(name)[0].as_py(), batch.column(name)[n - 1].as_py()))
    starts[0] = last is None or [first for first, _ in key] != last
    return starts, [final for _, final in key]


def _bools(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(batch.column(name), False))


def _ints(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(batch.column(name), 0))


def _floats(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(pc.fill_null(batch.column(name), float("nan")))
