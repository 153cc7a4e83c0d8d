"""The sentence VAE of `shakespeare-vae` or `ptb-vae` in PyTorch (Bowman et al., 2016), for side-by-side speed measurements.

    python pytorch_vae.py train [--shape shakespeare|ptb] [--corpus FILE] [--mode eager|compile|bf16|compile-bf16]

An LSTM reads a sentence, highway layers make a Gaussian of its last state, further ones the first state of an LSTM that
writes the sentence again and, for Shakespeare, a part of its inputs. Word dropout, KL weight, output dropout, clipping,
Adam. Sentences are the lines of the text in batches of like length, which pads little: nn.LSTM without packing is then
at least as fast on a CPU. Logits are made where a word counts and nowhere else. A rate is in words and ends that are predicted.
"""
import torch, torch.nn as nn, torch.nn.functional as F
import clock, sentences

BATCH, LAYERS, CLIP = 32, 2, 5.0
# Vocabulary, longest sentence, sizes of words, states and z, whether z is an input too, output dropout, words that the
# decoder reads, learning rate, KL weight at first, epochs until it is 1.
SHAPES = {
    "shakespeare": (4000, 20, 96, 128, 16, True, 0.3, 0.6, 2e-3, 0.0, 6),
    "ptb": (10_000, 60, 300, 256, 32, False, 0.5, 0.75, 1e-3, 0.1, 10),
}


class Highway(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.both = nn.Linear(size, 2 * size)  # one product for the candidate and the gate

    def forward(self, y):
        h, t = self.both(y).chunk(2, 1)
        return torch.lerp(y, F.relu(h), torch.sigmoid(t - 2))


def highways(size):
    return nn.Sequential(*(Highway(size) for _ in range(LAYERS)))


class Model(nn.Module):
    def __init__(self, vocabulary, shape):
        super().__init__()
        _, _, embedded, hidden, size, self.is_input, self.dropout, self.keep, *_ = SHAPES[shape]
        self.words = nn.Embedding(vocabulary, embedded)
        self.encoder = nn.LSTM(embedded, hidden)
        self.recognition = nn.Sequential(nn.Linear(hidden, size), highways(size))
        self.gaussian = nn.Linear(size, 2 * size)
        self.entry = highways(size)
        self.state = nn.Linear(size, 2 * hidden)
        self.decoder = nn.LSTM(embedded + size * self.is_input, hidden)
        self.output = nn.Linear(hidden, vocabulary)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, words, lengths, targets, places, kl_weight):
        """`words` is `(time, batch)`; `targets` are those of the `places` that count in `(time + 1, batch)`."""
        time, batch = words.shape
        hidden = torch.rand(time, batch, device=words.device) >= self.keep
        shown = F.pad(words.masked_fill(hidden, 1), (0, 0, 1, 0))  # unknown words; an end comes first
        both = self.words(torch.cat([words, shown]))  # one lookup, so that the table has one gradient
        states, _ = self.encoder(both[:time])
        last = states[lengths - 1, torch.arange(batch, device=words.device)]
        mean, log_variance = self.gaussian(self.recognition(last)).chunk(2, 1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        z = self.entry(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
        inputs = both[time:]
        if self.is_input:
            inputs = torch.cat([inputs, z.to(inputs.dtype).expand(time + 1, -1, -1)], 2)
        first = tuple(part.contiguous() for part in torch.tanh(self.state(z)).unsqueeze(0).chunk(2, 2))
        outputs, _ = self.decoder(inputs, first)
        seen = F.dropout(outputs.flatten(0, 1)[places], self.dropout)
        nats = F.cross_entropy(self.output(seen).float(), targets, reduction="sum")
        return (nats + kl_weight * divergence) / batch


def training(model, a, texts):
    *_, rate, kl_weight, epochs = SHAPES[a.shape]
    forward = clock.compiled(a, model.forward, dynamic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    order = sentences.batches(texts, BATCH)
    seen = sentences.Seen(model)
    growth = (1 - kl_weight) / (epochs * (len(texts) // BATCH))

    def run():
        nonlocal kl_weight
        words, lengths = sentences.padded([texts[number] for number in next(order)], a)
        places = sentences.inside(len(words) + 1, lengths + 1).flatten().nonzero().squeeze(1)
        targets = F.pad(words, (0, 0, 0, 1)).flatten()[places]
        with clock.autocast(a):
            loss = forward(words, lengths, targets, places, kl_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        kl_weight = min(1.0, kl_weight + growth)
        seen.add(loss * BATCH / len(places))
        return len(places)

    return run, seen


def main():
    p = clock.parser(__doc__, ["train"])
    p.add_argument("--shape", choices=SHAPES, default="shakespeare")
    p.add_argument("--corpus", help="the text [default: the repository's Shakespeare]")
    a = clock.start(p)
    size, longest, *_ = SHAPES[a.shape]
    read = sentences.lines(a.corpus)
    numbers = sentences.vocabulary(read, size)
    texts = [sentences.encode(words, numbers) for words in read if len(words) <= longest]
    model = Model(len(numbers), a.shape).to(a.device)
    run, seen = training(model, a, texts)
    clock.measure(a, run, f"sentence VAE, {a.shape}", seen.fields)


main()
