// What is left of a recurrence's gradients when those of all steps are known; the weights' are a product.
// Rows of `saved` hold `values` parts of `stride` units, padded, the gradients of the products first; results are not
// padded.
#include "cuda/common.cuh"

constexpr int COLUMNS = 32, ROWS = 8; // threads of a block

// Sums over a sublayer's rows, always in the same order: (depth, rows, values · stride) to (depth, gates · hidden).
// Blocks are (COLUMNS, ROWS), the grid is (gates · stride / COLUMNS, depth).
extern "C" __global__ void window_bias_grad(int rows, int hidden, int stride, int gates, int values, const float *saved,
                                            float *bias) {
    __shared__ float sums[ROWS][COLUMNS];
    int column = blockIdx.x * COLUMNS + threadIdx.x, sublayer = blockIdx.y;
    float sum = 0.0f;
    for (int row = threadIdx.y; row < rows; row += ROWS)
        sum += saved[(size_t(sublayer) * rows + row) * values * stride + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    int gate = column / stride, unit = column % stride;
    if (threadIdx.y > 0 || unit >= hidden) return;
    for (int part = 1; part < ROWS; part++) sum += sums[part][threadIdx.x];
    bias[(sublayer * gates + gate) * hidden + unit] = sum;
}

// Rows without their padding: (rows, values · stride) to (rows, gates · hidden). `positions` has four bits a gate, the
// lowest first: which of the values is the gradient of its projected input.
extern "C" __global__ void window_projected_grad(int rows, int hidden, int stride, int gates, int values,
                                                 unsigned positions, const float *saved, float *projected) {
    size_t width = size_t(gates) * hidden, count = rows * width;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t row = i / width, column = i % width, value = positions >> (4 * (column / hidden)) & 15u;
        projected[i] = saved[(row * values + value) * stride + column % hidden];
    }
}

EMULATED(window_bias_grad)
EMULATED(window_projected_grad)
