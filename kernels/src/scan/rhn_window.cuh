// Where the values of an RHN's window lie, and the highway update of one unit: what all its kernels agree on.
//
// The rows of all lanes of a sublayer step lie together, a sublayer's steps follow one another in time, and then comes
// the next sublayer: so a sublayer's values of the whole window are one matrix. Rows are padded to `stride` units, a
// multiple of 32; the padding of operands is zero and never written.
//
//     states         (depth, time · batch, stride)     the state that enters a sublayer step
//     operands       the same, masked                   what enters its product
//     gates          (depth, time · batch, 2 stride)   h, then t; after the backward pass their pre-activations' gradients
//     gate_operands  the same, for the products         (bf16 only; f32 takes `gates`)
#pragma once
#include "cuda/common.cuh"

// A sublayer step of a window.
struct Turn {
    int step, sublayer;
};

struct Window {
    int time, batch, depth, hidden, stride;

    __device__ __forceinline__ int turns() const { return time * depth; }
    __device__ __forceinline__ Turn turn(int index) const { return {index / depth, index % depth}; }
    __device__ __forceinline__ int index(Turn t) const { return t.step * depth + t.sublayer; }
    __device__ __forceinline__ Turn after(Turn t) const {
        return t.sublayer + 1 == depth ? Turn{t.step + 1, 0} : Turn{t.step, t.sublayer + 1};
    }
    __device__ __forceinline__ Turn before(Turn t) const {
        return t.sublayer == 0 ? Turn{t.step - 1, depth - 1} : Turn{t.step, t.sublayer - 1};
    }
    // Whether it is the last of its time step.
    __device__ __forceinline__ bool ends_a_step(Turn t) const { return t.sublayer + 1 == depth; }
    // Whether it is the last of the window.
    __device__ __forceinline__ bool ends(Turn t) const { return ends_a_step(t) && t.step + 1 == time; }
    // A lane's row.
    __device__ __forceinline__ size_t row(Turn t, int lane) const {
        return size_t(t.sublayer * time + t.step) * batch + lane;
    }
    // A lane's row in tensors without sublayers.
    __device__ __forceinline__ size_t moment(Turn t, int lane) const { return size_t(t.step) * batch + lane; }
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
