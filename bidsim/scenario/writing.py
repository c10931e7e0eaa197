"""A checked tree written out as DuckDB SQL: one rule for each kind of node, and nothing without a rule.

Each rule names the parts of a node that it writes; a node with any other part is refused. Every operation stands in
parentheses, so the text means the same wherever it is put.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from sqlglot import exp

from bidsim.scenario.grammar import (
    DATE_PARTS,
    FUNCTIONS,
    LITERAL_ARGUMENTS,
    PART_NAMES,
    TYPES,
    UNITS,
    WHAT_IS_ALLOWED,
    WHY_NOT,
)

Column = Callable[[list[str]], str]

MOST_WILDCARDS = 10
LARGEST_BIGINT = 2**63 - 1

COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
OPERATORS: dict[type[exp.Expr], str] = {
    **COMPARISONS,
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.And: "and",
    exp.Or: "or",
    exp.DPipe: "||",
    exp.NullSafeEQ: "is not distinct from",
    exp.NullSafeNEQ: "is distinct from",
}
MODULAR: dict[type[exp.Expr], str] = {exp.IntDiv: "//", exp.Mod: "%"}


class Refused(Exception):
    """A part of an expression is not allowed; the message says which and what is."""


def write(tree: exp.Expr, column: Column) -> str:
    """The SQL of a tree. column: gives the SQL of a (dotted) name, or raises Refused. Raises Refused."""
    return _Writer(column).write(tree)


class _Writer:
    def __init__(self, column: Column) -> None:
        self.column = column
        self.rules: dict[type[exp.Expr], Callable[[exp.Expr], str]] = {
            exp.Literal: self.literal,
            exp.Boolean: lambda node: "true" if node.this else "false",
            exp.Null: lambda node: "null",
            exp.Paren: lambda node: self.write(_parts(node, "this")["this"]),
            exp.Column: lambda node: self.column([part.name for part in _names(node)]),
            exp.Dot: lambda node: self.column([part.name for part in _names(node)]),
            exp.Neg: lambda node: f"(- {self.write(_parts(node, 'this')['this'])})",
            exp.Not: lambda node: f"(not {self.write(_parts(node, 'this')['this'])})",
            exp.Between: self.between,
            exp.In: self.member,
            exp.Is: self.is_,
            exp.Like: lambda node: self.like(node, "like"),
            exp.ILike: lambda node: self.like(node, "ilike"),
            exp.Case: self.case,
            exp.Cast: lambda node: self.cast(node, "cast"),
            exp.TryCast: lambda node: self.cast(node, "try_cast"),
            exp.Interval: self.interval,
            exp.Extract: self.extract,
            exp.Anonymous: self.function,
            exp.Tuple: lambda node: _refuse("is a list of values; one value is needed"),
            exp.Alias: lambda node: _refuse("two values stand side by side: an operator is missing between them"),
            exp.Aliases: lambda node: _refuse("a value can't be given a name here"),
            exp.Star: lambda node: _refuse("a * is not a value; name a column"),
        }

    def write(self, node: exp.Expr) -> str:
        kind = type(node)
        if kind in OPERATORS or kind in MODULAR:
            return self.chain(node)
        rule = self.rules.get(kind)
        if rule is None:
            raise Refused(f"{_words(node)} is not allowed here; {WHAT_IS_ALLOWED}")
        return rule(node)

    def chain(self, node: exp.Expr) -> str:
        """A left-deep chain of operations, walked by a loop: `a + b + c + ...` may be long but is not nested."""
        steps: list[exp.Expr] = []
        while type(node) in OPERATORS or type(node) in MODULAR:
            parts = _parts(node, "this", "expression", "typed", "safe")
            if type(node) in COMPARISONS and type(parts["this"]) in COMPARISONS:
                raise Refused("comparisons can't be chained; write a < b and b < c")
            if type(node) in COMPARISONS and type(parts["expression"]) in COMPARISONS:
                raise Refused("comparisons can't be chained; write a < b and b < c")
            if type(node) in COMPARISONS and exp.Null in (type(parts["this"]), type(parts["expression"])):
                raise Refused("a comparison with null is never true; write is null, or is not null")
            steps.append(node)
            node = parts["this"]
        sql = self.factor(node) if type(steps[-1]) is exp.Mul else self.write(node)
        before: type[exp.Expr] | None = None
        for step in reversed(steps):
            kind = type(step)
            right = self.factor(step.expression) if kind is exp.Mul else self.write(step.expression)
            if kind in MODULAR:
                sql = f"({sql} {MODULAR[kind]} nullif({right}, 0))"
            elif kind is before and kind in (exp.And, exp.Or, exp.Add, exp.Mul, exp.DPipe):
                sql = f"{sql[:-1]} {OPERATORS[kind]} {right})"
            else:
                sql = f"({sql} {OPERATORS[kind]} {right})"
            before = kind
        return sql

    def factor(self, node: exp.Expr) -> str:
        sql = self.write(node)
        return f"cast({sql} as bigint)" if sql.isdigit() else sql

    def literal(self, node: exp.Expr) -> str:
        return _quote(str(node.this)) if node.is_string else _number(str(node.this))

    def between(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "low", "high")
        return f"({self.write(p['this'])} between {self.write(p['low'])} and {self.write(p['high'])})"

    def member(self, node: exp.Expr) -> str:
        values = node.args.get("expressions")
        if not values or any(node.args.get(key) for key in ("query", "unnest", "field")):
            raise Refused("in needs a list of values in parentheses, such as in (1, 2)")
        p = _parts(node, "this", "expressions")
        return f"({self.write(p['this'])} in ({', '.join(self.write(value) for value in values)}))"

    def is_(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "expression")
        if not isinstance(p["expression"], (exp.Null, exp.Boolean)):
            raise Refused("is takes null, true, false or distinct from; to compare write =")
        return f"({self.write(p['this'])} is {self.write(p['expression'])})"

    def like(self, node: exp.Expr, word: str) -> str:
        p = _parts(node, "this", "expression", "negate")
        pattern = p["expression"]
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            raise Refused(f"{word} needs its pattern as text in 'quotes'")
        if str(pattern.this).count("%") > MOST_WILDCARDS:
            raise Refused(f"a pattern of {word} has at most {MOST_WILDCARDS} %")
        no = "not " if p.get("negate") else ""
        return f"({self.write(p['this'])} {no}{word} {self.write(pattern)})"

    def case(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "ifs", "default")
        text = "(case"
        if p.get("this") is not None:
            text += f" {self.write(p['this'])}"
        if not p.get("ifs"):
            raise Refused("case needs at least one when ... then ...")
        for branch in p["ifs"]:
            b = _parts(branch, "this", "true")
            if b.get("true") is None:
                raise Refused("case needs then after when")
            text += f" when {self.write(b['this'])} then {self.write(b['true'])}"
        if p.get("default") is not None:
            text += f" else {self.write(p['default'])}"
        return f"{text} end)"

    def cast(self, node: exp.Expr, word: str) -> str:
        p = _parts(node, "this", "to", "safe")
        return f"{word}({self.write(p['this'])} as {_type(p['to'])})"

    def interval(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "unit")
        amount, unit = p.get("this"), p.get("unit")
        if amount is None:
            raise Refused("interval needs an amount, such as interval '1 hour'")
        if unit is None:
            text = str(amount.this) if isinstance(amount, exp.Literal) and amount.is_string else ""
            if not re.fullmatch(r"\s*([+-]?\d{1,9}\s+[a-zA-Z]+\s*)+", text) or not (
                {word.lower() for word in re.findall("[a-zA-Z]+", text)} <= UNITS
            ):
                raise Refused("an interval is written like interval '1 hour' or interval 2 days")
            return f"(interval {_quote(text)})"
        name = unit.name.lower() if isinstance(unit, exp.Var) else ""
        if name not in UNITS:
            raise Refused("an interval is in seconds, minutes, hours, days, weeks, months or years")
        if isinstance(amount, exp.Literal):
            if not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", str(amount.this)):
                raise Refused("an interval is a whole number of units, such as interval 2 days")
            return f"(interval '{int(str(amount.this))}' {name})"
        return f"(interval ({self.write(amount)}) {name})"

    def extract(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "expression")
        name = p["this"].name.lower()
        return f"extract({_part(PART_NAMES.get(name, name))} from {self.write(p['expression'])})"

    def function(self, node: exp.Expr) -> str:
        p = _parts(node, "this", "expressions")
        this = p["this"]
        name = (this if isinstance(this, str) else this.name).lower()
        arguments = p.get("expressions") or []
        arity = FUNCTIONS.get(name)
        if arity is None:
            raise Refused(unknown_function(name))
        low, high = arity
        if not low <= len(arguments) <= high or (name == "make_timestamp" and len(arguments) not in (1, 6)):
            count = f"{low}" if low == high else f"{low} to {high}"
            raise Refused(f"{name} takes {count} argument{'' if high == 1 else 's'}, not {len(arguments)}")
        for position in LITERAL_ARGUMENTS.get(name, ()):
            if not (isinstance(arguments[position], exp.Literal) and arguments[position].is_string):
                raise Refused(f"argument {position + 1} of {name} must be text in 'quotes'")
        if name == "replace" and len(arguments[2].this) > max(1, len(arguments[1].this)):
            raise Refused("replace can't put a longer text for a shorter one")
        if name.startswith("date"):
            _part(str(arguments[0].this).lower())
        written = [self.write(argument) for argument in arguments]
        if name == "mod":
            return f"({written[0]} % nullif({written[1]}, 0))"
        if name == "if":
            return f"(case when {written[0]} then {written[1]} else {written[2]} end)"
        return f"{name}({', '.join(written)})"


def _parts(node: exp.Expr, *known: str) -> dict[str, Any]:
    """The node's parts, when each that is set is one of the known: what has no rule is refused, never dropped."""
    found = {key: value for key, value in node.args.items() if value not in (None, False, [], ())}
    unknown = [key for key in found if key not in known]
    if unknown:
        raise Refused(f"{_words(node)} with {unknown[0].replace('_', ' ')} is not allowed here; {WHAT_IS_ALLOWED}")
    return found


def _names(node: exp.Expr) -> list[exp.Expr]:
    """The identifiers of `a.b.c`, however sqlglot nested them."""
    if isinstance(node, exp.Dot):
        parts = _parts(node, "this", "expression")
        found = [*_names(parts["this"]), parts["expression"]]
    elif isinstance(node, exp.Column):
        parts = _parts(node, "this", "table", "db", "catalog")
        found = [parts[key] for key in ("catalog", "db", "table", "this") if key in parts]
    else:
        raise Refused("only a column has fields; write column.field")
    for part in found:
        if isinstance(part, exp.Star):
            raise Refused("a * is not a value; name a column")
        if isinstance(part, exp.Anonymous):
            raise Refused("a function has no prefix; write its name alone")
        if not isinstance(part, exp.Identifier) or not part.name:
            raise Refused("only a column has fields; write column.field")
    return found


def _type(node: exp.Expr) -> str:
    parts = _parts(node, "this", "expressions", "nested", "nullable")
    kind = parts["this"]
    name = TYPES.get(str(getattr(kind, "name", kind)))
    sizes = [str(size.this) for size in parts.get("expressions") or []]
    if name is None or parts.get("nested"):
        raise Refused(
            f"casts to {node.sql(dialect='duckdb').lower()}; a cast is to boolean, integer, bigint, double, decimal, "
            "varchar, date, time, timestamp or timestamptz"
        )
    if not sizes:
        return name
    if name == "varchar":
        return name  # DuckDB has no limit on the length
    if name != "decimal" or len(sizes) > 2 or not all(size.isdigit() for size in sizes):
        raise Refused(f"the type {name} has no size here")
    width, scale = int(sizes[0]), int(sizes[1]) if len(sizes) > 1 else 0
    if not 1 <= width <= 38 or scale > width:
        raise Refused("decimal(width, scale) has a width of 1 to 38 and a scale up to it")
    return f"decimal({width}, {scale})"


def _part(name: str) -> str:
    if name not in DATE_PARTS:
        close = difflib.get_close_matches(name, sorted(DATE_PARTS), n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else f"; known are {', '.join(sorted(DATE_PARTS))}"
        raise Refused(f'there is no part of a time called "{name}"{hint}')
    return name


def unknown_function(name: str) -> str:
    """Why a function is not allowed, or what it could have meant."""
    if name in WHY_NOT:
        return f"the function {name} is not allowed: it {WHY_NOT[name]}"
    close = difflib.get_close_matches(name, sorted(FUNCTIONS), n=1, cutoff=0.7)
    return f"the function {name} is not allowed" + (f" (did you mean {close[0]}?)" if close else f"; {WHAT_IS_ALLOWED}")


def _number(text: str) -> str:
    digits = text.replace("_", "")
    if digits.isdigit() and digits.isascii() and len(digits) < 20 and int(digits) <= LARGEST_BIGINT:
        return str(int(digits))
    try:
        value = float(digits)
    except ValueError:
        # sqlglot takes the "-1" of 1e3-1 for part of the exponent.
        hint = "; put spaces around + and -" if "+" in digits or "-" in digits else ""
        raise Refused(f'"{text[:40]}" is not a number{hint}') from None
    if value in (float("inf"), float("-inf")):
        raise Refused(f"the number {text[:40]} is too large")
    # repr is the shortest text of the same double; the exponent makes it DOUBLE on every engine.
    shown = repr(value)
    return shown if "e" in shown else f"{shown}e0"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _words(node: exp.Expr) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
    return {"subquery": "a query", "select": "a query", "set operation": "a query"}.get(words, words)


def _refuse(message: str) -> str:
    raise Refused(message)
