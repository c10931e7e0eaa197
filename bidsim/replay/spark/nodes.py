"""Spark's own text as nodes of sqlglot's trees, for rules that write what sqlglot has no node for."""

from __future__ import annotations

from sqlglot import exp
from sqlglot.dialects.spark import Spark

INFINITY = "double('infinity')"


class Untranslatable(Exception):
    """What has no equal in Spark; the message goes on after "engine spark: "."""


def raw(sql: str) -> exp.Expr:
    """Spark's own text as a node."""
    return exp.Var(this=sql)


def text(node: exp.Expr) -> str:
    return str(node.sql(dialect=Spark))


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Var(this=f"{name}({', '.join(text(a) for a in arguments)})")


def cast_to(node: exp.Expr, kind: str) -> exp.Expr:
    return exp.Var(this=f"cast({text(node)} as {kind})")
