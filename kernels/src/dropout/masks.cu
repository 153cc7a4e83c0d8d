// Dropout masks, the same numbers as mod.rs draws on the CPU: 0 where uniform < rate, else `kept` = 1 / (1 - rate).
#include "dropout/chacha.cuh"

__device__ __forceinline__ ChaChaKey key_of(const unsigned *words) {
    ChaChaKey key;
#pragma unroll
    for (unsigned i = 0; i < 8; i++) key.words[i] = words[i];
    return key;
}

// One stream over the whole mask: a thread for each block of 8 numbers. `key`: 8 words.
template <class T>
__device__ void draw(const unsigned *key, double rate, double kept, unsigned count, T *mask) {
    ChaChaKey stream = key_of(key);
    unsigned blocks = (count + UNIFORMS_OF_BLOCK - 1) / UNIFORMS_OF_BLOCK;
    for (unsigned block = grid_thread(); block < blocks; block += grid_threads()) {
        unsigned words[16];
        chacha8(stream, block, words);
#pragma unroll
        for (unsigned i = 0; i < UNIFORMS_OF_BLOCK; i++) {
            unsigned at = block * UNIFORMS_OF_BLOCK + i;
            if (at < count) mask[at] = uniform_of(words[2 * i], words[2 * i + 1]) < rate ? T(0) : T(kept);
        }
    }
}

// A stream for each batch row, whose number `token` is that of the token's id. `keys`: (batch, 8); `tokens` and `mask`:
// (time, batch), `count` in all.
template <class T>
__device__ void draw_words(const unsigned *keys, const unsigned *tokens, double rate, double kept, unsigned batch,
                           unsigned count, T *mask) {
    for (unsigned i = grid_thread(); i < count; i += grid_threads()) {
        unsigned token = tokens[i], words[16], pair = token % UNIFORMS_OF_BLOCK;
        chacha8(key_of(keys + i % batch * 8), token / UNIFORMS_OF_BLOCK, words);
        unsigned low = 0, high = 0;
#pragma unroll
        for (unsigned j = 0; j < UNIFORMS_OF_BLOCK; j++) // an index that is not constant would put the words into memory
            if (j == pair) low = words[2 * j], high = words[2 * j + 1];
        mask[i] = uniform_of(low, high) < rate ? T(0) : T(kept);
    }
}

#define MASKS(T, suffix)                                                                                               \
    extern "C" __global__ void dropout_##suffix(const unsigned *key, double rate, double kept, unsigned count,         \
                                                T *mask) {                                                             \
        draw(key, rate, kept, count, mask);                                                                            \
    }                                                                                                                  \
    EMULATED(dropout_##suffix)                                                                                         \
    extern "C" __global__ void word_dropout_##suffix(const unsigned *keys, const unsigned *tokens, double rate,        \
                                                     double kept, unsigned batch, unsigned count, T *mask) {           \
        draw_words(keys, tokens, rate, kept, batch, count, mask);                                                      \
    }                                                                                                                  \
    EMULATED(word_dropout_##suffix)

MASKS(float, f32)
MASKS(double, f64)
