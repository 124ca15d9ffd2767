"""The frozen layer under an adapter: read its weight as (out, in), whatever its class is.

Only this file and ``lora.optimizer`` use bitsandbytes. Both import it when they first need it.
"""

import copy
import logging
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora.config import ConfigError
from lora.families.linear import is_transposed
from lora.messages import tr
from lora.replacement import Replacement

QUANTIZATIONS = ("nf4", "fp4", "int8")
INT8_OUTLIER = 6.0
"""LLM.int8() does not round input columns that hold an absolute value of this size or more."""


def features(base: nn.Linear) -> tuple[int, int]:
    """Return the numbers of input and output features."""
    if is_transposed(base):
        return base.weight.shape[0], base.weight.shape[1]
    return base.in_features, base.out_features


def parameter_size(parameter: nn.Parameter) -> int:
    """Return the number of values of a parameter; a 4-bit one stores two in each byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def quant_state(base: nn.Linear) -> Any:
    """Return bitsandbytes' description of a 4-bit weight, or None for any other weight."""
    return getattr(base.weight, "quant_state", None)


def int8_scale(base: nn.Linear) -> Tensor | None:
    """Return the largest absolute value of each row of an 8-bit weight, (out,), or None."""
    scale = getattr(base.weight, "SCB", None)
    if scale is not None:
        return scale
    # The first forward pass moves it from the weight to the layer's state.
    return getattr(getattr(base, "state", None), "SCB", None)


def is_quantized(base: nn.Linear) -> bool:
    """Return whether the weight is stored in 4 or 8 bits."""
    return quant_state(base) is not None or int8_scale(base) is not None


def quantization(base: nn.Linear) -> str | None:
    """Return which of ``QUANTIZATIONS`` the weight is stored in, or None for a dense weight."""
    if state := quant_state(base):
        return state.quant_type
    return None if int8_scale(base) is None else "int8"


def check_quantization(kind: str, device: torch.device, layers: Iterable[nn.Linear] = ()) -> None:
    """Check that layers can be quantized and computed on a device.

    Args:
        kind: What should be one of ``QUANTIZATIONS``.
        device: The device of the quantized layers.
        layers: Dense layers.

    Raises:
        ConfigError: The kind is unknown, bitsandbytes has no such kind of device, or a layer stores
            its weight transposed. What an older GPU lacks, its caller must know.
    """
    if kind not in QUANTIZATIONS:
        raise ConfigError(
            tr(
                "`quantize` is {kind!r}; choose {kinds}",
                kind=kind,
                kinds=", ".join(QUANTIZATIONS),
            )
        )
    if any(is_transposed(layer) for layer in layers):
        raise ConfigError(
            tr(
                "`quantize` is {kind}, and models with transposed layers, like GPT-2, "
                "cannot be quantized: leave `quantize` out",
                kind=kind,
            )
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            tr(
                "`quantize` is {kind}, which is not known to work on {type}: use a CPU or "
                "an NVIDIA GPU, or leave `quantize` out",
                kind=kind,
                type=device.type,
            )
        )


def quantized_layer(base: nn.Linear, kind: str, dtype: torch.dtype) -> nn.Linear:
    """Return the layer with its weight in 4 or 8 bits.

    A 4-bit weight is quantized when the layer is moved to its device.

    Args:
        base: A dense layer; its weight is not copied.
        kind: ``nf4`` or ``fp4``, both with double quantization, or ``int8``. On a GPU, and in eval
            mode on a CPU, ``int8`` also rounds the layer's input to 8 bits, outliers excepted.
        dtype: The dtype to compute in.

    Raises:
        ConfigError: As ``check_quantization``.

    Reference:
        Dettmers et al., QLoRA, 2023, arXiv:2305.14314; LLM.int8(), 2022, arXiv:2208.07339.
    """
    check_quantization(kind, base.weight.device, [base])
    layer = _int8_layer(base) if kind == "int8" else _4_bit_layer(base, kind)
    layer.bias = base.bias
    set_compute_dtype(layer, dtype)
    return layer


def set_compute_dtype(layer: Any, dtype: torch.dtype) -> None:
    """Let a quantized layer compute in a dtype, as this package expects of bitsandbytes' layers.

    Args:
        layer: A layer of bitsandbytes, made by ``quantized_layer`` or by transformers.
        dtype: The dtype to compute in.
    """
    # bitsandbytes warns in every call that it casts the input, which is intended.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    layer.compute_dtype, layer.compute_type_is_set = dtype, True
    # A cycle of layer and weight, which transformers makes, would free a model late.
    layer.weight.module = None
    # On a CPU with AVX512-BF16, bitsandbytes would repack the weight in place in eval mode: scales
    # rounded to bfloat16, widths not divisible by 64 refused, and no gradient from then on.
    layer.support_avx512bf16_for_cpu = False


def _4_bit_layer(base: nn.Linear, kind: str) -> Any:
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer = Linear4bit(*features(base), bias=False, quant_type=kind, device="meta")
    layer.weight = Params4bit(base.weight.detach(), requires_grad=False, quant_type=kind)
    return layer


def _int8_layer(base: nn.Linear) -> Any:
    from bitsandbytes.functional import int8_vectorwise_quant
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    layer = Linear8bitLt(
        *features(base), bias=False, has_fp16_weights=False, threshold=INT8_OUTLIER, device="meta"
    )
    # bitsandbytes quantizes when a weight moves from a CPU to a GPU; on a CPU nothing moves.
    rows, scale, _ = int8_vectorwise_quant(base.weight.detach().half())
    layer.weight = Int8Params(rows, requires_grad=False, CB=rows, SCB=scale)
    return layer


def compute_dtype(base: nn.Linear) -> torch.dtype:
    """Return the dtype that the layer computes in while autocast is off."""
    return getattr(base, "compute_dtype", base.weight.dtype)


def dense_weight(base: nn.Linear) -> Tensor:
    """Return the weight as a new float32 tensor of shape (out, in).

    Raises:
        TypeError: The weight is stored in an unknown format.
    """
    # A faster layer may hold a rounded weight.
    base = cast(nn.Linear, base.original()) if isinstance(base, Replacement) else base
    weight = base.weight.detach()
    if state := quant_state(base):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight, state).float()
    if (scale := int8_scale(base)) is not None:
        return weight.float() * (scale.float() / 127)[:, None]
    if not weight.is_floating_point():
        raise TypeError(tr("cannot read a weight stored as {dtype}", dtype=weight.dtype))
    return (weight.T if is_transposed(base) else weight).float().clone()


def dense_copy(base: nn.Linear, weight: Tensor) -> nn.Module:
    """Return a dense layer like ``base`` with another weight.

    Args:
        base: The layer; it is not changed. A faster layer is copied as the plain one it replaced.
        weight: The new weight, (out, in); it is stored in the dtype the layer computes in.
    """
    plain: nn.Module = base.original() if isinstance(base, Replacement) else base
    if is_quantized(base):
        dense: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        dense.bias = base.bias
    else:
        dense = copy.copy(plain)
        # copy.copy shares the dictionary of parameters with the original.
        dense._parameters = dict(plain._parameters)
    rows = weight.T if is_transposed(base) else weight
    data = rows.to(compute_dtype(base)).contiguous()
    dense.weight = nn.Parameter(data, requires_grad=False)
    return dense
