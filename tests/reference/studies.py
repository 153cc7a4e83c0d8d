"""Computes what `rhn study estimate` prints again, in PyTorch and f64, two passes over all tokens.

    python studies.py CHECKPOINT FILE RESULT    FILE: the text that was read; RESULT: the study's result.json

Prints the largest relative difference of each stage's figures and fails above 1e-4 (the study computes in f32 unless
it was asked for f64). Everything is held at once: use `rhn study estimate --tokens N` and a text cut alike.
"""

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path

import torch

from load import encode, load
from model import TRANSFORM_BIAS


def time_steps(model, tokens, rows, steps):
    """For each recurrent layer: its states (L + 1, tokens, H), H and T (L, tokens, H)."""
    length = len(tokens) // rows
    predicted = (length - 1) // steps * steps
    table = model.word_vectors()
    states = model.zero_state(rows)
    seen = [([], [], []) for _ in states]
    for step in range(predicted):
        x = table[tokens[torch.arange(rows) * length + step]]
        for k, (s,) in enumerate(states):
            inside = ([s], [], [])
            for l in range(model.config["core"]["recurrence_depth"]):
                z = s @ model[f"core.{k}.recurrent.weight"][l] + model[f"core.{k}.bias"][l]
                z = z + x @ model[f"core.{k}.input.weight"] if l == 0 else z
                h, t = z.chunk(2, dim=-1)
                h, t = torch.tanh(h), torch.sigmoid(t)
                s = t * h + (1 - t) * s
                for part, value in zip(inside, (s, h, t)):
                    part.append(value)
            for all_steps, part in zip(seen[k], inside):
                all_steps.append(torch.stack(part))
            states[k] = (s,)
            x = s
    return [tuple(torch.cat(part, dim=1) for part in layer) for layer in seen]


def highway(model, ids):
    """The states (n + 1, words, F), H and T (n, words, F) of coupled highway layers."""
    shift = model.config["embedding"].get("transform_bias", TRANSFORM_BIAS)
    y = model.convolve()[ids]
    states, candidates, gates = [y], [], []
    for i in range(model.config["embedding"]["highway_layers"]):
        h, t = (y @ model[f"embedding.highway.{i}.weight"] + model[f"embedding.highway.{i}.bias"]).chunk(2, dim=1)
        h, t = torch.relu(h), torch.sigmoid(t + shift)
        y = t * h + (1 - t) * y
        states.append(y), candidates.append(h), gates.append(t)
    return torch.stack(states), torch.stack(candidates), torch.stack(gates)


def figures(states, candidates, gates, weights):
    """By k: the definitions, word for word; `weights` (tokens) says how often each row counts."""
    weights = weights / weights.sum()
    mean = lambda values: (weights[:, None] * values).sum(0)
    deviation = lambda values: mean((values - mean(values)) ** 2).sqrt()
    norm = lambda values: (weights * values.norm(dim=1)).sum()
    last = states[-1]
    for k, state in enumerate(states):
        d = state - last
        found = {"mean": mean(d).mean(), "sd": deviation(d).mean(), "absmean": mean(d).abs().mean(), "rel": norm(d) / norm(last)}
        if k > 0:
            gate = gates[k - 1]
            found["step"] = norm(state - states[k - 1]) / norm(states[k - 1])
            found["gate_mean"], found["gate_sd"] = mean(gate).mean(), deviation(gate).mean()
            found["gate_open"] = mean((gate > 0.5).double()).mean()
        if 0 < k < len(states) - 1:
            a, h = states[k - 1] - last, candidates[k - 1] - last
            covariance = mean((a - mean(a)) * (h - mean(h)))
            var_a, var_h = deviation(a) ** 2, deviation(h) ** 2
            ideal = ((var_a - covariance) / (var_a + var_h - 2 * covariance)).clamp(0, 1)
            found["ideal"] = ideal.mean()
            found["correlation"] = torch.corrcoef(torch.stack([ideal, mean(gate)]))[0, 1]
        yield {name: value.item() for name, value in found.items()}


def main():
    checkpoint, text, result = map(Path, sys.argv[1:])
    model, tokenizer = load(checkpoint, torch.float64)
    train = tomllib.loads((checkpoint / "recipe.toml").read_text(encoding="utf-8"))["train"]
    result = json.loads(result.read_text(encoding="utf-8"))
    rows, steps = train["batch_size"], train["bptt_steps"]
    tokens = encode(tokenizer, text.read_bytes().decode("utf-8"))
    length = len(tokens) // rows
    read = length - 1 - (length - 1) % steps
    assert rows * read == result["tokens"], f"{rows * read} tokens are read of {text}, {result['tokens']} in the result"
    recurrent = iter(time_steps(model, tokens, rows, steps)) if model.config["core"]["kind"] == "rhn" else None
    for stage in result["stages"]:
        if stage["weights"] != "trained":
            continue
        if "char CNN" in stage["stage"]:
            counts = Counter(tokens[: rows * length].view(rows, length)[:, :read].flatten().tolist())
            weights = torch.tensor([counts[id] if stage["over"] == "tokens" else 1 for id in counts]).double()
            parts = highway(model, torch.tensor(list(counts)))
        else:
            parts = next(recurrent)
            weights = torch.ones(parts[0].shape[1]).double()
        worst = 0.0
        for layer, wanted in zip(stage["layers"], figures(*parts, weights), strict=True):
            layer = layer | (layer["mixing"] or {})
            for name, value in wanted.items():
                scale = max(abs(value), wanted["absmean"] if name == "mean" else 0.0, 1e-3)
                worst = max(worst, abs(layer[name] - value) / scale)
        print(f"{stage['stage']}: {worst:.1e}")
        assert worst < 1e-4


if __name__ == "__main__":
    with torch.no_grad():
        main()
