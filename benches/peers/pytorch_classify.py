"""The classifier of sentences of `errors-classify` in PyTorch, for side-by-side speed measurements.

    python pytorch_classify.py train [--packed] [--corpus FILE] [--mode eager|compile|bf16|compile-bf16]

A table of word vectors, an LSTM in each direction, the maximum over their states, dropout, one logit; weighted binary
cross entropy, clipping, AdamW. FILE has the lines `label<TAB>sentence` that `rhn data errors --labels` writes; without it
the lines of Shakespeare have labels by chance. Batches are of sentences of like length, 64 each. The backward LSTM reads
each sentence turned around, so that padding comes last for both: a maximum does not mind the order, and nn.LSTM without
packing is at least as fast on a CPU. --packed has one bidirectional nn.LSTM on packed sentences. A rate is in sentences.
"""
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
import clock, sentences

BATCH, EMBEDDED, HIDDEN, CLIP, RATE, POSITIVE_WEIGHT = 64, 64, 128, 5.0, 2e-3, 1.0
DROPOUT = {"input": 0.2, "output": 0.5}
WARMUP = 100  # steps; the cosine after it hardly moves within a measurement


class Model(nn.Module):
    def __init__(self, vocabulary, packed):
        super().__init__()
        self.words = nn.Embedding(vocabulary, EMBEDDED)
        lstm = lambda **settings: nn.LSTM(EMBEDDED, HIDDEN, **settings)
        self.lstms = nn.ModuleList([lstm(bidirectional=True)] if packed else [lstm(), lstm()])
        self.output = nn.Linear(2 * HIDDEN, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.08, 0.08)

    def states(self, words, lengths):
        """Of both directions, in the order in which each reads."""
        xs = self.words(words)
        drop = lambda xs: xs * F.dropout(xs.new_ones(xs.shape[1:]), DROPOUT["input"])  # one mask for all steps of a sentence
        if len(self.lstms) == 1:
            packed = pack_padded_sequence(drop(xs), lengths.cpu(), enforce_sorted=False)
            return [pad_packed_sequence(self.lstms[0](packed)[0])[0]]
        steps = torch.arange(len(words), device=words.device).unsqueeze(1)
        turned = torch.where(steps < lengths, lengths - 1 - steps, steps)
        backward = xs.gather(0, turned.unsqueeze(2).expand_as(xs))
        return [lstm(drop(xs))[0] for lstm, xs in zip(self.lstms, (xs, backward))]

    def forward(self, words, lengths, labels):
        outside = ~sentences.inside(len(words), lengths).unsqueeze(2)
        pooled = [hs.masked_fill(outside, -torch.inf).max(0).values for hs in self.states(words, lengths)]
        logits = self.output(F.dropout(torch.cat(pooled, 1), DROPOUT["output"])).squeeze(1)
        weight = torch.tensor(POSITIVE_WEIGHT, device=words.device)
        return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weight)


def training(model, a, texts, labels):
    forward = clock.compiled(a, model.forward, dynamic=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    order = sentences.batches(texts, BATCH)
    seen = sentences.Seen(model)

    def run():
        numbers = next(order)
        words, lengths = sentences.padded([texts[number] for number in numbers], a)
        with clock.autocast(a):
            loss = forward(words, lengths, labels[numbers])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        warmup.step()
        seen.add(loss)
        return BATCH

    return run, seen


def corpus(path):
    """Sentences and labels."""
    if path is None:
        read = [words for words in sentences.lines() if len(words) >= 4]
        return read, (torch.rand(len(read)) < 0.4).float()
    rows = [line.split("\t") for line in open(path, encoding="utf-8").read().splitlines()[1:]]
    return [row[1].split() for row in rows], torch.tensor([float(row[0]) for row in rows])


def main():
    p = clock.parser(__doc__, ["train"])
    p.add_argument("--packed", action="store_true")
    p.add_argument("--corpus", help="labelled sentences [default: Shakespeare's lines, labels by chance]")
    a = clock.start(p)
    read, labels = corpus(a.corpus)
    numbers = sentences.vocabulary(read, min_count=2)
    model = Model(len(numbers), a.packed).to(a.device)
    run, seen = training(model, a, [sentences.encode(words, numbers) for words in read], labels.to(a.device))
    clock.measure(a, run, "classifier, LSTM 2 × 128" + (", packed" if a.packed else ""), seen.fields)


main()
