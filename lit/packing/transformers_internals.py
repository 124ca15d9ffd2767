"""Everything that lit uses of transformers' private API.

Written for transformers>=5.23,<6; ``tests/lit/packing/test_transformers_internals.py`` checks each
symbol, and that no other file of lit uses one.
"""

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward


def attention_name(model: PreTrainedModel) -> str:
    """Return the name of the attention that a model is set to."""
    return model.config._attn_implementation


def has_attention_interface(model: PreTrainedModel) -> bool:
    """Return whether a model's layers call a function of transformers' AttentionInterface."""
    return model._can_set_attn_implementation()


def loaded_from(model: PreTrainedModel) -> str:
    """Return the hub name or folder that a model was loaded from."""
    return model.config._name_or_path


def repeat_heads(states: Tensor, groups: int) -> Tensor:
    """Repeat each key or value head, (1, kv_heads, tokens, size) -> (1, heads, tokens, size)."""
    return repeat_kv(states, groups)


def causal_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Return transformers' own scaled dot product attention of one row, (1, tokens, heads, size).

    Args:
        module: The attention layer that asks.
        query: (1, heads, tokens, size).
        key, value: (1, kv_heads, tokens, size).
        mask: (1, 1, tokens, tokens), True where attention is allowed; None for a causal mask.
        dropout: Probability that a weight is zeroed.
        scaling: Factor of the scores; None for 1 / sqrt(size).
    """
    output, _ = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=True
    )
    return output
