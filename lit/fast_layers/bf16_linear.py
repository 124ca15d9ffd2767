"""A frozen linear layer whose products a CPU computes in bfloat16, among layers in float32."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora.replacement import Replacement


class Bf16Function(torch.autograd.Function):
    """The product x Wᵀ + b with a frozen weight: x is rounded to bfloat16, sums are in float32.

    Kept for the backward pass: W, which exists anyway.

    Shapes:
        x: (..., in) float32, weight: (out, in) bfloat16, bias: (out,) float32 or None
        -> (..., out) float32
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x Wᵀ + b."""
        ctx.save_for_backward(weight)
        y = bf16_product(x, weight.t())
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        (weight,) = ctx.saved_tensors
        return bf16_product(g, weight), None, None


class Bf16Linear(Replacement, nn.Linear):
    """A frozen float32 ``nn.Linear`` whose products are computed in bfloat16.

    Everything around it stays in float32: norms, attention, the adapters, the loss. Autocast keeps
    the results in bfloat16 instead, and then attention and copies take what the products gain, and
    more is rounded (benchmarks/RESULTS.md).

    Args:
        linear: The layer to replace. If bfloat16 holds its weight exactly, as for a base that is
            stored in bfloat16, only that is kept; otherwise the float32 weight is kept, too, for
            ``original``.
    """

    compute_dtype = torch.float32

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        rounded = linear.weight.detach().to(torch.bfloat16)
        exact = not linear.weight.is_meta and bool((rounded == linear.weight).all())
        self.weight, self.bias = nn.Parameter(rounded, requires_grad=False), linear.bias
        # In a tuple, so that it is no parameter of this layer.
        self._wide = () if exact else (linear.weight,)
        self.training = linear.training

    @classmethod
    def replaces(cls, module: nn.Module) -> bool:
        """Return whether a module is linear, frozen, float32 and on a CPU, or has no values."""
        return (
            type(module) is nn.Linear
            and module.weight.device.type in ("cpu", "meta")
            and module.weight.dtype == torch.float32
            and not any(p.requires_grad for p in module.parameters())
            and not (module._forward_hooks or module._forward_pre_hooks)
        )

    def kind(self) -> type:
        """Return ``nn.Linear``; ``original`` copies a weight, which this does not need."""
        return nn.Linear

    def original(self) -> nn.Linear:
        """Return a plain ``nn.Linear`` with the weight and the bias of the replaced one."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        (weight,) = self._wide or (nn.Parameter(self.weight.float(), requires_grad=False),)
        linear.weight, linear.bias = weight, self.bias
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, in float32."""
        if x.dim() < 2 or not x.numel():
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        return Bf16Function.apply(x, self.weight, self.bias)


def bf16_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x W: the factors in bfloat16, the result in float32.

    Shapes:
        x: (..., in), weight: (in, out), bfloat16 -> (..., out), float32
    """
    y = torch.mm(x.flatten(0, -2).to(torch.bfloat16), weight).float()
    # As in torch's own layer, the result is not a view, because the adapter writes into it.
    return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], weight.shape[1]])
