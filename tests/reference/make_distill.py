"""Writes the golden arrays of distill/: `python make_distill.py [--only NAME]`; `--check` compares instead.

Students that learn from teachers (Hinton et al., 2015, arXiv 1503.02531), twelve updates each:

  whole          one teacher, all words
  temperature    the same with temperature 2.5: the divergence is of the softened distributions, times its square
  top-k          the 4 most probable words and all others as one class
  two-teachers   the mean of the probabilities, one counting thrice
  monte-carlo    the mean over two passes with masks of their own, each with its own state
  mixture        a student that is a mixture of softmaxes, the 3 most probable words

and gates.safetensors: Adam with weight decay on the transform gates of an RHN alone, held to the model as it was by a
divergence (Yu et al., 2013). There every tensor is put together from what is trained and what is not, so that PyTorch's
optimizer never sees the latter.

Teachers read the student's windows from states of their own, without masks unless said. The divergence is
torch.nn.functional.kl_div of log-probabilities, summed over the words and averaged over tokens. The loss is the mean over
tokens here; the Rust program's is T times that. Written with torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from make import LANES, draw_masks, first_parameters, gru, largest_difference, lstm, model_config, rhn, to_bytes, to_numpy, token_stream, word
from model import Model, nats

HERE = Path(__file__).parent / "distill"
WINDOWS, STEPS = 12, 5  # updates, and T
RATE, DECAY = 0.2, 5e-3  # of the Rust program's loss

LOCKED = {"kind": "variational", "input": 0.3, "hidden": 0.2, "output": 0.4}
NONE = {"kind": "variational"}
MIXTURE = {"kind": "mixture", "tied": True, "components": 2}

# name: (embedding, core, output) of the student, those of each teacher, vocabulary, the student's dropout, settings
CASES = {
    "whole": ((word(), rhn(6, 2), True), [(word(), lstm(7, 1), True)], 11, LOCKED, {"alpha": 0.8}),
    "temperature": ((word(), lstm(6, 1), False), [(word(size=5), rhn(7, 2), False)], 11, LOCKED, {"alpha": 0.5, "temperature": 2.5}),
    "top-k": ((word(), gru(6, 1), True), [(word(), gru(7, 2), True)], 13, LOCKED, {"alpha": 0.8, "temperature": 1.5, "top_k": 4}),
    "two-teachers": (
        (word(), rhn(6, 1), False),
        [(word(), lstm(5, 2), True), (word(size=4), gru(6, 1), False)],
        11,
        NONE,
        {"alpha": 1.0, "temperature": 2.0, "weights": [1.0, 3.0]},
    ),
    "monte-carlo": ((word(), lstm(6, 1), True), [(word(), rhn(7, 2), True)], 11, LOCKED, {"alpha": 0.7, "teacher_mc": 2}),
    "mixture": ((word(size=4), rhn(6, 1), MIXTURE), [(word(), lstm(6, 1), True)], 11, LOCKED, {"alpha": 0.8, "top_k": 3}),
}


def log_mean(log_q, weights):
    """ln of the mean of probabilities, given as their ln along dimension 0."""
    weights = torch.tensor(weights, dtype=torch.float64)
    weights = (weights / weights.sum()).log().reshape(-1, *[1] * (log_q.dim() - 1))
    return torch.logsumexp(log_q + weights, dim=0)


class Teachers:
    """What reads the student's windows, with states of its own and nothing recorded."""

    def __init__(self, models, masks, settings):
        """`masks`: for each model, those of each pass."""
        self.settings = settings
        self.models = [(model, of_pass) for model, passes in zip(models, masks) for of_pass in passes]
        self.weights = [weight for weight, passes in zip(settings.get("weights", [1] * len(models)), masks) for _ in passes]
        self.states = [model.zero_state(LANES) for model, _ in self.models]

    @torch.no_grad()
    def read(self, tokens):
        """ln q as it is and at the temperature, (T, B, V) both."""
        logits = []
        for i, (model, masks) in enumerate(self.models):
            given, self.states[i] = model.forward(tokens, self.states[i], masks)
            logits.append(given)
        logits = torch.stack(logits)
        return [log_mean(torch.log_softmax(logits / by, -1), self.weights) for by in (1.0, self.settings.get("temperature", 1.0))]


def divergence(logits, log_q, settings):
    """KL of each token, (T, B)."""
    log_p = torch.log_softmax(logits / settings.get("temperature", 1.0), -1)
    if "top_k" in settings:
        ids = log_q.topk(settings["top_k"], dim=-1).indices
        others = torch.ones_like(log_q).scatter(-1, ids, 0.0)

        def classes(log):
            return torch.cat([log.gather(-1, ids), (log.exp() * others).sum(-1, keepdim=True).log()], -1)

        log_p, log_q = classes(log_p), classes(log_q)
    return torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="none").sum(-1)


def taught(logits, targets, distributions, settings):
    """The cross entropy, what is minimized, and the teacher's own cross entropy: means over tokens."""
    plain, log_q = distributions
    alpha, temperature = settings["alpha"], settings.get("temperature", 1.0)
    cross_entropy = nats(logits, targets).mean()
    soft = temperature**2 * divergence(logits, log_q, settings).mean()
    return cross_entropy, (1 - alpha) * cross_entropy + alpha * soft, nats(plain, targets).mean()


def train(student, teachers, windows, masks, settings, max_grad_norm):
    state, found, names = student.zero_state(LANES), [], list(student.parameters)
    for window in windows:
        tokens, targets = window[:-1], window[1:]
        logits, state = student.forward(tokens, state, masks)
        state = [tuple(part.detach() for part in parts) for parts in state]
        cross_entropy, loss, theirs = taught(logits, targets, teachers.read(tokens), settings)
        gradients = dict(zip(names, torch.autograd.grad(loss, list(student.parameters.values()))))
        with torch.no_grad():
            gradients = {name: gradients[name] + DECAY / STEPS * student[name] for name in names}
            norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
            for name in names:
                student[name].sub_(RATE * STEPS * min(1.0, max_grad_norm / norm.item()) * gradients[name])
        found.append([cross_entropy.item(), STEPS * loss.item(), STEPS * norm.item(), theirs.item()])
    return np.array(found).T


def require_gradients(tensors, config):
    model = Model(config, {name: tensor.clone() for name, tensor in tensors.items()})
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)
    return model


def passes_of(config, settings, stream, rng):
    count = settings.get("teacher_mc", 0)
    return [draw_masks(config, LOCKED, stream[:-1], rng) for _ in range(count)] or [{}]


def windows_of(stream):
    return torch.stack([stream[i * STEPS : (i + 1) * STEPS + 1] for i in range(WINDOWS)])


CURVES = ["curve", "curve.objective", "curve.grad_norm", "curve.teacher"]


def make(name):
    own, theirs, vocab_size, dropout, settings = CASES[name]
    rng = np.random.default_rng([1503, 2531, list(CASES).index(name)])
    config = model_config(*own, vocab_size)
    tensors = first_parameters(config, rng)
    teacher_configs = [model_config(*teacher, vocab_size) for teacher in theirs]
    teacher_tensors = [{key: 2.5 * tensor for key, tensor in first_parameters(one, rng).items()} for one in teacher_configs]
    stream = token_stream(config, rng, WINDOWS * STEPS + 1)
    masks = draw_masks(config, dropout, stream[:-1], rng)
    teacher_masks = [passes_of(one, settings, stream, rng) for one in teacher_configs]
    models = [Model(one, tensors) for one, tensors in zip(teacher_configs, teacher_tensors)]
    for norm in np.arange(0.2, 20.0, 0.1).round(1):  # the first that some steps are clipped at and some are not
        student = require_gradients(tensors, config)
        curve = train(student, Teachers(models, teacher_masks, settings), windows_of(stream), masks, settings, norm / STEPS)
        if 3 <= (curve[2] > norm).sum() <= WINDOWS - 3:
            break
    else:
        raise AssertionError(f"{name}: no norm to clip at")
    out = {f"param.{key}": tensor for key, tensor in tensors.items()}
    out |= {f"after.{key}": tensor for key, tensor in student.parameters.items()}
    out |= {f"mask.{key}": mask for key, mask in masks.items()}
    for i, (tensors, passes) in enumerate(zip(teacher_tensors, teacher_masks)):
        out |= {f"teacher.{i}.param.{key}": tensor for key, tensor in tensors.items()}
        out |= {f"teacher.{i}.mask.{key}": torch.cat([one[key] for one in passes]) for key in passes[0]}
    out |= {"stream": stream}
    return arrays(out, curve), metadata(config, teacher_configs, dropout, settings, {"optimizer": "sgd", "learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": float(norm)})


def arrays(out, curve):
    return {key: to_numpy(tensor) for key, tensor in out.items()} | dict(zip(CURVES, np.ascontiguousarray(curve)))


def metadata(config, teachers, dropout, settings, more):
    loss = {"kind": "distill", "teacher": [f"teacher-{i}" for i in range(len(teachers))]} | settings
    train = {"epochs": 1, "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6, "dropout": dropout, "loss": loss} | more
    return {"config": json.dumps(config), "train": json.dumps(train), "teachers": json.dumps(teachers)}


# ---- gates alone ----


def make_gates():
    rng = np.random.default_rng([1607, 1963, 0])
    config, hidden = model_config(word(), rhn(6, 2), True, 11), 6
    settings = {"alpha": 0.5}
    tensors = first_parameters(config, rng)
    stream = token_stream(config, rng, WINDOWS * STEPS + 1)
    # Every weight of the core is put together from H's columns, which stay, and T's, which are trained.
    gates = {key: tensor[..., hidden:].clone().requires_grad_(True) for key, tensor in tensors.items() if key.startswith("core.")}

    def whole():
        return {key: torch.cat([tensor[..., :hidden], gates[key]], -1) if key in gates else tensor for key, tensor in tensors.items()}

    start = Teachers([Model(config, tensors)], [[{}]], settings)
    adam = torch.optim.Adam(gates.values(), lr=0.02, weight_decay=0.01)
    state, found = start.models[0][0].zero_state(LANES), []
    for window in windows_of(stream):
        tokens, targets = window[:-1], window[1:]
        logits, state = Model(config, whole()).forward(tokens, state)
        state = [tuple(part.detach() for part in parts) for parts in state]
        cross_entropy, loss, theirs = taught(logits, targets, start.read(tokens), settings)
        adam.zero_grad()
        (STEPS * loss).backward()
        norm = torch.sqrt(sum(((gate.grad + 0.01 * gate) ** 2).sum() for gate in gates.values()))
        adam.step()
        found.append([cross_entropy.item(), STEPS * loss.item(), norm.item(), theirs.item()])
    out = {f"param.{key}": tensor for key, tensor in tensors.items()}
    out |= {f"teacher.0.param.{key}": tensor for key, tensor in tensors.items()}
    out |= {f"after.{key}": tensor.detach() for key, tensor in whole().items()}
    out |= {f"moments.{key}": torch.stack([adam.state[gate]["exp_avg"], adam.state[gate]["exp_avg_sq"]]) for key, gate in gates.items()}
    more = {"optimizer": "adam", "learning_rate": 0.02, "weight_decay": 0.01, "update": "gates"}
    return arrays(out | {"stream": stream}, np.array(found).T), metadata(config, [config], NONE, settings, more)


def main():
    names = [*CASES, "gates"]
    parser = argparse.ArgumentParser(description="Write the golden arrays of students.")
    parser.add_argument("--only", metavar="NAME", choices=names, help="this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-11")
    args = parser.parse_args()
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in [args.only] if args.only else names:
        found, settings = make_gates() if name == "gates" else make(name)
        path = HERE / f"{name}.safetensors"
        if args.check:
            difference = largest_difference(found, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-11, f"{path} differs"
            continue
        path.write_bytes(to_bytes(found, settings))
        curves = {curve: [round(float(found[curve][i]), 3) for i in (0, -1)] for curve in CURVES}
        print(f"{name}: {curves}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
