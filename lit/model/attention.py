"""Attention over rows laid end to end: packed where the model's family can, else row by row."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from data.types import Batch

PACKED = "packed"
_own: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
"""The attention that packed models were loaded with; not every family can take every other."""


class UnpackableError(RuntimeError):
    """A model's family asks attention for something that packed attention does not do."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Causal attention within each row, so that no row sees another.

    Registered with transformers, which calls it in every layer of a model set to ``packed``.

    Shapes:
        query: (1, heads, tokens, size); key, value: (1, kv_heads, tokens, size)
        cu_seq_lens_q: (rows + 1,) borders, on the CPU
        -> (1, tokens, heads, size)

    Raises:
        UnpackableError: The family wants more than this, or does not hand the borders through.
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        raise UnpackableError(f"{type(module).__name__} does not hand on the borders of rows")
    if odd := [name for name in ("position_bias", "s_aux") if kwargs.get(name) is not None]:
        raise UnpackableError(f"{type(module).__name__} needs {odd[0]} in attention")
    lengths = cu_seq_lens_q.diff().tolist()
    outputs = []
    for q, k, v in zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True):
        length = q.shape[2]
        # The plain causal kernel serves every row that the window does not cut.
        window = None if sliding_window is None or length <= sliding_window else sliding_window
        if softcap is not None:
            output = _softcapped(q, k, v, scaling, softcap, window)
        else:
            mask = None if window is None else _causal(length, window, q.device)[None, None]
            output, _ = sdpa_attention_forward(
                module, q, k, v, mask, dropout=dropout, scaling=scaling, is_causal=True
            )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PACKED, packed_attention)


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The last hidden state of every token, (1, tokens, hidden), no row seeing another."""
    if model.config._attn_implementation != PACKED:
        # Exact for every family, as each row is alone; slower, as matrix products are smaller.
        rows = batch.input_ids.split(batch.cu_seqlens.diff().tolist(), dim=1)
        return torch.cat([model.base_model(input_ids=row, use_cache=False)[0] for row in rows], 1)
    output = model.base_model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        cu_seq_lens_q=batch.cu_seqlens,
        cu_seq_lens_k=batch.cu_seqlens,
        max_length_q=batch.max_seqlen,
        max_length_k=batch.max_seqlen,
        use_cache=False,
    )
    return output[0]


@torch.no_grad()
def pack(model: PreTrainedModel, batch: Batch) -> str | None:
    """Set a model to packed attention if it then computes what it computes row by row.

    Args:
        model: Set to packed attention, or left as it is; its adapters may be on it.
        batch: A few rows to compare on.

    Returns:
        None when packed; otherwise why not, for the user to read.
    """
    was_training = model.training
    model.eval()
    before = model.config._attn_implementation
    if before != PACKED:
        _own[model] = before
    alone = hidden_states(model, batch)
    try:
        model.set_attn_implementation(PACKED)
        together = hidden_states(model, batch)
        reason = _difference(alone.float(), together.float())
    except UnpackableError as error:
        reason = str(error)
    if reason is not None:
        model.set_attn_implementation(before)
    model.train(was_training)
    return reason


@contextmanager
def unpacked(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model with transformers' own attention for the length of a ``with`` block."""
    before = model.config._attn_implementation
    if before == PACKED:
        model.set_attn_implementation(_own.get(model, "sdpa"))
    try:
        yield model
    finally:
        model.set_attn_implementation(before)


def _difference(alone: Tensor, together: Tensor) -> str | None:
    # Rounding differs between batch shapes by some units in the last place of the dtype.
    off = ((alone - together).norm() / alone.norm()).item()
    return None if off < 0.02 else f"its packed rows differ by {off:.1%} from single rows"


def _causal(length: int, window: int | None, device: torch.device) -> Tensor:
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < (window or length))


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float, window: int | None
) -> Tensor:
    # No fused kernel caps the scores, so Gemma 2 pays for whole score matrices, row by row.
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    mask = _causal(q.shape[2], window, q.device)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2)
