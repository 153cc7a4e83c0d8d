// The threads, warps and blocks of one launch, on a CPU: see cuda.h for what this is for and how to use it.
//
// Each CUDA thread is a fiber with a stack of its own; each block is an operating-system thread, so that its
// `__shared__` variables (thread_local here) are its own. Only one of all these runs at a time, and changes happen at
// barriers, at warp operations and at `spin_wait()` alone: a run is repeated exactly by its order. What goes wrong
// ends the process with a message that names kernel, block and thread.
#pragma once
#include "cuda/emulation/fibers.h"
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#ifdef __linux__
#include <link.h>
#endif

namespace emulation {

inline void block_barrier(const char *file, int line) {
    fiber_now->wait = Wait::Block, fiber_now->waits_at = file, fiber_now->line = line;
    leave();
}

inline unsigned lane_now() { return fiber_now->flat % 32; }
inline Warp &warp_now() { return block_now->warps[fiber_now->flat / 32]; }

// Waits for the lanes of `mask` that exist.
inline void warp_barrier(unsigned mask, const char *what) {
    if (!(mask >> lane_now() & 1)) fail("%s with a mask %08x that lacks the caller's lane", what, mask);
    Fiber *self = fiber_now;
    self->wait = Wait::Warp, self->waits_at = what, self->mask = mask;
    unsigned first = self->flat / 32 * 32, wanted = mask & warp_now().present;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(wanted >> lane & 1)) continue;
        Fiber &other = block_now->fibers[first + lane];
        if (other.wait == Wait::Done) fail("%s waits for lane %u, which has left the kernel", what, lane);
        if (other.wait != Wait::Warp) return leave(); // the last one to come lets all go on
        if (other.mask != mask || std::strcmp(other.waits_at, what) != 0)
            fail("%s (mask %08x), while lane %u is at %s (mask %08x)", what, mask, lane, other.waits_at, other.mask);
    }
    for (unsigned lane = 0; lane < 32; lane++)
        if (wanted >> lane & 1) block_now->fibers[first + lane].wait = Wait::Nothing;
    // The others go on from their own stacks; this one is already running.
}

// Every lane of `mask` gives `value`; the result is that of lane `source`, or all bits set if it gives none.
template <class T> T warp_exchange(unsigned mask, const T &value, unsigned source, const char *what) {
    static_assert(sizeof(T) <= sizeof(Warp::slots[0]), "a slot is smaller than that");
    Warp &warp = warp_now();
    std::memcpy(warp.slots[lane_now()], &value, sizeof(T));
    warp_barrier(mask, what);
    T result;
    std::memset(static_cast<void *>(&result), 0xff, sizeof(T));
    if (source < 32 && (mask & warp.present) >> source & 1) std::memcpy(&result, warp.slots[source], sizeof(T));
    warp_barrier(mask, what); // no lane overwrites what another has yet to read
    return result;
}

// What all lanes of `mask` give, at once; of lanes that are not there, anything.
template <class T> void warp_gather(unsigned mask, const T &value, T (&all)[32], const char *what) {
    Warp &warp = warp_now();
    std::memcpy(warp.slots[lane_now()], &value, sizeof(T));
    warp_barrier(mask, what);
    for (unsigned lane = 0; lane < 32; lane++) std::memcpy(&all[lane], warp.slots[lane], sizeof(T));
    warp_barrier(mask, what);
}

// Lets others run; a loop that waits for another block must call it.
inline void spin() {
    fiber_now->wait = Wait::Spin;
    leave();
}

inline void fiber_main() {
    launch_now->body();
    fiber_now->wait = Wait::Done;
    leave();
    std::abort(); // a fiber that is done is never resumed
}

inline std::vector<unsigned> order(unsigned count, unsigned salt) {
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (order_seed == 1) std::reverse(order.begin(), order.end());
    if (order_seed > 1) {
        std::mt19937 random(order_seed * 7919u + salt);
        for (unsigned i = count; i > 1; i--) std::swap(order[i - 1], order[random() % i]);
    }
    return order;
}

// Shared memory is not zero when a kernel starts, and not what another block left.
inline void poison_shared() {
#ifdef __linux__
    auto fill = [](dl_phdr_info *info, size_t, void *) {
        for (int i = 0; i < info->dlpi_phnum; i++)
            if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data)
                std::memset(info->dlpi_tls_data, 0xff, info->dlpi_phdr[i].p_memsz);
        return 1; // the program itself comes first; its only thread_local variables are the kernels'
    };
    dl_iterate_phdr(fill, nullptr);
#endif
    if (block_now->shared) std::memset(block_now->shared, 0xff, launch_now->shared_bytes);
}

inline void prepare(Block &block, const Launch &launch) {
    unsigned threads = launch.block.count();
    block.fibers.resize(threads);
    block.warps.resize((threads + 31) / 32);
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = block.fibers[i];
        fiber.index = unflatten(i, launch.block), fiber.flat = i;
        block.warps[i / 32].present |= 1u << i % 32;
        getcontext(&fiber.context); // not a copy of one: it points into itself
        fiber.context.uc_stack.ss_sp = stacks.take();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
}

// Lets the threads go on if all wait at the same barrier.
inline void open_barrier(Block &block) {
    unsigned waiting = 0, done = 0;
    const Fiber *at = nullptr;
    for (Fiber &fiber : block.fibers) {
        if (fiber.wait == Wait::Done) done++;
        if (fiber.wait != Wait::Block) continue;
        waiting++;
        if (at && (std::strcmp(at->waits_at, fiber.waits_at) != 0 || at->line != fiber.line)) {
            fiber_now = &fiber;
            fail("waits at %s:%d while another thread is at %s:%d", fiber.waits_at, fiber.line, at->waits_at, at->line);
        }
        at = &fiber;
    }
    if (waiting == 0) return;
    if (done > 0) fail("%u threads wait at %s:%d for %u that have left the kernel", waiting, at->waits_at, at->line, done);
    if (waiting < block.fibers.size()) return;
    for (Fiber &fiber : block.fibers) fiber.wait = Wait::Nothing;
}

// Runs the block's threads until all are done or only spin.
inline void run(Block &block, const std::vector<unsigned> &order) {
    block_now = &block;
    for (bool ran = true; ran;) {
        ran = false;
        for (unsigned i : order) {
            Fiber &fiber = block.fibers[i];
            if (fiber.wait != Wait::Nothing) continue;
            fiber_now = &fiber;
            resume(fiber);
            fiber_now = nullptr;
            ran = true;
            if (fiber.wait != Wait::Spin) idle_rounds = 0;
        }
        if (!ran) {
            open_barrier(block);
            for (Fiber &fiber : block.fibers) ran |= fiber.wait == Wait::Nothing;
        }
    }
    bool spins = false, done = true;
    for (Fiber &fiber : block.fibers) {
        spins |= fiber.wait == Wait::Spin;
        done &= fiber.wait == Wait::Done;
    }
    if (!done && !spins)
        for (Fiber &fiber : block.fibers)
            if (fiber.wait != Wait::Done) {
                fiber_now = &fiber;
                fail("waits for ever at %s:%d", fiber.waits_at, fiber.line);
            }
    for (Fiber &fiber : block.fibers)
        if (fiber.wait == Wait::Spin) fiber.wait = Wait::Nothing;
    block.finished = done;
}

constexpr long MOST_IDLE_ROUNDS = 10000; // rounds of spinning after which no other block will arrive

// Runs `launch` to its end.
inline void launch(const Launch &launch, unsigned char *(*shared_memory)(size_t)) {
    launch_now = &launch;
    unsigned count = launch.grid.count();
    std::mutex mutex;
    std::condition_variable changed;
    auto block_order = order(count, 1);
    unsigned current = 0, left = count;
    std::vector<Block> blocks(count);
    auto live = [&](unsigned position) {
        std::unique_lock<std::mutex> lock(mutex);
        Block &block = blocks[block_order[position]];
        changed.wait(lock, [&] { return current == position; });
        block_now = &block;
        block.index = unflatten(block_order[position], launch.grid);
        if (launch.shared_bytes) block.shared = shared_memory(launch.shared_bytes);
        prepare(block, launch);
        poison_shared();
        auto threads = order(launch.block.count(), 2 + block_order[position]);
        for (;;) {
            run(block, threads);
            if (block.finished) left--;
            else if (!launch.cooperative) fail("waits for another block in a launch that is not cooperative");
            else if (++idle_rounds > MOST_IDLE_ROUNDS * long(count)) fail("spins for ever");
            for (Fiber &fiber : block.fibers)
                if (block.finished) stacks.free.push_back(fiber.context.uc_stack.ss_sp);
            block_now = nullptr;
            if (left > 0)
                do current = (current + 1) % count;
                while (blocks[block_order[current]].finished);
            changed.notify_all();
            if (block.finished) return;
            changed.wait(lock, [&] { return current == position; });
        }
    };
    std::vector<std::thread> threads;
    for (unsigned position = 0; position < count; position++) {
        threads.emplace_back(live, position);
        if (!launch.cooperative) threads.back().join(); // one block after another
    }
    if (launch.cooperative)
        for (auto &thread : threads) thread.join();
    launch_now = nullptr;
}

} // namespace emulation
