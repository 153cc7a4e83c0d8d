"""Recurrent language models that `rhn export --to transformers` wrote: RHN, LSTM, GRU and highway LSTMs.

Every matrix is stored [in, out], so that y = x W + b, but for the output layer, which is an `nn.Linear`. A token makes a
step of the recurrence where `attention_mask` is 1 and the token is none of `config.ignored_token_ids`; elsewhere the state
stays as it is. So padding on either side changes nothing.

  RHN      Zilly et al., 2017, arXiv 1607.03474; shared gates as Lu and Renals, 2016
  GRU      Cho et al., 2014, arXiv 1406.1078, with the two biases of torch.nn.GRU
  MoS      Yang et al., 2018, arXiv 1711.03953: a mixture of softmaxes over one table
  Mogrifier  Melis et al., 2020, arXiv 1909.01792: input and state gate each other before the cell
  HLSTM    Zhang et al., 2016, arXiv 1510.08983; Yao et al., 2015, arXiv 1508.03790; Kurata et al., 2017, arXiv 1709.06436
"""

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_rhn import RhnConfig

TIED = {"lm_head.weight": "embedding.weight"}
AT_LEAST_5 = int(transformers.__version__.split(".")[0]) >= 5


class Weights(nn.Module):
    """Weights by name; a dot leads to weights inside weights."""

    def __init__(self, shapes):
        super().__init__()
        inside = {}
        for name, shape in shapes.items():
            head, _, rest = name.partition(".")
            if rest:
                inside.setdefault(head, {})[rest] = shape
            else:
                self.register_parameter(name, nn.Parameter(torch.empty(*shape)))
        for name, shapes in inside.items():
            self.add_module(name, Weights(shapes))

    def has(self, name):
        return name in self._parameters or name in self._modules

    def gated(self, x, h):
        """Input and state after they have gated each other in turn, if the layer is a Mogrifier."""
        gates_of_rounds = self.mogrifier._modules if self.has("mogrifier") else {}
        for index in range(len(gates_of_rounds)):  # by number: the names are sorted as text, "10" before "2"
            gate = gates_of_rounds[str(index)]
            source, gates = (h, x) if index % 2 == 0 else (x, h)
            z = source @ gate.weight if gate.has("weight") else source @ gate.down.weight @ gate.up.weight
            gates = 2 * torch.sigmoid(z + gate.bias) * gates
            x, h = (gates, h) if index % 2 == 0 else (x, gates)
        return x, h


class RhnLayer(Weights):
    """h = tanh(...), t = sigmoid(...), s = s + t (h - s), or with a carry gate of its own s = h t + s c; L times a step."""

    def state_sizes(self):
        return [self.recurrent.weight.shape[1]]

    def inputs(self, xs, below):
        return (xs if self.has("mogrifier") else self.project(xs),)

    def project(self, xs):
        return xs @ self.input.weight

    def step(self, inputs, state):
        s = state[0]
        x, seen = self.gated(inputs[0], s)  # by the products of the first sublayer; the carry sees the state as it is
        x = self.project(x) if self.has("mogrifier") else x
        for sublayer, (weight, bias) in enumerate(zip(self.recurrent.weight, self.bias)):
            seen = s if sublayer > 0 else seen
            z = seen @ weight + bias
            if self.has("shared"):  # of the gates, the same in every sublayer
                z = torch.cat([z, seen @ self.shared.weight + self.shared.bias], dim=-1)
            if sublayer == 0:
                z = z + x
            h, t, *carry = z.split(s.shape[-1], dim=-1)
            h, t = torch.tanh(h), torch.sigmoid(t)
            s = h * t + s * torch.sigmoid(carry[0]) if carry else s + t * (h - s)
        return (s,)


class LstmLayer(Weights):
    """Gates i, o, f, g; two bias vectors, which are added."""

    def state_sizes(self):
        return [self.recurrent.weight.shape[0]] * 2

    def inputs(self, xs, below):
        return (xs if self.has("mogrifier") else self.project(xs),)

    def project(self, xs):
        return xs @ self.input.weight + (self.input.bias + self.recurrent.bias)

    def step(self, inputs, state):
        x, h = self.gated(inputs[0], state[0])
        x = self.project(x) if self.has("mogrifier") else x
        c = state[1]
        i, o, f, g = (x + h @ self.recurrent.weight).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class KurataLayer(LstmLayer):
    """An LSTM whose output goes through a highway layer, and from there up and into the next step."""

    def step(self, inputs, state):
        h, c = super().step(inputs, state)
        candidate, t = (h @ self.highway.weight + self.highway.bias).chunk(2, dim=-1)
        t = torch.sigmoid(t)
        return t * torch.tanh(candidate) + (1 - t) * h, c


class GruLayer(Weights):
    """Gates r, z, n; the reset gate scales the candidate's product with its bias."""

    def state_sizes(self):
        return [self.recurrent.weight.shape[0]]

    def inputs(self, xs, below):
        return (xs @ self.input.weight + self.input.bias,)

    def step(self, inputs, state):
        (h,) = state
        x_r, x_z, x_n = inputs[0].chunk(3, dim=-1)
        h_r, h_z, h_n = (h @ self.recurrent.weight + self.recurrent.bias).chunk(3, dim=-1)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return ((1 - z) * n + z * h,)


class HighwayLstmLayer(Weights):
    """Gates i, o, f, g, or i, o, g where f is 1 - i; the lower layer's cell, or a product of the input, comes in by a gate."""

    def cells(self):
        gates = 3 if self.coupled() else 4
        return self.bias.shape[0] // gates

    def coupled(self):
        # The input's columns are three or four times the cells; the output has as many units unless it is projected.
        outputs = self.recurrent.weight.shape[0]
        cells = self.projection.weight.shape[0] if self.has("projection") else outputs
        return self.bias.shape[0] == 3 * cells

    def state_sizes(self):
        return [self.recurrent.weight.shape[0], self.cells()]

    def inputs(self, xs, below):
        gates = xs @ self.input.weight + self.bias
        if not self.has("depth"):
            return (gates,)
        seen = xs @ self.depth.weight + self.depth.bias
        if self.depth.has("carry"):
            return gates, seen, xs @ self.depth.carry.weight
        if self.depth.has("peephole"):
            seen = seen + below * self.depth.peephole[1]
        return gates, seen, below

    def peek(self, z, index, cell):
        """`z`, and what peephole `index` shows of the cell."""
        if not self.has("peephole"):
            return z
        weight = self.peephole[index]
        return z + (cell @ weight if weight.dim() == 2 else cell * weight)

    def step(self, inputs, state):
        h, c = state
        coupled = self.coupled()
        z_i, z_o, *z_f, z_g = (inputs[0] + h @ self.recurrent.weight).split(self.cells(), dim=-1)
        i = torch.sigmoid(self.peek(z_i, 0, c))
        f = 1 - i if coupled else torch.sigmoid(self.peek(z_f[0], 1, c))
        cell = f * c + i * torch.tanh(z_g)
        if len(inputs) > 1:
            d = inputs[1]
            if self.depth.has("peephole"):
                d = d + c * self.depth.peephole[0]
            cell = cell + torch.sigmoid(d) * inputs[2]
        h = torch.sigmoid(self.peek(z_o, 1 if coupled else 2, cell)) * torch.tanh(cell)
        if self.has("projection"):
            h = h @ self.projection.weight
        return h, cell


LAYERS = {
    "rhn": RhnLayer,
    "lstm": LstmLayer,
    "gru": GruLayer,
    "zhang": HighwayLstmLayer,
    "depth-gated": HighwayLstmLayer,
    "kurata": KurataLayer,
}


class RhnState:
    """What the recurrence carries: for each layer its parts, (batch, units) each. `generate` hands it from call to call."""

    is_compileable = False
    is_croppable = False  # a step cannot be undone

    def __init__(self, layers, seen):
        self.layers = layers
        self.seen = seen

    def get_seq_length(self, layer_idx=0):
        """How many tokens were read, padding included."""
        return self.seen

    def get_max_cache_shape(self, *args):
        return -1  # there is no limit

    def batch_select_indices(self, indices):
        """Keeps the rows `indices` of the batch, in that order."""
        self.layers = [tuple(part.index_select(0, indices.to(part.device)) for part in layer) for layer in self.layers]

    def reorder_cache(self, beam_idx):
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats):
        self.layers = [tuple(part.repeat_interleave(repeats, dim=0) for part in layer) for layer in self.layers]


class RhnForCausalLM(PreTrainedModel, GenerationMixin):
    """A recurrent language model; state in and out as `past_key_values`."""

    config_class = RhnConfig
    main_input_name = "input_ids"
    _is_stateful = True
    _tied_weights_keys = TIED if AT_LEAST_5 else list(TIED)

    def __init__(self, config):
        super().__init__(config)
        kind = config.core.get("kind", "rhn")
        layer = LAYERS[config.core.get("variant", "zhang") if kind == "hlstm" else kind]
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.core = nn.ModuleList(layer(shapes) for shapes in config.layer_shapes)
        if config.components:
            self.components = nn.Linear(config.hidden_size, config.components * config.embedding_size)
            self.mixture = nn.Linear(config.hidden_size, config.components, bias=False)
        self.lm_head = nn.Linear(config.embedding_size if config.components else config.hidden_size, config.vocab_size)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, output_loading_info=False, **kwargs):
        """As the base class, but a weight that is missing or does not fit is an error, not a warning."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        wrong = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(kind)}
        if wrong:
            raise ValueError(f"the weights do not belong to this model: {wrong}")
        return (model, info) if output_loading_info else model

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            if not getattr(parameter, "_is_hf_initialized", False):
                parameter.data.uniform_(-0.1, 0.1)

    def get_input_embeddings(self):
        return self.embedding

    def set_input_embeddings(self, value):
        self.embedding = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def zero_state(self, batch):
        """The state before the first token."""
        like = self.lm_head.bias
        return RhnState([tuple(like.new_zeros(batch, size) for size in layer.state_sizes()) for layer in self.core], 0)

    def prepare_inputs_for_generation(
        self, input_ids, attention_mask=None, cache=None, past_key_values=None, use_cache=None, inputs_embeds=None, **kwargs
    ):
        state = cache if cache is not None else past_key_values
        inputs = {"attention_mask": attention_mask, "use_cache": use_cache}
        if state is None and inputs_embeds is not None:  # `input_ids` are then what was generated after them
            return {**inputs, "inputs_embeds": torch.cat([inputs_embeds, self.embedding(input_ids)], dim=1)}
        if state is not None:
            # The tokens that the state has not seen.
            new = max(input_ids.shape[1] - state.get_seq_length(), 1) if inputs_embeds is None else 1
            input_ids = input_ids[:, -new:]
        return {**inputs, "input_ids": input_ids, "past_key_values": state}

    def _reorder_cache(self, past_key_values, beam_idx):
        past_key_values.reorder_cache(beam_idx)
        return past_key_values

    def steps(self, input_ids, attention_mask, like):
        """(time, batch, 1) of bool, where a step is made; None if everywhere."""
        batch, time = like.shape[:2]
        made = torch.ones(batch, time, dtype=torch.bool, device=like.device)
        if attention_mask is not None:
            made = attention_mask[:, -time:].to(like.device) != 0
        if input_ids is not None and self.config.ignored_token_ids:
            made = made & ~torch.isin(input_ids, torch.tensor(self.config.ignored_token_ids, device=input_ids.device))
        return None if bool(made.all()) else made.transpose(0, 1).unsqueeze(-1)

    def run(self, layer, xs, below, state, made):
        """One layer over all time steps: outputs and cells, (time, batch, units) each, and the state after the last."""
        inputs = layer.inputs(xs, below)
        outputs, cells = [], []
        for time in range(xs.shape[0]):
            after = layer.step([part[time] for part in inputs], state)
            if made is not None:
                after = tuple(torch.where(made[time], new, old) for new, old in zip(after, state))
            state = after
            outputs.append(state[0])
            cells.append(state[-1])
        return torch.stack(outputs), torch.stack(cells), state

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        past_key_values=None,
        cache=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        num_items_in_batch=None,
        **kwargs,
    ):
        """(batch, time) of ids to logits (batch, time, vocabulary).

        `labels` are the `input_ids` themselves: position t is predicted from what comes before it; -100 is not counted.
        The loss is the mean nats of a label, or their sum over `num_items_in_batch`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("wanted input_ids or inputs_embeds, one of them")
        if inputs_embeds is None:
            inputs_embeds = self.embedding(input_ids)
        if inputs_embeds.shape[1] == 0:
            raise ValueError("there is no token to read: begin a text with the tokenizer's bos_token")
        state = cache if cache is not None else past_key_values
        state = self.zero_state(inputs_embeds.shape[0]) if state is None else state
        made = self.steps(input_ids, attention_mask, inputs_embeds)
        xs = inputs_embeds.transpose(0, 1)
        below, after, seen = None, [], [inputs_embeds]
        for layer, entering in zip(self.core, state.layers):
            xs, below, left = self.run(layer, xs, below, entering, made)
            after.append(left)
            seen.append(xs.transpose(0, 1))
        ys = seen[-1]
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep > 0 else slice(None)
        logits = self.logits(ys[:, logits_to_keep if torch.is_tensor(logits_to_keep) else kept])
        loss = self.nats(logits, labels, num_items_in_batch) if labels is not None else None
        use_cache = self.config.use_cache if use_cache is None else use_cache
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=RhnState(after, state.seen + xs.shape[0]) if use_cache else None,
            hidden_states=tuple(seen) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    def logits(self, ys):
        """(..., hidden) to (..., vocabulary): ln p of a mixture, in f32."""
        if not self.config.components:
            return self.lm_head(ys)
        vectors = torch.tanh(self.components(ys)).unflatten(-1, (self.config.components, -1))
        prior = self.mixture(ys).float().log_softmax(-1).unsqueeze(-1)
        return torch.logsumexp(prior + self.lm_head(vectors).float().log_softmax(-1), dim=-2)

    def nats(self, logits, labels, num_items_in_batch):
        """The loss of `labels`, in f32: the sums of half precision would be wrong."""
        predicted = logits[:, :-1].float().flatten(0, 1)
        targets = labels[:, 1:].to(logits.device).flatten()
        if num_items_in_batch is None:
            return F.cross_entropy(predicted, targets)
        return F.cross_entropy(predicted, targets, reduction="sum") / num_items_in_batch
