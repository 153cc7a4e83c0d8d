"""What the peers that read sentences share: the text, its words, batches of like length, losses to look at."""
from collections import Counter
from pathlib import Path
import torch
from torch.nn.utils.rnn import pad_sequence

SHAKESPEARE = Path(__file__).resolve().parents[2] / "data/tiny-shakespeare.txt"
END, UNKNOWN = "<eos>", "<unk>"
POOL = 64  # batches whose sentences are sorted by length together, as rhn does it


def lines(path=None):
    """The sentences of a text, lists of words; without a path those of Shakespeare that rhn trains on, the first 90 %."""
    text = Path(path or SHAKESPEARE).read_bytes()
    if path is None:
        text = text[:text.index(b"\n", len(text) * 9 // 10)]
    return [line.split() for line in text.decode().splitlines() if line.split()]


def vocabulary(sentences, size=None, min_count=1):
    """Numbers of words, the most frequent first; the end of a sentence is 0, the unknown word 1."""
    counts = Counter(word for words in sentences for word in words)
    kept = [word for word, count in counts.most_common() if count >= min_count and word != UNKNOWN]
    return {word: number for number, word in enumerate([END, UNKNOWN, *kept][:size])}


def encode(words, numbers):
    return torch.tensor([numbers.get(word, 1) for word in words])


def batches(sentences, rows):
    """Numbers of sentences, a batch after another, without end: shuffled, sorted by length in pools, shuffled again."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    while True:
        order = torch.randperm(len(sentences))[:len(sentences) // rows * rows]
        sorted_pools = [pool[lengths[pool].argsort()] for pool in order.split(POOL * rows)]
        drawn = torch.cat(sorted_pools).view(-1, rows)
        yield from drawn[torch.randperm(len(drawn))].tolist()


def padded(sentences, a):
    """`(time, batch)`, filled up with ends, and the length of each."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    return pad_sequence(sentences).to(a.device), lengths.to(a.device)


def inside(time, lengths):
    """Which places of `(time, batch)` are no padding."""
    return torch.arange(time, device=lengths.device).unsqueeze(1) < lengths


class Seen:
    """The losses of a training, of which the output has the first and the last ones' mean: did it learn?"""

    def __init__(self, model):
        self.losses, self.parameters = [], sum(p.numel() for p in model.parameters() if p.requires_grad)

    def add(self, loss):
        self.losses.append(loss.detach())

    def fields(self):
        mean = lambda losses: torch.stack(losses).mean().item()
        return {"parameters": self.parameters, "first_losses": mean(self.losses[:10]), "last_losses": mean(self.losses[-10:])}
