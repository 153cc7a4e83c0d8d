// ChaCha with 8 rounds (Bernstein, 2008), as rand_chacha's ChaCha8Rng makes its stream: a counter of 64 bits from 0, a
// nonce of 0; the words of a block one after another. A uniform number takes two words, the low one first, of which it
// has the upper 53 bits; a block holds 8 of them.
#pragma once
#include "cuda/common.cuh"

#define UNIFORMS_OF_BLOCK 8u

struct ChaChaKey {
    unsigned words[8];
};

__device__ __forceinline__ unsigned rotate_left(unsigned x, unsigned bits) { return x << bits | x >> (32 - bits); }

__device__ __forceinline__ void quarter_round(unsigned &a, unsigned &b, unsigned &c, unsigned &d) {
    a += b, d = rotate_left(d ^ a, 16);
    c += d, b = rotate_left(b ^ c, 12);
    a += b, d = rotate_left(d ^ a, 8);
    c += d, b = rotate_left(b ^ c, 7);
}

// Block number `counter` of the key's stream.
__device__ __forceinline__ void chacha8(const ChaChaKey &key, unsigned long long counter, unsigned (&out)[16]) {
    unsigned start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
#pragma unroll
    for (unsigned i = 0; i < 8; i++) start[4 + i] = key.words[i];
    start[12] = unsigned(counter), start[13] = unsigned(counter >> 32), start[14] = 0, start[15] = 0;
#pragma unroll
    for (unsigned i = 0; i < 16; i++) out[i] = start[i];
#pragma unroll
    for (unsigned round = 0; round < 8; round += 2) {
        quarter_round(out[0], out[4], out[8], out[12]);
        quarter_round(out[1], out[5], out[9], out[13]);
        quarter_round(out[2], out[6], out[10], out[14]);
        quarter_round(out[3], out[7], out[11], out[15]);
        quarter_round(out[0], out[5], out[10], out[15]);
        quarter_round(out[1], out[6], out[11], out[12]);
        quarter_round(out[2], out[7], out[8], out[13]);
        quarter_round(out[3], out[4], out[9], out[14]);
    }
#pragma unroll
    for (unsigned i = 0; i < 16; i++) out[i] += start[i];
}

// Uniform in [0, 1), of a pair of words: exact in double precision.
__device__ __forceinline__ double uniform_of(unsigned low, unsigned high) {
    unsigned long long bits = ((unsigned long long)high << 32 | low) >> 11;
    return double(bits) * (1.0 / 9007199254740992.0); // 2^53
}
