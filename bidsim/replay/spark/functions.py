"""Each function that the replay's SQL and users' expressions may use, as Spark means the same. Checked one by one in
tests/replay/spark; what is in no table here is refused.

A rule takes the arguments, Spark's already, and DuckDB's types of those that are asked for (see `dialect.ASKED`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from bidsim.replay.spark.nodes import INFINITY, Untranslatable, call, cast_to, raw, text
from bidsim.replay.spark.types import is_float, is_whole

Rule = Callable[[list[exp.Expr], list[str]], exp.Expr]


def same(name: str) -> Rule:
    """Means the same, perhaps under another name."""
    return lambda arguments, kinds: call(name, *arguments)


def written(template: str) -> Rule:
    """Spark's text with {0}, {1}, ... for the arguments."""
    return lambda arguments, kinds: raw(f"({template.format(*(text(a) for a in arguments))})")


def _literal(node: exp.Expr, what: str) -> str:
    inner = node
    sign = ""
    while isinstance(inner, (exp.Paren, exp.Neg)):
        sign = "-" if isinstance(inner, exp.Neg) else sign
        inner = inner.this
    if isinstance(inner, exp.Literal):
        return sign + str(inner.this)
    raise Untranslatable(f"{what} must be written out there")


def _positive(node: exp.Expr, what: str, least: int = 1) -> None:
    value = _literal(node, what)
    if not value.lstrip("-").isdigit() or int(value) < least:
        raise Untranslatable(f"{what} must be at least {least} there")


def _sum(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    kind = kinds[0] if kinds else "INTEGER"
    if is_whole(kind):
        return call("sum", cast_to(arguments[0], "decimal(38,0)"))
    return call("sum", arguments[0])


def _to_whole(name: str) -> Rule:
    """floor and ceil: DOUBLE stays DOUBLE; beyond 9e15 every DOUBLE is whole."""

    def rule(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
        x = text(arguments[0])
        if not kinds or kinds[0].startswith("DECIMAL"):
            return call(name, arguments[0])
        if not is_float(kinds[0]):
            return cast_to(arguments[0], "double")
        return raw(f"(case when abs({x}) < 9e15 then cast({name}({x}) as double) else {x} end)")

    return rule


def _trunc(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if len(arguments) > 1:
        raise Untranslatable("trunc with digits is not available there")
    x = text(arguments[0])
    if not is_float(kinds[0]):
        return arguments[0] if is_whole(kinds[0]) else _refuse("trunc of this type is not available there")
    return raw(f"(case when abs({x}) < 9e15 then cast(cast({x} as bigint) as double) else {x} end)")


def _round(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if len(arguments) > 1:
        raise Untranslatable("round with digits is not available there; write round(x * 100) / 100")
    if is_float(kinds[0]) or is_whole(kinds[0]):
        return call("round", arguments[0])
    return _refuse("round of this type is not available there")


def _refuse(message: str) -> exp.Expr:
    raise Untranslatable(message)


def _log(name: str) -> Rule:
    def rule(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
        if len(arguments) > 1:
            raise Untranslatable("log with a base is not available there; write ln(x) / ln(base)")
        x = f"cast({text(arguments[0])} as double)"
        return raw(
            f"(case when {x} > 0e0 then {name}({x}) when {x} = 0e0 then -{INFINITY} when {x} < 0e0 then double('nan') end)"
        )

    return rule


def _log2(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    """Java's quotient of two logarithms misses powers of two by a hair, and cells of a grid begin there."""
    x = f"cast({text(arguments[0])} as double)"
    plain = text(_log("log2")(arguments, kinds))
    return raw(f"(case when power(2e0, rint(log2({x}))) = {x} then rint(log2({x})) else {plain} end)")


def _at_least_two(name: str) -> Rule:
    return lambda arguments, kinds: call(name, *arguments) if len(arguments) > 1 else exp.Paren(this=arguments[0])


def _length(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if kinds and kinds[0] != "VARCHAR":
        raise Untranslatable("length is of text only there")
    return cast_to(call("char_length", arguments[0]), "bigint")


def _concat(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if any(k != "VARCHAR" and not is_whole(k) for k in kinds):
        raise Untranslatable("concat joins text and whole numbers only there; cast to varchar first")
    return call("concat", *(raw(f"coalesce(cast({text(a)} as string), '')") for a in arguments))


def _substring(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    _positive(arguments[1], "the first character of substring")
    if len(arguments) > 2:
        _positive(arguments[2], "the length of substring", 0)
    return call("substring", *arguments)


def _side(name: str) -> Rule:
    def rule(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
        _positive(arguments[1], f"the length of {name}", 0)
        return call(name, *arguments)

    return rule


def _split_part(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    _positive(arguments[2], "the part of split_part")
    if not _literal(arguments[1], "the separator of split_part"):
        raise Untranslatable("split_part needs a separator there")
    return call("split_part", *arguments)


def _replace(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if not _literal(arguments[1], "what replace looks for"):
        return arguments[0]
    return call("replace", *arguments)


def _trim(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if len(arguments) > 1:
        raise Untranslatable("trim with characters is not available there")
    return call("trim", arguments[0])


def _one_side(name: str) -> Rule:
    return lambda arguments, kinds: (
        call(name, arguments[0]) if len(arguments) == 1 else _refuse(f"{name} with characters is not available there")
    )


def _contains(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if kinds and kinds[0] != "VARCHAR":
        raise Untranslatable("contains is of text only there; for lists write list_contains")
    return call("contains", *arguments)


def _list_contains(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    items, wanted = (text(a) for a in arguments)
    return raw(
        f"(case when {items} is not null and {wanted} is not null then coalesce(array_contains({items}, {wanted}), false) end)"
    )


def _zoned(kind: str) -> bool:
    return kind == "TIMESTAMP WITH TIME ZONE"


def _is_time(kind: str) -> bool:
    return kind == "DATE" or kind.startswith("TIMESTAMP")


def _date_trunc(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    found = f"date_trunc({text(arguments[0])}, {text(arguments[1])})"
    return raw(found if _zoned(kinds[-1]) else f"cast({found} as timestamp_ntz)")


def _timezone(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    """An instant as wall clock, or a wall clock as instant."""
    zone, x = (text(a) for a in arguments)
    if _zoned(kinds[-1]):
        return raw(f"convert_timezone('UTC', {zone}, cast({x} as timestamp_ntz))")
    return raw(f"cast(convert_timezone({zone}, 'UTC', cast({x} as timestamp_ntz)) as timestamp)")


def _micros(x: exp.Expr) -> str:
    return f"unix_micros(cast({text(x)} as timestamp))"


def _epoch(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    return raw(f"(cast({_micros(arguments[0])} as double) / 1e6)")


def _epoch_us(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if not _is_time(kinds[0]):
        raise Untranslatable("epoch_us of a number is not available there; write to_timestamp(x / 1e6)")
    return raw(_micros(arguments[0]))


def _epoch_ms(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if _is_time(kinds[0]):
        return raw(f"(({_micros(arguments[0])}) div 1000)")
    return raw(f"cast(timestamp_millis({text(arguments[0])}) as timestamp_ntz)")


def _to_timestamp(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    return call("timestamp_seconds", arguments[0])


FORMATS = {"%Y": "yyyy", "%m": "MM", "%d": "dd", "%H": "HH", "%M": "mm", "%S": "ss", "%y": "yy"}


def _pattern(given: str) -> str:
    """strftime's format as Java's, for the parts that both know."""
    out, i = "", 0
    while i < len(given):
        if given[i] == "%":
            part = FORMATS.get(given[i : i + 2])
            if part is None:
                raise Untranslatable(f'the time format "{given}" is not available there')
            out += part
            i += 2
        else:
            out += f"'{given[i]}'" if given[i].isalpha() else given[i]
            i += 1
    if "'" in out.replace("'T'", ""):
        raise Untranslatable(f'the time format "{given}" is not available there')
    return out


def _strftime(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    pattern = _pattern(_literal(arguments[1], "the time format")).replace("'", "\\'")
    return raw(f"date_format({text(arguments[0])}, '{pattern}')")


def _strptime(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    pattern = _pattern(_literal(arguments[1], "the time format")).replace("'", "\\'")
    return raw(f"to_timestamp_ntz({text(arguments[0])}, '{pattern}')")


PARTS = {
    "year": "year({0})",
    "quarter": "quarter({0})",
    "month": "month({0})",
    "week": "weekofyear({0})",
    "day": "day({0})",
    "doy": "dayofyear({0})",
    "dow": "(dayofweek({0}) - 1)",
    "isodow": "(weekday({0}) + 1)",
    "isoyear": "extract(yearofweek from {0})",
    "hour": "hour({0})",
    "minute": "minute({0})",
    "second": "second({0})",
}


def extract(part: str, x: exp.Expr, kind: str) -> exp.Expr:
    part = {"dayofweekiso": "isodow", "dayofweek": "dow", "dayofyear": "doy", "weekiso": "week"}.get(
        part.lower(), part.lower()
    )
    if part == "epoch":
        return _epoch([x], [kind])
    if part not in PARTS:
        raise Untranslatable(f"the part {part} of a time is not available there")
    return raw(f"cast({PARTS[part].format(text(x))} as bigint)")


def _part(part: str) -> Rule:
    return lambda arguments, kinds: extract(part, arguments[0], kinds[0] if kinds else "TIMESTAMP")


def _date_part(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    return extract(_literal(arguments[0], "the part of a time"), arguments[1], kinds[-1])


def _date_diff(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if _literal(arguments[0], "the unit of date_diff").lower() != "day":
        raise Untranslatable("date_diff counts days only there; for others subtract epoch(...)")
    return raw(f"cast(datediff(cast({text(arguments[2])} as date), cast({text(arguments[1])} as date)) as bigint)")


def _make_timestamp(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    if len(arguments) == 1:
        return raw(f"cast(timestamp_micros({text(arguments[0])}) as timestamp_ntz)")
    return call("make_timestamp_ntz", *arguments)


def _quantiles(arguments: list[exp.Expr], kinds: list[str]) -> exp.Expr:
    return call("percentile", *arguments)


AGGREGATES = frozenset(
    "sum count min max avg count_if bool_or bool_and arg_min approx_count_distinct quantile_cont any_value".split()  # noqa: SIM905
)
WINDOWED = frozenset({"row_number", "range"})

FUNCTIONS: dict[str, Rule] = {
    # aggregates
    "sum": _sum,
    **{name: same(name) for name in ("count", "min", "max", "avg", "count_if", "bool_or", "bool_and", "any_value")},
    "arg_min": same("min_by"),
    "approx_count_distinct": written("approx_count_distinct({0}, 0.01)"),
    "quantile_cont": _quantiles,
    "row_number": lambda arguments, kinds: exp.RowNumber(),
    "range": lambda arguments, kinds: exp.Anonymous(this="range", expressions=arguments),
    # numbers
    **{name: same(name) for name in ("abs", "sqrt", "exp", "nullif", "ifnull", "coalesce")},
    "floor": _to_whole("floor"),
    "ceil": _to_whole("ceil"),
    "ceiling": _to_whole("ceil"),
    "trunc": _trunc,
    "round": _round,
    "sign": written(
        "case when isnan(cast({0} as double)) then 0 when {0} > 0 then 1 when {0} < 0 then -1 when {0} = 0 then 0 end"
    ),
    "ln": _log("ln"),
    "log": _log("log10"),
    "log10": _log("log10"),
    "log2": _log2,
    "pow": written("power({0}, {1})"),
    "power": written("power({0}, {1})"),
    "greatest": _at_least_two("greatest"),
    "least": _at_least_two("least"),
    # x * 0 is 0 for every finite x, and NaN for NaN and the infinities.
    "isfinite": written("cast({0} as double) * 0e0 = 0e0"),
    "isnan": written("cast({0} as double) = double('nan')"),
    "isinf": written("abs(cast({0} as double)) = double('infinity')"),
    # text
    **{name: same(name) for name in ("lower", "upper", "left", "right")},
    "left": _side("left"),
    "right": _side("right"),
    "trim": _trim,
    "ltrim": _one_side("ltrim"),
    "rtrim": _one_side("rtrim"),
    "length": _length,
    "len": _length,
    "strlen": written("cast(octet_length({0}) as bigint)"),
    "substr": _substring,
    "substring": _substring,
    "replace": _replace,
    "split_part": _split_part,
    **{name: same("startswith") for name in ("starts_with", "prefix")},
    **{name: same("endswith") for name in ("ends_with", "suffix")},
    "contains": _contains,
    "strpos": written("cast(instr({0}, {1}) as bigint)"),
    "instr": written("cast(instr({0}, {1}) as bigint)"),
    "concat": _concat,
    "list_contains": _list_contains,
    # times
    "date_trunc": _date_trunc,
    "date_part": _date_part,
    "datepart": _date_part,
    "date_diff": _date_diff,
    "datediff": _date_diff,
    "strftime": _strftime,
    "strptime": _strptime,
    "to_timestamp": _to_timestamp,
    "epoch": _epoch,
    "epoch_ms": _epoch_ms,
    "epoch_us": _epoch_us,
    "make_timestamp": _make_timestamp,
    "make_date": same("make_date"),
    "timezone": _timezone,
    **{
        name: _part(name)
        for name in ("year", "quarter", "month", "week", "day", "isodow", "isoyear", "hour", "minute", "second")
    },
    "dayofmonth": _part("day"),
    "dayofyear": _part("doy"),
    "dayofweek": _part("dow"),
    "weekday": _part("dow"),
}


def unused(names: Sequence[str]) -> list[str]:
    """Functions that users may write and that have no rule here."""
    return [n for n in names if n not in FUNCTIONS and n not in ("if", "mod")]
