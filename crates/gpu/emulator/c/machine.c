// The machine: fibers, barriers, exchanges.
#include "machine.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "tidelog.cu"

#define THREADS_MAX 1024u
#define STACK_BYTES (64u << 10)

int emu_planted = BUG_NONE;

// Blocks that run at the same time, taking turns at barriers and where one waits for another.
#define BLOCKS_AT_ONCE 4u

typedef enum { READY, AT_BARRIER, IN_EXCHANGE, WAITING, DONE } State;

typedef struct {
  void* stack;
  State state;
  int operation;
  u64 value;
} Fiber;

typedef struct {
  Fiber fibers[THREADS_MAX];
  u64 exchanged[THREADS_MAX / 32u][32];
  char* shared;  // its shared memory while another block runs
  u32 number;
  int runs;
} Block;

static Block blocks_running[BLOCKS_AT_ONCE];
static Block* block;
static char* stacks;
static u32 current, threads_now, blocks_now;
static const EmulatedKernel* kernel_now;
static const void* args_now;
static const char* failure;
static u64 random_state = 1;

extern const EmulatedKernel* const __start_emu_kernels[];
extern const EmulatedKernel* const __stop_emu_kernels[];
extern char __start_emu_shared[];
extern char __stop_emu_shared[];

#if defined(__x86_64__)
// Saves what a call has to preserve on the stack, and goes on where another stack was left.
void emu_switch(void** left, void* to);
__asm__(
    ".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_switch, .-emu_switch\n");
static void* machine_stack;
static void leave_to_machine(Fiber* fiber) { emu_switch(&fiber->stack, machine_stack); }
static void enter(Fiber* fiber) { emu_switch(&machine_stack, fiber->stack); }
static void prepare(Fiber* fiber, char* low, void (*start)(void)) {
  u64* top = (u64*)(low + STACK_BYTES);
  memset(top - 8, 0, 64);
  top[-2] = (u64)start;  // where the first switch returns to, with the stack as after a call
  fiber->stack = top - 8;
}
#else
#include <ucontext.h>
static ucontext_t machine_context, contexts[BLOCKS_AT_ONCE * THREADS_MAX];
static ucontext_t* context_of(Fiber* fiber) {
  return &contexts[(size_t)(block - blocks_running) * THREADS_MAX + (size_t)(fiber - block->fibers)];
}
static void leave_to_machine(Fiber* fiber) { swapcontext(context_of(fiber), &machine_context); }
static void enter(Fiber* fiber) { swapcontext(&machine_context, context_of(fiber)); }
static void prepare(Fiber* fiber, char* low, void (*start)(void)) {
  ucontext_t* context = context_of(fiber);
  getcontext(context);
  context->uc_stack.ss_sp = low;
  context->uc_stack.ss_size = STACK_BYTES;
  context->uc_link = 0;
  makecontext(context, start, 0);
}
#endif

u32 thread_index(void) { return current; }
u32 block_index(void) { return block->number; }
u32 block_threads(void) { return threads_now; }
u32 grid_blocks(void) { return blocks_now; }

static void leave(State state) {
  Fiber* fiber = &block->fibers[current];
  fiber->state = state;
  leave_to_machine(fiber);
}

void emu_barrier(void) { leave(AT_BARRIER); }

const u64* emu_exchange(int operation, u64 value) {
  block->fibers[current].operation = operation;
  block->fibers[current].value = value;
  leave(IN_EXCHANGE);
  return block->exchanged[current / 32u];
}

void emu_waits(void) { leave(WAITING); }

static void run_thread(void) {
  kernel_now->run(args_now);
  leave(DONE);
}

static u32 random_below(u32 bound) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (u32)((random_state >> 11) % bound);
}

static void shuffle(u32* order, u32 count) {
  for (u32 i = 0; i < count; ++i) order[i] = i;
  for (u32 i = count; i > 1; --i) {
    u32 other = random_below(i), swap = order[i - 1];
    order[i - 1] = order[other];
    order[other] = swap;
  }
}

// Ends an exchange that all lanes of the warp take part in.
static void end_exchange(u32 warp) {
  Fiber* lanes = &block->fibers[warp * 32u];
  for (u32 lane = 0; lane < 32u; ++lane) {
    if (lanes[lane].state == DONE) failure = "an exchange within a warp that a lane has left";
    else if (lanes[lane].state != IN_EXCHANGE) failure = "an exchange within a warp of which lanes wait at a barrier";
    else if (lanes[lane].operation != lanes[0].operation) failure = "lanes of a warp are in different exchanges";
  }
  if (failure) return;
  for (u32 lane = 0; lane < 32u; ++lane) {
    block->exchanged[warp][lane] = lanes[lane].value;
    lanes[lane].state = READY;
  }
}

// Runs a warp until its lanes are done or at a barrier, or one waits for another block.
static void run_warp(u32 warp) {
  u32 order[32];
  for (int again = 1; again && !failure;) {
    int in_exchange = 0, waits = 0;
    shuffle(order, 32u);
    for (u32 k = 0; k < 32u; ++k) {
      current = warp * 32u + order[k];
      Fiber* fiber = &block->fibers[current];
      if (fiber->state == READY) enter(fiber);
      in_exchange |= fiber->state == IN_EXCHANGE;
      waits |= fiber->state == WAITING;
    }
    again = in_exchange && !waits;
    if (again) end_exchange(warp);
  }
}

static size_t shared_bytes(void) { return (size_t)(__stop_emu_shared - __start_emu_shared); }

static void begin_block(u32 place, u32 number) {
  block = &blocks_running[place];
  block->number = number;
  block->runs = 1;
  if (!block->shared && !(block->shared = malloc(shared_bytes()))) abort();
  memset(block->shared, 0xAB, shared_bytes());
  for (u32 i = 0; i < threads_now; ++i) {
    block->fibers[i].state = READY;
    prepare(&block->fibers[i], stacks + ((size_t)place * THREADS_MAX + i) * STACK_BYTES, run_thread);
  }
}

// Runs a block until it ends, waits for another, or by chance at a barrier; tells whether it got anywhere.
static int run_block(u32 place) {
  u32 order[THREADS_MAX / 32u], warps = threads_now / 32u;
  block = &blocks_running[place];
  memcpy(__start_emu_shared, block->shared, shared_bytes());
  int moved = 0;
  for (int again = 1; again && !failure;) {
    u32 done = 0, at_barrier = 0;
    shuffle(order, warps);
    for (u32 w = 0; w < warps && !failure; ++w) run_warp(order[w]);
    for (u32 i = 0; i < threads_now; ++i) {
      done += block->fibers[i].state == DONE;
      at_barrier += block->fibers[i].state == AT_BARRIER;
    }
    again = at_barrier == threads_now && random_below(4);
    moved |= at_barrier == threads_now || done == threads_now;
    if (done == threads_now) block->runs = 0;
    else if (done + at_barrier == threads_now && done) failure = "a barrier that some threads never reach";
    for (u32 i = 0; i < threads_now; ++i) {
      State state = block->fibers[i].state;
      if (at_barrier == threads_now || state == WAITING) block->fibers[i].state = READY;
    }
  }
  memcpy(block->shared, __start_emu_shared, shared_bytes());
  return moved;
}

// Runs all blocks of a grid, some at the same time, in an order of chance.
static void run_grid(const u32* order) {
  u32 begun = 0, idle = 0;
  for (u32 i = 0; i < BLOCKS_AT_ONCE; ++i) blocks_running[i].runs = 0;
  for (u32 ended = 0; ended < blocks_now && !failure;) {
    u32 place = random_below(BLOCKS_AT_ONCE);
    if (!blocks_running[place].runs) {
      if (begun == blocks_now) continue;
      begin_block(place, order[begun++]);
    }
    idle = run_block(place) ? 0 : idle + 1u;
    ended += !blocks_running[place].runs;
    // By then each of them has had its turn, many times.
    if (idle > 1000u) failure = "a block waits for one that does not run";
  }
}

const EmulatedKernel* emu_find_kernel(const char* name) {
  for (const EmulatedKernel* const* at = __start_emu_kernels; at < __stop_emu_kernels; ++at) {
    if (!strcmp((*at)->name, name)) return *at;
  }
  return 0;
}

void emu_seed(u64 seed) { random_state = seed * 0x9E3779B97F4A7C15ull + 1u; }

const char* emu_run(const EmulatedKernel* kernel, const void* args, u32 blocks, u32 threads) {
  if (!stacks) {
    stacks = mmap(0, (size_t)BLOCKS_AT_ONCE * THREADS_MAX * STACK_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) abort();
  }
  if (threads != kernel->threads) return "a kernel is launched with another number of threads than it is made for";
  u32* order = malloc(blocks * sizeof(u32));
  if (!order) abort();
  shuffle(order, blocks);
  failure = 0;
  kernel_now = kernel;
  args_now = args;
  threads_now = threads;
  blocks_now = blocks;
  run_grid(order);
  free(order);
  return failure;
}
