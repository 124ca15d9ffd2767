"""A gated MLP that keeps half as much for the backward pass."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.models.llama.modeling_llama import LlamaMLP

from lit.fast_layers.same_code import runs_same_code
from lora.layer import LoRALinear
from lora.lora_function import Recompute
from lora.replacement import Replacement

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


class GatedProduct(torch.autograd.Function):
    """The product act(gate) * up; only gate and up are kept for the backward pass.

    Shapes:
        gate, up: (..., inner) -> (..., inner)
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: nn.Module) -> Tensor:
        """Return act(gate) * up."""
        ctx.save_for_backward(gate, up)
        ctx.act = act
        return act(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of gate and up; the activation is computed again."""
        gate, up = ctx.saved_tensors
        gate = gate.detach().requires_grad_()
        with torch.enable_grad():
            # Not through the module's hooks, which a profiler may have set for forward passes.
            activation = ctx.act.forward(gate)
        (grad_gate,) = torch.autograd.grad(activation, gate, g * up)
        return grad_gate, g * activation.detach(), None


class GatedMLP(Replacement):
    """The MLP down(act(gate(x)) * up(x)); the activation and the product are computed again.

    These two are half of what such an MLP keeps for the backward pass, and cheap to compute. Under
    gradient checkpointing this gains nothing.

    Args:
        mlp: The MLP to replace; its layers are shared.
    """

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        for name in PARTS:
            setattr(self, name, getattr(mlp, name))
        self.training = mlp.training
        # In a tuple, so that its layers are not listed twice.
        self._mlp = (mlp,)

    @classmethod
    def replaces(cls, module: nn.Module) -> bool:
        """Return whether a module is such an MLP and has no other part."""
        return dict(module.named_children()).keys() == set(PARTS) and runs_same_code(
            module, LlamaMLP
        )

    def original(self) -> nn.Module:
        """Return the replaced MLP with the layers that this one has now."""
        (mlp,) = self._mlp
        for name in PARTS:
            setattr(mlp, name, getattr(self, name))
        return mlp.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(act(gate(x)) * up(x))."""
        gate, up, act = self.gate_proj(x), self.up_proj(x), self.act_fn
        if not torch.is_grad_enabled():
            return self.down_proj(act(gate) * up)
        product = GatedProduct.apply(gate, up, act)
        if not isinstance(self.down_proj, LoRALinear):
            return self.down_proj(product)
        again = Recompute(lambda gate, up: act(gate) * up, (gate, up))
        return self.down_proj(product, again)
