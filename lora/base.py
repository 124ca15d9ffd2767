"""The frozen layer below an adapter, whatever class holds its weight, always seen as (out, in).

The one file that knows bitsandbytes, and that imports it only when a layer is quantised.
"""

import copy
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lora.config import ConfigError


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether an adapter can be put on: ``nn.Linear``, its quantised kin, or ``Conv1D``."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether a module keeps its weight as (in, out), as GPT-2's ``Conv1D`` does."""
    # Conv1D belongs to transformers, which this package does not know: ask for what it has.
    return hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def features(base: nn.Linear) -> tuple[int, int]:
    """The layer's (in, out)."""
    if is_transposed(base):
        return base.weight.shape[0], base.weight.shape[1]
    return base.in_features, base.out_features


def quant_state(base: nn.Linear) -> Any:
    """How bitsandbytes stored the weight in 4 bits, or None for a dense weight."""
    return getattr(base.weight, "quant_state", None)


def quantised(base: nn.Linear, kind: str, dtype: torch.dtype) -> nn.Linear:
    """The layer with its weight in 4 bits, double-quantised; it is packed when moved to a device.

    Args:
        base: A dense layer; its weight is not copied.
        kind: ``nf4`` or ``fp4``.
        dtype: What it computes in.

    Raises:
        ConfigError: The layer keeps its weight transposed, which bitsandbytes does not know.

    Reference:
        Dettmers et al., QLoRA, 2023, arXiv:2305.14314.
    """
    if is_transposed(base):
        raise ConfigError("models with transposed layers, like GPT-2, cannot be quantised")
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer = Linear4bit(*features(base), bias=False, compute_dtype=dtype, quant_type=kind)
    layer.weight = Params4bit(base.weight.detach(), requires_grad=False, quant_type=kind)
    layer.bias = base.bias
    # In eval mode bitsandbytes would repack the weight for such a CPU, in place: its scales rounded
    # to bfloat16, widths that 64 does not divide refused, and no gradient from then on.
    layer.support_avx512bf16_for_cpu = False
    return layer


def dense_weight(base: nn.Linear) -> Tensor:
    """The weight as a new float32 tensor of shape (out, in)."""
    weight = base.weight.detach()
    if state := quant_state(base):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight, state).float()
    if not weight.is_floating_point():
        raise TypeError(f"cannot read a weight stored as {weight.dtype}")
    return (weight.T if is_transposed(base) else weight).float().clone()


def with_weight(base: nn.Linear, weight: Tensor) -> nn.Module:
    """A dense copy of the layer with another weight.

    Args:
        base: The layer; left as it is.
        weight: The new weight, (out, in), stored in the dtype the layer computes in.
    """
    if state := quant_state(base):
        dense = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        dense.bias = base.bias
        dtype = state.dtype
    else:
        dense = copy.copy(base)
        # A shallow copy shares the dictionary of parameters with the original.
        dense._parameters = dict(base._parameters)
        dtype = base.weight.dtype
    data = (weight.T if is_transposed(base) else weight).to(dtype).contiguous()
    dense.weight = nn.Parameter(data, requires_grad=False)
    return dense
