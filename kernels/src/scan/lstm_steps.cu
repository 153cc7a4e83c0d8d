// The LSTM recurrence, one launch a step: what happens between the products of a library. One thread a lane and unit.
//
//     i, o, f = sigmoid(x + (h ⊙ m) R + b)      g = tanh(x + (h ⊙ m) R + b)
//     c = f c + i g                             h = o tanh(c)
//
// Rows are lanes of time steps in order, padded to `stride` units as in rhn_window.cuh:
//     cells          (time · batch, stride)      the c that enters a step
//     operands       the same                    the h that enters its product, masked; the padding is zero
//     gates          (time · batch, 4 stride)   i, o, f, g; after the backward pass their pre-activations' gradients
//     gate_operands  the same, for the products (bf16 only; f32 takes `gates`)
#include "scan/rhn_window.cuh"

constexpr int GATES = 4, LAST = 3; // the last is a tangent, the others are logistic

struct Lstm {
    int time, batch, hidden, stride;
};

// A lane and unit of the batch.
struct LstmCell {
    int lane, unit;
    bool exists;
    __device__ __forceinline__ explicit LstmCell(const Lstm &w)
        : lane(int(grid_thread()) / w.hidden), unit(int(grid_thread()) % w.hidden), exists(lane < w.batch) {}
};

// Makes h and c those that enter `step`.
template <class E>
__device__ __forceinline__ void enter_step(const Lstm &w, int step, LstmCell at, float h, float c, const float *mask,
                                           float *cells, E *operands) {
    size_t place = (size_t(step) * w.batch + at.lane) * w.stride + at.unit;
    cells[place] = c;
    store_operand(operands + place, mask ? h * mask[at.lane * w.hidden + at.unit] : h);
}

template <class E>
__device__ __forceinline__ void first_state(const Lstm &w, const float *h, const float *c, const float *mask,
                                            float *cells, E *operands) {
    LstmCell at(w);
    int here = at.lane * w.hidden + at.unit;
    if (at.exists) enter_step(w, 0, at, h[here], c[here], mask, cells, operands);
}

// `sums` is the product of the step, (batch, 4 stride); `last_cell` (batch, hidden) is the c that leaves the window.
template <class E>
__device__ __forceinline__ void forward_step(const Lstm &w, int step, const float *sums, const float *projected,
                                             const float *bias, const float *mask, float *cells, float *gates,
                                             E *operands, float *outputs, float *last_cell) {
    LstmCell at(w);
    if (!at.exists) return;
    size_t row = size_t(step) * w.batch + at.lane;
    float gate[GATES];
    for (int section = 0; section < GATES; section++) {
        int column = section * w.hidden + at.unit;
        size_t padded = section * w.stride + at.unit, width = GATES * w.stride;
        float z = sums[at.lane * width + padded] + bias[column] + projected[row * GATES * w.hidden + column];
        gate[section] = activation(z, section != LAST);
        gates[row * width + padded] = gate[section];
    }
    float c = gate[2] * cells[row * w.stride + at.unit] + gate[0] * gate[3], h = gate[1] * tanhf(c);
    outputs[row * w.hidden + at.unit] = h;
    if (step + 1 < w.time) enter_step(w, step + 1, at, h, c, mask, cells, operands);
    else last_cell[at.lane * w.hidden + at.unit] = c;
}

// Gradients of the pre-activations in place of the gates. `sums` (batch, stride) is what the product of the step after
// this one sends back, null for the last; `carried` (batch, hidden) is the gradient of c that the forget gates pass on.
template <class E>
__device__ __forceinline__ void backward_step(const Lstm &w, int step, const float *sums, const float *grads,
                                              const float *mask, const float *cells, float *carried, float *gates,
                                              E *gate_operands) {
    LstmCell at(w);
    if (!at.exists) return;
    size_t row = size_t(step) * w.batch + at.lane, here = size_t(at.lane) * w.hidden + at.unit;
    size_t place = row * GATES * w.stride + at.unit;
    float i = gates[place], o = gates[place + w.stride], f = gates[place + 2 * w.stride], g = gates[place + 3 * w.stride];
    float entered = cells[row * w.stride + at.unit], t = tanhf(f * entered + i * g);
    float dh = grads[row * w.hidden + at.unit], dc = 0.0f;
    if (sums) {
        float sent = sums[size_t(at.lane) * w.stride + at.unit];
        dh += mask ? sent * mask[here] : sent;
        dc = carried[here];
    }
    dc += dh * o * (1.0f - t * t);
    carried[here] = dc * f;
    float found[GATES] = {dc * g * i * (1.0f - i), dh * t * o * (1.0f - o), dc * entered * f * (1.0f - f),
                          dc * i * (1.0f - g * g)};
    for (int section = 0; section < GATES; section++) {
        gates[place + section * w.stride] = found[section];
        store_operand(gate_operands + place + section * w.stride, found[section]); // f32: the same place once more
    }
}

// (hidden, 4 hidden) to (stride, 4 stride); the padding is left as it is.
template <class E> __device__ __forceinline__ void pack(const Lstm &w, const float *recurrent, E *packed) {
    size_t width = GATES * w.hidden, count = w.hidden * width;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t column = i % width, section = column / w.hidden;
        size_t place = (i / width * GATES + section) * w.stride + column % w.hidden;
        store_operand(packed + place, recurrent[i]);
    }
}

#define LSTM_ARGUMENTS int time, int batch, int hidden, int stride
#define LSTM                                                                                                           \
    Lstm { time, batch, hidden, stride }

#define LSTM_KERNELS(type, E)                                                                                          \
    extern "C" __global__ void lstm_first_state_##type(LSTM_ARGUMENTS, const float *h, const float *c,                 \
                                                       const float *mask, float *cells, E *operands) {                 \
        first_state(LSTM, h, c, mask, cells, operands);                                                                \
    }                                                                                                                  \
    extern "C" __global__ void lstm_forward_step_##type(                                                               \
        LSTM_ARGUMENTS, int step, const float *sums, const float *projected, const float *bias, const float *mask,     \
        float *cells, float *gates, E *operands, float *outputs, float *last_cell) {                                   \
        forward_step(LSTM, step, sums, projected, bias, mask, cells, gates, operands, outputs, last_cell);             \
    }                                                                                                                  \
    extern "C" __global__ void lstm_backward_step_##type(LSTM_ARGUMENTS, int step, const float *sums,                  \
                                                         const float *grads, const float *mask, const float *cells,    \
                                                         float *carried, float *gates, E *gate_operands) {             \
        backward_step(LSTM, step, sums, grads, mask, cells, carried, gates, gate_operands);                            \
    }                                                                                                                  \
    extern "C" __global__ void lstm_pack_##type(LSTM_ARGUMENTS, const float *recurrent, E *packed) {                   \
        pack(LSTM, recurrent, packed);                                                                                 \
    }                                                                                                                  \
    EMULATED(lstm_first_state_##type)                                                                                  \
    EMULATED(lstm_forward_step_##type)                                                                                 \
    EMULATED(lstm_backward_step_##type)                                                                                \
    EMULATED(lstm_pack_##type)

LSTM_KERNELS(f32, float)
LSTM_KERNELS(bf16, __nv_bfloat16)
