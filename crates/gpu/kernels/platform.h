// What the kernels need of the machine: types, barriers, exchanges within a warp, atomics.
//
// The kernels are written in what C and CUDA C++ have in common. One source is compiled for devices by
// NVRTC, and for the host by a C compiler, against the emulator's own version of this file's second half.
#ifndef TIDELOG_PLATFORM_H
#define TIDELOG_PLATFORM_H

#define WARP 32u
#define ALL_LANES 0xffffffffu

#ifdef TIDELOG_EMULATED
#include "emulated.h"
#else

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

// A kernel takes one struct, by value. `threads` is what it is launched with.
#define KERNEL(name, Args, threads) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args a)
#define INLINE static __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

// Bugs that tests plant exist in the emulator only.
#define PLANTED(bug) 0

INLINE u32 thread_index(void) { return threadIdx.x; }
INLINE u32 block_index(void) { return blockIdx.x; }
INLINE u32 block_threads(void) { return blockDim.x; }
INLINE u32 grid_blocks(void) { return gridDim.x; }

INLINE void block_barrier(void) { __syncthreads(); }
INLINE void warp_barrier(void) { __syncwarp(); }
INLINE void device_fence(void) { __threadfence(); }
INLINE u32 warp_ballot(u32 bit) { return __ballot_sync(ALL_LANES, bit); }
INLINE u32 warp_match(u32 value) { return __match_any_sync(ALL_LANES, value); }
INLINE u32 shuffle_u32(u32 value, u32 lane) { return __shfl_sync(ALL_LANES, value, (int)lane); }
INLINE u64 shuffle_u64(u64 value, u32 lane) { return __shfl_sync(ALL_LANES, value, (int)lane); }

// Exchanges a word that others of the grid wait for.
INLINE u64 atomic_load_u64(const u64* at) { return *(volatile const u64*)at; }
INLINE void atomic_store_u64(u64* at, u64 value) { atomicExch(at, value); }
INLINE u32 atomic_add_u32(u32* at, u32 value) { return atomicAdd(at, value); }
INLINE u64 atomic_add_u64(u64* at, u64 value) { return atomicAdd(at, value); }
// Said in every round of a wait for another block.
INLINE void waits_for_block(void) {}

INLINE double bits_to_f64(u64 bits) { return __longlong_as_double((long long)bits); }
INLINE u64 f64_to_bits(double value) { return (u64)__double_as_longlong(value); }
INLINE float bits_to_f32(u32 bits) { return __uint_as_float(bits); }
INLINE u32 count_bits(u32 bits) { return (u32)__popc(bits); }
// The place of the lowest bit that is set; there is one.
INLINE u32 lowest_bit(u32 bits) { return (u32)__ffs((int)bits) - 1u; }
INLINE u32 highest_bit(u32 bits) { return 31u - (u32)__clz((int)bits); }

#endif

#define AT(Type, address) ((Type*)(address))

INLINE u32 lane_index(void) { return thread_index() % WARP; }
INLINE u32 warp_index(void) { return thread_index() / WARP; }
// The lanes before this one.
INLINE u32 lanes_below(u32 lane) { return (1u << lane) - 1u; }

#endif
