"""The zip around a bundle, read as if it came from an enemy and written so that equal input gives equal bytes.

A file is accepted only where every byte is accounted for: stored members one after the other from offset 0, then the
central directory, then its end record, nothing between and nothing after. What other zips may do (compression,
encryption, links, comments, prefixes, duplicate names) is refused before any member is read.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bidsim.errors import ModelError
from bidsim.files import replace_file
from bidsim.models.kinds import describe

MAX_MEMBERS = 64
MAX_NAME = 200
MAX_BYTES = 4 << 30
_LOCAL = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, crc, sizes, name and extra lengths
_END_BYTES = 22  # of the end record, which has no comment
_UTF8_FLAG = 0x800
_FAILURES = (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError, struct.error)


def parse_archive(data: bytes, file: str) -> dict[str, tuple[int, int]]:
    """For each member in order, the offset and size of its bytes in `data`, the whole file.

    Raises ModelError for whatever is no bundle-like zip; the message says what the file is and what to do.
    """
    if not data.startswith(b"PK\x03\x04"):
        raise ModelError(f"this is {describe(data)}", file=file)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = tuple(info.filename for info in infos)
            if "manifest.json" not in names:
                raise ModelError(f"this is {describe(data, names)}", file=file)
            problem = _problem(data, infos, archive.start_dir)
            if problem:
                raise ModelError(f"{problem}, which no bundle has; pack the model again", file=file)
            members: dict[str, tuple[int, int]] = {}
            for info in infos:
                with archive.open(info) as member:  # compares the local header and, at the end, the CRC
                    while member.read(1 << 20):
                        pass
                members[info.filename] = (_content_offset(data, info), info.file_size)
            return members
    except _FAILURES as error:
        raise ModelError(f"this is {describe(data)} ({error})", file=file) from error


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write the members in their order, whole or not at all (written aside in the same folder, synced, renamed)."""
    try:
        replace_file(path, archive_bytes(members))
    except OSError as error:
        raise ModelError(f"can't be written: {error.strerror or error}", file=str(path)) from error


def archive_bytes(members: Mapping[str, bytes]) -> bytes:
    """The zip of these members; the same bytes for the same members, wherever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(_entry(member), content)
    return buffer.getvalue()


def name_problem(name: str) -> str | None:
    """Why a member may not be called so, or None."""
    if not name or not name.isascii() or not name.isprintable():
        return f"a member is called {name!r}"
    if len(name) > MAX_NAME:
        return f"a member's name has {len(name)} characters"
    path = PurePosixPath(name)
    if "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
        return f"a member is called {name!r}, not a plain relative path"
    return None


def read_model_file(path: Path) -> bytes:
    """A regular file's bytes, at most as large as a bundle may be. Raises ModelError."""
    file = str(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ModelError("this is no regular file; pass the bundle's path", file=file)
            if state.st_size > MAX_BYTES + (1 << 21):
                raise ModelError(f"{state.st_size} bytes are more than the {MAX_BYTES} of a bundle", file=file)
            return stream.read()
    except FileNotFoundError as error:
        raise ModelError("no such file; check the path of the model", file=file) from error
    except IsADirectoryError as error:
        raise ModelError("this is a directory; pass the bundle file in it (such as m.bin)", file=file) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"can't be read: {reason or error}", file=file) from error


def _open_without_waiting(name: str, flags: int) -> int:
    """A named pipe given by mistake must not hang the run."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _problem(data: bytes, infos: list[zipfile.ZipInfo], directory: int) -> str | None:
    if data[-_END_BYTES:][:4] != b"PK\x05\x06":
        return "the zip has a comment or something after its end"
    if len(infos) > MAX_MEMBERS:
        return f"the zip has {len(infos)} members"
    if len({info.filename.lower() for info in infos}) != len(infos):
        return "two members have the same name"
    offset = total = 0
    for info in infos:
        problem = name_problem(info.orig_filename) or _entry_problem(info)
        if problem:
            return problem
        total += info.file_size
        if total > MAX_BYTES:
            return f"the members claim more than {MAX_BYTES} bytes"
        if info.header_offset != offset:
            return f"member {info.filename} does not follow the one before it"
        offset = _content_offset(data, info) + info.file_size
        if offset > directory:
            return f"member {info.filename} claims more bytes than the file has"
    return None if offset == directory else "there are bytes that belong to no member"


def _entry_problem(info: zipfile.ZipInfo) -> str | None:
    name = info.filename
    if info.flag_bits & ~_UTF8_FLAG:
        return f"member {name} is encrypted or streamed"
    if info.compress_type != zipfile.ZIP_STORED:
        return f"member {name} is compressed"
    if info.compress_size != info.file_size:
        return f"member {name} has two different sizes"
    mode = info.external_attr >> 16
    if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        return f"member {name} is a folder, link or device"
    if info.comment:
        return f"member {name} has a comment"
    return None


def _content_offset(data: bytes, info: zipfile.ZipInfo) -> int:
    fields = _LOCAL.unpack_from(data, info.header_offset)
    if fields[0] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no header where the directory says")
    return info.header_offset + _LOCAL.size + int(fields[9]) + int(fields[10])


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, on every platform
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED
    return info
