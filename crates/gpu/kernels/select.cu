// Which rows: bounds of time, predicates, compaction, last rows, gathering.
#include "columns.h"
#include "scan.h"

// Each warp decides on TOGETHER times 32 places at once.

typedef struct {
  u64 times;    // const i64*
  u64 offsets;  // const u32*: where the rows of each key begin, one more at the end
  u64 first;    // u32*: the first row of each key in the range
  u64 end;      // u32*: the row after the last
  i64 least;    // least and greatest time of the range
  i64 greatest;
  u32 keys;
  u32 unused;
} BoundsArgs;

// The first row from `low` on whose time is not below `time`, or, if `after`, is above it.
INLINE u32 first_row(const i64* times, u32 low, u32 high, i64 time, u32 after) {
  while (low < high) {
    u32 middle = low + (high - low) / 2u;
    if (after ? times[middle] <= time : times[middle] < time) low = middle + 1u; else high = middle;
  }
  return low;
}

// One thread for each key.
KERNEL(bounds, BoundsArgs, BLOCK) {
  const i64* times = AT(const i64, a.times);
  const u32* offsets = AT(const u32, a.offsets);
  for (u32 key = block_index() * block_threads() + thread_index(); key < a.keys;
       key += grid_blocks() * block_threads()) {
    u32 first = first_row(times, offsets[key], offsets[key + 1u], a.least, 0);
    AT(u32, a.first)[key] = first;
    AT(u32, a.end)[key] = first_row(times, first, offsets[key + 1u], a.greatest, PLANTED(BUG_BOUND) ? 0 : 1);
  }
}

typedef struct {
  Rows rows;
  u64 bits;   // u32*: a bit for each place, or 0
  u64 count;  // u64*: how many rows are kept is added
} FilterArgs;

KERNEL(filter, FilterArgs, BLOCK) {
  SHARED u32 scratch[WARPS];
  u32 lane = lane_index(), kept = 0;
  u32 tiles = (a.rows.places + TILE - 1u) / TILE;
  for (u32 tile = block_index(); tile < tiles; tile += grid_blocks()) {
    u32 start = tile * TILE + warp_index() * STRIP;
    u32 row[TOGETHER], piece[TOGETHER], wanted = 0;
    u32 at = start + lane < a.rows.places ? piece_of(&a.rows, start + lane) : 0;
    UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
      u32 place = start + i * WARP + lane;
      u32 in = place < a.rows.places;
      if (in) at = piece_from(&a.rows, at, place);
      piece[i] = at;
      row[i] = in ? row_of(&a.rows, at, place) : 0;
      wanted |= in << i;
    }
    u32 keep = keep_rows(&a.rows, row, piece, wanted);
    kept += count_bits(keep);
    if (a.bits) {
      UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
        u32 word = warp_ballot((keep >> i) & 1u);
        if (lane == 0 && start + i * WARP < a.rows.places) AT(u32, a.bits)[start / WARP + i] = word;
      }
    }
  }
  u32 all;
  block_sum_before(kept, scratch, &all);
  if (thread_index() == 0 && all) atomic_add_u64(AT(u64, a.count), all);
}

typedef struct {
  Rows rows;
  u64 bits;      // const u32*: a bit for each place
  u64 out;       // u32*: rows
  u64 status;    // u64*: one for each tile, zeros
  u64 ticket;    // u32*: zero
  u32 skip;      // so many rows are passed over
  u32 capacity;  // at most so many are written
} CompactArgs;

#define COMPACT_TILE (BLOCK * WARP)

// Rows whose bit is set, in their order. Each thread has a word of 32 places.
KERNEL(compact, CompactArgs, BLOCK) {
  SHARED u32 scratch[WARPS];
  SHARED u32 shared_tile;
  SHARED u64 shared_before;
  u32 words = (a.rows.places + WARP - 1u) / WARP;
  u32 tiles = (words + BLOCK - 1u) / BLOCK;
  for (;;) {
    u32 tile = take_tile(AT(u32, a.ticket), &shared_tile);
    if (tile >= tiles) return;
    u32 word = tile * BLOCK + thread_index();
    u32 bits = word < words ? AT(const u32, a.bits)[word] : 0u, all;
    u32 local = block_sum_before(count_bits(bits), scratch, &all);
    if (warp_index() == 0) {
      u64 before = tiles_before(AT(u64, a.status), tile, all);
      if (lane_index() == 0) shared_before = before;
    }
    block_barrier();
    u64 number = shared_before + local;
    u32 piece = bits ? piece_of(&a.rows, word * WARP) : 0;
    for (; bits; bits &= bits - 1u, ++number) {
      u32 place = word * WARP + lowest_bit(bits);
      piece = piece_from(&a.rows, piece, place);
      if (number >= a.skip && number - a.skip < a.capacity) {
        AT(u32, a.out)[number - a.skip] = row_of(&a.rows, piece, place);
      }
    }
  }
}

typedef struct {
  Rows rows;
  u64 out;  // u32*: for each piece its last row that is kept, plus 1, or 0
} LastArgs;

// One warp for each piece, from its end backwards.
KERNEL(last, LastArgs, BLOCK) {
  u32 lane = lane_index();
  u32 warps = grid_blocks() * (block_threads() / WARP);
  for (u32 p = block_index() * (block_threads() / WARP) + warp_index(); p < a.rows.pieces; p += warps) {
    u32 first = AT(const u32, a.rows.piece_place)[p];
    u32 length = AT(const u32, a.rows.piece_place)[p + 1u] - first, found = 0;
    for (u32 done = 0; done < length && !found; done += WARP) {
      u32 in = done + lane < length;
      // Lane 0 has the last row.
      u32 row[TOGETHER] = {0}, piece[TOGETHER] = {0};
      row[0] = in ? row_of(&a.rows, p, first + length - 1u - done - lane) : 0;
      piece[0] = p;
      u32 keeps = warp_ballot(keep_rows(&a.rows, row, piece, in));
      if (keeps) found = shuffle_u32(row[0], lowest_bit(keeps)) + 1u;
    }
    if (lane == 0) AT(u32, a.out)[p] = found;
  }
}

typedef struct {
  u64 data;   // values, as those of the column lie
  u64 valid;  // u32*: bits, or 0
} GatherOut;

typedef struct {
  u64 rows;     // const u32*
  u64 columns;  // const Column*
  u64 outs;     // const GatherOut*
  u32 count;    // how many rows
  u32 column_count;
} GatherArgs;

KERNEL(gather, GatherArgs, BLOCK) {
  u32 lane = lane_index();
  u32 strips = (a.count + WARP - 1u) / WARP;
  u32 warps = grid_blocks() * (block_threads() / WARP);
  for (u32 strip = block_index() * (block_threads() / WARP) + warp_index(); strip < strips; strip += warps) {
    u32 place = strip * WARP + lane;
    u32 in = place < a.count;
    u32 row = in ? AT(const u32, a.rows)[place] : 0;
    for (u32 c = 0; c < a.column_count; ++c) {
      const Column column = AT(const Column, a.columns)[c];
      const GatherOut out = AT(const GatherOut, a.outs)[c];
      switch (column.kind) {
        case KIND_BIT: {
          u32 word = warp_ballot(in && bit_at(column.data, row));
          if (lane == 0) AT(u32, out.data)[strip] = word;
          break;
        }
        case KIND_I8: case KIND_U8:
          if (in) AT(u8, out.data)[place] = AT(const u8, column.data)[row];
          break;
        case KIND_I16: case KIND_U16:
          if (in) AT(u16, out.data)[place] = AT(const u16, column.data)[row];
          break;
        case KIND_I32: case KIND_U32: case KIND_F32:
          if (in) AT(u32, out.data)[place] = AT(const u32, column.data)[row];
          break;
        default:
          if (in) AT(u64, out.data)[place] = AT(const u64, column.data)[row];
      }
      if (out.valid) {
        u32 word = warp_ballot(in && is_valid(&column, row, 0));
        if (lane == 0) AT(u32, out.valid)[strip] = word;
      }
    }
  }
}

typedef struct {
  u64 out;   // u32*
  u32 seed;
  u32 count;
} ProbeArgs;

// What a backend runs first, to see that kernels run at all.
KERNEL(probe, ProbeArgs, BLOCK) {
  SHARED u32 scratch[WARPS];
  u32 all, before = block_sum_before(a.seed + thread_index(), scratch, &all);
  if (thread_index() < a.count) AT(u32, a.out)[thread_index()] = before ^ all;
}
