"""Loads a checkpoint directory and computes with it in plain PyTorch, so that the Rust program can be checked.

    python load.py CHECKPOINT --text "the cat"           surprisal of each token, the likeliest next ones
    python load.py CHECKPOINT --stream FILE              nats per token, as `rhn eval --protocol stream` has it

Needs config.json, model.safetensors and tokenizer.json. Works with Python 3.11, torch 2.15, safetensors 0.8 and
tokenizers 0.23; slow, as model.py is written to be read.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model import Model, nats

AT_ONCE = 100  # tokens whose logits are held at a time


def load(directory, dtype):
    """The model, with its weights in `dtype`, and its tokenizer."""
    directory = Path(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tensors = {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor.long()
    return Model(config, tensors), Tokenizer.from_file(str(directory / "tokenizer.json"))


def encode(tokenizer, text):
    """(tokens,) of ids, nothing added."""
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.long)


def logits_in_parts(model, ids):
    """Logits after each token, (part, V) at a time: batch 1, from a zero state, which is carried on."""
    state, vectors = model.zero_state(1), model.word_vectors()
    for part in ids.split(AT_ONCE):
        logits, state = model.forward(part.unsqueeze(1), state, vectors=vectors)
        yield logits.squeeze(1)


def stream(model, ids):
    """Nats of every token but the first, (tokens - 1)."""
    targets = ids[1:].split(AT_ONCE)
    return torch.cat([nats(logits, part) for logits, part in zip(logits_in_parts(model, ids[:-1]), targets)])


def show(tokenizer, ids, logits):
    """Each token with its surprisal, then the likeliest tokens to follow."""
    surprisals = [None, *nats(logits[:-1], ids[1:]).tolist()]  # nothing predicts the first
    for id, surprisal in zip(ids.tolist(), surprisals):
        print(f"{tokenizer.id_to_token(id)!r}\t{id}\t{'context' if surprisal is None else f'{surprisal:.6f} nats'}")
    likeliest = torch.softmax(logits[-1], dim=-1).topk(min(5, logits.shape[-1]))
    for p, id in zip(likeliest.values.tolist(), likeliest.indices.tolist()):
        print(f"next {tokenizer.id_to_token(id)!r}\t{id}\t{p:.6f}")


def arguments():
    parser = argparse.ArgumentParser(description="Compute with a checkpoint in plain PyTorch.")
    parser.add_argument("checkpoint", help="directory with config.json, model.safetensors and tokenizer.json")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="show the surprisal of each token of this text and what may follow")
    what.add_argument("--stream", metavar="FILE", help="nats per token over a UTF-8 text file: batch 1, state carried")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="read no more than the first N tokens")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="precision (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch")
    parser.add_argument("--save", metavar="FILE", help="safetensors file for `tokens` and `logits` (or, with --stream, `nats`)")
    return parser.parse_args()


def read(path):
    """The file's text as it is: a byte order mark and line ends are the tokenizer's affair."""
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


@torch.inference_mode()
def main():
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, tokenizer = load(args.checkpoint, getattr(torch, args.dtype))
    ids = encode(tokenizer, args.text if args.stream is None else read(args.stream))[: args.max_tokens]
    if len(ids) < (1 if args.stream is None else 2):
        raise SystemExit(f"{len(ids)} tokens leave nothing to compute: the first is only context")
    if args.stream is None:
        results = {"logits": torch.cat(list(logits_in_parts(model, ids)))}
        show(tokenizer, ids, results["logits"])
    else:
        results = {"nats": stream(model, ids)}
        mean = results["nats"].double().mean().item()
        summary = {"protocol": "stream", "tokens": len(ids) - 1, "nats_per_token": mean}
        print(json.dumps(summary | {"perplexity": math.exp(mean), "bits_per_token": mean / math.log(2)}))
    if args.save:
        save_file({"tokens": ids, **results}, args.save)


if __name__ == "__main__":
    main()
