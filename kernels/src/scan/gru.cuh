// The gated recurrent unit, unit by unit; gru.rs has its equations. Values: r, z, n and the candidate's product, in
// whose place the backward pass leaves the gradient of the candidate's projected input. State: h.
#pragma once
#include "scan/window.cuh"

struct Gru {
    static constexpr int GATES = 3, STATES = 1, SAVED = 4;
    static constexpr bool CARRIES_OUTPUT = true;

    __device__ __forceinline__ static void forward(float *values, const float *x, float *state) {
        float product = values[2], r = activation(values[0] + x[0], true), z = activation(values[1] + x[1], true);
        float n = tanhf(x[2] + r * product);
        values[0] = r, values[1] = z, values[2] = n, values[3] = product;
        state[0] = n + z * (state[0] - n);
    }

    __device__ __forceinline__ static void backward(float *values, const float *state, float *grads) {
        float r = values[0], z = values[1], n = values[2], product = values[3], grad = grads[0];
        float dn = grad * (1.0f - z) * (1.0f - n * n);
        values[0] = dn * product * r * (1.0f - r);
        values[1] = grad * (state[0] - n) * z * (1.0f - z);
        values[2] = dn * r;
        values[3] = dn;
        grads[0] = grad * z;
    }
};
