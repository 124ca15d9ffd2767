"""DoRA: the length of each row of the weight is learned apart from its direction."""

import torch
from torch import Tensor, nn

from lora.base import compute_dtype, dense_weight
from lora.layer import LoRALinear
from lora.lora_function import Recompute


class DoRALinear(LoRALinear):
    """LoRA that learns each output row's length apart from its direction.

        y = gain * (W x + scale * B A dropout(x)) + b
        gain = magnitude / ‖W + scale * B A‖, by row; the norm counts as a constant

    The magnitude starts as ‖W‖, so a new adapter is silent. Beside what LoRA keeps for the
    backward pass, this keeps its output, (..., out), for the magnitude's gradient.

    Reference:
        Liu et al., DoRA, 2024, sections 4.1 and 4.3, arXiv:2402.09353.
    """

    magnitude: nn.Parameter
    squares: Tensor

    def reset(self) -> None:
        """Draw A anew, zero B, and take the magnitude from the weight."""
        super().reset()
        squares = dense_weight(self.base).square().sum(1)
        self.register_buffer("squares", squares, persistent=False)
        self.magnitude = nn.Parameter(squares.sqrt())

    def forward(self, x: Tensor, recompute: Recompute | None = None) -> Tensor:
        """Apply the layer, with its update and its gain unless disabled."""
        y = super().forward(x, recompute)
        if not self.enabled:
            return y
        bias = self.base.bias
        # A gain of exactly one adds exactly nothing.
        return y + (self.gain() - 1).to(y.dtype) * (y if bias is None else y - bias)

    def merged(self) -> Tensor:
        """The weight of the one dense layer that equals this one, (out, in), in float32."""
        return self.gain().detach()[:, None] * super().merged()

    def gain(self) -> Tensor:
        """What each row is multiplied by, (out,), in float32."""
        return self.magnitude / self._norm()

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """The rows' lengths, ‖w + s b A‖² = ‖w‖² + 2 s (w Aᵀ) bᵀ + s² b A Aᵀ bᵀ."""
        # W Aᵀ comes out of the base layer itself: r rows more to compute, and a quantized weight
        # is never made dense.
        A, B, scale = self.lora_A, self.lora_B, self.config.scale
        WA = self.base(A.to(compute_dtype(self.base))).float()
        if self.base.bias is not None:
            WA = WA - self.base.bias.float()
        squares = self.squares + 2 * scale * (WA.T * B).sum(1)
        squares = squares + scale**2 * ((B @ (A @ A.T)) * B).sum(1)
        # A row of zeros has no direction: it stays what it is.
        return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
