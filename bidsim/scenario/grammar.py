"""What a user's expression may consist of: the tables that `expressions` checks against, and a parser cut to them.

Everything is an allow-list. The words explain, for the commonest things that are not allowed, why that is so; they
are for messages only and nothing depends on their being complete.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlglot import tokens as sqlglot_tokens
from sqlglot.dialects.duckdb import DuckDB

Arity = tuple[int, int]


def _functions(text: str) -> dict[str, Arity]:
    """`name/2` takes two arguments, `name/1-3` one to three."""
    found: dict[str, Arity] = {}
    for entry in text.split():
        name, _, count = entry.partition("/")
        low, _, high = count.partition("-")
        found[name] = (int(low), int(high or low))
    return found


# By DuckDB's own names. None makes rows, reads anything but its arguments, or returns more text than it was given.
FUNCTIONS: dict[str, Arity] = _functions("""
    abs/1 ceil/1 ceiling/1 floor/1 round/1-2 trunc/1-2 sign/1 sqrt/1 ln/1 log/1-2 log2/1 log10/1 exp/1
    pow/2 power/2 mod/2 greatest/1-50 least/1-50 isnan/1 isinf/1 isfinite/1
    coalesce/1-50 ifnull/2 nullif/2 if/3
    lower/1 upper/1 trim/1-2 ltrim/1-2 rtrim/1-2 length/1 len/1 strlen/1 substr/2-3 substring/2-3 left/2 right/2
    replace/3 split_part/3 starts_with/2 prefix/2 suffix/2 ends_with/2 contains/2 strpos/2 instr/2 concat/1-50
    regexp_matches/2 regexp_full_match/2 list_contains/2
    date_trunc/2 date_part/2 datepart/2 date_diff/3 datediff/3 strptime/2 try_strptime/2 to_timestamp/1
    epoch/1 epoch_ms/1 epoch_us/1 make_timestamp/1-6 make_date/3 timezone/2
    year/1 quarter/1 month/1 week/1 day/1 dayofmonth/1 dayofyear/1 dayofweek/1 weekday/1 isodow/1 isoyear/1 hour/1
    minute/1 second/1
""")

# Arguments that must be text in quotes, by position: a pattern that differs by row costs a compilation each.
LITERAL_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "replace": (1, 2),
    "regexp_matches": (1,),
    "regexp_full_match": (1,),
    "date_trunc": (0,),
    "date_part": (0,),
    "datepart": (0,),
    "date_diff": (0,),
    "datediff": (0,),
    "timezone": (0,),
}

# Type as sqlglot calls it -> as DuckDB does.
TYPES: dict[str, str] = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INT": "integer",
    "BIGINT": "bigint",
    "INT128": "hugeint",
    "UTINYINT": "utinyint",
    "USMALLINT": "usmallint",
    "UINT": "uinteger",
    "UBIGINT": "ubigint",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DECIMAL": "decimal",
    "VARCHAR": "varchar",
    "CHAR": "varchar",
    "TEXT": "varchar",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "DATETIME": "timestamp",
    "TIMESTAMPNTZ": "timestamp",
    "TIMESTAMPTZ": "timestamptz",
}

UNITS = frozenset(
    f"{unit}{plural}"
    for unit in ("microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year")
    for plural in ("", "s")
)
DATE_PARTS = frozenset(
    {unit for unit in UNITS if not unit.endswith("s")} | {"dow", "isodow", "doy", "isoyear", "epoch"}
)
# sqlglot's spelling -> DuckDB's.
PART_NAMES = {"dayofweek": "dow", "dayofweekiso": "isodow", "dayofyear": "doy", "weekiso": "week"}

WHAT_IS_ALLOWED = (
    "allowed are columns, numbers, text, arithmetic, comparisons, and/or/not, in, between, like, case, coalesce, cast "
    "and functions of one row such as abs, greatest, least, ln, exp, lower, substring, date_trunc"
)

_WHY_NOT: dict[str, str] = {
    "works over many rows; an expression sees one row at a time": (
        "sum count avg mean min max first last any_value median mode stddev variance quantile quantile_cont array_agg "
        "list string_agg group_concat listagg bool_and bool_or product arg_max arg_min max_by min_by row_number rank "
        "dense_rank ntile lag lead first_value last_value nth_value approx_count_distinct histogram corr"
    ),
    "depends on the clock, on chance or on the session; the same replay must give the same result": (
        "now today current_date current_time current_timestamp get_current_timestamp transaction_timestamp random "
        "setseed uuid gen_random_uuid uuidv4 uuidv7 nextval currval current_setting getvariable getenv current_user "
        "current_schema current_database version txid_current age"
    ),
    "reads files; an expression sees only the log's columns": (
        "read_csv read_csv_auto read_parquet parquet_scan read_json read_json_auto read_ndjson read_text read_blob "
        "glob sniff_csv iceberg_scan delta_scan parquet_metadata parquet_schema sqlite_scan postgres_scan query "
        "query_table read_xlsx"
    ),
    "can grow beyond all memory": (
        "repeat lpad rpad range generate_series format printf regexp_replace array_resize list_resize bar space "
        "string_split regexp_extract_all"
    ),
    "makes several rows or columns of one": "unnest explode flatten columns row struct_pack map generate_subscripts",
}
WHY_NOT: dict[str, str] = {name: reason for reason, names in _WHY_NOT.items() for name in names.split()}

STATEMENTS = frozenset("""
    alter analyze attach begin call checkpoint comment commit copy create deallocate delete describe detach drop
    execute explain export from grant import insert install load merge pivot pragma prepare refresh reset revoke
    rollback select set show summarize table truncate unpivot update use vacuum values with
""".split())  # fmt: skip  # noqa: SIM905

QUERY_WORDS = frozenset({"select", "union", "intersect"})

PREFIXES = frozenset({"not", "-", "+", "interval", "is", "case"})
BEFORE_BRACKET = frozenset(
    "and or not in like ilike between case when then else is from interval cast try_cast extract".split()  # noqa: SIM905
)
SIZED_TYPES = frozenset({"decimal", "numeric", "dec", "varchar", "char"})

# Signs that no expression needs, in words.
REFUSED_SIGNS: dict[str, str] = {
    "SEMICOLON": '";" is not allowed: one expression is needed, no statements',
    "L_BRACKET": "[ ] is not allowed; for an element of a list or text use substring, split_part or list_contains",
    "R_BRACKET": "[ ] is not allowed; for an element of a list or text use substring, split_part or list_contains",
    "L_BRACE": "{ } is not allowed",
    "R_BRACE": "{ } is not allowed",
    "PLACEHOLDER": '"?" is a parameter, which has no value here',
    "PARAMETER": "a parameter has no value here",
    "COLON": '":" is not allowed',
    "COLON_EQ": '":=" is not allowed; to compare write =',
    "ARROW": '"->" (a lambda or JSON path) is not allowed',
    "DARROW": '"->>" is not allowed',
    "FARROW": '"=>" is not allowed',
    "DSTAR": '"**" is not allowed; write pow(a, b)',
    "CARET": '"^" is not allowed; write pow(a, b)',
    "HASH": '"#" is not allowed',
    "AMP": '"&" is not allowed; write and',
    "PIPE": '"|" is not allowed; write or',
    "TILDE": "\"~\" is not allowed; write regexp_matches(text, 'pattern')",
    "HEREDOC_STRING": "text is written in 'single quotes'",
    "RAW_STRING": "text is written in 'single quotes'",
    "BYTE_STRING": "text is written in 'single quotes'",
    "NATIONAL_STRING": "text is written in 'single quotes'",
    "UNICODE_STRING": "text is written in 'single quotes'",
    "BIT_STRING": "a number is written in decimal digits",
    "HEX_STRING": "a number is written in decimal digits",
}


def _only(table: dict[Any, Any], *keys: Any) -> dict[Any, Any]:
    return {key: table[key] for key in keys if key in table}


_Table = dict[Any, Any]
_Full: Any = DuckDB.Parser
_Token: Any = vars(sqlglot_tokens)["TokenType"]


class RowParser(_Full):  # type: ignore[misc]
    """sqlglot's parser without whatever can't stand in an expression over one row.

    No function has a meaning of its own here: each stays a plain name with arguments, to be looked up in FUNCTIONS
    and written as it was, so sqlglot's renaming can't change what it computes.
    """

    FUNCTIONS: ClassVar[_Table] = {}
    FUNCTION_PARSERS: ClassVar[_Table] = _only(_Full.FUNCTION_PARSERS, "CAST", "TRY_CAST", "EXTRACT")
    NO_PAREN_FUNCTIONS: ClassVar[_Table] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[_Table] = _only(_Full.NO_PAREN_FUNCTION_PARSERS, "CASE")
    STATEMENT_PARSERS: ClassVar[_Table] = {}
    PLACEHOLDER_PARSERS: ClassVar[_Table] = {}
    LAMBDAS: ClassVar[_Table] = {}
    BITWISE: ClassVar[_Table] = {}
    EXPONENT: ClassVar[_Table] = {}
    ASSIGNMENT: ClassVar[_Table] = {}
    FACTOR: ClassVar[_Table] = _only(_Full.FACTOR, _Token.DIV, _Token.MOD, _Token.SLASH, _Token.STAR)
    UNARY_PARSERS: ClassVar[_Table] = _only(_Full.UNARY_PARSERS, _Token.PLUS, _Token.NOT, _Token.DASH)
    RANGE_PARSERS: ClassVar[_Table] = _only(
        _Full.RANGE_PARSERS, _Token.BETWEEN, _Token.ILIKE, _Token.IN, _Token.IS, _Token.LIKE
    )
    EQUALITY: ClassVar[_Table] = _only(_Full.EQUALITY, _Token.EQ, _Token.NEQ)
    PRIMARY_PARSERS: ClassVar[_Table] = _only(
        _Full.PRIMARY_PARSERS,
        _Token.STRING,
        _Token.NUMBER,
        _Token.NULL,
        _Token.TRUE,
        _Token.FALSE,
        _Token.STAR,
    )
