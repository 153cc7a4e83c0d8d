// The threads of a launch on a CPU: a fiber each, with a stack of its own, and what they share; see scheduler.h.
#pragma once
#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace emulation {

struct Dim {
    unsigned x = 1, y = 1, z = 1;
    unsigned count() const { return x * y * z; }
};

inline Dim unflatten(unsigned i, Dim of) { return {i % of.x, i / of.x % of.y, i / (of.x * of.y)}; }

enum class Wait { Nothing, Block, Warp, Spin, Done };

struct Fiber {
    ucontext_t context; // where it starts
    jmp_buf resume_point;
    bool started = false;
    Dim index;
    unsigned flat = 0;
    Wait wait = Wait::Nothing;
    const char *waits_at = ""; // the barrier or warp operation that it waits at
    int line = 0;
    unsigned mask = 0; // the lanes that it waits for
};

struct Warp {
    unsigned present = 0;          // lanes that exist
    unsigned char slots[32][64];   // what the lanes exchange
};

struct Block {
    Dim index;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    unsigned char *shared = nullptr;
    jmp_buf scheduler;
    bool finished = false;
};

struct Launch {
    const char *kernel = "";
    Dim grid, block;
    size_t shared_bytes = 0;
    bool cooperative = false;
    std::function<void()> body;
};

inline const Launch *launch_now = nullptr; // one launch at a time, one runner at a time
inline Block *block_now = nullptr;
inline Fiber *fiber_now = nullptr;
inline long idle_rounds = 0; // passes over all blocks in which every thread only spun
inline unsigned order_seed = 0; // 0: threads and blocks in order; 1: backwards; else shuffled

[[noreturn]] inline void fail(const char *format, ...) {
    std::fprintf(stderr, "emulation: ");
    if (launch_now) std::fprintf(stderr, "kernel %s: ", launch_now->kernel);
    if (block_now) std::fprintf(stderr, "block (%u, %u, %u): ", block_now->index.x, block_now->index.y, block_now->index.z);
    if (fiber_now) std::fprintf(stderr, "thread (%u, %u, %u): ", fiber_now->index.x, fiber_now->index.y, fiber_now->index.z);
    va_list args;
    va_start(args, format);
    std::vfprintf(stderr, format, args);
    va_end(args);
    std::fprintf(stderr, "\n");
    std::fflush(stderr);
    _exit(70);
}

constexpr size_t STACK = 128 << 10;

// Stacks are kept for the next launch.
struct Stacks {
    std::vector<void *> free;
    void *take() {
        if (!free.empty()) {
            void *stack = free.back();
            free.pop_back();
            return stack;
        }
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) fail("no memory for a thread's stack");
        return stack;
    }
};
inline Stacks stacks;

// The running fiber gives the processor back to its block's loop. By _setjmp, which makes no system call.
__attribute__((noinline)) inline void leave() {
    if (_setjmp(fiber_now->resume_point) == 0) _longjmp(block_now->scheduler, 1);
}

// Lets a fiber run until it leaves.
__attribute__((noinline)) inline void resume(Fiber &fiber) {
    if (_setjmp(block_now->scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume_point, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

} // namespace emulation
