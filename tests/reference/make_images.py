"""Writes the golden arrays in images/: `python make_images.py`; `--check` compares instead.

Feed-forward highway and plain nets for images, written from the papers: Srivastava, Greff and Schmidhuber, "Training Very
Deep Networks", 2015, arXiv 1507.06228; gates shared by all layers: Lu and Renals, 2016, arXiv 1610.05812. Each file holds
one small net in f64: its weights, a batch, logits, the loss, every gradient, and the weights after twenty steps of
`torch.optim.SGD` with momentum. Written with torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save

HERE = Path(__file__).parent / "images"
PIXELS, UNITS, LAYERS, CLASSES, BATCH, STEPS = 6, 5, 4, 3, 7, 20
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}

# name: mixing, activation, shared gates, Nesterov's form, weight decay
CASES = {
    "plain-relu": ("plain", "relu", "none", False, 0.0),
    "coupled-tanh": ("coupled", "tanh", "none", True, 0.0),
    "full-tanh": ("full", "tanh", "none", True, 1e-2),
    "coupled-tanh-shared": ("coupled", "tanh", "transform", False, 0.0),
    "full-sigmoid-shared-transform": ("full", "sigmoid", "transform", True, 0.0),
    "full-sigmoid-shared-both": ("full", "sigmoid", "both", True, 0.0),
}


def products(mixing):
    return {"plain": ["h"], "coupled": ["h", "t"], "full": ["h", "t", "c"]}[mixing]


def shared(which):
    return {"none": [], "transform": ["t"], "both": ["t", "c"]}[which]


def parameters(mixing, shared_gates, rng):
    own = [p for p in products(mixing) if p not in shared(shared_gates)]
    common = shared(shared_gates)
    shapes = {
        "embedding.weight": (PIXELS, UNITS),
        "embedding.bias": (UNITS,),
        "core.weight": (LAYERS, UNITS, len(own) * UNITS),
        "core.bias": (LAYERS, len(own) * UNITS),
        "output.weight": (UNITS, CLASSES),
        "output.bias": (CLASSES,),
    }
    if common:
        shapes["core.shared.weight"] = (UNITS, len(common) * UNITS)
        shapes["core.shared.bias"] = (len(common) * UNITS,)
    tensors = {name: torch.from_numpy(rng.uniform(-0.7, 0.7, shape)) for name, shape in shapes.items()}
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def forward(weights, images, mixing, activation, shared_gates):
    f = ACTIVATIONS[activation]
    own = [p for p in products(mixing) if p not in shared(shared_gates)]
    x = f(images @ weights["embedding.weight"] + weights["embedding.bias"])
    for layer in range(LAYERS):
        z = {}
        for i, product in enumerate(own):
            columns = slice(i * UNITS, (i + 1) * UNITS)
            z[product] = x @ weights["core.weight"][layer][:, columns] + weights["core.bias"][layer][columns]
        for i, product in enumerate(shared(shared_gates)):
            columns = slice(i * UNITS, (i + 1) * UNITS)
            z[product] = x @ weights["core.shared.weight"][:, columns] + weights["core.shared.bias"][columns]
        h = f(z["h"])
        if mixing == "plain":
            x = h
        elif mixing == "coupled":
            t = torch.sigmoid(z["t"])
            x = h * t + x * (1 - t)
        else:
            x = h * torch.sigmoid(z["t"]) + x * torch.sigmoid(z["c"])
    return x @ weights["output.weight"] + weights["output.bias"]


def make(name):
    mixing, activation, shared_gates, nesterov, decay = CASES[name]
    rng = np.random.default_rng(sum(name.encode()))
    weights = parameters(mixing, shared_gates, rng)
    images = torch.from_numpy(rng.uniform(0, 1, (STEPS, BATCH, PIXELS)))
    labels = torch.from_numpy(rng.integers(CLASSES, size=(STEPS, BATCH)))
    arrays = {f"first.{key}": tensor.detach().numpy().copy() for key, tensor in weights.items()}
    arrays |= {"images": images.numpy(), "labels": labels.numpy().astype(np.uint32)}
    logits = forward(weights, images[0], mixing, activation, shared_gates)
    loss = F.cross_entropy(logits, labels[0])
    loss.backward()
    arrays |= {"logits": logits.detach().numpy(), "loss": np.array([loss.item()])}
    arrays |= {f"grad.{key}": tensor.grad.numpy().copy() for key, tensor in weights.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=0.2, momentum=0.9, nesterov=nesterov, weight_decay=decay)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(weights, images[step], mixing, activation, shared_gates), labels[step])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    arrays["losses"] = np.array(losses)
    arrays |= {f"after.{key}": tensor.detach().numpy() for key, tensor in weights.items()}
    core = {"kind": "feed-forward", "layers": LAYERS, "hidden_size": UNITS, "mixing": mixing}
    core |= {"activation": activation, "shared_gates": shared_gates}
    embedding = {"kind": "pixels", "pixels": PIXELS, "activation": activation}
    config = {"model_type": "rhn", "vocab_size": CLASSES, "embedding": embedding, "core": core, "output": {}}
    train = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": decay, "learning_rate": 0.2}
    return arrays, {"config": json.dumps(config), "train": json.dumps(train)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    HERE.mkdir(exist_ok=True)
    for name in CASES:
        arrays, metadata = make(name)
        path = HERE / f"{name}.safetensors"
        if check:
            there = load_file(path)
            far = max(np.abs(there[key] - array).max() for key, array in arrays.items())
            print(f"{name}: {far:.1e}")
            assert there.keys() == arrays.keys() and far < 1e-12
        else:
            path.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata))


if __name__ == "__main__":
    main()
