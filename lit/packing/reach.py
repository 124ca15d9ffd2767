"""What the layers of a model see of a long row, learned from a short one.

A window of thousands of tokens is felt in no row that is short enough to check a model on. But
transformers makes every mask from a function of two positions, which can be asked about any: in
this kind of attention a mask is a number, how many tokens a far token sees, and each layer must
have told packed attention the same.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lit.messages import tr
from lit.packing.attention import UnpackableError, packed_attention
from lit.packing.decoder import decoder_of

PROBED = "packed, probed"
"""The name of this attention in transformers' AttentionInterface."""
FAR = 1 << 18
"""A position beyond every window."""
NEAR = 3
"""So many far tokens are asked. A window moves from one to the next, and a chunk does not."""


@torch.no_grad()
def check_reach(model: PreTrainedModel, input_ids: Tensor) -> None:
    """Check that packed attention knows how far each layer of a model sees, in rows of any length.

    Args:
        model: Its attention is set to another kind afterwards; the caller sets it back.
        input_ids: (1, tokens), one short row.

    Raises:
        UnpackableError: A layer sees other tokens than packed attention would show it.
    """
    model.set_attn_implementation(PROBED)
    decoder_of(model)(input_ids=input_ids, use_cache=False)


def _seen(*, mask_function: Callable[..., Any], device: torch.device, **given: object) -> Tensor:
    """Return how many tokens a far token sees, its own included; FAR for all before it.

    transformers calls it in place of making a mask.

    Shape:
        -> (1, 1, 1, 1), int64, as few as a mask may have.

    Raises:
        UnpackableError: What it sees is no window that moves with it.
    """
    if _holds_tokens(mask_function):
        raise UnpackableError(tr("its attention depends on what the tokens are"))
    zero = torch.zeros((), dtype=torch.int64, device=device)
    key = torch.arange(FAR, device=device)
    windows = []
    for query in range(FAR - NEAR, FAR):
        seen = mask_function(zero, zero, torch.tensor(query, device=device), key).expand(FAR)
        count = int(seen.sum())
        if not bool(seen[query + 1 - count : query + 1].all()):
            raise UnpackableError(tr("its attention has a pattern that is no window"))
        windows.append(FAR if count == query + 1 else count)
    if len(set(windows)) > 1:
        raise UnpackableError(tr("its attention sees chunks of a row, and no window that moves"))
    return torch.full((1, 1, 1, 1), windows[0], device=device)


def _holds_tokens(function: Callable[..., Any]) -> bool:
    """Return whether a mask's function reads a value for each token, which far ones have not."""
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    values = [value for cell in cells for value in (cell if isinstance(cell, tuple) else [cell])]
    return any(
        value.numel() > 1 if isinstance(value, Tensor) else callable(value) and _holds_tokens(value)
        for value in values
    )


def _probed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Return packed attention of one row, if it would see in a long row what the mask shows."""
    layer = type(module).__name__
    if attention_mask is None:
        raise UnpackableError(
            tr("{layer} does not make its mask by transformers' functions", layer=layer)
        )
    if attention_mask.shape != (1, 1, 1, 1) or attention_mask.dtype != torch.int64:
        raise UnpackableError(tr("{layer} changes its mask", layer=layer))
    seen, told = int(attention_mask), sliding_window or FAR
    if seen != told:
        names = [
            tr("all tokens") if n == FAR else tr("a window of {number:,} tokens", number=n)
            for n in (seen, told)
        ]
        raise UnpackableError(
            tr(
                "{layer} sees {seen}, but asks attention for {told}",
                layer=layer,
                seen=names[0],
                told=names[1],
            )
        )
    length = query.shape[2]
    return packed_attention(
        module,
        query,
        key,
        value,
        None,
        sliding_window=sliding_window,
        row_lengths=(length,),
        cu_seq_lens_q=torch.tensor([0, length], dtype=torch.int32, device=query.device),
        **given,
    )


AttentionInterface.register(PROBED, _probed_attention)
AttentionMaskInterface.register(PROBED, _seen)
