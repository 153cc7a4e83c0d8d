// The gradient's global norm, what it allows, and the updates: sgd, Adam, AdamW. Nothing is read by the host.
#include "update/guard.cuh"
#include "cuda/warp.cuh"

#define PIECE 16384u // of a tensor that one block sums

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// A block for a piece: the sum of (g + decay p)^2 over it, into `sums[blockIdx.x]`.
template <class T> __device__ void squares(const T *grad, const T *parameter, T decay, unsigned count, double *sums) {
    __shared__ double scratch[32];
    size_t start = size_t(blockIdx.x) * PIECE, end = start + PIECE < count ? start + PIECE : count;
    double sum = 0;
    for (size_t i = start + threadIdx.x; i < end; i += blockDim.x) {
        double total = double(grad[i] + decay * parameter[i]);
        sum += total * total;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The largest number that an update makes on its way, by the gradient: weights and moments are finite.
__device__ __forceinline__ double reach(double norm, double rate, double scale, bool adam) {
    double scaled = norm * scale, largest = adam ? scaled * scaled : rate * scaled;
    return largest > rate ? largest : rate;
}

// One block: checks the step whose `nats` (rows) and pieces' sums of squares are given, and enters it as `record`.
template <class T>
__device__ void check(const T *nats, unsigned rows, const double *sums, unsigned pieces, double *guard,
                      unsigned record, double rate, double max_norm, double beta1, double beta2, unsigned adam,
                      double limit) {
    __shared__ double scratch[32];
    double total = 0, square = 0;
    for (unsigned i = threadIdx.x; i < rows; i += blockDim.x) total += double(nats[i]);
    for (unsigned i = threadIdx.x; i < pieces; i += blockDim.x) square += sums[i];
    total = block_sum(total, scratch);
    double norm = sqrt(block_sum(square, scratch));
    if (threadIdx.x > 0) return; // no barrier follows
    double scale = max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0;
    unsigned reason = FINE;
    if (!(reach(norm, rate, scale, adam != 0) <= limit)) reason = UPDATE_NOT_FINITE;
    if (!isfinite(norm)) reason = NORM_NOT_FINITE;
    if (!isfinite(total)) reason = LOSS_NOT_FINITE;
    if (guard[HALTED] != 0) reason = CAME_AFTER;
    else if (reason != FINE && guard[ALLOWED] > 0) guard[ALLOWED] -= 1;
    else if (reason != FINE) guard[HALTED] = 1;
    if (reason == FINE) guard[UPDATES] += 1;
    guard[APPLIED] = reason == FINE;
    guard[SCALE] = scale;
    guard[CORRECTION1] = 1.0 - pow(beta1, guard[UPDATES]);
    guard[CORRECTION2] = 1.0 - pow(beta2, guard[UPDATES]);
    double *entry = guard + RECORDS + 3 * record;
    entry[0] = total, entry[1] = norm, entry[2] = reason;
}

template <class T>
__device__ void sgd(T *parameter, const T *grad, const double *guard, double rate, double decay, unsigned count) {
    if (guard[APPLIED] == 0) return;
    double scale = guard[SCALE];
    T keep = T(1.0 - rate * scale * decay), step = T(-rate * scale);
    for (size_t i = grid_thread(); i < count; i += grid_threads()) parameter[i] = parameter[i] * keep + grad[i] * step;
}

// What corrects a moment that began at 0, for a weight that had no gradient in `left_out` of the updates before this one.
__device__ __forceinline__ double correction(const double *guard, Guard all, double beta, double left_out) {
    return left_out == 0 ? guard[all] : 1.0 - pow(beta, fmax(1.0, guard[UPDATES] - left_out));
}

// `moments`: (2, count). `decay` is part of the gradient, `decoupled` is not.
template <class T>
__device__ void adam(T *parameter, T *moments, const T *grad, const double *guard, double rate, double beta1,
                     double beta2, double epsilon, double decay, double decoupled, double left_out,
                     unsigned count) {
    if (guard[APPLIED] == 0) return;
    double correction1 = correction(guard, CORRECTION1, beta1, left_out);
    double correction2 = correction(guard, CORRECTION2, beta2, left_out);
    T scale = T(guard[SCALE]), old1 = T(beta1), new1 = T(1.0 - beta1), old2 = T(beta2), new2 = T(1.0 - beta2);
    T step = T(rate / correction1), root_scale = T(1.0 / sqrt(correction2));
    T keep = T(1.0 - rate * decoupled), coupled = T(decay), floor = T(epsilon);
    for (size_t i = grid_thread(); i < count; i += grid_threads()) {
        T p = parameter[i], g = (grad[i] + coupled * p) * scale;
        T m = moments[i] * old1 + g * new1, v = moments[count + i] * old2 + g * g * new2;
        moments[i] = m, moments[count + i] = v;
        parameter[i] = p * keep - step * m / (root_scale * root(v) + floor);
    }
}

// The state that a batch row carries on: `after` a step that was applied, else `before`.
template <class T>
__device__ void choose(const T *after, const T *before, const double *guard, unsigned count, T *out) {
    const T *from = guard[APPLIED] != 0 ? after : before;
    for (size_t i = grid_thread(); i < count; i += grid_threads()) out[i] = from[i];
}

#define UPDATE(T, suffix)                                                                                              \
    extern "C" __global__ void squares_##suffix(const T *grad, const T *parameter, double decay, unsigned count,       \
                                                double *sums) {                                                        \
        squares(grad, parameter, T(decay), count, sums);                                                               \
    }                                                                                                                  \
    EMULATED(squares_##suffix)                                                                                         \
    extern "C" __global__ void check_##suffix(const T *nats, unsigned rows, const double *sums, unsigned pieces,       \
                                              double *guard, unsigned record, double rate, double max_norm,            \
                                              double beta1, double beta2, unsigned adam, double limit) {               \
        check(nats, rows, sums, pieces, guard, record, rate, max_norm, beta1, beta2, adam, limit);                     \
    }                                                                                                                  \
    EMULATED(check_##suffix)                                                                                           \
    extern "C" __global__ void sgd_##suffix(T *parameter, const T *grad, const double *guard, double rate,             \
                                            double decay, unsigned count) {                                            \
        sgd(parameter, grad, guard, rate, decay, count);                                                               \
    }                                                                                                                  \
    EMULATED(sgd_##suffix)                                                                                             \
    extern "C" __global__ void adam_##suffix(T *parameter, T *moments, const T *grad, const double *guard,             \
                                             double rate, double beta1, double beta2, double epsilon, double decay,    \
                                             double decoupled, double left_out, unsigned count) {                      \
        adam(parameter, moments, grad, guard, rate, beta1, beta2, epsilon, decay, decoupled, left_out, count);         \
    }                                                                                                                  \
    EMULATED(adam_##suffix)                                                                                            \
    extern "C" __global__ void choose_##suffix(const T *after, const T *before, const double *guard, unsigned count,   \
                                              T *out) {                                                                \
        choose(after, before, guard, count, out);                                                                      \
    }                                                                                                                  \
    EMULATED(choose_##suffix)

UPDATE(float, f32)
UPDATE(double, f64)
