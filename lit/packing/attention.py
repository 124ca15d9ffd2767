"""Attention over rows that lie end to end, as a function that transformers calls in each layer."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from lit.device.device import traits
from lit.device.kernels import choose_kernel
from lit.messages import tr
from lit.packing.kernels import UNGROUPED, nested, varlen
from lit.packing.transformers_internals import causal_sdpa, repeat_heads

PACKED = "packed"
"""The name of packed attention in transformers' AttentionInterface."""


class UnpackableError(RuntimeError):
    """A model family needs something of attention that packed attention does not do."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: tuple[int, ...] | None = None,
    cu_seq_lens_q: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Return causal attention within each row; no row sees another.

    Registered with transformers, which calls it in every layer of a model set to ``packed``.

    Shapes:
        query: (1, heads, tokens, size); key, value: (1, kv_heads, tokens, size)
        cu_seq_lens_q: (rows + 1,), int32, on the device; row_lengths has the same as numbers
        -> (1, tokens, heads, size)

    Raises:
        UnpackableError: The family needs more than this, or does not pass row_lengths on.
    """
    if row_lengths is None or cu_seq_lens_q is None or attention_mask is not None:
        raise UnpackableError(
            tr("{type} does not pass the row lengths to attention", type=type(module).__name__)
        )
    if unknown := [name for name in ("position_bias", "s_aux") if kwargs.get(name) is not None]:
        raise UnpackableError(
            tr(
                "{type} needs {unknown} in attention",
                type=type(module).__name__,
                unknown=unknown[0],
            )
        )
    longest = max(row_lengths)
    window = None if sliding_window is None or longest <= sliding_window else sliding_window
    plain = softcap is None and not dropout and _alike(query, key, value)
    device = traits(query.device)
    kernel = choose_kernel(device, query.dtype, query.shape[-1], plain, window)
    if kernel == "varlen":
        return varlen(query, key, value, cu_seq_lens_q, longest, scaling, window), None
    if kernel == "nested":
        return nested(query, key, value, cu_seq_lens_q, longest, scaling), None
    if device.kind == "cuda":
        # Off the flash kernel, CUDA computes grouped heads by whole score matrices.
        key, value = (repeat_heads(part, query.shape[1] // part.shape[1]) for part in (key, value))
        module = UNGROUPED
    outputs = []
    split = (part.split(row_lengths, dim=2) for part in (query, key, value))
    for q, k, v in zip(*split, strict=True):
        length = q.shape[2]
        # The plain causal kernel serves every row that fits into the window.
        seen = None if window is None or length <= window else window
        if softcap is not None:
            outputs.append(_softcapped(q, k, v, scaling, softcap, seen))
        else:
            mask = None if seen is None else _causal_mask(length, seen, q.device)[None, None]
            outputs.append(causal_sdpa(module, q, k, v, mask, dropout, scaling))
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PACKED, packed_attention)


def _alike(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether a kernel for one dtype and one head size can take all three."""
    same_dtype = query.dtype == key.dtype == value.dtype
    return same_dtype and query.shape[-1] == key.shape[-1] == value.shape[-1]


def _causal_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """Return (length, length), True where a token (row) may see another (column)."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < (window or length))


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float, window: int | None
) -> Tensor:
    # No fused kernel caps the scores, so Gemma 2 computes whole score matrices, row by row.
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_heads(k, groups), repeat_heads(v, groups)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    mask = _causal_mask(q.shape[2], window, q.device)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2)
