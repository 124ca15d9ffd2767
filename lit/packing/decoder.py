"""The parts of a causal language model: the decoder that gives hidden states, and its head."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel

from lit.messages import tr
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
        tr(
            "{type} has no part that gives hidden states without logits: this model family "
            "cannot be trained. Choose another model.base",
            type=type(model).__name__,
        )
    )


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Return the layer of a model that makes logits of hidden states.

    Raises:
        ConfigError: It has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError(
            tr(
                "{type} has no output head of one layer: this model family cannot be trained. "
                "Choose another model.base",
                type=type(model).__name__,
            )
        )
    return cast(nn.Linear, head)
