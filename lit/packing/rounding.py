"""How far hidden states may be apart that differ by rounding alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora.base import int8_scale, is_quantized
from lora.families.linear import is_linear

ROUNDING = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}
"""The relative difference that rounding may cause between products of other shapes."""
TF32 = 2e-3
"""The same for float32, where a person allowed an NVIDIA GPU to round its inputs."""


def tolerance(model: PreTrainedModel, states: Tensor) -> float:
    """Return the relative difference that rounding may cause in hidden states of a model."""
    dtypes = [states.dtype, model.dtype]
    if torch.is_autocast_enabled(states.device.type):
        dtypes.append(torch.get_autocast_dtype(states.device.type))
    layers = [layer for layer in model.modules() if is_linear(layer)]
    if any(is_quantized(layer) for layer in layers):
        dtypes.append(torch.bfloat16)  # an 8-bit layer rounds its input too
    # Some layers of a float32 model may compute in bfloat16.
    dtypes += {layer.weight.dtype for layer in layers}
    precise = torch.get_float32_matmul_precision() == "highest"
    return max(0 if precise else TF32, *(ROUNDING.get(dtype, 0.0) for dtype in dtypes))


def difference(expected: Tensor, states: Tensor, lengths: tuple[int, ...]) -> float:
    """Return the largest relative difference of a row; NaN if any number is.

    Args:
        expected, states: (1, tokens, hidden).
        lengths: Tokens of each row.
    """
    rows = zip(*(x[0].float().split(lengths) for x in (expected, states)), strict=True)
    return float(torch.stack([(row - other).norm() / row.norm() for row, other in rows]).max())


@contextmanager
def rounded_alone(model: PreTrainedModel) -> Iterator[None]:
    """Let 8-bit layers round each token by itself in a ``with`` block.

    Otherwise they do not round an input column in which any token of the call has an outlier, so a
    token changes how others are rounded, those before it and those of other rows included. That is
    as large as what a check looks for.
    """
    layers = (layer for layer in model.modules() if is_linear(layer))
    states: list[Any] = [layer.state for layer in layers if int8_scale(layer) is not None]
    thresholds = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold
