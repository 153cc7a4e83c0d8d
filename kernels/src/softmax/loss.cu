// Softmax cross-entropy in nats of products with the output's weights, to which the bias is added here:
//
//     nats_i = ln sum_j exp(p_ij + b_j) - p_it - b_t        d p_ij = (exp(p_ij + b_j - lse_i) - [j = t]) d nats_i
//
// A product that is not finite, or a target outside of the vocabulary, makes nats that are not finite.
#include "cuda/warp.cuh"

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

// A block for a row. `products`: (rows, vocabulary); `nats` and `lse`: (rows).
template <class T>
__device__ void forward(const T *products, const T *bias, const unsigned *targets, unsigned vocabulary, T *nats, T *lse) {
    __shared__ T scratch[32];
    const T *row = products + size_t(blockIdx.x) * vocabulary;
    T highest = T(-INFINITY);
    for (unsigned j = threadIdx.x; j < vocabulary; j += blockDim.x) highest = nan_max(highest, row[j] + bias[j]);
    highest = block_max(highest, scratch);
    T sum = 0;
    for (unsigned j = threadIdx.x; j < vocabulary; j += blockDim.x) sum += exponential(row[j] + bias[j] - highest);
    sum = block_sum(sum, scratch);
    if (threadIdx.x > 0) return; // no barrier follows
    unsigned target = targets[blockIdx.x];
    T of_all = highest + logarithm(sum);
    lse[blockIdx.x] = of_all;
    nats[blockIdx.x] = target < vocabulary ? of_all - (row[target] + bias[target]) : T(NAN);
}

// The products become their own gradient. `grad`: of the nats, (rows); `count`: rows times vocabulary.
template <class T>
__device__ void backward(T *products, const T *bias, const unsigned *targets, const T *lse, const T *grad,
                         unsigned vocabulary, unsigned count) {
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        unsigned row = unsigned(i / vocabulary), column = unsigned(i % vocabulary);
        T probability = exponential(products[i] + bias[column] - lse[row]);
        products[i] = (probability - (column == targets[row] ? T(1) : T(0))) * grad[row];
    }
}

// Sums over the rows of (rows, columns): 32 columns a block of 256 threads, rows by eights, then the eight in order.
template <class T> __device__ void sum_rows(const T *values, unsigned rows, unsigned columns, T *sums) {
    __shared__ T parts[8][32];
    unsigned lane = threadIdx.x % 32, part = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    T sum = 0;
    if (column < columns)
        for (unsigned row = part; row < rows; row += 8) sum += values[size_t(row) * columns + column];
    parts[part][lane] = sum;
    __syncthreads();
    if (part > 0 || column >= columns) return; // no barrier follows
    for (unsigned i = 1; i < 8; i++) sum += parts[i][lane];
    sums[column] = sum;
}

#define LOSS(T, suffix)                                                                                                \
    extern "C" __global__ void nats_##suffix(const T *products, const T *bias, const unsigned *targets,                \
                                             unsigned vocabulary, T *nats, T *lse) {                                   \
        forward(products, bias, targets, vocabulary, nats, lse);                                                       \
    }                                                                                                                  \
    EMULATED(nats_##suffix)                                                                                            \
    extern "C" __global__ void nats_grad_##suffix(T *products, const T *bias, const unsigned *targets, const T *lse,   \
                                                  const T *grad, unsigned vocabulary, unsigned count) {                \
        backward(products, bias, targets, lse, grad, vocabulary, count);                                               \
    }                                                                                                                  \
    EMULATED(nats_grad_##suffix)                                                                                       \
    extern "C" __global__ void sum_rows_##suffix(const T *values, unsigned rows, unsigned columns, T *sums) {          \
        sum_rows(values, rows, columns, sums);                                                                         \
    }                                                                                                                  \
    EMULATED(sum_rows_##suffix)

LOSS(float, f32)
LOSS(double, f64)
