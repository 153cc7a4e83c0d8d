"""Writes the golden arrays beside this file: `python make.py [--only NAME]`; `python make.py --check` compares instead.

Written with Python 3.11, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0. The same versions on the same kind of
machine write the same bytes; others agree to about 1e-14.

Each file is one small model with explicit masks, all in f64. README.md lists what it holds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save

from model import Model, window_loss

HERE = Path(__file__).parent
LANES, STEPS, WINDOWS = 3, 5, 20
LEARNING_RATE, WEIGHT_DECAY = 0.2, 1e-3
BLANK, OPEN, CLOSE = 0, 1, 2  # letters of every alphabet


def rhn(hidden_size, depth, layers=1, **more):
    sizes = {"layers": layers, "hidden_size": hidden_size, "recurrence_depth": depth}
    return {"kind": "rhn", **sizes, "transform_bias": -1.0, **more}


def lstm(hidden_size, layers, **more):
    return {"kind": "lstm", "layers": layers, "hidden_size": hidden_size, **more}


def gru(hidden_size, layers):
    return {"kind": "gru", "layers": layers, "hidden_size": hidden_size}


def hlstm(hidden_size, layers, variant="zhang", **more):
    return {"kind": "hlstm", "layers": layers, "hidden_size": hidden_size, "variant": variant, "depth_bias": -0.5, **more}


def word(**more):
    return {"kind": "word", **more}


def char_cnn(widths, counts, highway_layers, **more):
    sizes = {"char_size": 4, "filter_widths": widths, "filter_counts": counts, "highway_layers": highway_layers}
    return {"kind": "char-cnn", **sizes, "max_word_length": 9, **more}


def char_lstm(highway_layers, **more):
    sizes = {"char_size": 4, "char_hidden": 5, "word_size": 6, "highway_layers": highway_layers}
    return {"kind": "char-lstm", **sizes, "max_word_length": 9, **more}


VARIATIONAL = {"kind": "variational", "word": 0.2, "input": 0.4, "hidden": 0.3, "output": 0.4}
SEPARATE = {**VARIATIONAL, "separate_gate_masks": True}
PAPER = {"kind": "per-step", "input": 0.0, "between": 0.5, "output": 0.5}  # Kim et al.: none on the CNN's output
INPUT_OUTPUT = {"kind": "variational", "input": 0.4, "output": 0.4}
NONE = {"kind": "variational"}
COMPONENTS = {**VARIATIONAL, "components": 0.3}
COMPONENTS_PER_STEP = {**PAPER, "components": 0.3}
WEIGHTS = {"kind": "variational", "recurrent_weights": 0.4}
ALL_AND_WEIGHTS = {**SEPARATE, "recurrent_weights": 0.3}
TIED_MIXTURE = {"kind": "mixture", "tied": True, "components": 3}
MIXTURE = {"kind": "mixture", "tied": False, "components": 2}
DEPTH = {**VARIATIONAL, "depth": 0.3}
DEPTH_PER_STEP = {**PAPER, "depth": 0.3}

# name: embedding, core, output (its settings, or whether it is tied), vocabulary, dropout, the norm to clip at (reached in some of the 20 steps, not in all)
CASES = {
    "rhn-depth-1-tied": (word(), rhn(6, 1), True, 11, VARIATIONAL, 2.1),
    "rhn-depth-3-tied": (word(), rhn(7, 3), True, 13, VARIATIONAL, 2.0),
    "rhn-depth-3-untied-small-vocabulary": (word(), rhn(13, 3), False, 11, VARIATIONAL, 2.2),
    "rhn-2-layers-untied": (word(size=5), rhn(7, 2, layers=2), False, 12, VARIATIONAL, 2.1),
    "rhn-separate-gate-masks": (word(), rhn(7, 2), True, 12, SEPARATE, 2.4),
    "char-cnn-lstm-2-layers": (char_cnn([1, 2, 3], [3, 4, 5], 2), lstm(7, 2), False, 13, PAPER, 1.7),
    "char-cnn-rhn": (char_cnn([1, 3, 4], [2, 4, 3], 1), rhn(7, 2), False, 12, VARIATIONAL, 2.7),
    "char-cnn-projected-rhn": (char_cnn([2, 3], [5, 4], 1, word_size=5), rhn(8, 3), False, 11, INPUT_OUTPUT, 1.9),
    "lstm-tied": (word(), lstm(7, 1), True, 12, NONE, 1.5),
    "lstm-hidden-mask": (word(), lstm(6, 2), False, 13, VARIATIONAL, 1.8),
    "gru-2-layers-tied": (word(), gru(7, 2), True, 12, NONE, 2.9),
    "gru-hidden-mask": (word(), gru(6, 1), False, 13, VARIATIONAL, 2.2),
    "highway-full": (char_cnn([1, 3], [4, 3], 2, highway="full"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-c-only": (char_cnn([1, 3], [4, 3], 2, highway="c-only"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-t-only": (char_cnn([1, 3], [4, 3], 2, highway="t-only"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-residual": (char_cnn([1, 3], [4, 3], 2, highway="residual"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-residual-linear": (char_cnn([1, 3], [4, 3], 2, highway="residual-linear"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-plain": (char_cnn([1, 3], [4, 3], 2, highway="plain"), rhn(6, 1), False, 11, NONE, 2.0),
    "highway-coupled-open": (char_cnn([1, 3], [4, 3], 2, transform_bias=0.5), rhn(6, 1), False, 11, NONE, 1.7),
    "hlstm-2-layers-tied": (word(), hlstm(7, 2), True, 12, VARIATIONAL, 1.8),
    "hlstm-3-layers-depth-mask": (word(size=5), hlstm(6, 3), False, 13, DEPTH, 2.3),
    "hlstm-projected": (word(size=5), hlstm(7, 2, projection=4), False, 12, DEPTH_PER_STEP, 1.8),
    "hlstm-stabilised": (word(size=5), hlstm(6, 2, stabiliser=True), False, 12, DEPTH, 1.8),
    "depth-gated-lstm-stabilised": (word(size=5), hlstm(5, 2, "depth-gated", stabiliser=True), True, 12, NONE, 1.8),
    "depth-gated-lstm": (word(size=5), hlstm(6, 2, "depth-gated"), False, 12, DEPTH, 1.8),
    "kurata-lstm-tied": (word(), hlstm(7, 1, "kurata"), True, 12, NONE, 1.5),
    "kurata-lstm-2-layers": (word(size=5), hlstm(6, 2, "kurata"), False, 13, VARIATIONAL, 1.8),
    "rhn-shared-gate": (word(), rhn(7, 3, layers=2, shared_gates="transform"), True, 12, VARIATIONAL, 2.1),
    "rhn-shared-gates": (word(), rhn(7, 3, layers=2, shared_gates="both"), True, 12, SEPARATE, 2.1),
    "rhn-shared-gates-untied": (word(size=5), rhn(6, 4, shared_gates="both"), False, 13, VARIATIONAL, 1.4),
    "mixture-tied-rhn": (word(size=4), rhn(7, 2), TIED_MIXTURE, 12, COMPONENTS, 1.9),
    "mixture-untied-lstm": (word(size=5), lstm(6, 2), MIXTURE, 13, COMPONENTS_PER_STEP, 1.7),
    "mixture-char-cnn": (char_cnn([1, 2], [3, 4], 1, word_size=4), rhn(6, 1), MIXTURE, 11, NONE, 1.6),
    "weight-drop-rhn": (word(), rhn(6, 2, layers=2), True, 11, ALL_AND_WEIGHTS, 2.1),
    "weight-drop-rhn-shared-gates": (word(), rhn(6, 3, shared_gates="both"), False, 11, WEIGHTS, 1.4),
    "weight-drop-lstm": (word(), lstm(6, 2), True, 11, WEIGHTS, 1.4),
    "weight-drop-gru": (word(), gru(6, 1), False, 11, WEIGHTS, 2.0),
    "weight-drop-hlstm": (word(), hlstm(6, 2), False, 11, WEIGHTS, 1.8),
    "weight-drop-depth-gated-lstm": (word(), hlstm(5, 2, "depth-gated"), False, 11, WEIGHTS, 1.8),
    "weight-drop-kurata-lstm": (word(), hlstm(6, 1, "kurata"), True, 11, WEIGHTS, 1.5),
    "mogrifier-rhn": (word(size=4), rhn(6, 2, layers=2, mogrifier={"rounds": 5, "rank": 3}), False, 11, ALL_AND_WEIGHTS, 2.1),
    "mogrifier-rhn-shared-gates": (word(), rhn(6, 2, shared_gates="both", mogrifier={"rounds": 2}), True, 11, VARIATIONAL, 1.8),
    "mogrifier-lstm": (word(size=5), lstm(6, 2, mogrifier={"rounds": 4}), False, 11, PAPER, 1.8),
    "mogrifier-lstm-rank": (word(), lstm(6, 1, mogrifier={"rounds": 5, "rank": 2}), True, 11, VARIATIONAL, 1.8),
    "char-lstm-rhn": (char_lstm(0), rhn(7, 2), False, 12, VARIATIONAL, 2.8),
    "char-lstm-highway-lstm": (char_lstm(2, highway="full"), lstm(6, 2), False, 11, PAPER, 1.8),
}
HIGHWAY_COLUMNS = {"coupled": 2, "full": 3, "c-only": 2, "t-only": 2}  # those of H and of the gates; others have H alone


# ---- what a case is made of ----


def model_config(embedding, core, output, vocab_size):
    config = {"model_type": "rhn", "vocab_size": vocab_size}
    if embedding["kind"].startswith("char-"):
        config |= {"alphabet_size": 8, "word_length": 9}
    return config | {"embedding": embedding, "core": core, "output": {"tied": output} if isinstance(output, bool) else output}


def embedding_size(config):
    embedding, hidden_size = config["embedding"], config["core"]["hidden_size"]
    if embedding["kind"].startswith("char-"):
        return embedding.get("word_size") or sum(embedding["filter_counts"])
    smaller = hidden_size if config["output"]["tied"] else min(hidden_size, config["vocab_size"])
    return embedding.get("size") or smaller


def shapes(config):
    """Name → shape of every trained tensor."""
    yield from embedding_shapes(config)
    core, hidden, size = config["core"], config["core"]["hidden_size"], embedding_size(config)
    for k in range(core["layers"]):
        if "shared_gates" in core:
            gates = {"transform": 1, "both": 2}[core["shared_gates"]]
            yield f"core.{k}.input.weight", (size, (1 + gates) * hidden)
            yield f"core.{k}.recurrent.weight", (core["recurrence_depth"], hidden, hidden)
            yield f"core.{k}.bias", (core["recurrence_depth"], hidden)
            yield f"core.{k}.shared.weight", (hidden, gates * hidden)
            yield f"core.{k}.shared.bias", (gates * hidden,)
        elif core["kind"] == "rhn":
            yield f"core.{k}.input.weight", (size, 2 * hidden)
            yield f"core.{k}.recurrent.weight", (core["recurrence_depth"], hidden, 2 * hidden)
            yield f"core.{k}.bias", (core["recurrence_depth"], 2 * hidden)
        elif core["kind"] == "hlstm" and core["variant"] != "kurata":
            yield from highway_lstm_shapes(core, k, size)
        else:
            width = {"lstm": 4, "hlstm": 4, "gru": 3}[core["kind"]] * hidden
            for part, rows in [("input", size), ("recurrent", hidden)]:
                yield f"core.{k}.{part}.weight", (rows, width)
                yield f"core.{k}.{part}.bias", (width,)
            if core["kind"] == "hlstm":
                yield f"core.{k}.highway.weight", (hidden, 2 * hidden)
                yield f"core.{k}.highway.bias", (2 * hidden,)
        if "mogrifier" in core:
            yield from mogrifier_shapes(core, k, size)
        size = core.get("projection", hidden)
    if "components" in config["output"]:
        components, vector = config["output"]["components"], embedding_size(config)
        yield "output.components.weight", (size, components * vector)
        yield "output.components.bias", (components * vector,)
        yield "output.mixture.weight", (size, components)
        size = vector
    if not config["output"]["tied"]:
        yield "output.weight", (size, config["vocab_size"])
    yield "output.bias", (config["vocab_size"],)


def mogrifier_shapes(core, k, size):
    """Of a layer that reads `size` numbers."""
    hidden, rank = core["hidden_size"], core["mogrifier"].get("rank")
    for i in range(core["mogrifier"]["rounds"]):
        inputs, outputs = (hidden, size) if i % 2 == 0 else (size, hidden)
        if rank is None:
            yield f"core.{k}.mogrifier.{i}.weight", (inputs, outputs)
        else:
            yield f"core.{k}.mogrifier.{i}.down.weight", (inputs, rank)
            yield f"core.{k}.mogrifier.{i}.up.weight", (rank, outputs)
        yield f"core.{k}.mogrifier.{i}.bias", (outputs,)


def recurrent_weights(config):
    """Name → shape of the matrices that a state is multiplied by."""
    parts = (".recurrent.weight", ".shared.weight", ".highway.weight", ".peephole")
    for name, shape in shapes(config):
        if name.startswith("core.") and name.endswith(parts) and not (name.endswith(".peephole") and len(shape) == 2):
            yield name, shape


def highway_lstm_shapes(core, k, size):
    """Of a layer of Zhang's or Yao's model that reads `size` numbers."""
    hidden, full = core["hidden_size"], core["variant"] == "depth-gated"
    outputs, gates = core.get("projection", hidden), 3 if full else 4
    yield f"core.{k}.input.weight", (size, gates * hidden)
    yield f"core.{k}.recurrent.weight", (outputs, gates * hidden)
    yield f"core.{k}.bias", (gates * hidden,)
    if "stabiliser" in core:
        yield f"core.{k}.stabiliser", (1,)
    yield f"core.{k}.peephole", (2, hidden, hidden) if full else (3, hidden)
    if k > 0 or full:
        yield f"core.{k}.depth.weight", (size, hidden)
        yield f"core.{k}.depth.bias", (hidden,)
        yield f"core.{k}.depth.peephole", (2 if k > 0 else 1, hidden)
    if k == 0 and full:
        yield f"core.{k}.depth.carry.weight", (size, hidden)
    if "projection" in core:
        yield f"core.{k}.projection.weight", (hidden, outputs)


def embedding_shapes(config):
    embedding = config["embedding"]
    if embedding["kind"] == "word":
        yield "embedding.weight", (config["vocab_size"], embedding_size(config))
        return
    yield "embedding.characters", (config["alphabet_size"], embedding["char_size"])
    if embedding["kind"] == "char-lstm":
        hidden, features = embedding["char_hidden"], 2 * embedding["char_hidden"]
        for name in ("forward", "backward"):
            yield f"embedding.{name}.input.weight", (embedding["char_size"], 4 * hidden)
            yield f"embedding.{name}.recurrent.weight", (hidden, 4 * hidden)
            yield f"embedding.{name}.bias", (4 * hidden,)
        yield from highway_shapes(embedding, embedding["word_size"])
    else:
        for i, (width, count) in enumerate(zip(embedding["filter_widths"], embedding["filter_counts"])):
            yield f"embedding.conv.{i}.weight", (width * embedding["char_size"], count)
            yield f"embedding.conv.{i}.bias", (count,)
        features = sum(embedding["filter_counts"])
        yield from highway_shapes(embedding, features)
    if "word_size" in embedding:
        yield "embedding.projection.weight", (features, embedding["word_size"])
        yield "embedding.projection.bias", (embedding["word_size"],)


def highway_shapes(embedding, size):
    for i in range(embedding["highway_layers"]):
        variant = embedding.get("highway", "coupled")
        columns = HIGHWAY_COLUMNS.get(variant, 1) * size
        yield f"embedding.highway.{i}.weight", (size, columns)
        yield f"embedding.highway.{i}.bias", (columns,)
        if variant == "residual-linear":
            yield f"embedding.highway.{i}.linear.weight", (size, size)
            yield f"embedding.highway.{i}.linear.bias", (size,)


def first_parameters(config, rng):
    """Larger than any real initial values: every nonlinearity must matter, and every mistake must show."""
    tensors = {name: rng.uniform(-0.6, 0.6, shape) for name, shape in shapes(config)}
    for name, tensor in tensors.items():
        if name.startswith("core.") and name.endswith(".shared.bias"):
            tensor[: config["core"]["hidden_size"]] += config["core"]["transform_bias"]
            tensor[config["core"]["hidden_size"] :] -= config["core"]["transform_bias"]
        elif config["core"]["kind"] == "rhn" and name.startswith("core.") and name.endswith(".bias") and "mogrifier" not in name:
            tensor[:, config["core"]["hidden_size"] :] += config["core"]["transform_bias"]
    if "embedding.characters" in tensors:
        tensors["embedding.characters"][BLANK] = 0.0
        tensors["embedding.spelling"] = spelling(config, rng)
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}


def spelling(config, rng):
    """Marked words: one of one letter, two of one letter repeated (ties in the maximum), one of full length, others."""
    length, letters = config["word_length"], np.arange(CLOSE + 1, config["alphabet_size"])
    words = [[letters[2]], [letters[0]] * 3, [letters[1]] * (length - 3), list(rng.choice(letters, length - 2))]
    while len(words) < config["vocab_size"]:
        words.append(list(rng.choice(letters, rng.integers(1, length - 2))))
    table = np.full((len(words), length), BLANK, np.int64)
    for row, inside in zip(table, words):
        row[: len(inside) + 2] = [OPEN, *inside, CLOSE]
    return table


def token_stream(config, rng, length):
    """(length, B) of types that can be learned in part: each type is followed by one of two."""
    types = rng.integers(config["vocab_size"], size=LANES)
    rows = [types]
    while len(rows) < length:
        types = (2 * types + rng.integers(2, size=LANES)) % config["vocab_size"]
        rows.append(types)
    return torch.from_numpy(np.stack(rows))


def draw_masks(config, dropout, tokens, rng):
    """Inverted masks by name; `word_type` (V, B) is the table that each window's `word` (T, B) is looked up in.

    A mask that drops nothing, or everything, in the window of `tokens` would test nothing, and is drawn again.
    """

    def draw(rate, *shape, seen=lambda kept: kept):
        while True:
            kept = rng.random(shape) >= rate
            if 0 < seen(kept).mean() < 1:
                return torch.from_numpy(kept / (1 - rate))

    core, hidden = config["core"], config["core"]["hidden_size"]
    outputs = core.get("projection", hidden)
    steps = (STEPS,) if dropout["kind"] == "per-step" else ()
    masks = {}
    if dropout.get("word"):
        seen = lambda kept: kept[tokens.numpy(), np.arange(LANES)]
        masks["word_type"] = draw(dropout["word"], config["vocab_size"], LANES, seen=seen)
    for k in range(config["core"]["layers"]):
        rate = dropout.get("input", 0) if k == 0 else dropout.get("between", dropout.get("input", 0))
        if rate:
            masks[f"input.{k}"] = draw(rate, *steps, LANES, embedding_size(config) if k == 0 else outputs)
        if dropout.get("hidden"):
            masks[f"hidden.{k}"] = draw(dropout["hidden"], LANES, outputs)
            if dropout.get("separate_gate_masks"):
                masks[f"hidden_t.{k}"] = draw(dropout["hidden"], LANES, hidden)
        if dropout.get("depth") and (k > 0 or core["variant"] == "depth-gated"):
            masks[f"depth.{k}"] = draw(dropout["depth"], *steps, LANES, hidden)
    if dropout.get("recurrent_weights"):
        for name, shape in recurrent_weights(config):
            masks[f"weights.{name}"] = draw(dropout["recurrent_weights"], *shape)
    if dropout.get("output"):
        masks["output"] = draw(dropout["output"], *steps, LANES, outputs)
    if dropout.get("components"):
        masks["components"] = draw(dropout["components"], *steps, LANES, config["output"]["components"] * embedding_size(config))
    return masks


def masks_of_window(masks, tokens):
    """The masks as the model takes them: `word` (T, B) for these tokens, shared between equal types of a lane."""
    masks = dict(masks)
    if "word_type" in masks:
        masks["word"] = masks.pop("word_type")[tokens, torch.arange(LANES)]
    return masks


# ---- what is computed from it ----


def check_gru(model, tokens, state, logits, final):
    """Our GRU, one step at a time, is torch.nn.GRU."""
    hidden, layers = model.hidden_size, model.layers
    gru = torch.nn.GRU(embedding_size(model.config), hidden, layers).double()
    with torch.no_grad():
        for k in range(layers):
            for theirs, ours in [("ih", "input"), ("hh", "recurrent")]:
                getattr(gru, f"weight_{theirs}_l{k}").copy_(model[f"core.{k}.{ours}.weight"].T)
                getattr(gru, f"bias_{theirs}_l{k}").copy_(model[f"core.{k}.{ours}.bias"])
        outputs, last = gru(model["embedding.weight"][tokens], torch.stack([part for (part,) in state]))
        weight = model["embedding.weight"].T if model.config["output"]["tied"] else model["output.weight"]
        torch.testing.assert_close(outputs @ weight + model["output.bias"], logits, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(last, torch.stack([part for (part,) in final]), rtol=1e-13, atol=1e-13)


def check_char_lstm(model):
    """Our two LSTMs over characters are a torch.nn.LSTM that reads packed words both ways."""
    sizes, lengths = model.config["embedding"], (model.spelling != BLANK).sum(1)
    lstm = torch.nn.LSTM(sizes["char_size"], sizes["char_hidden"], batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for theirs, ours in [("", "forward"), ("_reverse", "backward")]:
            for side, part in [("ih", "input"), ("hh", "recurrent")]:
                i, o, f, g = model[f"embedding.{ours}.{part}.weight"].T.chunk(4)
                getattr(lstm, f"weight_{side}_l0{theirs}").copy_(torch.cat([i, f, g, o]))
            i, o, f, g = model[f"embedding.{ours}.bias"].chunk(4)
            getattr(lstm, f"bias_ih_l0{theirs}").copy_(torch.cat([i, f, g, o]))
            getattr(lstm, f"bias_hh_l0{theirs}").zero_()
        letters = model["embedding.characters"][model.spelling]
        packed = torch.nn.utils.rnn.pack_padded_sequence(letters, lengths, batch_first=True, enforce_sorted=False)
        last = lstm(packed)[1][0]
        vectors = model.highway(model.project(torch.cat([last[0], last[1]], dim=1)))
        torch.testing.assert_close(vectors, model.word_vectors(), rtol=1e-13, atol=1e-13)


def gradients(model, window, state, masks):
    """Loss of a (T + 1, B) window, gradient of every parameter, logits and state."""
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)
        tensor.grad = None
    tokens, targets = window[:-1], window[1:]
    logits, state = model.forward(tokens, state, masks_of_window(masks, tokens))
    loss = window_loss(logits, targets)
    loss.backward()
    grads = {name: tensor.grad for name, tensor in model.parameters.items()}
    return loss.detach(), grads, logits.detach(), [tuple(part.detach() for part in parts) for parts in state]


def train(model, windows, masks, max_grad_norm):
    """SGD on the summed loss with decay inside the gradient, then clipping; the state goes on, its history does not."""
    state, losses, norms = model.zero_state(LANES), [], []
    for window in windows:
        loss, grads, _, state = gradients(model, window, state, masks)
        with torch.no_grad():
            grads = {name: grad + WEIGHT_DECAY * model[name] for name, grad in grads.items()}
            norm = torch.sqrt(sum((grad**2).sum() for grad in grads.values()))
            scale = min(1.0, max_grad_norm / norm.item())
            for name, grad in grads.items():
                model[name].sub_(LEARNING_RATE * scale * grad)
        losses.append(loss)
        norms.append(norm)
    return torch.stack(losses), torch.stack(norms)


def make(name):
    """All arrays of one case, by name, and its two pieces of metadata."""
    embedding, core, output, vocab_size, dropout, max_grad_norm = CASES[name]
    rng = np.random.default_rng([1607, 3474, list(CASES).index(name)])
    config = model_config(embedding, core, output, vocab_size)
    tensors = first_parameters(config, rng)
    window = token_stream(config, rng, STEPS + 1)
    masks = draw_masks(config, dropout, window[:-1], rng)
    out = {f"param.{key}": tensor.clone() for key, tensor in tensors.items()}

    model = Model(config, tensors)
    state = [tuple(torch.from_numpy(rng.uniform(-0.9, 0.9, part.shape)) for part in parts) for parts in model.zero_state(LANES)]
    loss, grads, logits, final = gradients(model, window, state, masks)
    if core["kind"] == "gru" and not masks:
        check_gru(model, window[:-1], state, logits, final)
    if embedding["kind"] == "char-lstm":
        check_char_lstm(model)
    out |= {"tokens": window[:-1], "targets": window[1:], "loss": loss, "logits": logits}
    out |= {f"mask.{key}": mask for key, mask in masks_of_window(masks, window[:-1]).items()}
    out |= {f"grad.{key}": grad.clone() for key, grad in grads.items()}
    for k in range(core["layers"]):
        out |= {f"state.{k}.{part}": tensor for part, tensor in enumerate(state[k])}
        out |= {f"final.{k}.{part}": tensor for part, tensor in enumerate(final[k])}

    stream = token_stream(config, rng, WINDOWS * STEPS + 1)
    windows = torch.stack([stream[i * STEPS : (i + 1) * STEPS + 1] for i in range(WINDOWS)])
    curve, norms = train(model, windows, masks, max_grad_norm)
    out |= {"curve": curve, "curve.tokens": windows, "curve.grad_norm": norms}
    if "word_type" in masks:
        out["curve.mask.word"] = torch.stack([masks_of_window(masks, window[:-1])["word"] for window in windows])
    out |= {f"after.{key}": tensor.detach() for key, tensor in model.parameters.items()}

    clipped = (norms > max_grad_norm).sum().item()
    assert 3 <= clipped <= WINDOWS - 3, f"{name}: {clipped} of {WINDOWS} steps clipped; norms {norms.numpy().round(2)}"
    settings = {"epochs": 1, "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6, "dropout": dropout}
    settings |= {"optimizer": "sgd", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "max_grad_norm": max_grad_norm}
    return {key: to_numpy(tensor) for key, tensor in out.items()}, {"config": json.dumps(config), "train": json.dumps(settings)}


def to_numpy(tensor):
    array = tensor.detach().numpy()
    return array.astype(np.uint32 if array.dtype == np.int64 else np.float64)


def to_bytes(arrays, metadata):
    """As safetensors writes it, but for the metadata, which it would write in a different order each time."""
    written = save(arrays, metadata)
    size = int.from_bytes(written[:8], "little")
    header = json.loads(written[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + written[8 + size :]


def largest_difference(arrays, path):
    """Relative to each array's largest magnitude; infinite where names, shapes or numbers are missing."""
    stored = load_file(path)
    if stored.keys() != arrays.keys() or any(stored[key].shape != arrays[key].shape for key in stored):
        return np.inf
    worst = [np.abs(stored[key] - 1.0 * arrays[key]).max() / max(np.abs(arrays[key]).max(), 1e-300) for key in stored]
    return np.inf if np.isnan(worst).any() else max(worst)


def main():
    parser = argparse.ArgumentParser(description="Write the golden arrays.")
    parser.add_argument("--only", metavar="NAME", choices=CASES, help="this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-12")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in [args.only] if args.only else CASES:
        arrays, metadata = make(name)
        path = HERE / f"{name}.safetensors"
        if args.check:
            difference = largest_difference(arrays, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-12, f"{path} differs"
            continue
        path.write_bytes(to_bytes(arrays, metadata))
        clipped = int((arrays["curve.grad_norm"] > CASES[name][-1]).sum())
        print(f"{name}: loss {arrays['curve'][0]:.3f} to {arrays['curve'][-1]:.3f}, {clipped} of {WINDOWS} steps clipped, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
