"""Addresses of logs in stores (``s3://bucket/prefix``): which are known, what they may not carry, which keys they mean.

An address says where a log lies and nothing else: no user, no password, no signature, no endpoint. Those come from the
environment of whoever runs bidsim, so neither a scenario nor an output can hold them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bidsim.errors import LogError

Scheme = Literal["s3", "gs", "hdfs"]
SCHEMES: dict[str, Scheme] = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs", "hdfs": "hdfs"}
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# `?` is a glob's; what follows it here can only be a query string, such as a signature, which may hold slashes.
QUERY = re.compile(
    r"\?[A-Za-z][\w.-]*=[^/]*$|[?&](?:x-amz-|x-goog-|awsaccesskeyid=|googleaccessid=|signature=|expires=|sig=)", re.I
)
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Address:
    """place: the bucket, or the name node of HDFS; key: what follows it, without a leading slash."""

    scheme: Scheme
    place: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}/{self.key}"

    @property
    def fixed(self) -> str:
        """What every key that is meant begins with."""
        magic = MAGIC.search(self.key)
        return self.key if magic is None else self.key[: magic.start()]


def is_address(text: str) -> bool:
    """Whether a path of the scenario or the command line is an address."""
    return ADDRESS.match(text) is not None


def parse_address(text: str, table: str) -> Address:
    """Raises LogError, which never repeats what may be secret."""
    match = ADDRESS.match(text)
    if match is None:
        raise LogError(f"table {table}: not an address of a store", file=text)
    scheme, rest = match.group(1).lower(), match.group(2)
    place, _, key = rest.partition("/")
    # A key with a slash in it ends early here (`s3://KEY:SEC/RET@bucket`); of a place, only a port follows a colon.
    host = place.rpartition("@")[2].partition("?")[0]
    cut = re.search(r":(?!\d*$)", host) is not None
    shown = f"{scheme}://..." if cut else f"{scheme}://{host}/..."
    if "@" in place or cut:
        raise LogError(
            f"table {table}: the address holds a user or password; leave it out, credentials come from the environment",
            file=shown,
        )
    if scheme not in SCHEMES:
        known = "give the path without file://" if scheme == "file" else "bidsim reads s3://, gs:// and hdfs://"
        raise LogError(f"table {table}: addresses that begin with {scheme}:// are not supported; {known}", file=shown)
    if QUERY.search(rest):
        raise LogError(
            f"table {table}: the address holds a query string; leave it out, credentials and endpoints come from the "
            "environment",
            file=shown,
        )
    if ":" in place and scheme != "hdfs":
        raise LogError(
            f"table {table}: the address holds a port; write {scheme}://bucket/prefix, endpoints come from the environment",
            file=shown,
        )
    if not place and scheme != "hdfs":
        raise LogError(f"table {table}: the address names no bucket; write {scheme}://bucket/prefix", file=shown)
    if re.search(r"[\x00-\x1f\x7f]", rest):
        raise LogError(f"table {table}: the address holds control characters", file=shown)
    return Address(SCHEMES[scheme], place, key.lstrip("/") if scheme == "hdfs" else key)


def matcher(address: Address) -> Callable[[str], bool]:
    """Whether a key is meant, by the rules of local globs: `*` stays in one folder, `**` is any number of them."""
    pattern = address.key.split("/")
    compiled = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in pattern]
    hidden = [part.startswith(".") for part in pattern]

    def fits(parts: list[str], at: int) -> bool:
        while at < len(compiled):
            expression = compiled[at]
            if expression is None:
                rest = range(len(parts) + 1) if at + 1 < len(compiled) else range(len(parts), len(parts) + 1)
                return any(
                    not any(p.startswith(".") for p in parts[:skipped]) and fits(parts[skipped:], at + 1)
                    for skipped in rest
                )
            if not parts or not expression.match(parts[0]) or (parts[0].startswith(".") and not hidden[at]):
                return False
            parts, at = parts[1:], at + 1
        return not parts

    return lambda key: fits(key.split("/"), 0)
