// An RHN's window in one cooperative launch: the recurrent weights stay on the chip, in bf16, for all steps.
//
// A block owns 8 units of all sublayers. The inputs of its products are cut into spans of 32; a warp owns two spans and
// keeps their weights for the block's units, of the first HELD sublayers in registers, of the others in shared memory.
// A product has rows of the batch as rows and units as columns; the warps' partial sums go to shared memory and
// are added in the warps' order. The order of inputs within a product is free as long as both operands have the same one:
// a thread takes 8 inputs that lie together, so that each of its loads brings 16 bytes.
//
// Both directions hold two sections of weights, of H and of T:
//     forward    section s, input k, unit u: R[k][s hidden + u]; the state times each section: two results
//     backward   section s, input k, unit u: R[u][s hidden + k]; each section's gradients times it: one result
#pragma once
#include "cuda/grid.cuh"
#include "scan/rhn.cuh"
#include "cuda/warp.cuh"

constexpr int UNITS = 8;      // of a block
constexpr int SPAN = 32;      // inputs: four threads with eight each
constexpr int WARP_SPANS = 2; // of a warp
constexpr int TILE = 16;      // rows of the batch in a product's tile
constexpr int MOST_THREADS = 512;

// What a block has in shared memory, in this order; as `shared_bytes` of launch_plan.rs counts it.
struct Shared {
    uint4 *weights; // (depth - HELD, spans, 2 sections, 32 threads)
    float *sums;    // (warps, rows of a pass, results · UNITS)
    float *carried; // (batch, UNITS): forward the state in full precision, backward what the carry gate passes back
    float *mask;    // (batch, UNITS), 1 where there is none
    float *bias;    // (depth, 2 UNITS); forward only
};

__device__ __forceinline__ Shared shared_parts(unsigned char *start, const Window &w, int in_shared, int sums) {
    Shared s;
    s.weights = reinterpret_cast<uint4 *>(start);
    s.sums = reinterpret_cast<float *>(s.weights + in_shared * (w.stride / SPAN) * 2 * 32);
    s.carried = s.sums + sums;
    s.mask = s.carried + w.batch * UNITS;
    s.bias = s.mask + w.batch * UNITS;
    return s;
}

// The units, inputs and rows of a thread.
struct Position {
    int first_unit, warp, thread, row, quad, first_span, spans;
    __device__ __forceinline__ explicit Position(const Window &w)
        : first_unit(blockIdx.x * UNITS), warp(threadIdx.x / 32), thread(threadIdx.x % 32), row(thread / 4),
          quad(thread % 4), first_span(warp * WARP_SPANS), spans(w.stride / SPAN) {}
};

__device__ __forceinline__ float weight_at(const float *recurrent, int hidden, bool backward, int section, int k, int unit) {
    if (k >= hidden || unit >= hidden) return 0.0f;
    size_t row = backward ? unit : k, column = section * hidden + (backward ? k : unit);
    return recurrent[row * 2 * hidden + column];
}

// A thread's eight weights of a span and section: unit `p.row` of the block, its own inputs.
__device__ __forceinline__ uint4 load_weights(const float *recurrent, const Window &w, const Position &p, bool backward,
                                              int sublayer, int span, int section) {
    const float *matrix = recurrent + size_t(sublayer) * w.hidden * 2 * w.hidden;
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = weight_at(matrix, w.hidden, backward, section, span * SPAN + p.quad * 8 + i, p.first_unit + p.row);
    return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// The weights of a warp.
template <int HELD> struct Weights {
    uint4 held[HELD > 0 ? HELD : 1][WARP_SPANS][2];
    const uint4 *rest;

    __device__ __forceinline__ void load(const float *recurrent, const Window &w, const Position &p, bool backward,
                                         uint4 *shared) {
        rest = shared;
#pragma unroll
        for (int i = 0; i < WARP_SPANS; i++) {
            int span = p.first_span + i;
#pragma unroll
            for (int section = 0; section < 2; section++) {
#pragma unroll
                for (int l = 0; l < HELD; l++) {
                    held[l][i][section] = make_uint4(0, 0, 0, 0);
                    if (l < w.depth && span < p.spans)
                        held[l][i][section] = load_weights(recurrent, w, p, backward, l, span, section);
                }
                for (int l = HELD; l < w.depth && span < p.spans; l++)
                    shared[(((l - HELD) * p.spans + span) * 2 + section) * 32 + p.thread] =
                        load_weights(recurrent, w, p, backward, l, span, section);
            }
        }
    }

    // The weights of a sublayer that is in shared memory. A span behind the last is multiplied with zeros: its weights
    // may be any.
    __device__ __forceinline__ uint4 shared_at(const Position &p, int sublayer, int span, int section) const {
        int known = min(span, p.spans - 1);
        return rest[(((sublayer - HELD) * p.spans + known) * 2 + section) * 32 + p.thread];
    }
};

// A thread's inputs of a span for two rows, 8 apart, of a tile of rows: zeros outside of the batch and the spans.
struct Inputs {
    uint4 upper, lower;
};
__device__ __forceinline__ uint4 load_inputs(const __nv_bfloat16 *operands, int pitch, const Window &w, const Position &p,
                                             int row, int span) {
    if (row >= w.batch || span >= p.spans) return make_uint4(0, 0, 0, 0);
    // Not by the first-level cache: another block has just written it.
    return __ldcg(reinterpret_cast<const uint4 *>(operands + size_t(row) * pitch + span * SPAN + p.quad * 8));
}

// sums += inputs · weights: 32 inputs are two tiles of 16.
__device__ __forceinline__ void multiply_span(float (&sums)[4], const Inputs &x, const uint4 &weights) {
    mma_m16n8k16(sums, {x.upper.x, x.lower.x, x.upper.y, x.lower.y}, {weights.x, weights.y});
    mma_m16n8k16(sums, {x.upper.z, x.lower.z, x.upper.w, x.lower.w}, {weights.z, weights.w});
}

// Writes a warp's partial sums of a tile and result for the block: `rows` rows of `width` values a warp.
__device__ __forceinline__ void write_sums(float *shared, const Position &p, int rows, int width, int tile, int result,
                                          const float (&sums)[4]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = tile * TILE + half * 8 + p.row;
        if (row >= rows) continue;
        float *at = shared + (p.warp * rows + row) * width + result * UNITS + 2 * p.quad;
        *reinterpret_cast<float2 *>(at) = make_float2(sums[2 * half], sums[2 * half + 1]);
    }
}

// The sum of the warps' values at `index`, an index into a warp's `size` values.
__device__ __forceinline__ float add_warps(const float *shared, int size, int index) {
    int warps = blockDim.x / 32;
    float sum = 0.0f;
#pragma unroll 4
    for (int warp = 0; warp < warps; warp++) sum += shared[warp * size + index];
    return sum;
}

// The mask of the block's units, 1 where there is none.
__device__ __forceinline__ void load_mask(float *shared, const Window &w, const Position &p, const float *mask) {
    for (int i = threadIdx.x; i < w.batch * UNITS; i += blockDim.x) {
        int row = i / UNITS, unit = p.first_unit + i % UNITS;
        shared[i] = mask && unit < w.hidden ? mask[size_t(row) * w.hidden + unit] : 1.0f;
    }
}
