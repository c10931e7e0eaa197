"""What kind of file is this? Told from its content, never from its name, to say what to do about it.

Only the message depends on the answer: a file that is no bundle is refused whatever it is, and nothing here parses or
loads anything.
"""

from __future__ import annotations

import re

from bidsim.models.manifest import LibraryFormat

PICKLE = (
    "a Python pickle (or joblib file), which runs code when it is loaded, so bidsim never loads one; load it where you "
    "trust it and save a bundle with bidsim.models.pack_sklearn"
)
PACK = "bidsim reads bundles: for scikit-learn make one with bidsim.models.pack_sklearn, for others `bidsim model pack`"
LIBRARY = "; make a bundle of it with `bidsim model pack --ctr FILE -o m.bin`"

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the model itself; fetch it with `git lfs pull` (in CI: check out with LFS)",
    ),
    (b"\x1f\x8b", "gzip-compressed; unpack it first (gunzip, or tar xzf for a model.tar.gz)"),
    (b"BZh", "bzip2-compressed; unpack it first, and if a joblib file comes out: " + PACK),
    (b"\xfd7zXZ\x00", "xz-compressed; unpack it first, and if a joblib file comes out: " + PACK),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first"),
    (b"\x04\x22\x4d\x18", "lz4-compressed; unpack it first, and if a joblib file comes out: " + PACK),
    (b"PAR1", "a Parquet file, so probably the log rather than the model; pass the bundle to --model"),
    (b"ARROW1", "an Arrow file, so probably data rather than the model; pass the bundle to --model"),
    (b"\x89HDF", "an HDF5 file (Keras?), a format that bidsim can't read; " + PACK),
    (b"CBM1", "a CatBoost model" + LIBRARY),
    (b"tree\nversion=", "a LightGBM text model" + LIBRARY),
    (b"tree\r\nversion=", "a LightGBM text model" + LIBRARY),
    (b"binf", "an old XGBoost binary model, a format that bidsim can't read; " + PACK),
)


def library_format(data: bytes) -> LibraryFormat | None:
    """The library whose model file this seems to be, or None."""
    said = describe(data) if not data.startswith(b"PK") else ""
    names: dict[str, LibraryFormat] = {
        "a LightGBM": "lightgbm/1",
        "an XGBoost": "xgboost/1",
        "a CatBoost": "catboost/1",
        "an ONNX": "onnx/1",
        "a Vowpal Wabbit": "vw/1",
    }
    return next((kind for name, kind in names.items() if said.startswith(name) and said.endswith(LIBRARY)), None)


def describe(data: bytes, members: tuple[str, ...] | None = None) -> str:
    """What the file is and what to do, as the end of the sentence "this is ...".

    data: the whole file, or at least its first 4 KiB. members: names in it, where it is a readable zip.
    """
    head = data[:4096]
    if not head:
        return "an empty file; the copy or the training job failed: make it again"
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head.startswith(b"PK"):
        return _describe_zip(members)
    if re.match(rb"\x80[\x02-\x05]", head) or (
        re.match(rb"[ci(\]}][\s\S]{0,80}\n", head) and data.rstrip().endswith(b".")
    ):
        return PICKLE
    if re.match(rb"x[\x01\x5e\x9c\xda]", head):
        return "zlib-compressed, probably a joblib file; " + PICKLE
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<error")):
        return "an HTML or XML page, so probably an error page saved by a download; fetch the model again"
    if re.match(rb"\{[lL][\x00-\xff]{0,16}learner", head) or (text.startswith(b"{") and b'"learner"' in head):
        kind = "JSON" if text.startswith(b'{"') or b'"learner"' in head else "UBJSON"
        return f"an XGBoost {kind} model{LIBRARY}"
    if re.match(rb".{7}\x00\{", head, re.DOTALL):
        return f"a safetensors file, a format that bidsim can't read; {PACK}"
    if re.match(rb"[\x06-\x10]\x00\x00\x00\d+\.\d+\.\d+\x00", head):
        return f"a Vowpal Wabbit model{LIBRARY}"
    if _is_onnx(head):
        return f"an ONNX model{LIBRARY}"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if text.startswith((b"{", b"[")):
        return f"JSON, not a bundle; {PACK}"
    if b"\x00" not in head and _is_text(head):
        if re.fullmatch(rb'[\w. "]*([,;\t|][\w. "]*)+', head.partition(b"\n")[0].strip()):
            return (
                "a text file whose first line names no prediction; a file of predictions is Parquet, or CSV with commas and "
                "a header: pctr, pcvr or pctcvr and one key column of the log"
            )
        return "a text file, not a bundle; --model takes the bundle, --scenario the YAML file"
    return f"no bundle and no format that bidsim knows; {PACK}"


def _describe_zip(members: tuple[str, ...] | None) -> str:
    if members is None:
        return "a zip file that is cut short or damaged; copy it again"
    if "schema.json" in members:
        return "a bare skops file, which doesn't say what its inputs are; pack it with bidsim.models.pack_sklearn"
    if any(name.endswith("data.pkl") for name in members):
        return "a PyTorch file, which holds " + PICKLE
    if members and all(name.endswith(".npy") for name in members):
        return f"a NumPy archive (npz), not a bundle; {PACK}"
    return f"a zip file without manifest.json, not a bundle; {PACK}"


def _is_onnx(head: bytes) -> bool:
    """A protobuf that opens with ir_version (field 1) and goes on with a field that ONNX writes next."""
    return len(head) > 8 and head[0] == 0x08 and 1 <= head[1] <= 64 and head[2] in (0x12, 0x1A, 0x3A, 0x42)


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True
