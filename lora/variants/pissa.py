"""PiSSA: the update starts as the principal part of the weight."""

import torch
from torch import Tensor

from lora.base import dense_weight
from lora.config import ConfigError
from lora.layer import LoRALinear
from lora.messages import tr


class PiSSALinear(LoRALinear):
    """LoRA whose A and B start as the r largest singular directions of the weight.

        y = (W - scale * B₀ A₀) x + scale * B A x      B₀ A₀ = the best rank-r part of W / scale

    The base stays W, dense or quantized. The layer computes, drops out and saves the difference
    from it, as an ordinary LoRA of rank 2r that fits the original base:

        scale * (B A - B₀ A₀) = scale * [B - B₀, B₀] [A; A - A₀]

    B - B₀ and A - A₀ are exactly zero at the start, so a new adapter changes no bit.

    Raises:
        ConfigError: r is larger than the smaller side of the weight.

    Reference:
        Meng et al., PiSSA, 2024, arXiv:2404.02948.
    """

    # Weight decay would shrink A and B to zero, where the layer would lack its principal part.
    DECAYED = ()

    start_A: Tensor
    start_B: Tensor
    """A₀ and B₀."""

    @torch.no_grad()
    def reset(self) -> None:
        """Compute A and B from the weight; about a second for 2048 × 2048 on one core."""
        A, B = _principal_factors(dense_weight(self.base), self.config.r)
        for letter, start in (("A", A), ("B", B)):
            start = start / self.config.scale**0.5
            self.register_buffer(f"start_{letter}", start, persistent=False)
            self.get_parameter(f"lora_{letter}").copy_(start)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (2r, in) and B (out, 2r) of B A - B₀ A₀, the difference from the base."""
        A = torch.cat([self.lora_A, self.lora_A - self.start_A])
        return A, torch.cat([self.lora_B - self.start_B, self.start_B], dim=1)


def _principal_factors(weight: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return A (r, in) and B (out, r) whose product B A is the best rank-r fit of a weight.

    Row i of A and column i of B have the same norm: the root of singular value i.
    """
    if r > min(weight.shape):
        raise ConfigError(
            tr(
                "`r` is {r}, but a layer of shape {shape} has {most} singular "
                "directions: lower `r` for variant pissa",
                r=r,
                shape=tuple(weight.shape),
                most=min(weight.shape),
            )
        )
    tall = weight.shape[0] >= weight.shape[1]
    weight = weight if tall else weight.T
    # The eigenvectors of WᵀW are the singular vectors of W, in a third of the time of an SVD.
    squares = weight.T @ weight
    # MPS has no kernel for eigenvectors.
    squares = squares.cpu() if squares.device.type == "mps" else squares
    vectors = torch.linalg.eigh(squares).eigenvectors.to(weight.device)
    directions = vectors[:, -r:].flip(1)
    # An eigenvector has no sign of its own; another library or card may choose the other one, and
    # a run that resumes there must find the same A and B.
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    projected = weight @ directions
    lengths = projected.norm(dim=0).sqrt().clamp_min(torch.finfo(weight.dtype).tiny)
    left, right = projected / lengths, (directions * lengths).T
    return (right, left) if tall else (left.T.contiguous(), right.T.contiguous())
