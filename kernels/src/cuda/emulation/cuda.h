// CUDA C++ for a machine without a GPU: enough of it that our kernels compile as plain C++ and run, one CUDA thread a
// fiber, with barriers, warp operations, shared memory and grids that wait for one another.
//
// A kernel's file includes "cuda/common.cuh", which takes this header where nvcc does not compile. It ends with one
// `EMULATED(kernel)` for each kernel (nothing under nvcc). `tests/kernels/emulator.rs` compiles all of them and main.cpp
// as one unit (headers first, then each source in a namespace of its own, which is many times as fast as one by one),
//
//     c++ -std=c++17 -O1 -Wno-unknown-pragmas -pthread kernels.cpp
//
// and runs launches over buffers; see main.cpp for what it reads. What a kernel must keep to:
//
// - it includes nothing but headers below `src`;
// - dynamic shared memory by `DYNAMIC_SHARED(float, tile);`, static by `__shared__ float tile[32];` of plain types;
// - a loop that waits for another block calls `spin_wait()` in every round, and its launch is cooperative;
//   `grid_barrier` of grid.cuh does;
// - `__syncthreads()` is reached by all threads of a block, none of which has returned.
//
// What is found: threads at different barriers, or waiting for one that left (70); loops that wait for ever (70);
// reads and writes behind a buffer's end or before its start (71, or 72 for a write into the up to 15 bytes that
// alignment leaves); memory that is used before it is written (all bits are set, so floats are NaN); and, by running
// a launch again with EMULATION_ORDER=1 (backwards), 2, 3, … (shuffled), missing barriers: results must not change.
// Stores are seen at once: a missing `__threadfence` is not found.
#pragma once
#include "cuda/emulation/scheduler.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <type_traits>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __align__(n) alignas(n)
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulation::block_now->shared)

#define threadIdx (emulation::fiber_now->index)
#define blockIdx (emulation::block_now->index)
#define blockDim (emulation::launch_now->block)
#define gridDim (emulation::launch_now->grid)
#define __syncthreads() emulation::block_barrier(__FILE__, __LINE__)
inline void spin_wait() { emulation::spin(); }
inline void __threadfence() {}

struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

// Warp operations. A lane outside of the segment gives the caller's own value, as on a GPU.
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned bits, int width = 32) {
    unsigned lane = emulation::lane_now(), from = lane ^ bits;
    return emulation::warp_exchange(mask, value, from / width == lane / width ? from : lane, "__shfl_xor_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    bool predicates[32];
    emulation::warp_gather(mask, predicate != 0, predicates, "__ballot_sync");
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask & emulation::warp_now().present & 1u << lane && predicates[lane]) all |= 1u << lane;
    return all;
}

// Atomics: only one thread runs at a time. There is none on floats: sums must not depend on an order.
template <class T> using Integral = std::enable_if_t<std::is_integral<T>::value, T>;
template <class T, class U> Integral<T> atomicAdd(T *p, U v) { T old = *p; *p = T(old + v); return old; }

template <class T> T __ldcg(const T *p) { return *p; }

template <class To, class From> To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
using std::max;
using std::min;
using std::isfinite;

// bfloat16, rounded to the nearest, ties to even.
struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    unsigned bits = __float_as_uint(x);
    if (std::isnan(x)) return {0x7fff};
    return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }

// d += a b of a warp: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32, fragments laid out as PTX says.
// Lane l holds, with g = l / 4 and t = l % 4, two values a register (low half first):
//   a[0]: A[g][2t, 2t+1]  a[1]: A[g+8][2t, …]  a[2]: A[g][2t+8, …]  a[3]: A[g+8][2t+8, …]
//   b[0]: B[2t, 2t+1][g]  b[1]: B[2t+8, 2t+9][g]      d: D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
inline void emulated_mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragments { unsigned a[4], b[2]; } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, all[32];
    if (emulation::warp_now().present != 0xffffffffu) emulation::fail("mma.m16n8k16 in a warp that is not whole");
    emulation::warp_gather(0xffffffffu, mine, all, "mma.m16n8k16");
    auto half = [](unsigned pair, unsigned high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); };
    auto A = [&](unsigned row, unsigned k) {
        return half(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + 2 * (k / 8)], k % 2);
    };
    auto B = [&](unsigned k, unsigned column) { return half(all[column * 4 + k % 8 / 2].b[k / 8], k % 2); };
    unsigned group = emulation::lane_now() / 4, pair = emulation::lane_now() % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = group + i / 2 * 8, column = 2 * pair + i % 2;
        float sum = d[i];
        for (unsigned k = 0; k < 16; k++) sum += A(row, k) * B(k, column);
        d[i] = sum;
    }
}

// The table of kernels that main.cpp launches by name, with arguments read as their types say.
namespace emulation {
using Arguments = std::vector<std::string>;
void *pointer_argument(const std::string &text); // of a buffer, in main.cpp
template <class T> T argument(const std::string &text) {
    if constexpr (std::is_pointer<T>::value) return reinterpret_cast<T>(pointer_argument(text));
    else if constexpr (std::is_floating_point<T>::value) return T(std::strtod(text.c_str(), nullptr));
    else return T(text[0] == '-' ? std::strtoll(text.c_str(), nullptr, 0) : std::strtoull(text.c_str(), nullptr, 0));
}
using Bound = std::function<std::function<void()>(const Arguments &)>;
inline std::map<std::string, Bound> &kernels() {
    static std::map<std::string, Bound> table;
    return table;
}
template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), const Arguments &texts, std::index_sequence<I...>) {
    if (texts.size() != sizeof...(A)) fail("%zu arguments where the kernel has %zu", texts.size(), sizeof...(A));
    return [=, values = std::make_tuple(argument<std::remove_cv_t<A>>(texts[I])...)] { kernel(std::get<I>(values)...); };
}
template <class... A> bool enter(const char *name, void (*kernel)(A...)) {
    kernels()[name] = [=](const Arguments &texts) { return bound(kernel, texts, std::index_sequence_for<A...>()); };
    return true;
}
} // namespace emulation
#define EMULATED(kernel) static const bool emulated_##kernel = emulation::enter(#kernel, kernel);
