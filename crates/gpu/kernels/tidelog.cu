// All kernels, as one module.
#include "select.cu"
#include "aggregate.cu"
#include "order.cu"
