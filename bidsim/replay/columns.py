"""The log's columns under the scenario's names: roles, types, the campaign table, the window, the segments.

Names in `columns`, `conditions` and `segments` are log columns, then columns of the campaign table. Whatever is wrong
with a name or a type is found here, with the scenario's line, before any row is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

from bidsim.errors import BidsimError, ExpressionError, LogError
from bidsim.logs.source import NO_VALUES, Source
from bidsim.replay.engines import AnyEngine
from bidsim.replay.plan import NUMERIC_ROLES, CampaignTable, Segment
from bidsim.scenario.explaining import nearest
from bidsim.scenario.expressions import Compiled, compile_expression, quote_identifier
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.reading import Place
from bidsim.scenario.schema import ROLES

SIGNED_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
NUMERIC_TYPES = (*SIGNED_TYPES, *(f"U{kind}" for kind in SIGNED_TYPES), "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
# One value each, which files keep as it is; what else there is (lists, intervals, 128 bits) is known by its text.
KEPT_TYPES = (*NUMERIC_TYPES, "VARCHAR", "DATE", "TIME", "BLOB", "UUID", "ENUM", NO_VALUES)
MONEY_ROLES = ("target_cpc", "target_cpa", "daily_budget")
TIME_PARTS = {
    "hour": "extract('hour' from {0})",
    "weekday": "extract('isodow' from {0})",
    "day": "cast({0} as date)",
}


class Names:
    """The names a user's expression may use, and what they stand for at one level of the query."""

    def __init__(self, loaded: LoadedScenario, columns: Mapping[str, str], source: Source | None = None) -> None:
        self.loaded = loaded
        self.columns = dict(columns)
        self.source = source
        self.campaigns: CampaignTable | None = None
        # Columns as parts of expressions, where that is not how they stand in `columns`.
        self.parts: dict[str, str] = {}
        # (key, SQL over the log) of what was compiled against the log's own columns.
        self.tried: list[tuple[Place, str]] = []

    def compile(self, text: str, *path: str | int, extra: Mapping[str, str] | None = None) -> Compiled:
        """path: the key of the scenario that holds the text, for messages."""
        key = ".".join(str(p) for p in path)

        def where(message: str) -> BidsimError:
            return self.loaded.error(f"{key}: {message}", *path)

        columns = self.columns if text in self.columns else self.columns | self.parts
        compiled = compile_expression(text, {**columns, **(extra or {})}, where=where)
        for name in compiled.names - set(extra or {}):
            self.check_whole(name)
        if self.source is not None:
            self.tried.append((path, compiled.sql))
        return compiled

    @property
    def of_log(self) -> list[str]:
        """The log's own columns."""
        return [name for name, sql in self.columns.items() if sql.startswith("s.")]

    def part(self, name: str) -> str:
        """A column as a part of an expression."""
        return self.parts.get(name, self.columns[name])

    def of_table(self, alias: str, columns: Iterable[tuple[str, str]]) -> None:
        """Names that are not taken yet stand for the columns of a table, (name, type) each.

        Statistics in Parquet files leave NaN out, and the engine decides comparisons by them: `x <= 1` would hold for a
        NaN or not by the rows beside it in the file. Said apart, a NaN is greater than every number wherever it lies.
        """
        for name, kind in columns:
            if name not in self.columns:
                sql = self.columns[name] = f"{alias}.{quote_identifier(name)}"
                if kind in ("FLOAT", "DOUBLE"):
                    self.parts[name] = f"(case when isnan({sql}) then cast('nan' as {kind.lower()}) else {sql} end)"

    def check_whole(self, name: str) -> None:
        """Refuse a column that is not the same in all files: what some lack would pass for NULL in the log."""
        found = self.source.unusable.get(name.lower()) if self.source else None
        if found is not None:
            file, what = found
            raise LogError(f'the column "{name}" {what}', file=file)


def role_sql(names: Names, loaded: LoadedScenario, role: str) -> str | None:
    if role == "unit" and loaded.scenario.intervals and loaded.scenario.intervals.unit:
        return names.compile(loaded.scenario.intervals.unit, "intervals", "unit").sql
    text = getattr(loaded.scenario.columns, role)
    if text is not None:
        return names.compile(text, "columns", role).sql
    # Of the campaign table only targets and budgets: its bid or weight would be no row's.
    name = named(role, names.columns if role in MONEY_ROLES else names.of_log)
    if name is None:
        return None
    names.check_whole(name)
    return names.columns[name]


def named(wanted: str, columns: Iterable[str]) -> str | None:
    """The column of a name: exactly, else regardless of case where that is unique, as in expressions."""
    columns = list(columns)
    alike = [c for c in columns if c.lower() == wanted.lower()]
    return wanted if wanted in columns else alike[0] if len(alike) == 1 else None


def join_campaigns(campaigns: CampaignTable | None, campaign_sql: str | None) -> str:
    if campaigns is None:
        return ""
    return f" left join {campaigns.reader} as c on cast(c.{campaigns.key} as varchar) = cast({campaign_sql} as varchar)"


def campaign_table(
    loaded: LoadedScenario, engine: AnyEngine, source: Source | None, campaign_sql: str | None
) -> CampaignTable | None:
    path = loaded.scenario.campaigns
    if source is None:
        return None
    if campaign_sql is None:
        raise loaded.error("campaigns: the log has no campaign column to join on; set columns.campaign", "campaigns")
    table = engine.open(source)
    columns = [name for name, _ in engine.names(f"select * from {table.reader()}")]
    wanted = loaded.scenario.columns.campaign or "campaign"
    key = named(wanted, columns) or named("campaign", columns)
    if key is None:
        raise LogError(
            f'the campaign table has no column "{wanted}" to join the log\'s campaign on; '
            f"it has {', '.join(columns[:20])}",
            file=path,
        )
    quoted = quote_identifier(key)
    twice = engine.rows(
        f"select cast({quoted} as varchar) k, count(*) n from {table.reader()} where {quoted} is not null "
        "group by k having n > 1 order by k limit 1"
    )
    if twice:
        raise LogError(
            f'campaign "{twice[0][0]}" stands {twice[0][1]} times; joining it would count its rows that often',
            file=path,
        )
    called: dict[str, str] = {}
    if named("name", columns):
        rows = engine.rows(f"select cast({quoted} as varchar), cast(name as varchar) from {table.reader()} order by 1")
        called = {str(k): str(v) for k, v in rows if k is not None and v is not None}
    keys = engine.rows(f"select cast({quoted} as varchar) from {table.reader()} where {quoted} is not null")
    ordered = sorted(columns)
    rows = engine.rows(f"select {', '.join(map(quote_identifier, ordered))} from {table.reader()}")
    return CampaignTable(table.reader(), quoted, called, frozenset(str(key) for (key,) in keys), _digest(ordered, rows))


def _digest(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    """sha256 of a small table. Whole numbers, fractions and decimals of one size are one: engines differ in them."""
    said = sorted(
        json.dumps([float(v) if isinstance(v, int | Decimal) else v for v in row], default=str) for row in rows
    )
    return hashlib.sha256(json.dumps([columns, said]).encode()).hexdigest()


def given_twice(loaded: LoadedScenario, log: Iterable[str], campaigns: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Targets and budgets that both tables have, and that the scenario does not name: SQL of the log's and the other."""
    found = {}
    for role in MONEY_ROLES if loaded.scenario.budget else MONEY_ROLES[:2]:
        ours, theirs = named(role, log), named(role, campaigns)
        if ours is not None and theirs is not None and getattr(loaded.scenario.columns, role) is None:
            found[role] = (f"s.{quote_identifier(ours)}", f"c.{quote_identifier(theirs)}")
    return found


def role_types(
    loaded: LoadedScenario, engine: AnyEngine, relation: str, roles: Mapping[str, str | None]
) -> dict[str, str]:
    types: dict[str, str] = {}
    for role, sql in roles.items():
        if sql is not None:
            types[role] = check_binds(loaded, engine, relation, sql, "columns", role)
    return types


def check_binds(loaded: LoadedScenario, engine: AnyEngine, relation: str, sql: str, *path: str | int) -> str:
    """The type of an expression over the log; an expression that the engine refuses is the scenario's error."""
    try:
        return engine.names(f"select {sql} as x from {relation}")[0][1]
    except LogError as error:
        key = ".".join(str(p) for p in path)
        reason = error.message.removeprefix("the log can't be read: ")
        raise loaded.error(f"{key}: the expression does not fit the log: {reason[:300]}", *path) from error


def is_numeric(kind: str) -> bool:
    return (kind.startswith(NUMERIC_TYPES) and not kind.endswith("]")) or kind == NO_VALUES


def check_numeric(
    names: Names, engine: AnyEngine, relation: str, types: Mapping[str, str], roles: Mapping[str, str | None]
) -> None:
    """Refuse roles that must be numbers and are something else, naming a value that is none."""
    for role in NUMERIC_ROLES:
        kind = types.get(role, "DOUBLE")
        if not is_numeric(kind):
            text = getattr(names.loaded.scenario.columns, role) or role
            raise not_numeric(names, engine, relation, str(roles[role]), kind, text, "columns", role)


def not_numeric(
    names: Names, engine: AnyEngine, relation: str, sql: str, kind: str, text: str, *path: str | int
) -> BidsimError:
    """The error for an expression that is no number. text: as the scenario writes it."""
    key = ".".join(str(p) for p in path)
    odd = f"try_cast(cast({sql} as varchar) as double) is null"
    if names.campaigns is not None and re.fullmatch(r'c\."(?:[^"]|"")+"', sql):
        value = a_value(Names(names.loaded, {}), engine, f"{names.campaigns.reader} as c", sql, odd)
        why = f', such as "{value}"' if value else ""
        return LogError(
            f"{key}: the campaign table's column {sql[2:]} is {kind}{why}, a number is needed; mend the table, or write in "
            f"the scenario {_as_number(text, value)}",
            file=names.loaded.scenario.campaigns,
        )
    mixed = names.source.mixed.get(text.strip('"').lower()) if names.source else None
    value = a_value(names, engine, relation, sql, odd)
    why = f", {mixed}" if mixed else f', such as "{value}"' if value else ""
    return names.loaded.error(
        f"{key}: the log's column is {kind}{why}, a number is needed; mend the log, or write {_as_number(text, value)}",
        *path,
    )


def _as_number(text: str, value: str) -> str:
    """An expression that makes numbers of texts such as `value`, where try_cast would lose all of them."""
    if value.lower() in ("true", "false", "t", "f"):
        return f"cast({text} as boolean)"
    if value.lower() in ("y", "n", "yes", "no"):
        return f"lower({text}) in ('y', 'yes')"
    for shape, instead in (
        (r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", "cast(replace({0}, ',', '') as double)"),
        (r"[+-]?\d+,\d+", "cast(replace({0}, ',', '.') as double)"),
        (r"[+-]?[\d.]+\s*%", "cast(replace({0}, '%', '') as double) / 100"),
    ):
        if re.fullmatch(shape, value.strip()):
            return instead.format(text)
    return f"try_cast({text} as double) to take what is no number as missing"


def a_value(names: Names, engine: AnyEngine, relation: str, sql: str, where: str = "true") -> str:
    """A value of an expression over the log as a message shows it; '' where none can be had."""
    if names.source is not None:
        relation = relation.replace(names.source.reader(), engine.bring(names.source, [sql], [], None).reader())
    try:
        found = engine.rows(
            f"select cast({sql} as varchar) from {relation} where {sql} is not null and {where} limit 1"
        )
    except ExpressionError:
        return ""  # its type is reason enough
    return str(found[0][0])[:60].strip('"') if found else ""


def grouped(sql: str, kind: str) -> str:
    """What rows are grouped by: equal where it is the same, whoever compares it, so that -0.0 is 0.0."""
    if kind in ("FLOAT", "DOUBLE"):
        return f"({sql} + cast(0 as {kind.lower()}))"
    kept = kind.startswith(KEPT_TYPES) and not kind.endswith("]") and "HUGEINT" not in kind
    return sql if kept else f"cast({sql} as varchar)"


def unit_kind(kind: str | None) -> Literal["whole", "text", "row"]:
    """How units are told apart: whole numbers of 64 bits as such, everything else by its text."""
    if kind is None:
        return "row"
    whole = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
    return "whole" if kind in whole or _of_20_digits(kind) else "text"


def _of_20_digits(kind: str) -> bool:
    """Whether whole numbers of a type may need one bit more than BIGINT has; Spark reads UBIGINT as such a DECIMAL."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),0\)", kind)
    return kind == "UBIGINT" or (decimal is not None and int(decimal.group(1)) <= 20)


def unit_sql(sql: str, kind: str) -> str:
    """A unit that is a whole number as BIGINT: itself where it fits, else less 2^64, whose bits are the same."""
    if not _of_20_digits(kind):
        return sql
    half, whole = "cast('9223372036854775808' as hugeint)", "cast('18446744073709551616' as hugeint)"
    wrapped = f"((cast({sql} as hugeint) + {half}) % {whole} + {whole}) % {whole} - {half}"
    fits = f"{sql} between -9223372036854775807 and 9223372036854775807"
    return f"case when {fits} then cast({sql} as bigint) else cast({wrapped} as bigint) end"


def segments_of(
    loaded: LoadedScenario,
    engine: AnyEngine,
    relation: str,
    names: Names,
    roles: Mapping[str, str | None],
    local: str | None,
) -> list[Segment]:
    found: dict[str, str] = {}
    for i, entry in enumerate(loaded.scenario.segments):
        pairs = [(entry, entry)] if isinstance(entry, str) else list(entry.items())
        for name, text in pairs:
            if not name.strip():
                raise loaded.error("segments: a segment needs a name", "segments", i)
            if name in found:
                raise loaded.error(f'segments: "{name}" stands twice', "segments", i)
            if text in ROLES and roles.get(text) is not None:
                sql = str(roles[text])
            elif text not in names.columns and text in TIME_PARTS and local is not None:
                sql = TIME_PARTS[text].format(local)
            else:
                if text.isidentifier() and text.lower() not in {known.lower() for known in names.columns}:
                    # A role or a part of the time may be what was meant, which an expression's columns don't tell.
                    known = [
                        *(r for r in ROLES if roles.get(r) is not None),
                        *(TIME_PARTS if local else ()),
                        *names.columns,
                    ]
                    hint = nearest(text, known)
                    if hint:
                        raise loaded.error(f'segments.{i}: there is no column or role "{text}"{hint}', "segments", i)
                sql = names.compile(text, "segments", i).sql
            kind = check_binds(loaded, engine, relation, sql, "segments", i)
            found[name] = grouped(sql, kind) if sql != roles["campaign"] else sql
    segments = [Segment(name, f"segment_{i}", sql) for i, (name, sql) in enumerate(found.items())]
    if roles["campaign"] is not None and roles["campaign"] not in found.values():
        # Metrics over campaigns (gauc, target_attainment) need the campaigns even where nobody asked to see them.
        name = "campaign"
        while name in found:
            name += "_"
        segments.append(Segment(name, f"segment_{len(segments)}", str(roles["campaign"]), shown=False))
    return segments


def indicator(loaded: LoadedScenario, roles: Mapping[str, str | None]) -> str:
    given = loaded.scenario.performance_indicator_type
    if given is not None:
        return given
    return "cpa" if roles["target_cpa"] is not None or roles["target_cpc"] is None else "cpc"


def shift_prices(roles: dict[str, str | None], factor: float) -> dict[str, str | None]:
    """The roles in a market where everybody else asks `factor` times as much: prices and floors.

    The logged bid follows too. It is no policy's bid but a bound: an auction that it lost asks more than it, one that it
    won at a price that nobody saw asks no more, and both bounds move with what is asked.
    """
    if factor == 1.0:
        return roles
    moved = {
        role: f"(cast({sql} as double) * {factor!r}::double)"
        for role in ("price", "floor", "bid")
        if (sql := roles[role]) is not None
    }
    return {**roles, **moved}
