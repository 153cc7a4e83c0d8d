// The RHN recurrence forward, a whole window in one cooperative launch: see rhn_persistent.cuh.
#include "scan/persistent/rhn_persistent.cuh"

// What a window reads and writes; `mask` may be null.
struct Forward {
    const float *projected, *bias, *mask;
    float *states, *gates, *outputs;
    __nv_bfloat16 *operands;
};

// The state that enters a sublayer step, of a block's unit.
__device__ __forceinline__ void enter(const Window &w, const Forward &f, const Shared &s, Step step, int row, int column,
                                      int unit, float state) {
    size_t index = w.row(step, row) * w.stride + unit;
    f.states[index] = state;
    f.operands[index] = __float2bfloat16_rn(state * s.mask[row * UNITS + column]);
}

// The first state, the biases and the mask.
__device__ __forceinline__ void start(const Window &w, const Forward &f, const Shared &s, const Position &p,
                                      const float *state) {
    load_mask(s.mask, w, p, f.mask);
    for (int i = threadIdx.x; i < w.depth * 2 * UNITS; i += blockDim.x) {
        int sublayer = i / (2 * UNITS), section = i / UNITS % 2, unit = p.first_unit + i % UNITS;
        s.bias[i] = unit < w.hidden ? f.bias[(sublayer * 2 + section) * w.hidden + unit] : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < w.batch * UNITS; i += blockDim.x) {
        int row = i / UNITS, unit = p.first_unit + i % UNITS;
        if (unit >= w.hidden) continue;
        s.carried[i] = state[size_t(row) * w.hidden + unit];
        enter(w, f, s, Step{0, 0}, row, i % UNITS, unit, s.carried[i]);
    }
}

// The partial sums of a warp for TILES tiles of rows from `first` on.
template <int TILES, int HELD>
__device__ __forceinline__ void multiply(const Window &w, const Forward &f, const Shared &s, const Position &p,
                                         const Weights<HELD> &weights, Step step, int first, int rows) {
    const __nv_bfloat16 *operands = f.operands + w.row(step, 0) * w.stride;
    Inputs x[WARP_SPANS][TILES];
#pragma unroll
    for (int i = 0; i < WARP_SPANS; i++)
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            int row = first + tile * TILE + p.row, span = p.first_span + i;
            x[i][tile].upper = load_inputs(operands, w.stride, w, p, row, span);
            x[i][tile].lower = load_inputs(operands, w.stride, w, p, row + 8, span);
        }
    float sums[TILES][2][4] = {};
    auto add = [&](int i, int section, const uint4 &weights) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) multiply_span(sums[tile][section], x[i][tile], weights);
    };
#pragma unroll
    for (int i = 0; i < WARP_SPANS; i++)
#pragma unroll
        for (int section = 0; section < 2; section++) {
#pragma unroll
            for (int l = 0; l < HELD; l++)
                if (l == step.sublayer) add(i, section, weights.held[l][i][section]);
            if (step.sublayer >= HELD) add(i, section, weights.shared_at(p, step.sublayer, p.first_span + i, section));
        }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int section = 0; section < 2; section++)
            write_sums(s.sums, p, rows, 2 * UNITS, tile, section, sums[tile][section]);
}

// Gates and next states of a pass's rows. H and T of a unit are neighbours 8 apart in a warp.
__device__ __forceinline__ void finish(const Window &w, const Forward &f, const Shared &s, const Position &p, Step step,
                                       int first, int rows, int pass_rows) {
    int items = rows * 2 * UNITS;
    for (int i = threadIdx.x; i < (items + 31) / 32 * 32; i += blockDim.x) {
        int row = first + i / (2 * UNITS), section = i / UNITS % 2, column = i % UNITS, unit = p.first_unit + column;
        bool exists = i < items && unit < w.hidden;
        float z = 0.0f;
        if (exists) {
            size_t x = w.input_row(step, row) * 2 * w.hidden + section * w.hidden + unit;
            float entered = step.sublayer == 0 ? f.projected[x] : 0.0f;
            z = add_warps(s.sums, pass_rows * 2 * UNITS, i) + s.bias[step.sublayer * 2 * UNITS + i % (2 * UNITS)] + entered;
        }
        float gate = activation(z, section), t = __shfl_xor_sync(FULL_WARP, gate, UNITS);
        if (!exists) continue;
        f.gates[(w.row(step, row) * 2 + section) * w.stride + unit] = gate;
        if (section == 1) continue;
        float state = s.carried[row * UNITS + column], next = state + t * (gate - state);
        s.carried[row * UNITS + column] = next;
        if (!w.ends(step)) enter(w, f, s, w.after(step), row, column, unit, next);
        if (w.ends_a_time_step(step)) f.outputs[w.input_row(step, row) * w.hidden + unit] = next;
    }
}

// Blocks of as many warps as pairs of spans cover `stride`; a grid of as many blocks as eights cover `hidden`.
template <int TILES, int HELD>
__device__ __forceinline__ void run(const Window &w, const Forward &f, const float *recurrent, const float *state,
                                    unsigned *arrived) {
    DYNAMIC_SHARED(unsigned char, memory);
    int pass_rows = min(w.batch, TILES * TILE); // rows of a pass
    Shared s = shared_parts(memory, w, max(w.depth - HELD, 0), int(blockDim.x) / 32 * pass_rows * 2 * UNITS);
    Position p(w);
    Weights<HELD> weights;
    weights.load(recurrent, w, p, false, s.weights);
    start(w, f, s, p, state);
    for (Step step{0, 0}; step.time < w.time; step = w.after(step)) {
        grid_barrier(arrived, w.index(step) + 1);
        for (int first = 0; first < w.batch; first += TILES * TILE) {
            if (first > 0) __syncthreads(); // the sums before have been read
            int rows = min(w.batch - first, TILES * TILE);
            multiply<TILES, HELD>(w, f, s, p, weights, step, first, pass_rows);
            __syncthreads();
            finish(w, f, s, p, step, first, rows, pass_rows);
        }
    }
}

constexpr int HELD = 3; // sublayers; `Direction::held` of launch_plan.rs

#define PERSISTENT_FORWARD(TILES)                                                                                      \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1) rhn_persistent_forward_##TILES(                      \
        int time, int batch, int depth, int hidden, int stride, const float *projected, const float *recurrent,        \
        const float *bias, const float *state, const float *mask, float *states, float *gates,                         \
        __nv_bfloat16 *operands, float *outputs, unsigned *arrived) {                                                  \
        Window w{time, batch, depth, hidden, stride};                                                                  \
        Forward f{projected, bias, mask, states, gates, outputs, operands};                                            \
        run<TILES, HELD>(w, f, recurrent, state, arrived);                                                             \
    }                                                                                                                  \
    EMULATED(rhn_persistent_forward_##TILES)

PERSISTENT_FORWARD(1)
PERSISTENT_FORWARD(2)
