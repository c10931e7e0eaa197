"""What the compiled loops do, with numpy: their definition, their test, and what runs where no compiler was found.

Sums are whole numbers of 128 bits, as pairs of 64-bit words in an array of shape (groups, 2): the low word unsigned, the
high one in two's complement. Arguments `rows` name the rows of a batch that a call is about, None for all of them;
arrays named `values`, `bits` and `counts` have an entry for each of these, all others for each row of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Wide = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint64]  # shape (words, n), see models/keys.py

_LOW, _LIMB = np.uint64(0xFFFFFFFF), np.uint64(32)
# So many whole numbers below 2^20 have a sum that a double holds exactly.
_CHUNK, _DIGIT = 1 << 32, 20


def wide(groups: int) -> Wide:
    """Sums of nothing."""
    return np.zeros((groups, 2), dtype=np.uint64)


def add_wide(sums: Wide, low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]) -> None:
    """Add other whole numbers of 128 bits in place."""
    with np.errstate(over="ignore"):
        before = sums[:, 0].copy()
        sums[:, 0] += low
        sums[:, 1] += high + (sums[:, 0] < before)


def limbs(sums: Wide) -> tuple[Ints, Ints]:
    """(high, low): the sums as high * 2^32 + low, low in [0, 2^32); they must be below 2^95 in size."""
    low = (sums[:, 0] & _LOW).astype(np.int64)
    high = (sums[:, 1] << _LIMB) | (sums[:, 0] >> _LIMB)
    return high.view(np.int64).copy(), low


def sum_ones(n: int, rows: Ints | None, groups: Sequence[Ints], sums: Sequence[Wide]) -> None:
    """Count rows by group, in each family. n: number of rows."""
    for group, each in zip(groups, sums, strict=True):
        at = group if rows is None else group[rows]
        counts = np.bincount(at, minlength=len(each)).astype(np.uint64)
        add_wide(each, counts, np.zeros_like(counts))


def sum_ints(n: int, rows: Ints | None, values: Ints, groups: Sequence[Ints], sums: Sequence[Wide]) -> None:
    """Sum whole numbers by group, in each family."""
    if n == 0:
        return
    least, most = int(values.min()), int(values.max())
    for group, each in zip(groups, sums, strict=True):
        _add_ints(group if rows is None else group[rows], values, max(-least, most).bit_length(), least < 0, each)


def _add_ints(at: Ints, values: Ints, bits: int, signed: bool, sums: Wide) -> None:
    shift = 0
    while shift < max(bits, 1):
        # The last digit keeps the sign; numbers of 20 bits or less are one digit.
        last = shift + _DIGIT >= bits
        digit = values >> shift if last else (values >> shift) & ((1 << _DIGIT) - 1)
        part = np.bincount(at, weights=digit, minlength=len(sums)).astype(np.int64)
        _add_shifted(sums, part, shift)
        shift += _DIGIT


def _add_shifted(sums: Wide, part: Ints, shift: int) -> None:
    """Add part * 2^shift, shift < 64."""
    low = part.view(np.uint64) << np.uint64(shift)
    high = (part >> (64 - shift)) if shift else (part >> 63)
    add_wide(sums, low, high.view(np.uint64))


def sum_fixed(
    n: int,
    rows: Ints | None,
    values: Floats,
    weights: Floats | None,
    scale: float,
    most: float,
    groups: Sequence[Ints],
    sums: Sequence[Wide],
) -> int:
    """Sum values * weights * scale, each rounded to a whole number (ties to even), by group, in each family.

    Returns how many are `most` or more in size, or no numbers; these are left out.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if weights is not None:
            values = values * (weights if rows is None else weights[rows])
        whole = np.rint(values * scale)
        good = np.abs(whole) < most
    bad = int(len(good) - np.count_nonzero(good))
    if bad:
        whole = np.where(good, whole, 0.0)
    size = float(np.abs(whole).max()) if len(whole) else 0.0
    if size == 0.0:
        return bad
    high = np.floor(whole * 2.0**-32)
    low = (whole - high * 2.0**32).astype(np.int64)
    parts = [(low, 0), (high.astype(np.int64), 32)] if size >= 2.0**31 else [(whole.astype(np.int64), 0)]
    for group, each in zip(groups, sums, strict=True):
        at = group if rows is None else group[rows]
        for part, shift in parts:
            partial = wide(len(each))
            _add_ints(at, part, max(abs(int(part.min())), abs(int(part.max()))).bit_length(), True, partial)
            add_wide(each, *_shifted(partial, shift))
    return bad


def _shifted(sums: Wide, shift: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    if not shift:
        return sums[:, 0], sums[:, 1]
    s = np.uint64(shift)
    return sums[:, 0] << s, (sums[:, 1] << s) | (sums[:, 0] >> np.uint64(64 - shift))


def places(
    bits: Ints, code: Ints | None, lowest: int, span: int, shift: int, table: npt.NDArray[np.int32], keys: Ints
) -> Ints:
    """The place of each score among the cuts, see ranking.Cuts. code: segment value of each of these scores."""
    # Scores outside the positives' range only need to stay outside it.
    wanted = np.clip(bits - lowest, 0, span - 1)
    if code is not None:
        wanted += code * span
    cell = wanted >> shift
    low: Ints = table[cell].astype(np.int64)
    high = table[cell + 1]
    searched = np.flatnonzero(low < high)
    low *= 2
    if len(searched):
        a, b, k = low[searched] >> 1, high[searched].astype(np.int64), wanted[searched]
        for _ in range(int((b - a).max()).bit_length()):
            middle = (a + b) >> 1
            # Where a search has ended (a == b) nothing moves any more.
            below = (a < b) & (keys[np.minimum(middle, len(keys) - 1)] < k)
            a, b = np.where(below, middle + 1, a), np.where(below, b, np.minimum(b, middle))
        equal = keys[np.minimum(a, len(keys) - 1)] == k
        low[searched] = 2 * a + equal
    return low


def rank(
    n: int,
    rows: Ints | None,
    bits: Ints,
    code: Ints | None,
    counts: Ints | None,
    weights: Floats | None,
    cuts: tuple[int, int, int, npt.NDArray[np.int32], Ints],
    beaten: Floats,
    histogram: Ints,
    group: Ints,
    lost: Wide,
) -> None:
    """Add negatives to the histogram of places, and the share of positives below each (beaten) to its group.

    cuts: lowest, span, shift, table and keys as `places` takes them.
    """

    def take(column: Any) -> Any:
        return column if rows is None or column is None else column[rows]

    at = places(bits, take(code), *cuts)
    if counts is None:
        histogram += np.bincount(at, minlength=len(histogram))
    else:
        np.add.at(histogram, at, counts)
    sum_fixed(n, None, beaten[at], take(weights), 1.0, 2.0**74, [take(group)], [lost])


def cells(
    n: int,
    rows: Ints | None,
    bits: Ints,
    code: Ints | None,
    counts: Ints | None,
    shift: int,
    first: int,
    span: int,
    total: Ints,
    low: Ints | None,
) -> None:
    """Count rows by segment value and cell of the score, bits >> shift; low: sums of the bits below the cell's."""
    at = (bits >> shift) - first
    if code is not None:
        at += (code if rows is None else code[rows]) * span
    np.add.at(total, at, 1 if counts is None else counts)
    if low is not None:
        below = bits & ((1 << shift) - 1)
        np.add.at(low, at, below if counts is None else below * counts)


def root3(x: Floats) -> Floats:
    """The cube root of positive numbers, to a few units in the last place, by arithmetic that is the same everywhere."""
    root: Floats = (x.view(np.int64) // 3 + 0x2A9F7893782DA1CE).view(np.float64)
    for _ in range(2):
        cube = root * root * root
        root = root * ((cube + (x + x)) / ((cube + cube) + x))
    return root


def utility(
    n: int,
    rows: Ints | None,
    price: Floats,
    bid: Floats,
    value: Floats,
    first: npt.NDArray[np.uint8] | None,
    beta: float,
    far: float,
    shape_bits: int,
    octaves: int,
    deviation_steps: int,
    table: Floats,
    normal: Floats,
) -> Floats:
    """What a bid pays in expectation, or in first price its whole utility, shape (n,): see statistics/utility.py.

    price, bid: CPM, bid NaN where there is none; value: currency; first: 1 where a win pays its bid.
    table: P minus the normal approximation, shape (shapes, deviations); normal: the normal distribution function at the
    same deviations, from one step below -far.
    """

    def take(column: Any) -> Any:
        return column if rows is None else column[rows]

    out = np.zeros(n)
    bids = np.flatnonzero(take(bid) > 0)
    z, b, vy = take(price)[bids] / 1e3, take(bid)[bids] / 1e3, take(value)[bids]
    pays_bid = np.zeros(len(bids), dtype=bool) if first is None else take(first)[bids] == 1
    a, x = beta * z + 1.0, beta * b
    shape = np.where(pays_bid, a, a + 1.0)
    ratio, middle, width = x / shape, 1.0 - 1.0 / (9.0 * shape), np.sqrt(shape) * 3.0
    reach = far / width
    above, below = middle + reach, middle - reach
    p = (ratio >= above * above * above).astype(np.float64)
    near = np.flatnonzero((p == 0.0) & (ratio > below * below * below))
    deviation = (root3(ratio[near]) - middle[near]) * width[near]
    p[near] = _looked_up(shape[near], deviation, far, shape_bits, octaves, deviation_steps, table, normal)
    out[bids] = np.where(pays_bid, (vy - b) * p, -a * (1.0 / beta) * p)
    return out


def _looked_up(
    shape: Floats,
    deviation: Floats,
    far: float,
    shape_bits: int,
    octaves: int,
    deviation_steps: int,
    table: Floats,
    normal: Floats,
) -> Floats:
    bits = shape.view(np.int64)
    rest = 52 - shape_bits
    line = (bits >> rest) - (1023 << shape_bits)
    across = (bits & ((1 << rest) - 1)).astype(np.float64) * (1.0 / (1 << rest))
    beyond = line >= octaves << shape_bits
    line, across = np.where(beyond, octaves << shape_bits, line), np.where(beyond, 0.0, across)
    # The test for what is far and this may differ by a rounding.
    column = np.clip((deviation + far) * float(deviation_steps), 0.0, 2.0 * far * float(deviation_steps))
    j = column.astype(np.int64)
    u = column - j
    low = table[line, j] + u * (table[line, j + 1] - table[line, j])
    high = table[line + 1, j] + u * (table[line + 1, j + 1] - table[line + 1, j])
    y = [normal[j + k] for k in range(4)]
    sixth = 1.0 / 6.0
    inner, outer = (u + 1.0) * (u - 2.0), u * (u - 1.0)
    smooth = (inner * (u - 1.0) * 0.5 * y[1] - inner * u * 0.5 * y[2]) + (
        outer * (u + 1.0) * sixth * y[3] - outer * (u - 2.0) * sixth * y[0]
    )
    return np.asarray((smooth + low) + across * (high - low))


MAX_WORDS = 5
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiplying spreads what is close together
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(9)], dtype=np.uint64)
_TAGS = np.array([(length + 1) << 56 for length in range(8 * MAX_WORDS)], dtype=np.uint64)
_NEAR = 3  # slots looked at together after the first, before all others


def text_keys(offsets: npt.NDArray[np.signedinteger[Any]], missing: Bytes | None, content: Bytes, words: int) -> Keys:
    """Texts as keys, shape (words, n): their bytes in words of eight, and their length in the last word's last byte.

    offsets: shape (n + 1,), int32 or int64, into content; missing: 1 where a text counts as empty. A key of one word has
    a one after the text's last byte. The last word is 0 where a text has 8 * words bytes or more.
    """
    first, end = int(offsets[0]), int(offsets[-1])
    starts = offsets[:-1].astype(np.int64) - first
    lengths = np.diff(offsets).astype(np.int64)
    if missing is not None:
        lengths = np.where(missing, 0, lengths)
    padded = np.concatenate([content[first:end], np.zeros(8 * words, dtype=np.uint8)])
    # Eight bytes from every position, overlapping.
    view = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))
    keys = np.empty((words, len(lengths)), dtype=np.uint64)
    for word in range(words):
        # `take` copies the whole view first, which pays where texts are short.
        found = view.take(starts + 8 * word) if len(padded) < 8 * len(lengths) else view[starts + 8 * word]
        np.bitwise_and(found, _MASKS.take(np.clip(lengths - 8 * word, 0, 8)), out=keys[word])
    if words == 1:
        keys += _MASKS.take(lengths, mode="clip") + np.uint64(1)
    else:
        keys[-1] |= _TAGS.take(lengths, mode="clip")
    keys[-1, lengths >= 8 * words] = 0
    return keys


def find_keys(known: Keys, keys: Keys, probes: int) -> tuple[Ints, Ints]:
    """(slots, unknown): where keys stand in an open-addressing table, and the rows whose key it lacks.

    known: shape (words, slots), a power of two of them, 0 in the last word where a slot is free. A key stands within
    `probes` slots from its first one, with no free one before it; unknown rows have their first slot.
    """
    slots = first_slots(keys, known.shape[1])
    here = _equal(known, keys, slots)
    rows = np.flatnonzero(~here | (keys[-1] == 0))
    unknown = [rows[keys[-1, rows] == 0]]
    rows = rows[keys[-1, rows] != 0]
    step = 1
    for width in (min(_NEAR, probes - 1), max(0, probes - 1 - _NEAR)):
        near = (slots[rows, None] + np.arange(step, step + width)) & (known.shape[1] - 1)
        same = _equal(known, keys[:, rows, None], near)
        which = same.argmax(axis=1) if width else np.zeros(len(rows), dtype=np.int64)
        found = same.any(axis=1)
        slots[rows[found]] = near[found, which[found]]
        ended = ~found & (known[-1].take(near) == 0).any(axis=1)
        unknown.append(rows[ended])
        # `slots` still is the first place for the others.
        rows = rows[~found & ~ended]
        step += width
    return slots, np.sort(np.concatenate([*unknown, rows]))


def add_found(known: Keys, keys: Keys, probes: int, derived: Floats, sums: Floats) -> Ints:
    """Add derived[slot] to the sum of each row whose key the table has; returns the other rows. See `find_keys`."""
    slots, unknown = find_keys(known, keys, probes)
    more = derived.take(slots)
    more[unknown] = 0.0
    before = sums[unknown]
    sums += more
    sums[unknown] = before  # a sum of -0 stays one
    return unknown


def first_slots(keys: Keys, size: int) -> Ints:
    """Where the search for a key begins in a table of `size`, a power of two above 1."""
    mixed = keys[0] * MIX
    for word in keys[1:]:
        mixed = (mixed ^ (mixed >> _LIMB) ^ word) * MIX
    mixed >>= np.uint64(65 - size.bit_length())
    return np.asarray(mixed.view(np.int64))


def _equal(known: Keys, keys: Keys, slots: Ints) -> npt.NDArray[np.bool_]:
    """Whether a slot, or each of several, holds the key of its row; the word that makes an entry count is read first."""
    same: npt.NDArray[np.bool_] = known[-1].take(slots) == keys[-1]
    for word in range(len(known) - 1):
        same &= known[word].take(slots) == keys[word]
    return same
