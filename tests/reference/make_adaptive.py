"""Writes the golden arrays in adaptive/: `python make_adaptive.py`; `--check` compares instead.

Evaluation that adapts, written from the papers: dynamic evaluation (Krause et al., 2017, arXiv 1709.07432, the RMS form
with decay), the neural cache (Grave et al., 2017, arXiv 1612.04426), both together, and both at a temperature. Each file
holds one small model in f64, a training text for the statistics, and the nats of each of 200 tokens by each of them.
Written with torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from make import TIED_MIXTURE, char_cnn, first_parameters, largest_difference, lstm, model_config, rhn, to_bytes, to_numpy, token_stream, word
from model import Model, nats

HERE = Path(__file__).parent / "adaptive"
TRAIN, TEXT = 1300, 201
ROWS, STEPS = 100, 5  # of the statistics
CACHE = {"cache": 30, "cache_theta": 0.7, "cache_lambda": 0.3}
TEMPERATURE = 1.3

# name: embedding, core, output, vocabulary, and the settings of dynamic evaluation
CASES = {
    "rhn-tied": (word(), rhn(7, 2, layers=2), True, 13, {"rate": 0.004, "decay": 0.02, "epsilon": 1e-3, "segment": 5}),
    "char-cnn-lstm": (char_cnn([1, 2, 3], [3, 4, 5], 1), lstm(6, 2), False, 12, {"rate": 0.01, "decay": 0.5, "epsilon": 1e-2, "segment": 7}),
    "mixture-lstm": (word(size=4), lstm(6, 1), TIED_MIXTURE, 11, {"rate": 0.004, "decay": 0.02, "epsilon": 1e-3, "segment": 5}),
}


def read(model, tokens, state):
    """(T + 1, B) of types: the last layer's outputs (T, B, H), logits (T, B, V), the state after them."""
    hidden, logits, vectors = [], [], model.word_vectors()
    for step in tokens[:-1]:
        out, state = model.forward(step.unsqueeze(0), state, vectors=vectors)
        hidden.append(state[-1][0])
        logits.append(out[0])
    return torch.stack(hidden), torch.stack(logits), [tuple(part.detach() for part in parts) for parts in state]


def gradients(model, loss):
    return dict(zip(model.parameters, torch.autograd.grad(loss, list(model.parameters.values()))))


def statistics(model, text):
    """Name → the root mean square of the gradient over segments of STEPS tokens in ROWS rows."""
    length = len(text) // ROWS
    rows = text[: length * ROWS].view(ROWS, length).T
    state, sums, count = model.zero_state(ROWS), {name: 0.0 for name in model.parameters}, 0
    for start in range(0, (length - 1) // STEPS * STEPS, STEPS):
        segment = rows[start : start + STEPS + 1]
        _, logits, state = read(model, segment, state)
        for name, gradient in gradients(model, nats(logits, segment[1:]).mean()).items():
            sums[name] = sums[name] + gradient**2
        count += 1
    return {name: (total / count).sqrt() for name, total in sums.items()}


def stream(model, text):
    """The outputs and logits of each token, by weights that stay as they are."""
    with torch.no_grad():
        hidden, logits, _ = read(model, text.unsqueeze(1), model.zero_state(1))
    return hidden[:, 0], logits[:, 0]


def dynamic(model, text, rms, rate, decay, epsilon, segment):
    """The outputs and logits of each token by the weights before its segment; the model's weights change."""
    first = {name: tensor.detach().clone() for name, tensor in model.parameters.items()}
    mean = sum(m.mean() for m in rms.values()) / len(rms)
    state, all_hidden, all_logits = model.zero_state(1), [], []
    for start in range(0, len(text) - 1, segment):
        part = text[start : start + segment + 1].unsqueeze(1)
        hidden, logits, state = read(model, part, state)
        all_hidden.append(hidden.detach()[:, 0])
        all_logits.append(logits.detach()[:, 0])
        grads = gradients(model, nats(logits, part[1:]).mean())
        with torch.no_grad():
            for name, theta in model.parameters.items():
                r = torch.clamp(rms[name] / mean, max=1 / decay)
                theta += decay * r * (first[name] - theta) - rate * grads[name] / (rms[name] + epsilon)
    return torch.cat(all_hidden), torch.cat(all_logits)


def with_cache(hidden, probabilities, targets):
    """-ln of the mixture for each token, the cache read position by position."""
    window, theta, share = CACHE["cache"], CACHE["cache_theta"], CACHE["cache_lambda"]
    found = []
    for t, target in enumerate(targets):
        p = probabilities[t, target]
        past = range(max(0, t - window), t)
        if len(past) > 0:
            weights = torch.stack([theta * hidden[t] @ hidden[i] for i in past]).exp()
            hits = torch.stack([targets[i] == target for i in past])
            p = (1 - share) * p + share * weights[hits].sum() / weights.sum()
        found.append(-math.log(p))
    return torch.tensor(found, dtype=torch.float64)


def make(name):
    embedding, core, output, vocab_size, settings = CASES[name]
    rng = np.random.default_rng([1709, 7432, list(CASES).index(name)])
    config = model_config(embedding, core, output, vocab_size)
    tensors = first_parameters(config, rng)
    tokens = token_stream(config, rng, TRAIN)
    train, text = tokens[:, 1], tokens[:TEXT, 0]
    out = {f"param.{key}": tensor.clone() for key, tensor in tensors.items()} | {"train": train, "text": text}
    model = Model(config, tensors)
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)
    rms = statistics(model, train)
    out |= {f"rms.{key}": tensor for key, tensor in rms.items()}
    targets = text[1:]
    hidden, logits = stream(model, text)
    out["nats.stream"] = nats(logits, targets)
    out["nats.temperature"] = nats(logits / TEMPERATURE, targets)
    out["nats.cache"] = with_cache(hidden, torch.softmax(logits, -1), targets)
    hidden, logits = dynamic(model, text, rms, **settings)
    out["nats.dynamic"] = nats(logits, targets)
    out |= {f"after.{key}": tensor for key, tensor in model.parameters.items()}
    out["nats.dynamic+cache"] = with_cache(hidden, torch.softmax(logits, -1), targets)
    out["nats.dynamic+cache+temperature"] = with_cache(hidden, torch.softmax(logits / TEMPERATURE, -1), targets)
    settings = {f"dynamic_{key}" if key != "segment" else key: value for key, value in settings.items()}
    settings |= CACHE | {"temperature": TEMPERATURE}
    return {key: to_numpy(tensor) for key, tensor in out.items()}, {"config": json.dumps(config), "settings": json.dumps(settings)}


def main():
    parser = argparse.ArgumentParser(description="Write the golden arrays of adaptive evaluation.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-11")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in CASES:
        arrays, metadata = make(name)
        path = HERE / f"{name}.safetensors"
        if check:
            difference = largest_difference(arrays, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-11, f"{path} differs"
            continue
        path.write_bytes(to_bytes(arrays, metadata))
        means = {key: round(float(array.mean()), 4) for key, array in arrays.items() if key.startswith("nats.")}
        print(f"{name}: {means}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
