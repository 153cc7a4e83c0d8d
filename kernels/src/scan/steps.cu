// A recurrence, one launch a sublayer step: what happens between the products of a library, for any cell and size.
// One thread a batch row and unit; memory as window.cuh says.
#include "scan/gru.cuh"
#include "scan/lstm.cuh"
#include "scan/rhn.cuh"
#include "scan/rhn_uncoupled.cuh"
#include "scan/window.cuh"

// A batch row and a unit.
struct Unit {
    int row, unit;
    bool exists;
    __device__ __forceinline__ explicit Unit(const Window &w)
        : row(int(grid_thread()) / w.hidden), unit(int(grid_thread()) % w.hidden), exists(row < w.batch) {}
    // Its element in part `part` of (parts, batch, hidden).
    __device__ __forceinline__ size_t in(const Window &w, int part) const {
        return size_t(part * w.batch + row) * w.hidden + unit;
    }
};

// Makes `state` the state that enters a sublayer step.
template <class Cell, class E>
__device__ __forceinline__ void enter(const Window &w, Step step, Unit at, const float *state, const float *mask,
                                      float *states, E *operands) {
    size_t row = w.row(step, at.row);
    for (int part = 0; part < Cell::STATES; part++)
        states[(row * Cell::STATES + part) * w.stride + at.unit] = state[part];
    store_operand(operands + row * w.stride + at.unit, mask ? state[0] * mask[at.in(w, 0)] : state[0]);
}

// `first` is (parts, batch, hidden); `mask` (batch, hidden) may be null.
template <class Cell, class E>
__device__ __forceinline__ void first_state(const Window &w, const float *first, const float *mask, float *states,
                                            E *operands) {
    Unit at(w);
    if (!at.exists) return;
    float state[Cell::STATES];
    for (int part = 0; part < Cell::STATES; part++) state[part] = first[at.in(w, part)];
    enter<Cell>(w, Step{0, 0}, at, state, mask, states, operands);
}

// `sums` is the product of the step, (batch, gates · stride), `projected` (time, batch, gates · hidden), `last`
// (parts - 1, batch, hidden) what leaves the window besides the outputs.
template <class Cell, class E>
__device__ __forceinline__ void forward_step(const Window &w, Step step, const float *sums, const float *projected,
                                             const float *bias, const float *mask, float *states, float *saved,
                                             E *operands, float *outputs, float *last) {
    Unit at(w);
    if (!at.exists) return;
    size_t row = w.row(step, at.row), input_row = w.input_row(step, at.row);
    float values[Cell::SAVED], x[Cell::GATES], state[Cell::STATES];
    for (int gate = 0; gate < Cell::GATES; gate++) {
        int column = gate * w.hidden + at.unit;
        values[gate] = sums[(size_t(at.row) * Cell::GATES + gate) * w.stride + at.unit];
        values[gate] += bias[step.sublayer * Cell::GATES * w.hidden + column];
        x[gate] = step.sublayer == 0 ? projected[input_row * Cell::GATES * w.hidden + column] : 0.0f;
    }
    for (int part = 0; part < Cell::STATES; part++)
        state[part] = states[(row * Cell::STATES + part) * w.stride + at.unit];
    Cell::forward(values, x, state);
    for (int value = 0; value < Cell::SAVED; value++)
        saved[(row * Cell::SAVED + value) * w.stride + at.unit] = values[value];
    if (w.ends_a_time_step(step)) outputs[input_row * w.hidden + at.unit] = state[0];
    if (!w.ends(step)) return enter<Cell>(w, w.after(step), at, state, mask, states, operands);
    for (int part = 1; part < Cell::STATES; part++) last[at.in(w, part - 1)] = state[part];
}

// Gradients in place of what was saved. `sums` (batch, stride) is what the product of the step after this one sends
// back, null for the last; `carried` (parts, batch, hidden) is what goes back from step to step unit by unit.
template <class Cell, class E>
__device__ __forceinline__ void backward_step(const Window &w, Step step, const float *sums, const float *grads,
                                              const float *mask, const float *states, float *carried, float *saved,
                                              E *gate_operands) {
    Unit at(w);
    if (!at.exists) return;
    size_t row = w.row(step, at.row);
    float values[Cell::SAVED], state[Cell::STATES], grad[Cell::STATES] = {};
    if (sums) {
        float sent = sums[size_t(at.row) * w.stride + at.unit];
        if (mask) sent *= mask[at.in(w, 0)];
        grad[0] = Cell::CARRIES_OUTPUT ? carried[at.in(w, 0)] + sent : sent;
        for (int part = 1; part < Cell::STATES; part++) grad[part] = carried[at.in(w, part)];
    }
    if (w.ends_a_time_step(step)) grad[0] += grads[w.input_row(step, at.row) * w.hidden + at.unit];
    for (int part = 0; part < Cell::STATES; part++)
        state[part] = states[(row * Cell::STATES + part) * w.stride + at.unit];
    for (int value = 0; value < Cell::SAVED; value++)
        values[value] = saved[(row * Cell::SAVED + value) * w.stride + at.unit];
    Cell::backward(values, state, grad);
    for (int part = Cell::CARRIES_OUTPUT ? 0 : 1; part < Cell::STATES; part++) carried[at.in(w, part)] = grad[part];
    for (int value = 0; value < Cell::SAVED; value++) {
        size_t index = (row * Cell::SAVED + value) * w.stride + at.unit;
        saved[index] = values[value];
        store_operand(gate_operands + index, values[value]); // f32: the same address once more
    }
}

// (depth, hidden, gates · hidden) to (depth, stride, gates · stride); the padding is left as it is.
template <class Cell, class E> __device__ __forceinline__ void pack(const Window &w, const float *recurrent, E *packed) {
    size_t width = Cell::GATES * w.hidden, count = size_t(w.depth) * w.hidden * width;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t column = i % width, row = i / width, sublayer = row / w.hidden, gate = column / w.hidden;
        size_t line = (sublayer * w.stride + row % w.hidden) * Cell::GATES + gate;
        store_operand(packed + line * w.stride + column % w.hidden, recurrent[i]);
    }
}

#define WINDOW_ARGUMENTS int time, int batch, int depth, int hidden, int stride
#define WINDOW const Window w{time, batch, depth, hidden, stride}

#define STEP_KERNELS(name, Cell, type, E)                                                                              \
    extern "C" __global__ void name##_first_state_##type(WINDOW_ARGUMENTS, const float *first, const float *mask,      \
                                                         float *states, E *operands) {                                 \
        WINDOW;                                                                                                        \
        first_state<Cell>(w, first, mask, states, operands);                                                           \
    }                                                                                                                  \
    extern "C" __global__ void name##_forward_step_##type(                                                             \
        WINDOW_ARGUMENTS, int index, const float *sums, const float *projected, const float *bias, const float *mask,  \
        float *states, float *saved, E *operands, float *outputs, float *last) {                                       \
        WINDOW;                                                                                                        \
        forward_step<Cell>(w, w.step(index), sums, projected, bias, mask, states, saved, operands, outputs, last);     \
    }                                                                                                                  \
    extern "C" __global__ void name##_backward_step_##type(WINDOW_ARGUMENTS, int index, const float *sums,             \
                                                           const float *grads, const float *mask, const float *states, \
                                                           float *carried, float *saved, E *gate_operands) {           \
        WINDOW;                                                                                                        \
        backward_step<Cell>(w, w.step(index), sums, grads, mask, states, carried, saved, gate_operands);               \
    }                                                                                                                  \
    extern "C" __global__ void name##_pack_##type(WINDOW_ARGUMENTS, const float *recurrent, E *packed) {               \
        WINDOW;                                                                                                        \
        pack<Cell>(w, recurrent, packed);                                                                              \
    }                                                                                                                  \
    EMULATED(name##_first_state_##type)                                                                                \
    EMULATED(name##_forward_step_##type)                                                                               \
    EMULATED(name##_backward_step_##type)                                                                              \
    EMULATED(name##_pack_##type)

#define CELL_KERNELS(name, Cell)                                                                                       \
    STEP_KERNELS(name, Cell, f32, float)                                                                               \
    STEP_KERNELS(name, Cell, bf16, __nv_bfloat16)

// The cells that can be scanned, by the names that their Rust side gives them.
CELL_KERNELS(rhn, Rhn)
CELL_KERNELS(rhn_uncoupled, UncoupledRhn)
CELL_KERNELS(lstm, Lstm)
CELL_KERNELS(gru, Gru)
