"""User-written SQL: parsed, checked against an allow-list, written anew. What the engine runs is never the user's text.

A formula or condition is one scalar expression over named columns. sqlglot parses it in DuckDB's dialect; every node
of the tree must be of an allowed kind, every function of an allowed name, every name known. Then the tree is written
out again with names replaced, so that comments, quoting tricks and second statements can't survive.

Fractions become DOUBLE (``0.5e0``): DuckDB would otherwise make DECIMALs of them, other engines would not. Division
is floating-point division; by zero it gives an infinity or NaN, which bids nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from bidsim.errors import BidsimError

MOST_CHARACTERS = 10_000
MOST_NODES = 2_000
MOST_NESTING = 60

ALLOWED_NODES: tuple[type[exp.Expression], ...] = (
    exp.Literal, exp.Boolean, exp.Null, exp.Column, exp.Identifier, exp.Paren, exp.Tuple, exp.Neg,
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod,
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ,
    exp.And, exp.Or, exp.Not, exp.Between, exp.In, exp.Is, exp.Like, exp.ILike,
    exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Cast, exp.TryCast, exp.DataType, exp.DataTypeParam, exp.Interval,
    exp.Var, exp.Abs, exp.Ceil, exp.Floor, exp.Round, exp.Sqrt, exp.Ln, exp.Log, exp.Exp, exp.Pow, exp.Greatest,
    exp.Least, exp.Sign, exp.Lower, exp.Upper, exp.Trim, exp.Length, exp.Substring, exp.Left, exp.Right,
    exp.SplitPart, exp.StartsWith, exp.Contains, exp.Concat, exp.DPipe, exp.StrPosition,
    exp.TimestampTrunc, exp.DateTrunc, exp.Extract, exp.Year, exp.Month, exp.Day, exp.Hour, exp.Minute, exp.Second,
    exp.DayOfWeek, exp.DayOfWeekIso, exp.DateDiff, exp.UnixToTime, exp.StrToTime, exp.TimeToUnix, exp.Trunc, exp.Replace, exp.RegexpLike, exp.ArrayContains, exp.ArraySize,
    exp.Dot, exp.Distinct, exp.Anonymous,
)  # fmt: skip

# Functions that sqlglot has no class of its own for.
ALLOWED_FUNCTIONS = frozenset(
    "log2 log10 trunc strpos epoch epoch_ms epoch_us make_timestamp strptime to_timestamp isodow weekday isoyear "
    "list_contains len length starts_with contains regexp_matches ltrim rtrim ifnull dayofweek hour minute second "
    "year month day quarter week isfinite isnan isinf ends_with date_part date_trunc datediff date_diff".split()
)

SCALAR_TYPES = frozenset(
    "BOOLEAN TINYINT SMALLINT INT BIGINT UTINYINT USMALLINT UINT UBIGINT FLOAT DOUBLE DECIMAL VARCHAR TEXT DATE TIME "
    "TIMESTAMP TIMESTAMPTZ TIMESTAMPNTZ TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS".split()
)

WHAT_IS_ALLOWED = (
    "allowed are columns, numbers, text, arithmetic, comparisons, and/or/not, in, between, like, case, coalesce, cast "
    "and scalar functions such as abs, greatest, least, ln, exp, lower, substring, date_trunc"
)


@dataclass(frozen=True)
class Compiled:
    """sql: DuckDB text in parentheses, safe to embed; names: the known names that it uses."""

    sql: str
    names: frozenset[str]


def quote_identifier(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def compile_expression(text: str, names: Mapping[str, str], *, where: Callable[[str], BidsimError]) -> Compiled:
    """Check a user's expression and write it anew.

    names: what each name may stand for, as SQL text that is already safe; a name is matched exactly, else regardless
    of case where that is unique. where: makes the error, with file and line, from a message. Raises what `where`
    makes for anything but one scalar expression of allowed parts over known names.
    """
    tree = _parse(text, where)
    used: set[str] = set()
    try:
        replaced = _rewrite(tree, names, used, where)
        sql = replaced.sql(dialect="duckdb", comments=False)
    except (SqlglotError, RecursionError, ValueError) as error:
        raise where(f'"{_short(text)}" can\'t be written as SQL: {_first_line(error)}') from None
    return Compiled(f"({sql})", frozenset(used))


def _parse(text: str, where: Callable[[str], BidsimError]) -> exp.Expression:
    if len(text) > MOST_CHARACTERS:
        raise where(f"the expression has {len(text)} characters, at most {MOST_CHARACTERS} are allowed")
    if any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        raise where("the expression has control characters")
    if _nesting(text) > MOST_NESTING:
        raise where(f"the expression is nested more than {MOST_NESTING} deep")
    try:
        trees = [t for t in sqlglot.parse(text, dialect="duckdb") if t is not None]
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise where(f'"{_short(text)}" is not an SQL expression: {_first_line(error)}') from None
    if len(trees) != 1:
        raise where(f'"{_short(text)}" is {len(trees)} statements; one expression is needed')
    tree = trees[0]
    try:
        count = sum(1 for _ in tree.walk())
    except RecursionError:
        count = MOST_NODES + 1
    if count > MOST_NODES:
        raise where(f"the expression has over {MOST_NODES} parts; simplify it, or compute it into a column of the log")
    for node in tree.walk():
        _check_node(node, text, where)
    return tree


def _nesting(text: str) -> int:
    """How deep brackets, signs and keywords that recurse can nest; counted before the parser recurses on them."""
    depth = most = run = 0
    for i, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth = max(0, depth - 1)
        run = run + 1 if c in "-+~!" else run if c.isspace() else 0
        most = max(most, depth, run)
    words = text.lower().split()
    return max(most, words.count("case"), words.count("not"))


def _check_node(node: exp.Expression, text: str, where: Callable[[str], BidsimError]) -> None:
    kind = type(node)
    if isinstance(node, exp.Anonymous):
        name = str(node.this).lower()
        if name not in ALLOWED_FUNCTIONS:
            raise where(f'"{_short(text)}" uses the function {name}; {WHAT_IS_ALLOWED}')
        return
    if kind not in ALLOWED_NODES:
        what = node.sql_name().lower() if isinstance(node, exp.Func) else node.key.replace("_", " ")
        raise where(f'"{_short(text)}" uses {what}, which is not allowed here; {WHAT_IS_ALLOWED}')
    if isinstance(node, exp.DataType):
        name = node.this.value if hasattr(node.this, "value") else str(node.this)
        if str(name).upper() not in SCALAR_TYPES:
            raise where(f'"{_short(text)}" casts to {node.sql(dialect="duckdb")}; only plain scalar types are allowed')
    if isinstance(node, exp.In) and (node.args.get("query") or node.args.get("unnest") or node.args.get("field")):
        raise where(f'"{_short(text)}": in needs a list of values in parentheses')
    if isinstance(node, exp.Tuple) and not isinstance(node.parent, exp.In):
        raise where(f'"{_short(text)}" is a list of values; one value is needed')
    if isinstance(node, exp.Distinct):
        raise where(f'"{_short(text)}" uses distinct, which is not allowed here; {WHAT_IS_ALLOWED}')


def _rewrite(
    tree: exp.Expression, names: Mapping[str, str], used: set[str], where: Callable[[str], BidsimError]
) -> exp.Expression:
    """The tree with names replaced by what they stand for and fractions as DOUBLE. Comments are dropped."""

    def change(node: exp.Expression) -> exp.Expression:
        node.comments = None
        if isinstance(node, exp.Column):
            return _column(node, names, used, where)
        if isinstance(node, exp.Literal) and not node.is_string:
            return _number(node, where)
        return node

    return tree.transform(change)


def _column(
    node: exp.Column, names: Mapping[str, str], used: set[str], where: Callable[[str], BidsimError]
) -> exp.Expression:
    parts = [p.name for p in node.parts]
    if any(isinstance(p, exp.Star) for p in node.parts) or not all(parts):
        raise where("a * is not a value; name a column")
    found = _known(".".join(parts), names) or _known(parts[0], names)
    if found is None:
        close = difflib.get_close_matches(parts[0], list(names), n=1, cutoff=0.5)
        hint = f' (did you mean "{close[0]}"?)' if close else f"; known are {', '.join(sorted(names)[:15])}"
        raise where(f'unknown column "{".".join(parts)}"{hint}')
    used.add(found)
    # What the name stands for is SQL that we made; it goes in as it is.
    result: exp.Expression = exp.Var(this=names[found])
    if found != ".".join(parts) and len(parts) > 1:
        fields = "".join("." + quote_identifier(p) for p in parts[1:])
        result = exp.Var(this=f"({names[found]}){fields}")
    return result


def _known(name: str, names: Mapping[str, str]) -> str | None:
    if name in names:
        return name
    alike = [n for n in names if n.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _number(node: exp.Literal, where: Callable[[str], BidsimError]) -> exp.Expression:
    text = str(node.this)
    if text.isdigit() and len(text) <= 18:
        return exp.Literal.number(text)
    try:
        value = float(text)
    except ValueError:
        raise where(f'"{_short(text)}" is not a number') from None
    if value in (float("inf"), float("-inf")):
        raise where(f"the number {_short(text)} is too large")
    # repr is the shortest text of the same double; the exponent makes it DOUBLE on every engine.
    shown = repr(value)
    return exp.Var(this=shown if "e" in shown else f"{shown}e0")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."


def _first_line(error: Exception) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    line = next((x for x in lines if x), type(error).__name__)
    # sqlglot underlines the place with terminal codes.
    return line.replace("\x1b[4m", "").replace("\x1b[0m", "")[:200]
