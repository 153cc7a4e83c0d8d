"""A training step of the recipe mnist-highway in PyTorch: `python pytorch_highway.py [--threads 2] [--mode eager|compile]`.

The same net, batch, loss and update; the gates' and the candidates' products are one product, as in rhn. Prints
milliseconds of a step: median and least over the repeats.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
parser.add_argument("--layers", type=int, default=49, help="highway layers")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--repeats", type=int, default=5)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(1)
UNITS, PIXELS, CLASSES, BATCH = 50, 784, 10, 100


def uniform(*shape, fans):
    return torch.nn.Parameter((2 * torch.rand(shape) - 1) * (6 / sum(fans)) ** 0.5)


first = [uniform(PIXELS, UNITS, fans=(PIXELS, UNITS)), torch.nn.Parameter(torch.zeros(UNITS))]
weights = [uniform(UNITS, 2 * UNITS, fans=(UNITS, UNITS)) for _ in range(args.layers)]
biases = [torch.nn.Parameter(torch.cat([torch.zeros(UNITS), torch.full((UNITS,), -2.0)])) for _ in range(args.layers)]
last = [uniform(UNITS, CLASSES, fans=(UNITS, CLASSES)), torch.nn.Parameter(torch.zeros(CLASSES))]
optimizer = torch.optim.SGD(first + weights + biases + last, lr=0.03, momentum=0.9)


def loss(images, labels):
    x = torch.tanh(torch.addmm(first[1], images, first[0]))
    for weight, bias in zip(weights, biases):
        h, t = torch.addmm(bias, x, weight).split(UNITS, 1)
        x = x + torch.sigmoid(t) * (torch.tanh(h) - x)
    return F.cross_entropy(torch.addmm(last[1], x, last[0]), labels)


step_loss = torch.compile(loss) if args.mode == "compile" else loss
images, labels = torch.rand(BATCH, PIXELS), torch.randint(CLASSES, (BATCH,))


def step():
    optimizer.zero_grad()
    step_loss(images, labels).backward()
    optimizer.step()


for _ in range(10):
    step()
times = []
for _ in range(args.repeats):
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    times.append(1000 * (time.perf_counter() - start) / args.steps)
print(f"{args.mode}, {args.threads} threads: median {statistics.median(times):.2f} ms a step, least {min(times):.2f}")
