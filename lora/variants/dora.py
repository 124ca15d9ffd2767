"""DoRA: learns the length of each row of the weight apart from its direction."""

import torch
from torch import Tensor, nn

from lora.base import compute_dtype, dense_weight
from lora.layer import LoRALinear
from lora.lora_function import Recompute


class DoRALinear(LoRALinear):
    """LoRA that learns the length of each output row apart from its direction.

        y = gain * (W x + scale * B A dropout(x)) + b
        gain = magnitude / ‖W + scale * B A‖, by row; the norm is treated as a constant

    The magnitude starts as ‖W‖, so a new adapter changes nothing. Besides what LoRA keeps for the
    backward pass, DoRA keeps its output, (..., out), for the gradient of the magnitude.

    Reference:
        Liu et al., DoRA, 2024, sections 4.1 and 4.3, arXiv:2402.09353.
    """

    magnitude: nn.Parameter
    squares: Tensor
    """‖w‖² of each row of W, (out,)."""

    def reset(self) -> None:
        """Draw A, set B to zero, and set the magnitude to the length of each row."""
        super().reset()
        squares = dense_weight(self.base).square().sum(1)
        self.register_buffer("squares", squares, persistent=False)
        self.magnitude = nn.Parameter(squares.sqrt())

    def forward(self, x: Tensor, recompute: Recompute | None = None) -> Tensor:
        """Return gain * (W x + scale * B A dropout(x)) + b, or base(x) while disabled."""
        y = super().forward(x, recompute)
        if not self.enabled:
            return y
        bias = self.base.bias
        # Under autocast the bias is float32 and y is not.
        product = y if bias is None else y - bias.to(y.dtype)
        # Written as a difference, so that a gain of exactly 1 changes no bit.
        return y + (self.gain() - 1).to(y.dtype) * product

    def merged_weight(self) -> Tensor:
        """Return gain * (W + scale * B A), (out, in), float32."""
        return self.gain().detach()[:, None] * super().merged_weight()

    def gain(self) -> Tensor:
        """Return the factor of each row, (out,), float32."""
        return self.magnitude / self._row_norms()

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        """Return ‖W + scale * B A‖ of each row, (out,), without building that matrix.

        For a row w of W, a row b of B and s = scale, the squared norm is

            ‖w‖² + 2 s (w Aᵀ) bᵀ + s² b A Aᵀ bᵀ
        """
        # Called with the r rows of A as its input, the base layer returns A Wᵀ. So nothing here
        # reads W, and a quantized W is never dequantized as a whole.
        A, B, scale = self.lora_A, self.lora_B, self.config.scale
        AW = self.base(A.to(compute_dtype(self.base))).float()
        if self.base.bias is not None:
            AW = AW - self.base.bias.float()
        squares = self.squares + 2 * scale * (AW.T * B).sum(1)
        squares = squares + scale**2 * ((B @ (A @ A.T)) * B).sum(1)
        # A row of zeros has norm 0; the lower bound keeps its gain finite.
        return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
