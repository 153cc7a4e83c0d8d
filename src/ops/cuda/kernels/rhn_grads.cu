// What is left of an RHN window's gradients when all pre-activations' gradients are known; the weights' are a product.
#include "rhn_window.cuh"

constexpr int COLUMNS = 32, ROWS = 8; // threads of a block

// Sums over the window's rows, always in the same order: (depth, time · batch, 2 stride) to (depth, 2 hidden).
// Blocks are (COLUMNS, ROWS), the grid is (2 stride / COLUMNS, depth).
extern "C" __global__ void rhn_bias_grad(int rows, int hidden, int stride, const float *gates, float *bias) {
    __shared__ float sums[ROWS][COLUMNS];
    int column = blockIdx.x * COLUMNS + threadIdx.x, sublayer = blockIdx.y;
    float sum = 0.0f;
    for (int row = threadIdx.y; row < rows; row += ROWS)
        sum += gates[(size_t(sublayer) * rows + row) * 2 * stride + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    int section = column / stride, unit = column % stride;
    if (threadIdx.y > 0 || unit >= hidden) return;
    for (int part = 1; part < ROWS; part++) sum += sums[part][threadIdx.x];
    bias[(sublayer * 2 + section) * hidden + unit] = sum;
}

// The first sublayer's rows without their padding: (time · batch, 2 stride) to (time · batch, 2 hidden).
extern "C" __global__ void rhn_projected_grad(int rows, int hidden, int stride, const float *gates, float *projected) {
    size_t count = size_t(rows) * 2 * hidden;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        size_t row = i / (2 * hidden), column = i % (2 * hidden);
        projected[i] = gates[(row * 2 + column / hidden) * stride + column % hidden];
    }
}

EMULATED(rhn_bias_grad)
EMULATED(rhn_projected_grad)
