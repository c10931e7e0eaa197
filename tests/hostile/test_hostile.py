"""A few of each kind of hostile input, always the same: it is refused in one message, or harmless.

tests/benchmarks/fuzz_input.py runs as many as are wanted; tests/README.md says how it went.
"""

from __future__ import annotations

import pytest

from hostile import bundles, expressions, logs, names, places, runs, scenarios
from hostile.trial import Make, attempt

# How many of each: what is refused at once costs little, a replay a second.
KINDS: list[tuple[str, Make, int]] = [
    *((kind, make, 9) for kind, make in {**scenarios.CLASSES, **bundles.CLASSES}.items()),
    *((kind, make, 6) for kind, make in expressions.CLASSES.items()),
    *((kind, make, 3) for kind, make in {**logs.CLASSES, **places.CLASSES}.items()),
    *((kind, make, 4) for kind, make in runs.CLASSES.items()),
    *((kind, make, 2) for kind, make in names.CLASSES.items()),
]


@pytest.mark.parametrize(("kind", "make", "count"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_hostile_input_is_refused_in_one_message_or_harmless(kind: str, make: Make, count: int) -> None:
    ends = {seed: attempt(make, f"{kind} {seed}") for seed in range(count)}
    assert not {seed: (end.note, end.problems) for seed, end in ends.items() if end.problems}
