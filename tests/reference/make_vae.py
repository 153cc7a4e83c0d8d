"""Writes the golden arrays in vae/: `python make_vae.py`; `--check` compares instead.

The sentence VAE of Bowman et al., 2016, arXiv 1511.06349, with highway layers (Srivastava et al., 2015, arXiv 1505.00387)
around its vector, written from the papers: the bound's two parts, its gradient by autograd, and what one sentence after
another gives without padding, so that a mask that lets padding through is found. Each file holds one small model in f64.
Written with torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save

from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from model import Model, nats

HERE = Path(__file__).parent / "vae"
VOCABULARY, WORDS, END, UNKNOWN = 7, 4, 0, 1
LENGTHS = [3, 5, 1, 4]  # words of each sentence

LSTM = {"kind": "lstm", "layers": 2, "hidden_size": 5}
RHN = {"kind": "rhn", "layers": 1, "hidden_size": 5, "recurrence_depth": 2, "transform_bias": -0.5}
GRU = {"kind": "gru", "layers": 1, "hidden_size": 3}

# name: decoder, encoder, latent, KL weight, free bits, which words the decoder does not read (row, step)
CASES = {
    "lstm-init": (LSTM, None, {"size": 3, "highway_layers": 2, "transform_bias": -2.0, "inject": "init"}, 1.0, 0.0, []),
    "rhn-input": (RHN, GRU, {"size": 4, "highway_layers": 1, "transform_bias": -1.0, "inject": "input"}, 0.3, 0.0, [(0, 1), (3, 2)]),
    "gru-both-bidirectional": (
        {**GRU, "layers": 2, "hidden_size": 6},
        RHN,
        {"size": 3, "highway_layers": 1, "transform_bias": -2.0, "inject": "both", "bidirectional": True},
        0.7,
        0.2,
        [(1, 1), (1, 3)],
    ),
    "rhn-no-highway": (RHN, RHN, {"size": 2, "highway_layers": 0, "inject": "both"}, 1.0, 0.0, []),
    "gru-prior": (GRU, GRU, {"size": 3, "highway_layers": 1, "inject": "both", "prior_components": 4}, 0.8, 0.1, [(2, 1)]),
}


def core_shapes(prefix, core, inputs):
    gates = {"lstm": 4, "rhn": 2, "gru": 3}[core["kind"]]
    hidden, shapes = core["hidden_size"], {}
    for k in range(core["layers"]):
        name = f"{prefix}core.{k}"
        shapes[f"{name}.input.weight"] = (inputs if k == 0 else hidden, gates * hidden)
        if core["kind"] == "rhn":
            shapes[f"{name}.recurrent.weight"] = (core["recurrence_depth"], hidden, 2 * hidden)
            shapes[f"{name}.bias"] = (core["recurrence_depth"], 2 * hidden)
        else:
            shapes[f"{name}.recurrent.weight"] = (hidden, gates * hidden)
            shapes[f"{name}.input.bias"] = shapes[f"{name}.recurrent.bias"] = (gates * hidden,)
    return shapes


def affine(name, inputs, outputs):
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def parameters(decoder, encoder, latent, rng):
    size, directions = latent["size"], ["encoder."] + (["encoder.backward."] if latent.get("bidirectional") else [])
    beside = size if latent["inject"] != "init" else 0
    shapes = {"embedding.weight": (VOCABULARY, WORDS)} | core_shapes("", decoder, WORDS + beside)
    for direction in directions:
        shapes |= core_shapes(direction, encoder, WORDS)
    shapes |= affine("latent.input", len(directions) * encoder["hidden_size"], size)
    for k in range(latent["highway_layers"]):
        for side in ("encoder", "decoder"):
            shapes |= affine(f"latent.{side}.highway.{k}", size, 2 * size)
    shapes |= affine("latent.mean", size, size) | affine("latent.log_variance", size, size)
    if components := latent.get("prior_components"):
        shapes |= {"latent.prior.logits": (components,)}
        shapes |= {f"latent.prior.{name}": (components, size) for name in ("mean", "log_variance")}
    if latent["inject"] != "input":
        parts = 2 if decoder["kind"] == "lstm" else 1
        shapes |= affine("latent.state", size, decoder["layers"] * parts * decoder["hidden_size"])
    shapes |= {"output.weight": (decoder["hidden_size"], VOCABULARY), "output.bias": (VOCABULARY,)}
    tensors = {name: torch.from_numpy(rng.uniform(-0.6, 0.6, shape)) for name, shape in shapes.items()}
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def core_of(weights, prefix, core):
    """The core whose weights begin with `prefix`, as a model that `Model.forward` runs on vectors given to it."""
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(f"{prefix}core.")}
    own["output.bias"] = weights["output.bias"]
    own["output.weight"] = torch.zeros(core["hidden_size"], VOCABULARY, dtype=torch.float64)
    return Model({"core": core, "embedding": {"kind": "word"}, "output": {"tied": False}}, own)


def highway(weights, name, layers, shift, y):
    for k in range(layers):
        h, t = (y @ weights[f"{name}.highway.{k}.weight"] + weights[f"{name}.highway.{k}.bias"]).chunk(2, dim=-1)
        t = torch.sigmoid(t + shift)
        y = t * torch.relu(h) + (1 - t) * y
    return y


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def run(model, vectors, state):
    """One sentence's vectors, (T, size), through a core: its outputs, (T, hidden)."""
    model.forward(torch.arange(len(vectors)).unsqueeze(1), state, vectors=vectors)
    return model.given.squeeze(1)


def prior_of(weights, size):
    """The prior and the Gaussian with its mean and variances, by PyTorch's own distributions (Tomczak and Welling, 2018, arXiv 1705.07120)."""
    if "latent.prior.logits" not in weights:
        standard = Independent(Normal(torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)), 1)
        return standard, standard
    mean, log_variance = weights["latent.prior.mean"], weights["latent.prior.log_variance"]
    each = Independent(Normal(mean, torch.exp(log_variance).sqrt()), 1)
    prior = MixtureSameFamily(Categorical(logits=weights["latent.prior.logits"]), each)
    return prior, Independent(Normal(prior.mean, prior.variance.sqrt()), 1)


def sentence(weights, case, words, read, epsilon):
    """-ln p of each word and of the end, the KL of each number, mu, log sigma^2, and ln G(z) - ln p(z) and ln p(z) - ln q(z | x): of one sentence alone."""
    decoder, encoder, latent = case
    layers, shift = latent["highway_layers"], latent.get("transform_bias", -2.0)
    vectors = weights["embedding.weight"][words]
    forward = core_of(weights, "encoder.", encoder)
    last = [run(forward, vectors, forward.zero_state(1))[-1]]
    if latent.get("bidirectional"):
        backward = core_of(weights, "encoder.backward.", encoder)
        last.append(run(backward, vectors.flip(0), backward.zero_state(1))[-1])
    features = highway(weights, "latent.encoder", layers, shift, linear(weights, "latent.input", torch.cat(last)))
    mu, log_variance = linear(weights, "latent.mean", features), linear(weights, "latent.log_variance", features)
    z = mu + torch.exp(0.5 * log_variance) * epsilon
    prior, matched = prior_of(weights, latent["size"])
    posterior = Normal(mu, torch.exp(0.5 * log_variance))
    kl = kl_divergence(posterior, matched.base_dist)
    remainder, ratio = matched.log_prob(z) - prior.log_prob(z), prior.log_prob(z) - posterior.log_prob(z).sum()
    entering = highway(weights, "latent.decoder", layers, shift, z)
    core = core_of(weights, "", decoder)
    state = core.zero_state(1)
    if latent["inject"] != "input":
        parts = iter(torch.tanh(linear(weights, "latent.state", entering)).split(decoder["hidden_size"]))
        state = [tuple(next(parts).unsqueeze(0) for _ in layer) for layer in state]
    vectors = weights["embedding.weight"][read]
    if latent["inject"] != "init":
        vectors = torch.cat([vectors, entering.expand(len(vectors), -1)], dim=1)
    logits = run(core, vectors, state) @ weights["output.weight"] + weights["output.bias"]
    targets = torch.cat([words, torch.tensor([END])])
    return nats(logits, targets), kl, mu, log_variance, (remainder, ratio)


def make(name):
    decoder, encoder, latent, weight, free_bits, hidden = CASES[name]
    rng = np.random.default_rng(sum(name.encode()))
    weights = parameters(decoder, encoder or decoder, latent, rng)
    case = (decoder, encoder or decoder, latent)
    longest, rows = max(LENGTHS) + 1, len(LENGTHS)
    inputs, targets, read = (np.full((longest, rows), END) for _ in range(3))
    epsilon = torch.from_numpy(rng.standard_normal((rows, latent["size"])))
    loss, reconstruction, divergence, means, spreads, drawn = 0, [], [], [], [], []
    for row, length in enumerate(LENGTHS):
        words = torch.from_numpy(rng.integers(1, VOCABULARY, length))
        inputs[1 : length + 1, row] = targets[:length, row] = words.numpy()
        read[:, row] = inputs[:, row]
        for _, step in [place for place in hidden if place[0] == row]:
            read[step, row] = UNKNOWN
        given, kl, mu, log_variance, (remainder, ratio) = sentence(weights, case, words, torch.from_numpy(read[: length + 1, row]), epsilon[row])
        loss = loss + given.sum() + weight * (torch.clamp(kl, min=free_bits).sum() + remainder)
        drawn.append([remainder.item(), ratio.item()])
        reconstruction.append(given.sum().item())
        divergence.append(kl.detach().numpy())
        means.append(mu.detach().numpy())
        spreads.append(log_variance.detach().numpy())
    loss = loss / rows
    loss.backward()
    ids = {"inputs": inputs, "targets": targets, "read": read}
    arrays = {key: array.astype(np.uint32) for key, array in ids.items()}
    arrays |= {"epsilon": epsilon.numpy(), "loss": np.array([loss.item()]), "reconstruction": np.array(reconstruction)}
    arrays |= {"divergence": np.stack(divergence), "mean": np.stack(means), "log_variance": np.stack(spreads)}
    if "prior_components" in latent:
        arrays["remainder"], arrays["log_prior_ratio"] = np.array(drawn).T
    arrays |= {f"param.{key}": tensor.detach().numpy() for key, tensor in weights.items()}
    arrays |= {f"grad.{key}": tensor.grad.numpy() for key, tensor in weights.items()}
    config = {"model_type": "rhn", "vocab_size": VOCABULARY, "embedding": {"kind": "word", "size": WORDS}}
    config |= {"core": decoder, "output": {"tied": False}, "latent": latent} | ({"encoder": encoder} if encoder else {})
    training = {"schedule": {"kind": "constant", "weight": weight}, "free_bits": free_bits}
    train = {"epochs": 1, "batch_size": rows, "bptt_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "init_scale": 0.6}
    train |= {"latent": training}
    metadata = {"config": json.dumps(config), "train": json.dumps(train), "lengths": json.dumps(LENGTHS)}
    return arrays, metadata


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
            far = max(np.abs(there[key].astype(float) - array).max() for key, array in arrays.items())
            print(f"{name}: {far:.1e}")
            assert there.keys() == arrays.keys() and far < 1e-12
        else:
            path.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata))


if __name__ == "__main__":
    main()
