"""User-written SQL: parsed, checked against an allow-list, written anew. What the engine runs is never the user's text.

A formula or condition is one scalar expression over named columns. sqlglot parses it in DuckDB's dialect; then every
node of the tree is written out by a rule of its own, with names replaced and every operation in parentheses. A node,
or a part of a node, for which there is no rule is refused, so comments, quoting tricks and second statements can't
survive. It means what DuckDB says it means, apart from:

- Fractions become DOUBLE (``0.5e0``): DuckDB would make DECIMALs of them, other engines would not. So do whole
  numbers beyond 64 bits.
- A whole number times a column is BIGINT arithmetic: ``1000 * target_cpa`` must not overflow an INTEGER column.
- ``/`` is floating-point division; by zero it gives an infinity or NaN, which bids nothing. ``//``, ``%`` and ``mod``
  by zero are NULL (DuckDB would, by version, give NULL or stop the whole replay).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from bidsim.errors import BidsimError
from bidsim.scenario.grammar import (
    BEFORE_BRACKET,
    FUNCTIONS,
    PREFIXES,
    QUERY_WORDS,
    REFUSED_SIGNS,
    SIZED_TYPES,
    STATEMENTS,
    WHAT_IS_ALLOWED,
    RowParser,
)
from bidsim.scenario.writing import Refused, unknown_function, write

MOST_CHARACTERS = 10_000
MOST_NODES = 2_000
MOST_NESTING = 40
MOST_DEPTH = 300  # of the tree: DuckDB stops at 1,000, and an expression is embedded in others

NUMBER = re.compile(r"[\d.]+([eE]\d+)?")  # a column of that name needs quotes
PLAIN = re.compile(r'(\w+\.)?("([^"]|"")*"|\w+)')  # a name that needs no brackets


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
    of case where that is unique. A text that is a name as it stands means it, also where SQL would need quotes around it
    (``order``, ``Group By``, ``a.b``). where: makes the error, with file and line, from a message. Raises what `where`
    makes for anything but one scalar expression of allowed parts over known names.
    """
    used: set[str] = set()

    def column(parts: list[str]) -> str:
        found, fields = _find(parts, names)
        used.add(found)
        sql = names[found] if PLAIN.fullmatch(names[found]) and not fields else f"({names[found]})"
        return sql + "".join("." + quote_identifier(f) for f in fields)

    try:
        sql = column([text]) if text in names and not NUMBER.fullmatch(text) else write(_parse(text), column)
    except RecursionError:
        raise where(f'"{_short(text)}": the expression is nested too deep; simplify it') from None
    except Refused as refusal:
        shown = f'"{_short(text)}": ' if text.strip() else ""
        raise where(f"{shown}{refusal}") from None
    return Compiled(f"({sql})", frozenset(used))


def _parse(text: str) -> exp.Expr:
    """The tree of one expression that is neither too long, too large nor too deep. Raises Refused."""
    if not text.strip():
        raise Refused("the expression is empty")
    if len(text) > MOST_CHARACTERS:
        raise Refused(f"the expression has {len(text)} characters, at most {MOST_CHARACTERS} are allowed")
    for c in text:
        if c not in "\t\r\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs"):
            raise Refused(f"the expression has an invisible character (U+{ord(c):04X}); delete it")
    try:
        tokens = list(DuckDB().tokenize(text))
        _check_tokens(tokens)
        trees = [tree for tree in RowParser(dialect=DuckDB()).parse(tokens, text) if tree is not None]
    except Refused:
        raise
    except RecursionError:
        raise Refused(f"the expression is nested more than {MOST_NESTING} deep") from None
    except SqlglotError as error:
        raise Refused(f"is not an SQL expression: {_reason(error)}") from None
    except Exception:  # sqlglot meets odd input with whatever Python raises; all of it is the input's fault
        raise Refused(f"is not an SQL expression; {WHAT_IS_ALLOWED}") from None
    if len(trees) != 1:
        raise Refused(f"is {len(trees)} statements; one expression is needed")
    tree: exp.Expr = trees[0]
    _check_size(tree)
    return tree


def _check_tokens(tokens: Sequence[Any]) -> None:
    """Refuse what needs no tree to be refused, in words that fit it, and what the parser would take long over."""
    depth = signs = 0
    for i, token in enumerate(tokens):
        kind, word = token.token_type.name, token.text.lower()
        following = tokens[i + 1].token_type.name if i + 1 < len(tokens) else ""
        if token.comments:
            raise Refused("comments are not allowed in an expression; write them in the YAML, after #")
        if kind in REFUSED_SIGNS:
            raise Refused(f"{REFUSED_SIGNS[kind]}; {WHAT_IS_ALLOWED}")
        if word == "!":
            raise Refused('"!" is not allowed; write not')
        if kind == "L_PAREN" or word == "case":
            depth += 1
        elif kind == "R_PAREN" or word == "end":
            depth = max(0, depth - 1)
        # not, - and the like nest without brackets where they stand before each other.
        signs = signs + 1 if word in PREFIXES and kind not in ("STRING", "IDENTIFIER") else 0
        if depth > MOST_NESTING or signs > MOST_NESTING:
            raise Refused(f"the expression is nested more than {MOST_NESTING} deep")
        if kind in ("STRING", "NUMBER"):
            continue
        if following == "L_PAREN" and (kind == "IDENTIFIER" or word[:1].isalpha() or word[:1] == "_"):
            _check_call(word, kind, tokens[i + 2].token_type.name if i + 2 < len(tokens) else "")
        if kind == "IDENTIFIER":
            continue
        if i == 0 and word in STATEMENTS and (following == "STRING" or (tokens[1:] and tokens[1].text[:1].isalpha())):
            raise Refused(f"is a statement ({word}); one expression over the log's columns is needed")
        if word in QUERY_WORDS:
            raise Refused(f"a query ({word}) is not allowed inside an expression; {WHAT_IS_ALLOWED}")
    # sqlglot drops an `as` that nothing follows.
    words = [token.text.lower() for token in tokens if token.token_type.name not in ("STRING", "IDENTIFIER")]
    if words.count("as") > words.count("cast") + words.count("try_cast"):
        raise Refused("as stands only in cast(... as ...); a value can't be given a name here")


def _check_call(word: str, kind: str, inside: str) -> None:
    """`word(` must be a function or a keyword that may stand before a bracket.

    Checked before parsing: names that sqlglot takes for types make it try twice at each level, 2 ** levels in all.
    """
    if word in FUNCTIONS or (kind != "IDENTIFIER" and word in BEFORE_BRACKET):
        return
    if kind != "IDENTIFIER" and word in SIZED_TYPES and inside == "NUMBER":
        return
    if word in STATEMENTS or word in QUERY_WORDS or word in ("exists", "any", "all", "some", "as"):
        raise Refused(f"a query ({word}) is not allowed inside an expression; {WHAT_IS_ALLOWED}")
    raise Refused(unknown_function(word))


def _check_size(tree: exp.Expr) -> None:
    count = 0
    level: list[exp.Expr] = [tree]
    for depth in range(MOST_DEPTH + 1):
        if not level:
            return
        count += len(level)
        if count > MOST_NODES:
            break
        level = [child for node in level for child in node.iter_expressions()]
        if depth == MOST_DEPTH and level:
            break
    raise Refused("the expression has too many parts; simplify it, or compute it into a column of the log")


def _find(parts: list[str], names: Mapping[str, str]) -> tuple[str, list[str]]:
    """The known name that a dotted name begins with (the longest), and the fields after it."""
    for length in range(len(parts), 0, -1):
        word = ".".join(parts[:length])
        if word in names:
            return word, parts[length:]
    for length in range(len(parts), 0, -1):
        word = ".".join(parts[:length]).lower()
        alike = [name for name in names if name.lower() == word]
        if len(alike) == 1:
            return alike[0], parts[length:]
        if alike:
            choice = " or ".join(f'"{name}"' for name in sorted(alike))
            raise Refused(f'column "{_short(".".join(parts))}" could be {choice}; write it exactly')
    name = ".".join(parts)
    if set(name) & set("“”„‘’‚«»"):
        raise Refused("typographic quotes are not SQL; write text in 'straight' quotes and names in \"straight\" ones")
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(parts[0].lower(), list(by_lower), n=3, cutoff=0.6)
    if close:
        hint = " (did you mean " + " or ".join(f'"{by_lower[c]}"' for c in close) + "?)"
    else:
        known = sorted(names)
        more = f" and {len(known) - 15} more" if len(known) > 15 else ""
        hint = f"; known are {', '.join(known[:15])}{more}" if known else "; no column is known here"
    raise Refused(f'unknown column "{_short(name)}"{hint}')


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."


def _reason(error: SqlglotError) -> str:
    """What sqlglot says, without its Python names and terminal codes."""
    details = getattr(error, "errors", None) or [{}]
    said = str(details[0].get("description") or "")
    column = details[0].get("col")
    if "missing for" in said:
        said = "something is missing"
    elif not said or "Invalid expression" in said:
        said = "it can't be read"
    place = f" at character {column}" if isinstance(column, int) and details[0].get("line") == 1 else ""
    return f"{said.splitlines()[0].rstrip('.')}{place}"
