// What is left of a recurrence's gradients when those of all pre-activations are known; the weights' are a product.
// Rows of gates hold `sections` parts of `stride` units, padded; the results are not padded.
#include "cuda/common.cuh"

constexpr int COLUMNS = 32, ROWS = 8; // threads of a block

// Sums over a sublayer's rows, always in the same order: (depth, rows, sections · stride) to (depth, sections · hidden).
// Blocks are (COLUMNS, ROWS), the grid is (sections · stride / COLUMNS, depth).
extern "C" __global__ void window_bias_grad(int rows, int hidden, int stride, int sections, const float *gates,
                                            float *bias) {
    __shared__ float sums[ROWS][COLUMNS];
    int column = blockIdx.x * COLUMNS + threadIdx.x, sublayer = blockIdx.y;
    float sum = 0.0f;
    for (int row = threadIdx.y; row < rows; row += ROWS)
        sum += gates[(size_t(sublayer) * rows + row) * sections * stride + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    int section = column / stride, unit = column % stride;
    if (threadIdx.y > 0 || unit >= hidden) return;
    for (int part = 1; part < ROWS; part++) sum += sums[part][threadIdx.x];
    bias[(sublayer * sections + section) * hidden + unit] = sum;
}

// Rows without their padding: (rows, sections · stride) to (rows, sections · hidden).
extern "C" __global__ void window_projected_grad(int rows, int hidden, int stride, int sections, const float *gates,
                                                 float *projected) {
    size_t width = size_t(sections) * hidden, count = rows * width;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t row = i / width, column = i % width;
        projected[i] = gates[(row * sections + column / hidden) * stride + column % hidden];
    }
}

EMULATED(window_bias_grad)
EMULATED(window_projected_grad)
