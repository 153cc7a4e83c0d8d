"""The models in plain PyTorch, one time step at a time: the yardstick that the Rust program is held against.

Written from the papers' equations and the tensors' names alone, and for reading, not for speed:
no fused operation, no cleverness, every gradient by autograd.

  RHN        Zilly et al., Recurrent Highway Networks, ICML 2017, arXiv 1607.03474
  GRU        Cho et al., 2014, arXiv 1406.1078, as torch.nn.GRU has it: `make.py` holds it to that module
  char CNN   Kim et al., Character-Aware Neural Language Models, AAAI 2016, arXiv 1508.06615
  char LSTM  Ling et al., Finding Function in Form, EMNLP 2015, arXiv 1508.02096: `make.py` holds it to torch.nn.LSTM
  variants   Greff et al., Highway and Residual Networks learn Unrolled Iterative Estimation, ICLR 2017, arXiv 1612.07771
  HLSTM      Zhang et al., 2016, arXiv 1510.08983; the depth-gated LSTM of Yao et al., 2015, arXiv 1508.03790, as its
             authors' code has it; the LSTM with a highway layer inside of Kurata et al., 2017, arXiv 1709.06436
  Mogrifier  Melis et al., Mogrifier LSTM, ICLR 2020, arXiv 1909.01792
  mixture    Yang et al., Breaking the Softmax Bottleneck, ICLR 2018, arXiv 1711.03953
  masks      Gal and Ghahramani, NIPS 2016, arXiv 1512.05287 (variational); Zaremba et al., arXiv 1409.2329 (per step)

Sizes: T steps, B batch rows, V word types, D values of a word vector, H units, L sublayers, A letters, F filters.
Every weight is stored [in, out]; README.md has the table of tensors.
"""

import torch

TRANSFORM_BIAS = -2.0  # of highway layers unless configured: added to the gate at run time, not stored


def masked(x, mask):
    """`x` times an (already inverted) dropout mask; no mask leaves it alone."""
    return x if mask is None else x * mask


class Model:
    """A language model: `config` as in config.json, `tensors` as in model.safetensors."""

    def __init__(self, config, tensors):
        self.config = config
        self.spelling = tensors.get("embedding.spelling")  # (V, word length), not trained
        self.parameters = {name: t for name, t in tensors.items() if name != "embedding.spelling"}
        self.layers = config["core"].get("layers", 1)
        self.hidden_size = config["core"]["hidden_size"]
        self.output_size = config["core"].get("projection", self.hidden_size)

        self.weight_masks = {}  # of the window that is read

    def __getitem__(self, name):
        return self.parameters[name]

    def dropped(self, name):
        """A recurrent weight with the mask that the window has for it, the same at all steps and for all lanes."""
        return masked(self[name], self.weight_masks.get(name))

    # ---- embedding ----

    def word_vectors(self):
        """(V, D): the vector of every type."""
        if self.config["embedding"]["kind"] == "word":
            return self["embedding.weight"]
        if self.config["embedding"]["kind"] == "char-lstm":
            ends = [self.last_of_characters(name, reads) for name, reads in [("forward", False), ("backward", True)]]
            return self.highway(self.project(torch.cat(ends, dim=1)))
        return self.project(self.highway(self.convolve()))

    def last_of_characters(self, name, from_the_end):
        """(V, U): the last state of an LSTM over each word's letters, one word after another, from the zero state."""
        weights = [self[f"embedding.{name}.{part}"] for part in ("input.weight", "recurrent.weight", "bias")]
        last = []
        for word in self.spelling:
            letters = word[word != 0]
            h = c = torch.zeros_like(weights[1][:, 0])
            for letter in letters.flip(0) if from_the_end else letters:
                z = self["embedding.characters"][letter] @ weights[0] + h @ weights[1] + weights[2]
                i, o, f, g = z.split(len(h))
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            last.append(h)
        return torch.stack(last)

    def convolve(self):
        """(V, F): for each filter of width w, the maximum over positions of tanh(letters @ W + b)."""
        cnn = self.config["embedding"]
        characters = self["embedding.characters"]
        blank = torch.zeros_like(characters[:1])  # letter 0 is held at zero and gets no gradient
        letters = torch.cat([blank, characters[1:]])[self.spelling]  # (V, word length, char_size)
        features = []
        for i, width in enumerate(cnn["filter_widths"]):
            weight, bias = self[f"embedding.conv.{i}.weight"], self[f"embedding.conv.{i}.bias"]
            positions = []
            for start in range(letters.shape[1] - width + 1):
                window = letters[:, start : start + width].flatten(1)  # offset-major: offset · char_size + c
                positions.append(torch.tanh(window @ weight + bias))
            features.append(first_maximum(torch.stack(positions)))
        return torch.cat(features, dim=1)

    def highway(self, y):
        """The highway layers, one after the other; each y, h, t, c is (V, F)."""
        cnn = self.config["embedding"]
        variant, shift = cnn.get("highway", "coupled"), cnn.get("transform_bias", TRANSFORM_BIAS)
        for i in range(cnn["highway_layers"]):
            z = y @ self[f"embedding.highway.{i}.weight"] + self[f"embedding.highway.{i}.bias"]
            h, *gates = z.split(y.shape[1], dim=1)
            h = torch.relu(h)
            match variant:
                case "coupled":
                    t = torch.sigmoid(gates[0] + shift)
                    y = h * t + y * (1 - t)
                case "full":
                    y = h * torch.sigmoid(gates[0] + shift) + y * torch.sigmoid(gates[1] - shift)
                case "c-only":
                    y = h + y * torch.sigmoid(gates[0] - shift)
                case "t-only":
                    y = h * torch.sigmoid(gates[0] + shift) + y
                case "residual":
                    y = h + y
                case "residual-linear":
                    second = self[f"embedding.highway.{i}.linear.weight"], self[f"embedding.highway.{i}.linear.bias"]
                    y = y + h @ second[0] + second[1]
                case "plain":
                    y = h
        return y

    def project(self, y):
        if self.config["embedding"].get("word_size") is None:
            return y
        return y @ self["embedding.projection.weight"] + self["embedding.projection.bias"]

    # ---- core ----

    def zero_state(self, lanes):
        """One tuple a layer: (s,) for an RHN, (h,) for a GRU, (h, c) for an LSTM; each (B, H), but h (B, P) if projected."""
        sizes = [self.output_size, self.hidden_size] if self.config["core"]["kind"] in ("lstm", "hlstm") else [self.hidden_size]
        like = self["output.bias"]
        return [tuple(torch.zeros(lanes, size, dtype=like.dtype) for size in sizes) for _ in range(self.layers)]

    def gates(self, columns):
        """The columns of H and of each gate that `columns` has, in order."""
        return list(columns.split(self.hidden_size, dim=-1))

    def mogrify(self, k, x, h):
        """Input and state of layer `k` after their rounds: each is scaled by a gate that sees the other."""
        for i in range(self.config["core"]["mogrifier"]["rounds"]):
            seen, name = (h if i % 2 == 0 else x), f"core.{k}.mogrifier.{i}"
            if "rank" in self.config["core"]["mogrifier"]:
                z = seen @ self[f"{name}.down.weight"] @ self[f"{name}.up.weight"]
            else:
                z = seen @ self[f"{name}.weight"]
            gate = 2 * torch.sigmoid(z + self[f"{name}.bias"])
            x, h = (gate * x, h) if i % 2 == 0 else (x, gate * h)
        return x, h

    def rhn_step(self, k, x, seen, state, mask_h, mask_t):
        """One time step of layer `k`: L highway sublayers, the carry tied to 1 - t, or with both gates shared its own.

        The products of the first sublayer see the state as `seen`, which gates with the input may have scaled. The masks
        act inside the products alone; the carry sees the state as it is.
        """
        (s,) = state
        shared = self.config["core"].get("shared_gates", "none")
        for l in range(self.config["core"]["recurrence_depth"]):
            weights = self.gates(self.dropped(f"core.{k}.recurrent.weight")[l])
            biases = self.gates(self[f"core.{k}.bias"][l])
            if shared != "none":  # H has weights of this sublayer, the gates have those of all
                weights += self.gates(self.dropped(f"core.{k}.shared.weight"))
                biases += self.gates(self[f"core.{k}.shared.bias"])
            masks = [mask_h] + [mask_t] * (len(weights) - 1)
            operand = seen if l == 0 else s
            z = [masked(operand, mask) @ weight + bias for mask, weight, bias in zip(masks, weights, biases)]
            if l == 0:
                inputs = self.gates(self[f"core.{k}.input.weight"])
                z = [gate + x @ weight for gate, weight in zip(z, inputs)]
            h, t = torch.tanh(z[0]), torch.sigmoid(z[1])
            s = h * t + s * torch.sigmoid(z[2]) if shared == "both" else s + t * (h - s)
        return s, (s,)

    def lstm_step(self, k, x, state, mask_h):
        """One time step of layer `k`: gates i, o, f, g, two bias vectors, nothing added to the forget gate."""
        h, c = state
        gates = x @ self[f"core.{k}.input.weight"] + self[f"core.{k}.input.bias"]
        gates = gates + masked(h, mask_h) @ self.dropped(f"core.{k}.recurrent.weight") + self[f"core.{k}.recurrent.bias"]
        i, o, f, g = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)

    def hlstm_step(self, k, x, below, state, mask_h, mask_d):
        """One time step of layer `k` of Zhang's model; `below` is the lower layer's new cell.

        i = sigm(x W_xi + h W_hi + w_ci * c + b_i)        f likewise        g = tanh(x W_xc + h W_hc + b_c)
        d = sigm(x W_xd + w_cd * c + w_ld * below + b_d)                    k > 0 alone
        c = d * below + f * c + i * g                     o = sigm(x W_xo + h W_ho + w_co * c + b_o), the new c
        h = (o * tanh c) W_proj
        """
        h, c = state
        z = x @ self[f"core.{k}.input.weight"] + masked(h, mask_h) @ self.dropped(f"core.{k}.recurrent.weight")
        z_i, z_o, z_f, z_g = (z + self[f"core.{k}.bias"]).chunk(4, dim=-1)
        w_ci, w_cf, w_co = self[f"core.{k}.peephole"]
        i, f, g = torch.sigmoid(z_i + w_ci * c), torch.sigmoid(z_f + w_cf * c), torch.tanh(z_g)
        new = f * c + i * g
        if k > 0:
            w_cd, w_ld = self[f"core.{k}.depth.peephole"]
            z_d = x @ self[f"core.{k}.depth.weight"] + self[f"core.{k}.depth.bias"]
            new = new + masked(torch.sigmoid(z_d + w_cd * c + w_ld * below), mask_d) * below
        h = torch.sigmoid(z_o + w_co * new) * torch.tanh(new)
        if "projection" in self.config["core"]:
            h = h @ self[f"core.{k}.projection.weight"]
        return h, (h, new)

    def depth_gated_step(self, k, x, below, state, mask_h, mask_d):
        """One time step of layer `k` of Yao's model, whose first layer carries a product of its input.

        i = sigm(x W_xi + h W_hi + c W_ci + b_i)      f = 1 - i      g = tanh(x W_xc + h W_hc + b_c)
        d = sigm(x W_xd + w_ld * below + w_cd * c + b_d)      c = f * c + i * g + d * below
        o = sigm(x W_xo + h W_ho + c W_co + b_o)      h = o * tanh c      (the first layer's d has no w_ld)
        """
        h, c = state
        z = x @ self[f"core.{k}.input.weight"] + masked(h, mask_h) @ self.dropped(f"core.{k}.recurrent.weight")
        z_i, z_o, z_g = (z + self[f"core.{k}.bias"]).chunk(3, dim=-1)
        w_ci, w_co = self.dropped(f"core.{k}.peephole")
        z_d = x @ self[f"core.{k}.depth.weight"] + self[f"core.{k}.depth.bias"] + self[f"core.{k}.depth.peephole"][0] * c
        if k == 0:
            below = x @ self[f"core.{k}.depth.carry.weight"]
        else:
            z_d = z_d + self[f"core.{k}.depth.peephole"][1] * below
        i = torch.sigmoid(z_i + c @ w_ci)
        new = (1 - i) * c + i * torch.tanh(z_g) + masked(torch.sigmoid(z_d), mask_d) * below
        h = torch.sigmoid(z_o + new @ w_co) * torch.tanh(new)
        return h, (h, new)

    def kurata_step(self, k, x, state, mask_h):
        """One time step of layer `k`: an LSTM's, then h = T * H + (1 - T) * h; the mask acts in both products."""
        h, (_, c) = self.lstm_step(k, x, state, mask_h)
        z_h, z_t = (masked(h, mask_h) @ self.dropped(f"core.{k}.highway.weight") + self[f"core.{k}.highway.bias"]).chunk(2, dim=-1)
        t = torch.sigmoid(z_t)
        h = t * torch.tanh(z_h) + (1 - t) * h
        return h, (h, c)

    def gru_step(self, k, x, state, mask_h):
        """One time step of layer `k`: gates r, z, n; the reset gate scales the candidate's product and its bias."""
        (h,) = state
        x_r, x_z, x_n = (x @ self[f"core.{k}.input.weight"] + self[f"core.{k}.input.bias"]).chunk(3, dim=-1)
        recurrent = masked(h, mask_h) @ self.dropped(f"core.{k}.recurrent.weight") + self[f"core.{k}.recurrent.bias"]
        h_r, h_z, h_n = recurrent.chunk(3, dim=-1)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        h = (1 - z) * n + z * h
        return h, (h,)

    # ---- output ----

    def logits(self, y, mask):
        """Numbers whose softmax is p, (B, V), for y of (B, H); of a mixture of softmaxes that is ln p."""
        words = self["embedding.weight"].T if self.config["output"]["tied"] else self["output.weight"]
        if self.config["output"].get("kind", "softmax") == "softmax":
            return y @ words + self["output.bias"]
        pi = torch.softmax(y @ self["output.mixture.weight"], dim=-1)
        u = masked(torch.tanh(y @ self["output.components.weight"] + self["output.components.bias"]), mask)
        p = [torch.softmax(u_k @ words + self["output.bias"], dim=-1) for u_k in u.chunk(pi.shape[1], dim=-1)]
        return torch.log(sum(pi[:, k : k + 1] * p_k for k, p_k in enumerate(p)))

    # ---- the whole ----

    def forward(self, tokens, state, masks=None, vectors=None):
        """(T, B) of types to logits (T, B, V), and the state after the last step.

        `masks`: by name, each optional:
          word (T, B)                           one value a lane and type, looked up for each token
          input.K (B, D) or (T, B, D)           the input of layer K
          hidden.K, hidden_t.K (B, H)           the state inside layer K's products (hidden_t: those of T, if apart)
          depth.K (B, H) or (T, B, H)           the depth gate of layer K
          weights.NAME, as the weight           the recurrent weight NAME, element by element (Merity et al., 2018)
          output (B, H) or (T, B, H)            what the output layer sees
          components (B, K D) or (T, B, K D)    the vectors u_k of a mixture of softmaxes, side by side
        `vectors`: `word_vectors()`, where the caller has them already.
        """
        masks = masks or {}
        self.weight_masks = {key.removeprefix("weights."): mask for key, mask in masks.items() if key.startswith("weights.")}
        table = self.word_vectors() if vectors is None else vectors

        def at(name, step):  # a mask with a time dimension is drawn anew at each step
            mask = masks.get(name)
            return mask[step] if mask is not None and mask.dim() == 3 else mask

        state, logits, given = list(state), [], []
        for step, types in enumerate(tokens):
            x = table[types]
            if "word" in masks:
                x = x * masks["word"][step].unsqueeze(-1)
            for k in range(self.layers):
                x = masked(x, at(f"input.{k}", step))
                mask_h = masks.get(f"hidden.{k}")
                seen, *rest = state[k]
                if "mogrifier" in self.config["core"]:
                    x, seen = self.mogrify(k, x, seen)
                match self.config["core"]["kind"]:
                    case "rhn":
                        x, state[k] = self.rhn_step(k, x, seen, state[k], mask_h, masks.get(f"hidden_t.{k}", mask_h))
                    case "lstm":
                        x, state[k] = self.lstm_step(k, x, (seen, *rest), mask_h)
                    case "gru":
                        x, state[k] = self.gru_step(k, x, state[k], mask_h)
                    case "hlstm":
                        if "stabiliser" in self.config["core"]:
                            x = x * self[f"core.{k}.stabiliser"].exp()
                        below = state[k - 1][1] if k > 0 else None
                        match self.config["core"]["variant"]:
                            case "zhang":
                                x, state[k] = self.hlstm_step(k, x, below, state[k], mask_h, at(f"depth.{k}", step))
                            case "depth-gated":
                                x, state[k] = self.depth_gated_step(k, x, below, state[k], mask_h, at(f"depth.{k}", step))
                            case "kurata":
                                x, state[k] = self.kurata_step(k, x, state[k], mask_h)
            given.append(x)
            logits.append(self.logits(masked(x, at("output", step)), at("components", step)))
        self.given = torch.stack(given)  # (T, B, H): the last layer's outputs, before the output's mask
        return torch.stack(logits), state


def first_maximum(values):
    """The maximum over dimension 0; the gradient goes to the first position that reaches it, and to it alone."""
    first = values.argmax(dim=0, keepdim=True)  # the first of several equal ones
    return values.gather(0, first).squeeze(0)


def nats(logits, targets):
    """-ln p of each target: (T, B)."""
    log_p = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    return -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def window_loss(logits, targets):
    """Summed over the window's steps, averaged over its lanes."""
    return nats(logits, targets).mean(dim=1).sum()
