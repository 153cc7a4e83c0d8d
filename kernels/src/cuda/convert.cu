// Numbers of single precision rounded to bfloat16.
#include "cuda/common.cuh"

extern "C" __global__ void to_bf16(const float *in, unsigned count, uint16_t *out) {
    for (size_t i = grid_thread(); i < count; i += grid_threads())
        out[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
}
EMULATED(to_bf16)
