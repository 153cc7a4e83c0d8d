// Kernels that try the emulator out: what must work, and mistakes that it must find.
#include "cuda/grid.cuh"
#include "cuda/warp.cuh"

// The sum of n values, by one block.
extern "C" __global__ void probe_sum(const float *values, unsigned n, float *sum) {
    __shared__ float scratch[32];
    float mine = 0.0f;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) mine += values[i];
    mine = block_sum(mine, scratch);
    if (threadIdx.x == 0) *sum = mine;
}
EMULATED(probe_sum)

// Each block's slice reversed through dynamic shared memory; with `barrier` 0 the barrier is forgotten.
extern "C" __global__ void probe_reverse(const unsigned *in, unsigned *out, unsigned barrier) {
    DYNAMIC_SHARED(unsigned, tile);
    tile[threadIdx.x] = in[grid_thread()];
    if (barrier) __syncthreads();
    out[grid_thread()] = tile[blockDim.x - 1 - threadIdx.x];
}
EMULATED(probe_reverse)

// Every block adds its number to every other's count, `rounds` times, between barriers of the grid.
extern "C" __global__ void probe_grid(unsigned *arrived, unsigned *counts, unsigned rounds) {
    __shared__ unsigned before;
    for (unsigned round = 1; round <= rounds; round++) {
        if (threadIdx.x == 0) before = counts[(blockIdx.x + 1) % gridDim.x];
        grid_barrier(arrived, 2 * round - 1);
        if (threadIdx.x == 0) counts[blockIdx.x] = before + 1;
        grid_barrier(arrived, 2 * round);
    }
}
EMULATED(probe_grid)

// One product of 16 × 16 by 16 × 8, rows of A and columns of B given in f32.
extern "C" __global__ void probe_mma(const float *a, const float *b, float *d) {
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto from_a = [&](unsigned row, unsigned k) { return pack_bf16(a[row * 16 + k], a[row * 16 + k + 1]); };
    auto from_b = [&](unsigned k) { return pack_bf16(b[k * 8 + g], b[(k + 1) * 8 + g]); };
    unsigned as[4] = {from_a(g, 2 * t), from_a(g + 8, 2 * t), from_a(g, 2 * t + 8), from_a(g + 8, 2 * t + 8)};
    unsigned bs[2] = {from_b(2 * t), from_b(2 * t + 8)};
    float sums[4] = {0, 0, 0, 0};
    mma_m16n8k16(sums, as, bs);
    for (unsigned i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}
EMULATED(probe_mma)

// Mistakes: 0 none, 1 reads behind the end, 2 writes before the start, 3 leaves others at a barrier, 4 waits at
// different barriers, 5 spins for ever, 6 uses shared memory that was not written, 7 leaves others at a warp operation.
extern "C" __global__ void probe_mistake(float *values, unsigned n, unsigned mistake) {
    __shared__ float tile[32];
    unsigned i = threadIdx.x;
    if (mistake != 6) tile[i] = 1.0f;
    if (mistake == 1 && i == 3) values[0] = values[n];
    if (mistake == 2 && i == 3) values[-1] = 0.0f;
    if (mistake == 3 && i == 3) return;
    if (mistake == 4 && i == 3) __syncthreads();
    if (mistake == 5)
        while (i == 3) spin_wait();
    if (mistake == 7 && i == 3) return;
    if (mistake == 7) values[i] = warp_join(1.0f, [](float a, float b) { return a + b; });
    __syncthreads();
    if (i < n) values[i] = tile[31 - i];
}
EMULATED(probe_mistake)
