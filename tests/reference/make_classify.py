"""Writes the golden arrays in classify/: `python make_classify.py`; `--check` compares instead.

Classifiers of sentences: an embedding and a core of `model.py` in each direction, pooling, one logit. Each sentence is read by
itself, as long as it is, so nothing here knows of padding. The backward core is a model of its own, to which the sentence is
given from its end. Attention is that of Yang et al., Hierarchical Attention Networks for Document Classification, NAACL 2016,
without a hierarchy; the loss is `torch.nn.functional.binary_cross_entropy_with_logits`. Each file holds one small classifier
in f64: its weights, a padded batch, the masks, the logits, the loss and every gradient. Written with torch 2.15.0, numpy
2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save

from model import Model, first_maximum, masked

HERE = Path(__file__).parent / "classify"
LENGTHS = [6, 1, 4, 6, 2]
VOCABULARY, ALPHABET, WORD_LENGTH = 9, 6, 5

CHAR_CNN = {"kind": "char-cnn", "char_size": 3, "filter_widths": [1, 2], "filter_counts": [2, 3], "highway_layers": 1}
RHN = {"kind": "rhn", "layers": 1, "hidden_size": 4, "recurrence_depth": 2, "transform_bias": -0.5}

# name: embedding, core, classifier, masks, weight of label 1
CASES = {
    "mean-lstm": ({"kind": "word", "size": 3}, {"kind": "lstm", "layers": 2, "hidden_size": 4}, {"pooling": "mean"}, False, 1.0),
    "max-rhn": ({"kind": "word", "size": 5}, RHN, {"pooling": "max"}, True, 2.5),
    "attention-gru": ({"kind": "word", "size": 3}, {"kind": "gru", "layers": 1, "hidden_size": 5}, {"pooling": "attention", "attention_size": 3}, True, 0.4),
    "attention-char-cnn-forward": (CHAR_CNN, {"kind": "lstm", "layers": 1, "hidden_size": 4}, {"pooling": "attention", "bidirectional": False}, False, 1.0),
}


class Reader(Model):
    """A core that gives its states: there is no output layer."""

    def zero_state(self, rows):
        sizes = [self.hidden_size] * (2 if self.config["core"]["kind"] == "lstm" else 1)
        return [tuple(torch.zeros(rows, size, dtype=torch.float64) for size in sizes) for _ in range(self.layers)]

    def logits(self, y, mask):
        return y

    def states(self, tokens, masks):
        """(T, B) of types to (T, B, H)."""
        self.forward(tokens, self.zero_state(tokens.shape[1]), masks)
        return self.given


def shapes(embedding, core, classifier):
    size, hidden = sum(embedding.get("filter_counts", [])) or embedding["size"], core["hidden_size"]
    if embedding["kind"] == "word":
        found = {"embedding.weight": (VOCABULARY, size)}
    else:
        found = {"embedding.characters": (ALPHABET, embedding["char_size"])}
        for i, (width, count) in enumerate(zip(embedding["filter_widths"], embedding["filter_counts"])):
            found[f"embedding.conv.{i}.weight"] = (width * embedding["char_size"], count)
            found[f"embedding.conv.{i}.bias"] = (count,)
        found |= {"embedding.highway.0.weight": (size, 2 * size), "embedding.highway.0.bias": (2 * size,)}
    directions = ["", "backward."] if classifier.get("bidirectional", True) else [""]
    for direction in directions:
        for k in range(core["layers"]):
            name, entering = f"{direction}core.{k}", size if k == 0 else hidden
            match core["kind"]:
                case "rhn":
                    depth = core["recurrence_depth"]
                    found |= {f"{name}.input.weight": (entering, 2 * hidden), f"{name}.bias": (depth, 2 * hidden)}
                    found |= {f"{name}.recurrent.weight": (depth, hidden, 2 * hidden)}
                case kind:
                    gates = (4 if kind == "lstm" else 3) * hidden
                    found |= {f"{name}.input.weight": (entering, gates), f"{name}.recurrent.weight": (hidden, gates)}
                    found |= {f"{name}.input.bias": (gates,), f"{name}.recurrent.bias": (gates,)}
    pooled = len(directions) * hidden
    if classifier["pooling"] == "attention":
        units = classifier.get("attention_size", hidden)
        found |= {"classifier.attention.weight": (pooled, units), "classifier.attention.bias": (units,)}
        found |= {"classifier.attention.vector": (units, 1)}
    return found | {"classifier.weight": (pooled, 1), "classifier.bias": (1,)}


def draw_masks(embedding, core, rng):
    """By name: of the words, of the input and the state of each direction's only layer, and of the pooled vectors."""
    def drawn(*shape):
        return torch.from_numpy(rng.integers(0, 2, shape) * 2.0)

    rows, size, hidden = len(LENGTHS), embedding["size"], core["hidden_size"]
    found = {"word": drawn(max(LENGTHS), rows), "pooled": drawn(rows, 2 * hidden)}
    for direction in ["forward", "backward"]:
        found |= {f"{direction}.input.0": drawn(rows, size), f"{direction}.hidden.0": drawn(rows, hidden)}
    return found


def pool(weights, classifier, hs):
    """(T, size) to (size)."""
    if classifier["pooling"] == "mean":
        return hs.mean(dim=0)
    if classifier["pooling"] == "max":
        return first_maximum(hs)
    u = torch.tanh(hs @ weights["classifier.attention.weight"] + weights["classifier.attention.bias"])
    return (torch.softmax(u @ weights["classifier.attention.vector"], dim=0) * hs).sum(dim=0)


def logit(weights, config, spelling, masks, row, ids):
    """The logit of one sentence, without any other beside it."""
    def of_row(direction):
        prefix = f"{direction}."
        return {name.removeprefix(prefix): mask[row : row + 1] for name, mask in masks.items() if name.startswith(prefix)}

    word = masks["word"][: len(ids), row : row + 1] if masks else None
    own = weights | ({"embedding.spelling": spelling} if spelling is not None else {})
    backward = own | {name.removeprefix("backward."): w for name, w in weights.items() if name.startswith("backward.")}
    tokens = ids[:, None]
    directions = [("forward", own)] + ([("backward", backward)] if config["classifier"].get("bidirectional", True) else [])
    states = []
    for direction, tensors in directions:
        order = (lambda x: x.flip(0)) if direction == "backward" else (lambda x: x)
        of_words = {} if word is None else {"word": order(word)}
        given = Reader(config, tensors).states(order(tokens), of_row(direction) | of_words)
        states.append(order(given)[:, 0])
    z = pool(weights, config["classifier"], torch.cat(states, dim=1))
    z = masked(z, masks["pooled"][row] if masks else None)
    return z @ weights["classifier.weight"] + weights["classifier.bias"]


def make(name):
    embedding, core, classifier, with_masks, positive_weight = CASES[name]
    rng = np.random.default_rng([1604, 4677, list(CASES).index(name)])
    config = {"model_type": "rhn", "vocab_size": VOCABULARY, "embedding": embedding, "core": core}
    config |= {"output": {"tied": False}, "classifier": classifier}
    weights = {
        key: torch.from_numpy(rng.uniform(-0.8, 0.8, shape))
        for key, shape in shapes(embedding, core, classifier).items()
    }
    if embedding["kind"] == "char-cnn":
        weights["embedding.characters"][0] = 0  # the blank
    weights = {key: tensor.requires_grad_() for key, tensor in weights.items()}
    spelling = None
    if embedding["kind"] == "char-cnn":
        config |= {"alphabet_size": ALPHABET, "word_length": WORD_LENGTH}
        spelling = torch.from_numpy(rng.integers(0, ALPHABET, (VOCABULARY, WORD_LENGTH)))
    tokens = torch.from_numpy(rng.integers(VOCABULARY, size=(max(LENGTHS), len(LENGTHS))))
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    masks = draw_masks(embedding, core, rng) if with_masks else {}
    rows = [logit(weights, config, spelling, masks, row, tokens[:n, row]) for row, n in enumerate(LENGTHS)]
    logits = torch.cat(rows)
    loss = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor([positive_weight], dtype=torch.float64))
    loss.backward()
    arrays = {f"param.{key}": tensor.detach().numpy() for key, tensor in weights.items()}
    if spelling is not None:
        arrays["param.embedding.spelling"] = spelling.numpy().astype(np.uint32)
    arrays |= {f"grad.{key}": tensor.grad.numpy() for key, tensor in weights.items()}
    arrays |= {f"mask.{key}": mask.numpy() for key, mask in masks.items()}
    arrays |= {"tokens": tokens.numpy().astype(np.uint32), "lengths": np.array(LENGTHS, dtype=np.uint32)}
    arrays |= {"labels": labels.numpy(), "logits": logits.detach().numpy(), "loss": np.array([loss.item()])}
    train = {"epochs": 1, "batch_size": len(LENGTHS), "bptt_steps": 1, "optimizer": "sgd", "learning_rate": 1.0}
    train |= {"init_scale": 0.1, "positive_weight": positive_weight}
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
            far = max(np.abs(there[key].astype(float) - array).max() for key, array in arrays.items())
            print(f"{name}: {far:.1e}")
            assert there.keys() == arrays.keys() and far < 1e-12
        else:
            path.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata))


if __name__ == "__main__":
    main()
