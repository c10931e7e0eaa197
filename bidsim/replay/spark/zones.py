"""Times in the scenario's zone, said in full: what DuckDB reckons in its session's zone, `timezone(...)` asks for by name.

Spark's session stays in UTC, where a wall clock never jumps. So the hour of an instant, its day, and a time without an
offset beside it are written out before a statement is translated; the statement stays DuckDB's, and means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

ZONED = "TIMESTAMP WITH TIME ZONE"
COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Between, exp.In)
PARTED = frozenset(
    [
        "year",
        "quarter",
        "month",
        "week",
        "day",
        "isodow",
        "isoyear",
        "hour",
        "minute",
        "second",
        "dayofmonth",
        "dayofyear",
        "dayofweek",
        "weekday",
        "date_part",
        "datepart",
        "strftime",
        "date_trunc",
    ]
)
CLOCKS = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMPNTZ", "TEXT", "VARCHAR")
OFFSET = re.compile(r":\d\d(\.\d+)?\s*([zZ]|[+-]\d\d(:?\d\d)?)\s*$")

Parts = list[exp.Expr]


def asked(node: exp.Expr) -> Parts:
    """The parts of a node that may be an instant, and what they meet."""
    if isinstance(node, exp.Anonymous) and str(node.this).lower() in PARTED:
        return [a for a in node.expressions if not isinstance(a, exp.Literal)]
    if isinstance(node, exp.Extract):
        return [node.expression]
    if isinstance(node, exp.Cast) and not isinstance(node.this, (exp.Literal, exp.Null, exp.Boolean)):
        return [node.this] if _target(node) in (*CLOCKS, "TIMESTAMPTZ") else []
    if isinstance(node, COMPARISONS):
        operands = _operands(node)
        numbers = any(isinstance(o, exp.Literal) and not o.is_string for o in operands)
        return [] if numbers else [o for o in operands if not isinstance(o, (exp.Literal, exp.Null, exp.Boolean))]
    return []


def in_zone(tree: exp.Expr, zone: str, type_of: Callable[[exp.Expr], str]) -> exp.Expr:
    """The tree with the zone named wherever DuckDB would take its session's. type_of: of every part that `asked` names."""
    made: dict[int, tuple[exp.Expr, str]] = {}  # what stands for a part, and the part's type

    def kind_of(node: exp.Expr) -> str:
        return made[id(node)][1] if id(node) in made else type_of(node)

    def put(new: exp.Expr, node: exp.Expr, kind: str) -> None:
        made[id(new)] = (new, kind)
        node.replace(new)

    for node in list(tree.walk(bfs=False))[::-1]:  # from the leaves up
        parts = asked(node)
        kinds = [kind_of(part) for part in parts]
        if isinstance(node, exp.Cast) and _target(node) == "TIMESTAMPTZ":
            if ZONED not in kinds:
                put(_instant(node.this, zone, kinds[0] if kinds else "VARCHAR"), node, ZONED)
        elif ZONED not in kinds:
            continue
        elif isinstance(node, exp.Cast) and _target(node) in ("TEXT", "VARCHAR"):
            put(_shown(zone, node.this), node, "VARCHAR")
        elif isinstance(node, COMPARISONS):
            for part in _operands(node):
                kind = "VARCHAR" if isinstance(part, exp.Literal) else kind_of(part)
                if kind and kind != ZONED:
                    put(_instant(part, zone, kind), part, ZONED)
        else:
            for part, kind in zip(parts, kinds, strict=True):
                if kind == ZONED:
                    put(_timezone(zone, part.copy()), part, "TIMESTAMP")
            if isinstance(node, exp.Anonymous) and str(node.this).lower() == "date_trunc":
                put(_timezone(zone, node.copy()), node, ZONED)
    return tree


def _operands(node: exp.Expr) -> Parts:
    found = [node.this, node.args.get("expression"), node.args.get("low"), node.args.get("high")]
    return [o for o in (*found, *node.expressions) if isinstance(o, exp.Expr)]


def _target(node: exp.Cast) -> str:
    return str(node.to.this.name)


def _timezone(zone: str, x: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="timezone", expressions=[exp.Literal.string(zone), x])


def _cast(x: exp.Expr, kind: str) -> exp.Expr:
    return exp.Cast(this=x, to=exp.DataType.build(kind, dialect="duckdb"))


def _shown(zone: str, x: exp.Expr) -> exp.Expr:
    """An instant as DuckDB writes it: the wall clock and its offset, with minutes only where it has some."""
    wall, given = _timezone(zone, x.copy()).sql(dialect="duckdb"), x.sql(dialect="duckdb")
    offset = f"((epoch_us({wall}) - epoch_us({given})) // 60000000)"
    hours, minutes = (f"right('0' || cast(abs({offset}) {part} as varchar), 2)" for part in ("// 60", "% 60"))
    rest = f"case when abs({offset}) % 60 = 0 then '' else ':' || {minutes} end"
    sign = f"case when {offset} < 0 then '-' else '+' end"
    return exp.Var(this=f"(cast({wall} as varchar) || {sign} || {hours} || {rest})")


def _instant(x: exp.Expr, zone: str, kind: str) -> exp.Expr:
    """A wall clock or a text as an instant: in the zone, unless the text has an offset of its own."""
    given, wall = _cast(x.copy(), "timestamptz"), _timezone(zone, _cast(x.copy(), "timestamp"))
    if isinstance(x, exp.Literal):
        return given if OFFSET.search(str(x.this)) else wall
    if not kind.startswith("VARCHAR"):
        return wall
    clock = exp.Anonymous(this="substr", expressions=[x.copy(), exp.Literal.number(12)])
    signs = [exp.Anonymous(this="contains", expressions=[clock.copy(), exp.Literal.string(s)]) for s in "+-Zz"]
    return exp.Paren(this=exp.Case(ifs=[exp.If(this=exp.or_(*signs), true=given)], default=wall))
