"""Attention over rows that lie end to end, as a function that transformers calls in each layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Seen:
    """What each segment sees where rows share beginnings: those that it continues, and itself.

    Args:
        paths: The segments that each segment sees, its own last.
        tokens: (keys,) where the tokens lie that the segments see, segment by segment.
        cu_seqlens: (segments + 1,), int32; where those of each segment begin.
        longest: The most tokens that a segment sees.
    """

    paths: tuple[tuple[int, ...], ...]
    tokens: Tensor
    cu_seqlens: Tensor
    longest: int
    _biases: dict[tuple[object, ...], Tensor] = field(default_factory=dict, repr=False)

    def bias(self, queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
        """Return what is added to the scores of a segment's tokens, (1, 1, queries, keys).

        The layers of a model get one tensor: each would keep its own for the backward pass.
        """
        key = queries, keys, window, like.dtype, like.device
        if key not in self._biases:
            allowed = _causal_mask(queries, keys, window, like.device)
            bias = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
            self._biases[key] = bias.masked_fill_(~allowed, -torch.inf)[None, None]
        return self._biases[key]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: tuple[int, ...] | None = None,
    cu_seq_lens_q: Tensor | None = None,
    seen: Seen | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Return causal attention within each row; no row sees another.

    Registered with transformers, which calls it in every layer of a model set to ``packed``.

    Args:
        module: The attention layer that asks.
        query: (1, heads, tokens, size).
        key, value: (1, kv_heads, tokens, size).
        attention_mask: None.
        row_lengths: Tokens of each segment: of each row, where rows share no beginning.
        cu_seq_lens_q: (segments + 1,), int32, on the device; the same.
        seen: What each segment sees; None for itself alone.
        scaling: Factor of the scores; None for 1 / sqrt(size).
        sliding_window: Tokens that a token sees, itself included; None for all before it.
        softcap: The cap on scores; None for none.
        dropout: Probability that a weight is zeroed.
        **kwargs: What transformers passes besides.

    Returns:
        (1, tokens, heads, size), and None for the weights.

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
    longest = seen.longest if seen else max(row_lengths)
    window = None if sliding_window is None or longest <= sliding_window else sliding_window
    plain = softcap is None and not dropout and _alike(query, key, value)
    device = traits(query.device)
    kernel = choose_kernel(device, query.dtype, query.shape[-1], plain, window, bool(seen))
    if kernel == "varlen":
        most = max(row_lengths)
        if seen is None:
            return varlen(query, key, value, cu_seq_lens_q, most, scaling, window), None
        key, value = (part.index_select(2, seen.tokens) for part in (key, value))
        keys = seen.cu_seqlens, longest
        return varlen(query, key, value, cu_seq_lens_q, most, scaling, window, keys), None
    if kernel == "nested":
        return nested(query, key, value, cu_seq_lens_q, longest, scaling), None
    if device.kind == "cuda":
        # Off the flash kernel, CUDA computes grouped heads by whole score matrices.
        key, value = (repeat_heads(part, query.shape[1] // part.shape[1]) for part in (key, value))
        module = UNGROUPED
    outputs = []
    split = [part.split(row_lengths, dim=2) for part in (query, key, value)]
    for number, q in enumerate(split[0]):
        path = seen.paths[number] if seen else (number,)
        k, v = (_joined(part, path) if seen else part[number] for part in split[1:])
        # The plain causal kernel serves every row that fits into the window.
        near = None if window is None or k.shape[2] <= window else window
        if softcap is not None:
            outputs.append(_softcapped(q, k, v, scaling, softcap, near))
            continue
        if len(path) > 1 and seen:
            bias = seen.bias(q.shape[2], k.shape[2], near, q)
            outputs.append(_biased(q, k, v, bias, dropout, scaling))
            continue
        length = q.shape[2]
        mask = None if near is None else _causal_mask(length, length, near, q.device)[None, None]
        outputs.append(causal_sdpa(module, q, k, v, mask, dropout, scaling))
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PACKED, packed_attention)


def _alike(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether a kernel for one dtype and one head size can take all three."""
    same_dtype = query.dtype == key.dtype == value.dtype
    return same_dtype and query.shape[-1] == key.shape[-1] == value.shape[-1]


def _joined(parts: Sequence[Tensor], path: tuple[int, ...]) -> Tensor:
    """Return a copy of the keys or values of some segments, (1, heads, tokens, size)."""
    # A copy of one segment too: the backward pass would keep all of what it is a view of.
    return torch.cat([parts[i] for i in path], 2)


def _causal_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return (queries, keys), True where a token (row) may see another (column).

    The queries are the last of the keys.
    """
    position = torch.arange(keys, device=device)
    distance = position[keys - queries :, None] - position[None, :]
    return (distance >= 0) & (distance < (window or keys))


def _biased(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, scaling: float | None
) -> Tensor:
    if q.device.type not in ("cpu", "meta"):
        groups = q.shape[1] // k.shape[1]
        k, v = repeat_heads(k, groups), repeat_heads(v, groups)
    # transformers would repeat grouped heads on a CPU too, whose kernel takes them as they are.
    grouped = q.shape[1] != k.shape[1]
    output = F.scaled_dot_product_attention(
        q, k, v, bias, dropout_p=dropout, scale=scaling, enable_gqa=grouped
    )
    return output.transpose(1, 2)


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float, window: int | None
) -> Tensor:
    # No fused kernel caps the scores, so Gemma 2 computes whole score matrices, row by row.
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_heads(k, groups), repeat_heads(v, groups)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    mask = _causal_mask(q.shape[2], k.shape[2], window, q.device)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2)
