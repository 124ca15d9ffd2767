"""A frozen linear layer that is computed by oneDNN, the faster library on some CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora.replacement import Replacement


class OneDNNFunction(torch.autograd.Function):
    """The product x Wᵀ + b with a frozen weight, computed by oneDNN.

    Kept for the backward pass: W, which exists anyway.

    Shapes:
        x: (..., in), weight: (out, in), bias: (out,) or None -> (..., out), float32
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x Wᵀ + b."""
        ctx.save_for_backward(weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        (weight,) = ctx.saved_tensors
        return product(g, weight.t()), None, None


class OneDNNLinear(Replacement, nn.Linear):
    """A frozen float32 ``nn.Linear`` that oneDNN computes.

    torch computes float32 products on an x86 CPU with MKL, which is fastest on Intel CPUs only: on
    a Zen 4, a training step takes about a tenth longer without oneDNN (benchmarks/RESULTS.md).
    ``lit.fast_layers.library`` says which is faster on a machine.

    Args:
        linear: The layer to replace; its weight and bias are shared.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training

    @classmethod
    def replaces(cls, module: nn.Module) -> bool:
        """Return whether a module is linear, frozen, float32 and on a CPU that has oneDNN."""
        return (
            type(module) is nn.Linear
            and module.weight.device.type == "cpu"
            and module.weight.dtype == torch.float32
            and not any(p.requires_grad for p in module.parameters())
            and not (module._forward_hooks or module._forward_pre_hooks)
            and has_onednn()
        )

    def original(self) -> nn.Linear:
        """Return a plain ``nn.Linear`` with the same weight and bias."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        # The model may have moved to a GPU, or a test may train the weight; under autocast torch
        # chooses the dtype.
        if (
            not (x.is_cpu and x.dtype == self.weight.dtype == torch.float32)
            or x.dim() < 2
            or not x.numel()
            or self.weight.requires_grad
            or torch.is_autocast_enabled("cpu")
        ):
            return F.linear(x, self.weight, self.bias)
        return OneDNNFunction.apply(x, self.weight, self.bias)


def has_onednn() -> bool:
    """Return whether this torch has oneDNN, and the operator that calls it."""
    # The operator belongs to torch's compiler, so a later version may lack it.
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b by oneDNN.

    Shapes:
        x: (..., in), weight: (out, in), bias: (out,) or None -> (..., out), float32
    """
    y = torch.ops.mkldnn._linear_pointwise(x.flatten(0, -2), weight, bias, "none", [], "")
    # As in torch's own layer, the result is not a view, because the adapter writes into it.
    return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], weight.shape[0]])
