"""PyTorch's adaptive softmax on what `cargo run --release --example large_vocabulary -- adaptive 20 FILE` wrote to FILE:
`python pytorch_adaptive.py FILE [--threads 2] [--adagrad]`.

Checks that nats and gradients are the same, then prints the median time of a step forward and backward, and the memory that
weights and steps take. With --adagrad a step has an update too, as `-- adaptive-adagrad 20` has, and nothing is compared.
"""

import argparse
import statistics
import time

import torch
from safetensors.torch import load_file

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--adagrad", action="store_true")
args = parser.parse_args()
torch.set_num_threads(args.threads)


def resident(which):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines[which].split()[0]) // 1024


saved = load_file(args.file)
warm = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4])
warm(torch.rand(6, 8), torch.arange(6)).loss.backward()  # what a first use loads is not counted
before = resident("VmRSS")
layer = torch.nn.AdaptiveLogSoftmaxWithLoss(512, 267735, [20000, 40000, 200000], div_value=4.0)
layer.load_state_dict({name: tensor for name, tensor in saved.items() if name in dict(layer.named_parameters())})
ys = saved["ys"].flatten(0, 1).clone().requires_grad_()
targets = saved["targets"].flatten().long()
open("/proc/self/clear_refs", "w").write("5")
weights = resident("VmRSS") - before


optimizer = torch.optim.Adagrad(layer.parameters(), 0.2, initial_accumulator_value=1.0, eps=1e-8) if args.adagrad else None


def step():
    layer.zero_grad(set_to_none=True)
    ys.grad = None
    nats = -layer(ys, targets).output
    (nats.sum() / 20).backward()
    if optimizer:
        optimizer.step()
    return nats


times = []
for index in range(args.steps + 1):
    start = time.perf_counter()
    nats = step()
    times.append(time.perf_counter() - start)
peak = resident("VmHWM") - before
summary = f"{1e3 * statistics.median(times[1:]):.1f} ms a step (least {1e3 * min(times):.1f}); {peak} MiB at the peak, of which {weights} were there before"
if args.adagrad:
    raise SystemExit(print(f"adaptive-adagrad: {summary}"))
found = {"nats": nats, "grad.ys": ys.grad} | {f"grad.{name}": tensor.grad for name, tensor in layer.named_parameters()}
exact = {name: tensor.double() for name, tensor in layer.state_dict().items()}
layer.double().load_state_dict(exact)
ys = saved["ys"].flatten(0, 1).double().requires_grad_()
truth = {"nats": step(), "grad.ys": ys.grad} | {f"grad.{name}": tensor.grad for name, tensor in layer.named_parameters()}
for name, wanted in truth.items():
    off = lambda tensor: ((tensor.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max()).item()
    print(f"{name}: rhn is off by {off(saved[name]):.1e} of the largest number in double precision, PyTorch by {off(found[name]):.1e}")
    assert off(saved[name]) < 1e-5
print(f"adaptive: {summary}")
