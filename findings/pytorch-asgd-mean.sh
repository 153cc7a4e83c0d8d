#!/usr/bin/env bash
# One would expect the mean that torch.optim.ASGD keeps from step t0 on to be that of all weights from there on: with
# t0=0, as the authors of AWD-LSTM use it when their trigger fires, the mean of every step.
# With PyTorch 2.15.0 the weights after the first step have no part in it: the factor of the mean is 1 in the second step
# too, so that this overwrites the first. With t0=-1 the mean is that of all steps.
# The factor is 1/(1 + t) rounded to f32 even where the weights are f64, so that the mean is off by some 1e-8 of them.
# It matters here because averaging is held to PyTorch to 1e-10: the fixture is made with t0=-1, in f64 throughout.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat > check.py <<'PYTHON'
import torch

def means(t0, default):
    """The mean after five steps, and those of all weights and of all but the first."""
    torch.set_default_dtype(default)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.ASGD([weight], lr=0.1, lambd=0.0, t0=t0)
    seen = []
    for step in range(5):
        optimizer.zero_grad()
        (weight**4).sum().backward()
        with torch.no_grad():
            weight.grad *= step + 1
        optimizer.step()
        seen.append(weight.detach().clone())
    seen = torch.stack(seen)
    return optimizer.state[weight]["ax"], seen.mean(0), seen[1:].mean(0)

def same(a, b, tolerance):
    return bool((a - b).abs().max() < tolerance)

found, everything, but_first = means(0, torch.float64)
late = same(found, but_first, 1e-12) and not same(found, everything, 1e-6)
found, everything, _ = means(-1, torch.float64)
early = same(found, everything, 1e-12)
found, everything, _ = means(-1, torch.float32)
rounded = same(found, everything, 1e-6) and not same(found, everything, 1e-12)
print(torch.__version__)
print("t0=0 leaves the first step out:", late)
print("t0=-1 takes all steps:", early)
print("the factor is rounded to f32 unless the default dtype is f64:", rounded)
raise SystemExit(0 if late and early and rounded else "this has changed")
PYTHON
venv/bin/python check.py
