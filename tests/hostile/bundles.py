"""Bundles with a forged container: sizes, names, links, bombs, other members, and manifests that say what nobody packs.

What libraries make of damaged files of their own is another matter, see tests/benchmarks/fuzz_models.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from command import write_scenario

from hostile.scenarios import EXTREMES
from hostile.trial import QUIETLY, Trial

NAMES = [
    "../evil", "/tmp/evil", "ctr/../../evil", "C:\\evil", "ctr\\evil", "ctr//w", "./ctr/weights.f32", "ctr/\x00w", "ctr/\u202ew", "ctr/é",
    "CTR/weights.f32", "ctr/weights.f32", "manifest.json", "MANIFEST.JSON", "", "ctr/", "x" * 300, "x" * 65_000, "ctr/\x1b[31m", "con", "~root",
]  # fmt: skip


def _members(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "m.bin") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _trial(draw: random.Random, folder: Path, note: str, data: bytes) -> Trial:
    (folder / "new.bin").write_bytes(data)
    write_scenario(folder / "s.yaml", {"fidelity": "warn"})
    replay = (*QUIETLY, "--table", "ad=log.parquet")
    words = draw.choice(
        [
            (*replay, "--model", "new.bin"),
            (*replay, "--baseline", "new.bin"),
            ("model", "inspect", "new.bin"),
            ("model", "verify", "new.bin"),
        ]
    )
    return Trial(words, ("new.bin", "log.parquet", "s.yaml"), note)


def container(draw: random.Random, folder: Path) -> Trial:
    """The zip forged: fields of its headers, members, what is before, between and after them."""
    data, members = bytearray((folder / "m.bin").read_bytes()), _members(folder)
    kind = draw.choice(
        [
            "central",
            "central",
            "local",
            "end",
            "cut",
            "between",
            "before",
            "after",
            "name",
            "name",
            "link",
            "bomb",
            "many",
            "tar",
            "zip64",
            "bits",
            "nested",
            "empty",
            "swap",
            "sparse",
        ]
    )
    if kind in ("central", "local", "end"):
        signature = {"central": b"PK\x01\x02", "local": b"PK\x03\x04", "end": b"PK\x05\x06"}[kind]
        at = data.index(signature) if draw.random() < 0.5 else data.rindex(signature)
        size = {"central": 46, "local": 30, "end": 22}[kind]
        field, width = draw.randrange(4, size - 3), draw.choice([1, 2, 4])
        value = draw.choice([0, 1, 5, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, draw.randrange(1 << 32)])
        data[at + field : at + field + width] = struct.pack("<I", value)[:width]
        kind += f" {field}={value}"
    elif kind == "cut":
        del data[draw.randrange(len(data)) :]
    elif kind == "between":
        at = data.index(b"PK\x03\x04", 4)
        data[at:at] = draw.choice([b"x", b"PK\x03\x04", bytes(1000)])
    elif kind == "before":
        data[:0] = draw.choice([b"x", b"#!/bin/sh\n", b"PK\x03\x04", b"MZ", b"\x80\x04."])
    elif kind == "after":
        data += draw.choice([b"x", b"PK\x05\x06" + bytes(18), bytes(70_000), bytes(data)])
    elif kind == "bits":
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "swap":
        at, to = draw.randrange(len(data)), draw.randrange(len(data))
        data[at : at + 30], data[to : to + 30] = data[to : to + 30], data[at : at + 30]
    elif kind == "empty":
        data = bytearray(draw.choice([b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), bytes(100)]))
    elif kind == "sparse":
        with (folder / "huge.bin").open("wb") as stream:
            stream.write(bytes(data))
            stream.truncate(draw.choice([1 << 33, (1 << 32) + (1 << 22)]))
        (folder / "huge.bin").rename(folder / "new.bin")
        trial = _trial(draw, folder, kind, b"")
        with (folder / "new.bin").open("wb") as stream:
            stream.truncate(1 << 33)
        return trial
    else:
        data = bytearray(_rezipped(draw, kind, members))
    return _trial(draw, folder, kind, bytes(data))


def _rezipped(draw: random.Random, kind: str, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode=draw.choice(["w", "w:gz", "w:xz"])) as tar:
            for name, content in {**members, "../evil": b"x"}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return stream.getvalue()
    packing = zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packing, allowZip64=True) as archive:
        warnings.simplefilter("ignore")
        order = list(members.items())
        if draw.random() < 0.3:
            draw.shuffle(order)
        for name, content in order:
            archive.writestr(zipfile.ZipInfo(name), content)
        if kind == "name":
            archive.writestr(zipfile.ZipInfo(draw.choice(NAMES)), draw.choice([b"", b"x" * 100]))
        elif kind == "link":
            entry = zipfile.ZipInfo("ctr/link")
            entry.external_attr = draw.choice([0o120777, 0o060777, 0o020777, 0o040777, 0o010777, 0o104777]) << 16
            archive.writestr(entry, b"/etc/passwd")
        elif kind == "bomb":
            archive.writestr("ctr/bomb", bytes(draw.choice([1 << 20, 200 << 20])))
        elif kind == "many":
            for i in range(draw.choice([62, 65, 5000])):
                archive.writestr(f"ctr/{i}", b"")
        elif kind == "nested":
            archive.writestr("ctr/inner.zip", stream.getvalue())
        elif kind == "zip64":
            with archive.open(zipfile.ZipInfo("ctr/big"), "w", force_zip64=True) as member:
                member.write(b"x")
    return stream.getvalue()


TEXTS = [
    b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"{" + b",".join(b'"k%d":1' % i for i in range(100_000)) + b"}", b" " * (1 << 20),
    b"x" * (3 << 20), b'{"schema": "bidsim.bundle/1", "schema": 1}', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a": NaN}', b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\\ud800"}', b'{"a": "' + b"x" * (1 << 19) + b'"}',
]  # fmt: skip


def manifest(draw: random.Random, folder: Path) -> Trial:
    """Whole bundles, right checksums, and a manifest with values that nobody packs."""
    members = _members(folder)
    document = json.loads(members["manifest.json"])
    done = []
    if draw.random() < 0.15:
        text = draw.choice(TEXTS)
        done.append(repr(text[:30]))
    else:
        for _ in range(draw.choice([1, 1, 2, 4])):
            done.append(_changed(draw, document))
        if draw.random() < 0.2:
            members["ctr/weights.f32"] = draw.choice(
                [
                    b"",
                    b"\x00",
                    struct.pack("<64f", *([float("nan")] * 64)),
                    struct.pack("<64f", *([3e38] * 64)),
                    bytes(257),
                    bytes(1 << 20),
                ]
            )
            payload = document.get("payloads")
            if isinstance(payload, dict) and isinstance(payload.get("ctr/weights.f32"), dict):
                weights = members["ctr/weights.f32"]
                payload["ctr/weights.f32"].update(size=len(weights), sha256=hashlib.sha256(weights).hexdigest())
        text = json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json"), text)
        for name, content in members.items():
            if name != "manifest.json":
                archive.writestr(zipfile.ZipInfo(name), content)
    return _trial(draw, folder, "; ".join(done), stream.getvalue())


def _changed(draw: random.Random, document: Any) -> str:
    """Change one value, somewhere, and say which."""
    node, path = document, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys or (isinstance(node, dict) and draw.random() < 0.1):
            key: Any = draw.choice(
                ["", "x", "../x", "x" * 5000, "\x1b[31m", "pickle", "__class__", "ctr", "cvr", "ctcvr"]
            )
            if isinstance(node, dict):
                node[key] = draw.choice(EXTREMES)
            return f"{'.'.join(map(str, [*path, key]))[:60]}: new"
        key = draw.choice(keys)
        path.append(key)
        if isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.85:
            node = node[key]
            continue
        if draw.random() < 0.1:
            del node[key]
            return f"{'.'.join(map(str, path))[:60]}: gone"
        node[key] = draw.choice(
            [
                *EXTREMES,
                "x" * 100_000,
                ["ctr/weights.f32"] * 1000,
                [["spot_id", "spot_id"]],
                10**400,
                "spot_id",
                "age",
                "\x1b]0;x\x07",
                "hashed/1",
            ]
        )
        return f"{'.'.join(map(str, path))[:60]}={str(node[key])[:30]!r}"


PREDICTIONS = [
    b"", b"request_id,pctr\n", b"request_id,pctr\nr00000,0.1\nr00000,0.2\n", b"request_id,pctr\n" + b"x,1e999\n" * 100, b"pctr\n0.1\n",
    b"request_id,pctr,pcvr\n" + b"r00001,nan,inf\n", b"request_id,pctr,pctr\nr1,1,1\n", b'request_id,pctr\n"r1\n', b"request_id,pctr\n\xff,1\n",
    b"request_id,pctr\nr1,<b>\n", b"request_id;pctr\nr1;1\n", b"\x1b[31m,pctr\n1,1\n", b"request_id,pctr\n" + b"r,0.5," * 3000, b"a,b,c\n1,2,3\n",
    b"request_id,pctr\n" + b"x" * 100_000 + b",1\n", b"PAR1PAR1", b"PAR1" + bytes(100) + b"PAR1", b"\xef\xbb\xbfrequest_id,pctr\nr00001,0.5\n",
    b"ad_id,spot_id,pctr\n3,top,0.1\n", b"request_id,pctr\n" + b"\n" * 1000, b"ts,pctr\n0001-01-01,0.5\n", b"age,pctr\n1e400,0.5\n18,-1\n",
]  # fmt: skip


def predictions(draw: random.Random, folder: Path) -> Trial:
    """Files of predictions, which are models too."""
    data = bytearray(draw.choice(PREDICTIONS))
    if draw.random() < 0.5 and data:
        data[draw.randrange(len(data))] = draw.randrange(256)
    trial = _trial(draw, folder, repr(bytes(data[:50])), bytes(data))
    name = f"new.{draw.choice(['csv', 'parquet', 'bin'])}"
    (folder / "new.bin").rename(folder / name)
    words = tuple(name if w == "new.bin" else w for w in trial.words)
    return Trial(words, ("new.", "log.parquet", "s.yaml"), trial.note)


CLASSES = {"bundle: container": container, "bundle: manifest": manifest, "predictions": predictions}
