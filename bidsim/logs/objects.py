"""A log of Parquet, CSV or NDJSON objects in a store, with the rules of local files: folders, globs, partitions, order.

Objects lie in the work folder as <step>/<number>/<partitions>/part<ending>: the number keeps the order of the log, the
folders of Hive partitions keep their columns, and no key of a store can be a path that leaves the folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bidsim.errors import LogError
from bidsim.logs.addresses import MAGIC, Address, matcher, parse_address
from bidsim.logs.fetching import Piece, disk_full, fetch, in_threads
from bidsim.logs.footers import MAGIC as PARQUET_MAGIC
from bidsim.logs.footers import alone, footer_bytes, shrink
from bidsim.logs.origins import PART, Span, Told, Wanted, digest_of, show_files, silent
from bidsim.logs.reaching import open_store
from bidsim.logs.source import COMPRESSED, DELTA, ENDINGS, Format, Source, ending_of, in_hidden_folder, one_format
from bidsim.logs.stores import Store, StoredObject

# Most footers lie in so many last bytes, and a smaller object is brought whole at once.
TAIL_BYTES = 64 * 2**10
LONGEST_NAME_BYTES = 255


@dataclass(frozen=True)
class Objects:
    """Objects of one table, in the order of the log. `begin` gives it its directory."""

    name: str
    address: str
    store: Store
    things: tuple[StoredObject, ...]
    format: Format
    directory: Path | None = None
    told: Told = field(default=silent, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "told": silent}

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(thing.url for thing in self.things)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(f"{thing.url} {thing.version} {thing.size}" for thing in self.things)

    @property
    def partitions(self) -> None:
        return None  # the folders of Hive partitions tell them

    def describe(self) -> dict[str, Any]:
        return {
            "path": self.address,
            "objects": len(self.things),
            "bytes": sum(thing.size for thing in self.things),
            "versions": digest_of(self.tokens),
        }

    def begin(self, directory: Path, told: Told) -> tuple[list[Path], Objects]:
        here = replace(self, directory=directory, told=told)
        if self.format == "parquet":
            told(f"opening {len(self.things):,} object{'s' * (len(self.things) != 1)} of {self.address}")
            return list(in_threads(here._bring_footer, range(len(self.things)))), here
        files = here._all("whole")
        for file in files:
            _make(file)
        pieces = [Piece(t, 0, t.size, f, 0) for t, f in zip(self.things, files, strict=True)]
        fetch(self.store, pieces, directory, told, self.address)
        return files, here

    def rows(self, wanted: Wanted) -> list[Path]:
        assert self.directory is not None
        if self.format != "parquet":
            return self._all("whole")
        step = f"rows-{wanted.digest}"
        whole = self.directory / step
        if not whole.is_dir():
            aside = self.directory / f"{step}.{os.getpid()}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            pieces = [p for i in range(len(self.things)) for p in self._lay_out(aside.name, i, wanted)]
            if pieces:
                fetch(self.store, pieces, self.directory, self.told, self.address)
                self.told("reading the log")
            try:
                os.rename(aside, whole)
            except OSError:  # another process was faster
                shutil.rmtree(aside, ignore_errors=True)
        pairs = zip(self._all(step), self._all("footers"), strict=True)
        return [file if file.exists() else footer for file, footer in pairs]

    def shown(self, text: str) -> str:
        return text if self.directory is None else show_files(text, self.directory, self.files)

    def _all(self, step: str) -> list[Path]:
        return [self._local(step, i) for i in range(len(self.things))]

    def _local(self, step: str, index: int) -> Path:
        assert self.directory is not None
        thing = self.things[index]
        parts = thing.key.split("/")
        partitions = [part for part in parts[:-1] if "=" in part]
        for part in partitions:
            if len(part.encode()) > LONGEST_NAME_BYTES or "\0" in part:
                raise LogError(f"table {self.name}: the name of a partition can't be that of a folder", file=thing.url)
        name = parts[-1].lower()
        packed = next((ending for ending in COMPRESSED if name.endswith(ending)), "")
        ending = ending_of(name) if ending_of(name) in ENDINGS else ""
        return self.directory.joinpath(step, f"{index:08d}", *partitions, f"{PART}{ending}{packed}")

    def _bring_footer(self, index: int) -> Path:
        thing = self.things[index]
        file = self._local("footers", index)
        _make(file)  # before it is read: an answer that comes after the work folder is gone makes it no more
        start = max(0, thing.size - TAIL_BYTES)
        tail = self.store.read(thing, start, thing.size - start)
        length = footer_bytes(tail)
        head = tail[:4] if start == 0 else b""
        if length is None or (start == 0 and head != PARQUET_MAGIC):
            if (head or self.store.read(thing, 0, 4)) != PARQUET_MAGIC:
                raise LogError(f"table {self.name}: not a Parquet file", file=thing.url)
            raise _cut_off(self.name, thing)
        if length > thing.size - len(PARQUET_MAGIC):
            raise _damaged("its footer is longer than itself", thing)
        if length > len(tail):
            tail = self.store.read(thing, thing.size - length, length)
        _write(file, tail if start == 0 else alone(tail[-length:]))
        return file

    def _lay_out(self, step: str, index: int, wanted: Wanted) -> list[Piece]:
        """Write the smaller file's footer, and say what must come before it."""
        thing = self.things[index]
        source = self._local("footers", index)
        left_out = wanted.files is not None and index not in wanted.files
        if source.stat().st_size == thing.size and not left_out:
            return []  # the object was brought whole with its footer
        kept = _groups_in(source, wanted.span) if not left_out else lambda group: False
        content = source.read_bytes()
        length = footer_bytes(content)
        assert length is not None
        try:
            small, ranges = shrink(content[-length:], wanted.reads, kept)
        except ValueError as error:
            raise _damaged(str(error), thing) from None
        file = self._local(step, index)
        _make(file)
        end = max((r.to + r.length for r in ranges), default=len(PARQUET_MAGIC))
        try:
            with open(file, "r+b") as stream:
                stream.write(PARQUET_MAGIC)
                stream.seek(end)
                stream.write(small)
        except OSError as error:
            raise disk_full(error) or error from None
        return _joined([Piece(thing, r.start, r.length, file, r.to) for r in ranges])


def find_objects(name: str, text: str, format: str | None, hint: str) -> Source:
    """The objects behind an address: one of them, a folder or a glob. Raises LogError."""
    address = parse_address(text, name)
    store = open_store(address)
    things = _match(store, address)
    delta = next((t for t in things if "/_delta_log/" in f"/{t.key}"), None)
    if delta is not None and format is None:
        raise LogError(f"table {name}: {DELTA}", file=str(address))
    # Hidden files and markers (_SUCCESS) are how other writers leave notes in a folder; they are not the log.
    things = [t for t in things if not t.key.rpartition("/")[2].startswith((".", "_"))]
    if not things:
        raise LogError(f"table {name}: no such file or directory; {hint}", file=str(address))
    things.sort(key=lambda thing: thing.url)
    for thing in things:
        if thing.size == 0:
            raise LogError(f"table {name}: the file is empty", file=thing.url)
    heads = {thing.url: partial(store.read, thing, 0, min(4096, thing.size)) for thing in things}
    found = one_format(name, str(address), [t.url for t in things], format, lambda url: heads[url]())
    objects = Objects(name, str(address), store, tuple(things), found)
    return Source(name, objects.files, found, origin=objects)


def _match(store: Store, address: Address) -> list[StoredObject]:
    exact = store.find(address.key)
    if exact is not None:
        return [exact]
    if MAGIC.search(address.key):
        fits = matcher(address)
        return [thing for thing in store.list(address.fixed) if fits(thing.key)]
    folder = address.key.rstrip("/")
    found = store.list(f"{folder}/" if folder else "")
    kept = (thing for thing in found if not in_hidden_folder(thing.key.removeprefix(f"{folder}/")))
    return [thing for thing in kept if ending_of(thing.key) in ENDINGS]


def _groups_in(footer: Path, span: Span | None) -> Callable[[int], bool]:
    """Whether a row group may hold rows of the span, by the statistics of the file."""
    if span is None:
        return lambda group: True
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(footer)
        leaves = [metadata.schema.column(i).path.lower() for i in range(metadata.num_columns)]
        if leaves.count(span.column) != 1:
            return lambda group: True
        column = leaves.index(span.column)
        kept = []
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            known = statistics is not None and statistics.has_min_max
            kept.append(not known or span.may_hold(statistics.min, statistics.max))
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        return lambda group: True
    return kept.__getitem__


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces that follow each other, in the object and in the file, are one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last and last.start + last.length == piece.start and last.at + last.length == piece.at:
            found[-1] = replace(last, length=last.length + piece.length)
        else:
            found.append(piece)
    return found


def _make(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise disk_full(error) or error from None


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise disk_full(error) or error from None


def _damaged(how: str, thing: StoredObject) -> LogError:
    return LogError(f"the Parquet file is damaged ({how}); copy or write the file again", file=thing.url)


def _cut_off(name: str, thing: StoredObject) -> LogError:
    return LogError(f"table {name}: the Parquet file is cut off (its footer is missing); copy it again", file=thing.url)
