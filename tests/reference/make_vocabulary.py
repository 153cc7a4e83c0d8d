"""Writes the golden arrays in vocabulary/: `python make_vocabulary.py [--only NAME]`; `--check` compares instead.

Models for large vocabularies, of PyTorch's own modules wherever it has one, in f64, twenty updates each:

  lstm        torch.nn.LSTM, with proj_size where there is a projection
  adaptive    torch.nn.AdaptiveLogSoftmaxWithLoss
  embedding   adaptive tables: Baevski and Auli, 2019, arXiv 1809.10853; an adaptive softmax can be tied to them
  characters  words whose vectors are computed from their characters, Jozefowicz et al., section 3.2; `model.py` has the network
  optimizer   torch.optim.Adagrad, Adam and AdamW; a weight without a gradient is skipped, and no update of it is counted. With one sum
              a row for tables: as FBGEMM and TorchRec have it, written out here
  sampled     Jean et al., 2015, arXiv 1412.2007; Jozefowicz et al., 2016, arXiv 1602.02410, section 3.1
  nce         Gutmann and Hyvarinen, 2010; as Jozefowicz et al. have it

Samples are given: `curve.samples` holds the words of each step, `curve.draws` how many draws they took. Written with
torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from make import LANES, char_cnn, embedding_shapes, first_parameters, largest_difference, lstm, to_bytes, to_numpy, token_stream
from model import Model

HERE = Path(__file__).parent / "vocabulary"
WINDOWS, STEPS, SAMPLES = 20, 5, 6
RATE, EPSILON = 0.3, 1e-10

ADAGRAD = {"optimizer": "adagrad", "learning_rate": RATE, "epsilon": EPSILON}

# name: embedding, hidden, projection, layers, output, vocabulary, further settings of [train]
CASES = {
    "adaptive": (5, 8, None, 1, {"kind": "adaptive", "cutoffs": [4, 9], "div_value": 2.0}, 20, {}),
    "adaptive-head-bias": (6, 9, 7, 2, {"kind": "adaptive", "cutoffs": [3, 8, 30], "div_value": 1.5, "head_bias": True}, 34, {"clip": {"core": 0.4}}),
    "adaptive-one-cutoff": (5, 6, None, 1, {"kind": "adaptive", "cutoffs": [12]}, 13, {"initial_accumulator": 0.0}),
    "adaptive-input": ({"kind": "adaptive", "size": 6, "cutoffs": [5, 11], "div_value": 2.0}, 8, None, 1, {"kind": "adaptive", "cutoffs": [4, 9], "div_value": 2.0}, 20, {}),
    "adaptive-input-tied": ({"kind": "adaptive", "cutoffs": [4, 9], "div_value": 2.0}, 8, None, 1, {"kind": "adaptive", "tied": True, "cutoffs": [4, 9], "div_value": 2.0, "head_bias": True}, 20, {}),
    "lstm-projected": (5, 8, 4, 2, {"by_word": True}, 13, {"weight_decay": 1e-3, "initial_accumulator": 0.1}),
    "sampled": (6, 8, None, 1, {"by_word": True}, 23, {"loss": {"kind": "sampled", "samples": SAMPLES}}),
    "sampled-tied": (7, 9, 7, 1, {"tied": True}, 21, {"loss": {"kind": "sampled", "samples": SAMPLES}, "clip": {"core": 0.3, "embedding": 0.5}}),
    "nce": (6, 8, None, 1, {"by_word": True}, 23, {"loss": {"kind": "nce", "samples": SAMPLES}}),
    "sampled-by-row": (6, 8, None, 1, {"by_word": True}, 23, {"loss": {"kind": "sampled", "samples": SAMPLES}, "accumulator": "row"}),
    "adaptive-by-row": (5, 8, None, 1, {"kind": "adaptive", "cutoffs": [4, 9], "div_value": 2.0}, 20, {"accumulator": "row", "weight_decay": 1e-2, "initial_accumulator": 0.2}),
    "adaptive-adam": (5, 8, None, 1, {"kind": "adaptive", "cutoffs": [8, 20], "div_value": 2.0}, 22, {"optimizer": "adam", "learning_rate": 0.02, "epsilon": 1e-8}),
    "adaptive-input-adamw": ({"kind": "adaptive", "size": 6, "cutoffs": [9, 19], "div_value": 2.0}, 8, None, 1, {"kind": "adaptive", "cutoffs": [9, 19], "div_value": 2.0}, 22, {"optimizer": "adamw", "learning_rate": 0.02, "epsilon": 1e-8, "weight_decay": 1e-2}),
}

# name: embedding, hidden, output, vocabulary
SPELLED = {
    "char-cnn": (char_cnn([1, 2, 3], [3, 4, 3], 1), 7, {"kind": "char-cnn"}, 12),
    "char-cnn-correction": (char_cnn([1, 3], [3, 4], 2, word_size=5), 6, {"kind": "char-cnn", "correction": 3}, 13),
    "char-cnn-bytes": (char_cnn([1, 3], [3, 4], 2, word_size=5, characters="bytes"), 6, {"by_word": True}, 11),
}

# of a vocabulary, and not of it: more bytes than a word has, no ASCII, nothing
WORDS = ["the", "<eos>", ",", "<unk>", "of", "<S>", "caf\u00e9", "</s>", "unbelievably", "\u6771\u4eac", "{}"]
UNSEEN = ["them", "unbelieved", "na\u00efvet\u00e9s", "\u03bb", "", "<EOS>"]


def bytes_of(word, length):
    """As lm_1b's CharsVocabulary: a byte b is b + 1 here, as 0 is the blank; then bow, eow, bos, eos."""
    marks = {"<S>": [259], "</s>": [260], "<eos>": [260]}
    ids = [257, *marks.get(word, [byte + 1 for byte in word.encode()][: length - 2]), 258]
    return ids + [0] * (length - len(ids))


class Spelled(Model):
    """A model whose words' vectors in the output are those of a second network over the same characters."""

    def zero_state(self, lanes):
        return [tuple(torch.zeros(lanes, self.hidden_size, dtype=torch.float64) for _ in range(2)) for _ in range(self.layers)]

    def logits(self, y, mask):
        if "output.table" in self.parameters:
            return y @ self["output.table"].T + self["output.bias"]
        network = {**self.config, "embedding": {**self.config["embedding"], "word_size": self.hidden_size}}
        own = {name.replace("output.", "embedding.", 1): tensor for name, tensor in self.parameters.items() if name.startswith("output.")}
        own["embedding.projection.bias"] = torch.zeros(self.hidden_size, dtype=torch.float64)  # it would change no softmax
        words = Model(network, {**own, "embedding.spelling": self.spelling}).word_vectors()
        if "output.correction.words" in self.parameters:
            words = words + self["output.correction.words"] @ self["output.correction.weight"]
        return y @ words.T


def make_spelled(name):
    embedding, hidden, output, vocabulary = SPELLED[name]
    rng = np.random.default_rng([1602, 3, list(SPELLED).index(name)])
    config = {"model_type": "rhn", "vocab_size": vocabulary, "alphabet_size": 8, "word_length": 9}
    over_bytes = embedding.get("characters") == "bytes"
    if over_bytes:
        config["alphabet_size"] = 261
    config |= {"embedding": embedding, "core": lstm(hidden, 1), "output": output}
    tensors = first_parameters({**config, "output": {"tied": False}}, rng)
    if over_bytes:
        tensors["embedding.spelling"] = torch.tensor([bytes_of(word, 9) for word in WORDS], dtype=tensors["embedding.spelling"].dtype)
        tensors["output.table"] = tensors.pop("output.weight").T.contiguous()
        return train_spelled(config, tensors, rng, {"words": json.dumps(WORDS), "unseen": json.dumps(UNSEEN)})
    del tensors["output.weight"], tensors["output.bias"]
    for key, shape in embedding_shapes({**config, "embedding": {**embedding, "word_size": hidden}}):
        tensors[key.replace("embedding.", "output.", 1)] = torch.from_numpy(rng.uniform(-0.6, 0.6, shape))
    tensors["output.characters"][0] = 0.0  # the blank
    del tensors["output.projection.bias"]
    if "correction" in output:
        tensors["output.correction.words"] = torch.from_numpy(rng.uniform(-0.6, 0.6, (vocabulary, output["correction"])))
        tensors["output.correction.weight"] = torch.from_numpy(rng.uniform(-0.6, 0.6, (output["correction"], hidden)))
    return train_spelled(config, tensors, rng, {})


def train_spelled(config, tensors, rng, metadata):
    out = {f"param.{key}": tensor.clone() for key, tensor in tensors.items()}
    model = Spelled(config, tensors)
    for tensor in model.parameters.values():
        tensor.requires_grad_(True)

    def loss_of(window, state):
        logits, state = model.forward(window[:-1], state)
        log_p = torch.log_softmax(logits, dim=-1)
        return -log_p.gather(-1, window[1:, :, None])[..., 0].mean(1).sum(), log_p, state

    window = token_stream(config, rng, STEPS + 1)
    state = [tuple(torch.from_numpy(rng.uniform(-0.9, 0.9, part.shape)) for part in parts) for parts in model.zero_state(LANES)]
    loss, log_p, final = loss_of(window, state)
    loss.backward()
    if "unseen" in metadata:
        spelling = torch.tensor([bytes_of(word, 9) for word in UNSEEN])
        out["unseen.vectors"] = Model(config, {**tensors, "embedding.spelling": spelling}).word_vectors().detach()
    out |= {"tokens": window[:-1], "targets": window[1:], "loss": loss, "log_probabilities": log_p}
    out |= {f"grad.{key}": tensor.grad.clone() for key, tensor in model.parameters.items()}
    for part in range(2):
        out |= {f"state.0.{part}": state[0][part], f"final.0.{part}": final[0][part]}

    stream = token_stream(config, rng, WINDOWS * STEPS + 1)
    windows = torch.stack([stream[i * STEPS : (i + 1) * STEPS + 1] for i in range(WINDOWS)])
    optimizer = torch.optim.Adagrad(model.parameters.values(), RATE, eps=EPSILON, initial_accumulator_value=1.0)
    losses, state = [], model.zero_state(LANES)
    for window in windows:
        optimizer.zero_grad()
        loss, _, state = loss_of(window, state)
        state = [tuple(part.detach() for part in parts) for parts in state]
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    out |= {"curve": torch.stack(losses), "curve.tokens": windows}
    out |= {f"after.{key}": tensor for key, tensor in model.parameters.items()}
    settings = {"epochs": 1, "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6} | ADAGRAD
    return {key: to_numpy(tensor.contiguous()) for key, tensor in out.items()}, {"config": json.dumps(config), "train": json.dumps(settings)} | metadata


class AdaptiveEmbedding(torch.nn.Module):
    """A table for each cluster, of smaller vectors the rarer its words; all but the first times a matrix."""

    def __init__(self, size, vocabulary, cutoffs, div_value):
        super().__init__()
        self.edges = [0, *cutoffs, vocabulary]
        widths = [int(size / div_value**i) for i in range(len(self.edges) - 1)]
        sizes = [end - start for start, end in zip(self.edges, self.edges[1:])]
        self.tables = torch.nn.ParameterList([torch.empty(count, width) for count, width in zip(sizes, widths)])
        self.projections = torch.nn.ParameterList([torch.empty(width, size) for width in widths[1:]])

    def forward(self, tokens):
        vectors = [self.tables[0], *(table @ matrix for table, matrix in zip(list(self.tables)[1:], self.projections))]
        return torch.cat(vectors)[tokens]


class TiedAdaptive(torch.nn.Module):
    """An adaptive softmax whose words are the tables of an adaptive embedding."""

    def __init__(self, embedding, size, head_bias):
        super().__init__()
        self.tables = list(embedding.tables)  # not parameters of this module
        self.clusters = torch.nn.Parameter(torch.empty(len(self.tables) - 1, size))
        self.bias = torch.nn.Parameter(torch.empty(embedding.edges[1] + len(self.tables) - 1)) if head_bias else None
        self.projections = torch.nn.ParameterList([torch.empty(table.shape[1], size) for table in self.tables[1:]])

    def log_prob(self, y):
        head = y @ torch.cat([self.tables[0], self.clusters]).T
        head = torch.log_softmax(head if self.bias is None else head + self.bias, dim=-1)
        first, parts = len(self.tables[0]), [head[:, : len(self.tables[0])]]
        for i, (projection, table) in enumerate(zip(self.projections, self.tables[1:])):
            parts.append(head[:, first + i, None] + torch.log_softmax(y @ projection.T @ table.T, dim=-1))
        return torch.cat(parts, dim=1)

    def named(self, of):
        yield "output.head.clusters", of(self.clusters)
        if self.bias is not None:
            yield "output.head.bias", of(self.bias)
        for i, projection in enumerate(self.projections):
            yield f"output.tail.{i}.0.weight", of(projection)


class Network(torch.nn.Module):
    def __init__(self, embedding, hidden, projection, layers, output, vocabulary):
        super().__init__()
        self.output, size = output, projection or hidden
        if isinstance(embedding, dict):
            width = embedding.get("size", size)
            self.embedding = AdaptiveEmbedding(width, vocabulary, embedding["cutoffs"], embedding["div_value"])
        else:
            width = embedding
            self.embedding = torch.nn.Embedding(vocabulary, width)
        self.lstm = torch.nn.LSTM(width, hidden, layers, proj_size=projection or 0)
        if output.get("kind") == "adaptive" and output.get("tied"):
            self.softmax = TiedAdaptive(self.embedding, size, output.get("head_bias", False))
        elif output.get("kind") == "adaptive":
            more = {key: output[key] for key in ("div_value", "head_bias") if key in output}
            self.softmax = torch.nn.AdaptiveLogSoftmaxWithLoss(size, vocabulary, output["cutoffs"], **more)
        else:
            self.softmax = torch.nn.Linear(size, vocabulary)
            if output.get("tied"):
                self.softmax.weight = self.embedding.weight

    def tables(self):
        """The weights of one row a word."""
        if self.output.get("kind") == "adaptive":
            return [self.embedding.weight, self.softmax.head.weight, *(tail[1].weight for tail in self.softmax.tail)]
        return [self.embedding.weight, self.softmax.weight]

    def log_probabilities(self, y):
        if self.output.get("kind") == "adaptive":
            return self.softmax.log_prob(y)
        return torch.log_softmax(self.softmax(y), dim=-1)

    def nats(self, y, targets):
        """-ln p of each target, over the whole vocabulary."""
        if isinstance(self.softmax, torch.nn.AdaptiveLogSoftmaxWithLoss):
            return -self.softmax(y, targets).output
        return -self.log_probabilities(y).gather(1, targets[:, None])[:, 0]

    def sampled(self, y, targets, samples, draws, kind):
        """The loss of each target among the given samples."""
        ids, vocabulary = torch.cat([samples, targets]), self.softmax.out_features
        ids = ids.double()
        p = torch.log((ids + 2) / (ids + 1)) / np.log(vocabulary + 1)  # the log-uniform sampler's
        log_q = torch.log(-torch.expm1(draws * torch.log1p(-p)))
        of_samples, of_targets = log_q.split([len(samples), len(targets)])
        scores = self.softmax(y)
        target = scores.gather(1, targets[:, None])[:, 0] - of_targets
        others = scores[:, samples] - of_samples
        if kind == "nce":
            return -logsigmoid(target) - logsigmoid(-others).sum(1)
        others = others.masked_fill(samples[None, :] == targets[:, None], -torch.inf)
        return torch.logsumexp(torch.cat([target[:, None], others], dim=1), dim=1) - target

    def named(self, of=lambda tensor: tensor):
        """What the Rust program calls its tensors, and how it lays them out; `of` takes a parameter, say to its gradient."""
        if isinstance(self.embedding, AdaptiveEmbedding):
            out = {f"embedding.{i}.weight": of(table) for i, table in enumerate(self.embedding.tables)}
            out |= {f"embedding.{i + 1}.projection": of(matrix) for i, matrix in enumerate(self.embedding.projections)}
        else:
            out = {"embedding.weight": of(self.embedding.weight)}
        for k in range(self.lstm.num_layers):
            get = lambda name: of(getattr(self.lstm, f"{name}_l{k}"))
            gates = lambda tensor: torch.cat([tensor.chunk(4)[i] for i in (0, 3, 1, 2)])  # i, f, g, o to i, o, f, g
            for theirs, ours in [("ih", "input"), ("hh", "recurrent")]:
                out[f"core.{k}.{ours}.weight"] = gates(get(f"weight_{theirs}")).T
                out[f"core.{k}.{ours}.bias"] = gates(get(f"bias_{theirs}"))
            if self.lstm.proj_size:
                out[f"core.{k}.projection.weight"] = get("weight_hr").T
        if isinstance(self.softmax, TiedAdaptive):
            out |= dict(self.softmax.named(of))
        elif self.output.get("kind") == "adaptive":
            out |= {f"output.{name}": of(tensor) for name, tensor in self.softmax.named_parameters()}
        else:
            out["output.bias"] = of(self.softmax.bias)
            if not self.output.get("tied"):
                out["output.table"] = of(self.softmax.weight)
        return {name: tensor for name, tensor in out.items() if tensor is not None}


def loss_of(network, tokens, targets, state, samples=None):
    """The loss as the Rust program has it, the nats of each target, log-probabilities and the state."""
    given, state = network.lstm(network.embedding(tokens), state)
    flat = given.flatten(0, 1)
    nats = network.nats(flat, targets.flatten()) if samples is None else network.sampled(flat, targets.flatten(), *samples)
    return nats.view_as(targets).mean(1).sum(), network.log_probabilities(flat), state


class RowwiseAdagrad:
    """Of a table the sum of each row's mean squared gradient."""

    def __init__(self, tables, eps, initial_accumulator_value, weight_decay):
        self.eps, self.decay = eps, weight_decay
        self.sums = {table: torch.full((len(table), 1), initial_accumulator_value, dtype=torch.float64) for table in tables}

    @torch.no_grad()
    def step(self):
        for table, sums in self.sums.items():
            if table.grad is not None:
                grad = table.grad + self.decay * table
                sums += (grad**2).mean(1, keepdim=True)
                table -= RATE * grad / (sums.sqrt() + self.eps)


def gradient(tensor):
    return tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)


def draw(vocabulary, rng):
    """Different words and how many draws of the log-uniform sampler they took."""
    found, draws = [], 0
    while len(found) < SAMPLES:
        draws += 1
        word = int(np.exp(rng.random() * np.log(vocabulary + 1))) - 1
        if word not in found:
            found.append(word)
    return torch.tensor(found), draws


def clip(network, norms):
    """Each part of the model by itself; unlike `torch.nn.utils.clip_grad_norm_`, to the norm itself."""
    for part, norm in norms.items():
        parameters = {"embedding": network.embedding, "core": network.lstm, "output": network.softmax}[part].parameters()
        gradients = [tensor.grad for tensor in parameters if tensor.grad is not None]
        scale = norm / torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, scale.item()))


def make(name):
    embedding, hidden, projection, layers, output, vocabulary, more = CASES[name]
    rng = np.random.default_rng([1602, 2410, list(CASES).index(name)])
    network = Network(embedding, hidden, projection, layers, output, vocabulary).double()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.from_numpy(rng.uniform(-0.6, 0.6, tensor.shape)))
    out = {f"param.{key}": tensor.detach().clone() for key, tensor in network.named().items()}

    config = {"vocab_size": vocabulary}
    kind = more.get("loss", {}).get("kind")
    samples = [draw(vocabulary, rng) for _ in range(WINDOWS + 1)]
    given = lambda step: (*samples[step], kind) if kind else None
    window = token_stream(config, rng, STEPS + 1)
    window[1, 0] = vocabulary - 1  # the last cluster has a target
    sizes = [projection or hidden, hidden]
    state = tuple(torch.from_numpy(rng.uniform(-0.9, 0.9, (layers, LANES, size))) for size in sizes)
    loss, log_probabilities, final = loss_of(network, window[:-1], window[1:], state, given(WINDOWS))
    loss.backward()
    out |= {"tokens": window[:-1], "targets": window[1:], "loss": loss, "log_probabilities": log_probabilities.view(STEPS, LANES, -1)}
    out |= {f"grad.{key}": tensor.clone() for key, tensor in network.named(gradient).items()}
    for k in range(layers):
        out |= {f"state.{k}.{part}": tensor[k] for part, tensor in enumerate(state)}
        out |= {f"final.{k}.{part}": tensor[k] for part, tensor in enumerate(final)}

    stream = token_stream(config, rng, WINDOWS * STEPS + 1)
    windows = torch.stack([stream[i * STEPS : (i + 1) * STEPS + 1] for i in range(WINDOWS)])
    accumulator = more.get("initial_accumulator", 1.0)
    tables = network.tables() if more.get("accumulator") == "row" else []
    others = [tensor for tensor in network.parameters() if not any(tensor is table for table in tables)]
    settings = {"eps": EPSILON, "initial_accumulator_value": accumulator, "weight_decay": more.get("weight_decay", 0.0)}
    optimizers = [torch.optim.Adagrad(others, RATE, **settings), RowwiseAdagrad(tables, **settings)]
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(more.get("optimizer"))
    if adam:
        optimizers = [adam(others, more["learning_rate"], eps=more["epsilon"], weight_decay=more.get("weight_decay", 0.0))]
    losses, state = [], None
    left_out = []
    for step, window in enumerate(windows):
        network.zero_grad(set_to_none=True)
        loss, _, state = loss_of(network, window[:-1], window[1:], state, given(step))
        state = tuple(tensor.detach() for tensor in state)
        loss.backward()
        for tensor in network.parameters():  # of a cluster without words PyTorch has zeros, or none
            if tensor.grad is not None and not tensor.grad.any():
                tensor.grad = None
        left_out.append(sum(tensor.grad is None for tensor in network.parameters()))
        clip(network, more.get("clip", {}))
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.detach())
    assert not adam or (0 in left_out[2:] and sum(map(bool, left_out)) > 4), f"{name}: {left_out} weights have no gradient"
    out |= {"curve": torch.stack(losses), "curve.tokens": windows}
    out |= {f"after.{key}": tensor for key, tensor in network.named().items()}
    if kind:
        out["curve.samples"] = torch.stack([words for words, _ in samples])
        out["curve.draws"] = torch.tensor([draws for _, draws in samples])

    core = {"kind": "lstm", "layers": layers, "hidden_size": hidden} | ({"projection": projection} if projection else {})
    config |= {"model_type": "rhn", "embedding": embedding if isinstance(embedding, dict) else {"kind": "word", "size": embedding}, "core": core, "output": output}
    settings = {"epochs": 1, "batch_size": LANES, "bptt_steps": STEPS, "init_scale": 0.6} | ADAGRAD | more
    return {key: to_numpy(tensor.contiguous()) for key, tensor in out.items()}, {"config": json.dumps(config), "train": json.dumps(settings)}


def main():
    parser = argparse.ArgumentParser(description="Write the golden arrays of large vocabularies.")
    parser.add_argument("--only", metavar="NAME", choices=[*CASES, *SPELLED], help="this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs by more than 1e-12")
    args = parser.parse_args()
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in [args.only] if args.only else [*CASES, *SPELLED]:
        arrays, metadata = make_spelled(name) if name in SPELLED else make(name)
        path = HERE / f"{name}.safetensors"
        if args.check:
            difference = largest_difference(arrays, path)
            print(f"{name}: {difference:.1e}")
            assert difference < 1e-12, f"{path} differs"
            continue
        path.write_bytes(to_bytes(arrays, metadata))
        print(f"{name}: loss {arrays['curve'][0]:.3f} to {arrays['curve'][-1]:.3f}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
