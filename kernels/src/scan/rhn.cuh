// The recurrent highway cell, unit by unit; rhn.rs has its equations. Values: h, t. State: s.
#pragma once
#include "scan/window.cuh"

// From the gradient of the state that leaves a sublayer step: those of h's and t's pre-activations, and what passes
// by the carry gate.
struct HighwayGrad {
    float h, t, carry;
};
__device__ __forceinline__ HighwayGrad highway_grad(float grad, float state, float h, float t) {
    return {grad * t * (1.0f - h * h), grad * (h - state) * t * (1.0f - t), grad * (1.0f - t)};
}

struct Rhn {
    static constexpr int GATES = 2, STATES = 1, SAVED = 2;
    static constexpr bool CARRIES_OUTPUT = true;

    // `values`: the products with the bias, to become what is saved; `x`: the projected input, zero where there is none.
    __device__ __forceinline__ static void forward(float *values, const float *x, float *state) {
        for (int gate = 0; gate < GATES; gate++) values[gate] = activation(values[gate] + x[gate], gate == 1);
        state[0] = state[0] + values[1] * (values[0] - state[0]);
    }

    // `values`: what was saved, to become gradients; `grads`: of the state after the step, to become what is carried.
    __device__ __forceinline__ static void backward(float *values, const float *state, float *grads) {
        HighwayGrad found = highway_grad(grads[0], state[0], values[0], values[1]);
        values[0] = found.h;
        values[1] = found.t;
        grads[0] = found.carry;
    }
};
