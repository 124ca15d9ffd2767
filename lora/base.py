"""The frozen layer below an adapter, whatever class holds its weight, always seen as (out, in).

The one file that knows bitsandbytes, and that imports it only when a layer is quantized.
"""

import copy
import logging
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lora.config import ConfigError

KINDS = ("nf4", "fp4", "int8")
OUTLIER = 6.0
"""From this size on int8 computes a column of the input unrounded, as LLM.int8() does."""


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether an adapter can be put on: ``nn.Linear``, its quantized kin, or ``Conv1D``."""
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


def is_quantized(base: nn.Linear) -> bool:
    """Whether the weight is held in 4 or 8 bits."""
    return quant_state(base) is not None or int8_scale(base) is not None


def quantized_layer(base: nn.Linear, kind: str, dtype: torch.dtype) -> nn.Linear:
    """The layer with its weight in 4 or 8 bits; those of 4 are packed when moved to a device.

    Args:
        base: A dense layer; its weight is not copied.
        kind: ``nf4`` or ``fp4``, both double-quantized, or ``int8``, which on a GPU, and in eval
            mode, rounds the layer's input to 8 bits too, outliers aside.
        dtype: What it computes in.

    Raises:
        ConfigError: There is no such kind, bitsandbytes cannot compute it on the layer's device,
            or the layer keeps its weight transposed.

    Reference:
        Dettmers et al., QLoRA, 2023, arXiv:2305.14314; LLM.int8(), 2022, arXiv:2208.07339.
    """
    if kind not in KINDS:
        raise ConfigError(f"model.quantize is {kind!r}; there are {', '.join(KINDS)}")
    if is_transposed(base):
        raise ConfigError("models with transposed layers, like GPT-2, cannot be quantized")
    device = base.weight.device
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"model.quantize is {kind}, which is not known to work on {device.type}: use a CPU or "
            "an NVIDIA GPU, or leave model.quantize out"
        )
    if (
        kind == "int8"
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < (7, 5)
    ):
        raise ConfigError(
            f"{torch.cuda.get_device_name(device)} has no 8-bit matrix product (that takes compute "
            "capability 7.5): set model.quantize to nf4"
        )
    # It warns in every call that it computes as it should.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    layer = _int8(base) if kind == "int8" else _in_4_bits(base, kind, dtype)
    layer.bias = base.bias
    layer.compute_dtype = dtype
    return layer


def _in_4_bits(base: nn.Linear, kind: str, dtype: torch.dtype) -> Any:
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer = Linear4bit(
        *features(base), bias=False, compute_dtype=dtype, quant_type=kind, device="meta"
    )
    layer.weight = Params4bit(base.weight.detach(), requires_grad=False, quant_type=kind)
    # In eval mode bitsandbytes would repack the weight for such a CPU, in place: its scales rounded
    # to bfloat16, widths that 64 does not divide refused, and no gradient from then on.
    layer.support_avx512bf16_for_cpu = False
    return layer


def _int8(base: nn.Linear) -> Any:
    from bitsandbytes.functional import int8_vectorwise_quant
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    layer = Linear8bitLt(
        *features(base), bias=False, has_fp16_weights=False, threshold=OUTLIER, device="meta"
    )
    # Moving to a device would round a weight that comes from the CPU, and no other.
    rows, scale, _ = int8_vectorwise_quant(base.weight.detach().half())
    layer.weight = Int8Params(rows, requires_grad=False, CB=rows, SCB=scale)
    return layer


def int8_scale(base: nn.Linear) -> Tensor | None:
    """The largest absolute value of each row of a weight held in 8 bits, (out,), or None."""
    # The first forward moves it from the weight to the layer's state.
    on_weight = getattr(base.weight, "SCB", None)
    return (
        on_weight if on_weight is not None else getattr(getattr(base, "state", None), "SCB", None)
    )


def compute_dtype(base: nn.Linear) -> torch.dtype:
    """What the layer computes in, where autocast does not say."""
    return getattr(base, "compute_dtype", base.weight.dtype)


def dense_weight(base: nn.Linear) -> Tensor:
    """The weight as a new float32 tensor of shape (out, in)."""
    weight = base.weight.detach()
    if state := quant_state(base):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight, state).float()
    if (scale := int8_scale(base)) is not None:
        return weight.float() * (scale.float() / 127)[:, None]
    if not weight.is_floating_point():
        raise TypeError(f"cannot read a weight stored as {weight.dtype}")
    return (weight.T if is_transposed(base) else weight).float().clone()


def dense_copy(base: nn.Linear, weight: Tensor) -> nn.Module:
    """A dense copy of the layer with another weight.

    Args:
        base: The layer; left as it is.
        weight: The new weight, (out, in), stored in the dtype the layer computes in.
    """
    if is_quantized(base):
        dense = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        dense.bias = base.bias
    else:
        dense = copy.copy(base)
        # A shallow copy shares the dictionary of parameters with the original.
        dense._parameters = dict(base._parameters)
    rows = weight.T if is_transposed(base) else weight
    data = rows.to(compute_dtype(base)).contiguous()
    dense.weight = nn.Parameter(data, requires_grad=False)
    return dense
