// Where the values of a recurrence's window lie: what all its kernels agree on.
//
// The rows of all batch rows of a sublayer step lie together, a sublayer's steps follow one another in time, and then
// comes the next sublayer: so a sublayer's values of the whole window are one matrix. Rows are padded to `stride`
// units, a multiple of 32; the padding of operands is zero and never written.
//
//     states         (depth, time · batch, parts · stride)    the state that enters a sublayer step, part after part
//     operands       (depth, time · batch, stride)            its first part, masked: what enters the product
//     saved          (depth, time · batch, values · stride)   what the cell saves; after the backward pass gradients
//     gate_operands  the same, for the products               (bf16 only; f32 takes `saved`)
#pragma once
#include "cuda/common.cuh"

// A sublayer step of a window.
struct Step {
    int time, sublayer;
};

struct Window {
    int time, batch, depth, hidden, stride;

    __device__ __forceinline__ int steps() const { return time * depth; }
    __device__ __forceinline__ Step step(int index) const { return {index / depth, index % depth}; }
    __device__ __forceinline__ int index(Step s) const { return s.time * depth + s.sublayer; }
    __device__ __forceinline__ Step after(Step s) const {
        return s.sublayer + 1 == depth ? Step{s.time + 1, 0} : Step{s.time, s.sublayer + 1};
    }
    __device__ __forceinline__ Step before(Step s) const {
        return s.sublayer == 0 ? Step{s.time - 1, depth - 1} : Step{s.time, s.sublayer - 1};
    }
    // Whether it is the last of its time step.
    __device__ __forceinline__ bool ends_a_time_step(Step s) const { return s.sublayer + 1 == depth; }
    // Whether it is the last of the window.
    __device__ __forceinline__ bool ends(Step s) const { return ends_a_time_step(s) && s.time + 1 == time; }
    // The row of a batch row in the buffers above.
    __device__ __forceinline__ size_t row(Step s, int batch_row) const {
        return size_t(s.sublayer * time + s.time) * batch + batch_row;
    }
    // The row of a batch row in tensors without sublayers.
    __device__ __forceinline__ size_t input_row(Step s, int batch_row) const { return size_t(s.time) * batch + batch_row; }
};

// The logistic function by the tangent, or the tangent itself: no branch, so that both can be in one warp.
__device__ __forceinline__ float activation(float z, bool logistic) {
    float y = tanhf(logistic ? 0.5f * z : z);
    return logistic ? 0.5f * y + 0.5f : y;
}

__device__ __forceinline__ void store_operand(float *at, float x) { *at = x; }
__device__ __forceinline__ void store_operand(__nv_bfloat16 *at, float x) { *at = __float2bfloat16_rn(x); }
