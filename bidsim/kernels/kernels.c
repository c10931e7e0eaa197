/* Loops over the rows of a batch that numpy would make many passes of: exact sums by group, places among cut points,
 * cells of scores, expected utilities, categories by key. Every function does what its namesake in reference.py does, to the bit: only
 * additions, multiplications, divisions and square roots of IEEE 754, no contraction, no function of a libm. Arrays
 * are as long as reference.py says; nothing is allocated, nothing is kept. */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* A whole number of 128 bits in two's complement: sums that can't overflow (2^63 rows of 2^64). */
typedef struct {
  uint64_t low;
  int64_t high;
} wide;

static inline void add_int(wide *sum, int64_t value) {
  uint64_t before = sum->low;
  sum->low = before + (uint64_t)value;
  sum->high += (value >> 63) + (sum->low < before);
}

/* value: whole, below 2^74 in size. */
static inline void add_whole(wide *sum, double value) {
  if (value < 9e18 && value > -9e18) {
    add_int(sum, (int64_t)value);
    return;
  }
  double high = floor(value * 0x1p-32), low = value - high * 0x1p32; /* exact */
  int64_t part = (int64_t)high;
  wide more = {(uint64_t)part << 32, part >> 32};
  uint64_t before = sum->low;
  sum->low = before + more.low;
  sum->high += more.high + (sum->low < before);
  add_int(sum, (int64_t)low);
}

/* To the nearest whole number, ties to even, as numpy's rint. */
static inline double nearest(double x) {
  double size = fabs(x);
  if (!(size < 0x1p52)) return x;
  return copysign((size + 0x1p52) - 0x1p52, x);
}

#define BLOCK 512

/* The same operations on more rows at once where the processor can: no bit of a result depends on it. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

/* As VERSION of compiled.py. */
int version(void) { return 3; }

void sum_ones(int64_t n, const int64_t *rows, int64_t families, const int64_t *const *groups, wide *const *sums) {
  for (int64_t f = 0; f < families; f++) {
    const int64_t *group = groups[f];
    wide *sum = sums[f];
    if (rows)
      for (int64_t i = 0; i < n; i++) add_int(&sum[group[rows[i]]], 1);
    else
      for (int64_t i = 0; i < n; i++) add_int(&sum[group[i]], 1);
  }
}

void sum_ints(int64_t n, const int64_t *rows, const int64_t *values, int64_t families, const int64_t *const *groups,
              wide *const *sums) {
  for (int64_t f = 0; f < families; f++) {
    const int64_t *group = groups[f];
    wide *sum = sums[f];
    if (rows)
      for (int64_t i = 0; i < n; i++) add_int(&sum[group[rows[i]]], values[i]);
    else
      for (int64_t i = 0; i < n; i++) add_int(&sum[group[i]], values[i]);
  }
}

/* The rows of a block; returns the number of values that are `most` or more in size, or not numbers, which count as 0. */
VECTORISED static int64_t wholes(int64_t n, const double *values, const double *weights, double scale, double most,
                                 double *whole) {
  int64_t bad = 0;
  for (int64_t i = 0; i < n; i++) {
    double value = nearest((weights ? values[i] * weights[i] : values[i]) * scale);
    int64_t fits = fabs(value) < most;
    bad += 1 - fits;
    whole[i] = fits ? value : 0.0;
  }
  return bad;
}

/* Returns the number of values of `most` or more in size, or not numbers, which are left out. */
int64_t sum_fixed(int64_t n, const int64_t *rows, const double *values, const double *weights, double scale, double most,
                  int64_t families, const int64_t *const *groups, wide *const *sums) {
  double whole[BLOCK], weight[BLOCK];
  int64_t small[BLOCK], bad = 0;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    int64_t count = n - begin < BLOCK ? n - begin : BLOCK, large = 0;
    const double *w = weights && !rows ? weights + begin : 0;
    if (weights && rows) {
      for (int64_t i = 0; i < count; i++) weight[i] = weights[rows[begin + i]];
      w = weight;
    }
    bad += wholes(count, values + begin, w, scale, most, whole);
    for (int64_t i = 0; i < count; i++) large |= !(whole[i] < 9e18 && whole[i] > -9e18);
    if (!large)
      for (int64_t i = 0; i < count; i++) small[i] = (int64_t)whole[i];
    for (int64_t f = 0; f < families; f++) {
      const int64_t *group = rows ? groups[f] : groups[f] + begin, *at = rows ? rows + begin : 0;
      wide *sum = sums[f];
      if (large)
        for (int64_t i = 0; i < count; i++) add_whole(&sum[group[at ? at[i] : i]], whole[i]);
      else if (at)
        for (int64_t i = 0; i < count; i++) add_int(&sum[group[at[i]]], small[i]);
      else
        for (int64_t i = 0; i < count; i++) add_int(&sum[group[i]], small[i]);
    }
  }
  return bad;
}

/* Where each row's score stands among the cuts (ranking.Cuts.place). */
static inline int64_t place_of(int64_t key, int64_t shift, const int32_t *table, const int64_t *keys, int64_t cuts) {
  int64_t a = table[key >> shift], b = table[(key >> shift) + 1];
  if (a >= b) return 2 * a;
  while (a < b) {
    int64_t middle = (a + b) >> 1;
    if (keys[middle] < key)
      a = middle + 1;
    else
      b = middle;
  }
  return 2 * a + (keys[a < cuts ? a : cuts - 1] == key);
}

static inline int64_t key_of(int64_t bits, int64_t code, int64_t lowest, int64_t span) {
  int64_t key = bits - lowest;
  if (key < 0) key = 0;
  if (key > span - 1) key = span - 1;
  return key + code * span;
}

void places(int64_t n, const int64_t *bits, const int64_t *code, int64_t lowest, int64_t span, int64_t shift,
            const int32_t *table, const int64_t *keys, int64_t cuts, int64_t *out) {
  for (int64_t i = 0; i < n; i++)
    out[i] = place_of(key_of(bits[i], code ? code[i] : 0, lowest, span), shift, table, keys, cuts);
}

/* Negatives: their weight at their place among the cuts, and the share of positives below each of them by group. The
 * tables are larger than a processor's caches, so every look is announced a few hundred rows ahead. */
void rank(int64_t n, const int64_t *rows, const int64_t *bits, const int64_t *code, const int64_t *counts,
          const double *weights, int64_t lowest, int64_t span, int64_t shift, const int32_t *table, const int64_t *keys,
          int64_t cuts, const double *beaten, int64_t *histogram, const int64_t *group, wide *lost) {
  int64_t key[BLOCK], at[BLOCK];
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    int64_t count = n - begin < BLOCK ? n - begin : BLOCK;
    for (int64_t i = 0; i < count; i++) {
      int64_t row = rows ? rows[begin + i] : begin + i;
      key[i] = key_of(bits[begin + i], code ? code[row] : 0, lowest, span);
      __builtin_prefetch(table + (key[i] >> shift));
    }
    for (int64_t i = 0; i < count; i++) __builtin_prefetch(keys + table[key[i] >> shift]);
    for (int64_t i = 0; i < count; i++) {
      at[i] = place_of(key[i], shift, table, keys, cuts);
      __builtin_prefetch(beaten + at[i]);
      __builtin_prefetch(histogram + at[i], 1);
    }
    for (int64_t i = 0; i < count; i++) {
      int64_t row = rows ? rows[begin + i] : begin + i;
      histogram[at[i]] += counts ? counts[begin + i] : 1;
      double share = beaten[at[i]];
      if (weights) share = nearest(share * weights[row]);
      if (share != 0.0) add_whole(&lost[group[row]], share);
    }
  }
}

/* Rows by segment value and cell of the score; low: sum of the bits below the cell's. */
void cells(int64_t n, const int64_t *rows, const int64_t *bits, const int64_t *code, const int64_t *counts, int64_t shift,
           int64_t first, int64_t span, int64_t *total, int64_t *low) {
  int64_t mask = ((int64_t)1 << shift) - 1;
  for (int64_t i = 0; i < n; i++) {
    int64_t at = (bits[i] >> shift) - first;
    if (code) at += code[rows ? rows[i] : i] * span;
    int64_t count = counts ? counts[i] : 1;
    total[at] += count;
    if (low) low[at] += count * (bits[i] & mask);
  }
}

/* What a bid pays in expectation (second price), or the chance that it wins (first price): see statistics/utility.py.
 * table: P minus the normal approximation, shapes by steps of an octave's 1/2^shape_bits; normal: its values at
 * 1/deviation_steps, beginning one step below -far. out: utility without the value of results.
 *
 * In blocks, step by step: divisions and square roots of several rows at once are most of the time saved. The cube root
 * of a positive number, to a few units in the last place, is two steps of Halley's from a guess on its bits. */
VECTORISED void utility(int64_t n, const int64_t *rows, const double *price, const double *bid, const double *value,
                        const uint8_t *first, double beta, double far, int64_t shape_bits, int64_t octaves,
                        int64_t deviation_steps, const double *table, int64_t width, const double *normal, double *out) {
  int64_t last = octaves << shape_bits;
  double unit = 1.0 / (double)((int64_t)1 << (52 - shape_bits)), sixth = 1.0 / 6.0, per_beta = 1.0 / beta;
  double steps = (double)deviation_steps, most = 2.0 * far * steps;
  double z[BLOCK], b[BLOCK], a[BLOCK], shape[BLOCK], ratio[BLOCK], above[BLOCK], below[BLOCK], root[BLOCK], column[BLOCK];
  double middle[BLOCK], spread[BLOCK];
  int64_t line[BLOCK];
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    int64_t count = n - begin < BLOCK ? n - begin : BLOCK;
    if (rows)
      for (int64_t i = 0; i < count; i++) z[i] = price[rows[begin + i]], b[i] = bid[rows[begin + i]];
    else
      for (int64_t i = 0; i < count; i++) z[i] = price[begin + i], b[i] = bid[begin + i];
    for (int64_t i = 0; i < count; i++) {
      z[i] = z[i] / 1e3;
      b[i] = b[i] / 1e3;
      a[i] = beta * z[i] + 1.0;
      shape[i] = a[i] + 1.0;
    }
    if (first)
      for (int64_t i = 0; i < count; i++)
        if (first[rows ? rows[begin + i] : begin + i] == 1) shape[i] = a[i];
    for (int64_t i = 0; i < count; i++) {
      middle[i] = 1.0 - 1.0 / (9.0 * shape[i]);
      spread[i] = sqrt(shape[i]) * 3.0;
      double reach = far / spread[i], high = middle[i] + reach, low = middle[i] - reach;
      ratio[i] = beta * b[i] / shape[i];
      above[i] = high * high * high;
      below[i] = low * low * low;
    }
    for (int64_t i = 0; i < count; i++) {
      int64_t bits;
      memcpy(&bits, &ratio[i], 8);
      bits = bits / 3 + 0x2A9F7893782DA1CE;
      memcpy(&root[i], &bits, 8);
    }
    for (int64_t i = 0; i < count; i++) {
      double t = root[i], x = ratio[i];
      for (int step = 0; step < 2; step++) {
        double cube = t * t * t;
        t = t * ((cube + (x + x)) / ((cube + cube) + x));
      }
      double at = ((t - middle[i]) * spread[i] + far) * steps;
      at = at > 0.0 ? at : 0.0; /* far off, or no bid; or the tests for that differ by a rounding */
      column[i] = at < most ? at : most;
    }
    for (int64_t i = 0; i < count; i++) {
      int64_t bits;
      memcpy(&bits, &shape[i], 8);
      bits = (bits >> (52 - shape_bits)) - ((int64_t)1023 << shape_bits);
      line[i] = bits < 0 ? 0 : bits < last ? bits : last; /* no index leaves the table, whatever stands in the log */
      const double *here = table + line[i] * width + (int64_t)column[i];
      __builtin_prefetch(here);
      __builtin_prefetch(here + width);
    }
    for (int64_t i = 0; i < count; i++) {
      int64_t row = rows ? rows[begin + i] : begin + i;
      double p;
      out[begin + i] = 0.0;
      if (!(b[i] > 0)) continue;
      if (ratio[i] >= above[i])
        p = 1.0;
      else if (ratio[i] <= below[i]) /* a shape below far^2 / 9 has no far end below */
        p = 0.0;
      else {
        int64_t bits;
        memcpy(&bits, &shape[i], 8);
        double across = (double)(bits & (((int64_t)1 << (52 - shape_bits)) - 1)) * unit;
        if (line[i] == last) across = 0.0;
        double at = column[i];
        int64_t j = (int64_t)at;
        double u = at - (double)j;
        const double *here = table + line[i] * width + j, *next = here + width, *y = normal + j;
        double low = here[0] + u * (here[1] - here[0]), high = next[0] + u * (next[1] - next[0]);
        double inner = (u + 1.0) * (u - 2.0), outer = u * (u - 1.0);
        double smooth = (inner * (u - 1.0) * 0.5 * y[1] - inner * u * 0.5 * y[2]) +
                        (outer * (u + 1.0) * sixth * y[3] - outer * (u - 2.0) * sixth * y[0]);
        p = (smooth + low) + across * (high - low);
      }
      out[begin + i] = first && first[row] == 1 ? (value[row] - b[i]) * p : -a[i] * per_beta * p;
    }
  }
}

static inline int64_t offset_at(const void *offsets, int64_t wide_offsets, int64_t i) {
  return wide_offsets ? ((const int64_t *)offsets)[i] : ((const int32_t *)offsets)[i];
}

/* The last `left` bytes of eight at most, without a look beyond `end`. */
static inline uint64_t bytes_at(const uint8_t *content, int64_t start, int64_t left, int64_t end) {
  uint64_t found = 0;
  if (left <= 0) return 0;
  if (left > 8) left = 8;
  if (start + 8 <= end) {
    memcpy(&found, content + start, 8);
    return left == 8 ? found : found & (((uint64_t)1 << (8 * left)) - 1);
  }
  memcpy(&found, content + start, (size_t)left);
  return found;
}

static inline void keys_of(int64_t n, const void *offsets, int64_t wide_offsets, const uint8_t *missing,
                           const uint8_t *content, int64_t end, int64_t words, uint64_t *keys) {
  for (int64_t i = 0; i < n; i++) {
    int64_t start = offset_at(offsets, wide_offsets, i), length = offset_at(offsets, wide_offsets, i + 1) - start;
    if (missing && missing[i]) length = 0;
    if (words == 1) { /* a one after the text's last byte tells lengths apart */
      keys[i] = length < 8 ? bytes_at(content, start, length, end) | ((uint64_t)1 << (8 * length)) : 0;
      continue;
    }
    for (int64_t w = 0; w < words; w++)
      keys[w * n + i] = bytes_at(content, start + 8 * w, length - 8 * w, end);
    if (length < 8 * words)
      keys[(words - 1) * n + i] |= (uint64_t)(length + 1) << 56;
    else
      keys[(words - 1) * n + i] = 0;
  }
}

/* Texts as keys of `words` words; the last is 0 where a text has too many bytes for them. */
void text_keys(int64_t n, const void *offsets, int64_t wide_offsets, const uint8_t *missing, const uint8_t *content,
               int64_t end, int64_t words, uint64_t *keys) {
  if (words == 1 && !wide_offsets && !missing)
    keys_of(n, offsets, 0, 0, content, end, 1, keys); /* the usual ones, compiled by themselves */
  else
    keys_of(n, offsets, wide_offsets, missing, content, end, words, keys);
}

static inline int64_t first_slot(const uint64_t *keys, int64_t n, int64_t words, int64_t shift) {
  const uint64_t mix = 0x9E3779B97F4A7C15u;
  uint64_t mixed = keys[0] * mix;
  for (int64_t w = 1; w < words; w++) mixed = (mixed ^ (mixed >> 32) ^ keys[w * n]) * mix;
  return (int64_t)(mixed >> shift);
}

static inline int shift_of(int64_t size) {
  int shift = 64;
  for (int64_t rest = size; rest > 1; rest >>= 1) shift--;
  return shift;
}

/* Either keeps the slots of rows, or adds what `derived` has there to their sums. */
static inline int64_t look_for(int64_t n, int64_t words, const uint64_t *keys, int64_t size, const uint64_t *known,
                               int64_t probes, int64_t *slots, const double *derived, double *sums, int64_t *unknown) {
  int64_t count = 0, shift = shift_of(size), firsts[BLOCK];
  const uint64_t *marks = known + (words - 1) * size; /* the word that is written last and makes an entry count */
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    int64_t length = n - begin < BLOCK ? n - begin : BLOCK;
    for (int64_t i = 0; i < length; i++) {
      firsts[i] = first_slot(keys + begin + i, n, words, shift);
      __builtin_prefetch(marks + firsts[i]);
      if (derived) __builtin_prefetch(derived + firsts[i]);
    }
    for (int64_t i = 0; i < length; i++) {
      int64_t row = begin + i, slot = firsts[i];
      uint64_t last = keys[(words - 1) * n + row];
      int64_t step = last ? 0 : probes;
      for (; step < probes; step++, slot = (slot + 1) & (size - 1)) {
        uint64_t mark = __atomic_load_n(marks + slot, __ATOMIC_ACQUIRE);
        if (mark == last) {
          int64_t w = 0;
          while (w < words - 1 && known[w * size + slot] == keys[w * n + row]) w++;
          if (w == words - 1) break;
        }
        if (!mark) step = probes;
      }
      if (step >= probes) {
        unknown[count++] = row;
        slot = firsts[i];
      } else if (derived)
        sums[row] += derived[slot];
      if (slots) slots[row] = slot;
    }
  }
  return count;
}

/* The slots of keys in a table of `size`, a power of two above 1: of a row that it lacks, the first, and the row is
 * among the unknown, whose number is returned. */
int64_t find_keys(int64_t n, int64_t words, const uint64_t *keys, int64_t size, const uint64_t *known, int64_t probes,
                  int64_t *slots, int64_t *unknown) {
  if (words == 1) return look_for(n, 1, keys, size, known, probes, slots, 0, 0, unknown);
  return look_for(n, words, keys, size, known, probes, slots, 0, 0, unknown);
}

/* Adds what `derived` has at the slot of each row's key to the row's sum; returns the number of unknown rows. */
int64_t add_found(int64_t n, int64_t words, const uint64_t *keys, int64_t size, const uint64_t *known, int64_t probes,
                  const double *derived, double *sums, int64_t *unknown) {
  if (words == 1) return look_for(n, 1, keys, size, known, probes, 0, derived, sums, unknown);
  return look_for(n, words, keys, size, known, probes, 0, derived, sums, unknown);
}
