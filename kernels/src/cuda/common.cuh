// What every kernel includes: CUDA under nvcc, its emulation elsewhere.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <stdint.h>
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];                                              \
    type *name = reinterpret_cast<type *>(dynamic_shared_bytes)
#define EMULATED(kernel)
__device__ __forceinline__ void spin_wait() { __nanosleep(20); }
#else
#include "cuda/emulation/cuda.h"
#endif

// The index of this thread in a one-dimensional grid.
__device__ __forceinline__ unsigned grid_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
// Threads of a one-dimensional grid.
__device__ __forceinline__ unsigned grid_threads() { return gridDim.x * blockDim.x; }
