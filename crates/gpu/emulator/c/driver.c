// A stand-in for NVIDIA's driver library: the entry points that cudarc calls, over the emulated machine.
//
// What is put on a stream runs when somebody waits for it, and streams know nothing of each other but what
// events tell: a copy whose end nobody waits for, or a launch that does not wait for its input, has the
// poison that memory is filled with. Copies are checked against allocations. Any call can be made to fail.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "machine.h"

#define API __attribute__((visibility("default")))
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
       NOT_FOUND = 500, LAUNCH_FAILED = 719 };

// What can be made to fail, and what is counted.
enum { CALL_ALLOCATE, CALL_PIN, CALL_COPY, CALL_LAUNCH, CALL_WAIT, CALL_KINDS };

typedef struct Allocation {
  u64 at, bytes;
  struct Allocation* next;
} Allocation;

typedef struct Event {
  struct Stream* stream;
  u64 recorded, reached;  // numbers of operations of the stream
  struct timespec time;
} Event;

typedef enum { DO_KERNEL, DO_COPY, DO_FILL, DO_RECORD, DO_WAIT } Kind;

typedef struct Operation {
  Kind kind;
  const EmulatedKernel* kernel;
  u32 blocks, threads;
  void* bytes;  // arguments, or what is copied from memory that is not pinned
  u64 to, from, length;
  Event* event;
  u64 number;
  struct Operation* next;
} Operation;

typedef struct Stream {
  Operation *first, *last;
  u64 queued, done;
  struct Stream* next;
} Stream;

typedef struct {
  u64 device_blocks, device_bytes, pinned_blocks, pinned_bytes, streams, events, modules, contexts;
  u64 calls[CALL_KINDS];
} EmulatedStats;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Allocation *device, *pinned;
static Stream* streams;
static EmulatedStats stats;
static u64 memory = 1ull << 30;
static int devices = 1, version = 12020, major_version = 9, minor_version = 0;
static int sticky, announced;
static u64 fail_at[CALL_KINDS];
static int fail_code[CALL_KINDS], fail_sticky[CALL_KINDS];
static __thread void* context_now;

static int failed(int code, const char* why) {
  if (!sticky) sticky = code;
  if (!announced) fprintf(stderr, "emulated driver: %s\n", why);
  announced = 1;
  return sticky;
}

// Counts a call; gives its error if it is the one that has to fail.
static int call(int kind) {
  if (sticky) return sticky;
  u64 number = ++stats.calls[kind];
  if (!fail_at[kind] || number != fail_at[kind]) return OK;
  if (fail_sticky[kind]) sticky = fail_code[kind];
  return fail_code[kind];
}

static int inside(const Allocation* list, u64 at, u64 bytes) {
  for (; list; list = list->next) {
    if (at >= list->at && bytes <= list->bytes && at - list->at <= list->bytes - bytes) return 1;
  }
  return 0;
}

static void* add_allocation(Allocation** list, u64 bytes, u64* blocks, u64* total) {
  Allocation* block = malloc(sizeof *block);
  void* at = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096 + 4096);
  if (!block || !at) abort();
  memset(at, 0xCD, bytes);
  *block = (Allocation){(u64)at, bytes, *list};
  *list = block;
  *blocks += 1;
  *total += bytes;
  return at;
}

static int remove_allocation(Allocation** list, u64 at, u64* blocks, u64* total) {
  for (; *list; list = &(*list)->next) {
    Allocation* block = *list;
    if (block->at != at) continue;
    *list = block->next;
    *blocks -= 1;
    *total -= block->bytes;
    free((void*)at);
    free(block);
    return OK;
  }
  return failed(INVALID_VALUE, "memory is freed that is not allocated");
}

static void run_until(Stream* stream, u64 number);

static void run_operation(Operation* op) {
  if (op->kind == DO_WAIT) {
    if (op->event->stream && op->event->reached < op->length) run_until(op->event->stream, op->length);
  } else if (op->kind == DO_RECORD) {
    op->event->reached = op->number;
    clock_gettime(CLOCK_MONOTONIC, &op->event->time);
  } else if (sticky) {
    return;
  } else if (op->kind == DO_KERNEL) {
    const char* why = emu_run(op->kernel, op->bytes, op->blocks, op->threads);
    if (why) failed(LAUNCH_FAILED, why);
  } else if (op->kind == DO_COPY) {
    memcpy((void*)op->to, op->bytes ? op->bytes : (void*)op->from, op->length);
  } else {
    memset((void*)op->to, (int)op->from, op->length);
  }
}

static void run_until(Stream* stream, u64 number) {
  while (stream->first && stream->done < number) {
    Operation* op = stream->first;
    stream->first = op->next;
    if (!stream->first) stream->last = 0;
    // Before it runs: what it waits for may wait for this stream.
    stream->done = op->number;
    run_operation(op);
    free(op->bytes);
    free(op);
  }
}

static void run_all(void) {
  for (Stream* s = streams; s; s = s->next) run_until(s, s->queued);
}

static Operation* queue(Stream* stream, Kind kind) {
  Operation* op = calloc(1, sizeof *op);
  if (!op) abort();
  op->kind = kind;
  op->number = ++stream->queued;
  if (stream->last) stream->last->next = op; else stream->first = op;
  stream->last = op;
  return op;
}

#define LOCKED(body)            \
  pthread_mutex_lock(&lock);    \
  int result = OK;              \
  do body while (0);            \
  pthread_mutex_unlock(&lock);  \
  return result;

// --- What tests say to the emulator ---------------------------------------------------------------

API void emu_reset(u64 seed) {
  pthread_mutex_lock(&lock);
  emu_seed(seed);
  emu_planted = BUG_NONE;
  sticky = announced = 0;
  memory = 1ull << 30;
  devices = 1;
  version = 12020;
  major_version = 9;
  minor_version = 0;
  memset(fail_at, 0, sizeof fail_at);
  memset(stats.calls, 0, sizeof stats.calls);
  pthread_mutex_unlock(&lock);
}
API void emu_set_memory(u64 bytes) { memory = bytes; }
API void emu_set_device(int count, int driver, int major, int minor) {
  devices = count;
  version = driver;
  major_version = major;
  minor_version = minor;
}
// The bytes of a kernel's arguments, or 0 if there is no such kernel.
API u64 emu_args_bytes(const char* name) {
  const EmulatedKernel* kernel = emu_find_kernel(name);
  return kernel ? kernel->args_bytes : 0;
}
API int emu_plant(int bug) {
  emu_planted = bug;
  return BUG_COUNT;
}
API void emu_fail(int kind, u64 nth, int code, int stays) {
  pthread_mutex_lock(&lock);
  fail_at[kind] = nth ? stats.calls[kind] + nth : 0;
  fail_code[kind] = code;
  fail_sticky[kind] = stays;
  pthread_mutex_unlock(&lock);
}
API void emu_lose_device(int code) {
  pthread_mutex_lock(&lock);
  sticky = code;
  pthread_mutex_unlock(&lock);
}
API void emu_stats(EmulatedStats* to) {
  pthread_mutex_lock(&lock);
  *to = stats;
  pthread_mutex_unlock(&lock);
}

// --- The driver's entry points --------------------------------------------------------------------

API int cuInit(unsigned flags) { (void)flags; return devices ? OK : NO_DEVICE; }
API int cuDriverGetVersion(int* to) { *to = version; return OK; }
API int cuDeviceGetCount(int* to) { *to = devices; return OK; }
API int cuDeviceGet(int* to, int ordinal) { *to = ordinal; return ordinal < devices ? OK : INVALID_DEVICE; }
API int cuDeviceGetName(char* to, int bytes, int id) {
  (void)id;
  snprintf(to, (size_t)bytes, "emulated device");
  return sticky;
}
API int cuDeviceTotalMem_v2(size_t* to, int id) { (void)id; *to = memory; return sticky; }
API int cuDeviceGetAttribute(int* to, int attribute, int id) {
  (void)id;
  *to = attribute == 75 ? major_version : attribute == 76 ? minor_version : attribute == 16 ? 2 : 0;
  return sticky;
}
API int cuDevicePrimaryCtxRetain(void** to, int id) { (void)id; *to = &memory; stats.contexts++; return sticky; }
API int cuDevicePrimaryCtxRelease_v2(int id) { (void)id; stats.contexts--; return sticky; }
API int cuCtxGetCurrent(void** to) { *to = context_now; return sticky; }
API int cuCtxSetCurrent(void* to) { context_now = to; return sticky; }
API int cuCtxSetFlags(unsigned flags) { (void)flags; return sticky; }
API int cuCtxSynchronize(void) { LOCKED({ if (!(result = call(CALL_WAIT))) { run_all(); result = sticky; } }) }
API int cuMemGetInfo_v2(size_t* left, size_t* total) {
  *left = memory - stats.device_bytes;
  *total = memory;
  return sticky;
}
API int cuMemAlloc_v2(u64* to, size_t bytes) {
  LOCKED({
    if ((result = call(CALL_ALLOCATE))) break;
    if (!bytes) result = INVALID_VALUE;
    else if (stats.device_bytes + bytes > memory) result = OUT_OF_MEMORY;
    else *to = (u64)add_allocation(&device, bytes, &stats.device_blocks, &stats.device_bytes);
  })
}
// Memory goes back even after an error, so that what leaks can be counted.
API int cuMemFree_v2(u64 at) {
  LOCKED({
    run_all();
    result = remove_allocation(&device, at, &stats.device_blocks, &stats.device_bytes);
    if (!result) result = sticky;
  })
}
API int cuMemHostAlloc(void** to, size_t bytes, unsigned flags) {
  (void)flags;
  LOCKED({
    if ((result = call(CALL_PIN))) break;
    *to = add_allocation(&pinned, bytes, &stats.pinned_blocks, &stats.pinned_bytes);
  })
}
API int cuMemFreeHost(void* at) {
  LOCKED({
    run_all();
    result = remove_allocation(&pinned, (u64)at, &stats.pinned_blocks, &stats.pinned_bytes);
    if (!result) result = sticky;
  })
}
API int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void* stream) {
  LOCKED({
    if ((result = call(CALL_COPY))) break;
    if (!inside(device, to, bytes)) { result = failed(INVALID_VALUE, "a copy to the device outside of memory"); break; }
    Operation* op = queue(stream, DO_COPY);
    op->to = to;
    op->from = (u64)from;
    op->length = bytes;
    if (!inside(pinned, (u64)from, bytes)) {
      if (!(op->bytes = malloc(bytes + 1))) abort();
      memcpy(op->bytes, from, bytes);
    }
  })
}
API int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void* stream) {
  LOCKED({
    if ((result = call(CALL_COPY))) break;
    if (!inside(device, from, bytes)) { result = failed(INVALID_VALUE, "a copy from the device outside of memory"); break; }
    Operation* op = queue(stream, DO_COPY);
    op->to = (u64)to;
    op->from = from;
    op->length = bytes;
    if (!inside(pinned, (u64)to, bytes)) run_until(stream, op->number);
  })
}
API int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void* stream) {
  LOCKED({
    if ((result = call(CALL_COPY))) break;
    if (!inside(device, from, bytes) || !inside(device, to, bytes)) {
      result = failed(INVALID_VALUE, "a copy on the device outside of memory");
      break;
    }
    Operation* op = queue(stream, DO_COPY);
    op->to = to;
    op->from = from;
    op->length = bytes;
  })
}
API int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, void* stream) {
  LOCKED({
    if ((result = call(CALL_COPY))) break;
    if (!inside(device, to, bytes)) { result = failed(INVALID_VALUE, "memory is filled outside of what is allocated"); break; }
    Operation* op = queue(stream, DO_FILL);
    op->to = to;
    op->from = value;
    op->length = bytes;
  })
}
API int cuModuleLoadData(void** to, const void* image) {
  if (memcmp(image, "\177ELF", 4) && !strstr(image, ".version")) return INVALID_IMAGE;
  *to = &stats;
  stats.modules++;
  return sticky;
}
API int cuModuleUnload(void* module) { (void)module; stats.modules--; return sticky; }
API int cuModuleGetFunction(void** to, void* module, const char* name) {
  (void)module;
  *to = (void*)emu_find_kernel(name);
  return *to ? sticky : NOT_FOUND;
}
API int cuLaunchKernel(const EmulatedKernel* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                       unsigned tz, unsigned shared, void* stream, void** args, void** extra) {
  (void)extra;
  LOCKED({
    if ((result = call(CALL_LAUNCH))) break;
    if (!x || y != 1 || z != 1 || !threads || threads > 1024 || threads % 32 || ty != 1 || tz != 1 || shared) {
      result = INVALID_VALUE;
      break;
    }
    Operation* op = queue(stream, DO_KERNEL);
    op->kernel = kernel;
    op->blocks = x;
    op->threads = threads;
    if (!(op->bytes = malloc(kernel->args_bytes))) abort();
    memcpy(op->bytes, args[0], kernel->args_bytes);
  })
}
API int cuStreamCreate(Stream** to, unsigned flags) {
  (void)flags;
  LOCKED({
    if ((result = sticky)) break;
    if (!(*to = calloc(1, sizeof **to))) abort();
    (*to)->next = streams;
    streams = *to;
    stats.streams++;
  })
}
API int cuStreamDestroy_v2(Stream* stream) {
  LOCKED({
    run_until(stream, stream->queued);
    for (Stream** at = &streams; *at; at = &(*at)->next) {
      if (*at == stream) { *at = stream->next; stats.streams--; break; }
    }
    // Events may still name it.
    result = sticky;
  })
}
API int cuStreamSynchronize(Stream* stream) {
  LOCKED({ if (!(result = call(CALL_WAIT))) { run_until(stream, stream->queued); result = sticky; } })
}
API int cuStreamWaitEvent(Stream* stream, Event* event, unsigned flags) {
  (void)flags;
  LOCKED({
    if ((result = sticky)) break;
    Operation* op = queue(stream, DO_WAIT);
    op->event = event;
    op->length = event->recorded;
  })
}
API int cuEventCreate(Event** to, unsigned flags) {
  (void)flags;
  LOCKED({
    if ((result = sticky)) break;
    if (!(*to = calloc(1, sizeof **to))) abort();
    stats.events++;
  })
}
API int cuEventDestroy_v2(Event* event) {
  LOCKED({
    run_all();
    free(event);
    stats.events--;
    result = sticky;
  })
}
API int cuEventRecord(Event* event, Stream* stream) {
  LOCKED({
    if ((result = sticky)) break;
    Operation* op = queue(stream, DO_RECORD);
    op->event = event;
    event->stream = stream;
    event->recorded = op->number;
  })
}
static int wait_for(Event* event) {
  if (event->stream && event->reached < event->recorded) run_until(event->stream, event->recorded);
  return sticky;
}
API int cuEventSynchronize(Event* event) { LOCKED({ if (!(result = call(CALL_WAIT))) result = wait_for(event); }) }
API int cuEventQuery(Event* event) { LOCKED({ result = wait_for(event); }) }
API int cuEventElapsedTime(float* to, Event* a, Event* b) {
  LOCKED({
    wait_for(a);
    wait_for(b);
    *to = (float)((double)(b->time.tv_sec - a->time.tv_sec) * 1e3 + (double)(b->time.tv_nsec - a->time.tv_nsec) / 1e6);
    result = sticky;
  })
}
API int cuGetErrorString(int code, const char** to) { (void)code; *to = "an emulated error"; return OK; }
API int cuGetErrorName(int code, const char** to) { (void)code; *to = "EMULATED"; return OK; }
