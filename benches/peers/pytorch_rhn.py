"""The recurrent highway language model in PyTorch, for side-by-side speed measurements.

    python pytorch_rhn.py train [--mode eager|compile|bf16|…] [--shape ptb|enwik8] [--device cpu|cuda]
    python pytorch_rhn.py stream          evaluation of one long stream, batch 1
    python pytorch_rhn.py sample          one token after another, batch 1

Random tokens, the same work as the real thing: variational masks (words, input, state, output), input projection for
all steps at once, softmax, loss, backward, global-norm clip, SGD with weight decay. Training in bf16 is by autocast;
otherwise the weights themselves are bf16.
"""
import torch, torch.nn as nn, torch.nn.functional as F
import clock

# The sizes and dropout rates (words, input, state, output) of the recipes ptb-rhn, enwik8-rhn and shakespeare.
SHAPES = {
    "ptb": dict(hidden=830, depth=10, vocab=10_000, batch=20, steps=35, embedding=0, dropout=(0.25, 0.75, 0.25, 0.75)),
    "enwik8": dict(hidden=1500, depth=10, vocab=205, batch=128, steps=50, embedding=205,
                   dropout=(0.1, 0.4, 0.1, 0.4)),
    "shakespeare": dict(hidden=256, depth=4, vocab=65, batch=32, steps=64, embedding=65, dropout=(0.0, 0.0, 0.05, 0.05)),
}
WINDOW = 256  # time steps that a stream is evaluated by
SAMPLED = 16  # tokens that are sampled between two looks at the clock


class Rhn(nn.Module):
    def __init__(self, a):
        super().__init__()
        uniform = lambda *shape: nn.Parameter(torch.empty(*shape).uniform_(-0.04, 0.04))
        hidden, size = a.hidden, a.embedding or a.hidden
        self.embedding = uniform(a.vocab, size)
        self.input = uniform(2 * hidden, size)
        self.recurrent = nn.ParameterList([uniform(2 * hidden, hidden) for _ in range(a.depth)])
        bias = lambda: nn.Parameter(torch.cat([torch.zeros(hidden), torch.full((hidden,), -2.0)]))
        self.bias = nn.ParameterList([bias() for _ in range(a.depth)])
        self.output = uniform(a.vocab, hidden) if a.embedding else None  # tied without
        self.output_bias = nn.Parameter(torch.zeros(a.vocab))

    def project(self, words, mask_w=None, mask_x=None):
        xs = F.embedding(words, self.embedding)
        xs = xs if mask_w is None else xs * mask_w * mask_x
        return F.linear(xs, self.input, self.bias[0])

    def step(self, projected, state, mask_h=None):
        for l, weight in enumerate(self.recurrent):
            z = F.linear(state if mask_h is None else state * mask_h, weight, self.bias[l] if l else None)
            h, t = (z if l else z + projected).chunk(2, 1)
            state = state + (torch.tanh(h) - state) * torch.sigmoid(t)
        return state

    def logits(self, outputs):
        return F.linear(outputs, self.embedding if self.output is None else self.output, self.output_bias)

    def forward(self, words, targets, state, mask_w, mask_x, mask_h, mask_o):
        projected = self.project(words, mask_w, mask_x)
        outputs = []
        for step in range(words.shape[0]):
            state = self.step(projected[step], state, mask_h)
            outputs.append(state)
        logits = self.logits((torch.stack(outputs) * mask_o).flatten(0, 1))
        return F.cross_entropy(logits.float(), targets.flatten()) * words.shape[0], state


def training(model, a):
    forward = clock.compiled(a, model.forward)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, weight_decay=1e-7)  # so small that nothing moves
    state = torch.zeros(a.batch, a.hidden, device=a.device)
    word, into, hidden, out = a.dropout

    def run():
        nonlocal state
        words = torch.randint(0, a.vocab, (a.steps, a.batch), device=a.device)
        targets = torch.randint(0, a.vocab, (a.steps, a.batch), device=a.device)
        by_type = clock.mask(a, word, a.vocab, a.batch).gather(0, words).unsqueeze(2)  # a lane's word, all of it
        masks = [clock.mask(a, rate, a.batch, size)
                 for rate, size in ((into, a.embedding or a.hidden), (hidden, a.hidden), (out, a.hidden))]
        with clock.autocast(a):
            carried = state.detach().float().clone()  # a graph's outputs are overwritten by its next run
            loss, state = forward(words, targets, carried, by_type, *masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return a.batch * a.steps

    return run


def streaming(model, a):
    step = clock.compiled(a, model.step)
    state = torch.zeros(1, a.hidden, device=a.device, dtype=model.embedding.dtype)

    @torch.inference_mode()
    def run():
        nonlocal state
        words, targets = torch.randint(0, a.vocab, (2, WINDOW, 1), device=a.device)
        projected, outputs = model.project(words), []
        for now in range(WINDOW):
            state = clock.kept(a, step(projected[now], state))
            outputs.append(state)
        F.cross_entropy(model.logits(torch.cat(outputs)).float(), targets.flatten()).item()
        return WINDOW

    return run


def sampling(model, a):
    read = clock.compiled(a, lambda word, state: next_token(model, word, state))
    word = torch.zeros(1, 1, dtype=torch.long, device=a.device)
    state = torch.zeros(1, a.hidden, device=a.device, dtype=model.embedding.dtype)

    @torch.inference_mode()
    def run():
        nonlocal state, word
        for _ in range(SAMPLED):
            probabilities, state = read(word, state)
            state = clock.kept(a, state)
            word = torch.multinomial(probabilities, 1)
        return SAMPLED

    return run


def next_token(model, word, state):
    state = model.step(model.project(word)[0], state)
    return model.logits(state).float().softmax(-1), state


def main():
    p = clock.parser(__doc__)
    p.add_argument("--shape", choices=SHAPES, default="ptb")
    for name in ["hidden", "depth", "vocab", "batch", "steps"]:
        p.add_argument(f"--{name}", type=int, help="[default: the shape's]")
    a = clock.start(p)
    for name, value in SHAPES[a.shape].items():
        if getattr(a, name, None) is None:
            setattr(a, name, value)
    model = Rhn(a).to(a.device)
    if a.bf16 and a.what != "train":
        model = model.bfloat16()
    run = {"train": training, "stream": streaming, "sample": sampling}[a.what](model, a)
    clock.measure(a, run, f"RHN {a.depth} × {a.hidden}, {a.vocab:,} types")


main()
