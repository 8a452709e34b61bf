// Order: the first rows by some columns, and the stable sort that seals rows.
#include "columns.h"
#include "scan.h"

#define DIGITS 256u

// One column of an order. Rows compare by class first, null or value, then by the value's digits.
typedef struct {
  u32 column;
  u32 descending;
  u32 nulls_first;
  u32 unused;
} OrderKey;

typedef struct {
  u64 digits;
  u32 class_;
  u32 unused;
} Rank;

enum { CLASS_NULL_FIRST, CLASS_VALUE, CLASS_NULL_LAST };
// The number of the digit that stands for the class.
#define DIGIT_CLASS 8u

typedef struct {
  Rows rows;
  u64 bits;     // const u32*: the places in question
  u64 keys;     // const OrderKey*
  u64 chosen;   // const Rank*: one for each key that is decided on, and one for the key in question
  u64 counts;   // u64*: of each digit how many rows have it
  u32 key;      // the key in question
  u32 digit;    // its digit in question; those above it are decided on
} CountDigitsArgs;

INLINE Rank rank_of(const Rows* rows, const OrderKey* key, u32 row, u32 piece) {
  const Column column = AT(const Column, rows->columns)[key->column];
  Rank rank = {0, CLASS_VALUE, 0};
  if (!is_valid(&column, row, piece)) {
    rank.class_ = key->nulls_first ? CLASS_NULL_FIRST : CLASS_NULL_LAST;
    return rank;
  }
  rank.digits = (u64)image_at(&column, row, piece) ^ 0x8000000000000000ull;
  if (key->descending) rank.digits = ~rank.digits;
  return rank;
}

// Below, within or above the rank: 0, 1 or 2.
INLINE u32 compare_rank(Rank rank, Rank with) {
  if (rank.class_ != with.class_) return rank.class_ < with.class_ ? 0 : 2;
  if (rank.digits != with.digits) return rank.digits < with.digits ? 0 : 2;
  return 1;
}

INLINE u64 digits_above(u64 digits, u32 digit) { return digit < 7u ? digits >> (8u * (digit + 1u)) : 0; }

KERNEL(count_digits, CountDigitsArgs, BLOCK) {
  SHARED u32 counts[DIGITS];
  const OrderKey* keys = AT(const OrderKey, a.keys);
  const Rank* chosen = AT(const Rank, a.chosen);
  counts[thread_index()] = 0;
  block_barrier();
  for (u32 place = block_index() * BLOCK + thread_index(); place < a.rows.places; place += grid_blocks() * BLOCK) {
    if (!bit_at(a.bits, place)) continue;
    u32 piece = piece_of(&a.rows, place), row = row_of(&a.rows, piece, place), equal = 1;
    for (u32 k = 0; k < a.key && equal; ++k) {
      equal = compare_rank(rank_of(&a.rows, &keys[k], row, piece), chosen[k]) == 1u;
    }
    if (!equal) continue;
    Rank rank = rank_of(&a.rows, &keys[a.key], row, piece);
    if (a.digit == DIGIT_CLASS) {
      atomic_add_u32(&counts[rank.class_], 1u);
    } else if (rank.class_ == chosen[a.key].class_ &&
               digits_above(rank.digits, a.digit) == digits_above(chosen[a.key].digits, a.digit)) {
      atomic_add_u32(&counts[(rank.digits >> (8u * a.digit)) % DIGITS], 1u);
    }
  }
  block_barrier();
  u32 count = counts[thread_index()];
  if (count) atomic_add_u64(AT(u64, a.counts) + thread_index(), count);
}

typedef struct {
  Rows rows;
  u64 bits;    // const u32*: the places in question
  u64 keys;    // const OrderKey*
  u64 chosen;  // const Rank*: one for each key
  u64 before;  // u32*: a bit for each place whose row comes before the chosen rank
  u64 equal;   // u32*: a bit for each place whose row has the chosen rank
  u32 key_count;
  u32 unused;
} MarkArgs;

KERNEL(mark, MarkArgs, BLOCK) {
  u32 lane = lane_index();
  u32 words = (a.rows.places + WARP - 1u) / WARP, warps = grid_blocks() * WARPS;
  for (u32 word = block_index() * WARPS + warp_index(); word < words; word += warps) {
    u32 place = word * WARP + lane, where = 2u;
    if (place < a.rows.places && bit_at(a.bits, place)) {
      u32 piece = piece_of(&a.rows, place), row = row_of(&a.rows, piece, place);
      where = 1u;
      for (u32 k = 0; k < a.key_count && where == 1u; ++k) {
        where = compare_rank(rank_of(&a.rows, AT(const OrderKey, a.keys) + k, row, piece),
                             AT(const Rank, a.chosen)[k]);
      }
    }
    u32 before = warp_ballot(where == 0), equal = warp_ballot(where == 1u);
    if (lane == 0) {
      AT(u32, a.before)[word] = before;
      AT(u32, a.equal)[word] = equal;
    }
  }
}

typedef struct {
  u64 numbers;  // const u32*: of the keys
  u64 times;    // const i64*
  u64 words;    // u64*: what rows are sorted by
  u64 indices;  // u32*: out: the rows' numbers, if `first` is set; in otherwise
  i64 least;    // the least time
  u32 shift;    // bits of the time, where both fit into a word
  u32 parts;    // 1: the time, 2: the key, 3: both
  u32 count;
  u32 first;
} SortWordsArgs;

KERNEL(sort_words, SortWordsArgs, BLOCK) {
  for (u32 i = block_index() * BLOCK + thread_index(); i < a.count; i += grid_blocks() * BLOCK) {
    if (a.first) AT(u32, a.indices)[i] = i;
    u32 row = a.first ? i : AT(const u32, a.indices)[i];
    u64 time = a.parts & 1u ? (u64)AT(const i64, a.times)[row] - (u64)a.least : 0;
    u64 number = a.parts & 2u ? AT(const u32, a.numbers)[row] : 0;
    AT(u64, a.words)[i] = a.parts == 3u && a.shift ? number << a.shift | time : number | time;
  }
}

typedef struct {
  u64 words;        // const u64*
  u64 indices;      // const u32*
  u64 words_out;    // u64*
  u64 indices_out;  // u32*
  u64 counts;       // u32*: of each digit in each tile, digit by digit
  u64 status;       // u64*: one for each tile of counts, zeros
  u64 ticket;       // u32*: zero
  u32 count;
  u32 shift;        // where the digit begins
} SortArgs;

INLINE u32 digit_of(u64 word, u32 shift) { return (u32)(word >> shift) % DIGITS; }

// How many of a tile's words have each digit.
KERNEL(sort_count, SortArgs, BLOCK) {
  SHARED u32 counts[DIGITS];
  u32 tiles = (a.count + TILE - 1u) / TILE;
  for (u32 tile = block_index(); tile < tiles; tile += grid_blocks()) {
    counts[thread_index()] = 0;
    block_barrier();
    UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
      u32 place = tile * TILE + i * BLOCK + thread_index();
      if (place < a.count) atomic_add_u32(&counts[digit_of(AT(const u64, a.words)[place], a.shift)], 1u);
    }
    block_barrier();
    AT(u32, a.counts)[thread_index() * tiles + tile] = counts[thread_index()];
    block_barrier();
  }
}

// Puts in place of each count the sum of those before it.
KERNEL(sort_scan, SortArgs, BLOCK) {
  SHARED u32 scratch[WARPS];
  SHARED u32 shared_tile;
  SHARED u64 shared_before;
  u32 count = (a.count + TILE - 1u) / TILE * DIGITS;
  u32 tiles = (count + BLOCK - 1u) / BLOCK;
  for (;;) {
    u32 tile = take_tile(AT(u32, a.ticket), &shared_tile);
    if (tile >= tiles) return;
    u32 at = tile * BLOCK + thread_index(), all;
    u32 local = block_sum_before(at < count ? AT(u32, a.counts)[at] : 0, scratch, &all);
    if (warp_index() == 0) {
      u64 before = tiles_before(AT(u64, a.status), tile, all);
      if (lane_index() == 0) shared_before = before;
    }
    block_barrier();
    if (at < count) AT(u32, a.counts)[at] = (u32)shared_before + local;
  }
}

// Moves words and indices to where their digit puts them. Words of one digit keep their order.
KERNEL(sort_scatter, SortArgs, BLOCK) {
  SHARED u32 next[WARPS][DIGITS];
  u32 lane = lane_index(), warp = warp_index();
  u32 tiles = (a.count + TILE - 1u) / TILE;
  for (u32 tile = block_index(); tile < tiles; tile += grid_blocks()) {
    u32 start = tile * TILE + warp * STRIP;
    for (u32 d = lane; d < DIGITS; d += WARP) next[warp][d] = 0;
    warp_barrier();
    u64 word[TOGETHER];
    u32 index[TOGETHER], rank[TOGETHER];
    UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
      u32 place = start + i * WARP + lane, in = place < a.count;
      word[i] = in ? AT(const u64, a.words)[place] : 0;
      index[i] = in ? AT(const u32, a.indices)[place] : 0;
      // Lanes without a word have a digit of their own.
      u32 digit = in ? digit_of(word[i], a.shift) : DIGITS;
      u32 same = warp_match(digit);
      rank[i] = in ? next[warp][digit] + count_bits(same & lanes_below(lane)) : 0;
      warp_barrier();
      if (in && lowest_bit(same) == lane) next[warp][digit] += count_bits(same);
      warp_barrier();
    }
    block_barrier();
    u32 digit = thread_index(), sum = AT(const u32, a.counts)[digit * tiles + tile];
    for (u32 w = 0; w < WARPS; ++w) {
      u32 own = next[w][digit];
      next[w][digit] = sum;
      sum += own;
    }
    if (!PLANTED(BUG_MISSING_BARRIER_SORT)) block_barrier();
    UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
      if (start + i * WARP + lane >= a.count) continue;
      u32 to = next[warp][digit_of(word[i], a.shift)] + rank[i];
      AT(u64, a.words_out)[to] = word[i];
      AT(u32, a.indices_out)[to] = index[i];
    }
    block_barrier();
  }
}
