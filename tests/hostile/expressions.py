"""Expressions that try to be more than one value of one row: queries, files, settings, statements, bombs, tricks of quoting.

They stand wherever a scenario takes SQL. One that passes is run over a small log, so it must be cheap and read nothing.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hostile.trial import QUIETLY, Trial

# Places of an expression, by the kind of value that stands there without the hostility.
PLACES: list[tuple[str | int, ...]] = [
    ("conditions", 0), ("bid", "formula"), ("segments", 0, "s"), ("segments", 0), ("columns", "price"), ("columns", "time"), ("columns", "unit"), ("columns", "campaign"),
    ("columns", "weight"), ("columns", "click"), ("columns", "floor"), ("columns", "won"), ("columns", "exchange"), ("columns", "loss_reason"), ("columns", "conversion_time"), ("columns", "pctr"), ("columns", "target_cpa"),
    ("auction", "type"), ("budget", "amount"), ("budget", "per"), ("intervals", "unit"), ("candidates", "v2", "columns", "pctr"), ("candidates", "v2", "bid", "formula"),
]  # fmt: skip
COLUMNS = ["age", "pctr", "paying_price", "spot_id", "ts", "click", "ad_id", "user_id", "target_cpa", "request_id"]
FILES = ["read_csv('canary.csv')", "read_csv_auto('canary.csv')", "read_text('canary.csv')", "read_blob('canary.csv')", "parquet_scan('log.parquet')", "read_parquet('log.parquet')", "glob('*')",
         "sniff_csv('canary.csv')", "read_json('canary.csv')", "getenv('HOME')", "current_setting('home_directory')", "duckdb_settings()", "duckdb_secrets()", "pragma_version()", "which_secret('x', 's3')",
         "query('select 1')", "query_table('s')", "read_ndjson_objects('canary.csv')", "parquet_metadata('log.parquet')", "file_exists('canary.csv')", "sqlite_scan('x', 'y')", "http_get('http://127.0.0.1:9')",
         "getvariable('x')", "txid_current()", "pg_sleep(10)", "sleep(10)", "sleep_ms(10000)", "error('x')", "write_log('x')", "parse_path('canary.csv')", "system.main.read_text('canary.csv')", "main.abs(1)",
         "'canary.csv'::varchar", "load_aws_credentials()", "enable_logging()", "checkpoint()", "force_checkpoint()", "add_parquet_key('k', 'v')", "nextval('s')", "in_search_path('a', 'b')", "pg_get_expr('a', 1)", "json_execute_serialized_sql('x')", "from_substrait('x')", "read_duckdb('x')"]  # fmt: skip
STATEMENTS = ["copy s to 'out.csv'", "copy (select 1) to 'out.parquet'", "attach 'x.db' as y", "pragma database_list", "set memory_limit='100GB'", "reset all", "install httpfs", "load httpfs", "load 'x.so'", "drop view s",
              "create macro f() as 1", "create table t as select 1", "insert into s values (1)", "export database 'out'", "call pragma_version()", "use x", "checkpoint", "begin", "detach x", "delete from s", "vacuum", "from 'canary.csv'",
              "select * from 'canary.csv'", "table s", "values (1)", "describe s", "explain select 1", "prepare a as select 1", "execute a", "merge into s using t on true", "pivot s on x", "update extensions", "force install x", "comment on table s is 'x'"]  # fmt: skip
QUERIES = ["(select 1)", "(select secret from 'canary.csv' limit 1)", "(select max(age) from s)", "exists(select 1)", "age in (select 1)", "(from 'canary.csv' select secret)", "(with x as (select 1) select * from x)", "(table s)", "(values (1))",
           "age = any(select 1)", "age > all (values (1))", "array(select 1)", "(select 1 union all select 2)", "(describe s)", "(show tables)", "(pivot s on x)", "unnest([1,2])", "(summarize s)", "lateral (select 1)", "age in (from s)"]  # fmt: skip
BOMBS = ["repeat('x', 1000000000)", "range(1000000000000)", "generate_series(1, 1000000000000)", "lpad('x', 1000000000, 'y')", "regexp_matches(spot_id, '(a*)*b')", "regexp_matches(request_id, '(.*)(.*)(.*)(.*)(.*)x')", "regexp_matches(spot_id, '(a{1000}){1000}')",
         "regexp_matches(spot_id, '((((a{30}){30}){30}){30})')", "regexp_full_match(spot_id, '(x+x+)+y')", "regexp_matches(spot_id, '\\p{L}{1000}')", "pow(1e308, 1e308)", "pow(10, 308) * pow(10, 308)", "exp(1e9)", "1e308 * 1e308", "factorial(1000)", "9223372036854775807 + 1", "age * 9223372036854775807", "cast(1e308 as bigint)",
         "cast(1e300 as decimal(38, 0))", "cast('1e400' as double)", "interval '999999999 years' + ts", "ts + interval 999999999 year", "make_timestamp(999999, 1, 1, 1, 1, 1)", "make_timestamp(9223372036854775807)", "make_date(300000, 1, 1)", "to_timestamp(1e300)", "epoch_ms(9223372036854775807)", "date_trunc('year', timestamp '0001-01-01')", "strptime('x', '%Y')", "try_strptime(spot_id, '%')", "strptime(spot_id, spot_id)",
         "ts - timestamp '9999-12-31'", "date_diff('microsecond', timestamp '0001-01-01', timestamp '9999-12-31')", "substring(spot_id, -9223372036854775808, 9223372036854775807)", "left(spot_id, -9223372036854775808)", "right(spot_id, 9223372036854775807)", "split_part(spot_id, '', 9223372036854775807)", "round(paying_price, 1000000)", "round(paying_price, -2147483648)", "sqrt(-1)", "ln(0)", "ln(-1)", "log(0, 0)", "0 / 0", "1 // 0", "age % 0",
         "abs(-9223372036854775808)", "-(-9223372036854775808)", "cast('-9223372036854775808' as bigint) // -1", "cast(-128 as tinyint) // -1", "abs(cast(-128 as tinyint))", "concat(spot_id, spot_id, spot_id, spot_id)", "timezone('Mars/X', ts)", "timezone('', ts)", "date_part('century', ts)", "greatest(" + ", ".join(["age"] * 50) + ")", "replace(spot_id, 't', 'u')", "sign(0/0)", "trunc(1e308)", "isnan(ln(-1))",
         "list_contains(spot_id, 't')", "list_contains(null, 1)", "len(null)", "length(age)", "upper(age)", "age || age", "cast(spot_id as timestamptz)", "cast(age as time)", "cast(ts as integer)", "cast(true as timestamp)", "coalesce(age, spot_id)", "case when true then age else spot_id end", "age in ('a', 1, true)", "age between 'a' and 1", "nullif(age, 'x')", "greatest(age, spot_id)", "if(1, 2, 'x')", "not age", "-spot_id", "spot_id + 1", "true + true", "ts + ts", "null", "null::varchar", "'NaN'::double", "'inf'::double", "'-inf'::double", "-0.0", "1e-320"]  # fmt: skip
TRICKS = [
    "--", "/*", "*/", "/**/", "#", ";", ";;", "'", '"', "''", '""', "$$", "$x$", "\\", "\x00", "\n", "\t", "\u2028", "\u202e", "\u200b", "\ufeff",
    "\u00a0", "\uff07", "\u02bc", "\u037e", "\uff1b", "E'\\x27'", "U&'\\0027'", "x'27'", "b'1'", "::", ":", "?", "$1", "@", "@@version", "`", "{",
    "}", "[", "]", "->", "->>", "=>", ":=", "**", "^", "~", "&", "|", "!", "<<", ">>", "||", "..", ".*", "*", "%(x)s", "{{x}}", "${x}",
]  # fmt: skip
WORDS = [
    "over ()", "over (partition by age)", "filter (where true)", "within group (order by 1)", "order by 1", "limit 1", "group by all", "as x",
    "from s", "from 'canary.csv'", "union select 1", "collate nocase", "at time zone 'UTC'", "is json", "similar to 'x'", "escape 'x'",
    "tablesample 1%", "ignore nulls", "distinct", "asof join s on true", "positional join s", "qualify true", "window w as ()", "using sample 1",
    "format json", "returning *", "default", "rowid", "current_user", "current_catalog", "localtime", "excluded.x", "new.x", "isnull", "notnull",
    "glob '*'", "overlaps (1,2)", "-> x", "for update",
]  # fmt: skip
TYPES = [
    "bit", "blob", "json", "uuid", "hugeint", "uhugeint", "varint", "bignum", "enum('a')", "struct(a int)", "map(int, int)", "int[]", "int[3]",
    "union(a int)", "decimal(39, 0)", "decimal(38, 38)", "decimal(0)", "interval", "timestamp_ns", "timetz", "regclass", "geometry", "variant",
    "null", "any", "xml", "varchar(1000000000)", "float(10)", "text collate x", '"int"', "main.x", "time", "date", "timestamptz", "utinyint",
    "boolean",
]  # fmt: skip


def value(draw: random.Random, depth: int = 0) -> str:
    """Mostly a legal expression with something illegal somewhere in it."""
    kind = draw.random()
    if depth > 4 or kind < 0.2:
        return draw.choice(COLUMNS)
    if kind < 0.3:
        return draw.choice(
            [
                "1",
                "0.5",
                "'a'",
                "null",
                "true",
                "1e3",
                "-1",
                "date '2026-01-01'",
                "interval '1 hour'",
                '"age"',
                '"AGE"',
                "s.age",
                '"s"."age"',
                "main.s.age",
                "'%'",
                "''''",
            ]
        )
    if kind < 0.5:
        return f"{value(draw, depth + 1)} {draw.choice(['+', '-', '*', '/', '//', '%', '=', '<>', '<', 'and', 'or', '||', 'is distinct from', 'like', 'in', ','])} {value(draw, depth + 1)}"
    if kind < 0.65:
        name = draw.choice(
            [
                "abs",
                "coalesce",
                "lower",
                "if",
                "greatest",
                "concat",
                "cast",
                "round",
                "pow",
                "regexp_matches",
                "substring",
                "epoch",
                "date_trunc",
                "strptime",
                "sum",
                "list_transform",
                "hash",
                "list_value",
                "array_agg",
                "row_number",
                "apply",
            ]
        )
        return f"{name}({', '.join(value(draw, depth + 1) for _ in range(draw.randrange(4)))})"
    if kind < 0.7:
        return f"cast({value(draw, depth + 1)} as {draw.choice(TYPES)})"
    if kind < 0.75:
        return f"case when {value(draw, depth + 1)} then {value(draw, depth + 1)} end"
    if kind < 0.8:
        return f"({value(draw, depth + 1)})"
    if kind < 0.92:
        return draw.choice(draw.choice([FILES, QUERIES, BOMBS, BOMBS, STATEMENTS]))
    return f"{value(draw, depth + 1)} {draw.choice(WORDS)}"


def tricked(draw: random.Random) -> str:
    text = value(draw)
    for _ in range(draw.choice([0, 0, 1, 2, 4])):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(TRICKS) + text[at:]
    if draw.random() < 0.1:
        text += draw.choice([";", "; ", " ;\n", ")", "--", "/*", "\x00"]) + draw.choice(STATEMENTS)
    return text


def pile(draw: random.Random) -> str:
    """Deep or long beyond reason."""
    count = draw.choice([39, 41, 300, 2_000, 9_000])
    opening, closing = draw.choice(
        [
            ("(", ")"),
            ("abs(", ")"),
            ("-", ""),
            ("not ", ""),
            ("case when true then ", " end"),
            ("coalesce(age, ", ")"),
            ("if(true, ", ", 1)"),
            ("cast(", " as double)"),
            ("age + ", ""),
            ("age, ", ""),
            ("'a' || ", ""),
            ("(((select ", ")))"),
            ("age::int", ""),
            ("age.", ""),
            ("1 = ", ""),
            ("age in (", ")"),
            ("between 1 and ", ""),
        ]
    )
    inner = draw.choice(["age", "1", "9" * 5000, "'" + "x" * 9000 + "'", "1." + "0" * 5000, '"' + "c" * 9000 + '"', ""])
    return opening * count + inner + closing * count


def expression(draw: random.Random, folder: Path) -> Trial:
    return _trial(draw, folder, tricked(draw))


def bomb(draw: random.Random, folder: Path) -> Trial:
    return _trial(draw, folder, pile(draw) if draw.random() < 0.4 else draw.choice(BOMBS))


def _trial(draw: random.Random, folder: Path, text: str) -> Trial:
    document: dict[str, Any] = {
        "logs_tables": {"ad": {"path": "log.parquet"}},
        "columns": {"time": "ts", "unit": "user_id", "campaign": "ad_id", "price": "paying_price"},
        "candidates": {"v2": {"columns": {"pctr": "pctr_v2"}}},
        "bid": {"formula": "1000 * target_cpa * pctr * pcvr"},
        "fidelity": "warn",
    }
    place = draw.choice(PLACES)
    if place[0] == "budget":
        document["budget"] = {"amount": 100}
    if place[0] == "candidates" and place[2] == "bid":
        document["candidates"]["v2"] = {"bid": {}}
    node: Any = document
    for key, following in zip(place, [*place[1:], None], strict=True):
        if isinstance(key, int):
            node.append(None)
        if following is None:
            node[key] = text
        else:
            if isinstance(node, list):
                node[key] = {}
            elif key not in node:
                node[key] = [] if isinstance(following, int) else {}
            node = node[key]
    path = folder / "s.yaml"
    path.write_text(json.dumps(document, ensure_ascii=True), encoding="utf-8")
    about = ("s.yaml", "log.parquet", "an expression of the scenario")
    return Trial(QUIETLY, about=about, note=f"{'.'.join(map(str, place))}: {text[:120]!r}")


CLASSES = {"expressions": expression, "expressions: bombs": bomb}
