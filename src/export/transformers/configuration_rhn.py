"""Configuration of a language model that `rhn export --to transformers` wrote."""

from transformers import PretrainedConfig


class RhnConfig(PretrainedConfig):
    """What fixes the weights' shapes, and the ids that are not ordinary tokens.

    core              settings of the recurrent layers, as in the config.json of `rhn train`
    layer_shapes      for each layer its weights' shapes by name
    embedding_size    values of a token's vector
    hidden_size       what the output layer sees
    components        softmaxes of a mixture; None for a single one
    ignored_token_ids tokens that make no step of the recurrence: padding, and what the trained vocabulary lacks
    trained_vocab_size ids from this one on were added by the export and are never predicted
    """

    model_type = "rhn"

    def __init__(
        self,
        vocab_size=2,
        trained_vocab_size=2,
        embedding_size=1,
        hidden_size=1,
        num_hidden_layers=1,
        core=None,
        layer_shapes=None,
        components=None,
        ignored_token_ids=None,
        use_cache=True,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.trained_vocab_size = trained_vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.core = core or {}
        self.layer_shapes = layer_shapes or []
        self.components = components
        self.ignored_token_ids = ignored_token_ids or []
        self.use_cache = use_cache
        super().__init__(
            tie_word_embeddings=tie_word_embeddings,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            **kwargs,
        )
        # Newer versions of the library do not set these from the line above for a class with its own __init__.
        self.tie_word_embeddings = tie_word_embeddings
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
