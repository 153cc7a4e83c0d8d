// The long short-term memory cell, unit by unit; lstm.rs has its equations. Values: i, o, f, g. State: h, c.
#pragma once
#include "scan/window.cuh"

struct Lstm {
    static constexpr int GATES = 4, STATES = 2, SAVED = 4;
    static constexpr bool CARRIES_OUTPUT = false;

    __device__ __forceinline__ static void forward(float *values, const float *x, float *state) {
        for (int gate = 0; gate < GATES; gate++) values[gate] = activation(values[gate] + x[gate], gate != 3);
        state[1] = values[2] * state[1] + values[0] * values[3];
        state[0] = values[1] * tanhf(state[1]);
    }

    __device__ __forceinline__ static void backward(float *values, const float *state, float *grads) {
        float i = values[0], o = values[1], f = values[2], g = values[3];
        float t = tanhf(f * state[1] + i * g), dh = grads[0], dc = grads[1] + dh * o * (1.0f - t * t);
        values[0] = dc * g * i * (1.0f - i);
        values[1] = dh * t * o * (1.0f - o);
        values[2] = dc * state[1] * f * (1.0f - f);
        values[3] = dc * i * (1.0f - g * g);
        grads[1] = dc * f;
    }
};
