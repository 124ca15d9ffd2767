"""The LoRA formula as one autograd function that keeps few tensors for the backward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lora.dropout import draw_seed, dropout_mask


class Recompute(NamedTuple):
    """How to compute a tensor again in the backward pass, from tensors that are kept anyway."""

    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


def lean_sum(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    scale: float,
    dropout: float,
    recompute: Recompute | None = None,
) -> Tensor:
    """Return y + scale * B A dropout(x); autograd keeps fewer tensors than for the plain formula.

    Args:
        y: (..., out), output of the base layer; it is overwritten.
        x: (..., in), input of the layer.
        A: (r, in).
        B: (out, r).
        scale: Factor of the update.
        dropout: Probability of a zero.
        recompute: How the backward pass computes x again; without it, x is kept.
    """
    # The sum is written into y. Autograd forbids that for a view, such as a slice of a fused layer.
    y = y.clone() if y._is_view() else y
    function, inputs = recompute or (None, ())
    return LoRAFunction.apply(y, x, A, B, scale, dropout, function, *inputs)


class LoRAFunction(torch.autograd.Function):
    """The sum y + scale * B A dropout(x); its backward pass draws the dropout mask again.

    With g the gradient of the sum, z = scale * A dropout(x) and h = scale * Bᵀ g:

        ∂L/∂y = g    ∂L/∂B = g zᵀ    ∂L/∂A = h dropout(x)ᵀ    ∂L/∂x = dropout(Aᵀ h)

    Kept for the backward pass: x, which layers with the same input share, or the tensors that x is
    recomputed from; z, which has r numbers for each token; A and B; a seed. Not kept: the mask, a
    masked copy of x, and copies of x, A or B in another dtype.

    Shapes:
        y: (..., out), x: (..., in), A: (r, in), B: (out, r) -> (..., out), in the dtype of y.

    ``apply`` takes y, x, A, B, scale, dropout and, to recompute x as ``function(*inputs)`` in the
    backward pass, function and inputs.

    Products are computed in the dtype of x, or in autocast's dtype where autocast is on. The code
    stores z and h as (r, tokens): on a CPU, products with few rows are up to four times faster than
    products with few columns.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        A: Tensor,
        B: Tensor,
        scale: float,
        dropout: float,
        function: Callable[..., Tensor] | None = None,
        *inputs: Tensor,
    ) -> Tensor:
        """Add scale * B A dropout(x) to y in place."""
        ctx.seed = draw_seed() if dropout else 0
        ctx.scale, ctx.dropout, ctx.dtype = scale, dropout, _compute_dtype(x)
        with _without_autocast(x):
            dropped = x.to(ctx.dtype)
            if dropout:
                mask, kept = dropout_mask(x.shape, dropout, ctx.seed, dropped)
                dropped, scale = mask.mul_(dropped), scale / kept
            z = A.to(ctx.dtype) @ _rows(dropped).T * scale
            ctx.function = function
            ctx.save_for_backward(z, A, B, *(inputs if function else (x,)))
            # No other code reads y, so writing into it saves two passes over (..., out).
            ctx.mark_dirty(y)
            rows = y.view(-1, y.shape[-1])
            torch.addmm(rows, z.T.to(y.dtype), B.to(y.dtype).T, out=rows)
            return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of y, x, A and B."""
        z, A, B, *inputs = ctx.saved_tensors
        x = ctx.function(*inputs) if ctx.function else inputs[0]
        scale, mask = ctx.scale, None
        grad_x = grad_A = grad_B = None
        with _without_autocast(x):
            if ctx.dropout:
                mask, kept = dropout_mask(x.shape, ctx.dropout, ctx.seed, z)
                scale = scale / kept
            rows = _rows(g).to(ctx.dtype)
            h = B.to(ctx.dtype).T @ rows.T * scale
            if ctx.needs_input_grad[1]:
                grad_x = (h.T @ A.to(ctx.dtype)).view(x.shape)
                grad_x = (grad_x if mask is None else grad_x.mul_(mask)).to(x.dtype)
            if ctx.needs_input_grad[2]:
                dropped = x.to(ctx.dtype)
                dropped = dropped if mask is None else mask.mul_(dropped)
                grad_A = (h @ _rows(dropped)).to(A.dtype)
            if ctx.needs_input_grad[3]:
                grad_B = (z @ rows).T.to(B.dtype)
        return g, grad_x, grad_A, grad_B, None, None, None, *(None for _ in inputs if ctx.function)


def _without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context in which every product keeps the dtype of its factors."""
    device = x.device.type
    # Entering autocast only to switch it off would cost a generated token a few percent.
    return torch.autocast(device, enabled=False) if _autocast_is_on(device) else nullcontext()


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if _autocast_is_on(device) else x.dtype


def _autocast_is_on(device: str) -> bool:
    # Asking for the autocast state of the meta device is an error.
    return device != "meta" and torch.is_autocast_enabled(device)
