// Where the values of an RHN's window lie, and the highway update of one unit: what all its kernels agree on.
//
// A slot is a sublayer step; all lanes' rows of a slot lie together, the slots of a sublayer follow one another in
// time, and then comes the next sublayer: so a sublayer's values of the whole window are one matrix. Rows are padded
// to `stride` units, a multiple of 32; the padding of operands is zero and never written.
//
//     states         (depth, time · batch, stride)     the state that enters a sublayer step
//     operands       the same, masked                   what enters its product
//     gates          (depth, time · batch, 2 stride)   h, then t; after the backward pass their pre-activations' gradients
//     gate_operands  the same, for the products         (bf16 only; f32 takes `gates`)
#pragma once
#include "common.cuh"

struct Window {
    int time, batch, depth, hidden, stride;

    __device__ __forceinline__ int steps() const { return time * depth; }
    // The row of a lane at sublayer step `index`.
    __device__ __forceinline__ size_t row(int index, int lane) const {
        return size_t(index % depth * time + index / depth) * batch + lane;
    }
    // The row of a lane at a time step, for tensors without sublayers.
    __device__ __forceinline__ size_t moment(int index, int lane) const { return size_t(index / depth) * batch + lane; }
    __device__ __forceinline__ bool ends_a_step(int index) const { return index % depth + 1 == depth; }
};

// tanh for section 0 (h), the logistic function by it for section 1 (t): no branch, both in one warp.
__device__ __forceinline__ float activation(float z, int section) {
    float y = tanhf(section ? 0.5f * z : z);
    return section ? 0.5f * y + 0.5f : y;
}

__device__ __forceinline__ void store_operand(float *at, float x) { *at = x; }
__device__ __forceinline__ void store_operand(__nv_bfloat16 *at, float x) { *at = __float2bfloat16_rn(x); }

// From the gradient of the state that leaves a sublayer step: those of h's and t's pre-activations, and what passes
// by the carry gate.
struct HighwayGrad {
    float h, t, carry;
};
__device__ __forceinline__ HighwayGrad highway_grad(float grad, float state, float h, float t) {
    return {grad * t * (1.0f - h * h), grad * (h - state) * t * (1.0f - t), grad * (1.0f - t)};
}
