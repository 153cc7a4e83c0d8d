"""Kim's Char-Small in PyTorch (Kim et al., 2016), for side-by-side speed measurements.

    python pytorch_char_cnn.py train [--distinct | --word] [--mode eager|compile|bf16|compile-bf16]
    python pytorch_char_cnn.py stream          evaluation of one long stream, batch 1
    python pytorch_char_cnn.py sample          one token after another, batch 1

Letters to words by a CNN and a highway layer, for every token as the authors' code does it, or with --distinct once
for each different word of a window; --word has a table of word vectors instead. Two LSTM layers (nn.LSTM), dropout
between them and before the softmax, loss, backward, global-norm clip, SGD. Evaluation and sampling compute the vectors
of the vocabulary once. Tokens follow Zipf's law, so that a window has as many different ones (360) as in Penn Treebank.
"""
import torch, torch.nn as nn, torch.nn.functional as F
import clock

VOCABULARY, LETTERS, LENGTH = 10_000, 51, 21
WIDTHS, COUNTS = [1, 2, 3, 4, 5, 6], [25, 50, 75, 100, 125, 150]
LAYERS, HIDDEN, BATCH, STEPS, DROPOUT = 2, 300, 20, 35, 0.5
WINDOW, SAMPLED = 256, 16  # time steps of a stream; tokens that are sampled between two looks at the clock


class CharCnn(nn.Module):
    def __init__(self):
        super().__init__()
        size = sum(COUNTS)
        self.letters = nn.Embedding(LETTERS, 15, padding_idx=0)
        self.filters = nn.ModuleList([nn.Conv1d(15, count, width) for width, count in zip(WIDTHS, COUNTS)])
        self.h, self.t = nn.Linear(size, size), nn.Linear(size, size)
        lengths = torch.randint(3, LENGTH + 1, (VOCABULARY, 1))
        spelling = torch.randint(1, LETTERS, (VOCABULARY, LENGTH))
        self.register_buffer("spelling", spelling * (torch.arange(LENGTH) < lengths))

    def forward(self, words):
        """(words) to (words, 525)."""
        letters = self.letters(self.spelling[words]).transpose(1, 2)
        y = torch.cat([torch.tanh(filters(letters).amax(2)) for filters in self.filters], 1)
        t = torch.sigmoid(self.t(y) - 2)
        return t * F.relu(self.h(y)) + (1 - t) * y


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.distinct = a.distinct
        self.words = nn.Embedding(VOCABULARY, HIDDEN) if a.word else CharCnn()
        self.lstm = nn.LSTM(HIDDEN if a.word else sum(COUNTS), HIDDEN, LAYERS, dropout=DROPOUT)
        self.output = nn.Linear(HIDDEN, VOCABULARY)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)

    def embed(self, words):
        flat = words.flatten()
        if self.distinct:
            flat, places = torch.unique(flat, return_inverse=True)
            return self.words(flat)[places].unflatten(0, words.shape)
        return self.words(flat).unflatten(0, words.shape)

    def forward(self, words, targets, state):
        outputs, state = self.lstm(self.embed(words), state)
        logits = self.output(F.dropout(outputs, DROPOUT, self.training).flatten(0, 1))
        return F.cross_entropy(logits.float(), targets.flatten()) * words.shape[0], state


def zero(a, batch, dtype=torch.float32):
    return tuple(torch.zeros(LAYERS, batch, HIDDEN, device=a.device, dtype=dtype) for _ in range(2))


def training(model, a):
    forward = clock.compiled(a, model.forward, dynamic=a.distinct or None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # so small that nothing moves
    likely = (torch.arange(1, VOCABULARY + 1, device=a.device) + 1.5) ** -1.1
    state = zero(a, BATCH)

    def run():
        nonlocal state
        draw = lambda: torch.multinomial(likely, STEPS * BATCH, replacement=True).view(STEPS, BATCH)
        with clock.autocast(a):
            loss, state = forward(draw(), draw(), tuple(part.detach().float() for part in state))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return BATCH * STEPS

    return run


def table(model):
    """The vectors of the whole vocabulary."""
    with torch.inference_mode():
        return model.words(torch.arange(VOCABULARY, device=model.output.weight.device))


def streaming(model, a):
    model.eval()
    vectors = table(model)
    state = zero(a, 1, vectors.dtype)

    @torch.inference_mode()
    def run():
        nonlocal state
        words, targets = torch.randint(0, VOCABULARY, (2, WINDOW, 1), device=a.device)
        outputs, state = model.lstm(vectors[words], state)
        F.cross_entropy(model.output(outputs.flatten(0, 1)).float(), targets.flatten()).item()
        return WINDOW

    return run


def sampling(model, a):
    model.eval()
    vectors = table(model)
    word = torch.zeros(1, 1, dtype=torch.long, device=a.device)
    state = zero(a, 1, vectors.dtype)

    @torch.inference_mode()
    def run():
        nonlocal word, state
        for _ in range(SAMPLED):
            outputs, state = model.lstm(vectors[word], state)
            word = torch.multinomial(model.output(outputs[0]).float().softmax(-1), 1)
        return SAMPLED

    return run


def main():
    p = clock.parser(__doc__)
    embeddings = p.add_mutually_exclusive_group()
    embeddings.add_argument("--distinct", action="store_true", help="the CNN once for each different word of a window")
    embeddings.add_argument("--word", action="store_true", help="a table of word vectors instead of the CNN")
    a = clock.start(p)
    model = Model(a).to(a.device)
    if a.bf16 and a.what != "train":
        model = model.bfloat16()
    run = {"train": training, "stream": streaming, "sample": sampling}[a.what](model, a)
    about = "LSTM 2 × 300, " + ("words" if a.word else "letters of each different word" if a.distinct else "letters")
    clock.measure(a, run, about)


main()
