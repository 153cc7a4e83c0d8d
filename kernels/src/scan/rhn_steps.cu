// The RHN recurrence, one launch a sublayer step: what happens between the products of a library, for any size.
// One thread a lane and unit; memory as rhn_window.cuh says. `sums` is a product's result, (batch, stride or 2 stride).
#include "scan/rhn_window.cuh"

// A lane and unit of the batch.
struct Cell {
    int lane, unit;
    bool exists;
    __device__ __forceinline__ explicit Cell(const Window &w)
        : lane(int(grid_thread()) / w.hidden), unit(int(grid_thread()) % w.hidden), exists(lane < w.batch) {}
};

// Makes `state` the state that enters a sublayer step.
template <class E>
__device__ __forceinline__ void enter(const Window &w, Turn turn, Cell at, float state, const float *mask, float *states,
                                      E *operands) {
    size_t place = w.row(turn, at.lane) * w.stride + at.unit;
    states[place] = state;
    store_operand(operands + place, mask ? state * mask[at.lane * w.hidden + at.unit] : state);
}

template <class E>
__device__ __forceinline__ void first_state(const Window &w, const float *state, const float *mask, float *states,
                                            E *operands) {
    Cell at(w);
    if (at.exists) enter(w, Turn{0, 0}, at, state[at.lane * w.hidden + at.unit], mask, states, operands);
}

// Gates, and the state that leaves the turn. `mask` may be null; `projected` is (time, batch, 2 hidden).
template <class E>
__device__ __forceinline__ void forward_step(const Window &w, Turn turn, const float *sums, const float *projected,
                                             const float *bias, const float *mask, float *states, float *gates,
                                             E *operands, float *outputs) {
    Cell at(w);
    if (!at.exists) return;
    size_t row = w.row(turn, at.lane), moment = w.moment(turn, at.lane);
    float gate[2];
    for (int section = 0; section < 2; section++) {
        int column = section * w.hidden + at.unit;
        float z = sums[size_t(at.lane) * 2 * w.stride + section * w.stride + at.unit];
        z += bias[turn.sublayer * 2 * w.hidden + column];
        if (turn.sublayer == 0) z += projected[moment * 2 * w.hidden + column];
        gate[section] = activation(z, section);
        gates[row * 2 * w.stride + section * w.stride + at.unit] = gate[section];
    }
    float state = states[row * w.stride + at.unit];
    float next = state + gate[1] * (gate[0] - state);
    if (!w.ends(turn)) enter(w, w.after(turn), at, next, mask, states, operands);
    if (w.ends_a_step(turn)) outputs[moment * w.hidden + at.unit] = next;
}

// Gradients of the pre-activations in place of the gates. `sums` is what the product after this step sends back, null
// for the last; `carried` (batch, hidden) is what the carry gate passes back from step to step.
template <class E>
__device__ __forceinline__ void backward_step(const Window &w, Turn turn, const float *sums, const float *grads,
                                              const float *mask, const float *states, float *carried, float *gates,
                                              E *gate_operands) {
    Cell at(w);
    if (!at.exists) return;
    size_t row = w.row(turn, at.lane), here = size_t(at.lane) * w.hidden + at.unit;
    float grad = 0.0f;
    if (sums) {
        float sent = sums[size_t(at.lane) * w.stride + at.unit];
        grad = carried[here] + (mask ? sent * mask[here] : sent);
    }
    if (w.ends_a_step(turn)) grad += grads[w.moment(turn, at.lane) * w.hidden + at.unit];
    size_t h = row * 2 * w.stride + at.unit, t = h + w.stride;
    HighwayGrad found = highway_grad(grad, states[row * w.stride + at.unit], gates[h], gates[t]);
    carried[here] = found.carry;
    gates[h] = found.h;
    gates[t] = found.t;
    store_operand(gate_operands + h, found.h); // f32: the same place once more
    store_operand(gate_operands + t, found.t);
}

// (depth, hidden, 2 hidden) to (depth, stride, 2 stride); the padding is left as it is.
template <class E> __device__ __forceinline__ void pack(const Window &w, const float *recurrent, E *packed) {
    size_t count = size_t(w.depth) * w.hidden * 2 * w.hidden;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t column = i % (2 * w.hidden), row = i / (2 * w.hidden);
        size_t sublayer = row / w.hidden, section = column / w.hidden;
        size_t place = (sublayer * w.stride + row % w.hidden) * 2 * w.stride + section * w.stride + column % w.hidden;
        store_operand(packed + place, recurrent[i]);
    }
}

#define WINDOW_ARGUMENTS int time, int batch, int depth, int hidden, int stride
#define WINDOW const Window w{time, batch, depth, hidden, stride}

#define STEP_KERNELS(type, E)                                                                                          \
    extern "C" __global__ void rhn_first_state_##type(WINDOW_ARGUMENTS, const float *state, const float *mask,         \
                                                      float *states, E *operands) {                                    \
        WINDOW;                                                                                                        \
        first_state(w, state, mask, states, operands);                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void rhn_forward_step_##type(WINDOW_ARGUMENTS, int index, const float *sums,                 \
                                                       const float *projected, const float *bias, const float *mask,   \
                                                       float *states, float *gates, E *operands, float *outputs) {     \
        WINDOW;                                                                                                        \
        forward_step(w, w.turn(index), sums, projected, bias, mask, states, gates, operands, outputs);                 \
    }                                                                                                                  \
    extern "C" __global__ void rhn_backward_step_##type(WINDOW_ARGUMENTS, int index, const float *sums,                \
                                                        const float *grads, const float *mask, const float *states,    \
                                                        float *carried, float *gates, E *gate_operands) {              \
        WINDOW;                                                                                                        \
        backward_step(w, w.turn(index), sums, grads, mask, states, carried, gates, gate_operands);                     \
    }                                                                                                                  \
    extern "C" __global__ void rhn_pack_##type(WINDOW_ARGUMENTS, const float *recurrent, E *packed) {                  \
        WINDOW;                                                                                                        \
        pack(w, recurrent, packed);                                                                                    \
    }                                                                                                                  \
    EMULATED(rhn_first_state_##type)                                                                                   \
    EMULATED(rhn_forward_step_##type)                                                                                  \
    EMULATED(rhn_backward_step_##type)                                                                                 \
    EMULATED(rhn_pack_##type)

STEP_KERNELS(f32, float)
STEP_KERNELS(bf16, __nv_bfloat16)
