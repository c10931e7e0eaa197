"""A Parquet file with fewer columns and row groups than it has, made without decoding anything.

A footer (Thrift, compact protocol) is read as a tree, columns and row groups that are not wanted are left out, and the
column chunks that stay are told to lie where they were put. Their bytes stay as they are, so types, values and
statistics are exactly those of the original. Layout: apache/parquet-format, parquet.thrift.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAGIC = b"PAR1"
TAIL_BYTES = 8
DEEPEST = 64
# Types of the compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
# Field numbers of parquet.thrift.
FILE_SCHEMA, FILE_ROWS, FILE_GROUPS, FILE_PAIRS, FILE_ORDERS = 2, 3, 4, 5, 7
ELEMENT_NAME, ELEMENT_CHILDREN, ELEMENT_NUMBER = 4, 5, 9
GROUP_COLUMNS, GROUP_BYTES, GROUP_ROWS, GROUP_SORTING, GROUP_OFFSET, GROUP_COMPRESSED = 1, 2, 3, 4, 5, 6
CHUNK_PATH, CHUNK_OFFSET, CHUNK_META = 1, 2, 3
CHUNK_INDEXES = (4, 5, 6, 7)
META_UNCOMPRESSED, META_COMPRESSED, META_DATA, META_INDEX, META_DICTIONARY = 6, 7, 9, 10, 11
META_BLOOM = (14, 15)

# A struct is its fields by number, each (type, value); a list (type of its values, values).
Struct = dict[int, tuple[int, Any]]


@dataclass(frozen=True)
class Range:
    """Bytes of the original, and where they go in the smaller file."""

    start: int
    length: int
    to: int


def footer_bytes(tail: bytes) -> int | None:
    """How many bytes from its end a file's footer takes; tail: its last bytes, at least eight. None: no Parquet file."""
    if len(tail) < TAIL_BYTES or tail[-4:] != MAGIC:
        return None
    return int(struct.unpack("<I", tail[-8:-4])[0]) + TAIL_BYTES


def alone(footer: bytes) -> bytes:
    """A file that is only its footer: columns and types can be read from it, rows can't."""
    return MAGIC + footer


def shrink(
    footer: bytes, wanted: Callable[[str, int | None], bool], kept: Callable[[int], bool]
) -> tuple[bytes, list[Range]]:
    """The footer of the smaller file and the bytes that go before it, the first of them at 4.

    footer: with its length and magic; wanted: whether a top-level column stays, by its
    lower-case name and its field number; kept: whether a row group stays.
    Raises ValueError for a footer that can't be read.
    """
    try:
        tree, _ = _read_struct(footer[:-TAIL_BYTES], 0, 0)
        ranges = _cut(tree, wanted, kept)
    except (IndexError, KeyError, TypeError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("the footer can't be read") from error
    out = bytearray()
    _write_struct(out, tree)
    return bytes(out) + struct.pack("<I", len(out)) + MAGIC, ranges


def _cut(tree: Struct, wanted: Callable[[str, int | None], bool], kept: Callable[[int], bool]) -> list[Range]:
    elements = tree[FILE_SCHEMA][1][1]
    tops = _top_columns(elements)
    names = [str(elements[first][ELEMENT_NAME][1], "utf-8").lower() for first, _, _ in tops]
    numbers = [elements[first].get(ELEMENT_NUMBER, (I32, None))[1] for first, _, _ in tops]
    stays = [wanted(name, number) for name, number in zip(names, numbers, strict=True)]
    if len(set(names)) < len(names):
        stays = [True] * len(names)  # the engine tells such columns apart by their place
    elif not any(stays):
        stays = [True, *stays[1:]]  # rows are counted in some column
    kind = tree[FILE_SCHEMA][1][0]
    left = [e for (first, last, _), stay in zip(tops, stays, strict=True) if stay for e in elements[first:last]]
    root = {**elements[0], ELEMENT_CHILDREN: (I32, sum(stays))}
    tree[FILE_SCHEMA] = (LIST, (kind, [root, *left]))
    leaf_stays = [stay for (_, _, leaves), stay in zip(tops, stays, strict=True) for _ in range(leaves)]
    if FILE_ORDERS in tree:
        kind, orders = tree[FILE_ORDERS][1]
        tree[FILE_ORDERS] = (LIST, (kind, [o for o, stay in zip(orders, leaf_stays, strict=True) if stay]))
    tree.pop(FILE_PAIRS, None)  # other libraries' description of the columns that were
    kind, groups = tree[FILE_GROUPS][1]
    groups = [group for i, group in enumerate(groups) if kept(i)]
    tree[FILE_GROUPS] = (LIST, (kind, groups))
    tree[FILE_ROWS] = (I64, sum(group[GROUP_ROWS][1] for group in groups))
    return _place(groups, leaf_stays)


def _place(groups: list[Struct], leaf_stays: list[bool]) -> list[Range]:
    """Lay the chunks that stay one after the other, and tell them so."""
    ranges: list[Range] = []
    to = len(MAGIC)
    for group in groups:
        kind, chunks = group[GROUP_COLUMNS][1]
        chunks = [chunk for chunk, stay in zip(chunks, leaf_stays, strict=True) if stay]
        group[GROUP_COLUMNS] = (LIST, (kind, chunks))
        group.pop(GROUP_SORTING, None)
        begin = to
        for chunk in chunks:
            meta: Struct = chunk[CHUNK_META][1]
            length = meta[META_COMPRESSED][1]
            pages = [meta[f][1] for f in (META_DATA, META_INDEX, META_DICTIONARY) if f in meta and meta[f][1] > 0]
            start = min(pages)
            if start < len(MAGIC) or length < 0:
                raise ValueError("a column chunk lies outside of the file")
            for field in (META_DATA, META_INDEX, META_DICTIONARY):
                if field in meta and meta[field][1] > 0:
                    meta[field] = (I64, meta[field][1] - start + to)
            for field in META_BLOOM:
                meta.pop(field, None)
            for field in (*CHUNK_INDEXES, CHUNK_PATH):
                chunk.pop(field, None)
            chunk[CHUNK_OFFSET] = (I64, to)
            ranges.append(Range(start, length, to))
            to += length
        group[GROUP_BYTES] = (I64, sum(c[CHUNK_META][1][META_UNCOMPRESSED][1] for c in chunks))
        if GROUP_OFFSET in group:
            group[GROUP_OFFSET] = (I64, begin)
        if GROUP_COMPRESSED in group:
            group[GROUP_COMPRESSED] = (I64, to - begin)
    return ranges


def _top_columns(elements: list[Struct]) -> list[tuple[int, int, int]]:
    """(first element, end, number of leaves) of each column of the root."""
    found = []
    at = 1
    for _ in range(elements[0][ELEMENT_CHILDREN][1]):
        first, leaves, open_ = at, 0, 1
        while open_:
            children = elements[at].get(ELEMENT_CHILDREN, (I32, 0))[1]
            open_ += children - 1
            leaves += not children
            at += 1
        found.append((first, at, leaves))
    return found


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _read_signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_number(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    fields: Struct = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if head == 0:
            return fields, at
        kind = head & 0x0F
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_signed(data, at)
        value, at = (kind == TRUE, at) if kind in (TRUE, FALSE) else _read_value(data, at, kind, depth)
        fields[number] = (kind, value)


def _read_value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE, BYTE):  # a Boolean has a byte of its own in a list only
        return data[at], at + 1
    if kind in (I16, I32, I64):
        return _read_signed(data, at)
    if kind == DOUBLE:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == BINARY:
        length, at = _read_number(data, at)
        if at + length > len(data):
            raise ValueError("cut off")
        return data[at : at + length], at + length
    if kind in (LIST, SET):
        head = data[at]
        at += 1
        size, of = head >> 4, head & 0x0F
        if size == 15:
            size, at = _read_number(data, at)
        if size > len(data):
            raise ValueError("cut off")
        values = []
        for _ in range(size):
            value, at = _read_value(data, at, of, depth + 1)
            values.append(value)
        return (of, values), at
    if kind == STRUCT:
        return _read_struct(data, at, depth + 1)
    raise ValueError("a type that Parquet's footers don't have")


def _write_number(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_struct(out: bytearray, fields: Struct) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        if kind in (TRUE, FALSE):
            kind = TRUE if value else FALSE
        if 0 < number - last <= 15:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            _write_number(out, (number << 1) ^ (number >> 63))
        last = number
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE, BYTE):
        out.append(value)
    elif kind in (I16, I32, I64):
        _write_number(out, (value << 1) ^ (value >> 63))
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    elif kind == BINARY:
        _write_number(out, len(value))
        out += value
    elif kind in (LIST, SET):
        of, values = value
        if len(values) < 15:
            out.append(len(values) << 4 | of)
        else:
            out.append(0xF0 | of)
            _write_number(out, len(values))
        for item in values:
            _write_value(out, of, item)
    else:
        _write_struct(out, value)
