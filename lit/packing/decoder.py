"""The parts of a causal language model: the decoder that gives hidden states, and its head."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel

from lora.config import ConfigError
from lora.families.decoder import text_decoder


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model whose first output is the last hidden state of each token.

    Raises:
        ConfigError: It has none that can be called by itself.
    """
    part = text_decoder(model)
    if part is not model:
        return part
    raise ConfigError(
        f"{type(model).__name__} has no part that gives hidden states without logits: this model "
        "family cannot be trained. Choose another model.base"
    )


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Return the layer of a model that makes logits of hidden states.

    Raises:
        ConfigError: It has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError(
            f"{type(model).__name__} has no output head of one layer: this model family cannot be "
            "trained. Choose another model.base"
        )
    return cast(nn.Linear, head)
