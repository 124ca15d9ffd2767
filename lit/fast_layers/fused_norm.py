"""A frozen root mean square norm as one autograd function, with fewer passes over memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from lit.fast_layers.same_code import runs_same_code
from lora.replacement import Replacement

KNOWN_NORMS = (LlamaRMSNorm, Olmo2RMSNorm)
"""Classes that compute w * x / sqrt(mean(x²) + eps); other families have copies of their code."""


class RMSNormFunction(torch.autograd.Function):
    """The norm w * x / sqrt(mean(x²) + eps) with a frozen weight w.

    With s = 1 / sqrt(mean(x²) + eps) and g the gradient of the norm:

        ∂L/∂x = s (g * w) - s³ x mean(g * w * x)

    Kept for the backward pass: x, and s, which has one number for each token.

    Shapes:
        x: (..., width), weight: (width,) -> (..., width), float32
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return the normalized input."""
        s = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        s = s.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, s)
        return (x * s).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        x, weight, s = ctx.saved_tensors
        grad_x = g * weight
        along = torch.linalg.vecdot(grad_x, x).unsqueeze(-1).mul_(s**3).div_(-x.shape[-1])
        return grad_x.mul_(s).addcmul_(x, along), None, None


class FusedRMSNorm(Replacement):
    """A frozen float32 root mean square norm on a CPU, in one step of autograd.

    Args:
        norm: The norm to replace; its weight is shared.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight = norm.weight
        self.variance_epsilon: float = norm.variance_epsilon
        self.training = norm.training
        # In a tuple, so that its parameters are not listed twice.
        self._norm = (norm,)

    @classmethod
    def replaces(cls, module: nn.Module) -> bool:
        """Return whether a module is a frozen norm of a known formula, in float32 on a CPU."""
        return (
            any(runs_same_code(module, known) for known in KNOWN_NORMS)
            and dict(module.named_parameters()).keys() == {"weight"}
            and isinstance(getattr(module, "variance_epsilon", None), float)
            and module.weight.device.type == "cpu"
            and module.weight.dtype == torch.float32
            and not module.weight.requires_grad
        )

    def original(self) -> nn.Module:
        """Return the replaced norm with the current weight."""
        (norm,) = self._norm
        norm.weight = self.weight
        return norm.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return w * x / sqrt(mean(x²) + eps)."""
        weight = self.weight
        # The model may have moved to a GPU; autocast would round the products inside.
        if (
            not (x.is_cpu and x.dtype == weight.dtype == torch.float32)
            or weight.requires_grad
            or torch.is_autocast_enabled("cpu")
        ):
            return functional_call(self._norm[0], {"weight": weight}, (x,))
        return RMSNormFunction.apply(x, weight, self.variance_epsilon)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows of it."""
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"
