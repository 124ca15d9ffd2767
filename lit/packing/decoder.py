"""The parts of a causal language model: the decoder that gives hidden states, and its head."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel

from lora.config import ConfigError


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model whose first output is the last hidden state of each token.

    Raises:
        ConfigError: It has none that can be called by itself.
    """
    named = model.base_model
    if named is not model:
        return named
    # Llama 4 and Mllama name another part than they have, and base_model is then the whole model.
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for child in model.children():
        parts = list(child.modules())
        if len(parts) > 1 and embedding in parts and head not in parts:
            return child
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
