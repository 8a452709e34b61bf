// Sums of what comes before, within a warp, a block and the grid.
#ifndef TIDELOG_SCAN_H
#define TIDELOG_SCAN_H
#include "platform.h"

// Threads of a block.
#define BLOCK 256u
#define WARPS (BLOCK / WARP)

// The sum of this lane's value and of those of the lanes before.
INLINE u32 warp_sum_up_to(u32 value) {
  u32 lane = lane_index();
  for (u32 distance = 1; distance < WARP; distance <<= 1) {
    u32 other = shuffle_u32(value, (lane - distance) % WARP);
    if (lane >= distance) value += other;
  }
  return value;
}

// The sum of the values of the threads before this one, and the sum of all. Every thread of the block calls
// this; `scratch` has a word for each warp.
INLINE u32 block_sum_before(u32 value, u32* scratch, u32* all) {
  u32 lane = lane_index(), warp = warp_index();
  u32 up_to = warp_sum_up_to(value);
  if (lane == WARP - 1u) scratch[warp] = up_to;
  if (!PLANTED(BUG_MISSING_BARRIER)) block_barrier();
  u32 before = 0, total = 0;
  for (u32 w = 0; w < block_threads() / WARP; ++w) {
    if (w < warp) before += scratch[w];
    total += scratch[w];
  }
  block_barrier();
  *all = total;
  return before + up_to - value;
}

// The grid's blocks take tiles by ticket, so that a tile that is waited for has been taken by a block that
// runs. Of each tile `status` has first its own sum, then the sum of all up to it; two bits say which.
#define STATUS_OWN (1ull << 62)
#define STATUS_UP_TO (2ull << 62)
#define STATUS_VALUE (STATUS_OWN - 1ull)

// The next tile, for the whole block. `shared` is a word of shared memory.
INLINE u32 take_tile(u32* ticket, u32* shared) {
  block_barrier();
  if (thread_index() == 0) *shared = atomic_add_u32(ticket, 1u);
  block_barrier();
  return *shared;
}

// The sum of `own` of all tiles before. The first warp of the block calls this, whole.
INLINE u64 tiles_before(u64* status, u32 tile, u64 own) {
  u32 lane = lane_index();
  u64 before = 0;
  if (lane == 0) atomic_store_u64(&status[tile], (tile ? STATUS_OWN : STATUS_UP_TO) | own);
  for (u32 next = tile; next > 0;) {
    // Lane 0 looks at the nearest tile. Before the first tile the sum is known to be 0.
    u64 seen = STATUS_UP_TO;
    if (lane < next) {
      seen = atomic_load_u64(&status[next - 1u - lane]);
      while (!(seen & ~STATUS_VALUE)) {
        waits_for_block();
        seen = atomic_load_u64(&status[next - 1u - lane]);
      }
    }
    u32 ends = warp_ballot((seen & STATUS_UP_TO) != 0);
    u32 last = ends ? lowest_bit(ends) : WARP - 1u;
    if (PLANTED(BUG_LOST_PREFIX)) last = 0;
    u64 sum = lane <= last ? seen & STATUS_VALUE : 0;
    for (u32 distance = WARP / 2u; distance; distance >>= 1) sum += shuffle_u64(sum, lane ^ distance);
    before += sum;
    if (ends) break;
    next -= WARP;
  }
  if (lane == 0 && tile) atomic_store_u64(&status[tile], STATUS_UP_TO | (before + own));
  return before;
}

#endif
