// Rows of a table by their numbers, and the table's gradient: each row's is the sum over the positions where it was
// taken, in the order of the positions, whatever the grid. No atomics.
#include "cuda/warp.cuh"

// `table`: (rows, width); `ids`: (count), each below `rows`, and beyond it NaN; `out`: (count, width).
template <class T>
__device__ void lookup(const T *table, const unsigned *ids, unsigned rows, unsigned width, unsigned count, T *out) {
    size_t all = size_t(count) * width;
    for (size_t i = grid_thread(); i < all; i += grid_threads()) {
        unsigned id = ids[i / width];
        out[i] = id < rows ? table[size_t(id) * width + i % width] : T(NAN);
    }
}

// Whether an earlier position has the same number. The same answer in every thread of the block, of whole warps.
__device__ __forceinline__ bool came_before(const unsigned *ids, unsigned position) {
    __shared__ unsigned found;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    unsigned id = ids[position];
    for (unsigned i = threadIdx.x; i < position; i += blockDim.x)
        if (ids[i] == id) found = 1; // all who write write the same
    __syncthreads();
    return found != 0;
}

// A block for a position and for as many columns as it has threads; the first position of a number does the number's work.
// `grads`: (count, width); `out`: (rows, width), zero before; row `blank` stays zero (none if it is not below `rows`).
template <class T>
__device__ void scatter(const T *grads, const unsigned *ids, unsigned rows, unsigned blank, unsigned width,
                        unsigned count, T *out) {
    unsigned position = blockIdx.x, column = blockIdx.y * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    unsigned id = ids[position];
    if (id >= rows || id == blank || came_before(ids, position)) return; // the whole block, or none of it
    T sum = 0;
    for (unsigned first = position / 32 * 32; first < count; first += 32) {
        bool same = first + lane >= position && first + lane < count && ids[first + lane] == id;
        for (unsigned found = __ballot_sync(FULL_WARP, same); found; found &= found - 1) {
            unsigned at = first + __ffs(int(found)) - 1;
            if (column < width) sum += grads[size_t(at) * width + column];
        }
    }
    if (column < width) out[size_t(id) * width + column] = sum;
}

#define EMBEDDING(T, suffix)                                                                                           \
    extern "C" __global__ void lookup_##suffix(const T *table, const unsigned *ids, unsigned rows, unsigned width,     \
                                               unsigned count, T *out) {                                               \
        lookup(table, ids, rows, width, count, out);                                                                   \
    }                                                                                                                  \
    EMULATED(lookup_##suffix)                                                                                          \
    extern "C" __global__ void lookup_grad_##suffix(const T *grads, const unsigned *ids, unsigned rows,                \
                                                    unsigned blank, unsigned width, unsigned count, T *out) {          \
        scatter(grads, ids, rows, blank, width, count, out);                                                           \
    }                                                                                                                  \
    EMULATED(lookup_grad_##suffix)

EMBEDDING(float, f32)
EMBEDDING(double, f64)
