"""The update of a LoRA layer as one step of autograd that keeps little for the backward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RARE = 0.03
"""Dropout spends 8 random bits on an element, so that a probability is met to within 1 / 512; below
this one 16, to within 1 / 131072."""


class Recompute(NamedTuple):
    """How a tensor that is not kept for the backward pass is made again from others that are."""

    make: Callable[..., Tensor]
    parts: tuple[Tensor, ...]


class LoRAFunction(torch.autograd.Function):
    """The sum y + scale * B A dropout(x), whose backward pass draws the dropout's mask again.

    With g the gradient of the sum, z = scale * A dropout(x) and h = scale * Bᵀ g:

        ∂L/∂y = g    ∂L/∂B = g zᵀ    ∂L/∂A = h dropout(x)ᵀ    ∂L/∂x = dropout(Aᵀ h)

    Kept for the backward pass: x itself, which layers with one input share, or what it is made
    again from; z, r numbers a token; A and B; a seed. Neither a mask, nor a masked copy, nor x, A
    or B in another dtype.

    Shapes:
        y: (..., out), x: (..., in), A: (r, in), B: (out, r) -> (..., out), in y's dtype.

    Products are computed in x's dtype, or in autocast's where it is on; z and h as (r, tokens),
    since products with few rows are up to four times faster on a CPU than those with few columns.
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
        make: Callable[..., Tensor] | None = None,
        *parts: Tensor,
    ) -> Tensor:
        """Add the update; with dropout, draw one seed from torch's CPU generator."""
        # On a GPU too: nothing waits for it, and checkpointing puts this generator back before it
        # computes again, so the same mask returns.
        ctx.seed = int(torch.randint(2**62, (), device="cpu")) if dropout else 0
        ctx.scale, ctx.dropout, ctx.dtype = scale, dropout, _compute_dtype(x)
        with _as_written(x):
            dropped = x.to(ctx.dtype)
            if dropout:
                mask, kept = dropout_mask(x.shape, dropout, ctx.seed, dropped)
                dropped, scale = mask.mul_(dropped), scale / kept
            z = A.to(ctx.dtype) @ _rows(dropped).T * scale
            ctx.make = make
            ctx.save_for_backward(z, A, B, *(parts if make else (x,)))
            # Into y itself, which nobody else wants: two passes fewer over (..., out).
            ctx.mark_dirty(y)
            rows = y.view(-1, y.shape[-1])
            torch.addmm(rows, z.T.to(y.dtype), B.to(y.dtype).T, out=rows)
            return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of y, x, A and B."""
        z, A, B, *parts = ctx.saved_tensors
        x = ctx.make(*parts) if ctx.make else parts[0]
        scale, mask = ctx.scale, None
        of_x = of_A = of_B = None
        with _as_written(x):
            if ctx.dropout:
                mask, kept = dropout_mask(x.shape, ctx.dropout, ctx.seed, z)
                scale = scale / kept
            rows = _rows(g).to(ctx.dtype)
            h = B.to(ctx.dtype).T @ rows.T * scale
            if ctx.needs_input_grad[1]:
                of_x = (h.T @ A.to(ctx.dtype)).view(x.shape)
                of_x = (of_x if mask is None else of_x.mul_(mask)).to(x.dtype)
            if ctx.needs_input_grad[2]:
                dropped = x.to(ctx.dtype)
                dropped = dropped if mask is None else mask.mul_(dropped)
                of_A = (h @ _rows(dropped)).to(A.dtype)
            if ctx.needs_input_grad[3]:
                of_B = (z @ rows).T.to(B.dtype)
        return g, of_x, of_A, of_B, None, None, None, *(None for _ in parts if ctx.make)


def dropout_mask(
    shape: torch.Size, dropout: float, seed: int, like: Tensor
) -> tuple[Tensor, float]:
    """Draw which elements stay: the same for the same seed, whatever else was drawn.

    Args:
        shape: Of the mask.
        dropout: The probability of a zero, in (0, 1).
        seed: Of a generator of its own.
        like: Has the mask's device and dtype.

    Returns:
        Ones and zeros, and the probability of a one, by which what stays is to be divided.
    """
    dtype = torch.int8 if RARE < dropout < 1 - RARE else torch.int16
    levels = 2 ** (8 * dtype.itemsize)
    zeros = min(max(round(dropout * levels), 1), levels - 1)
    # The meta device, on which sizes are worked out without numbers, has nothing to draw.
    generator = None if like.is_meta else torch.Generator(like.device).manual_seed(seed)
    # One draw of 64 bits serves eight elements: twelve times faster on a CPU than bernoulli_.
    count = -(-shape.numel() * dtype.itemsize // 8)
    draws = torch.empty(count, dtype=torch.int64, device=like.device)
    bits = draws.random_(-(2**63), None, generator=generator).view(dtype)
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    torch.ge(bits[: shape.numel()].view(shape), zeros - levels // 2, out=mask)
    return mask, 1 - zeros / levels


def _as_written(x: Tensor) -> AbstractContextManager:
    """Autocast off, so that no product is computed in another dtype than is written."""
    kind = x.device.type
    # Entering autocast only to switch it off would cost a generated token some percent.
    return torch.autocast(kind, enabled=False) if _autocast(kind) else nullcontext()


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if _autocast(kind) else x.dtype


def _autocast(kind: str) -> bool:
    # The meta device knows no autocast.
    return kind != "meta" and torch.is_autocast_enabled(kind)
