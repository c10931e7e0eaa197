"""From log rows to outcomes, in the order of the spec: each step is a view over the one before it.

Where rows must pass through Python (a model scores them, or a budget is settled in order) and where the source can't
be scanned twice cheaply (CSV, NDJSON), the step's rows are written to a Parquet file of the work folder, in a stream;
memory is bounded by the engine's share and a few batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bidsim.errors import LogError
from bidsim.replay.columns import join_campaigns
from bidsim.replay.engines import AnyEngine
from bidsim.replay.findings import jumped, two_sources, unfunded
from bidsim.replay.plan import NUMERIC_ROLES, Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.ripening import ripen
from bidsim.replay.scoring import scoring_of
from bidsim.replay.settling import Settler
from bidsim.replay.sql import render

Progress = Callable[[int], None]

# Rows of a log are of times between these.
FIRST_TIME, END_OF_TIME = "1900-01-01", "2200-01-01"
# The column for a row's place in a log whose reader tells none, called as no column of a log is.
PLACE = '"place in the log"'


class Stages:
    """The views of one replay. `progress` is told how many rows passed through Python."""

    def __init__(self, engine: AnyEngine, plan: Plan, *, ties_lose: bool, never: bool) -> None:
        self.engine = engine
        self.plan = plan
        self.ties_lose = ties_lose
        self.never = never
        self.rows = "log_rows"

    def read(self, progress: Progress) -> None:
        """Step 1 and 2: view `rows`, the window's rows with every policy's own raw predictions."""
        plan = self.plan
        streams = plan.scored or plan.source.format != "parquet"
        asked = [self._rows_sql(), *plan.features.values()]
        plan.source = self.engine.bring(plan.source, asked, plan.conditions, plan.span)
        self._compare()
        sql = self._rows_sql()  # of what was brought
        if not streams:
            self.engine.run(f"create view log_rows as {sql}")
            self._check_times()
            self._ripen()
            return
        if not self.engine.change(sql, scoring_of(plan), "log_rows", progress, in_order=False):
            self.engine.run(f"create view log_rows as {self._empty()}")
        self._check_times()
        self._ripen()

    def _compare(self) -> None:
        """Targets and budgets of the log beside those of the campaign table, where both have them: the log's count."""
        plan = self.plan
        if not plan.twice:
            return
        differ = ", ".join(
            f"count_if({theirs} is not null and cast({ours} as double) is distinct from try_cast({theirs} as double))"
            for ours, theirs in plan.twice.values()
        )
        where = "".join(f" and coalesce({condition}, false)" for condition in plan.conditions)
        relation = f"{plan.source.reader()} as s{join_campaigns(plan.campaigns, plan.campaign_sql)}"
        (counts,) = self.engine.rows(f"select {differ} from {relation} where true{where}")
        plan.findings += [two_sources(role, int(n)) for role, n in zip(plan.twice, counts, strict=True) if n]

    def _check_times(self) -> None:
        """Raises LogError for times at which no auction was: "no end" and the like, which no clock or calendar can reckon with."""
        if not self.plan.time_kind:
            return
        # Two filters that a Parquet scan answers from the file's own statistics.
        sides = (f"ts < timestamp '{FIRST_TIME}'", f"ts >= timestamp '{END_OF_TIME}'")
        found = [
            self.engine.rows(f"select count(*), min(cast(ts as varchar)) from log_rows where {s}")[0] for s in sides
        ]
        count = sum(int(n) for n, _ in found)
        if count:
            example = next(text for n, text in found if n)
            raise LogError(
                f"columns.time: {count:,} {'row has a time' if count == 1 else 'rows have times'} before {FIRST_TIME[:4]} or "
                f"after {int(END_OF_TIME[:4]) - 1} ({example}), at which no auction was; mend the log, make them NULL, or leave "
                f"them out by conditions or a window",
                file=self.plan.source.files[0],
            )

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
            self._keep(f"select {columns} from {self.rows}", "ordered_rows", order)
        self._derive("", self.rows)
        if plan.budgeted:
            missing = self.engine.rows("select count(*) from formulas where budget_amount is null")[0][0]
            plan.findings += [unfunded(missing)] if missing else []

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

    def _whole(self, columns: Sequence[str], extra: Sequence[str], relation: str) -> str:
        """The rows of a relation that keeps only `columns`: what every row has alike is put back as a constant."""
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
        return f"select {', '.join(parts)} from {relation}"

    def _keep(self, sql: str, view: str, order: str = "") -> None:
        """Keep rows aside, in the budget's order where one is given, and go on with them."""
        relation = f"{view}_kept"
        found = self.engine.keep(sql, relation, order=order, numbered=bool(order) and self.plan.internal)
        columns = [name if " " not in name else f'"{name}"' for name in found]
        self.engine.run(f"create view {view} as {self._whole(columns, (), relation)}")
        self.rows = view

    def _bids(self, bidders: Sequence[Bidder], formulas: str = "formulas") -> str:
        """Steps 3 (second half) and 4."""
        bids = render("bids", formulas=formulas, bidders=bidders, any_first_price=self.plan.any_first_price)
        return render("internal", bids=f"({bids})", bidders=bidders) if self.plan.internal else bids

    def _auctions(self, bids: str, bidders: Sequence[Bidder]) -> str:
        return render(
            "auctions",
            bids=f"({bids})",
            bidders=bidders,
            ties_lose=self.ties_lose,
            budgeted=self.plan.budgeted,
            any_first_price=self.plan.any_first_price,
            has_loss_reason=self.plan.has("loss_reason"),
        )

    def auctions(self, bidders: Sequence[Bidder]) -> str:
        """SQL of steps 3 (second half) to 5, before any budget."""
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
            if self._settle_budgets(bidders, columns, auctions, f"{rows}_kept", progress or (lambda rows: None)):
                nothing = self._whole(columns, made, f"{rows}_kept")
            engine.run(f"create or replace view {rows} as {nothing}")
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
        """SQL of the rows that can be won at all, with what decides them for many bidders.

        more: further columns. What `AuctionRows` and `Ledger` take, so that levels can be settled without the engine.
        """
        plan = self.plan
        columns = ["campaign", "period", "budget_amount", "first_price", "price", "won", "bid_log", "w", "wi", "bar"]
        columns += ["ordinal"] if plan.internal else []
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
        return f"select {listed} from ({self._auctions(bids, ())}) where {winnable}"

    def _settle_budgets(
        self, bidders: Sequence[Bidder], kept: Sequence[str], auctions: str, view: str, progress: Progress
    ) -> bool:
        """Rows with what each bidder's budget did with them, as relation `view`; False without rows."""
        plan = self.plan
        columns = [*kept, "campaign", "period", "budget_amount", "first_price", "bar", "bid_log", "w", "lost", "price"]
        columns += [f"{part}_{b.key}" for b in bidders for part in ("bid", "wins", "unknown", "pay")]
        columns += ["ordinal"] if plan.internal else []
        sql = f"select {', '.join(dict.fromkeys(columns))} from ({auctions})"
        keys = [b.key for b in bidders]
        make = partial(Settler, keys, kept, never=self.never, ties_lose=self.ties_lose, internal=plan.internal)
        return self.engine.change(sql, make, view, progress, in_order=True, again=plan.internal)

    def _rows_sql(self) -> str:
        plan = self.plan
        position = {"file": "''", "row": "0"}
        in_order = plan.budgeted or plan.internal
        reader = plan.source.reader(with_position=in_order and plan.source.keeps_row_numbers)
        if in_order and plan.source.keeps_row_numbers:
            position = {"file": "s.filename" if len(plan.source.files) > 1 else "''", "row": "s.file_row_number"}
        elif in_order:
            # Numbered as they are read: the join below may be made from its other side, and keeps no order then.
            position["row"] = f"s.{PLACE}"
            reader = f"(select *, row_number() over () as {PLACE} from {reader})"
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
            reader=reader,
            campaigns=plan.campaigns,
            conditions=plan.conditions,
        )

    def _empty(self) -> str:
        columns = ", ".join(f"null::double as {p.column}" for p in self.plan.predictions if p.sql is None)
        return f"select *{', ' + columns if columns else ''} from ({self._rows_sql()}) where false"


def facts_text(plan: Plan, rows: str) -> str:
    """What the log says of each of the rows, see sql/facts.sql. rows: a relation made by `read`."""
    return render(
        "facts",
        rows=rows,
        weighted=plan.weighted,
        any_first_price=plan.any_first_price,
        has_floor=plan.has("floor"),
        has_loss_reason=plan.has("loss_reason"),
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
