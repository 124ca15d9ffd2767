"""The frozen layer below an adapter, whatever class holds its weight, always seen as (out, in).

The one file that knows bitsandbytes, and that imports it only when a layer is quantised.
"""

import copy

import torch
from torch import Tensor, nn


def is_linear(module: nn.Module) -> bool:
    """Whether an adapter can be put on a module: ``nn.Linear``, its quantised kin, or ``Conv1D``."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether a module keeps its weight as (in, out), as GPT-2's ``Conv1D`` does."""
    # Conv1D belongs to transformers, which this package does not know: ask for what it has.
    return hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def features(base: nn.Module) -> tuple[int, int]:
    """The layer's (in, out)."""
    if is_transposed(base):
        rows, columns = base.weight.shape  # type: ignore[union-attr]
        return rows, columns
    return base.in_features, base.out_features  # type: ignore[return-value]


def is_quantised(base: nn.Module) -> bool:
    """Whether the weight is stored in bitsandbytes' 4-bit form."""
    return getattr(base.weight, "quant_state", None) is not None


def dense_weight(base: nn.Module) -> Tensor:
    """The weight as a new float32 tensor of shape (out, in)."""
    weight = base.weight
    if is_quantised(base):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()  # type: ignore[union-attr]
    if not torch.is_floating_point(weight):  # type: ignore[arg-type]
        raise TypeError(f"cannot read a weight stored as {weight.dtype}")
    dense = weight.detach().float()  # type: ignore[operator, union-attr]
    return (dense.T if is_transposed(base) else dense).clone()


def with_weight(base: nn.Module, weight: Tensor) -> nn.Module:
    """A dense copy of the layer with another weight.

    Args:
        base: The layer; left as it is.
        weight: The new weight, (out, in), stored in the dtype the layer computes in.
    """
    old = base.weight
    if is_quantised(base):
        dtype = old.quant_state.dtype  # type: ignore[union-attr]
        dense: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        dense.bias = base.bias  # type: ignore[assignment]
    else:
        dtype = old.dtype
        dense = copy.copy(base)
        # A shallow copy shares the dictionary of parameters with the original.
        dense._parameters = dict(base._parameters)
    data = (weight.T if is_transposed(base) else weight).to(dtype).contiguous()
    dense.weight = nn.Parameter(data, requires_grad=False)
    return dense
