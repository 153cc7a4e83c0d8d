// Runs kernels over files of numbers. Each line of the standard input is one of
//
//     buffer NAME BYTES            memory whose bits are all set
//     load NAME PATH               memory with the bytes of a file
//     launch KERNEL GX GY GZ BX BY BZ SHARED 0|1 ARGUMENT…     1: cooperative; an argument: a number, or &NAME[+BYTES]
//     dump NAME PATH               writes a buffer to a file
//
// EMULATION_ORDER: see cuda.h. Exit code 0 if all went well; 64 what was read makes no sense; 70, 71, 72 see cuda.h.
#include "cuda/emulation/cuda.h"
#include <csignal>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>

namespace emulation {

constexpr size_t PAGE = 1 << 16; // of any machine, or a multiple of it
constexpr size_t ALIGN = 16;     // of a buffer's start, as vector loads want it

// Memory that ends where no access is allowed, but for what alignment leaves; and with a page of the kind before it.
struct Buffer {
    unsigned char *start, *map;
    size_t bytes, mapped;
    explicit Buffer(size_t bytes) : bytes(bytes) {
        size_t padded = (bytes + ALIGN - 1) / ALIGN * ALIGN, pages = (padded + PAGE - 1) / PAGE * PAGE;
        mapped = pages + 2 * PAGE;
        map = static_cast<unsigned char *>(mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (map == MAP_FAILED || (pages && mprotect(map + PAGE, pages, PROT_READ | PROT_WRITE))) fail("no memory");
        start = map + PAGE + pages - padded;
        std::memset(map + PAGE, 0xff, pages);
    }
    Buffer(const Buffer &) = delete;
    ~Buffer() { munmap(map, mapped); }
    void check(const std::string &name) const {
        auto untouched = [&](unsigned char *from, unsigned char *to) {
            return std::all_of(from, to, [](unsigned char byte) { return byte == 0xff; });
        };
        if (untouched(map + PAGE, start) && untouched(start + bytes, map + mapped - PAGE)) return;
        std::cerr << "emulation: something was written beside buffer " << name << "\n";
        _exit(72);
    }
};

static std::map<std::string, std::unique_ptr<Buffer>> buffers;
static std::vector<std::unique_ptr<Buffer>> shared_buffers; // of one launch

static Buffer &buffer(const std::string &name) {
    auto found = buffers.find(name);
    if (found == buffers.end()) std::cerr << "emulation: no buffer " << name << "\n", _exit(64);
    return *found->second;
}

void *pointer_argument(const std::string &text) {
    if (text == "0") return nullptr;
    if (text[0] != '&') std::cerr << "emulation: " << text << " where a buffer is wanted\n", _exit(64);
    size_t plus = text.find('+');
    size_t offset = plus == std::string::npos ? 0 : std::stoull(text.substr(plus + 1));
    return buffer(text.substr(1, plus == std::string::npos ? plus : plus - 1)).start + offset;
}

static unsigned char *shared_memory(size_t bytes) {
    shared_buffers.push_back(std::make_unique<Buffer>(bytes));
    return shared_buffers.back()->start;
}

static void out_of_bounds(int, siginfo_t *info, void *) {
    auto *at = static_cast<unsigned char *>(info->si_addr);
    const char *name = "none";
    size_t bytes = 0;
    long offset = 0;
    auto look = [&](const char *called, const Buffer &buffer) {
        if (at >= buffer.map && at < buffer.map + buffer.mapped) name = called, offset = at - buffer.start, bytes = buffer.bytes;
    };
    for (auto &entry : buffers) look(entry.first.c_str(), *entry.second);
    for (auto &shared : shared_buffers) look("(shared memory)", *shared);
    char line[512];
    Dim b = block_now ? block_now->index : Dim{}, t = fiber_now ? fiber_now->index : Dim{};
    int length = std::snprintf(line, sizeof line,
                               "emulation: kernel %s: block (%u, %u, %u): thread (%u, %u, %u): access outside of buffer %s: "
                               "byte %ld of %zu\n",
                               launch_now ? launch_now->kernel : "none", b.x, b.y, b.z, t.x, t.y, t.z, name, offset, bytes);
    if (write(2, line, size_t(length)) < 0) _exit(73);
    _exit(71);
}

static void run_launch(std::istringstream &line) {
    std::string name;
    Launch next;
    line >> name >> next.grid.x >> next.grid.y >> next.grid.z >> next.block.x >> next.block.y >> next.block.z >>
        next.shared_bytes >> next.cooperative;
    if (!line || !kernels().count(name)) std::cerr << "emulation: no launch of " << name << "\n", _exit(64);
    if (next.block.count() > 1024 || next.shared_bytes > 227 * 1024) fail("%s: more than a block may have", name.c_str());
    Arguments arguments;
    for (std::string word; line >> word;) arguments.push_back(word);
    next.kernel = name.c_str();
    next.body = kernels()[name](arguments);
    shared_buffers.clear();
    launch(next, shared_memory);
    for (auto &entry : buffers) entry.second->check(entry.first);
    for (auto &shared : shared_buffers) shared->check("(shared memory)");
}

static void execute(const std::string &text) {
    std::istringstream line(text);
    std::string verb, name, path;
    line >> verb;
    if (verb == "launch") return run_launch(line);
    line >> name;
    if (verb == "buffer") {
        size_t bytes = 0;
        line >> bytes;
        buffers[name] = std::make_unique<Buffer>(bytes);
    } else if (verb == "load") {
        std::getline(line >> std::ws, path);
        std::ifstream file(path, std::ios::binary);
        std::string content((std::istreambuf_iterator<char>(file)), {});
        buffers[name] = std::make_unique<Buffer>(content.size());
        std::memcpy(buffers[name]->start, content.data(), content.size());
    } else if (verb == "dump") {
        std::getline(line >> std::ws, path);
        Buffer &found = buffer(name);
        std::ofstream(path, std::ios::binary).write(reinterpret_cast<char *>(found.start), long(found.bytes));
    } else if (!verb.empty()) {
        std::cerr << "emulation: " << verb << "?\n";
        _exit(64);
    }
}

} // namespace emulation

int main() {
    struct sigaction action = {};
    action.sa_sigaction = emulation::out_of_bounds;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    if (const char *order = std::getenv("EMULATION_ORDER")) emulation::order_seed = unsigned(std::atoi(order));
    for (std::string line; std::getline(std::cin, line);) emulation::execute(line);
    std::cout.flush();
    _exit(0); // block threads are joined; nothing is left to tear down
}
