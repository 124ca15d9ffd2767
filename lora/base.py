"""The frozen layer below an adapter, whatever class holds its weight, always seen as (out, in).

The one file that knows bitsandbytes, and that imports it only when a layer is quantised.
"""

import copy
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn


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
