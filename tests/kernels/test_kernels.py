"""The compiled loops give what the numpy reference gives, to the bit, and both give what plain Python gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim import kernels
from bidsim.kernels import build, compiled, reference
from bidsim.statistics import utility
from bidsim.statistics.ranking import Cells, Cuts, score_bits

LIBRARY = compiled.load()
BOTH = [
    pytest.param(reference, id="numpy"),
    pytest.param(
        LIBRARY,
        id="compiled",
        marks=pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler: no compiled loops"),
    ),
]


def whole(sums: np.ndarray) -> list[int]:
    """Sums of 128 bits as Python integers."""
    return [int(low) + (int(np.int64(np.uint64(high).view(np.int64))) << 64) for low, high in sums]


def test_an_installation_with_a_compiler_has_the_compiled_loops() -> None:
    if not any(shutil.which(c) for c in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler here")
    assert kernels.COMPILED


def test_the_library_is_compiled_from_the_source_beside_it(tmp_path: Any) -> None:
    if not any(shutil.which(c) for c in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler here")
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        assert build.build(folder) is None
    assert (first / compiled.NAME).read_bytes() == (second / compiled.NAME).read_bytes()


def test_without_a_compiler_the_installation_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no-such-compiler" in (build.build(tmp_path) or "")
    assert not list(tmp_path.iterdir())


def test_the_environment_can_ask_for_numpy() -> None:
    code = "from bidsim import kernels; raise SystemExit(kernels.COMPILED)"
    assert subprocess.run([sys.executable, "-c", code], env={"BIDSIM_KERNELS": "numpy"}, check=False).returncode == 0


def test_arrays_of_another_type_are_refused() -> None:
    if LIBRARY is None:
        pytest.skip("installed without a C compiler: no compiled loops")
    with pytest.raises(ValueError, match="int32"):
        LIBRARY.sum_ones(2, None, [np.zeros(2, dtype=np.int32)], [reference.wide(1)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="2 x int64"):
        LIBRARY.sum_ones(2, None, [np.zeros(1, dtype=np.int64)], [reference.wide(1)])


LARGE = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.sampled_from([-(2**63), 2**63 - 1, 2**32, -(2**32)])


@pytest.mark.parametrize("library", BOTH)
@settings(deadline=None, max_examples=60)
@given(
    data=st.data(), rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), LARGE, st.booleans()), max_size=40)
)
def test_sums_of_whole_numbers_are_exact_in_every_family(library: Any, data: Any, rows: Any) -> None:
    first, second = (np.array([r[i] for r in rows], dtype=np.int64) for i in (0, 1))
    values = np.array([r[2] for r in rows], dtype=np.int64)
    picked = np.array([i for i, r in enumerate(rows) if r[3]], dtype=np.int64)
    for chosen in (None, picked):
        these = np.arange(len(rows)) if chosen is None else picked
        sums = [reference.wide(3), reference.wide(5)]
        for _ in range(3):
            library.sum_ints(len(these), chosen, values[these], [first, second], sums)
            library.sum_ones(len(these), chosen, [first, second], sums)
        for group, each, size in zip((first, second), sums, (3, 5), strict=True):
            expected = [sum(3 * (int(values[i]) + 1) for i in these if group[i] == g) for g in range(size)]
            assert whole(each) == expected


FIXED = st.floats(-1e6, 1e6) | st.sampled_from([0.5, 1.5, 2.5, -0.5, 0.0, -0.0, 2.0**-30, 2.0**33 - 0.5, 1e-300])


@pytest.mark.parametrize("library", BOTH)
@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), FIXED, st.floats(0, 1024)), max_size=30),
    scale=st.sampled_from([1.0, 2.0**30, 2.0**52, 1e9]),
    weighted=st.booleans(),
)
def test_fixed_point_sums_round_each_row_once_half_to_even(
    library: Any, rows: Any, scale: float, weighted: bool
) -> None:
    group = np.array([r[0] for r in rows], dtype=np.int64)
    values = np.array([r[1] for r in rows], dtype=np.float64)
    weights = np.array([r[2] for r in rows], dtype=np.float64)
    sums = reference.wide(4)
    most = 2.0**74
    bad = library.sum_fixed(len(rows), None, values, weights if weighted else None, scale, most, [group], [sums])
    expected, refused = [0] * 4, 0
    for g, v, w in rows:
        product = (v * w if weighted else v) * scale
        if abs(product) < most:
            expected[g] += round(Fraction(product))
        else:
            refused += 1
    assert whole(sums) == expected
    assert bad == refused


@pytest.mark.parametrize("library", BOTH)
def test_values_too_large_or_not_numbers_are_counted_and_left_out(library: Any) -> None:
    sums = reference.wide(1)
    values = np.array([1.0, np.nan, np.inf, -np.inf, 2.0**74, 2.0**74 - 2.0**22, -3.0])
    group = np.zeros(7, dtype=np.int64)
    assert library.sum_fixed(7, None, values, None, 1.0, 2.0**74, [group], [sums]) == 4
    assert whole(sums) == [2**74 - 2**22 - 2]


@pytest.mark.parametrize("library", BOTH)
def test_sums_that_leave_64_bits_stay_exact(library: Any) -> None:
    sums = reference.wide(2)
    group = np.array([0, 0, 1, 1], dtype=np.int64)
    values = np.array([2**62, 2**62 + 1, -(2**62), -(2**63)], dtype=np.int64)
    for _ in range(50):
        library.sum_ints(4, None, values, [group], [sums])
    assert whole(sums) == [50 * (2**63 + 1), -50 * (2**62 + 2**63)]
    high, low = reference.limbs(sums)
    assert [int(h) * 2**32 + int(x) for h, x in zip(high, low, strict=True)] == whole(sums)


SCORES = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.integers(0, 2), st.booleans(), st.integers(1, 9)), min_size=1, max_size=60
)


@pytest.mark.parametrize("library", BOTH)
@settings(deadline=None, max_examples=60)
@given(rows=SCORES, by_code=st.booleans(), weighted=st.booleans())
def test_negatives_find_their_place_among_the_positives(library: Any, rows: Any, by_code: bool, weighted: bool) -> None:
    score = np.array([r[0] for r in rows], dtype=np.float32)
    code = np.array([r[1] if by_code else 0 for r in rows], dtype=np.int64)
    positive = np.array([r[2] for r in rows])
    counts = np.array([r[3] for r in rows], dtype=np.int64)
    bits = score_bits(score)
    ups, downs = np.flatnonzero(positive), np.flatnonzero(~positive)
    cuts = Cuts.of(bits[ups], code[ups] if by_code else None, counts[ups], 3 if by_code else 1)
    histogram, lost = np.zeros(cuts.places, dtype=np.int64), reference.wide(3)
    beaten = cuts.beaten().astype(np.float64)
    library.rank(
        len(downs), downs, bits[downs], code if by_code else None, counts[downs] if weighted else None,
        counts.astype(np.float64) if weighted else None, cuts.finder, beaten, histogram, code, lost,
    )  # fmt: skip
    assert library.places(bits[downs], code[downs] if by_code else None, *cuts.finder).tolist() == [
        int(p) for p in cuts.place(bits[downs], code[downs] if by_code else None)
    ]
    expected = [0, 0, 0]
    for i in downs:
        twice = sum(
            int(counts[j]) * (2 if score[j] < score[i] else score[j] == score[i]) for j in ups if code[j] == code[i]
        )
        expected[code[i]] += int(twice) * (int(counts[i]) if weighted else 1)
    assert whole(lost) == expected
    assert histogram.sum() == (counts[downs].sum() if weighted else len(downs))
    ladders = cuts.ladders(histogram)
    for c, ladder in enumerate(ladders):
        for s, equal, below in zip(ladder.score, ladder.equal, ladder.below, strict=True):
            mine = [(score[i], int(counts[i]) if weighted else 1) for i in downs if code[i] == c]
            assert int(equal) == sum(n for other, n in mine if other == np.float32(s))
            assert int(below) == sum(n for other, n in mine if other < np.float32(s))


@pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler: no compiled loops")
@settings(deadline=None, max_examples=60)
@given(rows=SCORES, weighted=st.booleans())
def test_cells_are_the_same_compiled(rows: Any, weighted: bool) -> None:
    assert LIBRARY is not None
    bits = score_bits(np.array([r[0] for r in rows], dtype=np.float32))
    code = np.array([r[1] for r in rows], dtype=np.int64)
    counts = np.array([r[3] for r in rows], dtype=np.int64) if weighted else None
    made = []
    for library in (reference, LIBRARY):
        total, low = (np.zeros(3 * (1 << 14), dtype=np.int64) for _ in range(2))
        library.cells(len(bits), None, bits, code, counts, 16, 0, 1 << 14, total, low)
        made.append((total, low))
    assert all((a == b).all() for a, b in zip(*made, strict=True))
    cells = Cells(16, 3)
    cells.add(bits, code, counts, positive=False)
    assert cells.table()[1].sum() == (len(bits) if counts is None else counts.sum())


TEXT = st.binary(max_size=3) | st.binary(max_size=50) | st.sampled_from([b"\0" * 7, b"\0" * 8, b"\0" * 39, b"\0" * 40])


@pytest.mark.parametrize("library", BOTH)
@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=20),
    words=st.integers(1, 5),
    kind=st.sampled_from([np.int32, np.int64]),
    before=st.binary(max_size=9),
    gaps=st.booleans(),
)
def test_a_key_is_the_bytes_of_a_text_and_its_length(
    library: Any, texts: Any, words: int, kind: Any, before: bytes, gaps: bool
) -> None:
    content = np.frombuffer(before + b"".join(text for text, _ in texts), dtype=np.uint8)
    offsets = np.cumsum([len(before), *(len(text) for text, _ in texts)]).astype(kind)
    missing = np.array([gap for _, gap in texts], dtype=np.uint8) if gaps else None
    keys = library.text_keys(offsets, missing, content, words)
    for i, (text, gap) in enumerate(texts):
        shown = b"" if gap and gaps else text
        if len(shown) >= 8 * words:
            assert keys[-1, i] == 0
            continue
        place = len(shown) if words == 1 else 8 * words - 1
        expected = bytearray(shown.ljust(8 * words, b"\0"))
        expected[place] = 1 if words == 1 else len(shown) + 1
        assert keys[:, i].astype("<u8").tobytes() == bytes(expected)


@pytest.mark.parametrize("library", BOTH)
@settings(deadline=None, max_examples=200)
@given(data=st.data(), words=st.integers(1, 3), bits=st.integers(1, 6), probes=st.integers(1, 30))
def test_keys_are_found_as_probing_slot_after_slot_finds_them(
    library: Any, data: Any, words: int, bits: int, probes: int
) -> None:
    size = 1 << bits
    word = st.integers(0, 3) | st.integers(0, 2**64 - 1)
    some = st.lists(st.tuples(*[word] * words), max_size=size)
    known = np.zeros((words, size), dtype=np.uint64)
    for key in data.draw(some):
        place = int(reference.first_slots(np.array([key], dtype=np.uint64).T, size)[0])
        free = next((s % size for s in range(place, place + size) if not known[-1, s % size]), None)
        if free is not None:
            known[:, free] = key
    asked = [*data.draw(some), *(tuple(key) for key in known.T.tolist())]
    keys = np.array(asked, dtype=np.uint64).reshape(-1, words).T
    slots, unknown = library.find_keys(known, keys, probes)
    expected, lacking = reference.first_slots(keys, size), []
    for row, key in enumerate(asked):
        for slot in range(int(expected[row]), int(expected[row]) + probes):
            if not key[-1] or not known[-1, slot % size]:
                lacking.append(row)
                break
            if tuple(known[:, slot % size].tolist()) == key:
                expected[row] = slot % size
                break
        else:
            lacking.append(row)
    assert unknown.tolist() == lacking
    assert slots.tolist() == expected.tolist()
    derived, sums = np.arange(size) * 0.1, np.full(len(asked), -0.0)
    assert library.add_found(known, keys, probes, derived, sums).tolist() == lacking
    known_rows = np.setdiff1d(np.arange(len(asked)), lacking)
    wanted = np.full(len(asked), -0.0)
    wanted[known_rows] += derived[expected[known_rows]]
    assert sums.tobytes() == wanted.tobytes()


def market(count: int, seed: int) -> dict[str, Any]:
    """Rows of every kind: cheap and dear, far and near, without a bid, with and without a value."""
    draw = np.random.default_rng(seed)
    price = np.exp(draw.normal(0, 3, count)) * (draw.random(count) > 0.02)
    bid = price * np.exp(draw.normal(0, 0.5, count)) + 1e-3
    bid[draw.random(count) < 0.05] = np.nan
    value = np.where(draw.random(count) < 0.1, draw.uniform(0, 50, count), 0.0)
    return {"price": price, "bid": bid, "value": value, "first": (draw.random(count) < 0.3).astype(np.uint8)}


@pytest.mark.skipif(LIBRARY is None, reason="installed without a C compiler: no compiled loops")
@pytest.mark.parametrize("beta", [0.01, 1.0, 1e3, 1e6, 1e9])
def test_utilities_are_the_same_compiled(beta: float) -> None:
    assert LIBRARY is not None
    rows = market(20_000, 20261125)
    table, normal = utility._tables()
    grid = (utility.FAR, utility.SHAPE_BITS, utility.OCTAVES, utility.DEVIATION_STEPS, table, normal)
    for picked in (None, np.arange(0, 20_000, 3)):
        for first in (None, rows["first"]):
            n = 20_000 if picked is None else len(picked)
            columns = (n, picked, rows["price"], rows["bid"], rows["value"], first, beta)
            ours, theirs = (library.utility(*columns, *grid) for library in (LIBRARY, reference))
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("beta", [0.1, 10.0, 1e3, 1e5, 1e8])
def test_the_table_is_near_the_incomplete_gamma_function(beta: float) -> None:
    rows = market(40_000, 7)
    columns = (rows["price"], rows["bid"], rows["value"], beta)
    for first in (None, rows["first"]):
        exact = utility.expected_utility(None, *columns, first)
        quick = utility.expected_utility(None, *columns, first, quick=True)
        # What P is multiplied by: the price that is paid, or what is left of the value.
        pays_bid = np.zeros(40_000, dtype=bool) if first is None else first == 1
        bid = np.nan_to_num(rows["bid"]) / 1e3
        factor = np.where(pays_bid, np.abs(rows["value"] - bid), rows["price"] / 1e3 + 1 / beta)
        error = np.abs(quick - exact)[factor > 0] / factor[factor > 0]
        assert error[~pays_bid[factor > 0]].max() < 1.5e-6
        assert error.max() < 5e-6
        if first is None:
            assert abs(((quick - exact)[factor > 0] / factor[factor > 0]).mean()) < 1e-7
