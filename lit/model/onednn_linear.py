"""Products with frozen weights, by the faster of the two libraries that torch has on a CPU."""

from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPUS = Path("/proc/cpuinfo")
"""Where Linux names the maker of a CPU."""


class FrozenProduct(torch.autograd.Function):
    """The layer x Wᵀ + b of a weight that does not train, computed by oneDNN.

    Kept for the backward pass: W, which is there anyway.

    Shapes:
        x: (..., in), weight: (out, in), bias: (out,) or None -> (..., out), float32
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of x."""
        (weight,) = ctx.saved_tensors
        return _product(g, weight.t(), None), None, None


def hasten(model: nn.Module) -> int:
    """Let a model's frozen dense layers be computed by oneDNN where that is faster.

    torch computes float32 on a CPU by MKL, which does its best on Intel's only: on a Zen 4 a
    training step takes about a tenth longer without oneDNN (benchmarks/RESULTS.md).

    Args:
        model: What of it trains, or is not float32 on a CPU, stays as it is.

    Returns:
        How many layers were changed.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and _suits(layer)]
    if not (layers and _faster()):
        return 0
    for layer in layers:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(layers)


def _suits(layer: nn.Linear) -> bool:
    weight = layer.weight
    dense = weight.device.type == "cpu" and weight.dtype == torch.float32
    return dense and not any(p.requires_grad for p in layer.parameters())


def _faster() -> bool:
    # The operator is torch's own, made for its compiler: a later version may lack it.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and CPUS.is_file() and "AuthenticAMD" in CPUS.read_text(errors="replace")


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    # The model may have moved to a GPU since, or a trained weight stand in for the frozen one;
    # under autocast it is torch that chooses the dtype.
    ours = x.is_cpu and x.dtype == torch.float32 and x.dim() > 1 and x.numel()
    if not ours or layer.weight.requires_grad or torch.is_autocast_enabled("cpu"):
        return F.linear(x, layer.weight, layer.bias)
    return FrozenProduct.apply(x, layer.weight, layer.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.ops.mkldnn._linear_pointwise(x.flatten(0, -2), weight, bias, "none", [], "")
    # As torch's own layer does: no view, since the adapter writes into it.
    return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], weight.shape[0]])
