// The recurrent highway cell with a carry gate of its own, unit by unit; rhn_uncoupled.rs has its equations. Values: h,
// t, c. State: s.
#pragma once
#include "scan/window.cuh"

struct UncoupledRhn {
    static constexpr int GATES = 3, STATES = 1, SAVED = 3;
    static constexpr bool CARRIES_OUTPUT = true;

    __device__ __forceinline__ static void forward(float *values, const float *x, float *state) {
        for (int gate = 0; gate < GATES; gate++) values[gate] = activation(values[gate] + x[gate], gate > 0);
        state[0] = values[0] * values[1] + state[0] * values[2];
    }

    __device__ __forceinline__ static void backward(float *values, const float *state, float *grads) {
        float h = values[0], t = values[1], c = values[2], grad = grads[0];
        values[0] = grad * t * (1.0f - h * h);
        values[1] = grad * h * t * (1.0f - t);
        values[2] = grad * state[0] * c * (1.0f - c);
        grads[0] = grad * c;
    }
};
