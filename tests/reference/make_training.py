"""Writes the golden arrays in training/: `python make_training.py [--only NAME]`; `--check` compares instead.

What a recipe can add to training, written from the papers and in their units, twenty updates each:

  activation    AR and TAR: Merity et al., 2017, arXiv 1708.01009
  window        windows of other lengths than the usual one, with the rate times T' / T: Merity et al., 2017, arXiv
                1708.02182, section 4.1
  embedding     dropout of rows of the table, which the output does not see: the same, section 4.3
  fraternal     two passes: Zolna et al., 2018, arXiv 1711.00066; its relatives `eld` and `pi`
  state_reset   windows that begin with the zero state

and averaging.safetensors: the mean of the weights over the steps, by `torch.optim.ASGD` from the trigger of NT-ASGD on and
by `torch.optim.swa_utils.AveragedModel`.

The loss is the mean over tokens here, as in the papers; the Rust program's is T times that, so its rate is this one's
divided by T, its norm to clip at and its weight decay are these times T. Written with torch 2.15.0, numpy 2.4.6,
safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from make import LANES, char_cnn, draw_masks, first_parameters, gru, largest_difference, lstm, model_config, rhn, to_bytes, to_numpy, token_stream, word
from model import Model, nats

HERE = Path(__file__).parent / "training"
WINDOWS, STEPS = 20, 7  # updates, and T
RATE, DECAY = 0.15, 7e-3  # of the Rust program's loss

LOCKED = {"kind": "variational", "input": 0.3, "hidden": 0.2, "output": 0.4}
ROWS = {"kind": "variational", "embedding": 0.3, "input": 0.2}
BOTH = {**LOCKED, "word": 0.2, "embedding": 0.3}
AR = {"activation": {"ar": 2.0, "tar": 1.0}}
VARIABLE = {"window": "variable"}


def fraternal(variant, kappa=0.15):
    return {"fraternal": {"kappa": kappa, "variant": variant}}


# name: embedding, core, tied, vocabulary, dropout, further settings of [train]
CASES = {
    "activation": (word(), rhn(7, 2), True, 12, LOCKED, AR),
    "variable-windows": (word(size=5), lstm(6, 1), False, 11, LOCKED, VARIABLE),
    "embedding-dropout": (word(), rhn(7, 2), True, 12, ROWS, {}),
    "embedding-dropout-characters": (char_cnn([1, 3], [4, 3], 1), lstm(6, 1), False, 11, ROWS, {}),
    "fraternal": (word(), gru(7, 1), True, 12, LOCKED, fraternal("fraternal", 1.5)),
    "expectation-linear": (word(size=5), lstm(6, 1), False, 12, LOCKED, fraternal("eld", 0.25)),
    "pi": (word(), rhn(7, 1), True, 11, LOCKED, fraternal("pi")),
    "everything": (word(), lstm(7, 2), True, 13, BOTH, AR | VARIABLE | fraternal("fraternal") | {"state_reset": 0.3}),
}


def row_mask(config, dropout, rng):
    """(V): what each row of the table is multiplied by."""
    rate = dropout.get("embedding", 0)
    while rate:
        kept = rng.random(config["vocab_size"]) >= rate
        if 0.2 < kept.mean() < 0.9:
            return torch.from_numpy(kept / (1 - rate))
    return torch.ones(config["vocab_size"], dtype=torch.float64)


def forward(model, tokens, state, masks, rows):
    """Logits, the last layer's outputs before and after output dropout, and the state after the window."""
    masks = dict(masks)
    if "word_type" in masks:
        masks["word"] = masks.pop("word_type")[tokens, torch.arange(LANES)]
    logits, state = model.forward(tokens, state, masks, vectors=model.word_vectors() * rows[:, None])
    given = model.given
    return logits, given, given * masks.get("output", 1.0), state


def losses(model, window, state, masks, settings):
    """The mean cross-entropy of the first pass, what is minimized, and the state that is carried."""
    tokens, targets = window[:-1], window[1:]
    logits, given, seen, after = forward(model, tokens, state, *masks[0])
    cross_entropy = nats(logits, targets).mean()
    loss = cross_entropy
    two = settings.get("fraternal")
    if two:
        nothing = ({}, torch.ones_like(masks[0][1]))
        other, _, _, _ = forward(model, tokens, state, *(nothing if two["variant"] == "eld" else masks[1]))
        if two["variant"] == "fraternal":
            loss = (loss + nats(other, targets).mean()) / 2
        loss = loss + two["kappa"] * (logits - other).pow(2).mean()
    penalties = settings.get("activation", {})
    loss = loss + penalties.get("ar", 0) * seen.pow(2).mean()
    loss = loss + penalties.get("tar", 0) * (given[1:] - given[:-1]).pow(2).mean()
    return cross_entropy, loss, [tuple(part.detach() for part in parts) for parts in after]


def train(model, stream, lengths, resets, masks, settings, max_grad_norm):
    """Twenty updates in the papers' units: mean losses, the rate times T' / T."""
    state, start, found = model.zero_state(LANES), 0, []
    names = list(model.parameters)
    for steps, reset in zip(lengths, resets):
        window = stream[start : start + steps + 1]
        start += steps
        if reset:
            state = model.zero_state(LANES)
        cross_entropy, loss, state = losses(model, window, state, masks, settings)
        gradients = dict(zip(names, torch.autograd.grad(loss, list(model.parameters.values()), allow_unused=True)))
        with torch.no_grad():
            gradients = {name: gradients[name] + DECAY / STEPS * model[name] for name in names}
            norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
            scale = min(1.0, max_grad_norm / norm.item())
            for name in names:
                model[name].sub_(RATE * STEPS * (steps / STEPS) * scale * gradients[name])
        found.append([cross_entropy.item(), STEPS * loss.item(), STEPS * norm.item()])
    return np.array(found).T


def require_gradients(tensors, config):
    model = Model(config, {name: tensor.clone() for name, tensor in tensors.items()})
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)
    return model


def make(name):
    embedding, core, tied, vocab_size, dropout, more = CASES[name]
    rng = np.random.default_rng([1708, 2182, list(CASES).index(name)])
    config = model_config(embedding, core, tied, vocab_size)
    tensors = first_parameters(config, rng)
    is_variable = more.get("window") == "variable"
    lengths = rng.integers(2, 18, WINDOWS) if is_variable else np.full(WINDOWS, STEPS)
    resets = (rng.random(WINDOWS) < more.get("state_reset", 0)).astype(np.uint32)
    stream = token_stream(config, rng, int(lengths.sum()) + 1)
    masks = [(draw_masks(config, dropout, stream[:-1], rng), row_mask(config, dropout, rng)) for _ in range(2)]
    for norm in np.arange(0.5, 12.0, 0.25):  # the first that some steps are clipped at and some are not
        model = require_gradients(tensors, config)
        curve = train(model, stream, lengths, resets, masks, more, norm / STEPS)
        if 4 <= (curve[2] > norm).sum() <= WINDOWS - 4:
            break
    else:
        raise AssertionError(f"{name}: no norm to clip at")
    out = {f"param.{key}": tensor for key, tensor in tensors.items()}
    out |= {f"after.{key}": tensor for key, tensor in model.parameters.items()}
    out |= {"stream": stream}
    has_second = more.get("fraternal", {"variant": "eld"})["variant"] != "eld"
    for pass_name, (drawn, rows) in zip(["mask", "second"], masks if has_second else masks[:1]):
        drawn = dict(drawn)
        by_row = drawn.pop("word_type", torch.ones(vocab_size, LANES, dtype=torch.float64))
        out |= {f"{pass_name}.{key}": mask for key, mask in drawn.items()}
        if "word" in dropout or "embedding" in dropout:
            out[f"{pass_name}.word"] = (by_row * rows[:, None])[stream[:-1], torch.arange(LANES)]
    arrays = {key: to_numpy(tensor) for key, tensor in out.items()}
    arrays |= {"lengths": lengths.astype(np.uint32), "resets": resets}
    arrays |= zip(["curve", "curve.objective", "curve.grad_norm"], np.ascontiguousarray(curve))
    settings = {"epochs": 1, "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6, "dropout": dropout, "optimizer": "sgd"}
    settings |= {"learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": float(norm)} | more
    return arrays, {"config": json.dumps(config), "train": json.dumps(settings)}


# ---- the mean of the weights ----

EPOCH = 6  # updates
NON_MONOTONE = 2
VALIDATION = [5.0, 4.2, 4.0, 4.1, 3.9, 4.05, 3.95, 3.97, 4.3]  # made up: 4.05 is above the least of all but the last 2


def triggers(losses):
    """After which epoch, counted from 1, the reference begins to average."""
    before = []
    for epoch, loss in enumerate(losses, 1):
        if len(before) > NON_MONOTONE and loss > min(before[:-NON_MONOTONE]):
            return epoch
        before.append(loss)


def descend(model, windows, optimizers, after_step=lambda: None):
    """One update a window from a zero state; `optimizers(step)` gives the one that makes it."""
    for step, window in enumerate(windows):
        logits, _ = model.forward(window[:-1], model.zero_state(LANES))
        optimizer = optimizers(step)
        optimizer.zero_grad()
        (STEPS * nats(logits, window[1:]).mean()).backward()
        optimizer.step()
        after_step()


class Weights(torch.nn.Module):
    """The weights as a module, which `AveragedModel` wants."""

    def __init__(self, model):
        super().__init__()
        self.list = torch.nn.ParameterList(model.parameters.values())


def make_averaging():
    rng = np.random.default_rng([1708, 2182, 1000])
    config = model_config(word(), lstm(5, 1), True, 11)
    tensors = first_parameters(config, rng)
    count = EPOCH * len(VALIDATION)
    stream = token_stream(config, rng, count * STEPS + 1)
    windows = torch.stack([stream[i * STEPS : (i + 1) * STEPS + 1] for i in range(count)])
    begins = EPOCH * triggers(VALIDATION)
    out = {f"param.{key}": tensor for key, tensor in tensors.items()} | {"curve.tokens": windows}

    for key, t0 in [("mean", -1), ("mean_t0_0", 0)]:
        model = require_gradients(tensors, config)
        weights = list(model.parameters.values())
        sgd = torch.optim.SGD(weights, lr=RATE)
        asgd = torch.optim.ASGD(weights, lr=RATE, lambd=0.0, t0=t0)
        descend(model, windows, lambda step: sgd if step < begins else asgd)
        out |= {f"{key}.{name}": asgd.state[tensor]["ax"] for name, tensor in model.parameters.items()}
    out |= {f"after.{name}": tensor for name, tensor in model.parameters.items()}

    def warm(mean, weight, count):  # the mean of all steps until the exponential one weighs a step more
        return mean + (weight - mean) * max(1 / (int(count) + 1), 1 - 0.9)

    for key, how in [("ema_half", {"multi_avg_fn": get_ema_multi_avg_fn(0.5)}), ("ema", {"avg_fn": warm})]:
        model = require_gradients(tensors, config)
        sgd = torch.optim.SGD(list(model.parameters.values()), lr=RATE)
        average = AveragedModel(Weights(model), **how)
        descend(model, windows, lambda step: sgd, lambda: average.update_parameters(Weights(model)))
        out |= {f"{key}.{name}": tensor for name, tensor in zip(model.parameters, average.module.list)}
    arrays = {key: to_numpy(tensor) for key, tensor in out.items()}
    arrays |= {"losses": np.array(VALIDATION), "begins": np.array([begins], dtype=np.uint32)}
    settings = {"epochs": len(VALIDATION), "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6, "optimizer": "sgd", "learning_rate": RATE}
    return arrays, {"config": json.dumps(config), "train": json.dumps(settings)}


def main():
    names = [*CASES, "averaging"]
    parser = argparse.ArgumentParser(description="Write the golden arrays of what training can have added.")
    parser.add_argument("--only", metavar="NAME", choices=names, help="this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-11")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # torch.optim.ASGD keeps the share of a step in the default type
    HERE.mkdir(exist_ok=True)
    for name in [args.only] if args.only else names:
        arrays, metadata = make_averaging() if name == "averaging" else make(name)
        path = HERE / f"{name}.safetensors"
        if args.check:
            difference = largest_difference(arrays, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-11, f"{path} differs"
            continue
        path.write_bytes(to_bytes(arrays, metadata))
        curve = arrays.get("curve", arrays.get("losses"))
        print(f"{name}: {curve[0]:.3f} to {curve[-1]:.3f}, {path.stat().st_size} bytes, {metadata['train']}")


if __name__ == "__main__":
    main()
