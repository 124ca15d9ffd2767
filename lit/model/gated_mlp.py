"""Gated MLPs that keep half as much for the backward pass."""

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora.layer import LoRALinear
from lora.lora_function import Recompute

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


class GatedProduct(torch.autograd.Function):
    """The product act(gate) * up, of which gate and up alone are kept.

    Shapes:
        gate, up: (..., inner) -> (..., inner)
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: nn.Module) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(gate, up)
        ctx.act = act
        return act(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of gate and up; the activation is computed once more."""
        gate, up = ctx.saved_tensors
        gate = gate.detach().requires_grad_()
        with torch.enable_grad():
            # Without the hooks of the module, which a profiler may have set, for forward passes.
            activation = ctx.act.forward(gate)
        (of_gate,) = torch.autograd.grad(activation, gate, g * up)
        return of_gate, g * activation.detach(), None


@torch.no_grad()
def keep_less(model: nn.Module) -> int:
    """Let gated MLPs keep gate and up, not also the activation and its product with up.

    The two are half of what such an MLP keeps, and cheap to make again. An MLP whose own forward
    pass computes anything else than down(act(gate) * up) is left as it is.

    Args:
        model: With adapters, in eval mode. Under gradient checkpointing this gains nothing.

    Returns:
        How many MLPs keep less.
    """
    changed = 0
    for mlp in _gated(model):
        if mlp.gate_proj.weight.is_meta or _is_known(mlp):
            mlp.forward = MethodType(_forward, mlp)
            changed += 1
    return changed


def _gated(model: nn.Module) -> Iterator[Any]:
    """MLPs of these parts and no other, as dropout would be, which shows in training only."""
    for module in model.modules():
        parts = dict(module.named_children())
        if parts.keys() == set(PARTS) and isinstance(parts["gate_proj"], (nn.Linear, LoRALinear)):
            yield module


def _is_known(mlp: Any) -> bool:
    weight, width = mlp.gate_proj.weight, mlp.gate_proj.in_features
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    x = torch.linspace(-2, 2, 2 * width, dtype=dtype, device=weight.device).view(1, 2, width)
    # Some families clamp gate and up, which shows in large numbers only.
    return all(torch.equal(mlp(y), _forward(mlp, y)) for y in (x, 1000 * x))


def _forward(mlp: Any, x: Tensor) -> Tensor:
    gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    act, down = mlp.act_fn, mlp.down_proj
    if not torch.is_grad_enabled():
        return down(act(gate) * up)
    product = GatedProduct.apply(gate, up, act)
    if not isinstance(down, LoRALinear):
        return down(product)
    return down(product, Recompute(lambda gate, up: act(gate) * up, (gate, up)))
