"""Writes the golden arrays of lists/: `python make_lists.py [--only NAME]`; `--check` compares instead.

Models that learn from n-best lists, four updates each on the same three lists of different lengths:

  plain      an LSTM, the expected word errors alone
  mixed      an RHN with tied weights and masks, a share of the references' cross entropy
  mixture    a mixture of softmaxes whose vectors have a mask, flatter probabilities

Here every sentence is read by itself, at batch 1 and without padding. Probabilities are torch.softmax over the list. Written
with torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from make import embedding_size, first_parameters, largest_difference, lstm, model_config, rhn, to_bytes, to_numpy, word
from model import Model, nats

HERE = Path(__file__).parent / "lists"
UPDATES, RATE, VOCABULARY = 4, 0.5, 11
END = VOCABULARY - 1
MIXTURE = {"kind": "mixture", "tied": True, "components": 2}

# name: (embedding, core, output), dropout rates by mask, settings
CASES = {
    "plain": ((word(), lstm(5, 2), False), {}, {"weight": 0.2, "cross_entropy": 0.0}),
    "mixed": (
        (word(), rhn(6, 2), True),
        {"input": 0.3, "hidden": 0.2, "output": 0.4},
        {"weight": 0.3, "sharpness": 0.8, "cross_entropy": 0.25},
    ),
    "mixture": ((word(size=4), rhn(6, 1), MIXTURE), {"components": 0.3}, {"sharpness": 0.4, "cross_entropy": 0.01}),
}


def draw_lists(rng):
    """Token ids with the line end at each end, what totals have beside the model's score, and word errors."""
    sentence = lambda: [*map(int, rng.integers(0, END, rng.integers(3, 6))), END]
    lists = []
    for count in (3, 1, 4):
        lists.append({
            "hypotheses": [sentence() for _ in range(count)],
            "fixed": [round(float(number), 3) for number in rng.normal(-3, 0.3, count)],
            "errors": [float(number) for number in rng.permutation(5)[:count]],
            "reference": sentence(),
        })
    return lists


def draw_masks(config, rates, sentences, rng):
    core = config["core"]
    sizes = {"output": core["hidden_size"], "components": 2 * embedding_size(config)}
    for k in range(core["layers"]):
        sizes[f"input.{k}"] = embedding_size(config) if k == 0 else core["hidden_size"]
        sizes[f"hidden.{k}"] = core["hidden_size"]
    rate_of = lambda name: rates.get(name.split(".")[0])
    return {
        name: torch.from_numpy((rng.random((sentences, size)) >= rate_of(name)) / (1 - rate_of(name)))
        for name, size in sizes.items()
        if rate_of(name)
    }


def score(model, ids, masks, number):
    """ln p of a sentence, read after a line end from the zero state."""
    tokens = torch.tensor([END, *ids]).unsqueeze(1)
    own = {name: mask[number : number + 1] for name, mask in masks.items()}
    logits, _ = model.forward(tokens[:-1], model.zero_state(1), own)
    return -nats(logits, tokens[1:]).sum()


def loss_of(model, lists, masks, settings):
    """The objective, and the references' −ln p."""
    sharpness, weight = settings.get("sharpness", 1.0), settings.get("weight", 0.5)
    number, expected = 0, []
    for each in lists:
        lp = []
        for ids in each["hypotheses"]:
            lp.append(score(model, ids, masks, number))
            number += 1
        totals = torch.tensor(each["fixed"], dtype=torch.float64) + weight * torch.stack(lp)
        errors = torch.tensor(each["errors"], dtype=torch.float64)
        expected.append((torch.softmax(sharpness * totals, 0) * errors).sum())
    references = torch.stack([-score(model, each["reference"], masks, number + i) for i, each in enumerate(lists)])
    return torch.stack(expected).mean() + settings["cross_entropy"] * references.mean(), references.sum()


def make(name):
    own, rates, settings = CASES[name]
    rng = np.random.default_rng([1607, 1963, 17, list(CASES).index(name)])
    config = model_config(*own, VOCABULARY)
    tensors = {key: 2.5 * tensor for key, tensor in first_parameters(config, rng).items()}
    lists = draw_lists(rng)
    sentences = sum(len(each["hypotheses"]) + 1 for each in lists)
    masks = draw_masks(config, rates, sentences, rng)
    model = Model(config, {key: tensor.clone() for key, tensor in tensors.items()})
    names = list(model.parameters)
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)
    found, first = [], None
    for _ in range(UPDATES):
        objective, references = loss_of(model, lists, masks, settings)
        gradients = torch.autograd.grad(objective, list(model.parameters.values()))
        first = first or dict(zip(names, gradients))
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        with torch.no_grad():
            for key, gradient in zip(names, gradients):
                model[key].sub_(RATE * gradient)
        found.append([objective.item(), references.item(), norm.item()])
    out = {f"param.{key}": tensor for key, tensor in tensors.items()}
    out |= {f"after.{key}": tensor for key, tensor in model.parameters.items()}
    out |= {f"grad.{key}": tensor for key, tensor in first.items()}
    out |= {f"mask.{key}": mask for key, mask in masks.items()}
    curves = zip(["curve.objective", "curve", "curve.grad_norm"], np.ascontiguousarray(np.array(found).T))
    train = {"epochs": 1, "batch_size": len(lists), "bptt_steps": 1, "init_scale": 0.6, "optimizer": "sgd", "learning_rate": RATE, "lists": settings}
    return {key: to_numpy(tensor) for key, tensor in out.items()} | dict(curves), {
        "config": json.dumps(config),
        "train": json.dumps(train),
        "lists": json.dumps(lists),
    }


def main():
    parser = argparse.ArgumentParser(description="Write the golden arrays of n-best lists.")
    parser.add_argument("--only", metavar="NAME", choices=CASES, help="this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-11")
    args = parser.parse_args()
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in [args.only] if args.only else CASES:
        found, settings = make(name)
        path = HERE / f"{name}.safetensors"
        if args.check:
            difference = largest_difference(found, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-11, f"{path} differs"
            continue
        path.write_bytes(to_bytes(found, settings))
        print(f"{name}: {[round(float(number), 3) for number in found['curve.objective']]}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
