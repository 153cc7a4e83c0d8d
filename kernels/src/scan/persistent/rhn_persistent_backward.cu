// The RHN recurrence backward, a whole window in one cooperative launch: see rhn_persistent.cuh.
#include "scan/persistent/rhn_persistent.cuh"

// What a window reads and writes; `mask` may be null. Gates become gradients of their pre-activations.
struct Backward {
    const float *grads, *states, *mask;
    float *gates;
    __nv_bfloat16 *gate_operands;
};

// What a unit's gradient needs of the forward pass.
struct Recorded {
    float state, h, t, grad;
};

// An item of a pass: a row and a unit of the block.
struct Item {
    int row, column, unit;
    __device__ __forceinline__ Item(const Position &p, int first, int i)
        : row(first + i / UNITS), column(i % UNITS), unit(p.first_unit + column) {}
    __device__ __forceinline__ bool exists(const Window &w) const { return row < w.batch && unit < w.hidden; }
};

__device__ __forceinline__ Recorded fetch(const Window &w, const Backward &b, Step step, Item at) {
    if (!at.exists(w)) return {0.0f, 0.0f, 0.0f, 0.0f};
    size_t row = w.row(step, at.row);
    const float *gates = b.gates + row * 2 * w.stride + at.unit;
    float grad = w.ends_a_time_step(step) ? b.grads[w.input_row(step, at.row) * w.hidden + at.unit] : 0.0f;
    return {b.states[row * w.stride + at.unit], gates[0], gates[w.stride], grad};
}

// The gradients of a sublayer step, to whose leaving state the later ones sent `sent`.
__device__ __forceinline__ void leave(const Window &w, const Backward &b, const Shared &s, Step step, Item at,
                                      const Recorded &known, float sent) {
    HighwayGrad found = highway_grad(known.grad + sent, known.state, known.h, known.t);
    s.carried[at.row * UNITS + at.column] = found.carry;
    size_t h = w.row(step, at.row) * 2 * w.stride + at.unit, t = h + w.stride;
    b.gates[h] = found.h;
    b.gates[t] = found.t;
    b.gate_operands[h] = __float2bfloat16_rn(found.h);
    b.gate_operands[t] = __float2bfloat16_rn(found.t);
}

// The partial sums of a warp for TILES tiles of rows from `first` on.
template <int TILES, int HELD>
__device__ __forceinline__ void multiply(const Window &w, const Backward &b, const Shared &s, const Position &p,
                                         const Weights<HELD> &weights, Step step, int first, int rows) {
    const __nv_bfloat16 *operands = b.gate_operands + w.row(step, 0) * 2 * w.stride;
    float sums[TILES][4] = {};
#pragma unroll
    for (int section = 0; section < 2; section++) {
        Inputs x[WARP_SPANS][TILES]; // a section at a time: half the registers
#pragma unroll
        for (int i = 0; i < WARP_SPANS; i++)
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                int row = first + tile * TILE + p.row, span = p.first_span + i;
                const __nv_bfloat16 *part = operands + section * w.stride;
                x[i][tile].upper = load_inputs(part, 2 * w.stride, w, p, row, span);
                x[i][tile].lower = load_inputs(part, 2 * w.stride, w, p, row + 8, span);
            }
        auto add = [&](int i, const uint4 &weights) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) multiply_span(sums[tile], x[i][tile], weights);
        };
#pragma unroll
        for (int i = 0; i < WARP_SPANS; i++) {
#pragma unroll
            for (int l = 0; l < HELD; l++)
                if (l == step.sublayer) add(i, weights.held[l][i][section]);
            if (step.sublayer >= HELD) add(i, weights.shared_at(p, step.sublayer, p.first_span + i, section));
        }
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) write_sums(s.sums, p, rows, UNITS, tile, 0, sums[tile]);
}

// The gradients of a pass's rows, from the sums of the product after their step. `early` is the first item's.
__device__ __forceinline__ void finish(const Window &w, const Backward &b, const Shared &s, const Position &p, Step step,
                                       int first, int rows, int pass_rows, const Recorded &early) {
    for (int i = threadIdx.x; i < rows * UNITS; i += blockDim.x) {
        Item at(p, first, i);
        if (!at.exists(w)) continue;
        Recorded known = first == 0 && i == int(threadIdx.x) ? early : fetch(w, b, step, at);
        int index = at.row * UNITS + at.column;
        float sent = s.carried[index] + s.mask[index] * add_warps(s.sums, pass_rows * UNITS, i);
        leave(w, b, s, step, at, known, sent);
    }
}

// Blocks and grid as forward.
template <int TILES, int HELD>
__device__ __forceinline__ void run(const Window &w, const Backward &b, const float *recurrent, unsigned *arrived) {
    DYNAMIC_SHARED(unsigned char, memory);
    int pass_rows = min(w.batch, TILES * TILE); // rows of a pass
    Shared s = shared_parts(memory, w, max(w.depth - HELD, 0), int(blockDim.x) / 32 * pass_rows * UNITS);
    Position p(w);
    Weights<HELD> weights;
    weights.load(recurrent, w, p, true, s.weights);
    load_mask(s.mask, w, p, b.mask);
    Step step{w.time - 1, w.depth - 1};
    for (int i = threadIdx.x; i < w.batch * UNITS; i += blockDim.x) {
        Item at(p, 0, i);
        if (at.exists(w)) leave(w, b, s, step, at, fetch(w, b, step, at), 0.0f);
    }
    for (int round = 1; round < w.steps(); round++) {
        Step before = w.before(step);
        Recorded early = fetch(w, b, before, Item(p, 0, threadIdx.x)); // from far away, while others are awaited
        grid_barrier(arrived, round);
        for (int first = 0; first < w.batch; first += TILES * TILE) {
            if (first > 0) __syncthreads(); // the sums before have been read
            int rows = min(w.batch - first, TILES * TILE);
            multiply<TILES, HELD>(w, b, s, p, weights, step, first, pass_rows);
            __syncthreads();
            finish(w, b, s, p, before, first, rows, pass_rows, early);
        }
        step = before;
    }
}

constexpr int HELD = 2; // sublayers; `Direction::held` of launch_plan.rs. With a third, two tiles spill a register.

#define PERSISTENT_BACKWARD(TILES)                                                                                     \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1) rhn_persistent_backward_##TILES(                     \
        int time, int batch, int depth, int hidden, int stride, const float *grads, const float *recurrent,            \
        const float *mask, const float *states, float *gates, __nv_bfloat16 *gate_operands, unsigned *arrived) {       \
        Window w{time, batch, depth, hidden, stride};                                                                  \
        Backward b{grads, states, mask, gates, gate_operands};                                                         \
        run<TILES, HELD>(w, b, recurrent, arrived);                                                                    \
    }                                                                                                                  \
    EMULATED(rhn_persistent_backward_##TILES)

PERSISTENT_BACKWARD(1)
PERSISTENT_BACKWARD(2)
