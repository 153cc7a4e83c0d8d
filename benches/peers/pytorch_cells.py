"""Two stacked recurrent layers on words in PyTorch, for side-by-side speed measurements.

    python pytorch_cells.py train --cell lstm|gru|hlstm [--size 300] [--mode eager|compile|bf16|compile-bf16]

A table of word vectors, the layers, a softmax of its own; dropout between the layers and before the softmax, loss, backward,
global-norm clip, SGD. LSTM and GRU are nn.LSTM and nn.GRU. The highway LSTM (Zhang et al., 2016), which PyTorch lacks, is
written as one would write it for speed: the products with the input of all gates and time steps are one, then a loop over
time. Tokens follow Zipf's law, as in pytorch_char_cnn.py.
"""
import torch, torch.nn as nn, torch.nn.functional as F
import clock

VOCABULARY, LAYERS, BATCH, STEPS, DROPOUT = 10_000, 2, 20, 35, 0.5


class HighwayLayer(nn.Module):
    """i, f, o, g of an LSTM with diagonal peepholes; from the second layer on d lets the lower layer's cell in."""

    def __init__(self, size, has_depth_gate):
        super().__init__()
        self.size, self.has_depth_gate = size, has_depth_gate
        self.input = nn.Linear(size, (5 if has_depth_gate else 4) * size)
        self.recurrent = nn.Linear(size, 4 * size, bias=False)
        self.peepholes = nn.Parameter(torch.empty(5 if has_depth_gate else 3, size))

    def forward(self, xs, below, state):
        h, c = state
        projected = self.input(xs)
        outputs, cells = [], []
        for step, row in enumerate(projected.unbind(0)):
            of_input = row[:, :4 * self.size] + self.recurrent(h)
            i, f, o, g = of_input.chunk(4, 1)
            both = torch.sigmoid(torch.cat([i + self.peepholes[0] * c, f + self.peepholes[1] * c], 1))
            i, f = both.chunk(2, 1)
            new = f * c + i * torch.tanh(g)
            if self.has_depth_gate:
                lower = below[step]
                d = row[:, 4 * self.size:] + self.peepholes[3] * c + self.peepholes[4] * lower
                new = new + torch.sigmoid(d) * lower
            c = new
            h = torch.sigmoid(o + self.peepholes[2] * c) * torch.tanh(c)
            outputs.append(h)
            cells.append(c)
        return torch.stack(outputs), cells, (h, c)


class HighwayLstm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.ModuleList([HighwayLayer(size, layer > 0) for layer in range(LAYERS)])

    def forward(self, xs, state):
        cells, last = None, []
        for number, layer in enumerate(self.layers):
            if number > 0:
                xs = F.dropout(xs, DROPOUT, self.training)
            xs, cells, own = layer(xs, cells, (state[0][number], state[1][number]))
            last.append(own)
        return xs, tuple(torch.stack(part) for part in zip(*last))


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, a.size)
        library = {"lstm": nn.LSTM, "gru": nn.GRU}
        self.core = HighwayLstm(a.size) if a.cell == "hlstm" else library[a.cell](a.size, a.size, LAYERS, dropout=DROPOUT)
        self.output = nn.Linear(a.size, VOCABULARY)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)

    def forward(self, words, targets, state):
        outputs, state = self.core(self.words(words), state)
        logits = self.output(F.dropout(outputs, DROPOUT, self.training).flatten(0, 1))
        return F.cross_entropy(logits.float(), targets.flatten()) * words.shape[0], state


def training(model, a):
    forward = clock.compiled(a, model.forward)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # so small that nothing moves
    likely = (torch.arange(1, VOCABULARY + 1, device=a.device) + 1.5) ** -1.1
    zero = torch.zeros(LAYERS, BATCH, a.size, device=a.device)
    state = zero if a.cell == "gru" else (zero, zero)

    def detached(state):
        return state.detach().float() if a.cell == "gru" else tuple(part.detach().float() for part in state)

    def run():
        nonlocal state
        draw = lambda: torch.multinomial(likely, STEPS * BATCH, replacement=True).view(STEPS, BATCH)
        with clock.autocast(a):
            loss, state = forward(draw(), draw(), detached(state))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return BATCH * STEPS

    return run


def main():
    p = clock.parser(__doc__)
    p.add_argument("--cell", choices=["lstm", "gru", "hlstm"], default="lstm")
    p.add_argument("--size", type=int, default=300)
    a = clock.start(p)
    if a.what != "train":
        p.error("only training is measured")
    model = Model(a).to(a.device)
    names = {"lstm": "LSTM", "gru": "GRU", "hlstm": "highway LSTM"}
    clock.measure(a, training(model, a), f"{names[a.cell]} 2 × {a.size}, words")


main()
