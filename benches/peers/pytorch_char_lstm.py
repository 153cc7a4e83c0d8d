"""Words by two LSTMs over their characters (C2W; Ling et al., 2015) before an LSTM 2 × 300, in PyTorch, for side-by-side
speed measurements.

    python pytorch_char_lstm.py train [--every-token] [--corpus FILE] [--mode eager|compile|bf16|compile-bf16]

The sizes are those of docs/models.md: characters of 25, two LSTMs of 100, vectors of 300. The different words of a window are
read once each, or with --every-token each token by itself. FILE is Penn Treebank's training text; without it words and text
are made up as `rhn bench` makes them up: Zipf's law, spellings of one to three characters. Words are sorted by length and read in
groups of one length (of several, where there are few words): on a CPU at least as fast as all of a window packed. The rest is
that of pytorch_char_cnn.py.
"""
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
import clock, sentences

VOCABULARY, CHAR, CHAR_HIDDEN, WORD = 10_000, 25, 100, 300
LAYERS, HIDDEN, BATCH, STEPS, DROPOUT, RATE, CLIP = 2, 300, 20, 35, 0.5, 1.0, 5.0
LEAST = 16  # words of a group
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-$&#/*:"
LONGEST = 19  # characters of a made-up text's longest word


class CharLstm(nn.Module):
    def __init__(self, a, words):
        super().__init__()
        spelled = [{"<eos>": "+", "<unk>": "|"}.get(word, word) for word in words]
        alphabet = {letter: number for number, letter in enumerate(sorted(set("".join(spelled))), 3)}
        rows = [torch.tensor([1, *(alphabet[letter] for letter in word), 2]) for word in spelled]
        self.register_buffer("spelling", pad_sequence(rows, batch_first=True))
        self.lengths = torch.tensor([len(row) for row in rows])
        self.distinct = not a.every_token
        self.letters = nn.Embedding(len(alphabet) + 3, CHAR)
        self.lstms = nn.ModuleList([nn.LSTM(CHAR, CHAR_HIDDEN) for _ in range(2)])
        for name, parameter in self.lstms.named_parameters():
            if "bias_hh" in name:  # rhn's LSTMs over characters have one bias each
                nn.init.zeros_(parameter.requires_grad_(False))
        self.project = nn.Linear(2 * CHAR_HIDDEN, WORD)

    def last(self, words, lengths):
        """Both LSTMs' last states, for words sorted by their lengths, the longest first."""
        spelling, parts, start = self.spelling[words].t(), [], 0
        for count, length in groups(lengths.tolist()):
            own, of = spelling[:length, start:start + count], lengths[start:start + count].to(words.device)
            steps = torch.arange(length, device=words.device).unsqueeze(1)
            turned = own.gather(0, torch.where(steps < of, of - 1 - steps, steps))
            place = (of - 1, torch.arange(count, device=words.device))
            both = [lstm(self.letters(read))[0][place] for lstm, read in zip(self.lstms, (own, turned))]
            parts.append(torch.cat(both, 1))
            start += count
        return torch.cat(parts)

    def forward(self, words):
        """`(time, batch)` to `(time, batch, 300)`."""
        read, places = words.flatten().unique(return_inverse=True) if self.distinct else (words.flatten(), None)
        lengths, order = self.lengths[read.cpu()].sort(descending=True)
        order = order.to(words.device)
        vectors = self.project(self.last(read[order], lengths))[order.argsort()]
        return (vectors if places is None else vectors[places.flatten()]).unflatten(0, words.shape)


def groups(lengths):
    """How many words each group has, and the longest one's length."""
    found = []
    for length in lengths:
        if found and (found[-1][0] < LEAST or found[-1][2] == length):
            found[-1] = (found[-1][0] + 1, found[-1][1], length)
        else:
            found.append((1, length, length))
    return [(count, longest) for count, longest, _ in found]


class Model(nn.Module):
    def __init__(self, a, words):
        super().__init__()
        self.words = CharLstm(a, words)
        self.lstm = nn.LSTM(WORD, HIDDEN, LAYERS, dropout=DROPOUT)
        self.output = nn.Linear(HIDDEN, len(words))
        for parameter in self.parameters():
            if parameter.requires_grad:
                nn.init.uniform_(parameter, -0.05, 0.05)

    def forward(self, words, targets, state):
        outputs, state = self.lstm(self.words(words), state)
        logits = self.output(F.dropout(outputs, DROPOUT).flatten(0, 1))
        return F.cross_entropy(logits.float(), targets.flatten()) * len(words), state


def corpus(path):
    """The vocabulary and the text in its numbers."""
    if path is not None:
        text = [word for words in sentences.lines(path) for word in (*words, sentences.END)]
        words = sentences.vocabulary([text])
        return list(words), sentences.encode(text, words)

    def spell(number):
        word = ""
        while True:
            number, letter = divmod(number, len(LETTERS))
            word += LETTERS[letter]
            if not number:
                return word

    words = [sentences.END, sentences.UNKNOWN, *(spell(number) for number in range(VOCABULARY - 2))]
    words[-1] = words[-1].ljust(LONGEST, "a")
    likely = (torch.arange(1, VOCABULARY + 1) + 1.5) ** -1.1
    return words, torch.multinomial(likely, 32 * BATCH * STEPS, replacement=True)


def training(model, a, text):
    forward = clock.compiled(a, model.forward, dynamic=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    rows = text[:len(text) // BATCH * BATCH].view(BATCH, -1).t().contiguous().to(a.device)
    state = tuple(torch.zeros(LAYERS, BATCH, HIDDEN, device=a.device) for _ in range(2))
    seen = sentences.Seen(model)
    at = 0

    def run():
        nonlocal state, at
        at = at if at + STEPS < len(rows) else 0
        words, targets = rows[at:at + STEPS], rows[at + 1:at + STEPS + 1]
        at += STEPS
        with clock.autocast(a):
            loss, state = forward(words, targets, tuple(part.detach().float() for part in state))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        seen.add(loss / STEPS)
        return BATCH * STEPS

    return run, seen


def main():
    p = clock.parser(__doc__, ["train"])
    p.add_argument("--every-token", action="store_true", help="the LSTMs for each token, not once for each different word")
    p.add_argument("--corpus", help="the text [default: a made-up one]")
    a = clock.start(p)
    words, text = corpus(a.corpus)
    model = Model(a, words).to(a.device)
    run, seen = training(model, a, text)
    clock.measure(a, run, "char LSTMs, " + ("every token" if a.every_token else "each different word"), seen.fields)


main()
