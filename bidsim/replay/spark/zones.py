"""Times in the scenario's zone, said in full: what DuckDB reckons in its session's zone, `timezone(...)` asks for by name.

Spark's session stays in UTC, where a wall clock never jumps. So the hour of an instant, its day, and a time without an
offset beside it are written out before a statement is translated; the statement stays DuckDB's, and means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from bidsim.replay.spark.nodes import Untranslatable

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
    """The tree with the zone named wherever DuckDB would take its session's. Raises Untranslatable."""
    for node in list(tree.walk(bfs=False))[::-1]:  # from the leaves up
        kinds = [type_of(part) for part in asked(node)]
        if isinstance(node, exp.Cast) and _target(node) == "TIMESTAMPTZ":
            _make_instant(node, zone, kinds[0] if kinds else "VARCHAR")
        elif ZONED not in kinds:
            continue
        elif isinstance(node, COMPARISONS):
            for part in _operands(node):
                kind = type_of(part)
                if isinstance(part, exp.Literal) or (kind and kind != ZONED):
                    part.replace(_instant(part, zone, "VARCHAR" if isinstance(part, exp.Literal) else kind))
        else:
            if isinstance(node, exp.Cast) and _target(node) in ("TEXT", "VARCHAR"):
                raise Untranslatable("an instant is made no text there; write cast(timezone('ZONE', x) as varchar)")
            for part in asked(node):
                if type_of(part) == ZONED:
                    part.replace(_timezone(zone, part.copy()))
            if isinstance(node, exp.Anonymous) and str(node.this).lower() == "date_trunc":
                node.replace(_timezone(zone, node.copy()))
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


def _make_instant(node: exp.Cast, zone: str, kind: str) -> None:
    if kind == ZONED or not isinstance(node.this, exp.Expr):
        return
    node.replace(_instant(node.this, zone, kind))


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
