// What a library's product does, for the emulated recurrence: any layout, one sum after another.
#include "cuda/common.cuh"

__device__ inline float widened(float x) { return x; }
__device__ inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }

// c[i · c_row + j] = Σ_k a[i · a_row + k · a_inner] b[k · b_inner + j · b_column], i < m, j < n, k < inner
template <class E>
__device__ void product(int m, int n, int inner, const E *a, int a_row, int a_inner, const E *b, int b_inner,
                        int b_column, float *c, int c_row) {
    for (size_t at = grid_thread(); at < size_t(m) * n; at += grid_threads()) {
        size_t i = at / n, j = at % n;
        float sum = 0.0f;
        for (int k = 0; k < inner; k++)
            sum += widened(a[i * a_row + size_t(k) * a_inner]) * widened(b[size_t(k) * b_inner + j * b_column]);
        c[i * c_row + j] = sum;
    }
}

#define PRODUCT(type, E)                                                                                               \
    extern "C" __global__ void probe_product_##type(int m, int n, int inner, const E *a, int a_row, int a_inner,       \
                                                    const E *b, int b_inner, int b_column, float *c, int c_row) {      \
        product(m, n, inner, a, a_row, a_inner, b, b_inner, b_column, c, c_row);                                       \
    }                                                                                                                  \
    EMULATED(probe_product_##type)

PRODUCT(f32, float)
PRODUCT(bf16, __nv_bfloat16)
