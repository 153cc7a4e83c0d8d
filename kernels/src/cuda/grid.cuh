// A barrier of all blocks of a cooperative launch, all of which are resident.
#pragma once
#include "cuda/common.cuh"

// What other blocks stored before their release is seen after this load.
__device__ __forceinline__ unsigned load_acquire(const unsigned *at) {
#ifdef __CUDACC__
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
#else
    return *static_cast<const volatile unsigned *>(at);
#endif
}

// Adds one; all that this thread stored or acquired is seen by a thread that acquires the sum.
__device__ __forceinline__ void add_release(unsigned *at) {
#ifdef __CUDACC__
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(at) : "memory");
#else
    atomicAdd(at, 1u);
#endif
}

// Waits for all blocks. `arrived` is zero at the launch; `round` counts this thread's barriers from 1, so that the
// counter is never set back. Blocks are one-dimensional.
__device__ __forceinline__ void grid_barrier(unsigned *arrived, unsigned round) {
    __syncthreads(); // the block's stores are before the release, by the barrier and its cumulativity
    if (threadIdx.x == 0) {
        add_release(arrived);
        unsigned wanted = round * gridDim.x;
        while (load_acquire(arrived) < wanted) spin_wait();
    }
    __syncthreads();
}
