# ruff: noqa: E501
"""Spec section 2: formulas and conditions are single scalar SQL expressions; anything else is an error, with its line.

What is allowed computes on DuckDB what the user's own text computes there.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import duckdb
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from bidsim.errors import BidsimError, ScenarioError
from bidsim.scenario.expressions import Compiled, compile_expression, quote_identifier

COLUMNS = {
    "price": "5.0::double", "bid": "3::bigint", "small": "2000000000::integer", "nothing": "null::double",
    "ts": "timestamp '2026-01-02 03:04:05'", "day": "date '2026-01-02'", "user_id": "'u1'", "tags": "['a', 'b']",
    "geo": "{'country': 'JP', 'n': {'x': 1}}", "won": "true", "Mixed Case": "7", 'q"uote': "8", "limit": "9",
}  # fmt: skip
NAMES = {name: f"s.{quote_identifier(name)}" for name in COLUMNS}


@pytest.fixture(scope="module")
def log() -> Any:
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    columns = ", ".join(f"{sql} as {quote_identifier(name)}" for name, sql in COLUMNS.items())
    connection.execute(f"create table s as select {columns}")
    yield connection
    connection.close()


def where(message: str) -> ScenarioError:
    return ScenarioError(message, file="scenario.yaml", line=7)


def compiled(text: str) -> Compiled:
    return compile_expression(text, NAMES, where=where)


def refused(text: str) -> str:
    started = time.process_time()
    with pytest.raises(ScenarioError) as caught:
        compiled(text)
    assert time.process_time() - started < 2
    assert str(caught.value).startswith("scenario.yaml:7: ")
    return caught.value.message


def value(log: Any, sql: str) -> Any:
    return log.execute(f"select {sql} from s").fetchone()[0]


ALLOWED = """
1 + 2 * 3 | (1 + 2) * 3 | 2 - 3 - 4 | 2 - (3 - 4) | 8 / 4 / 2 | 8 / (4 / 2) | 7 % 5 % 3 | 9 // 2 | - -bid | -(bid + 1)
price > 3 and bid = 3 or not won | not bid = 2 | not won and won | not (won and won) | bid is null = won | 1 - -1
price between 1 and 6 and won | bid in (1, 2, 3) | bid not in (1, 2) | bid is not null | nothing is null
bid is distinct from 3 | nothing is not distinct from null | user_id like 'u%' | user_id not like 'u%'
user_id ilike 'U_' | case when bid = 3 then 'a' else 'b' end | case bid when 3 then 'x' end | if(bid = 3, 1, 2)
coalesce(nothing, bid, 1) | ifnull(nothing, 1) | nullif(bid, 3) | cast(bid as double) | cast(bid as decimal(10, 2))
bid::varchar | try_cast(user_id as int) | bid::bool | cast(ts as date) | ts::time | bid::double / 2 | user_id::text || 'a'
ts + interval 1 hour | ts - interval '2 days' | ts + interval '1' month | ts + interval (bid) minute | day + 1 | ts - ts
abs(-bid) + ceil(price) + floor(price) | round(price, 1) | trunc(price) | sqrt(price) | ln(price) | log(2, price)
log2(price) | log10(price) | exp(1) | pow(price, 2) | greatest(price, bid, nothing) | least(price, bid) | sign(-3)
lower('A') || upper('b') | trim(' a ') | ltrim('xa', 'x') | length(user_id) | len(tags) | substr(user_id, 1, 1)
substring(user_id, 2) | left(user_id, 1) | right(user_id, 1) | replace(user_id, 'u', 'v') | split_part('a-b', '-', 2)
starts_with(user_id, 'u') | contains(user_id, '1') | concat(user_id, 'x', bid) | strpos(user_id, '1') | user_id || null
date_trunc('hour', ts) | date_part('hour', ts) | extract(hour from ts) | extract(dow from ts) | extract(isodow from ts)
year(ts) | month(ts) | day(ts) | hour(ts) | minute(ts) | weekday(ts) | isodow(ts) | dayofweek(ts) | quarter(ts)
date_diff('day', day, ts) | strptime('2026-01-01', '%Y-%m-%d') | epoch(ts) | epoch_ms(ts) | epoch_ms(1000)
make_timestamp(2026, 1, 1, 1, 1, 1) | timestamp '2026-01-01 00:00:00' | date '2026-01-01' | ts >= '2026-01-01'
regexp_matches(user_id, '^u') | list_contains(tags, 'a') | geo.country = 'JP' | geo.n.x + 1 | PRICE * 2
"price" | "Mixed Case" + 1 | "mixed case" | "q""uote" | "limit" + 1 | 'it''s' | 'a;b -- /* */' | '"' | true | null | ''
9223372036854775807 | 1_000 | 1e3 | 1 < 2 is not null | (bid = 3) = won | bid <> 2 | bid != 2 | bid == 3 | won is true
""".replace("\n", "|").split("|")


@pytest.mark.parametrize("text", [text.strip() for text in ALLOWED if text.strip()])
def test_an_allowed_expression_means_what_duckdb_says(log: Any, text: str) -> None:
    sql = compiled(text).sql
    assert value(log, sql) == value(log, f"({text})")
    assert_one_scalar(sql)


def assert_one_scalar(sql: str) -> None:
    trees = sqlglot.parse(f"select ({sql}) from t", dialect="duckdb")
    assert len(trees) == 1
    assert isinstance(trees[0], exp.Select)
    assert len(trees[0].expressions) == 1
    assert len(list(trees[0].find_all(exp.Select))) == 1
    assert not trees[0].find(exp.Star, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter)


HOSTILE = {
    "a query": ["select 1", "(select 1)", "exists(select 1)", "bid in (select 1)", "bid > all (select 1)",
                "price union select 1", "price intersect select 1", "(with x as (select 1) select 1)", "(values (1))", "bid in (values (1))"],
    "statement": ["attach 'x'", "attach 'x' as y", "copy s to 'x'", "pragma version", "with x as (select 1) select 1", "drop table s", "create table x as select 1",
                  "insert into s values (1)", "set x = 1", "install httpfs", "load httpfs", "load 'x'", "call pragma_version()",
                  "explain select 1", "export database 'x'", "describe s", "from s", "delete from s", "update s set a = 1"],
    "one expression is needed": ["price; drop table s", "price;", ";", "price;;select 1", "1;1"],
    "reads files": ["read_csv('x')", "read_text('/etc/passwd')", "read_parquet('x')", "glob('*')", '"read_text"(\'/etc/passwd\')',
                    "READ_BLOB('x')", "coalesce(read_text('x'), 1)", "case when true then glob('*') end"],
    "many rows": ["sum(price)", "count(*)", "max(price)", "avg(price) filter (where true)", "row_number() over ()",
                  "lag(price) over (order by bid)", "string_agg(user_id)", "first(price)", "list(price)"],
    "the clock": ["now()", "random()", "uuid()", "today()", "current_setting('x')", "getvariable('x')", "getenv('HOME')", "nextval('x')"],
    "beyond all memory": ["repeat('a', 1000000000)", "range(1000000000)", "generate_series(1, 1000000000)", "lpad('a', 1000000000, 'b')",
                          "printf('%1000000000d', 1)", "format('{:1000000000}', 1)", "string_split('a', '')", "regexp_replace('a', 'a', 'b')"],
    "longer text": ["replace(user_id, 'u', 'uu')", "replace(user_id, '', 'uu')"],
    "several rows": ["unnest(tags)", "columns(*)", "columns('p.*')", "row(bid)"],
    "comments": ["price -- x", "price /* x */ + 1", "/* */ price", "price /* ; drop */", "price -- '\n + 1"],
    "lambda": ["x -> x + 1", "geo -> 'country'"],
    "parameter": ["?", "$1", "$x"],
    "is not allowed": ["[1, 2]", "tags[1]", "{'a': 1}", ":x", "a := 1", "bid & 1", "bid | 1", "price ** 2", "price ^ 2", "user_id ~ 'u'",
                       "hash(user_id)", "error('x')", "abs(1) filter (where true)", "query('select 1')", "bid << 1",
                       "map {'a': 1}", "bid[1:2]", "xor(1, 2)"],
    "invisible": ["\x00", "price\x00", "\u202eprice", "pri\u200bce", "\ufeffprice"],
    "typographic quotes": ["\u201cprice\u201d", "\u2018a\u2019 = user_id"],
    "one value is needed": ["(bid, price)", "()"],
    "operator is missing": ["price bid", "price at"],
    "as stands only in cast": ["price as x", "price as"],
    "write not": ["!won"],
    "name a column": ["*", "s.*", "geo.*"],
    "only a column has fields": ["system.main.abs(1)", "user_id.lower()"],
    "casts to": ["cast(bid as json)", "bid::blob", "cast(bid as interval)", "bid::uuid"],
    "can't be chained": ["1 < bid < 5", "bid = 3 = won"],
    "write is null": ["price = null", "null <> bid", "won and price > NULL", "case when bid == null then 1 else 2 end"],
    "a list of values": ["bid in ()", "bid in tags"],
    "unknown column": ["prcie", "nosuch.price", "current_date", "current_timestamp", "rowid", "default"],
    "pattern as text": ["user_id like user_id", "user_id like ('%' || user_id)"],
    "at most 10 %": ["user_id like '" + "%a" * 11 + "'"],
    "in 'quotes'": ["regexp_matches(user_id, user_id)", "date_trunc(user_id, ts)", ],
    "takes 1 argument": ["abs()", "abs(1, 2)"],
    "part of a time": ["date_trunc('fortnight', ts)", "extract(planet from ts)", "date_diff('dya', ts, ts)"],
    "is too large": ["1e400"],
    "put spaces": ["1e3-1"],
    "single quotes": ["$$abc$$", "E'a\\n'"],
    "is empty": ["", " \n "],
    "is not an SQL expression": ["price +", "price where true", "price order by 1", "price limit 1", "'abc", '"abc', "price from s", ")", "(",
                                 "price \u2212 1", "case when", "x'ff'", "b'0'", "1 'a'", "\\"],
}  # fmt: skip


@pytest.mark.parametrize(("said", "text"), [(said, text) for said, texts in HOSTILE.items() for text in texts])
def test_anything_else_is_refused_in_words_that_fit(said: str, text: str) -> None:
    assert said in refused(text)


PILES = ["(", "-(", "not ", "- ", "+ -", "case ", "case when ", "abs(", "cast(", "decimal(", "struct(", "interval ", "a in (", "[", "{", "a.", "a::",
         "a<", "a between ", "a like ", "not(", "if(", "date(", "exists(", "select ", "(select ", "'", "\"", "/*", "$$", "1", "a,", "x -> ", "a is ",
         "array<", "extract(", "price + (", "price = not ", "\U0001f600", "date '1' ", "when ", "::int"]  # fmt: skip


@pytest.mark.parametrize("pile", PILES)
def test_however_deep_or_long_it_is_refused_or_written_at_once(pile: str) -> None:
    for count in (40, 200, 10_000 // len(pile), 20_000):
        for text in (pile * count, pile * count + "price", pile * count + "price" + ")" * count):
            started = time.process_time()
            with contextlib.suppress(ScenarioError):
                compiled(text)
            assert time.process_time() - started < 2


def test_long_but_flat_is_fine(log: Any) -> None:
    assert value(log, compiled(" or ".join(["bid = 1"] * 250 + ["bid = 3"])).sql) is True
    assert value(log, compiled(f"bid in ({', '.join(map(str, range(1500)))})").sql) is True
    assert value(log, compiled("(" * 30 + "bid" + ")" * 30).sql) == 3
    assert "too many parts" in refused(" + ".join(["1"] * 1200))
    assert "at most 10000" in refused("1 + " * 3000 + "1")
    assert "nested more than" in refused("(" * 10_000)


def test_fractions_are_doubles_and_whole_numbers_stay_whole() -> None:
    assert compiled("0.5").sql == "(0.5e0)"
    assert compiled("9223372036854775807").sql == "(9223372036854775807)"
    assert compiled("9223372036854775808").sql == "(9.223372036854776e+18)"
    assert "too large" in refused("1" * 400)


def test_a_whole_number_times_an_integer_column_does_not_overflow(log: Any) -> None:
    assert value(log, compiled("1000 * small").sql) == 2_000_000_000_000
    assert value(log, compiled("small * 1000 * 0.5").sql) == 1e12


def test_dividing_by_zero_never_stops_the_replay(log: Any) -> None:
    assert value(log, compiled("bid / 0").sql) == math.inf
    assert math.isnan(value(log, compiled("0 / 0").sql))
    for text in ("bid // 0", "bid % 0", "mod(bid, 0)", "price // 0", "price % 0"):
        assert value(log, compiled(text).sql) is None


def test_names_are_known_exactly_or_regardless_of_case() -> None:
    assert compiled("PRICE + Bid").names == {"price", "bid"}
    assert compiled("geo.country").names == {"geo"}
    assert 'unknown column "prcie" (did you mean "price"' in refused("prcie")
    both = {"Price": "1", "price": "2"}
    assert compile_expression("price", both, where=where).sql == "(2)"
    with pytest.raises(ScenarioError, match='could be "Price" or "price"'):
        compile_expression("PRICE", both, where=where)
    with pytest.raises(ScenarioError, match="no column is known"):
        compile_expression("a", {}, where=where)


def test_a_name_may_stand_for_another_expression(log: Any) -> None:
    inner = compiled("price + 1")
    outer = compile_expression("target * 2", {"target": inner.sql, "raw": "1 + 1"}, where=where)
    assert value(log, outer.sql) == 12
    assert value(log, compile_expression("raw * 2", {"raw": "1 + 1"}, where=where).sql) == 4


def test_identifiers_are_quoted(log: Any) -> None:
    assert quote_identifier('a"b') == '"a""b"'
    assert value(log, NAMES['q"uote']) == 8


OPERANDS = [
    "bid",
    "price",
    "1",
    "2",
    "2.5::double",
    "small",
    "nothing",
    "(bid)",
    "(-1)",
    "bid::double",
    "abs(bid)",
    "geo.n.x",
]
ARITHMETIC = [" + ", " - ", " * ", " / ", "-", " + -"]
COMPARE = [" = ", " < ", " >= ", " <> ", " is distinct from "]
LOGIC = [" and ", " or ", " and not ", " or not "]


def chains(parts: Any, operators: list[str], most: int) -> Any:
    rest = st.lists(st.tuples(st.sampled_from(operators), parts), max_size=most)
    return st.tuples(parts, rest).map(lambda t: t[0] + "".join(op + part for op, part in t[1]))


NUMBERS = chains(st.sampled_from(OPERANDS), ARITHMETIC, 4)
BOOLEANS = st.one_of(
    st.tuples(NUMBERS, st.sampled_from(COMPARE), NUMBERS).map("".join),
    NUMBERS.map(lambda n: f"{n} between 1 and {n}"),
    NUMBERS.map(lambda n: f"{n} in (1, {n}) "),
    NUMBERS.map(lambda n: f"{n} is not null"),
    st.just("not won"),
)
SOUP = st.one_of(NUMBERS, chains(BOOLEANS, LOGIC, 3))


@settings(max_examples=150, deadline=None)
@given(text=SOUP)
def test_precedence_is_duckdbs(log: Any, text: str) -> None:
    try:
        expected = value(log, f"({text})")
    except duckdb.OutOfRangeException:
        return  # INTEGER arithmetic that ours does in BIGINT
    result = value(log, compiled(text).sql)
    if isinstance(expected, float):
        assert result == pytest.approx(expected, rel=1e-12, nan_ok=True)
    else:
        assert result == expected


WORDS = ["price", "bid", "user_id", "geo", "1", "0.5", "'a'", '"', "'", "(", ")", ",", ".", "+", "-", "*", "/", "%", "=", "<", ">", "::", "int", "and", "or",
         "not", "is", "null", "in", "between", "like", "case", "when", "then", "else", "end", "cast(", "as", "interval", "hour", "abs(", "coalesce(",
         "select", "from", ";", "--", "/*", "*/", "distinct", "extract(", "date", "timestamp", "decimal(", "over", "[", "]", "{", "$", "?", ":", "\u00e9", "\n"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)))
def test_no_text_raises_anything_but_our_error_and_what_passes_is_one_scalar(text: str) -> None:
    try:
        sql = compiled(text).sql
    except BidsimError:
        return
    assert_one_scalar(sql)


def test_a_column_of_the_log_is_named_as_it_stands_whatever_sql_would_ask_for() -> None:
    """Spec section 2: `columns` hold a log column, or an SQL expression, for each role."""
    odd = ["order", "select", "Group By", "1st", "click-through", "日 付", "where", 'we"ird', "case", "price * 2"]
    names = {name: f"s.{quote_identifier(name)}" for name in odd}
    for name in odd:
        found = compile_expression(name, names, where=where)
        assert (found.sql, found.names) == (f"(s.{quote_identifier(name)})", {name})
    assert compile_expression("0.5", {"0.5": "s.x"}, where=where).sql == "(0.5e0)"
