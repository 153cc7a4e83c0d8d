// Sums over a warp and a block in a fixed order, and the product of a warp's tiles.
#pragma once
#include "cuda/common.cuh"

#define FULL_WARP 0xffffffffu

// The warp's values put together by `join`, in every lane; in the same order for every lane.
template <class T, class Join> __device__ __forceinline__ T warp_join(T value, Join join) {
    for (unsigned bits = 16; bits > 0; bits /= 2) value = join(value, __shfl_xor_sync(FULL_WARP, value, bits));
    return value;
}

// The same over a block of whole warps, in every thread. `scratch` holds 32 values; it may be used again at once.
template <class T, class Join> __device__ __forceinline__ T block_join(T value, T none, T *scratch, Join join) {
    unsigned warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    value = warp_join(value, join);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_join(lane < warps ? scratch[lane] : none, join);
    __syncthreads();
    return value;
}

template <class T> __device__ __forceinline__ T block_sum(T value, T *scratch) {
    return block_join(value, T(0), scratch, [](T a, T b) { return a + b; });
}

// The larger of two values; NaN if one is.
template <class T> __device__ __forceinline__ T nan_max(T a, T b) { return a != a || a > b ? a : b; }

template <class T> __device__ __forceinline__ T block_max(T value, T *scratch) {
    return block_join(value, T(-INFINITY), scratch, [](T a, T b) { return nan_max(a, b); });
}

// d += a b for one warp: A 16 × 16 by rows, B 16 × 8 by columns, D 16 × 8. With g = lane / 4 and t = lane % 4, two bf16
// values a register, the low half first:
//   a[0]: A[g][2t, 2t+1]  a[1]: A[g+8][2t, …]  a[2]: A[g][2t+8, …]  a[3]: A[g+8][2t+8, …]
//   b[0]: B[2t, 2t+1][g]  b[1]: B[2t+8, 2t+9][g]      d: D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emulated_mma(d, a, b);
#endif
}

// Two values as one register of a fragment, the first in the low half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned l = __bfloat16_as_ushort(__float2bfloat16_rn(low)), h = __bfloat16_as_ushort(__float2bfloat16_rn(high));
    return l | h << 16;
}
