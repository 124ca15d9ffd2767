"""Causal attention within each of several rows by one call, for devices that have a kernel."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nested import nested_tensor_from_jagged

from lit.packing.transformers_internals import repeat_heads


class _Ungrouped(nn.Module):
    num_key_value_groups = 1


UNGROUPED = _Ungrouped()
"""Stands in for an attention layer whose keys and values are repeated already."""


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    scaling: float | None = None,
    window: int | None = None,
    keys: tuple[Tensor, int] | None = None,
) -> Tensor:
    """Return attention by torch's flash kernel for variable lengths.

    Args:
        query: (1, heads, tokens, size).
        key, value: (1, kv_heads, keys, size); as many as tokens, unless ``keys`` is given.
        cu_seqlens: (rows + 1,), int32; where rows begin.
        longest: Tokens of the longest row.
        scaling: Factor of the scores; None for 1 / sqrt(size).
        window: Tokens that a token sees, itself included; None for all before it.
        keys: Where the keys of each row begin, (rows + 1,), int32, and the most keys of a row; the
            queries are the last of the keys, as the kernel's causal mask has it. None for as many
            keys as queries.

    Returns:
        (1, tokens, heads, size).
    """
    # Its import registers operators, which takes half a second, and few devices have the kernel.
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    cu_keys, most_keys = keys or (cu_seqlens, longest)
    output = varlen_attn(
        q,
        k,
        v,
        cu_seqlens,
        cu_keys,
        longest,
        most_keys,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return cast(Tensor, output)[None]


def nested(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    scaling: float | None = None,
) -> Tensor:
    """Return attention through jagged nested tensors, which have no window; the rest is equal."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (
        nested_tensor_from_jagged(
            part[0].transpose(0, 1), cu_seqlens, min_seqlen=1, max_seqlen=longest
        ).transpose(1, 2)
        for part in (query, repeat_heads(key, groups), repeat_heads(value, groups))
    )
    output = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return output.transpose(1, 2).values()[None]
