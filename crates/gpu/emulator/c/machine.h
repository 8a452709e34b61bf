// What the driver asks of the machine.
#ifndef TIDELOG_MACHINE_H
#define TIDELOG_MACHINE_H
#include "emulated.h"

const EmulatedKernel* emu_find_kernel(const char* name);
// Runs a kernel to its end. Gives what went wrong, or 0.
const char* emu_run(const EmulatedKernel* kernel, const void* args, u32 blocks, u32 threads);
void emu_seed(u64 seed);

#endif
