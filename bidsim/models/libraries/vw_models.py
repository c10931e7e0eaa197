"""Vowpal Wabbit's binary models (9.x) of clicks and conversions: linear, with interactions. Extra: `vw`.

A model file carries command-line options, which Vowpal Wabbit obeys on loading. They are read here first, and any
that a linear model does not need (those that name files, print, or change what a prediction is) is refused. An example
is a line of its text format: `|namespace name:0.5 name=value`; a missing value has no feature.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import pylibvw
import vowpalwabbit
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.columns import split_list
from bidsim.models.libraries import Description, Inputs
from bidsim.models.manifest import LibraryHead

FLAGS = {"noconstant", "ftrl", "coin", "pistol", "sgd", "adaptive", "invariant", "normalized", "bfgs",
         "leave_duplicate_interactions"}  # fmt: skip
VALUES = {"link", "quadratic", "cubic", "interactions", "hash", "constant", "ignore", "ignore_linear", "keep",
          "learning_rate", "power_t", "initial_t", "decay_learning_rate", "l1", "l2", "l1_state", "l2_state",
          "random_seed", "ftrl_alpha", "ftrl_beta", "loss_function"}  # fmt: skip
SEVERAL = {"quadratic", "cubic", "interactions", "ignore", "ignore_linear", "keep"}
MAX_BITS = 28
TOGETHER = 64  # lines parsed at once
SPECIAL = re.compile(r"[\s|:]")  # what ends a feature, a namespace or a name in the text format


class VowpalWabbit:
    def __init__(self, payload: bytes, entry: LibraryHead | None) -> None:
        options = read_options(payload)
        linked = options.get("link") == "logistic"
        self._logistic = entry is not None and entry.output == "logistic"
        if entry is not None and linked == self._logistic:
            raise ModelError(
                "the Vowpal Wabbit model was saved with --link logistic: leave out `output: logistic`"
                if linked
                else "the Vowpal Wabbit model was saved without --link logistic, so its predictions are no "
                "probabilities; where it was trained with --loss_function logistic, write `output: logistic` under its "
                "head in the features file"
            )
        self._lock = Lock()  # one example at a time
        with _as_file(payload) as name:
            self._model = vowpalwabbit.Workspace(
                arg_list=["--initial_regressor", name, "--testonly", "--quiet", "--no_stdin", "--log_level", "off"]
            )

    def describe(self) -> Description:
        return Description((), (), named=False, any_inputs=True)

    def predict(self, given: Inputs) -> NDArray[np.float64]:
        entry = given.entry
        columns: list[list[str]] = []
        undefined = np.zeros(given.rows, dtype=bool)
        for namespace, names in self._namespaces(entry):
            lead = f" |{namespace}"
            for name in names:
                tokens, broken = _tokens(given, name, (entry.prefixes or {}).get(name, f"{name}="))
                undefined |= broken
                columns.append([lead + token for token in tokens] if lead else tokens)
                lead = ""
        lines = list(map("".join, zip(*columns, strict=True)))
        with self._lock:
            scores = np.fromiter(self._predict(lines), dtype=np.float64, count=given.rows)
        if self._logistic:
            with np.errstate(over="ignore"):
                scores = 1.0 / (1.0 + np.exp(-scores))
        return np.where(undefined, np.nan, scores)

    @staticmethod
    def _namespaces(entry: LibraryHead) -> list[tuple[str, tuple[str, ...]]]:
        """In the order of the features, as the features file has them: the sum of float32 depends on it."""
        given = [(space, names) for space, names in (entry.namespaces or {"": entry.features}).items() if names]
        return sorted(given, key=lambda pair: entry.features.index(pair[1][0]))

    def _predict(self, lines: list[str]) -> Iterator[float]:
        """What `Workspace.predict` does for each line, without the six objects that it makes for each."""
        model, predict = self._model, pylibvw.vw.predict
        for start in range(0, len(lines), TOGETHER):
            some = lines[start : start + TOGETHER]
            examples = model._parse("\n".join(some))
            if len(examples) != len(some):
                raise ValueError(f"{len(some)} lines were read as {len(examples)}")
            for example in examples:
                predict(model, example)
                yield example.get_simplelabel_prediction()
                model._finish_example(example)


def read_options(payload: bytes) -> dict[str, str]:
    """The options that a model file carries, by name; "" for flags. Raises ModelError for any that is not allowed."""
    place = 0

    def take(count: int) -> bytes:
        nonlocal place
        if count > 1 << 16 or place + count > len(payload):
            raise ModelError("the header of the Vowpal Wabbit model is cut short or damaged")
        place += count
        return payload[place - count : place]

    def number() -> int:
        return int(struct.unpack("<I", take(4))[0])

    version = take(number()).rstrip(b"\0").decode("ascii", "replace")
    if not re.fullmatch(r"9\.\d+\.\d+", version):
        raise ModelError(f"the model is of Vowpal Wabbit {version!a}; bidsim reads 9.x: load and save it with that")
    take(number())  # an id
    if take(1) != b"m":
        raise ModelError("the header of the Vowpal Wabbit model is damaged")
    take(8)  # the lowest and highest label
    bits = number()
    if not 1 <= bits <= MAX_BITS:
        raise ModelError(f"the Vowpal Wabbit model has 2^{bits} weights; bidsim loads up to 2^{MAX_BITS}")
    take(4)
    if number() or number():
        raise ModelError("the Vowpal Wabbit model has n-grams, which depend on the order of words; bidsim has none")
    text = take(number()).rstrip(b"\0")
    if not re.fullmatch(rb"[\w:+.,=/ -]*", text):
        raise ModelError("the Vowpal Wabbit model carries options with characters that no linear model needs")
    options: dict[str, str] = {}
    last = ""
    for word in text.decode().split():
        if not word.startswith("-"):
            if last not in VALUES or (options[last] and last not in SEVERAL) or "/" in word:
                raise ModelError(f"the Vowpal Wabbit model carries the option {word[:80]!a}, which bidsim refuses")
            options[last] = f"{options[last]} {word}".strip()
            continue
        name, _, value = word.removeprefix("--").partition("=")
        allowed = name in VALUES or (name in FLAGS and not value)
        if not word.startswith("--") or not allowed or "/" in value:
            raise ModelError(
                f"the Vowpal Wabbit model carries the option {word[:80]!a}; bidsim loads linear models with interactions, "
                "without options that read or write files or predict something else"
            )
        options[name] = f"{options[name]} {value}".strip() if name in SEVERAL and name in options else value
        last = name
    return options


def _tokens(given: Inputs, name: str, prefix: str) -> tuple[list[str], NDArray[np.bool_]]:
    """A feature of each row as text with a blank before it, and the rows that can't be said."""
    kind = given.columns.feature(name).type
    if kind == "numeric":
        numbers = given.numbers(name)
        infinite = np.isinf(numbers)
        label = f" {name}:"
        return [label + format(v, ".9g") if v - v == 0 else "" for v in numbers.tolist()], infinite
    codes, values = given.texts(name)
    parts = [split_list(value) if kind == "list" else [value] for value in values]
    bad = next((part for each in parts for part in each if SPECIAL.search(part)), None)
    if bad is not None:
        raise given.columns.unfit(
            name,
            given.columns.array(name).type,
            f", with the value {bad[:80]!a}, which Vowpal Wabbit's text format can't hold (blanks, colons, bars): write "
            "the column as it was written for training",
        )
    tokens = np.array(["".join(f" {prefix}{part}" for part in each if part) for each in parts], dtype=object)
    return tokens[codes].tolist(), np.zeros(given.rows, dtype=bool)


@contextmanager
def _as_file(payload: bytes) -> Iterator[str]:
    """Vowpal Wabbit reads files only; on Linux one that lies nowhere."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("model"), "wb") as stream:
            stream.write(payload)
            stream.flush()
            yield f"/proc/self/fd/{stream.fileno()}"
        return
    with tempfile.TemporaryDirectory(prefix="bidsim-") as folder:
        path = os.path.join(folder, "model")
        with open(path, "wb") as stream:
            stream.write(payload)
        yield path


def load(payload: bytes, entry: LibraryHead | None) -> VowpalWabbit:
    for word in [] if entry is None else [*(entry.namespaces or {}), *entry.features, *(entry.prefixes or {}).values()]:
        if SPECIAL.search(word):
            raise ModelError(f"{word[:80]!a} has a blank, a colon or a bar, which Vowpal Wabbit's names can't have")
    return VowpalWabbit(payload, entry)
