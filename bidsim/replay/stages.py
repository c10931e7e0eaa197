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

from bidsim.errors import ModelError
from bidsim.logs.bringing import bring_rows
from bidsim.replay.budget import Ledger, Rows
from bidsim.replay.engine import Engine, quote_path
from bidsim.replay.findings import jumped
from bidsim.replay.plan import NUMERIC_ROLES, Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.ripening import ripen
from bidsim.replay.settling import bools, floats, ints, limits_of, starts_of
from bidsim.replay.sql import render

Progress = Callable[[int], None]
Ints = npt.NDArray[np.int64]


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
        asked = [self._rows_sql(), *plan.features.values()]
        plan.source = bring_rows(plan.source, self.engine, asked, plan.conditions, plan.span)
        sql = self._rows_sql()  # of what was brought
        if not streams:
            self.engine.run(f"create view log_rows as {sql}")
            self._ripen()
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
        self._ripen()

    def _ripen(self) -> None:
        if self.plan.ripening is not None:
            self.rows = ripen(self.engine, self.plan, self.rows)

    def remove_anomalies(self) -> list[tuple[str, int, int]]:
        """Leave out campaigns whose CVR is impossible or jumps, for every policy.

        (campaign, clicks, conversions) of the impossible ones; the jumps are a finding of the plan.
        """
        plan, engine = self.plan, self.engine
        if not (plan.has("campaign") and plan.has("click") and plan.has("conversion")):
            return []
        text = render(
            "anomalies", rows=self.rows, jump=plan.jump, timed=bool(plan.time_kind), falls=plan.ripening is not None
        )
        engine.run(f"create table anomalies as {text}")
        found = engine.rows("select cast(campaign as varchar), * exclude (campaign) from anomalies order by campaign")
        engine.run(
            f"create view kept_rows as select * from {self.rows} r where not exists "
            "(select 1 from anomalies a where a.campaign is not distinct from r.campaign)"
        )
        self.rows = "kept_rows"
        jumps = [(str(c or "null"), day, now, before) for c, _, _, _, day, now, before in found if day is not None]
        if jumps:
            plan.findings.append(jumped(jumps))
        return [("null" if name is None else str(name), int(c), int(v)) for name, c, v, bad, *_ in found if bad]

    def derive(self) -> None:
        """Step 3, first half: views `facts` and `formulas`; under a budget the rows are put in its order once."""
        plan = self.plan
        if plan.internal:
            place = "row_number() over (partition by request order by campaign, log_file, log_row) as place"
            self._keep(f"select {', '.join(self._columns(keys=True))}, {place} from {self.rows}", "placed_rows")
        if plan.budgeted:
            order = "campaign, period, ts, request, log_file, log_row"
            columns = ", ".join(self._columns(keys=False))
            self._keep(f"select {columns} from {self.rows} order by {order}", "ordered_rows")
        self._derive("", self.rows)

    def _derive(self, prefix: str, rows: str) -> None:
        """Views <prefix>facts and <prefix>formulas over rows."""
        plan, engine = self.plan, self.engine
        engine.run(f"create or replace view {prefix}facts as {facts_text(plan, rows)}")
        formulas = render("formulas", facts=f"{prefix}facts", policies=plan.policies, budget_amount=plan.budget_amount)
        engine.run(f"create or replace view {prefix}formulas as {formulas}")

    def _columns(self, *, keys: bool) -> list[str]:
        """Columns of the rows that vary and are needed later; keys: with those that only say how rows are ordered."""
        plan = self.plan
        found = ["ts"] if plan.time_kind else []
        found += ["campaign"] if plan.has("campaign") else []
        found += [f"{role}_logged" for role in NUMERIC_ROLES if plan.has(role)]
        found += ["unit"]
        found += ["first_price"] if plan.first_price not in ("true", "false") else []
        found += [p.column for p in plan.predictions]
        found += [s.column for s in plan.segments]
        found += [c.column for c in plan.carried.values()]
        found += ["mature"] if plan.ripening else []
        found += ["period"] if plan.budgeted else []
        found += ["elapsed", "span"] if plan.pace else []
        found += ["request"] if plan.has("request") and (keys or plan.internal) else []
        found += ["log_file", "log_row"] if keys else []
        return [*found, "place"] if plan.internal and not keys else found

    def _whole(self, columns: Sequence[str], extra: Sequence[str], file: Path) -> str:
        """The rows of a file that keeps only `columns`: what every row has alike is put back as a constant."""
        plan = self.plan
        local = "ts"
        if plan.time_kind == "instant":
            local = f"timezone('{plan.zone}', ts)"
        constants = {
            "ts": "null::timestamp",
            "campaign": "null::varchar",
            "request": "null::varchar",
            "first_price": plan.first_price,
            "period": "null::varchar",
            "log_file": "''",
            "log_row": "0",
            **{f"{role}_logged": "1e0" if role == "weight" else "null::double" for role in NUMERIC_ROLES},
        }
        parts = [*columns, *extra, f"{local if plan.time_kind else 'null::timestamp'} as local_ts"]
        parts += [f"{sql} as {name}" for name, sql in constants.items() if name not in columns]
        if plan.internal:
            parts.append("file_row_number as ordinal")
        return f"select {', '.join(parts)} from read_parquet('{quote_path(file)}'{', file_row_number = true' * plan.internal})"

    def _keep(self, sql: str, view: str) -> None:
        """Write rows aside in their order and go on with them."""
        file = self._file()
        self.engine.run(f"copy ({sql}) to '{quote_path(file)}' (format parquet, compression lz4)")
        columns = [
            name if " " not in name else f'"{name}"'
            for name, _ in self.engine.names(f"from read_parquet('{quote_path(file)}')")
        ]
        self.engine.run(f"create view {view} as {self._whole(columns, (), file)}")
        self.rows = view

    @property
    def again(self) -> str:
        """What puts rows in the budget's order again: the internal auction brings them together by request."""
        return " order by ordinal" if self.plan.internal else ""

    def _bids(self, bidders: Sequence[Bidder], formulas: str = "formulas") -> str:
        """Steps 3 (second half) and 4."""
        bids = render("bids", formulas=formulas, bidders=bidders, any_first_price=self.plan.any_first_price)
        return render("internal", bids=f"({bids})", bidders=bidders) if self.plan.internal else bids

    def _auctions(self, bids: str, bidders: Sequence[Bidder]) -> str:
        return render(
            "auctions", bids=f"({bids})", bidders=bidders, ties_lose=self.ties_lose, budgeted=self.plan.budgeted
        )

    def auctions(self, bidders: Sequence[Bidder]) -> str:
        """SQL of steps 3 (second half) to 5, before any budget; in its order where `again` is added."""
        return self._auctions(self._bids(bidders), bidders)

    def settle(self, bidders: Sequence[Bidder], name: str, progress: Progress | None = None) -> str:
        """Steps 3 (second half) to 7 for some bidders: view `name`, their outcomes. Returns the view's name."""
        plan, engine = self.plan, self.engine
        auctions = self.auctions(bidders)
        if plan.budgeted:
            rows = f"{name}_settled"
            parts = [f"false as {p}_{b.key}" for b in bidders for p in ("entered", "won", "open", "short")]
            parts += [f"0::bigint as paid_{b.key}" for b in bidders]
            parts += [f"null::double as kept_{b.key}" for b in bidders if plan.internal]
            columns = self._columns(keys=False)
            nothing = f"select *, {', '.join(parts)} from {self.rows} where false"
            made = [part.split(" as ")[1] for part in parts]
            self._store(
                rows,
                self._settled(bidders, columns, auctions),
                progress or (lambda rows: None),
                nothing,
                (columns, made),
            )
            self._derive(f"{name}_", rows)
            bids = render("bids", formulas=f"{name}_formulas", bidders=bidders, any_first_price=plan.any_first_price)
            if plan.internal:
                kept = ", ".join(f"kept_{b.key} as bid_{b.key}" for b in bidders)
                bids = f"select * replace ({kept}) from ({bids})"
            auctions = self._auctions(bids, bidders)
        outcomes = render("outcomes", auctions=f"({auctions})", bidders=bidders, settled=plan.budgeted)
        engine.run(f"create or replace view {name} as {outcomes}")
        return name

    def winnable(self, bidders: Sequence[Bidder], more: Sequence[str] = ()) -> str:
        """SQL of the rows that can be won at all, in the budget's order, with what decides them for many bidders.

        more: further columns. What `AuctionRows` and `Ledger` take, so that levels can be settled without the engine.
        """
        plan = self.plan
        columns = ["campaign", "period", "budget_amount", "first_price", "price", "won", "bid_log", "w", "wi", "bar"]
        columns += ["observed", "click", "conversion", "unit", *(["elapsed", "span"] if plan.pace else []), *more]
        if plan.internal:
            columns += [f"bid_{b.key}" for b in bidders]
            bids = self._bids(bidders)
        else:
            columns += [f"raw_{b.policy}" for b in bidders]
            columns += [f"({b.each}) as each_{b.key}" for b in bidders if b.each is not None]
            bids = "select * from formulas"
        winnable = "not undecidable and not blocked and (price is not null or (won and first_price))"
        listed = ", ".join(dict.fromkeys(columns))
        return f"select {listed} from ({self._auctions(bids, ())}) where {winnable}{self.again}"

    def _settled(self, bidders: Sequence[Bidder], kept: Sequence[str], auctions: str) -> Iterator[pa.RecordBatch]:
        ledger = Ledger(len(bidders), never=self.never, strict=self.ties_lose)
        last: list[Any] | None = None
        columns = [*kept, "campaign", "period", "budget_amount", "first_price", "bar", "bid_log", "w", "lost", "price"]
        columns += [f"{part}_{b.key}" for b in bidders for part in ("bid", "wins", "unknown", "pay")]
        for batch in self.engine.stream(f"select {', '.join(dict.fromkeys(columns))} from ({auctions}){self.again}"):
            starts, last = starts_of(batch, last)
            first_price = bools(batch, "first_price")
            bar = ints(batch, "bar")
            policies = [
                Rows(
                    np.asarray(batch.column(f"bid_{b.key}").is_valid()),
                    bools(batch, f"wins_{b.key}"),
                    ints(batch, f"pay_{b.key}"),
                    bar,
                    first_price,
                )
                for b in bidders
            ]
            names = [name.strip('"') for name in kept]
            arrays = [batch.column(name) for name in names]
            settled = ledger.settle(starts, limits_of(batch), policies)
            for b, rows, done in zip(bidders, policies, settled, strict=True):
                unknown = bools(batch, f"unknown_{b.key}") & done.entered
                if self.never:
                    # A bid cut to no more than the logged one, which lost, has surely lost.
                    own_bid = floats(batch, "bid_log") * floats(batch, "w") * 1e9
                    unknown &= ~(bools(batch, "lost") & (done.left <= own_bid))
                    # A first-price bid cut below the logged one, which won at an unknown price, may or may not win.
                    unpriced = ~np.asarray(batch.column("price").is_valid())
                    unknown |= rows.wins & ~done.won & done.entered & unpriced
                parts = [("entered", done.entered), ("won", done.won), ("open", unknown), ("short", done.short)]
                for part, values in [*parts, ("paid", done.paid)]:
                    arrays.append(pa.array(values))
                    names.append(f"{part}_{b.key}")
                if self.plan.internal:
                    arrays.append(batch.column(f"bid_{b.key}"))
                    names.append(f"kept_{b.key}")
            yield pa.RecordBatch.from_arrays(arrays, names)

    def _rows_sql(self) -> str:
        plan = self.plan
        position = {"file": "''", "row": "0"}
        if plan.budgeted or plan.internal:
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
            pace=plan.pace,
            position=position,
            reader=plan.source.reader(with_position=(plan.budgeted or plan.internal) and plan.source.keeps_row_numbers),
            campaigns=plan.campaigns,
            conditions=plan.conditions,
        )

    def _file(self) -> Path:
        self._files += 1
        return self.engine.work / f"stage-{self._files}.parquet"

    def _store(
        self,
        view: str,
        batches: Iterable[pa.RecordBatch],
        progress: Progress,
        nothing: str = "",
        columns: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        """Write a stream of batches aside and make it the view; an empty stream keeps no file, the view is `nothing`.

        columns: (columns of the rows, columns made) of a file that leaves out what all rows have alike.
        """
        iterator = iter(batches)
        first = next(iterator, None)
        if first is None:
            self.engine.run(f"create or replace view {view} as {nothing or self._empty()}")
            return
        file = self._file()
        whole = self._whole(*columns, file) if columns else f"select * from read_parquet('{quote_path(file)}')"

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
        self.engine.run(f"create or replace view {view} as {whole}")
        if old is not None:
            os.unlink(old)
        self._stored[view] = file

    def _empty(self) -> str:
        columns = ", ".join(f"null::double as {p.column}" for p in self.plan.predictions if p.sql is None)
        return f"select *{', ' + columns if columns else ''} from ({self._rows_sql()}) where false"


def facts_text(plan: Plan, rows: str) -> str:
    """What the log says of each of the rows, see sql/facts.sql. rows: a relation made by `read`."""
    return render(
        "facts",
        rows=rows,
        weighted=plan.weighted,
        has_win=plan.has("won"),
        has_click=plan.has("click"),
        has_conversion=plan.has("conversion"),
        predictions=plan.predictions,
        ripening=plan.ripening is not None,
    )


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
