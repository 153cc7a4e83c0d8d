"""What every peer shares: flags, the clock, and what is printed.

As `rhn bench` does: runs to warm up, then repeats of at least 0.2 s each, their median and their spread.
"""
import argparse, contextlib, json, math, resource, time
import torch

# What torch.compile can be told to try; after it, in bf16.
COMPILERS = {"compile": "default", "compile-reduce-overhead": "reduce-overhead", "compile-max-autotune": "max-autotune"}
MODES = ["eager", "tf32", *COMPILERS, "bf16", *(f"{name}-bf16" for name in COMPILERS)]


def parser(description, choices=("train", "stream", "sample")):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=choices)
    p.add_argument("--mode", choices=MODES, default="eager")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, help="[default: one a core]")
    p.add_argument("--repeats", type=int, default=8)
    p.add_argument("--runs", type=int, help="runs of a repeat [default: as many as take 0.2 s]")
    p.add_argument("--json", action="store_true", help="print one JSON object, with the fields of rhn bench --json")
    return p


def start(p):
    """The flags, with what follows from them; the threads are set and the generator is seeded."""
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    a.threads = torch.get_num_threads()
    torch.manual_seed(0)
    a.device = torch.device(a.device)
    a.compiled, a.bf16 = a.mode.startswith("compile"), a.mode.endswith("bf16")
    if a.mode == "tf32":
        torch.set_float32_matmul_precision("high")
    return a


def compiled(a, function, **settings):
    if not a.compiled:
        return function
    compiled = torch.compile(function, mode=COMPILERS[a.mode.removesuffix("-bf16")], **settings)

    def marked(*arguments):
        torch.compiler.cudagraph_mark_step_begin()  # what the last call returned may be overwritten from here on
        return compiled(*arguments)

    return marked


def kept(a, tensor):
    """A compiled function's output that outlives its next call."""
    return tensor.clone() if a.compiled and a.device.type == "cuda" else tensor


def autocast(a):
    """For training in bf16: the weights stay in single precision."""
    return torch.autocast(a.device.type, dtype=torch.bfloat16) if a.bf16 else contextlib.nullcontext()


def mask(a, rate, *shape):
    """Inverted dropout."""
    return (torch.rand(*shape, device=a.device) >= rate).float() / (1 - rate)


def measure(a, run, about, more=dict):
    """Times `run`, which tells how many tokens it did, and prints; `more` gives further fields of the output."""

    def timed(times):
        begun = time.perf_counter()
        tokens = sum(run() for _ in range(times))
        if a.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun, tokens

    timed(1)  # compiles, allocates
    if a.runs:
        timed(a.runs)  # where lengths differ from run to run, each is prepared when it is first seen
    times = a.runs or max(1, math.ceil(0.2 / timed(1)[0]))
    rates = []
    for _ in range(a.repeats):
        seconds, tokens = timed(times)
        rates.append(tokens / seconds)
    ranked = sorted(rates)
    median = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = {"about": about, "what": a.what, "mode": a.mode, "device": str(a.device), "threads": a.threads,
             "torch": torch.__version__, "tokens_per_second": median, "lowest": ranked[0], "highest": ranked[-1],
             "repeats": rates, "peak_memory_mib": peak, **more()}
    if a.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(a.device)
        found["peak_device_memory_mib"] = torch.cuda.max_memory_allocated(a.device) >> 20
    if a.json:
        print(json.dumps(found))
    else:
        print(f"{about}, {a.what}, {a.mode}, {a.threads} threads: {median:,.0f} tokens/s "
              f"({ranked[0]:,.0f} – {ranked[-1]:,.0f}), peak {peak:,} MiB")
