"""DuckDB's SQL as Spark's, meaning the same: sqlglot parses and writes it, the functions are translated here one by one.

sqlglot's own renaming of functions is switched off, since it knows names and not meanings (DuckDB's log is to base 10,
its casts round, its floor is a DOUBLE). A function without a rule in `functions` is refused, never passed on. Types
come from DuckDB itself, which binds every statement to empty tables of the same columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.dialects.spark import Spark

from bidsim.errors import ScenarioError
from bidsim.logs.source import NO_VALUES
from bidsim.replay.spark import zones
from bidsim.replay.spark.functions import AGGREGATES, FUNCTIONS, WINDOWED, extract
from bidsim.replay.spark.nodes import Untranslatable, call, cast_to, raw
from bidsim.replay.spark.types import is_float, is_whole, spark_type

MOST_CHARACTERS = 400_000
# What must be known of a node's argument before it can be written.
ASKED = frozenset(FUNCTIONS) & frozenset(
    [
        "sum",
        "floor",
        "ceil",
        "ceiling",
        "trunc",
        "round",
        "date_trunc",
        "timezone",
        "epoch",
        "epoch_us",
        "epoch_ms",
        "length",
        "len",
        "concat",
        "to_timestamp",
        "list_contains",
        "contains",
        "date_part",
        "datepart",
        "weekday",
        "dayofweek",
        "isodow",
        "second",
    ]
)

# (name, DuckDB type) of the columns that a query gives.
Describe = Callable[[str], Sequence[tuple[str, str]]]
_Parser: Any = DuckDB.Parser


class _PlainParser(_Parser):  # type: ignore[misc]
    """Every function stays the name that DuckDB gives it."""

    FUNCTIONS: ClassVar[dict[Any, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[Any, Any]] = {
        k: v for k, v in _Parser.FUNCTION_PARSERS.items() if k in ("CAST", "TRY_CAST", "EXTRACT")
    }
    NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}


def parse(sql: str) -> Any:
    tokens = list(DuckDB().tokenize(sql))
    (tree,) = [t for t in _PlainParser(dialect=DuckDB()).parse(tokens, sql) if t is not None]
    return tree


def translate(sql: str, describe: Describe, zone: str = "UTC") -> str:
    """A query in Spark's dialect. zone: that of DuckDB's session. Raises ScenarioError for what can't mean the same there."""
    tree = parse(sql)
    try:
        if zone != "UTC":
            kinds = _types(tree, describe, zones.asked)
            tree = parse(zones.in_zone(tree, zone, lambda node: kinds.get(id(node), "")).sql(dialect="duckdb"))
        types = _types(tree, describe)
        for select in list(tree.find_all(exp.Select)):
            _expand_stars(select, describe)
        tree = _rewrite(tree, types)
    except Untranslatable as error:
        raise ScenarioError(f"engine spark: {error}") from None
    text = str(tree.sql(dialect=Spark, comments=False))
    if len(text) > MOST_CHARACTERS:
        raise ScenarioError("engine spark: an expression has too many parts; simplify it, or compute it into a column")
    return text


def name_of(node: exp.Expr) -> str:
    this = node.this
    return (this if isinstance(this, str) else str(this.name)).lower()


def _context(select: exp.Select) -> list[exp.Expr]:
    """The named parts (CTEs) that a select can see, outermost first."""
    own = select.args.get("with_")
    found: list[exp.Expr] = list(own.expressions) if own is not None else []
    node: exp.Expr | None = select
    while node is not None:
        if isinstance(node, exp.CTE):
            named = node.parent
            assert named is not None
            found = [*itertools.takewhile(lambda c, mine=node: c is not mine, named.expressions), *found]  # type: ignore[misc]
            # The select that they stand before sees them all; its own are found already.
            node = named.parent
        node = node.parent if node is not None else None
        outer = node.args.get("with_") if isinstance(node, exp.Select) else None
        if outer is not None:
            found = [*outer.expressions, *found]
    return found


def _probe(select: exp.Select, items: Sequence[str]) -> str:
    """A query for `items` over what a select reads."""
    named = _context(select)
    seen: set[str] = set()
    parts = []
    for cte in named:
        if cte.alias not in seen:
            seen.add(cte.alias)
            parts.append(f"{cte.alias} as ({cte.this.sql(dialect='duckdb')})")
    body = "".join(
        f" {part.sql(dialect='duckdb')}"
        for part in (select.args.get("from_"), *(select.args.get("joins") or []))
        if part
    )
    windows = ", ".join(
        w.sql(dialect="duckdb").replace(" OVER (", " AS (", 1) for w in select.args.get("windows") or []
    )
    body += f" window {windows}" if windows else ""
    with_ = f"with {', '.join(parts)} " if parts else ""
    return f"{with_}select {', '.join(items)}{body}"


def _asked(node: exp.Expr) -> list[exp.Expr]:
    """The parts of a node whose types decide how it is written."""
    if isinstance(node, (exp.Cast, exp.TryCast)):
        kind = node.to.this.name
        inner = node.this
        exact = isinstance(inner, exp.Anonymous) and name_of(inner) in ("floor", "ceil", "row_number", "count")
        if exact or kind in ("DOUBLE", "FLOAT", "DATE"):
            return []
        if isinstance(inner, (exp.Literal, exp.Null, exp.Boolean)):
            return []
        return [inner]
    if isinstance(node, exp.Extract):
        return [node.expression]
    if isinstance(node, exp.DPipe):
        return [node.this, node.expression]
    if isinstance(node, exp.Sub):
        literal = isinstance(node.expression, (exp.Literal, exp.Interval)) or isinstance(node.this, exp.Literal)
        return [] if literal else [node.this, node.expression]
    if isinstance(node, exp.IntDiv):
        return [node.this, node.expression]
    if isinstance(node, exp.Anonymous) and name_of(node) in ASKED:
        parent = node.parent
        if (
            name_of(node) in ("floor", "ceil")
            and isinstance(parent, exp.Cast)
            and parent.to.this.name in ("BIGINT", "INT")
        ):
            return []
        return [a for a in node.expressions if not isinstance(a, (exp.Star, exp.Literal))]
    return []


def _aggregated(node: exp.Expr) -> bool:
    return any(name_of(f) in AGGREGATES for f in node.find_all(exp.Anonymous)) and not any(
        True for _ in node.find_all(exp.Window)
    )


def _types(tree: exp.Expr, describe: Describe, asked: Callable[[exp.Expr], list[exp.Expr]] = _asked) -> dict[int, str]:
    """DuckDB's type of every node that is asked for, by the node's identity."""
    found: dict[int, str] = {}
    by_select: dict[int, tuple[exp.Select, list[exp.Expr]]] = {}
    for node in tree.walk():
        for part in asked(node):
            select = part.find_ancestor(exp.Select)
            if select is not None:
                by_select.setdefault(id(select), (select, []))[1].append(part)
    for select, nodes in by_select.values():
        for group in ([n for n in nodes if not _aggregated(n)], [n for n in nodes if _aggregated(n)]):
            if not group:
                continue
            texts = [n.sql(dialect="duckdb") for n in group]
            distinct = list(dict.fromkeys(texts))
            kinds = _kinds(select, distinct, describe)
            for node, text in zip(group, texts, strict=True):
                found[id(node)] = kinds[text]
    return found


def _kinds(select: exp.Select, texts: Sequence[str], describe: Describe) -> dict[str, str]:
    try:
        answer = describe(_probe(select, [f"{text} as x{i}" for i, text in enumerate(texts)]))
        return {text: kind for text, (_, kind) in zip(texts, answer, strict=True)}
    except Exception:
        if len(texts) == 1:
            raise
    return {text: kind for one in texts for text, kind in _kinds(select, [one], describe).items()}


def _expand_stars(select: exp.Select, describe: Describe) -> None:
    """`* replace` and `* exclude` with the columns that they stand for."""
    items: list[exp.Expr] = []
    changed = False
    for item in select.expressions:
        star = item.this if isinstance(item, exp.Column) and isinstance(item.this, exp.Star) else item
        if not isinstance(star, exp.Star) or not (star.args.get("replace") or star.args.get("except_")):
            items.append(item)
            continue
        changed = True
        table = item.table if isinstance(item, exp.Column) else ""
        replaced = {a.alias.lower(): a for a in star.args.get("replace") or []}
        left_out = {str(c.name).lower() for c in star.args.get("except_") or []}
        for name, _ in describe(_probe(select, [f"{table}.*" if table else "*"])):
            if name.lower() in replaced:
                items.append(replaced[name.lower()])
            elif name.lower() not in left_out:
                items.append(exp.column(exp.to_identifier(name, quoted=True), table=table or None))
    if changed:
        select.set("expressions", items)


def _rewrite(tree: exp.Expr, types: dict[int, str]) -> exp.Expr:
    """Every node by its rule, from the leaves up, so that arguments are Spark's already."""

    def type_of(node: exp.Expr) -> str:
        return types.get(id(node), "")

    def visit(node: exp.Expr) -> exp.Expr:
        kinds = {id(part): type_of(part) for part in _asked(node)}
        asked = [type_of(part) for part in _asked(node)]
        for key, value in list(node.args.items()):
            if isinstance(value, exp.Expr):
                node.set(key, visit(value))
            elif isinstance(value, list):
                node.set(key, [visit(v) if isinstance(v, exp.Expr) else v for v in value])
        return _one(node, asked, bool(kinds))

    return visit(tree)


def _one(node: exp.Expr, kinds: list[str], asked: bool) -> exp.Expr:
    if isinstance(node, exp.Anonymous):
        name = name_of(node)
        if name in WINDOWED or name in FUNCTIONS:
            return FUNCTIONS[name](list(node.expressions), kinds) if name in FUNCTIONS else node
        raise Untranslatable(f"the function {name} is not available there")
    if isinstance(node, (exp.Cast, exp.TryCast)):
        return _cast(node, kinds[0] if asked else "")
    if isinstance(node, exp.Extract):
        return extract(str(node.this.name), node.expression, kinds[0])
    if isinstance(node, exp.Div):
        return _divide(node)
    if isinstance(node, exp.Sub) and asked and "DATE" in kinds[:1] and kinds[1] == "DATE":
        return cast_to(call("datediff", node.this, node.expression), "bigint")
    if isinstance(node, exp.IntDiv) and any(is_float(k) for k in kinds):
        raise Untranslatable("// of numbers with a fraction is not available there; write floor(a / b)")
    if isinstance(node, exp.DPipe) and any(k and k != "VARCHAR" for k in kinds):
        raise Untranslatable("|| joins text only there; cast to varchar first")
    if isinstance(node, (exp.Like, exp.ILike)) and "\\" in str(node.expression.name):
        raise Untranslatable("a pattern of like with a backslash is not available there")
    if isinstance(node, exp.Interval) and not isinstance(node.this, exp.Literal):
        raise Untranslatable("an interval of a column's length is not available there")
    return node


def _divide(node: exp.Div) -> exp.Expr:
    """DOUBLE by DOUBLE: by zero an infinity or NaN, as IEEE 754 has it, where Spark stops."""
    left, right = cast_to(node.this, "double"), cast_to(node.expression, "double")
    plain = exp.Div(this=left, expression=right)
    literal = node.expression
    while isinstance(literal, (exp.Paren, exp.Neg, exp.Cast)):
        literal = literal.this
    if isinstance(literal, exp.Literal) and float(str(literal.this)) != 0.0:
        return exp.Paren(this=plain)
    # Of a zero, with its sign, the infinity; of anything else NULL, which it is where the quotient is NULL too.
    infinite = raw(f"try_cast(replace(cast({right.sql(dialect=Spark)} as string), '0.0', 'Infinity') as double)")
    beyond = exp.Mul(this=exp.Paren(this=left.copy()), expression=infinite)
    return call("coalesce", call("try_divide", left, right), beyond)


def _cast(node: exp.Expr, source: str) -> exp.Expr:
    try_ = isinstance(node, exp.TryCast)
    word = "try_cast" if try_ else "cast"
    target = node.args["to"].sql(dialect="duckdb").upper()
    target = "VARCHAR" if target == "TEXT" else target
    inner = node.this
    wanted = spark_type(target)
    if wanted is None:
        raise Untranslatable(f"a cast to {target.lower()} is not available there")
    if source == NO_VALUES:
        return raw(f"cast(null as {wanted})")  # Spark has whole numbers there, which are no times
    text = source.startswith("VARCHAR")
    if is_whole(target):
        if is_float(source):
            inner = call("rint", inner)
        elif source.startswith("DECIMAL"):
            inner = call("round", inner)
        elif text and try_:
            raise Untranslatable("try_cast of text to whole numbers is not available there; try_cast(... as double)")
    if target == "DOUBLE" and try_ and not isinstance(inner, exp.Literal):
        # Java takes "1d" and "1f" for numbers.
        shown = exp.Cast(this=inner.copy(), to=exp.DataType.build("string", dialect="spark"))
        marked = call("rlike", shown, raw("'[0-9.][dDfF][ ]*$'"))
        inner = exp.Case(
            ifs=[exp.If(this=exp.Not(this=exp.Paren(this=call("coalesce", marked, raw("false")))), true=inner)]
        )
    if target == "VARCHAR":
        if is_float(source):
            inner = _shown(inner)
        elif source == "TIMESTAMP WITH TIME ZONE":
            return call("concat", raw(f"cast({inner.sql(dialect=Spark)} as string)"), raw("'+00'"))
        elif source and not (
            is_whole(source) or source.startswith(("VARCHAR", "DECIMAL", "DATE", "TIMESTAMP", "BOOL"))
        ):
            raise Untranslatable(f"a cast of {source} to varchar is not available there")
    return raw(f"{word}({inner.sql(dialect=Spark)} as {wanted})")


def _shown(x: exp.Expr) -> exp.Expr:
    """A DOUBLE as DuckDB prints it, where Java prints the same or it is whole; elsewhere the query stops."""
    sql = x.sql(dialect=Spark)
    alike = f"{sql} = 0e0 or (abs({sql}) >= 1e-3 and abs({sql}) < 1e7)"
    stop = "raise_error('numbers below 0.001, or above 1e7 with a fraction, are not made text by engine spark')"
    return raw(
        f"(case when isnan({sql}) then 'nan' when abs({sql}) = double('infinity') then if({sql} > 0e0, 'inf', '-inf') "
        f"when {alike} then cast({sql} as string) when abs({sql}) < 1e15 and {sql} = rint({sql}) "
        f"then concat(cast(cast({sql} as bigint) as string), '.0') when {sql} is not null then {stop} end)"
    )
