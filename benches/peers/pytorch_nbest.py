"""Training on n-best lists as `rescore` does it, in PyTorch, for side-by-side speed measurements.

    python pytorch_nbest.py train [--corpus DIRECTORY] [--mode eager|compile|bf16|compile-bf16]

The word errors that an LSTM of 200 units on words expects of a list (minimum Bayes risk), and a share of the references'
−ln p; 8 lists of 10 hypotheses a step, clipping, Adam. The 88 sentences of a step differ in length, so that they are packed
from the words on: nothing at all is computed for padding. The directory is one of `rhn data lists`; without it lists are made
up of Shakespeare's lines, each hypothesis with one to three words exchanged. A rate is in tokens of the references, as rhn
counts it.
"""
import random
from pathlib import Path
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence
import clock, sentences

VOCABULARY, HIDDEN, LISTS, HYPOTHESES, CLIP, RATE = 10_000, 200, 8, 10, 5.0, 1e-4
WEIGHT, SHARPNESS, CROSS_ENTROPY = 0.5, 1.0, 0.01  # of `[train.lists]`; the acoustic score counts as it is


class Model(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.words = nn.Embedding(vocabulary, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, vocabulary)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)

    def forward(self, inputs, sizes, targets, owners, scores, errors):
        """`inputs`, `targets` and the sentence of each, its `owner`, are packed; `scores` and `errors` `(lists, hypotheses)`."""
        outputs, _ = self.lstm(PackedSequence(self.words(inputs), sizes))
        nats = F.cross_entropy(self.output(outputs.data).float(), targets, reduction="none")
        lp = nats.new_zeros(scores.numel() + len(scores)).index_add(0, owners, -nats)
        hypotheses, references = lp.split([scores.numel(), len(scores)])
        probabilities = torch.softmax(SHARPNESS * (scores + WEIGHT * hypotheses.view_as(scores)), 1)
        return ((probabilities * errors).sum() - CROSS_ENTROPY * references.sum()) / len(scores)


def distance(words, reference):
    """Word errors, as Levenshtein counts them."""
    above = list(range(len(reference) + 1))
    for row, word in enumerate(words, 1):
        left = [row]
        for column, other in enumerate(reference, 1):
            left.append(min(above[column] + 1, left[-1] + 1, above[column - 1] + (word != other)))
        above = left
    return above[-1]


def corpus(directory):
    """Lists: the reference, and a score and the words of each hypothesis. Only full lists are taken."""
    if directory is None:
        draw, lines = random.Random(1), [words for words in sentences.lines() if len(words) >= 4]
        made = []
        for reference in draw.sample(lines, 400):
            hypotheses = []
            for _ in range(HYPOTHESES):
                words = list(reference)
                for place in draw.sample(range(len(words)), draw.randint(1, 3)):
                    words[place] = draw.choice(draw.choice(lines))
                hypotheses.append((draw.gauss(-2, 2), words))
            made.append((reference, hypotheses))
        return made
    read = lambda name: Path(directory, name).read_text(encoding="utf-8").splitlines()
    said = dict(line.split(maxsplit=1) for line in read("train.text"))
    found = {}
    for line in read("train.tsv"):
        utterance, score, text = line.split("\t")
        found.setdefault(utterance, []).append((float(score), text.split()))
    return [(said[utterance].split(), list) for utterance, list in found.items() if len(list) == HYPOTHESES]


def training(model, a, lists, numbers):
    """Every list is brought to numbers before the first step, as rhn does it."""
    end = torch.zeros(1, dtype=torch.long)
    encode = lambda words: torch.cat([sentences.encode(words, numbers), end])
    texts = [[encode(words) for _, words in found] for _, found in lists]
    references = [encode(reference) for reference, _ in lists]
    scores = torch.tensor([[score for score, _ in found] for _, found in lists], device=a.device)
    errors = torch.tensor([[float(distance(words, reference)) for _, words in found] for reference, found in lists],
                          device=a.device)
    forward = clock.compiled(a, model.forward, dynamic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    seen = sentences.Seen(model)
    left = []

    def run():
        nonlocal left
        if len(left) < LISTS:
            left = torch.randperm(len(lists)).tolist()
        drawn, left = left[:LISTS], left[LISTS:]
        said = [references[number] for number in drawn]
        read = [text for number in drawn for text in texts[number]] + said
        order = sorted(range(len(read)), key=lambda number: -len(read[number]))
        pack = lambda each: pack_sequence([each(number) for number in order])
        targets, sizes, *_ = pack(lambda number: read[number])
        inputs = pack(lambda number: F.pad(read[number][:-1], (1, 0))).data
        owners = pack(lambda number: torch.full_like(read[number], number)).data
        with clock.autocast(a):
            loss = forward(inputs.to(a.device), sizes, targets.to(a.device), owners.to(a.device), scores[drawn], errors[drawn])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        seen.add(loss)
        return sum(len(reference) for reference in said)

    return run, seen


def main():
    p = clock.parser(__doc__, ["train"])
    p.add_argument("--corpus", help="a directory with train.tsv and train.text [default: made-up lists]")
    a = clock.start(p)
    numbers = sentences.vocabulary(sentences.lines(), VOCABULARY)
    model = Model(len(numbers)).to(a.device)
    run, seen = training(model, a, corpus(a.corpus), numbers)
    clock.measure(a, run, "n-best lists, LSTM 200", seen.fields)


main()
