// The machine that kernels see when a C compiler compiles them: the second half of platform.h.
//
// Each thread of a block is a fiber. Lanes of a warp run one after the other up to the next exchange, warps
// up to the next barrier; some blocks run at the same time and take turns. A seed shuffles all of these
// orders. Shared memory is poisoned before each block. What would hang or be undefined on a device ends the launch with an error:
// lanes in different exchanges, exchanges after a lane has left, barriers that not all threads reach, waiting
// for a block that does not run.
#ifndef TIDELOG_EMULATED_H
#define TIDELOG_EMULATED_H

#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
typedef int64_t i64;

typedef struct {
  const char* name;
  void (*run)(const void* args);
  u64 args_bytes;
  u32 threads;
} EmulatedKernel;

#define KERNEL(name, Args, threads)                                                                  \
  static void name(const Args a);                                                                    \
  static void run_##name(const void* args) { name(*(const Args*)args); }                             \
  static const EmulatedKernel kernel_##name = {#name, run_##name, sizeof(Args), threads};            \
  static const EmulatedKernel* const entry_##name __attribute__((section("emu_kernels"), used)) =    \
      &kernel_##name;                                                                                \
  static void name(const Args a)
#define INLINE static inline __attribute__((unused))
#define SHARED static __attribute__((section("emu_shared")))
#define UNROLL
#define ROLLED

// Bugs that a test plants to see them caught.
enum { BUG_NONE, BUG_MISSING_BARRIER, BUG_MISSING_BARRIER_LEADS, BUG_MISSING_BARRIER_SORT, BUG_LOST_PREFIX,
       BUG_SHORT_CHAIN, BUG_BOUND, BUG_NULL_IS_FALSE, BUG_COUNT };
extern int emu_planted;
#define PLANTED(bug) (emu_planted == (bug))

u32 thread_index(void);
u32 block_index(void);
u32 block_threads(void);
u32 grid_blocks(void);

enum { EXCHANGE_BARRIER, EXCHANGE_BALLOT, EXCHANGE_MATCH, EXCHANGE_U32, EXCHANGE_U64 };
void emu_barrier(void);
// Gives the values of all lanes, once all have called this at the same place.
const u64* emu_exchange(int operation, u64 value);
void emu_waits(void);

INLINE void block_barrier(void) { emu_barrier(); }
INLINE void warp_barrier(void) { emu_exchange(EXCHANGE_BARRIER, 0); }
INLINE void device_fence(void) {}
INLINE u32 warp_ballot(u32 bit) {
  const u64* all = emu_exchange(EXCHANGE_BALLOT, bit != 0);
  u32 bits = 0;
  for (u32 lane = 0; lane < 32; ++lane) bits |= (u32)all[lane] << lane;
  return bits;
}
INLINE u32 warp_match(u32 value) {
  const u64* all = emu_exchange(EXCHANGE_MATCH, value);
  u32 bits = 0;
  for (u32 lane = 0; lane < 32; ++lane) bits |= (u32)(all[lane] == value) << lane;
  return bits;
}
INLINE u32 shuffle_u32(u32 value, u32 lane) { return (u32)emu_exchange(EXCHANGE_U32, value)[lane % 32]; }
INLINE u64 shuffle_u64(u64 value, u32 lane) { return emu_exchange(EXCHANGE_U64, value)[lane % 32]; }

INLINE u64 atomic_load_u64(const u64* at) { return *at; }
INLINE void atomic_store_u64(u64* at, u64 value) { *at = value; }
INLINE u32 atomic_add_u32(u32* at, u32 value) { u32 old = *at; *at = old + value; return old; }
INLINE u64 atomic_add_u64(u64* at, u64 value) { u64 old = *at; *at = old + value; return old; }
INLINE void waits_for_block(void) { emu_waits(); }

INLINE double bits_to_f64(u64 bits) { double value; memcpy(&value, &bits, 8); return value; }
INLINE u64 f64_to_bits(double value) { u64 bits; memcpy(&bits, &value, 8); return bits; }
INLINE float bits_to_f32(u32 bits) { float value; memcpy(&value, &bits, 4); return value; }
INLINE u32 count_bits(u32 bits) { return (u32)__builtin_popcount(bits); }
INLINE u32 lowest_bit(u32 bits) { return (u32)__builtin_ctz(bits); }
INLINE u32 highest_bit(u32 bits) { return 31u - (u32)__builtin_clz(bits); }

#endif
